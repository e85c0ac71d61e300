"""The inner loop of the mixture in numba: one pass over the rows that stores no results.

It computes the same sums as ``_sums.sums`` for dense factors. The innermost loops run along
the rows of a block, so that the compiler can vectorize them. With at most 4 features, the
compiler unrolls the loops over features; with more, the loops are tiled 4 x 4. The compiler
must know the number of features. It is therefore passed as the length of a tuple:
``unrolled`` has one entry per feature, ``tiles`` one per 4 features.
Responsibilities that are too small to change the sums are omitted.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from skem._typing import Array
from skem._vector_math import compiled, exp, log
from skem.mixture._sums import Whitening

BLOCK = 320  # rows; not a power of 2, because such strides map to the same cache lines
MAX_UNROLLED = 4

# Arrays are indexed and not sliced. A slice costs a reference count, and it hides from the
# compiler that two arrays do not overlap.


@njit(inline="always")
def _distances_unrolled(x, factors, shifts, k, z, r, unrolled):
    """Compute z of component k, and |z|^2 in r; the compiler knows D."""
    for i in range(BLOCK):
        q = x.dtype.type(0)
        for a in range(len(unrolled)):
            v = shifts[k, a]
            for j in range(len(unrolled)):
                v += factors[k, a, j] * x[j, i]
            z[k, a, i] = v
            q += v * v
        r[k, i] = q


@njit(inline="always")
def _distances_tiled(x, f, shifts, k, z, r, tiles):
    """Compute z of component k, and |z|^2 in r; D is a multiple of 4."""
    for i in range(BLOCK):
        r[k, i] = x.dtype.type(0)
    for a in range(0, 4 * len(tiles), 4):
        b, c, d = a + 1, a + 2, a + 3
        za, zb, zc, zd = shifts[k, a], shifts[k, b], shifts[k, c], shifts[k, d]
        for i in range(BLOCK):
            z[k, a, i] = za
            z[k, b, i] = zb
            z[k, c, i] = zc
            z[k, d, i] = zd
        for p in range(0, a + 4, 4):
            q, s, t = p + 1, p + 2, p + 3
            for i in range(BLOCK):
                xp, xq, xs, xt = x[p, i], x[q, i], x[s, i], x[t, i]
                z[k, a, i] += (
                    f[k, a, p] * xp + f[k, a, q] * xq + f[k, a, s] * xs + f[k, a, t] * xt
                )
                z[k, b, i] += (
                    f[k, b, p] * xp + f[k, b, q] * xq + f[k, b, s] * xs + f[k, b, t] * xt
                )
                z[k, c, i] += (
                    f[k, c, p] * xp + f[k, c, q] * xq + f[k, c, s] * xs + f[k, c, t] * xt
                )
                z[k, d, i] += (
                    f[k, d, p] * xp + f[k, d, q] * xq + f[k, d, s] * xs + f[k, d, t] * xt
                )
        for i in range(BLOCK):
            za, zb, zc, zd = z[k, a, i], z[k, b, i], z[k, c, i], z[k, d, i]
            r[k, i] += za * za + zb * zb + zc * zc + zd * zd


@njit(inline="always")
def _add_unrolled(z, r, k, first, second, tag):
    """Add the moments of component k in one loop; the compiler drops terms beyond D."""
    zero = z.dtype.type(0)
    f0, s00 = zero, zero
    f1, s10, s11 = zero, zero, zero
    f2, s20, s21, s22 = zero, zero, zero, zero
    f3, s30, s31, s32, s33 = zero, zero, zero, zero, zero
    for i in range(BLOCK):
        z0 = z[k, 0, i]
        v = r[k, i] * z0
        f0 += v
        s00 += v * z0
        if len(tag) > 1:
            z1 = z[k, 1, i]
            v = r[k, i] * z1
            f1 += v
            s10 += v * z0
            s11 += v * z1
        if len(tag) > 2:
            z2 = z[k, 2, i]
            v = r[k, i] * z2
            f2 += v
            s20 += v * z0
            s21 += v * z1
            s22 += v * z2
        if len(tag) > 3:
            z3 = z[k, 3, i]
            v = r[k, i] * z3
            f3 += v
            s30 += v * z0
            s31 += v * z1
            s32 += v * z2
            s33 += v * z3
    first[k, 0] += f0
    second[k, 0, 0] += s00
    if len(tag) > 1:
        first[k, 1] += f1
        second[k, 1, 0] += s10
        second[k, 1, 1] += s11
    if len(tag) > 2:
        first[k, 2] += f2
        second[k, 2, 0] += s20
        second[k, 2, 1] += s21
        second[k, 2, 2] += s22
    if len(tag) > 3:
        first[k, 3] += f3
        second[k, 3, 0] += s30
        second[k, 3, 1] += s31
        second[k, 3, 2] += s32
        second[k, 3, 3] += s33


@compiled
def _add_tiled(z, r, n, rz, first, second, tiles):
    """Add the moments of one component over n rows."""
    zero = z.dtype.type(0)
    for a in range(0, 4 * len(tiles), 4):
        u0, u1, u2, u3 = zero, zero, zero, zero
        for i in range(n):
            v = r[i]
            z0, z1, z2, z3 = v * z[a, i], v * z[a + 1, i], v * z[a + 2, i], v * z[a + 3, i]
            rz[0, i], rz[1, i], rz[2, i], rz[3, i] = z0, z1, z2, z3
            u0 += z0
            u1 += z1
            u2 += z2
            u3 += z3
        first[a] += u0
        first[a + 1] += u1
        first[a + 2] += u2
        first[a + 3] += u3
        for b in range(0, a + 4, 4):
            s00, s01, s02, s03 = zero, zero, zero, zero
            s10, s11, s12, s13 = zero, zero, zero, zero
            s20, s21, s22, s23 = zero, zero, zero, zero
            s30, s31, s32, s33 = zero, zero, zero, zero
            for i in range(n):
                z0, z1, z2, z3 = z[b, i], z[b + 1, i], z[b + 2, i], z[b + 3, i]
                v = rz[0, i]
                s00, s01, s02, s03 = s00 + v * z0, s01 + v * z1, s02 + v * z2, s03 + v * z3
                v = rz[1, i]
                s10, s11, s12, s13 = s10 + v * z0, s11 + v * z1, s12 + v * z2, s13 + v * z3
                v = rz[2, i]
                s20, s21, s22, s23 = s20 + v * z0, s21 + v * z1, s22 + v * z2, s23 + v * z3
                v = rz[3, i]
                s30, s31, s32, s33 = s30 + v * z0, s31 + v * z1, s32 + v * z2, s33 + v * z3
            second[a, b] += s00
            second[a, b + 1] += s01
            second[a, b + 2] += s02
            second[a, b + 3] += s03
            second[a + 1, b] += s10
            second[a + 1, b + 1] += s11
            second[a + 1, b + 2] += s12
            second[a + 1, b + 3] += s13
            second[a + 2, b] += s20
            second[a + 2, b + 1] += s21
            second[a + 2, b + 2] += s22
            second[a + 2, b + 3] += s23
            second[a + 3, b] += s30
            second[a + 3, b + 1] += s31
            second[a + 3, b + 2] += s32
            second[a + 3, b + 3] += s33


@njit(inline="always")
def _load(X, weight, center, start, n, x, w, unrolled):
    """Fill a block with centered rows, transposed, and their weights; pad with zeros."""
    zero = x.dtype.type(0)
    if len(unrolled) > 0:
        for i in range(n):
            for j in range(len(unrolled)):
                x[j, i] = X[(start + i) * len(unrolled) + j] - center[j]
    else:
        for i in range(n):
            for j in range(len(center)):
                x[j, i] = X[(start + i) * len(center) + j] - center[j]
    for i in range(n):
        w[i] = weight[start + i]
    for i in range(n, BLOCK):
        for j in range(len(center)):
            x[j, i] = zero
        w[i] = zero


@njit(inline="always")
def _normalize(r, top, total, w, K):
    """Replace log p(x, k) in r by exp(r - top); return the log-likelihood of the block.

    r times ``total`` are then the responsibilities times the weights of the rows.
    """
    zero = r.dtype.type(0)
    for i in range(BLOCK):
        total[i] = zero
    for k in range(K):
        for i in range(BLOCK):
            e = exp(r[k, i] - top[i])
            r[k, i] = e
            total[i] += e
    log_lik = zero
    for i in range(BLOCK):
        log_lik += w[i] * (top[i] + log(total[i]))
        total[i] = w[i] / total[i]
    return log_lik


@compiled
def _pass(
    X, weight, center, factors, shifts, constants, floor, unrolled, tiles, counts, first, second
):
    K = len(shifts)
    P = len(unrolled) + 4 * len(tiles)
    dtype = X.dtype
    zero, half = dtype.type(0), dtype.type(0.5)
    x, z = np.zeros((P, BLOCK), dtype), np.empty((K, P, BLOCK), dtype)
    r, rz = np.empty((K, BLOCK), dtype), np.empty((4, BLOCK), dtype)
    few_z, few_r = np.zeros((P, BLOCK), dtype), np.empty(BLOCK, dtype)
    top, total, w = np.empty(BLOCK, dtype), np.empty(BLOCK, dtype), np.empty(BLOCK, dtype)
    log_lik = 0.0
    for start in range(0, len(weight), BLOCK):
        _load(X, weight, center, start, min(BLOCK, len(weight) - start), x, w, unrolled)
        for k in range(K):
            if len(unrolled) > 0:
                _distances_unrolled(x, factors, shifts, k, z, r, unrolled)
            else:
                _distances_tiled(x, factors, shifts, k, z, r, tiles)
            constant = constants[k]
            for i in range(BLOCK):
                r[k, i] = constant - half * r[k, i]
            for i in range(BLOCK):
                top[i] = r[k, i] if k == 0 else max(top[i], r[k, i])
        log_lik += _normalize(r, top, total, w, K)
        for k in range(K):
            u = zero
            n_large = 0
            for i in range(BLOCK):
                n_large += r[k, i] > floor
                r[k, i] *= total[i]
                u += r[k, i]
            counts[k] += u
            if len(unrolled) > 0:
                _add_unrolled(z, r, k, first, second, unrolled)
            elif n_large > BLOCK * 3 // 4:
                _add_tiled(z[k], r[k], BLOCK, rz, first[k], second[k], tiles)
            elif n_large > 0:
                m = 0
                for i in range(BLOCK):
                    if r[k, i] > floor * total[i]:
                        few_r[m] = r[k, i]
                        for a in range(P):
                            few_z[a, m] = z[k, a, i]
                        m += 1
                _add_tiled(few_z, few_r, m, rz, first[k], second[k], tiles)
    return log_lik


@lru_cache(maxsize=2)
def _prepared(whitening: Whitening, dtype: np.dtype) -> tuple[Any, ...]:
    """Return the arguments of ``_pass`` that are the same for all chunks."""
    K, D = whitening.means.shape
    rounded = whitening.astype(dtype)
    unrolled = (0,) * D if D <= MAX_UNROLLED else ()
    tiles = () if unrolled else (0,) * -(-D // 4)
    P = len(unrolled) + 4 * len(tiles)
    factors, shifts = np.zeros((K, P, P), dtype), np.zeros((K, P), dtype)
    if rounded.factors.ndim == 2:
        factors[:, range(D), range(D)] = rounded.factors
    else:
        factors[:, :D, :D] = rounded.factors
    shifts[:, :D] = rounded.shifts
    # smaller responsibilities are below the rounding error of the sums
    floor = dtype.type(1e-18 if dtype == np.float64 else 1e-10)
    return rounded.center, factors, shifts, rounded.constants, floor, unrolled, tiles


def sums(whitening: Whitening, X: Array, weight: Array) -> tuple[float, Array, Array, Array]:
    """Return the same as ``_sums.sums``; diagonal factors are treated as dense."""
    K, D = whitening.means.shape
    prepared = _prepared(whitening, X.dtype)
    P = prepared[2].shape[1]
    counts, first, second = np.zeros(K), np.zeros((K, P)), np.zeros((K, P, P))
    weight = np.ascontiguousarray(weight)
    log_lik = _pass(X.ravel(), weight, *prepared, counts, first, second)
    first, lower = first[:, :D], np.tril(second[:, :D, :D])
    diagonal = np.einsum("kii->ki", lower)
    if whitening.factors.ndim == 2:
        return log_lik, counts, first, diagonal.copy()
    second = lower + lower.transpose(0, 2, 1)
    np.einsum("kii->ki", second)[:] *= 0.5
    if len(whitening.factors) < K:
        second = second.sum(0, keepdims=True)
    return log_lik, counts, first, second
