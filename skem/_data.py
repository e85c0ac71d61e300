"""Where rows live. No other file knows.

In memory, rows are an array; on disk, ``Stored`` parts of a file; on the workers of a dask
cluster, ``Blocks``. ``fold`` and ``collect`` take a function to the parts, wherever they
are, and bring back what it returns, which is small. Parts stay where they are.
"""

import math
import mmap
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import reduce
from itertools import accumulate, pairwise
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Elements of a chunk: many rows keep threads out of the interpreter's lock.
CHUNK_SIZE = 5_000_000
# Bytes of a part of a file, and how many parts are kept for rows in random order.
PART_SIZE, N_PARTS = 2**25, 8
# Rows taken at a time: the system may map megabytes of a file around each.
TAKEN = 64
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


# -- on disk ------------------------------------------------------------------------------


def is_on_disk(X: Any) -> bool:
    """Whether X is a memory-mapped file, or an array of zarr or h5py."""
    named = all(hasattr(X, name) for name in ("shape", "dtype", "chunks"))
    return isinstance(X, np.memmap) or (named and not hasattr(X, "__array_ufunc__"))


class Stored:
    """Rows of an array on disk, images flattened.

    A slice reads nothing yet. An array of indices does, and ``np.asarray``.
    """

    ndim = 2

    def __init__(
        self,
        array: Any,
        start: int = 0,
        stop: int | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.origin, self._start, self._limits = array, start, limits
        self._stop = array.shape[0] if stop is None else stop
        self.dtype = np.dtype(array.dtype)
        self.shape = (self._stop - start, math.prod(array.shape[1:]))
        self._kept: OrderedDict[int, NDArray] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def part_rows(self) -> int:
        """Rows of a part: whole chunks of the file, which are read and unpacked as a whole."""
        unit = (getattr(self.origin, "chunks", None) or (1,))[0]
        n_rows = max(1, PART_SIZE // max(1, self.dtype.itemsize * self.shape[1]))
        return -(-n_rows // unit) * unit

    def edges(self) -> list[int]:
        """Where parts begin and end."""
        step = self.part_rows
        inner = range((self._start // step + 1) * step, self._stop, step)
        return [0, *(i - self._start for i in inner), len(self)]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            first = self._start + start
            return Stored(self.origin, first, first + max(0, stop - start), self._limits)
        index = np.asarray(key) + self._start
        if isinstance(self.origin, np.ndarray):
            return self._read(index)
        out = np.empty((len(index), self.shape[1]), self.dtype)
        owner = index // self.part_rows
        for i in np.unique(owner):
            own = owner == i
            out[own] = self._part(int(i))[index[own] - i * self.part_rows]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return np.asarray(self._read(slice(self._start, self._stop)), dtype)

    def clip(self, low: float, high: float) -> "Stored":
        """The same rows, clipped when they are read."""
        return Stored(self.origin, self._start, self._stop, (low, high))

    def _read(self, key: Any) -> NDArray:
        forget_pages(self.origin)
        rows = np.asarray(self.origin[key])
        rows = rows.reshape(len(rows), self.shape[1])
        return rows if self._limits is None else rows.clip(*self._limits)

    def _part(self, i: int) -> NDArray:
        """A part of the whole file, kept for the next rows."""
        if i not in self._kept:
            start = i * self.part_rows
            self._kept[i] = self._read(slice(start, start + self.part_rows))
        self._kept.move_to_end(i)
        while len(self._kept) > 2 * N_PARTS:  # a batch reaches from one window to the next
            self._kept.popitem(last=False)
        return self._kept[i]


def forget_pages(array: Any) -> None:
    """Give back the memory of what was read of a memory-mapped file.

    The system would do so when memory is short; until then the process looks as large as the
    file. Private changes of a map that is copied on write would be lost.
    """
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    shared = isinstance(base, mmap.mmap) and getattr(array, "mode", "c") != "c"
    if shared and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def by_windows(order: NDArray[np.intp], X: Any) -> NDArray[np.intp]:
    """Shuffled indices, rearranged so that few parts of a file are needed at a time.

    Parts in random order are grouped to windows, within which rows stay shuffled.
    """
    if not isinstance(X, Stored) or isinstance(X.origin, np.ndarray):
        return order
    owner = (order + X._start) // X.part_rows
    _, first, place = np.unique(owner, return_index=True, return_inverse=True)
    rank = first.argsort().argsort()
    return order[np.argsort(rank[place] // N_PARTS, kind="stable")]


# -- on a cluster -------------------------------------------------------------------------


def is_dask(X: Any) -> bool:
    """Whether X is an array of dask, or a data frame, which has names."""
    return hasattr(X, "__dask_graph__") and (is_array(X) or hasattr(X, "to_dask_array"))


def is_array(X: Any) -> bool:
    return hasattr(X, "rechunk")


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
        some = [(task, n) for task, n in zip(tasks, lengths, strict=True) if n]
        self.tasks, self.lengths = [task for task, _ in some], [n for _, n in some]
        self.dtype, self.origin, self.in_memory = np.dtype(dtype), origin, in_memory
        self.shape = (sum(lengths), *inner)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

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
    X = X if is_array(X) else X.to_dask_array()
    if any(len(sizes) > 1 for sizes in X.chunks[1:]):
        return X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
    return X


def blocks_of(X: Any, length: Callable[[Any], int] = len) -> Blocks:
    """The blocks of a dask array, images flattened; ``length`` finds out how long they are.

    If it is ``len``, only where the array does not know.
    """
    from dask import compute

    X = as_array(X)
    tasks, inner, lengths = tasks_of(X), X.shape[1:], list(X.chunks[0])
    in_memory = not any(task.dask for task in tasks[:1])  # nothing is left to be computed
    if X.ndim > 2:
        tasks, inner = _tasks(_flat, tasks), (math.prod(inner),)
    if length is not len or np.isnan(lengths).any():
        lengths = list(compute(*_tasks(length, tasks)))
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
        if weight.shape == rows.shape[:1]:
            weight = da.from_array(weight, chunks=chunks)
    if is_dask(weight) and weight.ndim == 1:
        found = blocks_of(weight.persist())
        if found.lengths == rows.lengths:
            return found
    raise ValueError(
        f"sample_weight has shape {weight.shape}, but X has {len(rows)} rows: give one weight "
        "for each row, in the same blocks where their lengths are not known."
    )


def _flat(block: NDArray) -> NDArray:
    return block.reshape(len(block), -1)


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
    return function(block) if len(block) else empty


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
        from dask import compute

        return list(compute(*_tasks(function, *columns)))
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
    from dask import config, delayed

    join = delayed(_sum, pure=False)
    tasks = _tasks(function, *columns)
    while len(tasks) > 1:
        tasks = [join(tasks[i : i + FAN_IN]) for i in range(0, len(tasks), FAN_IN)]
    # parameters may be large; of data in the graph, the first pass has warned
    with config.set({"distributed.admin.large-graph-warning-threshold": 2**62}):
        return tasks[0].compute()


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
    if isinstance(X, Stored):
        return np.concatenate([X[index[i : i + TAKEN]] for i in range(0, len(index), TAKEN)])
    if not isinstance(X, Blocks):
        return np.asarray(X[index])
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


def is_unweighted(weight: Any) -> bool:
    """Whether no weights were given."""
    if isinstance(weight, Blocks):
        return all(isinstance(task, Ones) for task in weight.tasks)
    return bool(weight.strides == (0,))


def n_positive(weight: Any) -> list[int]:
    """How many weights of each part are above 0."""
    return lengths_of(weight) if is_unweighted(weight) else collect(np.count_nonzero, weight)


def positive(X: Any, weight: Any) -> tuple[Any, Any]:
    """The rows of positive weight; of a file all rows, since they are not copied."""
    counts = n_positive(weight)
    if sum(counts) == len(weight) or isinstance(X, Stored):
        return X, weight
    if not isinstance(X, Blocks):
        return X[weight > 0], weight[weight > 0]
    some = _tasks(np.flatnonzero, weight.tasks)
    return X.select(some, counts), weight.select(some, counts)
