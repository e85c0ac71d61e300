"""The Gaussian mixture with conjugate priors, as pure functions over explicit parameters.

    x | k ~ N(mu_k, Sigma_k),  k ~ Categorical(pi)
    pi ~ Dirichlet(alpha),  mu_k | Sigma_k ~ N(mu_0, Sigma_k / kappa_0)
    blocks of Sigma ~ inverse-Wishart(Psi_0, nu_0)

All four covariance types are groups of diagonal blocks, see ``_covariances``. With N_k the
counts and S the scatter about the means, the mode of the posterior given q is

    pi_k  = (N_k + alpha - 1) / sum,  mu_k = (kappa_0 mu_0 + N_k m_k) / (kappa_0 + N_k)
    Sigma = (Psi_0 + S + sum_k kappa_0 N_k / (kappa_0 + N_k) (m_k - mu_0)(m_k - mu_0)^T)
            / (nu_0 + m N_g + m c + d + 1)

for blocks of size d of which a row gives m observations, in a group of c components.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.special import gammaln, multigammaln, softmax, xlogy

from skem._stats import Additive
from skem._typing import Array, Indices
from skem.mixture import _sums
from skem.mixture._covariances import Layout, inverse_cholesky
from skem.mixture._missing import Group, conditional_means, group_rows, marginal
from skem.mixture._sums import Whitening

# A component has collapsed whose standard deviation, relative to that of the data, or to
# that without the other features, is below these.
MIN_SCALE, MIN_CONDITIONAL_SCALE = 1e-10, 1e-7
# float32 while a component's standard deviation is above this share of the spread.
MIN_SINGLE_SCALE = 1e-3
# A NumPy pass of so many nanoseconds is worth compiling for.
MIN_FAST_TIME = 2e7
# Features up to which the compiled loop is faster: with full covariances, and otherwise.
MAX_FAST_FULL, MAX_FAST_OTHER = 128, 4


class CollapseError(FloatingPointError):
    """A component has shrunk to a point, a line or a plane, or to nothing."""


@dataclass(frozen=True)
class Params:
    """The parameters; weight 0 marks a component that is switched off."""

    layout: Layout
    weights: Array  # (K,)
    means: Array  # (K, D)
    covariances: Array  # (G, B, d, d)

    @cached_property
    def cholesky(self) -> Array:
        """Lower triangular blocks."""
        try:
            return np.linalg.cholesky(self.covariances)
        except np.linalg.LinAlgError as error:
            raise CollapseError("a covariance is not positive definite") from error

    @cached_property
    def factors(self) -> Array:
        """Inverse Cholesky factors: (G, D, D) or (G, D)."""
        return self.layout.of_groups(inverse_cholesky(self.cholesky))

    @cached_property
    def active(self) -> Indices:
        return np.flatnonzero(self.weights > 0)

    @cached_property
    def whitening(self) -> Whitening:
        """Of the active components."""
        active, layout = self.active, self.layout
        weights, means = self.weights[active], self.means[active]
        factors = self.factors
        if len(factors) > 1:
            factors = factors[active]
        elif factors.ndim == 2:
            factors = np.broadcast_to(factors, means.shape)
        log_norm = layout.n_features * math.log(2 * math.pi) + layout.log_det(self.cholesky)
        center = weights @ means
        return Whitening(
            center, factors, means - center, np.log(weights) - log_norm[active] / 2
        )


def params_of(
    layout: Layout, weights: ArrayLike, means: ArrayLike, factors: Any, covariances: Any
) -> Params:
    """Return parameters of fitted attributes.

    The factors of the precisions come before the covariances, since rounding leaves them
    positive definite.
    """
    cholesky = None
    if factors is not None:
        cholesky = inverse_cholesky(layout.to_blocks(factors).swapaxes(2, 3))
        blocks: Array = cholesky @ cholesky.swapaxes(2, 3)
    else:
        blocks = layout.to_blocks(covariances)
    weights, means = np.asarray(weights, dtype=float), np.asarray(means, dtype=float)
    params = Params(layout, weights / weights.sum(), means, blocks)
    try:
        params.cholesky  # noqa: B018
    except CollapseError:
        if cholesky is None:
            raise
        vars(params)["cholesky"] = cholesky  # the product has none, by rounding
    return params


@dataclass(frozen=True)
class Prior:
    """The hyperparameters; see :func:`flat_prior` for those that say nothing."""

    concentration: float  # alpha
    mean_precision: float  # kappa_0
    mean: Array  # mu_0, (D,)
    degrees_of_freedom: float  # nu_0
    covariance: Array  # Psi_0, (1, B, d, d)

    @property
    def has_scale(self) -> bool:
        """Whether it keeps covariances away from 0."""
        return bool(np.any(self.covariance))


@dataclass(frozen=True)
class Stats(Additive):
    """Sums over rows, centered at and whitened by the parameters that they were made with."""

    weight: float  # sum of the sample weights
    log_lik: float  # nats
    counts: Array  # (K,)
    first: Array  # (K, D), sum of r z
    second: Array  # sum of r z z^T: (K, D, D), (1, D, D) over all k if tied, or (K, D)


@dataclass(frozen=True)
class Mixture:
    """Options and constants of the model. It holds no parameter and no data."""

    layout: Layout
    prior: Prior
    scale: Array  # (D,), standard deviations of the features
    reg_covar: float = 0.0
    single: bool = False  # whether the data are float32
    fast: bool = False  # whether to compile the hot loop

    # -- rows -------------------------------------------------------------------------

    @property
    def row_size(self) -> int:
        """Elements that a row counts for: more than it has, to have chunks for threads."""
        return 8 * self.layout.n_features

    def dtype_for(self, params: Params, dtype: DTypeLike) -> np.dtype:
        """The dtype to compute in: float64 if float32 cannot resolve a component."""
        if dtype == np.float64:
            return np.dtype(float)
        smallest = 1 / np.abs(params.factors).max(initial=0)
        spread = np.abs(params.means - params.whitening.center).max(initial=0)
        spread = max(spread, float(self.scale.max(initial=0)))
        return np.dtype(float if smallest < MIN_SINGLE_SCALE * spread else dtype)

    def rows(self, values: Array, dtype: DTypeLike) -> list[Group]:
        """A chunk (n, D) as groups of rows with the same missing features."""
        return group_rows(np.asarray(values, dtype))

    # -- E step -----------------------------------------------------------------------

    def e_step(
        self,
        params: Params,
        groups: list[Group],
        weight: Array,
        responsibilities: Array | None = None,
    ) -> Stats:
        """Expected sums of a chunk, or its sums under given responsibilities (n, K)."""
        stats = [self._group_stats(params, g, weight, responsibilities) for g in groups]
        return sum(stats[1:], stats[0])

    def _group_stats(
        self, params: Params, group: Group, weight: Array, responsibilities: Array | None
    ) -> Stats:
        weight = group.of(weight)
        active, layout = params.active, self.layout
        whitening, expand = marginal(params.whitening, group.observed)
        if responsibilities is not None:
            given = group.of(responsibilities).T[active]
            sums = _sums.sums(whitening, group.values, weight, given)
        elif self.fast and len(whitening.center) > 0:
            from skem.mixture import _kernel

            sums = _kernel.sums(whitening, group.values, weight)
        else:
            sums = _sums.sums(whitening, group.values, weight)
        log_lik, counts, first, second = expand(*sums)
        if len(active) < layout.n_components:
            counts, first = self._spread(counts, active), self._spread(first, active)
            if len(second) > 1 or layout.n_groups > 1:
                second = self._spread(second, active)
        return Stats(float(counts.sum()), log_lik, counts, first, second)

    def _spread(self, values: Array, active: Indices) -> Array:
        out = np.zeros((self.layout.n_components, *values.shape[1:]))
        out[active] = values
        return out

    def log_joint(self, params: Params, groups: list[Group]) -> Array:
        """log p(x, k), (n, K), stored by columns."""
        n = sum(len(group.values) for group in groups)
        out = np.full((self.layout.n_components, n), -np.inf)
        for group in groups:
            whitening, _ = marginal(params.whitening, group.observed)
            values = _sums.log_joint(whitening, group.values)
            out[np.ix_(params.active, group.index(n))] = values
        return out.T

    def entropy(self, params: Params, groups: list[Group]) -> Array:
        """Return the entropy of the responsibilities of each row, in nats."""
        posterior = softmax(self.log_joint(params, groups), axis=1)
        return -xlogy(posterior, posterior).sum(1)

    def impute(self, params: Params, groups: list[Group]) -> Array:
        """Return the rows; missing values have their conditional expectation."""
        posterior = softmax(self.log_joint(params, groups), axis=1)[:, params.active]
        out = np.empty((len(posterior), self.layout.n_features))
        for group in groups:
            place = group.index(len(out))
            if group.observed is None:
                out[place] = group.values
                continue
            means = conditional_means(params.whitening, group)
            out[place] = np.einsum("nk,knd->nd", posterior[place], means)
            out[np.ix_(place, group.observed)] = group.values
        return out

    def sample(
        self, params: Params, n_samples: int, rng: np.random.RandomState
    ) -> tuple[Array, Indices]:
        """Draw rows and their components."""
        components = rng.choice(len(params.weights), size=n_samples, p=params.weights)
        noise = rng.normal(size=(n_samples, self.layout.n_features))
        X, cholesky = params.means[components], self.layout.of_groups(params.cholesky)
        for k in np.unique(components):
            own, factor = components == k, cholesky[k if len(cholesky) > 1 else 0]
            X[own] += noise[own] @ factor.T if factor.ndim == 2 else noise[own] * factor
        return X, components

    # -- M step -----------------------------------------------------------------------

    def m_step(self, params: Params, stats: Stats) -> Params:
        """The parameters that maximize the expected log-posterior."""
        return self.mode(stats.counts, *self.moments(params, stats), params)

    def mode(
        self, counts: Array, averages: Array, scatter: Array, before: Params | None = None
    ) -> Params:
        """The same from the counts (K,), averages (K, D) and scatter about them.

        Components that are switched off keep what they had ``before``.
        """
        layout, prior, kappa = self.layout, self.prior, self.prior.mean_precision
        weights = self._weights(counts)
        off = (weights == 0) & (prior.concentration < 1)
        if prior.concentration >= 1 and (counts + kappa <= 0).any():
            raise CollapseError("a component has lost all its rows")
        total = np.where(counts + kappa > 0, counts + kappa, 1)
        gaps = averages - prior.mean
        means = averages - (kappa / total)[:, None] * gaps
        scatter = scatter + self._outer(kappa * counts / total, gaps)
        repeats = layout.n_repeats * counts.reshape(layout.n_groups, -1).sum(1)
        dof = prior.degrees_of_freedom - layout.flat_degrees_of_freedom + repeats
        if layout.group_size == 1:
            dof[off] = 1
        if (dof <= 0).any():
            raise CollapseError("a component has lost all its rows")
        covariances = (prior.covariance + layout.pool(scatter)) / dof[:, None, None, None]
        covariances += self.reg_covar * np.eye(layout.block_size)
        if off.any() and before is not None:
            means[off] = before.means[off]
            if layout.group_size == 1:
                covariances[off] = before.covariances[off]
        return self._checked(Params(layout, weights, means, covariances))

    def recenter(self, stats: Stats, params: Params, new: Params) -> Stats:
        """Statistics made with ``params``, expressed in those of ``new``."""
        averages, scatter = self.moments(params, stats)
        factors, gaps = new.factors, averages - new.means
        if self.layout.dense:
            first = stats.counts[:, None] * np.matmul(factors, gaps[:, :, None])[:, :, 0]
            second = factors @ scatter @ factors.transpose(0, 2, 1)
        else:
            first = stats.counts[:, None] * factors * gaps
            second = factors**2 * scatter
        return replace(
            stats, first=first, second=second + self._outer(_inverse(stats.counts), first)
        )

    def in_model(self, params: Params) -> Indices:
        """The components that are not switched off."""
        if self.prior.concentration < 1:
            return params.active
        return np.arange(len(params.weights))

    def _weights(self, counts: Array) -> Array:
        weights = np.maximum(counts + (self.prior.concentration - 1), 0)
        if self.prior.concentration < 1:  # the last one stays, and none comes back
            weights[counts == 0] = 0
            weights[counts.argmax()] = max(weights.max(), np.finfo(float).tiny)
        return weights / weights.sum()

    def moments(self, params: Params, stats: Stats) -> tuple[Array, Array]:
        """Averages (K, D), and scatter about them, in the units of the data."""
        inverse = _inverse(stats.counts)
        average = inverse[:, None] * stats.first
        scatter = stats.second - self._outer(inverse, stats.first)
        cholesky = self.layout.of_groups(params.cholesky)
        if not self.layout.dense:
            return params.means + cholesky * average, cholesky**2 * scatter
        average = np.matmul(cholesky, average[:, :, None])[:, :, 0]
        return params.means + average, cholesky @ scatter @ cholesky.transpose(0, 2, 1)

    def _outer(self, weight: Array, vectors: Array) -> Array:
        """Weighted squares of vectors (K, D), of the shape of ``Stats.second``."""
        scaled = weight[:, None] * vectors
        if not self.layout.dense:
            return scaled * vectors
        if self.layout.covariance_type == "tied":
            return (scaled.T @ vectors)[None]
        return scaled[:, :, None] * vectors[:, None]

    def _checked(self, params: Params) -> Params:
        if not (np.isfinite(params.covariances).all() and np.isfinite(params.means).all()):
            raise CollapseError("a parameter is not finite")
        cholesky = params.cholesky
        if self.reg_covar or self.prior.has_scale:
            return params
        diagonal = np.einsum("gbii->gbi", cholesky)
        std = np.sqrt(np.einsum("gbii->gbi", params.covariances))
        scale = self.scale.reshape(-1, *std.shape[1:]) if self.layout.n_repeats == 1 else (
            self.scale.min()
        )  # fmt: skip
        if (std < MIN_SCALE * scale).any() or (diagonal < MIN_CONDITIONAL_SCALE * std).any():
            raise CollapseError("a component has collapsed onto a point, a line or a plane")
        return params

    # -- prior ------------------------------------------------------------------------

    @property
    def is_flat(self) -> bool:
        prior = self.prior
        return (
            prior.concentration == 1
            and prior.mean_precision == 0
            and prior.degrees_of_freedom == self.layout.flat_degrees_of_freedom
            and not prior.has_scale
        )

    def log_prior(self, params: Params) -> float:
        """log p(parameters), normalized where it is proper; 0 if it is flat.

        Components that are switched off are no longer part of the model.
        """
        if self.is_flat:
            return 0.0
        alpha, weights = self.prior.concentration, params.weights[self.in_model(params)]
        out = gammaln(len(weights) * alpha) - len(weights) * gammaln(alpha)
        out += xlogy(alpha - 1, weights).sum()
        return float(out + self.log_prior_of_components(params))

    def log_prior_of_components(self, params: Params) -> float:
        """log p(means, covariances)."""
        prior, layout, active = self.prior, self.layout, self.in_model(params)
        kappa, K = prior.mean_precision, len(active)
        out = -layout.log_det(params.cholesky)[active].sum() / 2
        if kappa > 0:
            gaps = params.means[active] - prior.mean
            factors = params.factors if len(params.factors) == 1 else params.factors[active]
            gaps = np.matmul(factors, gaps[:, :, None]) if layout.dense else factors * gaps
            out += K * layout.n_features / 2 * math.log(kappa / (2 * math.pi))
            out -= kappa / 2 * (gaps**2).sum()
        groups = active if layout.n_groups > 1 else slice(None)
        return float(out + self._log_inverse_wishart(params.cholesky[groups]))

    def _log_inverse_wishart(self, cholesky: Array) -> float:
        """Of all blocks (G, B, d, d), given their Cholesky factors."""
        d, nu, psi = (
            self.layout.block_size,
            self.prior.degrees_of_freedom,
            self.prior.covariance,
        )
        half_log_det = np.log(np.einsum("gbii->gbi", cholesky)).sum()
        precision = inverse_cholesky(cholesky)
        out = -(nu + d + 1) * half_log_det
        out -= (
            np.einsum(
                "gbij,gbik,gbjk->", precision, precision, np.broadcast_to(psi, cholesky.shape)
            )
            / 2
        )
        sign, log_det = np.linalg.slogdet(psi)
        if nu > d - 1 and (sign > 0).all():
            norm = nu / 2 * (log_det - d * math.log(2)) - multigammaln(nu / 2, d)
            out += len(cholesky) * norm.sum()
        return float(out)


def _inverse(counts: Array) -> Array:
    """1 / counts, and 0 where there are none."""
    return np.divide(1, counts, out=np.zeros_like(counts), where=counts > 0)


def fast_pays(layout: Layout, n_rows: int) -> bool:
    """Whether a pass over the rows is long enough to compile the hot loop for it."""
    K, D = layout.n_components, layout.n_features
    limit = MAX_FAST_FULL if layout.covariance_type == "full" else MAX_FAST_OTHER
    return limit >= D and n_rows * K * D * (2 + D / 16) >= MIN_FAST_TIME
