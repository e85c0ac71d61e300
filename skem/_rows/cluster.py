"""Rows on the workers of a dask cluster. No other file imports dask.

A dask array becomes a list of tasks, one for each block of rows. Functions go to the blocks;
the blocks stay where they are.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from copy import copy
from functools import cached_property, partial, reduce
from itertools import accumulate
from operator import add, getitem, itemgetter, methodcaller
from typing import Any, NoReturn, Self

import numpy as np

from skem._rows.files import check_dimensions, check_numeric
from skem._rows.parts import Checks, Folded, Function, Map, Ones, Result, Rows
from skem._threads import Counted, one_blas_thread
from skem._typing import AnyArray, Array, Indices

# Results that a task adds up. Eight keep the tree shallow, and a task's input small.
FAN_IN = 8


def is_dask(X: Any) -> bool:
    """Whether X is an array of dask, or a data frame, which has names."""
    kind = type(X)  # a task of dask claims to have any attribute
    return hasattr(kind, "__dask_graph__") and (is_array(X) or hasattr(kind, "to_dask_array"))


def is_array(X: Any) -> bool:
    """Whether X, which is dask's, is an array rather than a data frame."""
    return hasattr(type(X), "rechunk")


def _check_columns(dtypes: Any) -> None:
    """Refuse columns of a data frame that hold no numbers, before anything is computed."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    for name, dtype in dtypes.items():
        if not (is_numeric_dtype(dtype) or is_bool_dtype(dtype)):
            raise ValueError(
                f"column {name!r} of X has the type {dtype}, which cannot be converted to "
                "numbers: encode it or leave it out."
            )


class Blocks(Rows):
    """Rows of a dask array or data frame, images flattened, in one task for each block.

    Nothing is computed before it is needed. What was computed of ``origin`` stays on the
    workers while it is referred to.
    """

    def __init__(self, origin: Any, length: Callable[[Any], int] = len) -> None:
        self.origin, self._length = origin, length
        self._weights: list[Any] | None = None  # tasks; None without weights
        self._held: Blocks | None = None

    @cached_property
    def array(self) -> Any:
        """A dask array whose blocks are whole rows."""
        X = self.origin
        if not is_array(X):
            kinds = set(X.dtypes) if X.ndim > 1 else {X.dtype}
            plain = len(kinds) == 1 and isinstance(next(iter(kinds)), np.dtype)
            X = (X if plain else X.astype(float)).to_dask_array()
        if any(len(sizes) > 1 for sizes in X.chunks[1:]):
            return X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
        return X

    @property
    def row_shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[1:])

    @cached_property
    def _inner(self) -> tuple[int, ...]:
        """The shape of a row: its length, or nothing for weights."""
        inner = self.array.shape[1:]
        return (math.prod(inner),) if inner else ()

    @cached_property
    def _given_tasks(self) -> list[Any]:
        return _tasks_of(self.array)

    @cached_property
    def all_tasks(self) -> list[Any]:
        """A task for each block, empty ones among them."""
        if self.array.ndim > 2:
            return _tasks(methodcaller("reshape", -1, self._inner[0]), self._given_tasks)
        return self._given_tasks

    @cached_property
    def all_lengths(self) -> list[int]:
        """The lengths of all blocks, computed where the array does not know them."""
        lengths = list(self.array.chunks[0])
        if self._length is len and not np.isnan(lengths).any():
            return lengths
        return list(evaluated(*_tasks(self._length, self.all_tasks)))

    @cached_property
    def tasks(self) -> list[Any]:
        """A task for each block that has rows."""
        both = zip(self.all_tasks, self.all_lengths, strict=True)
        return [task for task, n in both if n]

    @cached_property
    def lengths(self) -> list[int]:
        return [n for n in self.all_lengths if n]

    @property
    def weights(self) -> list[Any]:
        """The weights of each block, as tasks or ``Ones``."""
        return [Ones(n) for n in self.lengths] if self._weights is None else self._weights

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.array.dtype)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return (sum(self.lengths), *self._inner)

    def _replaced(
        self, tasks: list[Any], lengths: list[int], weights: list[Any] | None
    ) -> Self:
        """Return rows of other tasks, made of these."""
        new = copy(self)
        vars(new).update(tasks=tasks, lengths=lengths, _weights=weights)
        vars(new).update(shape=(sum(lengths), *self._inner), is_weighted=weights is not None)
        vars(new).pop("n_positive_of_parts", None)
        return new

    # -- coming in ------------------------------------------------------------------------

    @property
    def given(self) -> Any:
        return self.origin

    def outline(self) -> Any:
        if is_array(self.origin):
            return np.empty((0, math.prod(self.origin.shape[1:])))
        import pandas as pd

        return pd.DataFrame(columns=list(self.origin.columns))

    def checked(self, checks: Checks, *, images: bool) -> "Blocks":
        check_dimensions(self.origin.shape, images=images)
        if not is_array(self.origin) and self.origin.ndim > 1:
            _check_columns(self.origin.dtypes)
        checks.outline(self.outline())
        check_numeric(self.dtype, type(self.array._meta))
        return Blocks(self.array, checks.part)

    def weighted(self, sample_weight: Any, check: Callable[..., Array]) -> Self:
        found = self._blocks_of_weights(sample_weight)
        new = self._replaced(self.tasks, self.lengths, found.tasks)
        new._held = found  # stays on the workers while it is referred to
        return new

    def _blocks_of_weights(self, weight: Any) -> "Blocks":
        """Return the weights in the blocks of the rows, kept on the workers."""
        import dask.array as da

        chunks = (tuple(self.lengths),)
        dtype = weight.dtype if hasattr(weight, "dtype") else np.asarray(weight).dtype
        if getattr(dtype, "kind", "f") == "c":
            raise ValueError("sample_weight must hold real numbers, but it is complex.")
        if is_dask(weight):
            weight = Blocks(weight).array.astype(float)
            if weight.ndim == 1 and np.isnan(weight.shape[0]):
                weight = weight.persist().compute_chunk_sizes()
            if weight.shape == self.shape[:1]:
                weight = weight.rechunk(chunks)
        else:
            weight = np.asarray(weight, float)
            if weight.ndim == 0:
                weight = da.full(len(self), float(weight), chunks=chunks)
            elif weight.shape == self.shape[:1]:
                weight = da.from_array(weight, chunks=chunks)
        if is_dask(weight) and weight.ndim == 1:
            found = Blocks(weight.persist())
            if found.lengths == self.lengths:
                return found
        raise ValueError(
            f"sample_weight has shape {weight.shape}, but X has {len(self)} rows: give one "
            "weight for each row."
        )

    def in_random_order(self, name: str) -> NoReturn:
        raise TypeError(
            f"X is a dask collection, but {name} takes rows in any order here. Call "
            "partial_fit(X) once for each pass, which keeps the order of the blocks. Or save X "
            "to a file, with X.to_zarr for example, and pass that."
        )

    def in_memory(self, reason: str) -> NoReturn:
        raise ValueError(
            f"{reason} needs all rows in memory, but X is of dask: leave it out, or give "
            "X.compute()."
        )

    def with_columns(self, values: Array) -> "Blocks":
        import dask.array as da

        own = da.from_array(values, chunks=(tuple(self.all_lengths), -1))
        return Blocks(da.concatenate([self.array, own], 1, allow_unknown_chunksizes=True))

    # -- results of each part -------------------------------------------------------------

    def _on_rows(self, function: Callable[..., Any], *others: Iterable[Any]) -> list[Any]:
        return _tasks(partial(_on_array, function), self.tasks, self.weights, *others)

    def collect(self, function: Callable[..., Result], *others: list[Any]) -> list[Result]:
        return list(evaluated(*self._on_rows(function, *others)))

    def collect_weights(
        self, function: Callable[..., Result], *others: list[Any]
    ) -> list[Result]:
        return list(evaluated(*_tasks(function, self.weights, *others)))

    def fold(self, function: Callable[..., Result], run: Map = map) -> Result:
        found: Result = _sum_of(self._on_rows(function))
        return found

    def gather(self, columns: Indices, function: Callable[..., Result]) -> Result:
        from dask import delayed

        join, keys = delayed(np.concatenate, pure=False), itemgetter((slice(None), columns))
        parts = [_tasks(partial(_on_array, keys), self.tasks), self.weights]
        found: Result = delayed(function, pure=False)(*map(join, parts)).compute()
        return found

    def keep(self, prepare: Callable[..., Any]) -> "Folded | None":
        """Keep what is prepared of blocks in memory; others are computed anew in each pass."""
        computed = not any(task.dask for task in self._given_tasks[:1])
        if not computed or self.dtype != self.working_dtype:
            return None
        from dask import persist

        return KeptBlocks(list(persist(*self._on_rows(prepare))))

    def threads(self, n_jobs: int | None) -> tuple[int | None, int | None]:
        return 1, n_jobs

    def choose(self, whole: Function, of_part: Callable[[bool], Function]) -> Function:
        return of_part(True)

    def apply(self, function: Function) -> Any:
        """Return the dask array of the results, computed when it is asked for."""
        X = self.array
        example = function(np.zeros((1, *X.shape[1:]), X.dtype))
        inner = example.shape[1:]
        return X.map_blocks(
            _call_on,
            function=function,
            empty=example[:0],
            drop_axis=list(range(1 + len(inner), X.ndim)),
            new_axis=list(range(X.ndim, 1 + len(inner))),
            chunks=(X.chunks[0], *((size,) for size in inner)),
            dtype=example.dtype,
            meta=np.empty((0,) * example.ndim, example.dtype),
        )

    def one_by_one(
        self, sample_weight: Any, weigh: Callable[[Any, Rows], Rows]
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the blocks that have rows and a positive weight."""
        # The blocks of a data frame are frames, which have names.
        tasks = _tasks_of(self.array if is_array(self.origin) else self.origin)
        weights: list[Any] = [None] * len(tasks)
        if sample_weight is not None:
            tasks = [task for task, n in zip(tasks, self.all_lengths, strict=True) if n]
            weighted: Any = weigh(sample_weight, self) if tasks else self  # holds the weights
            weights = weighted.weights
        n_rows = 0
        for task, weight in zip(tasks, weights, strict=True):
            block, own = evaluated(task, weight)
            n_rows += block.shape[0]
            if block.shape[0] and (own is None or np.any(own)):
                yield block, own
        if not n_rows:
            shape = (0, *self.origin.shape[1:])
            raise ValueError(f"X has shape {shape}, but at least 1 row is needed.")

    # -- some of the rows -----------------------------------------------------------------

    @cached_property
    def n_positive_of_parts(self) -> list[int]:
        return self.collect_weights(np.count_nonzero) if self.is_weighted else self.lengths

    @property
    def n_positive(self) -> int:
        return sum(self.n_positive_of_parts)

    def positive(self) -> Self:
        if self.n_positive == len(self):
            return self
        chosen = _tasks(np.flatnonzero, self.weights)
        return self._select(chosen, self.n_positive_of_parts)

    def head(self, n_rows: int) -> Self:
        starts = accumulate([0, *self.lengths[:-1]])
        left = [min(n, max(0, n_rows - a)) for n, a in zip(self.lengths, starts, strict=True)]
        return self._select([slice(n) for n in left], left)

    def _select(self, index: list[Any], lengths: list[int]) -> Self:
        """Return the rows at an index for each block; blocks without rows are left out."""
        some = [i for i, n in enumerate(lengths) if n]
        chosen = [index[i] for i in some]
        weights = self._weights and [self._weights[i] for i in some]
        return self._replaced(
            _tasks(getitem, [self.tasks[i] for i in some], chosen),
            [lengths[i] for i in some],
            weights and _tasks(getitem, weights, chosen),
        )

    def take(self, index: Indices) -> AnyArray:
        return self._take(self.tasks, index, np.empty((len(index), *self._inner), self.dtype))

    def take_weights(self, index: Indices) -> Array:
        if not self.is_weighted:
            return np.ones(len(index))
        return self._take(self.weights, index, np.empty(len(index)))

    def _take(self, tasks: list[Any], index: Indices, out: Any) -> Any:
        starts = np.cumsum([0, *self.lengths])
        owner = np.searchsorted(starts, index, side="right") - 1
        order = np.argsort(owner, kind="stable")
        needed, counts = np.unique(owner, return_counts=True)
        local = np.split((index - starts[owner])[order], np.cumsum(counts)[:-1])
        found = evaluated(*_tasks(getitem, [tasks[i] for i in needed], local))
        out[order] = np.concatenate(found)
        return out


