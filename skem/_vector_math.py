"""Elementary functions for compiled loops, written out since the compiler vectorizes no others.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) makes random
numbers of a counter and a key, so that they do not depend on who computes them when.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types, uint32, uint64
from numba.core.caching import FunctionCache
from numba.extending import overload

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
}
# log 2 in two parts; the first part has few digits
LOG2_HIGH, LOG2_LOW = 0.693145751953125, 1.42860682030941723212e-6
SQRT_HALF_BITS, SQRT_HALF_BITS_32 = 4604544271217802189, 0x3F3504F3


class _Cache(FunctionCache):
    """A cache on disk without which functions work as well."""

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except OSError as error:
            _warn_of_cache(error)

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _warn_of_cache(error)


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _warn_of_cache(error: Exception) -> None:
    _warn_once(
        f"compiled loops cannot be cached on disk ({type(error).__name__}), so that every "
        "process compiles them anew, which takes seconds: set the environment variable "
        "NUMBA_CACHE_DIR to a folder that can be written."
    )


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, and cache the result on disk if possible."""
    dispatcher = njit(**OPTIONS)(function)
    try:
        dispatcher._cache = _Cache(function)  # what cache=True sets, but for errors of the disk
    except (RuntimeError, OSError) as error:
        _warn_of_cache(error)
    return dispatcher


def exp(x):
    """exp(x) for x <= 0."""
    raise NotImplementedError


@overload(exp, inline="always")
def _exp_of(x):
    if x == types.float32:

        def single(x):
            f = np.float32
            x = max(x, f(-87))
            n = np.floor(x * f(1.4426950408889634) + f(0.5))
            r = x - n * f(LOG2_HIGH) - n * f(LOG2_LOW)
            p = f(1 / 5040)
            p = p * r + f(1 / 720)
            p = p * r + f(1 / 120)
            p = p * r + f(1 / 24)
            p = p * r + f(1 / 6)
            p = p * r + f(1 / 2)
            p = p * r + f(1)
            p = p * r + f(1)
            return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)

        return single

    def double(x):
        x = max(x, -708.0)
        n = np.floor(x * 1.4426950408889634 + 0.5)
        r = x - n * LOG2_HIGH - n * LOG2_LOW
        p = 1 / 479001600
        p = p * r + 1 / 39916800
        p = p * r + 1 / 3628800
        p = p * r + 1 / 362880
        p = p * r + 1 / 40320
        p = p * r + 1 / 5040
        p = p * r + 1 / 720
        p = p * r + 1 / 120
        p = p * r + 1 / 24
        p = p * r + 1 / 6
        p = p * r + 1 / 2
        p = p * r + 1
        p = p * r + 1
        return p * np.int64((np.int64(n) + 1023) << 52).view(np.float64)

    return double


def log(x):
    """log(x) of a normal positive number: 2 artanh of its mantissa, and its exponent."""
    raise NotImplementedError


@overload(log, inline="always")
def _log_of(x):
    if x == types.float32:

        def single(x):
            f = np.float32
            bits = np.float32(x).view(np.int32)
            exponent = (bits - np.int32(SQRT_HALF_BITS_32)) >> np.int32(23)
            mantissa = np.int32(bits - (exponent << np.int32(23))).view(np.float32)
            t = (mantissa - f(1)) / (mantissa + f(1))
            u = t * t
            p = f(1 / 9)
            p = p * u + f(1 / 7)
            p = p * u + f(1 / 5)
            p = p * u + f(1 / 3)
            p = p * u + f(1)
            return f(2) * t * p + f(exponent) * f(0.6931471805599453)

        return single

    def double(x):
        bits = np.float64(x).view(np.int64)
        exponent = (bits - SQRT_HALF_BITS) >> 52
        mantissa = np.int64(bits - (exponent << 52)).view(np.float64)
        t = (mantissa - 1) / (mantissa + 1)
        u = t * t
        p = 1 / 21
        p = p * u + 1 / 19
        p = p * u + 1 / 17
        p = p * u + 1 / 15
        p = p * u + 1 / 13
        p = p * u + 1 / 11
        p = p * u + 1 / 9
        p = p * u + 1 / 7
        p = p * u + 1 / 5
        p = p * u + 1 / 3
        p = p * u + 1
        return 2 * t * p + exponent * 0.6931471805599453

    return double


PHILOX = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
ROUNDS = 10
HALF = np.uint64(32)


@njit(inline="always")
def philox(a, b, c, d, key, other_key):
    """Four random words of the counter (a, b, c, d), all of 32 bits."""
    for _ in range(ROUNDS):
        x, y = uint64(a) * PHILOX[0], uint64(c) * PHILOX[1]
        a, b = uint32(y >> HALF) ^ b ^ key, uint32(y)
        c, d = uint32(x >> HALF) ^ d ^ other_key, uint32(x)
        key, other_key = uint32(key + WEYL[0]), uint32(other_key + WEYL[1])
    return a, b, c, d
