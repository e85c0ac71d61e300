"""A sample of the rows to start from."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skem._rows.parts import (
    collect,
    is_unweighted,
    lengths_of,
    n_positive,
    take,
    together,
    working_dtype,
)

# Rows beyond which a sample depends on their order, since sorting them takes too long.
SORT_ROWS = 50_000
N_KEYS = 8  # columns by which rows are sorted


def representative_rows(
    X: Any, weight: Any, size: int, rng: np.random.RandomState
) -> tuple[NDArray, NDArray]:
    """At most about ``size`` rows to start from, and their weights.

    Up to 50,000 rows are sorted, and drawn at even steps of the cumulative weight, and equal
    rows are merged: a row of weight 2 and two such rows give the same sample. More rows are
    drawn in their own order.
    """
    offset = rng.uniform()
    if sum(n_positive(weight)) > SORT_ROWS:
        index, counts = _drawn(weight, size, offset)
        return take(X, index).astype(working_dtype(X), copy=False), counts
    columns = np.linspace(0, X.shape[1] - 1, N_KEYS).astype(int)
    of_sorted = partial(_drawn_of_sorted, size=size, offset=offset)
    index, weights = together(of_sorted, partial(_keys, columns), X, weight)
    rows = take(X, index).astype(working_dtype(X), copy=False)
    same = np.isclose(rows[1:], rows[:-1], rtol=0, atol=0, equal_nan=True).all(1)
    first = np.flatnonzero(np.r_[True, ~same])
    return rows[first], np.add.reduceat(weights, first)


def _keys(columns: NDArray[np.intp], X: Any) -> NDArray:
    return np.asarray(X)[:, columns]


def _drawn_of_sorted(
    keys: NDArray, weight: NDArray, size: int, offset: float
) -> tuple[NDArray[np.intp], NDArray]:
    """Indices of the sample, and their weights."""
    order = np.lexsort(keys.T)
    order = order[weight[order] > 0]
    weights = weight[order]
    if len(order) <= size:
        return order, weights
    total = np.cumsum(weights)[-1]
    drawn, counts = _counted(_steps(weights, _even(size, offset, total)), total / size)
    return order[drawn], counts


def _drawn(weight: Any, size: int, offset: float) -> tuple[NDArray[np.intp], NDArray]:
    """The same in the order of the rows: each part finds the steps that fall into it."""
    if is_unweighted(weight):
        index = _even(size, offset, len(weight)).astype(int)
        return _counted(index, len(weight) / size)
    totals = collect(np.sum, weight)
    before = np.cumsum([0, *totals])
    steps = _even(size, offset, before[-1])
    owner = (np.searchsorted(before, steps, side="right") - 1).clip(max=len(totals) - 1)
    own = [steps[owner == i] - before[i] for i in range(len(totals))]
    drawn = collect(_steps, weight, own)
    starts = np.cumsum([0, *lengths_of(weight)])
    index = np.concatenate([a + i for a, i in zip(starts, drawn, strict=False)])
    return _counted(index, before[-1] / size)


def _even(size: int, offset: float, total: float) -> NDArray:
    return (offset + np.arange(size)) * (total / size)


def _steps(weight: NDArray, steps: NDArray) -> NDArray[np.intp]:
    """The rows on which steps of the cumulative weight fall."""
    found = np.searchsorted(np.cumsum(weight), steps, side="right")
    last = np.flatnonzero(weight)[-1:]
    return found.clip(max=last[0]) if len(last) else found[:0]


def _counted(index: NDArray[np.intp], share: float) -> tuple[NDArray[np.intp], NDArray]:
    index, counts = np.unique(index, return_counts=True)
    return index, counts * share


def rows_unlike(
    X: Any, weight: Any, column: int, value: float, n: int
) -> tuple[NDArray, NDArray]:
    """About ``n`` rows of positive weight that have another value in a column."""
    unlike = partial(_unlike, column, value)
    places = collect(partial(_count, unlike), X, weight)
    before = np.cumsum([0, *places])
    step = max(1, int(before[-1]) // n)
    starts = [slice(-int(b) % step, None, step) for b in before[:-1]]
    found = collect(partial(_some, unlike), X, weight, starts)
    rows, weights = zip(*found, strict=True)
    return np.concatenate(rows).astype(working_dtype(X), copy=False), np.concatenate(weights)


def _unlike(column: int, value: float, X: NDArray, weight: NDArray) -> NDArray[np.intp]:
    values = X[:, column]
    return np.flatnonzero((weight > 0) & ~np.isnan(values) & (values != value))


def _count(unlike: Any, X: Any, weight: NDArray) -> int:
    return len(unlike(np.asarray(X), weight))


def _some(unlike: Any, X: Any, weight: NDArray, chosen: slice) -> tuple[NDArray, NDArray]:
    X = np.asarray(X)
    index = unlike(X, weight)[chosen]
    return X[index], weight[index]
