"""Estimators on rows that are not in memory: files, and the blocks of dask arrays."""

from collections.abc import Callable
from copy import copy
from functools import partial, wraps
from math import prod
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import check_is_fitted, validate_data

from skem._rows.files import Stored, is_on_disk
from skem._rows.parts import (
    Blocks,
    as_array,
    blocks_of,
    collect,
    is_array,
    is_dask,
    map_blocks,
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


def check_streamed(
    estimator: Any, X: Any, *, reset: bool, least: int = 1, images: bool = False
) -> Stored | Blocks:
    """X as rows to be streamed, checked in one pass as scikit-learn checks arrays."""
    n_dims = len(X.shape)
    if n_dims != 2 and not (images and n_dims in (3, 4)):
        raise ValueError(
            f"X must have rows and columns, but it has {n_dims} dimension(s): reshape it."
        )
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
        if method.__name__ != "inverse_transform" and len(X.shape) == 2:
            validate_data(self, outline(X), reset=False, skip_check_array=True)
        of_part = row_function(self, X, method.__name__, *args, **options)
        if is_on_disk(X):
            return np.concatenate(collect(of_part, Stored(X)))
        output = vars(self).get("_sklearn_output_config", {})
        framed = method.__name__ == "transform"
        if framed and output.get("transform", get_config()["transform_output"]) != "default":
            raise ValueError(
                "set_output cannot make a data frame of what dask has not computed: set it to "
                "'default', or give X.compute()."
            )
        X = as_array(X)
        return map_blocks(of_part, X, of_part(np.zeros((1, *X.shape[1:]), X.dtype)))

    return cast(Method, of_any)


def row_function(
    estimator: Any, X: Any, name: str, *args: Any, **options: Any
) -> Callable[[Any], NDArray]:
    """A method of an estimator, for parts of X."""
    return partial(_apply, plain_copy(estimator), X.shape[1:], name, args, options)


def _apply(
    estimator: Any, shape: tuple[int, ...], name: str, args: Any, options: Any, rows: Any
) -> NDArray:
    rows = np.asarray(rows)
    found: NDArray = getattr(estimator, name)(rows.reshape(len(rows), *shape), *args, **options)
    return found


def plain_copy(estimator: Any) -> Any:
    """A copy that stays as it is when the estimator is fitted anew, for rows without names."""
    estimator = copy(estimator)
    for name in ("feature_names_in_", "_skl_callbacks"):
        vars(estimator).pop(name, None)
    return estimator


def refuse_dask(estimator: Any, X: Any) -> None:
    """Say what to do with a dask array where rows are needed in memory or in random order."""
    if is_dask(X):
        name = type(estimator).__name__
        raise TypeError(
            f"X is of dask, which {name} takes only where it need not shuffle rows: call "
            "partial_fit, which learns from the blocks in their order, once for each pass; or "
            "store X, by X.to_zarr for example, and give that file."
        )
