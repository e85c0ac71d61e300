"""Where rows live. No other file knows.

In memory, rows are an array; on disk, ``Stored`` parts of a file; on the workers of a dask
cluster, ``Blocks``. ``fold`` and ``collect`` take a function to the parts, wherever they
are, and bring back what it returns, which is small. Parts stay where they are.
"""

import math
from collections.abc import Callable, Iterable
from functools import cached_property, partial, reduce
from itertools import accumulate, pairwise
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skem._rows.files import Stored
from skem._threads import Counted

# Elements of a chunk: many rows keep threads out of the interpreter's lock.
CHUNK_SIZE = 5_000_000
# Results that a task of dask adds up.
FAN_IN = 8


def working_dtype(X: Any) -> np.dtype:
    """float32 stays; all else is computed in float64."""
    return np.dtype(np.float32 if X.dtype == np.float32 else np.float64)


def chunks(n_rows: int, row_size: int) -> list[slice]:
    """Even slices of rows, the same for any number of threads."""
    n_chunks = max(1, -(-n_rows * row_size // CHUNK_SIZE))
    edges = np.linspace(0, n_rows, min(n_chunks, n_rows) + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


# -- on a cluster -------------------------------------------------------------------------


def is_dask(X: Any) -> bool:
    """Whether X is an array of dask, or a data frame, which has names."""
    kind = type(X)  # a task of dask claims to have any attribute
    return hasattr(kind, "__dask_graph__") and (is_array(X) or hasattr(kind, "to_dask_array"))


def is_array(X: Any) -> bool:
    return hasattr(type(X), "rechunk")


class Blocks:
    """Rows on the workers of a cluster, or their weights: a task of dask for each block.

    What the tasks compute from, ``origin``, may itself be on the workers: it stays there
    while it is referred to.
    """

    def __init__(
        self,
        tasks: list[Any],
        lengths: list[int],
        dtype: Any,
        inner: tuple[int, ...],
        origin: Any = None,
        in_memory: bool = False,
    ) -> None:
        self.all_lengths = lengths
        some = [(task, n) for task, n in zip(tasks, lengths, strict=True) if n]
        self.tasks, self.lengths = [task for task, _ in some], [n for _, n in some]
        self.dtype, self.origin, self.in_memory = np.dtype(dtype), origin, in_memory
        self.shape = (sum(lengths), *inner)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def n_positive(self) -> list[int]:
        """Of weights: how many of each block are above 0."""
        return collect(np.count_nonzero, self)

    def with_tasks(self, tasks: list[Any], lengths: list[int]) -> "Blocks":
        """Others that are made of these."""
        inner = self.shape[1:]
        return Blocks(tasks, lengths, self.dtype, inner, self.origin, self.in_memory)

    def select(self, index: list[Any], lengths: list[int]) -> "Blocks":
        """The rows at an index of its own for each block."""
        return self.with_tasks(_tasks(_item, self.tasks, index), lengths)

    def keep(self, function: Callable[..., Any], *others: Any) -> "Blocks":
        """What the function makes of each block, computed once, to stay on the workers."""
        from dask import persist

        tasks = _tasks(function, *_parts(self, others))
        return self.with_tasks(list(persist(*tasks)), self.lengths)

    def __getitem__(self, key: slice) -> "Blocks":
        """The first rows."""
        stop = key.indices(len(self))[1]
        starts = [0, *accumulate(self.lengths)]
        left = [min(n, max(0, stop - a)) for n, a in zip(self.lengths, starts, strict=False)]
        return self.select([slice(n) for n in left], left)


def _item(rows: Any, index: Any) -> Any:
    return rows[index]


class Ones:
    """The weights of a block without weights: they travel as a number."""

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return np.broadcast_to(np.float64(1), self._n_rows)


def as_array(X: Any) -> Any:
    """A dask array whose blocks are whole rows."""
    if not is_array(X):
        kinds = set(X.dtypes) if X.ndim > 1 else {X.dtype}
        plain = len(kinds) == 1 and isinstance(next(iter(kinds)), np.dtype)
        X = (X if plain else X.astype(float)).to_dask_array()
    if any(len(sizes) > 1 for sizes in X.chunks[1:]):
        return X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
    return X


def blocks_of(X: Any, length: Callable[[Any], int] = len) -> Blocks:
    """The blocks of a dask array, images flattened; ``length`` finds out how long they are.

    If it is ``len``, only where the array does not know.
    """
    X = as_array(X)
    tasks, inner, lengths = tasks_of(X), X.shape[1:], list(X.chunks[0])
    in_memory = not any(task.dask for task in tasks[:1])  # nothing is left to be computed
    if X.ndim > 2:
        inner = (math.prod(inner),)
        tasks = _tasks(partial(_flat, *inner), tasks)
    if length is not len or np.isnan(lengths).any():
        lengths = list(evaluated(*_tasks(length, tasks)))
    return Blocks(tasks, lengths, X.dtype, inner, X, in_memory)


def weights_of(sample_weight: Any, rows: Blocks) -> Blocks:
    """Weights for the blocks of rows; those that are given are kept on the workers."""
    if sample_weight is None:
        return Blocks([Ones(n) for n in rows.lengths], rows.lengths, float, ())
    import dask.array as da

    weight, chunks = sample_weight, (tuple(rows.lengths),)
    if is_dask(weight):
        weight = as_array(weight).astype(float)
        if weight.shape == rows.shape[:1]:
            weight = weight.rechunk(chunks)
    else:
        weight = np.asarray(weight, float)
        if weight.ndim == 0:
            weight = da.full(len(rows), float(weight), chunks=chunks)
        elif weight.shape == rows.shape[:1]:
            weight = da.from_array(weight, chunks=chunks)
    if is_dask(weight) and weight.ndim == 1:
        found = blocks_of(weight.persist())
        if found.lengths == rows.lengths:
            return found
    raise ValueError(
        f"sample_weight has shape {weight.shape}, but X has {len(rows)} rows: give one weight "
        "for each row, in the same blocks where their lengths are not known."
    )


def _flat(n_columns: int, block: NDArray) -> NDArray:
    return block.reshape(len(block), n_columns)


def tasks_of(X: Any) -> list[Any]:
    """A task for each block of rows, by the protocol that arrays and data frames share."""
    from dask import optimize
    from dask.base import tokenize
    from dask.core import flatten
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph

    # which may no longer refer to what is kept on the workers
    X = X.optimize() if hasattr(X, "optimize") else optimize(X)[0]
    name = f"rows-{tokenize(X)}"
    graph = HighLevelGraph.from_collections(name, dict(X.__dask_graph__()))
    return [Delayed(key, graph, layer=name) for key in flatten(X.__dask_keys__())]


def _tasks(function: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
    """A task for each part; the function, with what it holds, travels once."""
    from dask import delayed

    call = delayed(_call, pure=False)
    shared = delayed(function, traverse=False, pure=False)
    return [call(shared, *parts) for parts in zip(*columns, strict=True)]


def evaluated(*tasks: Any) -> tuple[Any, ...]:
    """What tasks make, in memory; what is no task as it is."""
    from dask import compute

    return tuple(compute(*tasks))


def _call(function: Callable[..., Any], *parts: Any) -> Any:
    return function(*(np.asarray(part) if isinstance(part, Ones) else part for part in parts))


def _sum(results: list[Any]) -> Any:
    return reduce(add, results)


def map_blocks(function: Callable[[NDArray], NDArray], X: Any, example: NDArray) -> Any:
    """The dask array of ``function(block)``, computed when it is asked for.

    ``example`` is what the function makes of one row.
    """
    X = as_array(X)
    inner = example.shape[1:]
    return X.map_blocks(
        _call_on,
        function=function,
        empty=example[:0],
        drop_axis=list(range(1 + len(inner), X.ndim)),
        chunks=(X.chunks[0], *((size,) for size in inner)),
        dtype=example.dtype,
        meta=np.empty((0,) * example.ndim, example.dtype),
    )


def _call_on(block: NDArray, function: Callable[[NDArray], NDArray], empty: NDArray) -> NDArray:
    return function(block).astype(empty.dtype, copy=False) if len(block) else empty


# -- anywhere -----------------------------------------------------------------------------


def _parts(X: Any, others: tuple[Any, ...]) -> list[list[Any]]:
    """X and the others cut alike; a list has one entry for each part already."""
    if isinstance(X, Blocks):
        return [X.tasks, *(o.tasks if isinstance(o, Blocks) else o for o in others)]
    edges = X.edges() if isinstance(X, Stored) else [0, len(X)]
    cuts = [slice(a, b) for a, b in pairwise(edges)]
    return [o if isinstance(o, list) else [o[cut] for cut in cuts] for o in (X, *others)]


def lengths_of(X: Any) -> list[int]:
    """The number of rows of each part."""
    if isinstance(X, Blocks):
        return X.lengths
    return [len(part) for part in _parts(X, ())[0]]


def collect(function: Callable[..., Any], X: Any, *others: Any) -> list[Any]:
    """What the function returns for each part of X and of the others, in order."""
    columns = _parts(X, others)
    if isinstance(X, Blocks):
        return list(evaluated(*_tasks(function, *columns)))
    return list(map(function, *columns))


def fold(
    function: Callable[..., Any], X: Any, *others: Any, run: Callable[..., Any] = map
) -> Any:
    """The sum of what the function returns for each part of X and of the others.

    On a cluster it is taken there, as a tree; else in order, whatever ``run`` is.
    """
    columns = _parts(X, others)
    if not isinstance(X, Blocks):
        return reduce(add, run(function, *columns))
    from dask import delayed

    join = delayed(_sum, pure=False)
    tasks = _tasks(function, *columns)
    while len(tasks) > 1:
        tasks = [join(tasks[i : i + FAN_IN]) for i in range(0, len(tasks), FAN_IN)]
    with _large_parameters:
        return tasks[0].compute()


def _no_warning() -> Any:
    """Parameters may be large; of data in the graph, the first pass has warned."""
    from dask import config

    return config.set({"distributed.admin.large-graph-warning-threshold": 2**62})


_large_parameters = Counted(_no_warning)


def together(
    function: Callable[..., Any], some: Callable[[Any], NDArray], *columns: Any
) -> Any:
    """``function`` of whole columns, of the first of which only ``some`` values are taken.

    On a cluster one of the workers does it.
    """
    first, *others = columns
    if not isinstance(first, Blocks):
        parts = _parts(first, ())[0]
        return function(np.concatenate([some(part) for part in parts]), *others)
    from dask import delayed

    join = delayed(np.concatenate, pure=False)
    own = [_tasks(some, first.tasks), *(other.tasks for other in others)]
    return delayed(function, pure=False)(*map(join, own)).compute()


def take(X: Any, index: NDArray[np.intp]) -> NDArray:
    """The rows, or weights, at these indices, in memory."""
    if not isinstance(X, Blocks):
        return X.take(index) if isinstance(X, Stored) else np.asarray(X[index])
    starts = np.cumsum([0, *X.lengths])
    owner = np.searchsorted(starts, index, side="right") - 1
    order = np.argsort(owner, kind="stable")
    needed, counts = np.unique(owner, return_counts=True)
    local = np.split((index - starts[owner])[order], np.cumsum(counts)[:-1])
    tasks = [X.tasks[i] for i in needed]
    blocks = X.with_tasks(tasks, counts.tolist())
    out = np.empty((len(index), *X.shape[1:]), X.dtype)
    out[order] = np.concatenate(collect(_item, blocks, local))
    return out


def every(X: Any, step: int) -> NDArray:
    """Each ``step``-th row, or weight, in memory."""
    if isinstance(X, np.ndarray):
        return X[::step]
    return take(X, np.arange(0, len(X), step))


def is_unweighted(weight: Any) -> bool:
    """Whether no weights were given."""
    if isinstance(weight, Blocks):
        return all(isinstance(task, Ones) for task in weight.tasks)
    return bool(weight.strides == (0,))


def n_positive(weight: Any) -> list[int]:
    """How many weights of each part are above 0."""
    if is_unweighted(weight):
        return lengths_of(weight)
    if isinstance(weight, Blocks):
        return weight.n_positive
    return [int(np.count_nonzero(weight))]


def positive(X: Any, weight: Any) -> tuple[Any, Any]:
    """The rows of positive weight."""
    counts = n_positive(weight)
    if sum(counts) == len(weight):
        return X, weight
    if not isinstance(X, Blocks):
        some = np.flatnonzero(weight)
        return X.select(some) if isinstance(X, Stored) else X[some], weight[some]
    chosen = _tasks(np.flatnonzero, weight.tasks)
    return X.select(chosen, counts), weight.select(chosen, counts)
