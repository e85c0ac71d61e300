"""Rows with measurement errors of known covariance: extreme deconvolution.

Row n is the true row plus noise of covariance S_n, so that p(x_n | k) = N(mu_k, T_nk) with
T_nk = Sigma_k + S_n. With Sigma_k = L L^T, the whitened true row z has the moments

    E[z | x_n, k] = L^T T_nk^-1 (x_n - mu_k),   Cov[z | x_n, k] = I - L^T T_nk^-1 L

(J. Bovy, D. W. Hogg and S. T. Roweis, 2011). The M step is that of the mixture. A missing value
leaves out its row of L, and so does an infinite variance.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.special import logsumexp

from skem._rows.parts import InMemory, Rows, chunks
from skem._typing import Array, Mask
from skem.mixture._aside import AsidePasses, checked_aside, of_positive
from skem.mixture._model import Mixture, Stats
from skem.mixture._params import Params
from skem.mixture._starts import Search

# Rounding of the symmetry and of the eigenvalues of a covariance, relative to its size.
TOLERANCE = 1e-8


@dataclass(frozen=True)
class Noisy:
    """Rows, and Cholesky factors of T = Sigma + S of one component."""

    gaps: Array  # (n, D), x - mu; 0 where a value is missing
    lower: Array  # (n, D, D), rows of L; 0 where a value is missing
    factor: Array  # (n, D, D), the lower Cholesky factor of T; 1 on the diagonal if missing

    @cached_property
    def solved(self) -> Array:
        """The inverse factor times L, and times the gaps as the last column."""
        columns = np.concatenate([self.lower, self.gaps[:, :, None]], axis=2)
        return np.linalg.solve(self.factor, columns)

    def log_density(self, observed: Mask) -> Array:
        """Return log N(x_o | mu_o, T_oo), (n,)."""
        z = self.solved[:, :, -1]
        log_det = np.log(np.einsum("nii->ni", self.factor)).sum(1)
        distance = np.vecdot(z, z) + observed.sum(1) * math.log(2 * math.pi)
        found: Array = -distance / 2 - log_det
        return found

    def moments(self) -> tuple[Array, Array]:
        """Return E[z] (n, D), and M with Cov[z] = I - M, (n, D, D)."""
        root, z = self.solved[:, :, :-1], self.solved[:, :, -1:]
        back = root.transpose(0, 2, 1)
        return (back @ z)[:, :, 0], back @ root


class NoisyMixture(Mixture):
    """Mixture of true rows, seen with noise; rows are plain arrays."""

    @property
    def row_size(self) -> int:
        return 8 * self.layout.n_features**2

    def rows(self, values: Array, dtype: DTypeLike) -> Any:
        return np.asarray(values, float)

    def noisy(self, params: Params, X: Array, noise: Array, k: int) -> Noisy:
        """Return how component k explains the rows X (n, D) with noise (n, D, D) or (n, D)."""
        D, layout = self.layout.n_features, self.layout
        observed = _observed(X, noise)
        cholesky = layout.of_groups(params.cholesky)[k if layout.n_groups > 1 else 0]
        cholesky = cholesky if layout.dense else np.diag(cholesky)
        lower = cholesky * observed[:, :, None]
        both = observed[:, :, None] & observed[:, None]
        own = noise if noise.ndim == 3 else np.where(np.eye(D), noise[:, :, None], 0)
        total = lower @ lower.transpose(0, 2, 1) + np.where(both, own, 0)
        total += np.eye(D) * ~observed[:, :, None]
        gaps = np.where(observed, X - params.means[k], 0)
        return Noisy(gaps, lower, np.linalg.cholesky(total))

    def explained(
        self, params: Params, X: Array, noise: Array
    ) -> tuple[Array, dict[int, Noisy]]:
        """Return log p(x, k), (n, K), and how each active component explains the rows."""
        out = np.full((len(X), self.layout.n_components), -np.inf)
        observed = _observed(X, noise)
        found = {k: self.noisy(params, X, noise, k) for k in params.active.tolist()}
        for k, noisy in found.items():
            out[:, k] = np.log(params.weights[k]) + noisy.log_density(observed)
        return out, found

    def log_joint_of(self, params: Params, X: Array, noise: Array) -> Array:
        """Return log p(x, k), (n, K)."""
        parts = chunks(len(X), self.row_size)
        return np.concatenate([self.explained(params, X[p], noise[p])[0] for p in parts])

    def e_step(
        self,
        params: Params,
        groups: Any,
        weight: Array,
        responsibilities: Array | None = None,
    ) -> Stats:
        """Return the expected sums of a chunk, given the noise as ``responsibilities``."""
        assert responsibilities is not None
        X, noise = groups, responsibilities
        log_joint, found = self.explained(params, X, noise)
        log_lik = logsumexp(log_joint, axis=1)
        r = np.exp(log_joint - log_lik[:, None]) * weight[:, None]
        K, D = params.means.shape
        first, second = np.zeros((K, D)), np.zeros((K, D, D))
        for k, noisy in found.items():
            z, shrunk = noisy.moments()
            first[k] = r[:, k] @ z
            second[k] = (z.T * r[:, k]) @ z + r[:, k].sum() * np.eye(D)
            second[k] -= np.tensordot(r[:, k], shrunk, axes=1)
        if not self.layout.dense:
            second = np.einsum("kdd->kd", second)
        elif self.layout.n_groups == 1:
            second = second.sum(0, keepdims=True)
        return Stats(float(weight.sum()), float(weight @ log_lik), r.sum(axis=0), first, second)


def _observed(X: Array, noise: Array) -> Mask:
    variances = noise if noise.ndim == 2 else np.einsum("nii->ni", noise)
    return ~np.isnan(X) & ~np.isposinf(variances)


def noisy_passes(search: Search, noise: Array, n_jobs: int | None) -> AsidePasses:
    """Return the passes that take the noise into account."""
    model = NoisyMixture(**vars(search.model))
    return AsidePasses(model, search.passes.rows, noise, n_jobs)


def noise_of_fit(
    measurement_covariance: Any, rows: Rows, estimator: Any, resp_prior: Any
) -> tuple[Rows, Array | None]:
    """Return the rows, and the noise of those with a weight above 0.

    Values with an infinite variance become missing ones.
    """
    if measurement_covariance is None:
        return rows, None
    others = {"connectivity": estimator.connectivity, "background": estimator.background}
    for name, value in {**others, "resp_prior": resp_prior}.items():
        if value is not None:
            raise ValueError(
                f"measurement_covariance cannot be combined with {name}: omit one of them."
            )
    X = rows.values if isinstance(rows, InMemory) else None
    noise = noise_of(measurement_covariance, rows.shape, X)
    infinite = np.isposinf(noise if noise.ndim == 2 else np.einsum("nii->ni", noise))
    if infinite.any():
        if not isinstance(rows, InMemory):
            raise ValueError(
                "measurement_covariance has infinite variances, which need X in memory: set "
                "the values in X to NaN, and their variances to 0."
            )
        values = np.where(infinite, np.nan, rows.values)
        rows = InMemory(values, rows.weight)
    return rows, of_positive(rows, noise)


def noise_of(measurement_covariance: Any, shape: tuple[int, ...], X: Array | None) -> Array:
    """Return checked variances (n, D) or covariances (n, D, D) of rows of this shape.

    Those of values that are missing in X, if it is in memory, may be NaN.
    """
    name, is_full = "measurement_covariance", np.ndim(measurement_covariance) == 3
    noise = checked_aside(name, measurement_covariance, shape + shape[1:] * is_full)
    if X is not None and np.isnan(noise).any():
        lost = np.isnan(X)
        noise = np.where(lost if not is_full else lost[:, :, None] | lost[:, None], 0, noise)
    variances = noise if noise.ndim == 2 else np.einsum("nii->ni", noise)
    if not (variances >= 0).all():
        raise ValueError(
            f"{name} must hold variances of at least 0, but some are negative or NaN: give "
            "infinity for values that say nothing."
        )
    if noise.ndim == 3:
        finite = np.isfinite(variances)
        kept = np.where(finite[:, :, None] & finite[:, None], noise, 0)
        # in units of the standard deviations, which may differ much between features
        scale = np.sqrt(np.einsum("nii->ni", kept))
        unit = np.where(scale > 0, scale, 1)
        kept = kept / unit[:, :, None] / unit[:, None]
        symmetric = (np.abs(kept - kept.transpose(0, 2, 1)) <= TOLERANCE).all()
        if (
            not (np.isfinite(kept).all() and symmetric)
            or (np.linalg.eigvalsh(kept) < -TOLERANCE).any()
        ):
            raise ValueError(
                f"{name} must hold symmetric matrices without negative eigenvalues, but some "
                "are not: check their entries."
            )
    return noise
