"""Rows and their weights: what they answer wherever they live, and rows in memory.

``InMemory`` holds an array, ``Stored`` (``files.py``) reads a file part by part, and ``Blocks``
(``cluster.py``) leaves rows on the workers of a dask cluster. ``collect`` and ``fold`` call a
function with each part and its weights, where the part is, and bring back the results, which
are small.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from functools import lru_cache, reduce
from itertools import pairwise
from math import prod
from operator import add
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from skem._typing import AnyArray, Array, Indices

Result = TypeVar("Result")
Function = Callable[[Any], Any]
Map = Callable[..., Iterable[Any]]  # the built-in ``map``, or that of threads

# Elements of a chunk: few chunks, so that threads seldom wait for the interpreter's lock.
CHUNK_SIZE = 5_000_000


class Folded(Protocol):
    """What was prepared of rows, to be folded again and again."""

    def fold(self, function: Callable[[Any], Result]) -> Result:
        """Return the sum of ``function(prepared)`` over the parts."""


def chunks(n_rows: int, row_size: int) -> list[slice]:
    """Return even slices of rows; they do not depend on the number of threads."""
    n_chunks = max(1, -(-n_rows * row_size // CHUNK_SIZE))
    edges = np.linspace(0, n_rows, min(n_chunks, n_rows) + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def working_dtype(X: Any) -> np.dtype:
    """Return the dtype to compute in: float32 for float32, else float64."""
    return np.dtype(np.float32 if X.dtype == np.float32 else np.float64)


class Ones:
    """The weights of rows that were given none.

    ``np.asarray`` makes an array of them. A slice is ``Ones`` again, so that no array is as
    long as the data.
    """

    def __init__(self, n_rows: int) -> None:
        self.shape = (n_rows,)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> "Ones":
        return Ones(len(range(len(self))[key]) if isinstance(key, slice) else len(key))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(_ones(len(self)), dtype=dtype, copy=copy)


@lru_cache(maxsize=4)
def _ones(n: int) -> Array:
    """Return ones from a cache: a new array for each chunk costs as much as its rows."""
    out = np.ones(n)
    out.flags.writeable = False
    return out


Weights = Array | Ones


class Checks(NamedTuple):
    """How rows are checked when they come in."""

    whole: Callable[[Any], Any]  # convert and check X in memory
    outline: Callable[[Any], None]  # check the names and the number of the features
    part: Callable[[Any], int]  # check the values of a part; return its length


class Rows(ABC):
    """Rows, their weights, and what is asked of them."""

    is_weighted: bool = False
    is_complete: bool = False  # whether it is known that no value is missing

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """The dtype of the values."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and of columns once images are flattened."""

    @property
    @abstractmethod
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row as it was given, that of an image for example."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def working_dtype(self) -> np.dtype:
        return working_dtype(self)

    # -- coming in ------------------------------------------------------------------------

    @property
    @abstractmethod
    def given(self) -> Any:
        """The rows as callbacks see them."""

    @abstractmethod
    def outline(self) -> Any:
        """Return a table without rows that has the names and the number of the features."""

    @abstractmethod
    def checked(self, checks: Checks, *, images: bool) -> "Rows":
        """Return the rows once their shape and values are checked, images flattened."""

    @abstractmethod
    def weighted(self, sample_weight: Any, check: Callable[..., Array]) -> Self:
        """Return the rows with weights; ``check(sample_weight, rows)`` checks an array."""

    @abstractmethod
    def in_random_order(self, name: str) -> "LocalRows":
        """Return rows that can be taken in any order, or raise if they are on a cluster.

        ``name`` is the estimator that the message names.
        """

    @abstractmethod
    def in_memory(self, reason: str) -> "Rows":
        """Return the rows as an array in memory, or raise if they are on a cluster."""

    def with_columns(self, values: Array) -> "Rows":
        """Return the rows with further columns, in memory or on the cluster."""
        X = self.in_memory("with_columns").given
        return InMemory(np.concatenate([X, values], axis=1))

    # -- results of each part -------------------------------------------------------------

    @abstractmethod
    def collect(self, function: Callable[..., Result], *others: list[Any]) -> list[Result]:
        """Return ``function(rows, weight, *others)`` of each part, in order.

        The others are lists with an entry for each part.
        """

    @abstractmethod
    def collect_weights(
        self, function: Callable[..., Result], *others: list[Any]
    ) -> list[Result]:
        """Return ``function(weight, *others)`` of each part, in order; reads no rows."""

    @abstractmethod
    def fold(self, function: Callable[..., Result], run: Map = map) -> Result:
        """Return the sum of ``function(rows, weight)`` over the parts."""

    def fold_in_place(self, function: Callable[..., Result], run: Map = map) -> Result:
        """Return the sum of a function that takes the parts on the device where they are."""
        return self.fold(function, run)

    def refuse(self, name: str) -> None:  # noqa: B027
        """Raise an error if rows on another device cannot be used together with this."""

    @abstractmethod
    def gather(self, columns: Indices, function: Callable[..., Result]) -> Result:
        """Return ``function(values, weight)`` of some columns of all rows, in one place."""

    @abstractmethod
    def keep(self, prepare: Callable[..., Any]) -> "Folded | None":
        """Return ``prepare(rows, weight)`` of each part, kept.

        None if keeping them would take memory that grows with the rows.
        """

    @abstractmethod
    def threads(self, n_jobs: int | None) -> tuple[int | None, int | None]:
        """Split ``n_jobs`` threads: how many run over the parts, how many within a part."""

    @abstractmethod
    def choose(self, whole: Function, of_part: Callable[[bool], Function]) -> Function:
        """Return the function that suits: ``whole`` in memory, else ``of_part(lazy)``."""

    @abstractmethod
    def apply(self, function: Function) -> Any:
        """Return the results of a row-wise function, joined; on a cluster they are lazy."""

    @abstractmethod
    def one_by_one(
        self, sample_weight: Any, weigh: Callable[[Any, "Rows"], "Rows"]
    ) -> Iterator[tuple[Any, Any]]:
        """Yield each block of a cluster with its weights; other rows are one block."""

    # -- some of the rows -----------------------------------------------------------------

    @property
    @abstractmethod
    def lengths(self) -> list[int]:
        """The number of rows of each part."""

    @property
    @abstractmethod
    def n_positive(self) -> int:
        """The number of rows with a weight above 0."""

    @abstractmethod
    def positive(self) -> Self:
        """Return the rows with a weight above 0."""

    @abstractmethod
    def head(self, n_rows: int) -> Self:
        """Return the first rows."""

    @abstractmethod
    def take(self, index: Indices) -> AnyArray:
        """Return the rows at these indices, in memory."""

    @abstractmethod
    def take_weights(self, index: Indices) -> Array:
        """Return the weights at these indices, in memory."""

    def every(self, step: int) -> tuple[AnyArray, Array]:
        """Return each ``step``-th row and its weight, in memory."""
        index = np.arange(0, len(self), step)
        return self.take(index), self.take_weights(index)


