"""The objective of a fit, drawn. matplotlib is imported when a picture is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ObjectiveDisplay"]


class ObjectiveDisplay:
    """The objective of a fit after each iteration.

    Parameters
    ----------
    lower_bounds : array-like of shape (n_iter,)
        The objective, in nats (units of natural logarithm) per sample.
    estimator_name : str, default=None
        Label of the curve.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.
    line_ : matplotlib.lines.Line2D
        The curve.

    See Also
    --------
    ObjectiveDisplay.from_estimator : Plot the history of a fitted estimator.

    Examples
    --------
    >>> from skem import ObjectiveDisplay, ShiftedTemplateEM
    >>> from skem.datasets import make_shifted_templates
    >>> data = make_shifted_templates(50, random_state=0)
    >>> model = ShiftedTemplateEM(image_shape=data.image_shape).fit(data.X)
    >>> display = ObjectiveDisplay.from_estimator(model)
    """

    def __init__(self, lower_bounds: ArrayLike, *, estimator_name: str | None = None) -> None:
        self.lower_bounds = np.asarray(lower_bounds)
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Plot the history of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted, with ``lower_bounds_`` or ``loss_curve_``.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.plot``.

        Returns
        -------
        ObjectiveDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        name = type(estimator).__name__
        if hasattr(estimator, "lower_bounds_"):
            bounds = np.asarray(estimator.lower_bounds_)
        elif hasattr(estimator, "loss_curve_"):
            bounds = -np.asarray(estimator.loss_curve_)
        else:
            raise TypeError(
                f"{name} has neither lower_bounds_ nor loss_curve_: record its score with "
                "skem.History, and give that to ObjectiveDisplay."
            )
        return cls(bounds, estimator_name=name).plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the curve.

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
        options = {"marker": ".", "label": self.estimator_name, **kwargs}
        iterations = np.arange(1, len(self.lower_bounds) + 1)
        (line,) = ax.plot(iterations, self.lower_bounds, **options)
        ax.set(xlabel="iteration", ylabel="objective (nats per sample)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.ticklabel_format(axis="y", useOffset=False)
        if options["label"]:
            ax.legend(loc="lower right")
        self.line_, self.ax_, self.figure_ = line, ax, ax.figure
        return self
