"""Rows with missing values whose patterns repeat, in few features.

With the padded inverse P of Lambda_mm, which is 0 where a value is observed, the filled row has
the whitened coordinates

    E[z | x_o] = (I - C) A (x - mu)_o,   Cov[z | x_o] = C = A P A^T

The matrices of all patterns are computed together. One matrix product for each pattern then
gives z for its rows and all components.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from skem._typing import Array, Indices, Mask
from skem.mixture._covariances import inverse_cholesky
from skem.mixture._scattered import Filled, weighted_posterior
from skem.mixture._sums import Whitening


@dataclass(frozen=True)
class Repeated:
    """Rows of a chunk, sorted by their patterns of missing values."""

    values: Array  # (n, D); missing values are NaN
    patterns: Mask  # (P, D), True where a value is missing
    starts: Indices  # (P,), the first row of each pattern
    place: Indices  # rows of the chunk

    def of(self, chunk: Array) -> Array:
        """Return the entries of this group from an array with one entry per row."""
        return chunk[self.place]

    def index(self, n_rows: int) -> Indices:
        return self.place

    @property
    def missing(self) -> Mask:
        """Which values are missing, (n, D)."""
        return np.isnan(self.values)

    def filling(self, whitening: Whitening) -> "PatternFilling":
        return PatternFilling(self, whitening)


class PatternFilling:
    """How the components of a whitening with dense factors fill the rows of a group."""

    def __init__(self, group: Repeated, whitening: Whitening) -> None:
        self._group, self._whitening = group, whitening
        factors, (P, D) = whitening.factors, group.patterns.shape
        inverses, self._log_dets = _padded_inverses(
            factors.transpose(0, 2, 1) @ factors, group.patterns
        )
        half = (inverses @ factors.transpose(0, 2, 1)).transpose(0, 1, 3, 2)  # A P
        self._covariances = half @ factors.transpose(0, 2, 1)  # (P, G, D, D)
        maps = factors - self._covariances @ factors
        maps *= ~group.patterns[:, None, None]
        # the shift of each component is one more column, multiplied by ones
        shifts = np.matmul(maps, whitening.means[:, :, None])
        maps = np.broadcast_to(maps, (P, *shifts.shape[1:3], D))
        self._maps = np.concatenate([maps, -shifts], axis=3).transpose(0, 1, 3, 2)

    def _whitened(self) -> tuple[Array, Array]:
        """Return z (K, n, D) of the filled rows, and log p(x, k) (K, n)."""
        group, whitening = self._group, self._whitening
        K, (n, D) = len(whitening.means), group.values.shape
        x = np.ones((n, D + 1))
        np.subtract(group.values, whitening.center, out=x[:, :D])
        np.copyto(x[:, :D], 0, where=group.missing)
        z = np.empty((K, n, D))
        constants = group.patterns.sum(1)[:, None] / 2 * math.log(2 * math.pi)
        constants = constants + whitening.constants - self._log_dets / 2
        log_joint = np.repeat(constants.T, np.diff([*group.starts, n]), axis=1)
        for (a, b), matrix in zip(pairwise([*group.starts, n]), self._maps, strict=True):
            np.matmul(x[a:b], matrix, out=z[:, a:b])
        log_joint -= 0.5 * np.einsum("knd,knd->kn", z, z)
        return z, log_joint

    def blocks(self) -> Iterator[Filled]:
        """Yield the rows, filled."""
        z, log_joint = self._whitened()
        gaps = z @ inverse_cholesky(self._whitening.factors).transpose(0, 2, 1)
        yield Filled(slice(0, z.shape[1]), gaps, log_joint)

    def sums(
        self, weight: Array, responsibilities: Array | None
    ) -> tuple[float, Array, Array, Array]:
        """Return log-likelihood, counts, first and second moments, as ``_sums.sums`` does."""
        z, log_joint = self._whitened()
        log_lik, r = weighted_posterior(log_joint, weight, responsibilities)
        first = np.matmul(r[:, None], z)[:, 0]
        second = (z * r[:, :, None]).transpose(0, 2, 1) @ z
        of_patterns = np.add.reduceat(r, self._group.starts, axis=1)
        if len(self._whitening.factors) < len(z):  # shared by all components
            second, of_patterns = second.sum(0, keepdims=True), of_patterns.sum(0)[None]
        second += np.einsum("gp,pgij->gij", of_patterns, self._covariances)
        return log_lik, r.sum(1), first, second


def _padded_inverses(matrices: Array, patterns: Mask) -> tuple[Array, Array]:
    """Return the inverses (P, G, D, D) of the missing parts, and their log-determinants (P, G).

    Entries of observed features are 0.
    """
    (P, D), G = patterns.shape, len(matrices)
    inverses, log_dets = np.zeros((P, G, D, D)), np.zeros((P, G))
    counts = patterns.sum(1)
    for count in np.unique(counts[counts > 0]).tolist():
        own = np.flatnonzero(counts == count)
        index = np.nonzero(patterns[own])[1].reshape(len(own), count)
        rows, columns = index[:, :, None], index[:, None, :]
        part = matrices[:, rows, columns]  # (G, p, q, q)
        log_dets[own] = np.linalg.slogdet(part)[1].T
        inverses[own[:, None, None], :, rows, columns] = np.linalg.inv(part).transpose(
            1, 2, 3, 0
        )
    return inverses, log_dets
