"""The objective of a fit, drawn. matplotlib is imported when a picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skem.display._checks import Display, counted, is_density, unwrapped
from skem.display._style import LINES, MARKERS, color_of, full_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ObjectiveDisplay"]

FEW = 40  # curves of more iterations have no markers


class ObjectiveDisplay(Display):
    """The objective of a fit after each iteration.

    It is what the fit maximizes, or losses that two networks minimize, or a score of held-out
    rows.

    Parameters
    ----------
    curves : dict of str to array-like of shape (n_iter,)
        The values after each iteration, by the name of the curve.
    iterations : dict of str to array-like of shape (n_iter,), default=None
        The iterations of the curves; those of the others are 1, 2, ...
    estimator_name : str, default=None
        Name of the estimator, for the labels.
    objective_name : str, default="objective (nats per sample)"
        Label of the axis. A nat is the unit of natural logarithms.
    balance : float, default=None
        A value to compare with: the loss of a discriminator that cannot tell rows apart.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.
    lines_ : list of matplotlib.lines.Line2D
        The curves.

    See Also
    --------
    ObjectiveDisplay.from_estimator : Plot what a fitted estimator keeps of its fit.
    ObjectiveDisplay.from_history : Plot what a callback has recorded.

    Examples
    --------
    >>> from skem import ObjectiveDisplay, ShiftedTemplateEM
    >>> from skem.datasets import make_shifted_templates
    >>> data = make_shifted_templates(50, random_state=0)
    >>> model = ShiftedTemplateEM(image_shape=data.image_shape).fit(data.X)
    >>> display = ObjectiveDisplay.from_estimator(model)
    """

    def __init__(
        self,
        curves: Mapping[str, ArrayLike],
        *,
        iterations: Mapping[str, ArrayLike] | None = None,
        estimator_name: str | None = None,
        objective_name: str = "objective (nats per sample)",
        balance: float | None = None,
    ) -> None:
        self.curves = {name: np.asarray(values) for name, values in curves.items()}
        self.iterations = {
            name: np.arange(1, len(values) + 1) for name, values in self.curves.items()
        }
        for name, numbers in (iterations or {}).items():
            self.iterations[name] = np.asarray(numbers)
        self.estimator_name = estimator_name
        self.objective_name = objective_name
        self.balance = balance

    def _about(self) -> str:
        parts = [] if self.estimator_name is None else [self.estimator_name]
        for name, values in self.curves.items():
            if len(values):
                parts.append(f"{name}: {counted(len(values), 'value')}, last {values[-1]:.4g}")
        return "; ".join(parts)

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Plot what a fitted estimator keeps of its fit.

        Parameters
        ----------
        estimator : estimator, or a pipeline or search that ends in one
            Fitted. Of ``BayesianGMM_MAP`` and ``ShiftedTemplateEM``, ``lower_bounds_`` is
            drawn. Of ``VAEEstimator``, the bound of training and validation rows. Of
            ``GANEstimator``, the losses of both networks. Of ``BernoulliRBMCD`` with
            ``early_stopping``, the pseudo-log-likelihood of validation rows.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.plot``.

        Returns
        -------
        ObjectiveDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If the estimator keeps no curve. ``BernoulliRBMCD`` keeps none without
            ``early_stopping``, because its objective takes longer than training.
        """
        model = unwrapped(estimator).model
        check_is_fitted(model)
        name = type(model).__name__
        curves: dict[str, Any] = {}
        options: dict[str, Any] = {}
        validation = getattr(model, "validation_scores_", None)
        validation = list(validation) if validation is not None and is_density(model) else []
        if hasattr(model, "lower_bounds_"):
            curves["objective"] = model.lower_bounds_
        elif hasattr(model, "discriminator_loss_curve_"):
            curves["discriminator"] = model.discriminator_loss_curve_
            curves["generator"] = model.generator_loss_curve_
            options = {"objective_name": "loss (nats per sample)", "balance": 2 * np.log(2)}
        elif hasattr(model, "loss_curve_"):
            curves["training"] = -np.asarray(model.loss_curve_)
            if validation:  # of the last fit, where the curve goes on from earlier ones
                first = len(curves["training"]) - len(validation) + 1
                options["iterations"] = {"validation": first + np.arange(len(validation))}
                curves["validation"] = validation
        elif validation:
            curves["validation"] = validation
            options["objective_name"] = "pseudo-log-likelihood (nats per sample)"
        else:
            raise TypeError(
                f"{name} keeps no curve of its fit: fit it with early_stopping=True if it has "
                "this parameter, or record a score with skem.History and call "
                "ObjectiveDisplay.from_history."
            )
        return cls(curves, estimator_name=name, **options).plot(ax=ax, **kwargs)

    @classmethod
    def from_history(cls, history: Any, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Plot what a callback has recorded, with a curve for each fit.

        Parameters
        ----------
        history : History or EarlyStopping
            The callback, after a fit.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.plot``.

        Returns
        -------
        ObjectiveDisplay
            The display, drawn.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skem import BernoulliRBMCD, History, ObjectiveDisplay
        >>> X = (load_digits().data > 7).astype(float)
        >>> history = History(X[1500:], scoring=lambda m, X: m.pseudo_log_likelihood(X).mean())
        >>> model = BernoulliRBMCD(16, n_iter=5, random_state=0).set_callbacks(history)
        >>> model = model.fit(X[:1500])
        >>> display = ObjectiveDisplay.from_history(history)
        """
        records = getattr(history, "records", None)
        if not isinstance(records, list):
            raise TypeError(
                f"{cls.__name__}.from_history needs a History or EarlyStopping, but it was "
                f"given {type(history).__name__}, which has no records."
            )
        if not records:
            raise ValueError(
                f"the {type(history).__name__} has no records: fit an estimator with it first, "
                "in this process."
            )
        scores, iterations = {}, {}
        for number in sorted({record["fit"] for record in records}):
            own = [record for record in records if record["fit"] == number]
            label = f"fit {number}"
            scores[label] = [record["score"] for record in own]
            iterations[label] = [record["iteration"] for record in own]
        label = _score_name(getattr(history, "scoring", None))
        display = cls(scores, iterations=iterations, objective_name=label)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.plot``.

        Returns
        -------
        ObjectiveDisplay
            This display.
        """
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        self.lines_: list[Any] = []
        for i, (name, values) in enumerate(self.curves.items()):
            style = {"linestyle": LINES[i % len(LINES)], "color": color_of(i), "markersize": 4}
            style["marker"] = MARKERS[i % len(MARKERS)] if len(values) <= FEW else ""
            options = {"label": self._label(name), **style, **full_names(kwargs, "plot")}
            self.lines_ += ax.plot(self.iterations[name], values, **options)
        if self.balance is not None:
            label = "discriminator cannot tell rows apart"
            ax.axhline(self.balance, color="0.4", ls=":", lw=1, label=label)
        ax.set(xlabel="iteration", ylabel=self.objective_name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.ticklabel_format(axis="y", useOffset=False)
        if any(line.get_label()[:1] not in ("", "_") for line in self.lines_):
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _label(self, name: str) -> str | None:
        """Return the label of a curve; that of the objective is the name of the estimator."""
        if self.estimator_name is None:
            return name if len(self.curves) > 1 else None
        own = self.estimator_name
        return own if name == "objective" else f"{own}: {name}"


def _score_name(scoring: Any) -> str:
    """Return the label of the scores of a callback."""
    if scoring is None:
        return "score (nats per sample)"
    name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "<lambda>")
    return "score" if name == "<lambda>" else name