class KeptBlocks:
    """What was prepared of each block, on the workers."""

    def __init__(self, tasks: list[Any]) -> None:
        self._prepared = tasks

    def fold(self, function: Callable[[Any], Result]) -> Result:
        found: Result = _sum_of(_tasks(function, self._prepared))
        return found


# -- tasks --------------------------------------------------------------------------------


def _tasks_of(X: Any) -> list[Any]:
    """Return a task for each block of rows, by the protocol of arrays and data frames.

    Arrays with query planning have no ``to_delayed``.
    """
    from dask import optimize
    from dask.base import tokenize
    from dask.core import flatten
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph

    # An optimized graph may no longer refer to what is kept on the workers.
    X = X.optimize() if hasattr(X, "optimize") else optimize(X)[0]
    name = f"rows-{tokenize(X)}"
    graph = HighLevelGraph.from_collections(name, dict(X.__dask_graph__()))
    return [Delayed(key, graph, layer=name) for key in flatten(X.__dask_keys__())]


def _tasks(function: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
    """Return a task for each part. The function travels once, with what it holds."""
    from dask import delayed

    call = delayed(_call, pure=False)
    shared = delayed(function, traverse=False, pure=False)
    return [call(shared, *parts) for parts in zip(*columns, strict=True)]


def evaluated(*tasks: Any) -> tuple[Any, ...]:
    """Compute the tasks and return their results; pass other values through."""
    from dask import compute

    return tuple(compute(*tasks))


def _sum_of(tasks: list[Any]) -> Any:
    """Return the sum of the results, added up as a tree on the workers."""
    from dask import delayed

    join = delayed(_sum, pure=False)
    while len(tasks) > 1:
        tasks = [join(tasks[i : i + FAN_IN]) for i in range(0, len(tasks), FAN_IN)]
    with _large_parameters:
        return tasks[0].compute()


def _no_warning() -> Any:
    """Turn off the warning of dask about large graphs: ours hold parameters, not data."""
    from dask import config

    if "distributed" not in sys.modules:  # its import would lose the defaults that it sets
        return nullcontext()
    return config.set({"distributed.admin.large-graph-warning-threshold": 2**62})


_large_parameters = Counted(_no_warning)


# -- what runs on the workers -------------------------------------------------------------


def _call(function: Callable[..., Any], *parts: Any) -> Any:
    # A worker runs several tasks at a time, and its threads do not know the caller's settings
    # of NumPy. The results are checked.
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        return function(*parts)


def _on_array(function: Callable[..., Any], block: Any, *others: Any) -> Any:
    return function(np.asarray(block), *others)


def _sum(results: list[Any]) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        return reduce(add, results)


def _call_on(block: AnyArray, function: Callable[..., Any], empty: AnyArray) -> AnyArray:
    return function(block).astype(empty.dtype, copy=False) if len(block) else empty
