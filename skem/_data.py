"""Where rows live. No other file knows.

An array in memory keeps its prepared chunks from pass to pass. A memory-mapped file is
read and prepared again at each pass, so that memory does not grow with its length.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial, reduce
from itertools import pairwise
from operator import add
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from threadpoolctl import ThreadpoolController

# Elements of a chunk: many rows keep threads out of the interpreter's lock.
CHUNK_SIZE = 5_000_000
MOMENT_SIZE = 640_000
# Rows beyond which a sample depends on their order, since sorting them takes too long.
SORT_ROWS = 50_000
# Merging equal rows of bytes pays if at most so many of them are different.
MAX_UNIQUE_SHARE = 0.8
PIXELS = 4096  # converted at a time: data that are not pixels are found out soon

_LOCK = Lock()
_n_limiting = 0
_limiter: Any = None


def is_on_disk(X: NDArray) -> bool:
    """Whether the rows are a memory-mapped file, to be streamed."""
    return isinstance(X, np.memmap)


def working_dtype(X: NDArray) -> np.dtype:
    """float32 stays; all else is computed in float64."""
    return np.dtype(np.float32 if X.dtype == np.float32 else np.float64)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Our products are small: the threads of BLAS would wait for each other.

    Counted, since the limit is the process's and fits may overlap in threads.
    """
    global _limiter, _n_limiting
    with _LOCK:
        if _n_limiting == 0:
            _limiter = _controller().limit(limits=1, user_api="blas")
        _n_limiting += 1
    try:
        yield
    finally:
        with _LOCK:
            _n_limiting -= 1
            if _n_limiting == 0:
                _limiter.restore_original_limits()


