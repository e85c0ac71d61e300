"""The inner loop of the mixture in NumPy: log-densities, responsibilities, and their sums.

In the whitened coordinates of component k, z_k = A_k (x - c) + b_k,

    log p(x, k) = const_k - |z_k|^2 / 2
    counts_k = sum_n r_nk,   first_k = sum_n r_nk z_nk,   second_k = sum_n r_nk z_nk z_nk^T

Sums of z do not lose digits by cancellation, even if the data are far from the origin or a
component is small. Rows are processed in transposed blocks, so that operations run along
rows. There is one class for each kind of factors A: one factor per component, one shared
factor, and diagonal factors.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from skem._typing import Array
from skem.mixture._covariances import inverse_cholesky

# Number of elements of z in a block: small enough for the cache, and large enough to hide the
# overhead of NumPy calls.
BLOCK_SIZE = 2**19
MIN_ROWS, MAX_ROWS = 256, 8192
# Up to this number of features, dot products of long rows are faster than products of narrow
# matrices.
MAX_DOTS = 8
# Expanding the square loses digits in proportion to |b|^2. It is used up to this |b|^2.
MAX_EXPANSION = 2.0**18
# Products of smaller responsibilities in float32 are subnormal numbers, which processors
# multiply many times more slowly.
MIN_SINGLE = 1e-18


@dataclass(frozen=True, eq=False)
class Whitening:
    """Map from a row to its whitened coordinates in each of K components."""

    center: Array  # (D,), near the data
    factors: Array  # (K, D, D) lower triangular, (1, D, D) if shared, or (K, D) diagonal
    means: Array  # (K, D), minus the center
    constants: Array  # (K,), log weight and log normalizer

    @cached_property
    def covariances(self) -> Array:
        """The covariances of dense factors, (K, D, D) or (1, D, D)."""
        cholesky = inverse_cholesky(self.factors)
        return cholesky @ cholesky.transpose(0, 2, 1)

    @cached_property
    def log_det(self) -> Array:
        """The log-determinants of dense factors."""
        return np.log(np.einsum("kii->ki", self.factors)).sum(1)

    @property
    def shifts(self) -> Array:
        """The shifts b_k, (K, D)."""
        if self.factors.ndim == 2:
            return -self.factors * self.means
        return -np.matmul(self.factors, self.means[:, :, None])[:, :, 0]

    def astype(self, dtype: np.dtype) -> "Whitening":
        """Convert to ``dtype``; the means compensate for the rounding of the center."""
        center = self.center.astype(dtype)
        means = self.means + (self.center - center)
        return Whitening(
            center,
            self.factors.astype(dtype),
            means.astype(dtype),
            self.constants.astype(dtype),
        )


def _view(buffer: Array, *shape: int) -> Array:
    """Return the start of a flat buffer as an array: blocks of any length reuse it."""
    return buffer[: math.prod(shape)].reshape(shape)


class OwnFactors:
    """One dense factor per component: a single product computes all z."""

    def __init__(self, whitening: Whitening, n_rows: int) -> None:
        K, D = whitening.means.shape
        dtype = whitening.factors.dtype
        # the shifts are one more column, multiplied by a row of ones
        factors = np.concatenate([whitening.factors, whitening.shifts[:, :, None]], axis=2)
        self._factors = factors.reshape(K * D, D + 1)
        self._buffers = np.empty((2, K * D * n_rows), dtype)
        self.first, self._lower = np.zeros((K, D)), np.zeros((K, D, D))

    def distances(self, x: Array) -> Array:
        """Return |z|^2, (K, n), for x (D + 1, n); the last row of x is 1."""
        (K, D), n = self.first.shape, x.shape[1]
        self._z, square = (_view(buffer, K, D, n) for buffer in self._buffers)
        np.matmul(self._factors, x, out=self._z.reshape(K * D, n))
        np.multiply(self._z, self._z, out=square)
        return np.add.reduce(square, axis=1)

    def add(self, r: Array) -> None:
        """Add the moments of the current block, given its responsibilities (K, n)."""
        self.first += np.matmul(self._z, r[:, :, None])[:, :, 0]
        self._z *= np.sqrt(r)[:, None]
        if len(self._z[0]) > MAX_DOTS:
            for lower, z in zip(self._lower, self._z, strict=True):
                lower += z @ z.T
            return
        for a in range(len(self._z[0])):
            self._lower[:, a:, a] += np.vecdot(self._z[:, a:], self._z[:, a, None])

    @property
    def second(self) -> Array:
        if self._lower.shape[1] > MAX_DOTS:
            return self._lower
        both = self._lower + self._lower.transpose(0, 2, 1)
        np.einsum("kii->ki", both)[:] *= 0.5
        return both


class SharedFactor:
    """One shared dense factor: z_k = y + b_k with the same y for all components.

    With the mean m of the b_k under r, sum_k r_k z_k z_k^T = (y + m)(y + m)^T +
    sum_k<l r_k r_l (b_k - b_l)(b_k - b_l)^T. No digits are lost by cancellation.
    """

    def __init__(self, whitening: Whitening, n_rows: int) -> None:
        (K, D), dtype = whitening.means.shape, whitening.factors.dtype
        self._factor, self._shifts = whitening.factors[0], whitening.shifts
        self._buffers = np.empty((2, D * n_rows), dtype)
        self._pairs = np.zeros((K, K))
        self._total = np.zeros((D, D))
        self.first = np.zeros((K, D))

    def distances(self, x: Array) -> Array:
        x = x[:-1]
        y, z = (_view(buffer, *x.shape) for buffer in self._buffers)
        self._y = np.matmul(self._factor, x, out=y)
        out = np.empty((len(self._shifts), x.shape[1]), x.dtype)
        for shift, distance in zip(self._shifts, out, strict=True):
            np.add(y, shift[:, None], out=z)
            np.einsum("dn,dn->n", z, z, out=distance)
        return out

    def add(self, r: Array) -> None:
        weight = r.sum(0)
        self.first += r @ self._y.T + r.sum(1)[:, None] * self._shifts
        share = np.divide(r, weight, out=np.zeros_like(r), where=weight > 0)
        self._pairs += r @ share.T
        self._y += self._shifts.T @ share
        self._y *= np.sqrt(weight)
        self._total += self._y @ self._y.T

    @property
    def second(self) -> Array:
        """The second moments (1, D, D), summed over the components."""
        pairs = np.tril(self._pairs, -1)
        rows, columns = np.nonzero(pairs)
        gaps = self._shifts[rows].astype(float) - self._shifts[columns]
        return (self._total + (gaps * pairs[rows, columns][:, None]).T @ gaps)[None]


class DiagonalFactors:
    """Diagonal factors: z is computed elementwise."""

    def __init__(self, whitening: Whitening, n_rows: int) -> None:
        K, D = whitening.means.shape
        self._factors, self._shifts = whitening.factors, whitening.shifts
        self._buffers = np.empty((2, K * D * n_rows), whitening.factors.dtype)
        self.first, self.second = np.zeros((K, D)), np.zeros((K, D))

    def distances(self, x: Array) -> Array:
        x = x[:-1]
        shape = (*self.first.shape, x.shape[1])
        self._z, self._square = (_view(buffer, *shape) for buffer in self._buffers)
        np.multiply(x, self._factors[:, :, None], out=self._z)
        self._z += self._shifts[:, :, None]
        np.multiply(self._z, self._z, out=self._square)
        return np.add.reduce(self._square, axis=1)

    def add(self, r: Array) -> None:
        self.first += np.matmul(self._z, r[:, :, None])[:, :, 0]
        self.second += np.matmul(self._square, r[:, :, None])[:, :, 0]


class ExpandedSquares:
    """Diagonal factors with (x - mu)^2 expanded: two matrix products, without z.

    The distance of each mean from the center must not be too many standard deviations of its
    component.
    """

    def __init__(self, whitening: Whitening, n_rows: int) -> None:
        K, D = whitening.means.shape
        a, b = whitening.factors, whitening.shifts
        self._coefficients = np.concatenate([2 * a * b, a * a], axis=1)
        self._constants = (b.astype(float) ** 2).sum(1)[:, None].astype(a.dtype)
        self._buffer = np.empty(2 * D * n_rows, a.dtype)
        self._factors, self._shifts = a.astype(float), b.astype(float)
        self._counts, self._moments = np.zeros((K, 1)), np.zeros((K, 2 * D))

    def distances(self, x: Array) -> Array:
        x = x[:-1]
        D, n = x.shape
        self._x = _view(self._buffer, 2 * D, n)
        self._x[:D] = x
        np.multiply(x, x, out=self._x[D:])
        out = self._coefficients @ self._x
        out += self._constants
        return out

    def add(self, r: Array) -> None:
        self._counts += r.sum(1, keepdims=True)
        self._moments += r @ self._x.T

    @property
    def first(self) -> Array:
        x, _ = np.split(self._moments, 2, axis=1)
        return self._factors * x + self._counts * self._shifts

    @property
    def second(self) -> Array:
        a, b = self._factors, self._shifts
        x, square = np.split(self._moments, 2, axis=1)
        return a**2 * square + 2 * a * b * x + self._counts * b**2


def _projection(whitening: Whitening, n_rows: int) -> Any:
    if whitening.factors.ndim == 3:
        own = len(whitening.factors) == len(whitening.means) > 1
        return (OwnFactors if own else SharedFactor)(whitening, n_rows)
    far = float((whitening.shifts.astype(float) ** 2).sum(1).max(initial=0))
    limit = MAX_EXPANSION if whitening.factors.dtype == np.float64 else MAX_EXPANSION / 2**8
    return (DiagonalFactors if far > limit else ExpandedSquares)(whitening, n_rows)


def _blocks(whitening: Whitening, X: Array) -> Iterator[tuple[slice, Any, Array]]:
    """Yield the place, the projection and log p(x, k), (K, n), of each block of n rows."""
    K, D = whitening.means.shape
    whitening = whitening.astype(X.dtype)
    size = min(len(X), max(MIN_ROWS, min(MAX_ROWS, BLOCK_SIZE // max(1, K * D))))
    projection = _projection(whitening, size)
    rows = np.empty((D + 1) * size, X.dtype)
    constants = whitening.constants[:, None]
    for start in range(0, len(X), size):
        part = slice(start, min(start + size, len(X)))
        x = _view(rows, D + 1, part.stop - start)
        np.subtract(X[part].T, whitening.center[:, None], out=x[:D])
        x[D] = 1
        log_joint = projection.distances(x)
        log_joint *= -0.5
        log_joint += constants
        yield part, projection, log_joint


@np.errstate(over="ignore", invalid="ignore")
def log_joint(whitening: Whitening, X: Array) -> Array:
    """Return log p(x, k), (K, n)."""
    out = np.empty((len(whitening.means), len(X)), X.dtype)
    for part, _, values in _blocks(whitening, X):
        out[:, part] = values
    return out


@np.errstate(over="ignore", invalid="ignore")
def sums(
    whitening: Whitening, X: Array, weight: Array, responsibilities: Array | None = None
) -> tuple[float, Array, Array, Array]:
    """Return log-likelihood, counts, first and second moments, in float64.

    With given ``responsibilities`` (K, n), the log-likelihood is 0.
    """
    log_lik, counts = 0.0, np.zeros(len(whitening.means))
    weight = weight.astype(X.dtype)
    for part, projection, r in _blocks(whitening, X):
        w = weight[part]
        if responsibilities is None:
            top = r.max(0)
            r -= top
            np.exp(r, out=r)
            if r.dtype == np.float32:
                r *= r > MIN_SINGLE
            total = r.sum(0)
            log_lik += float(w @ top) + float(w @ np.log(total))
            r *= w / total
        else:
            np.multiply(responsibilities[:, part], w, out=r)
        counts += r.sum(1)
        projection.add(r)
    return log_lik, counts, projection.first, projection.second
