"""The choice of a parameter, drawn. matplotlib is imported when a picture is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skem.display._checks import Display, counted, is_density, unwrapped
from skem.display._style import LINES, MARKERS, color_of, full_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CriterionDisplay"]

WIDE = 100  # from this ratio of the largest value to the smallest on, the axis is logarithmic


class CriterionDisplay(Display):
    """Criteria over the values of a parameter, such as the number of components.

    The value that each criterion chooses has a star.

    Parameters
    ----------
    values : sequence of shape (n_values,)
        The values of the parameter: numbers in increasing order, or anything else.
    criteria : dict of str to array-like of shape (n_values,)
        The value of each criterion, by the name of the criterion.
    chosen : dict of str to object
        The value of the parameter that each criterion chooses.
    errors : dict of str to array-like of shape (n_values,), default=None
        Standard errors, by the name of the criterion.
    param_name : str, default="n_components"
        Label of the parameter.
    criterion_name : str, default="criterion"
        Label of the criteria.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.
    lines_ : list of matplotlib.lines.Line2D
        The curves.
    estimators_ : list of estimators
        The fitted model for each value, from ``from_estimator`` only.

    See Also
    --------
    CriterionDisplay.from_estimator : Fit a model for each value, and plot BIC and ICL.
    CriterionDisplay.from_search : Plot the held-out score of a fitted search.
    sklearn.model_selection.ValidationCurveDisplay : Scores of training and held-out rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skem import BayesianGMM_MAP, CriterionDisplay
    >>> X = load_iris().data
    >>> model = BayesianGMM_MAP(prior="empirical", random_state=0)
    >>> display = CriterionDisplay.from_estimator(model, X, param_range=range(1, 5))
    >>> display.chosen["bic"]
    2
    """

    estimators_: list[Any]

    def __init__(
        self,
        values: Sequence[Any],
        criteria: Mapping[str, ArrayLike],
        chosen: Mapping[str, Any],
        *,
        errors: Mapping[str, ArrayLike] | None = None,
        param_name: str = "n_components",
        criterion_name: str = "criterion",
    ) -> None:
        self.values = list(values)
        self.criteria = {name: np.asarray(curve) for name, curve in criteria.items()}
        self.chosen = dict(chosen)
        self.errors = {name: np.asarray(error) for name, error in (errors or {}).items()}
        self.param_name = param_name
        self.criterion_name = criterion_name

    def _about(self) -> str:
        chosen = [f"{name} chooses {value!r}" for name, value in self.chosen.items()]
        values = counted(len(self.values), "value")
        return f"{values} of {self.param_name}: {', '.join(chosen)}"

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        param_name: str = "n_components",
        param_range: Iterable[Any] = range(1, 9),
        criteria: str | Sequence[str] = ("bic", "icl"),
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Fit a clone for each value of a parameter, and plot information criteria.

        Parameters
        ----------
        estimator : BayesianGMM_MAP, or another estimator with the methods in ``criteria``
            It need not be fitted, and is not changed. The steps of a pipeline before the
            last are fitted once. For a ``LatentImputer``, these are its model and the encoding
            of categories.
        X : array-like of shape (n_samples, n_features)
            The rows that are fitted, and that the criteria are computed on.
        param_name : str, default="n_components"
            A parameter of the estimator, or of the last step of a pipeline.
        param_range : iterable, default=range(1, 9)
            Its values.
        criteria : str or sequence of str, default=("bic", "icl")
            Methods of the estimator that take X and return a number; lower is better.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.errorbar``.

        Returns
        -------
        CriterionDisplay
            The display, drawn. Its ``estimators_`` are the fitted models.
        """
        if hasattr(estimator, "cv_results_"):
            raise TypeError(
                f"{cls.__name__}.from_estimator fits a model for each value, but it was given "
                f"a fitted {type(estimator).__name__}: use {cls.__name__}.from_search."
            )
        if hasattr(estimator, "encode"):  # an imputer, whose fit knows the categories
            estimator = clone(estimator).fit(X)
        model, before = unwrapped(estimator)
        criteria = (criteria,) if isinstance(criteria, str) else criteria
        for name in criteria:
            if not hasattr(model, name):
                raise TypeError(
                    f"{cls.__name__} needs an estimator with the methods {tuple(criteria)}, "
                    f"but it was given {type(model).__name__}, which has no {name}: use "
                    f"{cls.__name__}.from_search for its held-out score, or other criteria."
                )
        if param_name not in model.get_params():
            raise ValueError(
                f"param_name must be a parameter of {type(model).__name__}, but it is "
                f"{param_name!r}."
            )
        rows: Any = X
        for step in before:
            rows = clone(step).fit_transform(rows)
        values = [_plain(value) for value in param_range]
        if not values:
            raise ValueError("param_range must hold at least one value, but it is empty.")
        fits = [clone(model).set_params(**{param_name: value}).fit(rows) for value in values]
        curves = {name: [getattr(fit, name)(rows) for fit in fits] for name in criteria}
        best = {name: values[int(np.argmin(curve))] for name, curve in curves.items()}
        label = "criterion (lower is better)"
        display = cls(values, curves, best, param_name=param_name, criterion_name=label)
        display.estimators_ = fits
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_search(
        cls,
        search: Any,
        *,
        param_name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot the mean held-out score of a fitted search, with its standard error.

        Parameters
        ----------
        search : GridSearchCV, or another fitted search with ``cv_results_``
            If it has several metrics, ``refit`` names the one that is drawn.
        param_name : str, default=None
            The parameter to the right; None is the only one that was searched. At each of its
            values, the best score over the other parameters is drawn.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.errorbar``.

        Returns
        -------
        CriterionDisplay
            The display, drawn.

        Notes
        -----
        Folds of sorted rows differ in their distribution, and mislead the search: shuffle
        them, with ``cv=KFold(5, shuffle=True, random_state=0)``.
        """
        if not hasattr(search, "best_estimator_") and hasattr(search, "fit"):
            check_is_fitted(search)
        if not hasattr(search, "cv_results_"):
            raise TypeError(
                f"{cls.__name__}.from_search needs a search such as GridSearchCV, but it was "
                f"given {type(search).__name__}, which has no cv_results_."
            )
        results = search.cv_results_
        param_name = _searched(results, param_name)
        metric = search.refit if getattr(search, "multimetric_", False) else "score"
        if f"mean_test_{metric}" not in results:
            raise ValueError(
                "the search has several metrics: name the one to draw by its refit, which is "
                f"{metric!r}."
            )
        means = np.asarray(results[f"mean_test_{metric}"], dtype=float)
        given = results[f"param_{param_name}"]
        values, rows = _best_rows(given, means)
        best = getattr(search, "best_index_", int(np.nanargmax(means)))
        name = metric if metric != "score" else "held-out score"
        unit = " (nats per row)" if _in_nats(search) else ""
        display = cls(
            values,
            {name: means[rows]},
            {name: _plain(given[best])},
            errors={name: _standard_errors(results, metric)[rows]},
            param_name=param_name.split("__")[-1],
            criterion_name=f"held-out score{unit}" if metric == "score" else name,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the curves, and a star at each choice.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.errorbar``.

        Returns
        -------
        CriterionDisplay
            This display.
        """
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        positions = self._positions()
        self.lines_: list[Any] = []
        for i, (name, curve) in enumerate(self.criteria.items()):
            label = name.upper() if name in ("aic", "bic", "icl") else name
            chosen = self.chosen.get(name)
            if name in self.chosen:
                label = f"{label} chooses {chosen}"
            style = {"linestyle": LINES[i % len(LINES)], "marker": MARKERS[i % len(MARKERS)]}
            style |= {"color": color_of(i), "label": label}
            options = {"capsize": 3, **style, **full_names(kwargs, "plot")}
            drawn = ax.errorbar(positions, curve, yerr=self.errors.get(name), **options)
            self.lines_.append(drawn.lines[0])
            if chosen in self.values:
                at = self.values.index(chosen)
                star: dict[str, Any] = {"marker": "*", "ms": max(20 - 6 * i, 8), "mec": "black"}
                star |= {"color": drawn.lines[0].get_color(), "zorder": 4}
                ax.plot(positions[at], curve[at], **star)
        if not self._are_numbers():
            ax.set_xticks(positions, [str(value) for value in self.values])
        elif all(isinstance(value, int | np.integer) for value in self.values):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        elif min(positions) > 0 and max(positions) / min(positions) >= WIDE:
            ax.set_xscale("log")
        ax.set(xlabel=self.param_name, ylabel=self.criterion_name)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _are_numbers(self) -> bool:
        return all(isinstance(v, Real) and not isinstance(v, bool) for v in self.values)

    def _positions(self) -> list[float]:
        return self.values if self._are_numbers() else list(range(len(self.values)))


def _searched(results: Mapping[str, Any], param_name: str | None) -> str:
    """Return the name of a parameter that was searched; None is the only one."""
    names = [key.removeprefix("param_") for key in results if key.startswith("param_")]
    if param_name is None and len(names) == 1:
        return names[0]
    if param_name not in names:
        raise ValueError(
            f"param_name must be one of the parameters that were searched, {names}, but it is "
            f"{param_name!r}."
        )
    return param_name


def _best_rows(given: Any, means: NDArray[np.floating]) -> tuple[list[Any], list[int]]:
    """Return the values of a parameter, and the candidate with the best mean for each."""
    best: dict[Any, tuple[Any, int]] = {}
    for row in np.argsort(means, kind="stable"):  # NaN come last
        value = given[row]
        if value is np.ma.masked or (np.isnan(means[row]) and repr(value) in best):
            continue
        best[repr(value)] = (_plain(value), int(row))
    order = sorted(best.values(), key=lambda pair: pair[1])
    if all(isinstance(value, Real) for value, _ in order):
        order.sort(key=lambda pair: pair[0])
    return [value for value, _ in order], [row for _, row in order]


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, for labels."""
    return value.item() if isinstance(value, np.generic) else value


def _standard_errors(results: Mapping[str, Any], metric: str) -> NDArray[np.floating]:
    """Return the standard error of the mean score over the splits; 0 for one split."""
    ends = f"_test_{metric}"
    splits = [key for key in results if key.startswith("split") and key.endswith(ends)]
    scores = np.array([results[key] for key in splits], dtype=float)
    if len(scores) < 2:
        return np.zeros(scores.shape[1:])
    errors: NDArray[np.floating] = scores.std(0, ddof=1) / np.sqrt(len(scores))
    return errors


def _in_nats(search: Any) -> bool:
    """Return whether the scores of a search are log-densities."""
    return getattr(search, "scoring", None) is None and is_density(search.estimator)
