"""E steps over rows that have values of their own beside their features.

The values are an array with an entry for each row. It stays in memory here. Each part of the
rows, in a file or on a worker, gets its own entries.
"""

from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any, TypeVar

import numpy as np

from skem._rows import to_memory
from skem._rows.parts import Rows, Weights, chunks
from skem._threads import ThreadMap
from skem._typing import AnyArray, Array
from skem.mixture._model import Mixture, Stats
from skem.mixture._params import Params

Sum = TypeVar("Sum")


def of_positive(rows: Rows, aside: Array) -> Array:
    """Return the values of the rows with a weight above 0."""
    if rows.n_positive == len(rows):
        return aside
    kept: Array = aside[rows.take_weights(np.arange(len(rows))) > 0]
    return kept


def checked_aside(name: str, values: Any, shape: tuple[int, ...]) -> Array:
    """Return the values as an array of this shape."""
    try:
        array = np.asarray(to_memory(values), dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers in the shape {shape}: {error}") from error
    if array.shape != shape:
        raise ValueError(
            f"{name} must have an entry for each row of X, in the shape {shape}, but its shape "
            f"is {array.shape}."
        )
    return array


class AsidePasses:
    """Passes of a model whose E step takes the values beside the rows."""

    def __init__(
        self, model: Mixture, rows: Rows, aside: Array, n_jobs: int | None = 1
    ) -> None:
        self.rows = rows
        self.model, self._run = model, ThreadMap(n_jobs)
        self._parts = np.split(aside, np.cumsum(rows.lengths)[:-1])

    def fold(self, function: Callable[[Any, Array, Array], Sum]) -> Sum:
        """Return the sum of ``function(groups, weight, aside)`` over the chunks."""
        of_part = partial(_sum_of_part, self.model, function, self._run)
        return reduce(add, self.rows.collect(of_part, self._parts))

    def total(self, params: Params) -> Stats:
        """Return the statistics of all rows."""
        return self.fold(partial(self.model.e_step, params))


def _sum_of_part(
    model: Mixture,
    function: Callable[[Any, Array, Array], Sum],
    run: ThreadMap,
    X: AnyArray,
    weight: Weights,
    aside: Array,
) -> Sum:
    def of_chunk(part: slice) -> Sum:
        return function(model.rows(X[part], float), np.asarray(weight[part]), aside[part])

    return reduce(add, run(of_chunk, chunks(len(X), model.row_size)))
