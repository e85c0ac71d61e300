"""Random numbers that depend on the values of rows."""

from zlib import crc32

import numpy as np

from skem._typing import AnyArray, Array

# The constants of the generator SplitMix64 (G. Steele, D. Lea and C. Flood, OOPSLA 2014).
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
# Values are rounded to 1 / STEPS, limited, and missing ones replaced.
STEPS, LIMIT, MISSING = 256, 2.0**40, 2.0**39


def generator_of(rows: Array, seed: int) -> np.random.RandomState:
    """Return the random numbers of some rows, which depend on the seed and on the rows.

    The parts of a file or of a dask collection would repeat each other otherwise.
    """
    return np.random.RandomState([seed, crc32(rows.tobytes())])


def _mixed(bits: AnyArray) -> AnyArray:
    """Return 64 bits that look random, given 64 bits."""
    bits = (bits ^ (bits >> np.uint64(30))) * MIX[0]
    bits = (bits ^ (bits >> np.uint64(27))) * MIX[1]
    return bits ^ (bits >> np.uint64(31))


def row_shifts(rows: Array, n_components: int, seed: int) -> Array:
    """Return a random point in the unit cube for each row, (n, n_components).

    It depends on the values of the row, rounded to 1/256, and on the seed, and on nothing else:
    neither on the position of the row nor on the other rows. Rows that differ have independent
    points. Rounding errors seldom count, so that float32 and float64 have the same points.
    """
    with np.errstate(over="ignore"):
        scaled = rows * STEPS
    steps_of_values = np.nan_to_num(scaled, nan=MISSING, posinf=LIMIT, neginf=-LIMIT)
    whole = np.rint(steps_of_values.clip(-LIMIT, LIMIT)).astype(np.int64)
    bits = whole.view(np.uint64)
    with np.errstate(over="ignore"):
        factors = _mixed(GOLDEN * np.arange(1, bits.shape[1] + 1, dtype=np.uint64))
        keys = _mixed((bits * (factors | np.uint64(1))).sum(1) + GOLDEN * np.uint64(seed + 1))
        steps = GOLDEN * np.arange(1, n_components + 1, dtype=np.uint64)
        found = _mixed(keys[:, None] + steps)
    return (found >> np.uint64(11)) * 2.0**-53
