"""Rows as the machine takes them: dense, complete, and their means."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import issparse

from skem._rows.moments import moments
from skem._rows.parts import LocalRows, Weights, working_dtype
from skem._typing import Array, Indices
from skem.rbm._model import Params, hidden_probabilities, visible_probabilities

DENSITY_ROWS = 1000  # enough to know the density of a row to a few per cent


def dense(rows: Any, dtype: DTypeLike) -> Array:
    """Return rows as a dense array."""
    rows = rows.toarray() if issparse(rows) else rows
    return np.asarray(rows, dtype=dtype)


def density(rows: LocalRows) -> float:
    """Return the share of values that are not 0, in the first rows."""
    first = dense(rows[:DENSITY_ROWS], np.float32)
    return np.count_nonzero(first) / first.size


def span(rows: LocalRows) -> tuple[float, float]:
    """Return the smallest and the largest of all values and 0."""
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
        return mean
    found = moments(rows)
    found.check_observed()
    return found.mean


def _sums_of(X: Any, weight: Weights) -> Array:
    """Return weighted sums of the columns, NaN if a dense value is, and sums of weights."""
    if issparse(X):
        weight = np.asarray(weight)
        missing, complete = X.copy(), X.copy()
        missing.data = np.isnan(X.data).astype(float)
        complete.data = np.nan_to_num(X.data)
        total = np.asarray(weight @ complete).ravel()
        return np.stack([total, weight.sum() - weight @ missing])
    own = np.asarray(weight).astype(working_dtype(X))  # contiguous, so that BLAS multiplies
    total = own @ X
    return np.stack([total, np.full_like(total, own.sum())])


def complete(rows: LocalRows, index: Indices, params: Params, mean: Array) -> Array:
    """Return some rows in float32, with missing values filled by one mean-field step."""
    return filled(dense(rows[index], np.float32), params, mean)


def filled(v: Array, params: Params, mean: Array, n_steps: int = 1) -> Array:
    """Return rows whose missing values are filled by mean-field steps from the mean."""
    missing = np.isnan(v)
    if not missing.any():
        return v
    known, v = v, np.where(missing, mean, v)
    for _ in range(n_steps):
        p = visible_probabilities(params, hidden_probabilities(params, v))
        v = np.where(missing, p, known)
    return v
