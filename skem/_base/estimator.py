"""scikit-learn glue that all estimators share.

Every private import from scikit-learn is in this file.
"""

import warnings
from collections.abc import Callable
from functools import partial, wraps
from importlib.metadata import PackageNotFoundError, metadata
from numbers import Integral
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from skem._base.streams import Method, as_given, is_streamed, outline, row_function
from skem._loop import Run
from skem._rows.files import Stored
from skem._rows.parts import (
    Blocks,
    as_array,
    blocks_of,
    collect,
    evaluated,
    fold,
    is_array,
    is_dask,
    is_unweighted,
    tasks_of,
    weights_of,
)

MIN_WEIGHT = 1e-100

__all__ = [
    "DocLinkMixin",
    "Interval",
    "MeanScoreMixin",
    "StrOptions",
    "blockwise",
    "check_count",
    "check_is_fitted",
    "check_weights",
    "hooks",
    "split_rows",
    "validate_data",
    "warn_if_interrupted",
    "with_callbacks",
]


def check_weights(sample_weight: Any, X: Any) -> Any:
    """Weights as float64, one for each row, not negative and not all zero.

    Without weights, a view of a single 1.
    """
    if isinstance(X, Blocks):
        weight = weights_of(sample_weight, X)
        if sample_weight is None:
            return weight
        least, largest = np.transpose(collect(_range, weight))
        if not (least.min() >= 0 and largest.max() < np.inf):
            raise ValueError(
                "sample_weight must hold finite weights of at least 0, but its values are "
                f"between {least.min():g} and {largest.max():g}."
            )
        top = largest.max()
    elif sample_weight is None:
        return np.broadcast_to(np.float64(1), X.shape[0])
    else:
        if is_dask(sample_weight):
            sample_weight = sample_weight.compute()
        weight = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        top = weight.max()
    if top < MIN_WEIGHT:
        raise ValueError(
            f"sample_weight must have values above {MIN_WEIGHT:g}, but its largest is "
            f"{top:g}: rescale it."
        )
    return weight


def _range(weight: NDArray) -> tuple[float, float]:
    return weight.min(), weight.max()


def weighted_mean(estimator: Any, name: str, X: Any, sample_weight: Any) -> tuple[float, float]:
    """The weighted mean of what a method says of each row, and the sum of the weights."""
    if not is_streamed(X):
        values = getattr(estimator, name)(X)
        weight: Any = check_weights(sample_weight, values)
        mean = np.average(values, weights=weight / weight.max())
        with np.errstate(over="ignore"):
            return float(mean), float(weight.sum())
    check_is_fitted(estimator)
    if len(X.shape) == 2:
        validate_data(estimator, outline(X), reset=False, skip_check_array=True)
    rows = blocks_of(X) if is_dask(X) else Stored(X)
    if not len(rows):
        raise ValueError(f"X has shape {rows.shape}, but at least 1 row is needed.")
    weight = check_weights(sample_weight, rows)
    of_part = row_function(estimator, X, name)
    of_part(np.zeros((1, *X.shape[1:]), rows.dtype))  # what is computed once travels then
    top = 1.0 if is_unweighted(weight) else float(max(collect(np.max, weight)))
    total, mass = fold(partial(_sums, of_part, top), rows, weight)
    with np.errstate(over="ignore"):
        return float(total / mass), float(mass * top)


def _sums(of_part: Callable[[Any], NDArray], top: float, rows: Any, weight: NDArray) -> NDArray:
    weight = weight / top
    return np.array([weight @ of_part(rows), weight.sum()])


