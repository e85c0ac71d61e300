"""Rows as the machine takes them: dense, complete, and their means."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import issparse

from skem._rows.moments import moments
from skem.rbm._model import Array, Params, hidden_probabilities, visible_probabilities

DENSITY_ROWS = 1000


def dense(rows: Any, dtype: DTypeLike) -> Array:
    rows = rows.toarray() if issparse(rows) else rows
    return np.asarray(rows, dtype=dtype)


def density(rows: Any) -> float:
    """The share of values that are not 0, in the first rows."""
    first = dense(rows[:DENSITY_ROWS], np.float32)
    return np.count_nonzero(first) / first.size


def mean_of(rows: Any, weight: Array) -> Array:
    """Weighted means of the columns, of what is observed."""
    if issparse(rows):
        missing = rows.copy()
        missing.data = np.isnan(rows.data).astype(float)
        complete = rows.copy()
        complete.data = np.nan_to_num(rows.data)
        seen = weight.sum() - weight @ missing
        return np.asarray(weight @ complete).ravel() / np.where(seen > 0, seen, 1)
    if isinstance(rows, np.ndarray):
        own = weight.astype(rows.dtype)  # and contiguous: the product is then BLAS's
        mean = own @ rows / own.sum()
        if np.isfinite(mean).all():
            return mean
    found = moments(rows, weight)
    if (found.weight == 0).any():
        raise ValueError(
            f"X has {int((found.weight == 0).sum())} features without any observed value, the "
            f"first at index {int(np.argmin(found.weight))}: drop or fill them."
        )
    return found.mean


def filled(v: Array, params: Params, mean: Array, n_steps: int = 1) -> Array:
    """Rows whose missing values are filled by mean-field steps from the mean."""
    missing = np.isnan(v)
    if not missing.any():
        return v
    known, v = v, np.where(missing, mean, v)
    for _ in range(n_steps):
        p = visible_probabilities(params, hidden_probabilities(params, v))
        v = np.where(missing, p, known)
    return v
