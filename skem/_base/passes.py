"""Passes of a model over weighted rows."""

from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skem._rows.parts import Blocks, chunks, fold, working_dtype
from skem._threads import one_blas_thread, thread_map


class Passes:
    """E steps over all rows, wherever they live.

    Arrays in memory, of one's own or of workers, keep their prepared chunks from pass to pass.
    Parts of a file, and blocks that are computed anew, are prepared again at each pass, so
    that memory does not grow with their number. Sums are taken in the order of the chunks, so
    that threads change no digit.
    """

    def __init__(self, model: Any, X: Any, weight: Any, n_jobs: int | None = 1) -> None:
        self._model, self._X, self._weight = model, X, weight
        self._dtype, self._n_jobs = working_dtype(X), n_jobs
        self._map = thread_map(n_jobs)
        self._kept: Any = None
        if isinstance(X, np.ndarray):
            self._kept = _prepared(model, self._dtype, X, weight, self._map)
        elif isinstance(X, Blocks) and X.in_memory and X.dtype == self._dtype:
            self._kept = X.keep(partial(_prepared, model, self._dtype), weight)

    def fold(self, function: Callable[[Any, NDArray], Any], params: Any) -> Any:
        """Sum ``function(rows, weight)`` over the chunks, as exact as ``params`` need."""
        dtype = self._model.dtype_for(params, self._dtype)
        if self._kept is None or dtype != self._dtype:
            # parts of a file are shared by the threads, a block has them to itself
            own = self._n_jobs if isinstance(self._X, Blocks) else 1
            of_part = partial(_sum_of_part, self._model, function, dtype, own)
            return fold(of_part, self._X, self._weight, run=self._map)
        if isinstance(self._kept, Blocks):
            return fold(partial(_sum_of_block, function, self._n_jobs), self._kept)
        return _sum(function, self._kept, self._map)

    def total(self, params: Any) -> Any:
        """The statistics of all rows: what the loop of EM asks for."""
        return self.fold(partial(self._model.e_step, params), params)


def _prepared(
    model: Any, dtype: DTypeLike, X: NDArray, weight: NDArray, run: Callable[..., Any] = map
) -> list[tuple[Any, NDArray]]:
    """The chunks of an array, prepared, and their weights."""

    def of_chunk(part: slice) -> tuple[Any, NDArray]:
        return model.rows(X[part], dtype), weight[part]

    return list(run(of_chunk, chunks(len(X), model.row_size)))


def _sum(
    function: Callable[[Any, NDArray], Any],
    kept: list[tuple[Any, NDArray]],
    run: Callable[..., Any],
) -> Any:
    """The sum of what the function returns for prepared chunks."""
    return reduce(add, run(lambda chunk: function(*chunk), kept))


def _sum_of_block(
    function: Callable[[Any, NDArray], Any], n_jobs: int | None, kept: list[tuple[Any, NDArray]]
) -> Any:
    with one_blas_thread():
        return _sum(function, kept, thread_map(n_jobs))


def _sum_of_part(
    model: Any,
    function: Callable[[Any, NDArray], Any],
    dtype: DTypeLike,
    n_jobs: int | None,
    X: Any,
    weight: NDArray,
) -> Any:
    """The same, each chunk prepared when its turn comes."""
    X = np.asarray(X)

    def of_chunk(part: slice) -> Any:
        return function(model.rows(X[part], dtype), weight[part])

    with one_blas_thread():
        return reduce(add, thread_map(n_jobs)(of_chunk, chunks(len(X), model.row_size)))