def blockwise(method: Method) -> Method:
    """Let ``partial_fit`` take the blocks of a dask array, one after the other."""

    @wraps(method)
    def of_any(self: Any, X: Any, y: object = None, sample_weight: Any = None) -> Any:
        if not is_dask(X):
            return method(self, X, y, sample_weight)
        tasks = tasks_of(as_array(X) if is_array(X) else X)
        weights: Any = None
        if sample_weight is not None:
            rows = blocks_of(X)
            tasks = [task for task, n in zip(tasks, rows.all_lengths, strict=True) if n]
            weights = check_weights(sample_weight, rows) if len(rows) else None
        n_rows = 0
        for i, task in enumerate(tasks):
            weight = None if weights is None else weights.tasks[i]
            block, own = evaluated(task, weight)
            n_rows += block.shape[0]
            if block.shape[0] and (own is None or np.any(own)):
                method(self, block, y, own)
        if not n_rows:
            raise ValueError(f"X has shape (0, {X.shape[1]}), but at least 1 row is needed.")
        return self

    return cast(Method, of_any)


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse what is not a whole number, or too small."""
    number = isinstance(value, Integral) and not isinstance(value, bool)
    if not number or value < least:  # type: ignore[operator]
        raise ValueError(f"{name} must be an integer of at least {least}, but it is {value!r}.")


def hooks(
    estimator: Any,
    X: NDArray,
    every: int,
    line: Callable[[Run], str],
    attributes: Callable[[Run], dict[str, Any]],
    stop: Callable[[Run], bool] = lambda run: False,
) -> dict[str, Any]:
    """What the loop calls: callbacks, and a printed line for ``every``-th iteration.

    ``attributes`` makes the fitted attributes of the moment, where a callback asks for them.
    """
    task: Any = None

    def on_begin() -> None:
        nonlocal task
        task = estimator._callback_fit_ctx.subcontext("iteration")
        task.call_on_fit_task_begin(estimator=estimator, X=as_given(X))

    def on_iter(run: Run) -> bool:
        own = stop(run)
        if every and run.n_iter % every == 0:
            print(f"[{type(estimator).__name__}] iteration {run.n_iter}: {line(run)}")
        asked: bool = task.call_on_fit_task_end(
            estimator=estimator,
            X=as_given(X),
            reconstruction_attributes=lambda: {**attributes(run), "n_features_in_": X.shape[1]},
        )
        return own or asked

    return {"on_begin": on_begin, "on_iter": on_iter}


def warn_if_interrupted(estimator: Any, run: Run, *, stacklevel: int) -> None:
    """Say that Ctrl-C ended the loop, where ``fit`` was called."""
    if run.interrupted:
        warnings.warn(
            f"{type(estimator).__name__} was interrupted after {run.n_iter} iterations and "
            "keeps what it had learnt.",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )


def documentation() -> str:
    """Where the documentation is, if the package says so; else nothing."""
    try:
        urls = metadata("skem").get_all("Project-URL") or []
    except PackageNotFoundError:
        urls = []
    named = [url.split(", ", 1) for url in urls]
    return next((url.rstrip("/") for name, url in named if name == "Documentation"), "")


class DocLinkMixin:
    """The link in the HTML representation of an estimator, to its page."""

    _doc_link_module = "skem"

    @property
    def _doc_link_template(self) -> str:
        site = documentation()
        return f"{site}/generated/skem.{{estimator_name}}.html" if site else ""


class MeanScoreMixin(DocLinkMixin):
    """``score`` for estimators whose ``score_samples`` are in nats."""

    def score(
        self: Any,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Return the mean log-likelihood of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            The (weighted) mean of ``score_samples(X)``, in nats per sample.
        """
        return weighted_mean(self, "score_samples", X, sample_weight)[0]


def split_rows(
    weight: NDArray, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The indices of rows to learn from, and of others to follow."""
    order = rng.permutation(len(weight))
    n_aside = round(fraction * len(order))
    aside, own = np.sort(order[:n_aside]), np.sort(order[n_aside:])
    if not (weight[aside].any() and weight[own].any()):
        raise ValueError(
            f"validation_fraction={fraction!r} of {len(order)} rows leaves none on one side, "
            "or none with a sample_weight above 0: change it, or set early_stopping=False."
        )
    return own, aside
