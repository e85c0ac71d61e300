"""What the RBM needs to know of its rows: dense blocks, means, density and range."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import issparse

from skem._rows.moments import check_observed, moments
from skem._rows.parts import LocalRows, Weights, working_dtype
from skem._typing import Array

DENSITY_ROWS = 1000  # rows that give the density with an error of a few per cent


def dense(rows: Any, dtype: DTypeLike) -> Array:
    """Return rows as a dense array."""
    rows = rows.toarray() if issparse(rows) else rows
    return np.asarray(rows, dtype=dtype)


def density(rows: LocalRows) -> float:
    """Return the share of nonzero values in the first rows."""
    first = dense(rows[:DENSITY_ROWS], np.float32)
    return np.count_nonzero(first) / first.size


def span(rows: LocalRows) -> tuple[float, float]:
    """Return the smallest and the largest value, where 0 counts as a value."""
    lows, highs = zip(*rows.collect(_span_of), strict=True)
    return min(lows), max(highs)


def _span_of(X: Any, weight: Weights) -> tuple[float, float]:
    values = X.data if issparse(X) else X
    return float(np.nanmin(values, initial=0)), float(np.nanmax(values, initial=0))


def mean_of(rows: LocalRows) -> Array:
    """Return the weighted means of the observed values of each column."""
    total, seen = rows.fold(_sums_of)
    mean: Array = total / np.where(seen > 0, seen, 1)
    if np.isfinite(mean).all():
        check_observed(seen)
        return mean
    found = moments(rows)
    found.check_observed()
    return found.mean


def _sums_of(X: Any, weight: Weights) -> Array:
    """Return the weighted sums of the columns, and the sums of the weights.

    The sum of a dense column with NaN is NaN.
    """
    if issparse(X):
        weight = np.asarray(weight)
        missing, complete = X.copy(), X.copy()
        missing.data = np.isnan(X.data).astype(float)
        complete.data = np.nan_to_num(X.data)
        total = np.asarray(weight @ complete).ravel()
        return np.stack([total, weight.sum() - weight @ missing])
    own = np.asarray(weight).astype(working_dtype(X))  # contiguous, as BLAS needs
    total = own @ X
    return np.stack([total, np.full_like(total, own.sum())])
