"""A sample of the rows to start from."""

from collections.abc import Callable
from functools import partial

import numpy as np

from skem._rows.parts import InMemory, Rows, Weights
from skem._typing import AnyArray, Array, Indices

Unlike = Callable[[AnyArray, Array], Indices]

# Rows beyond which a sample depends on their order, since sorting them takes too long.
SORT_ROWS = 50_000
N_KEYS = 8  # columns by which rows are sorted
BLOCK_SIZE = 2**17  # values that are compared at a time


def representative_rows(rows: Rows, size: int, rng: np.random.RandomState) -> InMemory:
    """Return a weighted sample of about ``size`` rows at most.

    Up to 50,000 rows are sorted, drawn at even steps of the cumulative weight, and merged
    where they are equal: a row of weight 2 and two such rows give the same sample. More rows
    are drawn in their own order.
    """
    offset = rng.uniform()
    if rows.n_positive > SORT_ROWS:
        index, weight = _drawn(rows, size, offset)
        return InMemory(_taken(rows, index), weight)
    columns = np.linspace(0, rows.shape[1] - 1, N_KEYS).astype(int)
    of_sorted = partial(_drawn_of_sorted, size=size, offset=offset)
    index, weight = rows.gather(columns, of_sorted)
    sample = _taken(rows, index)
    first = _first_of_equal(sample)
    if len(first) < len(sample):
        sample = sample[first]
    return InMemory(sample, np.add.reduceat(weight, first))


def _first_of_equal(sample: Array) -> Indices:
    """Return the index of the first of each run of equal rows; NaN equals NaN."""
    is_new = np.ones(len(sample), bool)
    step = max(1, BLOCK_SIZE // max(1, sample.shape[1]))
    for start in range(1, len(sample), step):  # in blocks, so that no copy is large
        one, two = sample[start - 1 : start + step - 1], sample[start : start + step]
        same = (one[: len(two)] == two) | (np.isnan(one[: len(two)]) & np.isnan(two))
        is_new[start : start + step] = ~same.all(1)
    return np.flatnonzero(is_new)


def _taken(rows: Rows, index: Indices) -> Array:
    return rows.take(index).astype(rows.working_dtype, copy=False)


def _drawn_of_sorted(
    keys: AnyArray, weight: Weights, size: int, offset: float
) -> tuple[Indices, Array]:
    """Return the indices of the sample, and their weights."""
    weight, order = np.asarray(weight), _sorted(keys)
    order = order[weight[order] > 0]
    weights = weight[order]
    if len(order) <= size:
        return order, weights
    total = np.cumsum(weights)[-1]
    drawn, counts = _counted(_rows_at(weights, _even_steps(size, offset, total)), total / size)
    return order[drawn], counts


def _sorted(keys: AnyArray) -> Indices:
    """Return the order of ``np.lexsort(keys.T)``; other keys than the last matter in ties."""
    order = np.argsort(keys[:, -1], kind="stable")
    last = keys[order, -1]
    if (last[1:] > last[:-1]).all():  # false for NaN
        return order
    return np.lexsort(keys.T)


def _drawn(rows: Rows, size: int, offset: float) -> tuple[Indices, Array]:
    """Draw in the order of the rows: each part finds the steps that fall into it."""
    if not rows.is_weighted:
        index = _even_steps(size, offset, len(rows)).astype(int)
        return _counted(index, len(rows) / size)
    totals = rows.collect_weights(np.sum)
    before = np.cumsum([0, *totals])
    steps = _even_steps(size, offset, before[-1])
    owner = (np.searchsorted(before, steps, side="right") - 1).clip(max=len(totals) - 1)
    own = [steps[owner == i] - before[i] for i in range(len(totals))]
    drawn = rows.collect_weights(_rows_at, own)
    starts = np.cumsum([0, *rows.lengths])
    index = np.concatenate([a + i for a, i in zip(starts, drawn, strict=False)])
    return _counted(index, before[-1] / size)


def _even_steps(size: int, offset: float, total: float) -> Array:
    return (offset + np.arange(size)) * (total / size)


def _rows_at(weight: Array, steps: Array) -> Indices:
    """Return the rows on which steps of the cumulative weight fall."""
    found = np.searchsorted(np.cumsum(weight), steps, side="right")
    last = np.flatnonzero(weight)[-1:]
    return found.clip(max=last[0]) if len(last) else found[:0]


def _counted(index: Indices, share: float) -> tuple[Indices, Array]:
    index, counts = np.unique(index, return_counts=True)
    return index, counts * share


def rows_unlike(rows: Rows, column: int, value: float, n_rows: int) -> InMemory:
    """Return about ``n_rows`` rows of positive weight with another value in a column."""
    unlike = partial(_unlike, column, value)
    counts = rows.collect(partial(_count, unlike))
    before = np.cumsum([0, *counts])
    step = max(1, int(before[-1]) // n_rows)
    starts = [slice(-int(b) % step, None, step) for b in before[:-1]]
    found = rows.collect(partial(_some, unlike), starts)
    values, weights = zip(*found, strict=True)
    dtype = rows.working_dtype
    return InMemory(np.concatenate(values).astype(dtype, copy=False), np.concatenate(weights))


def _unlike(column: int, value: float, X: AnyArray, weight: Array) -> Indices:
    values = X[:, column]
    return np.flatnonzero((weight > 0) & ~np.isnan(values) & (values != value))


def _count(unlike: Unlike, X: AnyArray, weight: Weights) -> int:
    return len(unlike(X, np.asarray(weight)))


def _some(
    unlike: Unlike, X: AnyArray, weight: Weights, chosen: slice
) -> tuple[AnyArray, Array]:
    weight = np.asarray(weight)
    index = unlike(X, weight)[chosen]
    return X[index], weight[index]
