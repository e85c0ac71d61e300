"""Merge equal pixels: an image has few different colors for its size."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from skem._rows.parts import InMemory, Rows, Weights, working_dtype
from skem._typing import AnyArray

# Keys are integers of at most 8 bytes, one for each column.
MAX_COLUMNS = 8
# Merging takes as long as several passes. It is worthwhile only if many rows are equal. The
# different rows must fit in memory several times.
MAX_UNIQUE_SHARE, MAX_UNIQUE = 0.8, 2**20
# Pixels converted at a time: small, so that data that are not pixels are rejected early.
N_PIXELS = 4096


@dataclass(frozen=True)
class Colors:
    """Different rows as sorted integers, and their total weights; None if too many."""

    limit: float
    keys: AnyArray | None = None
    counts: AnyArray | None = None

    def __add__(self, other: "Colors") -> "Colors":
        if self.keys is None or other.keys is None:
            return Colors(self.limit)
        keys, place = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([self.counts, other.counts]))
        return Colors(self.limit, keys, counts).unless_too_many()

    def unless_too_many(self) -> "Colors":
        too_many = self.keys is not None and len(self.keys) > self.limit
        return Colors(self.limit) if too_many else self


def merge_equal_pixels(rows: Rows) -> Rows:
    """Return the different rows of an image and their total weights.

    The rows must be bytes, or bytes / 255, in at most 8 columns; they are compared as
    integers. Other data, and data with few equal rows, are returned unchanged.
    """
    if rows.shape[1] > MAX_COLUMNS:
        return rows
    first = rows.take(np.arange(min(N_PIXELS, len(rows))))
    if rows.dtype != np.uint8 and _bytes_of(first) is None:
        return rows
    limit = min(MAX_UNIQUE, MAX_UNIQUE_SHARE * rows.n_positive)
    found = rows.fold(partial(_colors_of, limit, rows.is_weighted))
    if found.keys is None:
        return rows
    colors = found.keys.view(np.uint8).reshape(len(found.keys), -1)[:, : rows.shape[1]]
    if rows.dtype != np.uint8:
        dtype = rows.working_dtype
        colors = colors.astype(dtype) / dtype.type(255)
    return InMemory(colors, found.counts)


def _colors_of(limit: float, is_weighted: bool, X: AnyArray, weight: Weights) -> Colors:
    pixels = _bytes_of(X)
    if pixels is None:
        return Colors(limit)
    n_bytes = 4 if X.shape[1] <= 4 else 8
    keys = np.zeros((len(X), n_bytes), np.uint8)
    keys[:, : X.shape[1]] = pixels
    integers = keys.view(f"u{n_bytes}")[:, 0]
    if is_weighted:
        values, place = np.unique(integers, return_inverse=True)
        counts = np.bincount(place, np.asarray(weight))
    else:
        values, n = np.unique(integers, return_counts=True)
        counts = n.astype(float)
    return Colors(limit, values, counts).unless_too_many()


def _bytes_of(X: AnyArray) -> AnyArray | None:
    """Return X as bytes if it holds bytes, or floats that are exactly bytes / 255."""
    if X.dtype == np.uint8:
        return X
    out, dtype = np.empty(X.shape, np.uint8), working_dtype(X)
    for start in range(0, len(X), N_PIXELS):
        part = X[start : start + N_PIXELS].astype(dtype, copy=False)
        if not (part.min() >= 0 and part.max() <= 1):
            return None
        rounded = np.rint(part * 255)
        if not np.array_equal(rounded / dtype.type(255), part):
            return None
        out[start : start + N_PIXELS] = rounded
    return out
