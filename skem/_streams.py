"""Estimators on rows that are not in memory: files, and the blocks of dask arrays."""

from collections.abc import Callable
from copy import copy
from functools import partial, wraps
from math import prod
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import check_is_fitted, validate_data

from skem._data import (
    Blocks,
    Stored,
    as_array,
    blocks_of,
    collect,
    is_array,
    is_dask,
    is_on_disk,
    map_blocks,
    tasks_of,
)

Method = TypeVar("Method", bound=Callable[..., Any])


def is_streamed(X: Any) -> bool:
    """Whether X is not in memory."""
    return is_on_disk(X) or is_dask(X)


def as_given(rows: Any) -> Any:
    """Rows as callbacks see them: those that are not in memory as the user gave them."""
    return rows.origin if isinstance(rows, Stored | Blocks) else rows


def outline(X: Any) -> Any:
    """What tells scikit-learn the names and the number of the features of X."""
    if is_dask(X) and not is_array(X):
        import pandas as pd

        return pd.DataFrame(columns=list(X.columns))
    shape = getattr(X, "shape", ())
    if is_streamed(X) or len(shape) > 2:
        return np.empty((0, prod(shape[1:])))
    return X


def check_streamed(estimator: Any, X: Any, *, reset: bool, least: int = 1) -> Stored | Blocks:
    """X as rows to be streamed, checked in one pass as scikit-learn checks arrays."""
    if len(X.shape) < 2:
        raise ValueError(f"X must have rows and columns, but its shape is {X.shape}.")
    if not reset:
        validate_data(estimator, outline(X), reset=False, skip_check_array=True)
    check = partial(_checked_length, type(estimator).__name__)
    if is_dask(X):
        X = as_array(X)
        _check_kind(X.dtype, type(X._meta))
        rows: Stored | Blocks = blocks_of(X, check)
    else:
        _check_kind(np.dtype(X.dtype), np.ndarray)
        rows = Stored(X)
        if rows.dtype.kind == "f":
            collect(check, rows)
    if len(rows) < least or rows.shape[1] == 0:
        raise ValueError(
            f"X has shape {rows.shape}, but at least {least} rows and a column are needed."
        )
    return rows


def _check_kind(dtype: np.dtype, kind: type) -> None:
    if kind is not np.ndarray or dtype.kind not in "buif":
        raise ValueError(
            f"X must hold numbers in blocks of NumPy, but it has {dtype} in {kind.__name__}: "
            "convert it."
        )


def _checked_length(name: str, rows: Any) -> int:
    assert_all_finite(np.asarray(rows), allow_nan=True, estimator_name=name, input_name="X")
    return len(rows)


def rowwise(method: Method) -> Method:
    """Let a method that looks at each row alone take rows that are not in memory.

    Of a file, parts are read one after the other. Of dask, the result is lazy.
    """

    @wraps(method)
    def of_any(self: Any, X: Any, *args: Any, **options: Any) -> Any:
        if not is_streamed(X):
            return method(self, X, *args, **options)
        check_is_fitted(self)
        if is_dask(X) and not is_array(X) and method.__name__ != "inverse_transform":
            validate_data(self, outline(X), reset=False, skip_check_array=True)
        of_part = partial(apply_method, plain_copy(self), method.__name__, args, options)
        if is_on_disk(X):
            return np.concatenate(collect(of_part, Stored(X)))
        X = as_array(X)
        return map_blocks(of_part, X, of_part(np.zeros((1, *X.shape[1:]), X.dtype)))

    return cast(Method, of_any)


def apply_method(estimator: Any, name: str, args: Any, options: Any, rows: Any) -> NDArray:
    found: NDArray = getattr(estimator, name)(np.asarray(rows), *args, **options)
    return found


def plain_copy(estimator: Any) -> Any:
    """A copy that stays as it is when the estimator is fitted anew, for rows without names."""
    estimator = copy(estimator)
    for name in ("feature_names_in_", "_skl_callbacks"):
        vars(estimator).pop(name, None)
    return estimator


def blockwise(method: Method) -> Method:
    """Let ``partial_fit`` take the blocks of a dask array, one after the other."""

    @wraps(method)
    def of_any(self: Any, X: Any, y: object = None, sample_weight: Any = None) -> Any:
        if not is_dask(X):
            return method(self, X, y, sample_weight)
        start = 0
        weights = tasks_of(sample_weight) if is_dask(sample_weight) else None
        for i, block in enumerate(tasks_of(as_array(X) if is_array(X) else X)):
            rows, weight = block.compute(), None
            if weights is not None:
                weight = np.asarray(weights[i].compute())
            elif sample_weight is not None:
                weight = sample_weight[start : start + len(rows)]
            start += len(rows)
            if len(rows):
                method(self, rows, y, weight)
        return self

    return cast(Method, of_any)


def refuse_dask(estimator: Any, X: Any) -> None:
    """Say what to do with a dask array where rows are needed in random order."""
    if is_dask(X):
        name = type(estimator).__name__
        raise TypeError(
            f"X is a {type(X).__name__} of dask, whose rows {name} cannot shuffle: call "
            "partial_fit, which learns from its blocks in their order, once for each pass; or "
            "store X, by X.to_zarr for example, and fit that."
        )