def chunks(n_rows: int, row_size: int) -> list[slice]:
    """Even slices of rows, the same for any number of threads."""
    n_chunks = max(1, -(-n_rows * row_size // CHUNK_SIZE))
    edges = np.linspace(0, n_rows, min(n_chunks, n_rows) + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def thread_map(n_threads: int) -> Callable[..., Iterable[Any]]:
    """``map``, in the order of the items; its threads live as long as it does."""
    return map if n_threads == 1 else ThreadPoolExecutor(n_threads).map


class Passes:
    """Passes of a model over weighted rows.

    Sums are taken in the order of the chunks, so that threads change no digit.
    """

    def __init__(
        self,
        model: Any,
        X: NDArray,
        weight: NDArray,
        n_threads: int = 1,
    ) -> None:
        self._model, self._X, self._weight = model, X, weight
        self._dtype, self._map = working_dtype(X), thread_map(n_threads)
        self._parts = chunks(len(X), model.row_size)
        self._cached = None
        if not is_on_disk(X):
            prepare = partial(self._prepare, dtype=self._dtype)
            self._cached = list(self._map(prepare, self._parts))

    def fold(self, function: Callable[[Any, NDArray], Any], params: Any) -> Any:
        """Sum ``function(rows, weight)`` over the chunks, as exact as ``params`` need."""
        dtype = self._model.dtype_for(params, self._dtype)
        cached = self._cached if dtype == self._dtype else None

        def of_chunk(i: int) -> Any:
            part = self._parts[i]
            rows = cached[i] if cached else self._prepare(part, dtype)
            return function(rows, self._weight[part])

        return reduce(add, self._map(of_chunk, range(len(self._parts))))

    def total(self, params: Any) -> Any:
        """The statistics of all rows: what the loop of EM asks for."""
        return self.fold(partial(self._model.e_step, params), params)

    def _prepare(self, part: slice, dtype: DTypeLike) -> Any:
        return self._model.rows(np.asarray(self._X[part]), dtype)


@dataclass(frozen=True)
class Moments:
    """Weighted moments of every feature over its observed values."""

    weight: NDArray
    mean: NDArray
    square: NDArray  # sum of squares about the mean
    low: float
    high: float

    def __add__(self, other: "Moments") -> "Moments":
        weight = self.weight + other.weight
        share = np.divide(other.weight, weight, out=0 * weight, where=weight > 0)
        gap = other.mean - self.mean
        return Moments(
            weight,
            self.mean + share * gap,
            self.square + other.square + self.weight * share * gap**2,
            min(self.low, other.low),
            max(self.high, other.high),
        )


@np.errstate(over="ignore", invalid="ignore")
def moments(X: NDArray, weight: NDArray) -> Moments:
    """One pass, in float64, that does not cancel however far from 0 the data are."""

    size = max(1, MOMENT_SIZE // X.shape[1])

    def of_block(start: int) -> Moments:
        values = np.array(X[start : start + size], dtype=float)
        observed = ~np.isnan(values) & (weight[start : start + size, None] > 0)
        w = weight[start : start + size, None] * observed
        np.copyto(values, 0, where=~observed)
        total = w.sum(0)

        def average(values: NDArray) -> NDArray:
            return np.divide((w * values).sum(0), total, out=0 * total, where=total > 0)

        low = values.min(initial=np.inf, where=observed)
        high = values.max(initial=-np.inf, where=observed)
        middle = average(values)
        values -= middle
        rest = average(values)  # what rounding left out of the mean
        square = (w * (values - rest) ** 2).sum(0)
        return Moments(total, middle + rest, square, low, high)

    return reduce(add, map(of_block, range(0, len(X), size)))


def representative_rows(
    X: NDArray, weight: NDArray, size: int, rng: np.random.RandomState
) -> tuple[NDArray, NDArray]:
    """At most about ``size`` rows to start from, and their weights.

    The rows are sorted and drawn at even steps of the cumulative weight, and equal rows
    are merged: a row of weight 2 and two such rows give the same sample.
    """
    offset = rng.uniform()
    if len(X) > SORT_ROWS and weight.strides == (0,):
        order = ((offset + np.arange(size)) * (len(X) / size)).astype(int)
        return np.array(X[order], dtype=working_dtype(X)), np.full(size, len(X) / size)
    if len(X) > SORT_ROWS:
        order = np.arange(len(X))
    else:
        order = np.lexsort(X[:, np.linspace(0, X.shape[1] - 1, 8).astype(int)].T)
    order = order[weight[order] > 0]
    weights = weight[order]
    if len(order) > size:
        cumulative = np.cumsum(weights)
        steps = (offset + np.arange(size)) * (cumulative[-1] / size)
        drawn = np.searchsorted(cumulative, steps, side="right")
        drawn, counts = np.unique(drawn.clip(max=len(order) - 1), return_counts=True)
        order, weights = order[drawn], counts * (cumulative[-1] / size)
    rows = np.array(X[order], dtype=working_dtype(X))
    same = np.isclose(rows[1:], rows[:-1], rtol=0, atol=0, equal_nan=True).all(1)
    first = np.flatnonzero(np.r_[True, ~same])
    return rows[first], np.add.reduceat(weights, first)


def merge_equal_pixels(X: NDArray, weight: NDArray) -> tuple[NDArray, NDArray]:
    """The different rows of an image and their total weights, where that pays.

    X holds bytes, or bytes / 255, in at most 8 columns: rows are compared as integers. Other
    data are returned as they are.
    """
    pixels = _bytes_of(X) if X.shape[1] <= 8 else None
    if pixels is None:
        return X, weight
    n_bytes = 4 if X.shape[1] <= 4 else 8
    keys = np.zeros((len(X), n_bytes), np.uint8)
    keys[:, : X.shape[1]] = pixels
    integers = keys.view(f"u{n_bytes}")[:, 0]
    if weight.strides == (0,):
        values, counts = np.unique(integers, return_counts=True)
    else:
        values, inverse = np.unique(integers, return_inverse=True)
        counts = np.bincount(inverse, weights=weight)
    if len(values) > MAX_UNIQUE_SHARE * len(X):
        return X, weight
    rows = values.view(np.uint8).reshape(-1, n_bytes)[:, : X.shape[1]]
    if X.dtype != np.uint8:
        rows = rows.astype(X.dtype) / X.dtype.type(255)
    return rows, counts.astype(float)


def _bytes_of(X: NDArray) -> NDArray | None:
    """X as bytes if it holds bytes, or floats that are exactly bytes / 255."""
    if X.dtype == np.uint8:
        return X
    if X.dtype.kind != "f" or is_on_disk(X):
        return None
    out = np.empty(X.shape, np.uint8)
    for start in range(0, len(X), PIXELS):
        part = X[start : start + PIXELS]
        if not (part.min() >= 0 and part.max() <= 1):
            return None
        rounded = np.rint(part * 255)
        if not np.array_equal(rounded / X.dtype.type(255), part):
            return None
        out[start : start + PIXELS] = rounded
    return out
