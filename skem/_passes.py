"""Passes of a model over weighted rows."""

from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skem._data import chunks, fold, working_dtype
from skem._threads import one_blas_thread, thread_map


class Passes:
    """E steps over all rows, wherever they live.

    An array in memory keeps its prepared chunks from pass to pass. Parts of a file, and
    blocks on a cluster, are prepared again at each pass, so that memory does not grow with
    their number. Sums are taken in the order of the chunks, so that threads change no digit.
    """

    def __init__(self, model: Any, X: Any, weight: Any, n_threads: int = 1) -> None:
        self._model, self._X, self._weight = model, X, weight
        self._dtype, self._map = working_dtype(X), thread_map(n_threads)
        self._cached: list[tuple[Any, NDArray]] | None = None
        if isinstance(X, np.ndarray):
            parts = chunks(len(X), model.row_size)
            rows = self._map(lambda part: model.rows(X[part], self._dtype), parts)
            self._cached = [(r, weight[part]) for r, part in zip(rows, parts, strict=True)]

    def fold(self, function: Callable[[Any, NDArray], Any], params: Any) -> Any:
        """Sum ``function(rows, weight)`` over the chunks, as exact as ``params`` need."""
        dtype = self._model.dtype_for(params, self._dtype)
        if self._cached is not None and dtype == self._dtype:
            return reduce(add, self._map(lambda chunk: function(*chunk), self._cached))
        of_part = partial(_sum_of_chunks, self._model, function, dtype)
        return fold(of_part, self._X, self._weight, run=self._map)

    def total(self, params: Any) -> Any:
        """The statistics of all rows: what the loop of EM asks for."""
        return self.fold(partial(self._model.e_step, params), params)


def _sum_of_chunks(
    model: Any,
    function: Callable[[Any, NDArray], Any],
    dtype: DTypeLike,
    X: Any,
    weight: NDArray,
) -> Any:
    """The same for one part; on a worker of a cluster too."""
    X = np.asarray(X)
    with one_blas_thread():
        return reduce(
            add,
            (
                function(model.rows(X[part], dtype), weight[part])
                for part in chunks(len(X), model.row_size)
            ),
        )
