"""Where rows live: in memory, in files, or on a cluster. ``open_rows`` is the only door."""

from typing import Any

import numpy as np

from skem._rows.arrays import in_numpy
from skem._rows.cluster import Blocks, evaluated, is_dask
from skem._rows.files import Stored, is_on_disk
from skem._rows.parts import InMemory, Rows


def open_rows(X: Any) -> Rows:
    """Return X as rows, not checked yet; rows are returned as they are."""
    if isinstance(X, Rows):
        return X
    if is_dask(X):
        return Blocks(X)
    if is_on_disk(X):
        return Stored(X)
    if isinstance(X, np.ma.MaskedArray):
        dtype = np.float32 if X.dtype == np.float32 else float
        return InMemory(np.ma.filled(X.astype(dtype), np.nan))  # masked values are missing
    return InMemory(np.asarray(X) if isinstance(X, list | tuple) else in_numpy(X))


def to_memory(values: Any) -> Any:
    """Return the values, computed if they are dask's, in NumPy if another library's."""
    return evaluated(values)[0] if is_dask(values) else in_numpy(values)
