"""Methods for rows that are not in memory: files, and dask collections."""

from collections.abc import Callable
from copy import copy
from functools import partial, wraps
from typing import Any, TypeVar, cast

import numpy as np
from sklearn import get_config
from sklearn.utils.validation import check_is_fitted, validate_data

from skem._base.input import check_weights, largest_weight
from skem._base.places import hosted
from skem._rows import open_rows
from skem._rows.arrays import Elsewhere, Placed
from skem._rows.parts import Ones, Rows, Weights
from skem._typing import AnyArray, Array

Method = TypeVar("Method", bound=Callable[..., Any])
OfPart = Callable[[AnyArray], AnyArray]


def rowwise(method: Method) -> Method:
    """Make a row-wise method accept files and dask collections.

    The parts of a file are read one after the other. The result for a dask collection is lazy.
    """

    @wraps(method)
    def of_any(self: Any, X: Any, *args: Any, **options: Any) -> Any:
        X = _opened(self, X)
        rows, name = open_rows(X), method.__name__

        def whole(X: Any) -> Any:
            return method(self, X, *args, **options)

        def of_part(lazy: bool) -> OfPart:
            if name == "inverse_transform":  # whose columns are not the features
                check_is_fitted(self)
            else:
                check_outline(self, rows, X.shape)
            if lazy and name == "transform":
                _refuse_frames(self)
            return row_function(self, X.shape[1:], name, *args, **options)

        return rows.apply(rows.choose(whole, of_part))

    return cast(Method, of_any)


def _refuse_frames(estimator: Any) -> None:
    """Say that a lazy result cannot be a data frame."""
    output = vars(estimator).get("_sklearn_output_config", {})
    if output.get("transform", get_config()["transform_output"]) != "default":
        raise ValueError(
            "set_output cannot make a data frame of what dask has not computed: set it to "
            "'default', or give X.compute()."
        )


def _opened(estimator: Any, X: Any) -> Any:
    """Return X in a form that ``open_rows`` takes, if the estimator knows of devices."""
    return estimator._opened(X) if hasattr(estimator, "_opened") else X


def check_outline(estimator: Any, rows: Rows, shape: tuple[int, ...]) -> None:
    """Check the names and the number of the features; those of images are checked later."""
    check_is_fitted(estimator)
    if len(shape) == 2:
        validate_data(estimator, rows.outline(), reset=False, skip_check_array=True)


def row_function(
    estimator: Any, shape: tuple[int, ...], name: str, *args: Any, **options: Any
) -> OfPart:
    """Return a method as a function of parts, whose rows have this shape.

    It uses a copy of the estimator, so that a later fit does not change it.
    """
    estimator = copy(estimator)
    for own in ("feature_names_in_", "_skl_callbacks"):  # parts have no names
        vars(estimator).pop(own, None)
    return partial(_apply, estimator, shape, name, args, options)


def _apply(
    estimator: Any, shape: tuple[int, ...], name: str, args: Any, options: Any, rows: AnyArray
) -> AnyArray:
    found: AnyArray = getattr(estimator, name)(
        rows.reshape(len(rows), *shape), *args, **options
    )
    return found


def weighted_mean(estimator: Any, name: str, X: Any, sample_weight: Any) -> tuple[float, float]:
    """Return the weighted mean of a row-wise method, and the sum of the weights."""
    X = _opened(estimator, X)
    rows = open_rows(X)

    def of_part(lazy: bool) -> OfPart:
        check_outline(estimator, rows, X.shape)
        if not len(rows):
            raise ValueError(f"X has shape {rows.shape}, but at least 1 row is needed.")
        function = row_function(estimator, X.shape[1:], name)
        # what the first call caches then goes to the workers with the function
        function(np.zeros((1, *X.shape[1:]), rows.dtype))
        return function

    function = rows.choose(getattr(estimator, name), of_part)
    rows = check_weights(sample_weight, rows)
    top = largest_weight(rows)
    total, mass = rows.fold_in_place(partial(_sums, function, top))
    with np.errstate(over="ignore"):
        return float(total / mass), float(mass * top)


def _sums(function: OfPart, top: float, rows: Any, weight: Weights) -> Array:
    if isinstance(rows, Placed):
        rows = Elsewhere(rows.values, rows.place)
    values = hosted(function(rows))
    if isinstance(weight, Ones):
        return np.array([values.sum(dtype=float), len(values)])
    relative = weight / top
    return np.array([relative @ values, relative.sum()])


def blockwise(method: Method) -> Method:
    """Make ``partial_fit`` take the blocks of a dask collection, one after the other.

    If a block fails, the estimator returns to what it was before the first one.
    """

    @wraps(method)
    def of_any(self: Any, X: Any, y: object = None, sample_weight: Any = None) -> Any:
        before = dict(vars(self))
        try:
            rows, sample_weight = open_rows(self._opened(X, is_fit=True)), hosted(sample_weight)
            for block, weight in rows.one_by_one(sample_weight, check_weights):
                method(self, block, y, weight)
        except Exception:
            vars(self).clear()
            vars(self).update(before)
            raise
        return self

    return cast(Method, of_any)
