"""Arrays on disk: memory-mapped files, and arrays of zarr and h5py, read by parts."""

import math
import mmap
from collections import OrderedDict
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bytes of a part of a file, and how many parts are kept for rows in random order.
PART_SIZE, N_PARTS = 2**25, 8


def is_on_disk(X: Any) -> bool:
    """Whether X is a memory-mapped file, or an array of zarr or h5py."""
    if isinstance(X, np.ndarray):
        return isinstance(X, np.memmap)
    others = ("__array_ufunc__", "__dask_graph__")  # a task of dask claims to have anything
    named = all(hasattr(X, name) for name in ("shape", "dtype", "chunks"))
    return named and not any(hasattr(type(X), name) for name in others)


class Stored:
    """Rows of an array on disk, images flattened.

    A slice reads nothing yet, nor does ``select``. An array of indices does, and
    ``np.asarray``.
    """

    ndim = 2

    def __init__(
        self,
        origin: Any,
        rows: range | NDArray[np.intp] | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.origin, self._limits = origin, limits
        self._rows = range(origin.shape[0]) if rows is None else rows  # in order
        self.dtype = np.dtype(origin.dtype)
        self.shape = (len(self._rows), math.prod(origin.shape[1:]))
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
        if not len(self):
            return [0, 0]
        step, (first, last) = self.part_rows, self._ends()
        inner = np.arange((first // step + 1) * step, last, step)
        if isinstance(self._rows, range):
            return [0, *(inner - first).tolist(), len(self)]
        return np.unique([0, *np.searchsorted(self._rows, inner), len(self)]).tolist()

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return Stored(self.origin, self._rows[key], self._limits)
        index = self.places(np.asarray(key))
        if isinstance(self.origin, np.ndarray):
            return self._read(index)
        out = np.empty((len(index), self.shape[1]), self.dtype)
        owner = index // self.part_rows
        # a batch reaches from one window to the next: what is kept comes first, and may go
        for i in sorted(np.unique(owner).tolist(), key=lambda i: i not in self._kept):
            own = owner == i
            out[own] = self._part(i)[index[own] - i * self.part_rows]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        first, last = self._ends()
        read = self._read(slice(first, last))
        if not isinstance(self._rows, range):
            read = read[self._rows - first]
        return np.asarray(read, dtype)

    def select(self, index: NDArray[np.intp]) -> "Stored":
        """Some of the rows, in order."""
        return Stored(self.origin, self.places(index), self._limits)

    def places(self, index: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where in the file rows are."""
        if isinstance(self._rows, range):
            return index + self._rows.start
        return self._rows[index]

    def take(self, index: NDArray[np.intp]) -> NDArray:
        """The rows at any indices, in one pass over the parts, of which none is kept."""
        out = np.empty((len(index), self.shape[1]), self.dtype)
        order = np.argsort(index, kind="stable")
        for start, stop in pairwise(self.edges()):
            first, last = np.searchsorted(index[order], [start, stop])
            if first < last:
                own = order[first:last]
                out[own] = np.asarray(self[start:stop])[index[own] - start]
        return out

    def clip(self, low: float, high: float) -> "Stored":
        """The same rows, clipped when they are read."""
        return Stored(self.origin, self._rows, (low, high))

    def _ends(self) -> tuple[int, int]:
        """The first row's place in the file, and that after the last."""
        return (int(self._rows[0]), int(self._rows[-1]) + 1) if len(self) else (0, 0)

    def _read(self, key: Any) -> NDArray:
        forget_pages(self.origin)
        rows = np.asarray(self.origin[key])
        rows = rows.reshape(len(rows), self.shape[1])
        return rows if self._limits is None else rows.clip(*self._limits)

    def _part(self, i: int) -> NDArray:
        """A part of the whole file, kept for the next rows."""
        if i not in self._kept:
            while len(self._kept) >= N_PARTS:
                self._kept.popitem(last=False)
            start = i * self.part_rows
            self._kept[i] = self._read(slice(start, start + self.part_rows))
        self._kept.move_to_end(i)
        return self._kept[i]


def forget_pages(array: Any) -> None:
    """Give back the memory of what was read of a memory-mapped file.

    The system would do so when memory is short; until then the process looks as large as the
    file. Private changes of a map that is copied on write would be lost.
    """
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    shared = isinstance(base, mmap.mmap) and getattr(array, "mode", None) in ("r", "r+", "w+")
    if shared and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def by_windows(order: NDArray[np.intp], X: Any) -> NDArray[np.intp]:
    """Shuffled indices, rearranged so that few parts of a file are needed at a time.

    Parts in random order are grouped to windows, within which rows stay shuffled.
    """
    if not isinstance(X, Stored) or isinstance(X.origin, np.ndarray):
        return order
    n_parts = -(-X.origin.shape[0] // X.part_rows)
    place = np.random.default_rng(int(order[0])).permutation(n_parts) // N_PARTS
    owner = (X.places(order) // X.part_rows).astype(np.int32)
    return order[np.argsort(place.astype(np.uint16)[owner], kind="stable")]