class LocalRows(Rows):
    """Rows of this machine: ``rows[index]`` returns some of them, in memory."""

    weight: Weights

    @abstractmethod
    def parts(self) -> list[Any]:
        """Return the parts, not read yet."""

    @abstractmethod
    def read(self, part: Any) -> AnyArray:
        """Return a part in memory."""

    @abstractmethod
    def __getitem__(self, key: Any) -> AnyArray: ...

    def batch(self, index: Indices) -> Any:
        """Return rows at these indices, on the device where they are."""
        return np.asarray(self[index])

    @abstractmethod
    def select(self, index: Indices | slice) -> Self:
        """Return some of the rows, in their order, with their weights."""

    @abstractmethod
    def clip(self, low: float, high: float) -> Self:
        """Return the rows with clipped values."""

    @abstractmethod
    def batch_order(self, order: Indices) -> Indices:
        """Return shuffled indices in an order that suits where the rows are."""

    def reweighted(self, weight: Weights) -> Self:
        """Return the same rows with these weights."""
        new = copy(self)
        new.weight, new.is_weighted = weight, not isinstance(weight, Ones)
        return new

    def weighted(self, sample_weight: Any, check: Callable[..., Array]) -> Self:
        return self.reweighted(check(sample_weight, self))

    def in_random_order(self, name: str) -> "LocalRows":
        return self

    def _columns(self, *columns: Any) -> list[list[Any]]:
        """Cut columns like the parts; a list has an entry for each part already."""
        edges = np.cumsum([0, *self.lengths]).tolist()
        cuts = [slice(a, b) for a, b in pairwise(edges)]
        return [o if isinstance(o, list) else [o[cut] for cut in cuts] for o in columns]

    def collect(self, function: Callable[..., Result], *others: list[Any]) -> list[Result]:
        def read(part: Any, *columns: Any) -> Result:
            return function(self.read(part), *columns)

        return list(map(read, self.parts(), *self._columns(self.weight, *others)))

    def collect_weights(
        self, function: Callable[..., Result], *others: list[Any]
    ) -> list[Result]:
        return list(map(function, *self._columns(self.weight, *others)))

    def fold(self, function: Callable[..., Result], run: Map = map) -> Result:
        def read(part: Any, weight: Weights) -> Result:
            return function(self.read(part), weight)

        found: Result = reduce(add, run(read, self.parts(), *self._columns(self.weight)))
        return found

    def gather(self, columns: Indices, function: Callable[..., Result]) -> Result:
        values = np.concatenate([self.read(part)[:, columns] for part in self.parts()])
        return function(values, self.weight)

    def one_by_one(
        self, sample_weight: Any, weigh: Callable[[Any, Rows], Rows]
    ) -> Iterator[tuple[Any, Any]]:
        yield self.given, sample_weight

    @property
    def n_positive(self) -> int:
        return int(np.count_nonzero(self.weight)) if self.is_weighted else len(self)

    def positive(self) -> Self:
        if self.n_positive == len(self):
            return self
        return self.select(np.flatnonzero(self.weight))

    def head(self, n_rows: int) -> Self:
        return self.select(slice(n_rows))

    def take_weights(self, index: Indices) -> Array:
        return np.asarray(self.weight[index])


