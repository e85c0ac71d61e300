"""Pixels that are equal, merged: an image has few colours for its size."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skem._rows.parts import fold, is_unweighted, n_positive, take, working_dtype

MAX_COLUMNS = 8
# Merging equal rows of bytes pays if at most so many of them are different.
MAX_UNIQUE_SHARE, MAX_UNIQUE = 0.8, 2**20
PIXELS = 4096  # converted at a time: data that are not pixels are found out soon


@dataclass(frozen=True)
class Colours:
    """Different rows as integers, in order, and their total weights; None of too many."""

    most: float
    keys: NDArray | None = None
    counts: NDArray | None = None

    def __add__(self, other: "Colours") -> "Colours":
        if self.keys is None or other.keys is None:
            return Colours(self.most)
        keys, place = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([self.counts, other.counts]))
        return Colours(self.most, keys, counts).unless_too_many()

    def unless_too_many(self) -> "Colours":
        too_many = self.keys is not None and len(self.keys) > self.most
        return Colours(self.most) if too_many else self


def merge_equal_pixels(X: Any, weight: Any) -> tuple[Any, Any]:
    """The different rows of an image and their total weights, where that pays.

    X holds bytes, or bytes / 255, in at most 8 columns: rows are compared as integers. Other
    data are returned as they are.
    """
    if X.shape[1] > MAX_COLUMNS:
        return X, weight
    first = np.arange(min(PIXELS, len(X)))
    if X.dtype != np.uint8 and _bytes_of(take(X, first)) is None:
        return X, weight
    most = min(MAX_UNIQUE, MAX_UNIQUE_SHARE * sum(n_positive(weight)))
    found: Colours = fold(partial(_colours_of, most), X, weight)
    if found.keys is None:
        return X, weight
    rows = found.keys.view(np.uint8).reshape(len(found.keys), -1)[:, : X.shape[1]]
    if X.dtype != np.uint8:
        dtype = working_dtype(X)
        rows = rows.astype(dtype) / dtype.type(255)
    return rows, found.counts


def _colours_of(most: float, X: Any, weight: NDArray) -> Colours:
    X = np.asarray(X)
    pixels = _bytes_of(X)
    if pixels is None:
        return Colours(most)
    n_bytes = 4 if X.shape[1] <= 4 else 8
    keys = np.zeros((len(X), n_bytes), np.uint8)
    keys[:, : X.shape[1]] = pixels
    integers = keys.view(f"u{n_bytes}")[:, 0]
    if is_unweighted(weight):
        values, counts = np.unique(integers, return_counts=True)
        return Colours(most, values, weight[0] * counts).unless_too_many()
    values, place = np.unique(integers, return_inverse=True)
    return Colours(most, values, np.bincount(place, weight)).unless_too_many()


def _bytes_of(X: NDArray) -> NDArray | None:
    """X as bytes if it holds bytes, or floats that are exactly bytes / 255."""
    if X.dtype == np.uint8:
        return X
    out, dtype = np.empty(X.shape, np.uint8), working_dtype(X)
    for start in range(0, len(X), PIXELS):
        part = X[start : start + PIXELS].astype(dtype, copy=False)
        if not (part.min() >= 0 and part.max() <= 1):
            return None
        rounded = np.rint(part * 255)
        if not np.array_equal(rounded / dtype.type(255), part):
            return None
        out[start : start + PIXELS] = rounded
    return out
