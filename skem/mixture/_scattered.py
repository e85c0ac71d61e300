"""Rows with missing values whose patterns are all different.

A row with missing features m and observed features o has, in a component with covariance
Sigma and precision Lambda,

    E[x_m | x_o] = mu_m - Lambda_mm^-1 Lambda_mo (x_o - mu_o),  Cov[x_m | x_o] = Lambda_mm^-1
    |Sigma_oo| = |Sigma| |Lambda_mm|

The distance of the filled row is that of the observed values. Rows with equally many missing
values are one batch. If more values are missing than observed, Sigma_oo is inverted instead.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from skem._typing import Array, Indices, Mask
from skem.mixture._sums import Whitening

BLOCK_SIZE = 2**21  # elements of the filled rows and the inverted matrices of a block


@dataclass(frozen=True)
class Scattered:
    """Rows of a chunk with equally many missing values, at places of their own."""

    values: Array  # (n, D); missing values are NaN
    missing: Mask  # (n, D)
    place: Indices  # rows of the chunk

    def of(self, chunk: Array) -> Array:
        """Return the entries of this group from an array with one entry per row."""
        return chunk[self.place]

    def index(self, n_rows: int) -> Indices:
        return self.place

    def filling(self, whitening: Whitening) -> "Filling":
        return Filling(self, whitening)


@dataclass(frozen=True)
class Filled:
    """A block of rows with missing values replaced, as each component expects them."""

    rows: slice
    gaps: Array  # (K, n, D), from the mean of the component
    log_joint: Array  # (K, n)


@dataclass(frozen=True)
class Block(Filled):
    """Filled rows, and the matrices that were inverted for them."""

    inverses: list[Array]  # (n, q, q) for each factor; none if diagonal
    index: Indices  # (n, q), the features of the inverted matrices


def weighted_posterior(
    log_joint: Array, weight: Array, responsibilities: Array | None
) -> tuple[float, Array]:
    """Return the log-likelihood, and the posterior (K, n) times the weights.

    Given ``responsibilities`` (K, n) replace the posterior; the log-likelihood is then 0.
    """
    if responsibilities is not None:
        return 0.0, responsibilities * weight
    top = log_joint.max(0)
    r = np.exp(log_joint - top)
    total = r.sum(0)
    r *= weight / total
    return float(weight @ (top + np.log(total))), r


class Filling:
    """How the components of a whitening fill the rows of a group."""

    def __init__(self, group: Scattered, whitening: Whitening) -> None:
        self.group, self.whitening = group, whitening
        self.dense = whitening.factors.ndim == 3
        if self.dense:
            factors = whitening.factors
            self.precisions = factors.transpose(0, 2, 1) @ factors
            self.covariances, self.log_det = whitening.covariances, whitening.log_det

    def blocks(self) -> Iterator[Block]:
        """Yield the rows, filled."""
        group, (K, D) = self.group, self.whitening.means.shape
        n_missing = int(group.missing[0].sum())
        size = max(1, BLOCK_SIZE // (K * D + min(n_missing, D - n_missing) ** 2 * K))
        for start in range(0, len(group.values), size):
            rows = slice(start, start + size)
            missing = group.missing[rows]
            gaps = group.values[rows] - self.whitening.center - self.whitening.means[:, None]
            gaps = np.where(missing, 0, gaps)
            constants = self.whitening.constants + n_missing / 2 * math.log(2 * math.pi)
            if self.dense:
                yield self._dense(rows, gaps, missing, constants)
            else:
                yield self._diagonal(rows, gaps, missing, constants)

    def _diagonal(self, rows: slice, gaps: Array, missing: Mask, constants: Array) -> Block:
        factors = self.whitening.factors
        log_joint = constants[:, None] - np.log(factors) @ missing.T
        log_joint -= 0.5 * ((factors[:, None] * gaps) ** 2).sum(2)
        return Block(rows, gaps, log_joint, [], np.empty((len(missing), 0), int))

    def _dense(self, rows: slice, gaps: Array, missing: Mask, constants: Array) -> Block:
        n, D = missing.shape
        few_missing = 2 * int(missing[0].sum()) <= D
        chosen = missing if few_missing else ~missing
        index = np.nonzero(chosen)[1].reshape(n, -1)
        pairs = index[:, :, None], index[:, None, :]
        matrices = self.precisions if few_missing else self.covariances
        inverses, log_dets = [], []
        for matrix in matrices:
            part = matrix[pairs]
            inverses.append(np.linalg.inv(part))
            log_dets.append(np.linalg.slogdet(part)[1])
        log_joint = np.empty(gaps.shape[:2])
        for k, gap in enumerate(gaps):
            g = k if len(matrices) > 1 else 0
            if few_missing:
                known = np.take_along_axis(gap @ matrices[g], index, axis=1)
            else:
                known = np.take_along_axis(gap, index, axis=1)
            solved = np.matmul(inverses[g], known[:, :, None])[:, :, 0]
            if few_missing:
                np.put_along_axis(gap, index, -solved, axis=1)
            else:
                spread = np.zeros_like(gap)
                np.put_along_axis(spread, index, solved, axis=1)
                gap[:] = np.where(missing, spread @ matrices[g], gap)
            z = gap @ self.whitening.factors[g].T
            change = 0.0 if few_missing else -self.log_det[g]
            log_joint[k] = constants[k] + change - log_dets[g] / 2 - 0.5 * (z * z).sum(1)
        return Block(rows, gaps, log_joint, inverses, index)

    # -- statistics -------------------------------------------------------------------

    def sums(
        self, weight: Array, responsibilities: Array | None
    ) -> tuple[float, Array, Array, Array]:
        """Return log-likelihood, counts, first and second moments, as ``_sums.sums`` does."""
        K, D = self.whitening.means.shape
        log_lik, counts, first = 0.0, np.zeros(K), np.zeros((K, D))
        second = np.zeros((len(self.whitening.factors), *[D] * (1 + self.dense)))
        for block in self.blocks():
            given = None if responsibilities is None else responsibilities[:, block.rows]
            found, r = weighted_posterior(block.log_joint, weight[block.rows], given)
            log_lik += found
            counts += r.sum(1)
            self._add(block, r, self.group.missing[block.rows], first, second)
        return log_lik, counts, first, second

    def _add(self, block: Block, r: Array, missing: Mask, first: Array, second: Array) -> None:
        """Add the moments of a block, with responsibilities (K, n)."""
        factors = self.whitening.factors
        if not self.dense:
            z = factors[:, None] * block.gaps
            first += np.einsum("kn,knd->kd", r, z)
            second += np.einsum("kn,knd->kd", r, z**2) + r @ missing
            return
        for k, gap in enumerate(block.gaps):
            g = k if len(factors) > 1 else 0
            z = gap @ factors[g].T
            first[k] += r[k] @ z
            second[g] += (r[k][:, None] * z).T @ z
        shares: Any = r if len(factors) > 1 else r.sum(0, keepdims=True)
        few_missing = 2 * int(missing[0].sum()) <= len(second[0])
        for g, share in enumerate(shares):
            summed = _scatter(share, block.inverses[g], block.index, len(second[g]))
            if few_missing:  # the covariances of the missing values
                second[g] += factors[g] @ summed @ factors[g].T
            else:  # Sigma minus what the observed values explain
                explained = factors[g] @ self.covariances[g]
                second[g] += share.sum() * np.eye(len(summed))
                second[g] -= explained @ summed @ explained.T


def _scatter(weight: Array, blocks: Array, index: Indices, D: int) -> Array:
    """Return the weighted sum of blocks (n, q, q), placed at their features in (D, D)."""
    flat = (index[:, :, None] * D + index[:, None, :]).ravel()
    values = (weight[:, None, None] * blocks).ravel()
    summed: Array = np.bincount(flat, values, minlength=D * D).astype(float)
    return summed.reshape(D, D)
