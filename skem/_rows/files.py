"""Rows on disk: memory-mapped files, and arrays of zarr and h5py, read part by part."""

import math
import mmap
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from skem._rows.parts import Checks, Function, InMemory, LocalRows, Ones, Weights
from skem._typing import AnyArray, Indices
from skem._warn import warn

# Bytes of a part of a file, and the number of parts kept for rows in random order.
PART_SIZE, N_PARTS = 2**25, 8


def is_on_disk(X: Any) -> bool:
    """Whether X is a memory-mapped file, or an array of zarr or h5py."""
    if isinstance(X, np.ndarray):
        return isinstance(X, np.memmap)
    others = ("__array_ufunc__", "__dask_graph__")  # a task of dask claims to have anything
    named = all(hasattr(X, name) for name in ("shape", "dtype", "chunks"))
    return named and not any(hasattr(type(X), name) for name in others)


class Stored(LocalRows):
    """Rows of an array on disk, images flattened.

    ``select`` and ``clip`` read nothing. ``rows[index]`` and ``take`` read.
    """

    def __init__(
        self,
        origin: Any,
        index: range | Indices | None = None,
        limits: tuple[float, float] | None = None,
        weight: Weights | None = None,
    ) -> None:
        self.origin, self._limits = origin, limits
        self._index = range(origin.shape[0]) if index is None else index  # in order
        self.weight = Ones(len(self._index)) if weight is None else weight
        self.is_weighted = not isinstance(self.weight, Ones)
        self._kept: OrderedDict[int, AnyArray] = OrderedDict()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.origin.dtype)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return tuple(self.origin.shape[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self._index), math.prod(self.row_shape)

    # -- coming in ------------------------------------------------------------------------

    @property
    def given(self) -> Any:
        return self.origin

    def outline(self) -> Any:
        return np.empty((0, self.shape[1]))

    def checked(self, checks: Checks, *, images: bool) -> "Stored":
        check_dimensions(self.origin.shape, images=images)
        checks.outline(self.outline())
        check_numeric(self.dtype, np.ndarray)
        warn_of_missing_chunks(self.origin)
        if self.dtype.kind == "f":
            self.collect(lambda rows, weight: checks.part(rows))
        return self

    def in_memory(self, reason: str) -> InMemory:
        return InMemory(np.asarray(self.origin), self.weight)

    # -- parts ----------------------------------------------------------------------------

    @property
    def part_rows(self) -> int:
        """The number of rows of a part: whole chunks of the file, which are read as a whole."""
        unit = (getattr(self.origin, "chunks", None) or (1,))[0]
        n_rows = max(1, PART_SIZE // max(1, self.dtype.itemsize * self.shape[1]))
        return -(-n_rows // unit) * unit

    def edges(self) -> list[int]:
        """Return where parts begin and end."""
        if not len(self):
            return [0, 0]
        step, (first, last) = self.part_rows, self._ends()
        inner = np.arange((first // step + 1) * step, last, step)
        if isinstance(self._index, range):
            return [0, *(inner - first).tolist(), len(self)]
        return np.unique([0, *np.searchsorted(self._index, inner), len(self)]).tolist()

    @property
    def lengths(self) -> list[int]:
        return [b - a for a, b in pairwise(self.edges())]

    def parts(self) -> list[Any]:
        return [self._index[a:b] for a, b in pairwise(self.edges())]

    def read(self, part: range | Indices) -> AnyArray:
        if not len(part):
            return self._read(slice(0, 0))
        read = self._read(slice(int(part[0]), int(part[-1]) + 1))
        return read if isinstance(part, range) else read[part - part[0]]

    def keep(self, prepare: Callable[..., Any]) -> None:
        return None

    def threads(self, n_jobs: int | None) -> tuple[int | None, int | None]:
        return n_jobs, 1

    def choose(self, whole: Function, of_part: Callable[[bool], Function]) -> Function:
        return of_part(False)

    def apply(self, function: Function) -> AnyArray:
        return np.concatenate(self.collect(lambda rows, weight: function(rows)))

    # -- some of the rows -----------------------------------------------------------------

    def __getitem__(self, key: Any) -> AnyArray:
        if isinstance(key, slice):
            return self.read(self._index[key])
        index = self.places(np.asarray(key))
        if isinstance(self.origin, np.ndarray):
            return self._read(index)
        out = np.empty((len(index), self.shape[1]), self.dtype)
        owner = index // self.part_rows
        # Parts that are kept come first, since reading another may drop them.
        for i in sorted(np.unique(owner).tolist(), key=lambda i: i not in self._kept):
            own = owner == i
            out[own] = self._part(i)[index[own] - i * self.part_rows]
        return out

    def select(self, index: Indices | slice) -> "Stored":
        places = self._index[index] if isinstance(index, slice) else self.places(index)
        return Stored(self.origin, places, self._limits, self.weight[index])

    def places(self, index: Indices) -> Indices:
        """Return where in the file rows are."""
        if isinstance(self._index, range):
            return index + self._index.start
        return self._index[index]

    def take(self, index: Indices) -> AnyArray:
        """Read rows at any indices, in one pass over the parts; keep no part."""
        out = np.empty((len(index), self.shape[1]), self.dtype)
        order = np.argsort(index, kind="stable")
        for start, stop in pairwise(self.edges()):
            first, last = np.searchsorted(index[order], [start, stop])
            if first < last:
                own = order[first:last]
                out[own] = self[start:stop][index[own] - start]
        return out

    def clip(self, low: float, high: float) -> "Stored":
        """Return the same rows, clipped when they are read."""
        return Stored(self.origin, self._index, (low, high), self.weight)

    def batch_order(self, order: Indices) -> Indices:
        """Rearrange shuffled indices so that few parts of a file are needed at a time.

        Parts in random order form groups, and rows are shuffled within a group.
        """
        if isinstance(self.origin, np.ndarray):
            return order
        n_parts = -(-self.origin.shape[0] // self.part_rows)
        place = np.random.default_rng(int(order[0])).permutation(n_parts) // N_PARTS
        owner = (self.places(order) // self.part_rows).astype(np.int32)
        return order[np.argsort(place.astype(np.uint16)[owner], kind="stable")]

    # -- reading --------------------------------------------------------------------------

    def _ends(self) -> tuple[int, int]:
        """Return the first row's place in the file, and the place after the last row."""
        return (int(self._index[0]), int(self._index[-1]) + 1) if len(self) else (0, 0)

    def _read(self, key: Any) -> AnyArray:
        base = mapped_file(self.origin)
        if base is not None:
            check_length(base)
            # private changes of a map that is copied on write would be lost
            if getattr(self.origin, "mode", None) in ("r", "r+", "w+"):
                forget_pages(base)
        rows = np.asarray(self.origin[key])
        rows = rows.reshape(len(rows), self.shape[1])
        return rows if self._limits is None else rows.clip(*self._limits)

    def _part(self, i: int) -> AnyArray:
        """Return a part of the whole file, kept for the next rows."""
        if i not in self._kept:
            while len(self._kept) >= N_PARTS:
                self._kept.popitem(last=False)
            start = i * self.part_rows
            self._kept[i] = self._read(slice(start, start + self.part_rows))
        self._kept.move_to_end(i)
        return self._kept[i]


def check_dimensions(shape: tuple[int, ...], *, images: bool) -> None:
    """Refuse what is not in rows and columns, or in images if these are allowed."""
    n_dims = len(shape)
    if n_dims != 2 and not (images and n_dims in (3, 4)):
        raise ValueError(
            f"X must have rows and columns, but it has {n_dims} dimension(s): reshape it."
        )


def check_numeric(dtype: np.dtype, kind: type) -> None:
    """Refuse blocks that are not NumPy arrays of numbers."""
    if kind is not np.ndarray or dtype.kind not in "buif":
        raise ValueError(
            f"X must hold numbers in blocks of NumPy, but it has {dtype} in {kind.__name__}: "
            "convert it."
        )


def stored_chunks(array: Any) -> tuple[int, int] | None:
    """Return how many chunks of an array are stored, and how many it has; None if unknown."""
    try:
        if hasattr(array, "nchunks_initialized"):  # zarr
            return int(array.nchunks_initialized), int(array.nchunks)
        if array.chunks is not None:  # h5py
            sizes = zip(array.shape, array.chunks, strict=True)
            return array.id.get_num_chunks(), math.prod(-(-n // size) for n, size in sizes)
        return int(array.id.get_storage_size() > 0), 1
    except (AttributeError, NotImplementedError, RuntimeError):  # other arrays do not tell
        return None


def warn_of_missing_chunks(array: Any) -> None:
    """Say that chunks are not stored: parts that were lost are read as if they were empty."""
    found = None if isinstance(array, np.ndarray) else stored_chunks(array)
    if found is not None and found[0] < found[1]:
        fill = getattr(array, "fill_value", getattr(array, "fillvalue", 0))
        warn(
            f"the file of X stores {found[0]} of its {found[1]} chunks, and the others are "
            f"read as {fill!r}. If they were never written, ignore this; otherwise restore "
            "the file.",
            UserWarning,
        )


def mapped_file(array: Any) -> mmap.mmap | None:
    """Return the mapped file that an array is a view of, if there is one."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def check_length(base: mmap.mmap) -> None:
    """Refuse a file that has shrunk: reading beyond its end would kill the process."""
    try:
        size = base.size()
    except OSError:  # not a file
        return
    if size < len(base):
        raise ValueError(
            f"the file of X has shrunk to {size} bytes, but {len(base)} bytes are mapped: "
            "restore the file, and open it again."
        )


def forget_pages(base: mmap.mmap) -> None:
    """Give back the memory of what was read of a mapped file.

    The system would do so when memory is short; until then the process looks as large as the
    file.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
