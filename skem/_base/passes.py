"""Passes of a model over weighted rows."""

from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from skem._loop import Maximizable
from skem._rows.parts import Rows, Weights, chunks
from skem._threads import ThreadMap
from skem._typing import AnyArray, Array

Sum = TypeVar("Sum")
Prepared = list[tuple[Any, Array]]  # chunks that a model has prepared, and their weights


class Model(Maximizable, Protocol):
    """What a pass and the loop of EM ask of a model."""

    @property
    def row_size(self) -> int:
        """The elements that a row takes in a pass."""

    def dtype_for(self, params: Any, dtype: DTypeLike) -> np.dtype:
        """Return the dtype that resolves the parameters."""

    def rows(self, values: AnyArray, dtype: DTypeLike) -> Any:
        """Prepare a chunk of rows."""

    def e_step(self, params: Any, rows: Any, weight: Array) -> Any:
        """Return the expected statistics of a prepared chunk."""

    def recenter(self, stats: Any, params: Any, new: Any) -> Any:
        """Express statistics made with ``params`` in those of ``new``."""


class Passes:
    """E steps over all rows, wherever they live.

    Rows in memory, here or on workers, keep their prepared chunks from pass to pass. Parts of
    a file, and blocks that are computed anew, are prepared again in each pass, so that memory
    does not grow with their number. Sums are taken in the order of the chunks, so that threads
    change no digit.
    """

    def __init__(self, model: Model, rows: Rows, n_jobs: int | None = 1) -> None:
        self.rows = rows
        self._model, self._dtype = model, rows.working_dtype
        self._over_parts, self._within = map(ThreadMap, rows.threads(n_jobs))
        self._kept = rows.keep(partial(_prepared, model, self._dtype, self._within))

    def fold(self, function: Callable[[Any, Array], Sum], params: Any) -> Sum:
        """Return the sum of ``function(rows, weight)`` over the chunks.

        The rows have the dtype that resolves ``params``.
        """
        dtype = self._model.dtype_for(params, self._dtype)
        if self._kept is None or dtype != self._dtype:
            of_part = partial(_sum_of_part, self._model, function, dtype, self._within)
            return self.rows.fold_in_place(of_part, run=self._over_parts)
        return self._kept.fold(partial(_sum_of_kept, function, self._within))

    def total(self, params: Any) -> Any:
        """Return the statistics of all rows."""
        return self.fold(partial(self._model.e_step, params), params)


def _prepared(
    model: Model, dtype: DTypeLike, run: ThreadMap, X: AnyArray, weight: Weights
) -> Prepared:
    """Return the prepared chunks of an array."""

    def of_chunk(part: slice) -> tuple[Any, Array]:
        return model.rows(X[part], dtype), np.asarray(weight[part])

    return list(run(of_chunk, chunks(len(X), model.row_size)))


def _sum_of_kept(function: Callable[[Any, Array], Sum], run: ThreadMap, kept: Prepared) -> Sum:
    """Return the sum over prepared chunks."""
    return reduce(add, run(lambda chunk: function(*chunk), kept))


def _sum_of_part(
    model: Model,
    function: Callable[[Any, Array], Sum],
    dtype: DTypeLike,
    run: ThreadMap,
    X: AnyArray,
    weight: Weights,
) -> Sum:
    """Return the sum over the chunks of an array, each prepared when its turn comes."""

    def of_chunk(part: slice) -> Sum:
        return function(model.rows(X[part], dtype), np.asarray(weight[part]))

    return reduce(add, run(of_chunk, chunks(len(X), model.row_size)))