class InMemory(LocalRows):
    """Rows in memory: an array, a sparse matrix, or X as it was given until it is checked."""

    def __init__(self, values: Any, weight: Weights | None = None) -> None:
        self.values = values
        shape = getattr(values, "shape", ())
        self._row_shape = tuple(shape[1:])
        self.weight = Ones(shape[0] if shape else 0) if weight is None else weight
        self.is_weighted = not isinstance(self.weight, Ones)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.values.dtype)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self._row_shape

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(getattr(self.values, "shape", (0,)))

    @property
    def given(self) -> Any:
        return self.values

    def outline(self) -> Any:
        shape = getattr(self.values, "shape", ())
        return np.empty((0, prod(shape[1:]))) if len(shape) > 2 else self.values

    def checked(self, checks: Checks, *, images: bool) -> "InMemory":
        values = self.values
        if images and len(self._row_shape) in (2, 3):
            values = values.reshape(len(values), prod(self._row_shape))
        rows = InMemory(checks.whole(values))
        rows._row_shape = self._row_shape
        return rows

    def in_memory(self, reason: str) -> "InMemory":
        return self

    def parts(self) -> list[Any]:
        return [self.values]

    def read(self, part: Any) -> Any:
        return part

    @property
    def lengths(self) -> list[int]:
        return [len(self)]

    def keep(self, prepare: Callable[..., Any]) -> "KeptInMemory":
        return KeptInMemory(prepare(self.values, self.weight))

    def threads(self, n_jobs: int | None) -> tuple[int | None, int | None]:
        return 1, n_jobs

    def choose(self, whole: Function, of_part: Callable[[bool], Function]) -> Function:
        return whole

    def apply(self, function: Function) -> Any:
        return function(self.values)

    def __getitem__(self, key: Any) -> Any:
        return self.values[key]

    def take(self, index: Indices) -> Any:
        return self.values[index]

    def every(self, step: int) -> tuple[Any, Array]:
        return self.values[::step], np.asarray(self.weight[::step])

    def select(self, index: Indices | slice) -> "InMemory":
        return InMemory(self.values[index], self.weight[index])

    def clip(self, low: float, high: float) -> "InMemory":
        if isinstance(self.values, np.ndarray):
            return InMemory(self.values.clip(low, high), self.weight)
        sparse = self.values.copy()
        np.clip(sparse.data, low, high, out=sparse.data)
        return InMemory(sparse, self.weight)

    def batch_order(self, order: Indices) -> Indices:
        return order


class KeptInMemory:
    """What was prepared of rows in memory."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def fold(self, function: Callable[[Any], Result]) -> Result:
        return function(self._value)
