"""The Gaussian mixture with conjugate priors, as pure functions over explicit parameters.

    x | k ~ N(mu_k, Sigma_k),  k ~ Categorical(pi)
    pi ~ Dirichlet(alpha),  mu_k | Sigma_k ~ N(mu_0, Sigma_k / kappa_0)
    blocks of Sigma ~ inverse-Wishart(Psi_0, nu_0)

All four covariance types are groups of diagonal blocks, see ``_covariances``. With N_k the
counts and S the scatter about the means, the mode of the posterior given q is

    pi_k  = (N_k + alpha - 1) / sum,  mu_k = (kappa_0 mu_0 + N_k m_k) / (kappa_0 + N_k)
    Sigma = (Psi_0 + S + sum_k kappa_0 N_k / (kappa_0 + N_k) (m_k - mu_0)(m_k - mu_0)^T)
            / (nu_0 + m N_g + m c + d + 1)

for blocks of size d, with m observations per row and c components per group.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.special import gammaln, logsumexp, softmax, xlogy

from skem._base.em import FARTHEST, with_limits
from skem._stats import Additive
from skem._typing import Array, Indices, Mask
from skem.mixture import _sums
from skem.mixture._arrays import PlacedGroup
from skem.mixture._covariances import Layout
from skem.mixture._missing import (
    Group,
    Groups,
    conditional_means,
    group_rows,
    marginal,
    values_of,
)
from skem.mixture._params import (
    CollapseError,
    Fixed,
    Params,
    Prior,
    filled_far,
    log_inverse_wishart,
)
from skem.mixture._repeated import Repeated
from skem.mixture._scattered import Scattered

# A component has collapsed if its standard deviation, divided by that of the data, is below
# MIN_SCALE. It has also collapsed if the conditional standard deviation of a feature, given
# other features, is below MIN_CONDITIONAL_SCALE times the marginal one.
MIN_SCALE, MIN_CONDITIONAL_SCALE = 1e-10, 1e-7
# With ``reg_covar``, a component has collapsed if its smallest variance is at most MAX_FLOOR
# times ``reg_covar`` where the variance of the others is at least MIN_SPREAD times as large.
MAX_FLOOR, MIN_SPREAD = 2.0, 100.0
# float32 is used while a component's standard deviation is above this share of the spread.
MIN_SINGLE_SCALE = 1e-3
# The squares of a larger spread, and of the inverse of a smaller one, leave float32's range.
MAX_SINGLE_SPREAD = 1e15


@dataclass(frozen=True)
class Stats(Additive):
    """Sums over rows, centered and whitened with the parameters of their E step."""

    weight: float  # sum of the sample weights
    log_lik: float  # nats
    counts: Array  # (K,)
    first: Array  # (K, D), sum of r z
    second: Array  # sum of r z z^T: (K, D, D), (1, D, D) over all k if tied, or (K, D)


@dataclass(frozen=True)
class Mixture:
    """Options and constants of the model; it holds neither parameters nor data."""

    layout: Layout
    prior: Prior
    scale: Array  # (D,), standard deviations of the features
    reg_covar: float = 0.0
    single: bool = False  # whether the data are float32
    fast: bool = False  # whether to use the compiled inner loop
    fixed: Fixed | None = None  # what the M step leaves as it is

    # -- rows -------------------------------------------------------------------------

    @property
    def row_size(self) -> int:
        """Number of elements that a row counts as when rows are split into chunks."""
        # The factor makes chunks small enough to have several per thread. It also bounds the
        # memory of a chunk's posterior.
        return 8 * self.layout.n_features

    def dtype_for(self, params: Params, dtype: DTypeLike) -> np.dtype:
        """Return the dtype to compute in: float64 if float32 cannot resolve a component."""
        if dtype == np.float64:
            return np.dtype(float)
        smallest = 1 / np.abs(params.factors).max(initial=0)
        spread = np.abs(params.means - params.whitening.center).max(initial=0)
        spread = max(spread, float(self.scale.max(initial=0)))
        resolved = smallest >= MIN_SINGLE_SCALE * spread
        in_range = 1 / MAX_SINGLE_SPREAD < spread < MAX_SINGLE_SPREAD
        return np.dtype(dtype if resolved and in_range else float)

    def rows(self, values: Array, dtype: DTypeLike) -> Groups:
        """Split a chunk (n, D) into groups of rows with the same missing features."""
        return group_rows(values, dtype, dense=self.layout.dense)

    # -- E step -----------------------------------------------------------------------

    def e_step(
        self,
        params: Params,
        groups: Groups,
        weight: Array,
        responsibilities: Array | None = None,
    ) -> Stats:
        """Return the expected sums of a chunk.

        With ``responsibilities`` (n, K), these replace the posterior of the components.
        """
        stats = [self._group_stats(params, g, weight, responsibilities) for g in groups]
        return sum(stats[1:], stats[0])

    def _group_stats(
        self,
        params: Params,
        group: Group | Repeated | Scattered | PlacedGroup,
        weight: Array,
        responsibilities: Array | None,
    ) -> Stats:
        active = params.active
        if isinstance(group, PlacedGroup):
            given = None if responsibilities is None else responsibilities.T[active]
            return self._of_active(params, group.sums(params.whitening, weight, given))
        weight = group.of(weight)
        given = None if responsibilities is None else group.of(responsibilities).T[active]
        # float32 holds neither tiny nor huge weights
        unit = float(weight.max()) if self.single else 1.0
        if unit not in (0.0, 1.0):
            sums = self._group_sums(params, group, weight / unit, given)
            return self._of_active(params, tuple(unit * value for value in sums))
        return self._of_active(params, self._group_sums(params, group, weight, given))

    def _group_sums(
        self,
        params: Params,
        group: Group | Repeated | Scattered,
        weight: Array,
        given: Array | None,
    ) -> tuple[Any, ...]:
        """Return log-likelihood, counts, first and second moments of the active components."""
        if not isinstance(group, Group):
            return group.filling(params.whitening).sums(weight, given)
        whitening, expand = marginal(params.whitening, group.observed)
        if given is not None:
            return expand(*_sums.sums(whitening, group.values, weight, given))
        if self.fast and len(whitening.center) > 0:
            from skem.mixture import _kernel

            return expand(*_kernel.sums(whitening, group.values, weight))
        return expand(*_sums.sums(whitening, group.values, weight))

    def _of_active(self, params: Params, sums: tuple[Any, ...]) -> Stats:
        """Return the statistics, given the sums of the active components."""
        (log_lik, counts, first, second), active, layout = sums, params.active, self.layout
        if len(active) < layout.n_components:
            counts, first = self._spread(counts, active), self._spread(first, active)
            if len(second) > 1 or layout.n_groups > 1:
                second = self._spread(second, active)
        return Stats(float(counts.sum()), log_lik, counts, first, second)

    def _spread(self, values: Array, active: Indices) -> Array:
        out = np.zeros((self.layout.n_components, *values.shape[1:]))
        out[active] = values
        return out

    def log_joint(self, params: Params, groups: Groups) -> Array:
        """Return log p(x, k), (n, K), stored by columns; see ``with_limits``."""
        with np.errstate(over="ignore", invalid="ignore"):
            out = self._log_joint(params, groups)
            return with_limits(
                out,
                lambda: values_of(groups, len(out), self.layout.n_features),
                lambda X: self._log_joint(params, self.rows(X, float)),
                params.whitening.center,
            )

    def _log_joint(self, params: Params, groups: Groups) -> Array:
        K = self.layout.n_components
        if isinstance(groups[0], PlacedGroup):
            return groups[0].log_joint_in_numpy(params.whitening, params.active, K)
        n = sum(len(group.values) for group in groups)
        out = np.full((K, n), -np.inf)
        for group in groups:
            if isinstance(group, Repeated | Scattered):
                for block in group.filling(params.whitening).blocks():
                    out[np.ix_(params.active, group.place[block.rows])] = block.log_joint
                continue
            whitening, _ = marginal(params.whitening, group.observed)
            values = _sums.log_joint(whitening, group.values)
            out[np.ix_(params.active, group.index(n))] = values
        return out.T

    def log_certainty(self, params: Params, groups: Groups) -> Array:
        """Return the log-probability of the most probable component of each row."""
        log_joint = self.log_joint(params, groups)
        certainty: Array = log_joint.max(1) - logsumexp(log_joint, axis=1)
        return certainty

    def impute(self, params: Params, groups: Groups) -> Array:
        """Return the rows with missing values replaced by their conditional expectation."""
        log_joint = self.log_joint(params, groups)
        posterior = softmax(log_joint, axis=1)[:, params.active]
        with np.errstate(over="ignore", invalid="ignore"):
            out = self._filled(params, groups, posterior)
        far = np.flatnonzero(log_joint.max(1) <= FARTHEST)
        if len(far):
            X = values_of(groups, *out.shape)
            for i in far.tolist():
                out[i] = filled_far(params, X[i], int(log_joint[i].argmax()))
        return out

    def _filled(self, params: Params, groups: Groups, posterior: Array) -> Array:
        """Return the rows, filled, given the posterior of the active components."""
        out = np.empty((len(posterior), self.layout.n_features))
        for group in groups:
            place = group.index(len(out))
            if isinstance(group, Repeated | Scattered):
                self._impute_filled(params, group, posterior, out)
                continue
            if group.observed is None:
                out[place] = group.values
                continue
            means = conditional_means(params.whitening, group)
            out[place] = np.einsum("nk,knd->nd", posterior[place], means)
            out[np.ix_(place, group.observed)] = group.values
        return out

    def _impute_filled(
        self, params: Params, group: Repeated | Scattered, posterior: Array, out: Array
    ) -> None:
        whitening = params.whitening
        for block in group.filling(whitening).blocks():
            place = group.place[block.rows]
            means = block.gaps + (whitening.center + whitening.means)[:, None]
            filled = np.einsum("nk,knd->nd", posterior[place], means)
            out[place] = np.where(group.missing[block.rows], filled, group.values[block.rows])

    def sample(
        self, params: Params, n_samples: int, rng: np.random.RandomState
    ) -> tuple[Array, Indices]:
        """Draw rows; return them and their components."""
        components = rng.choice(len(params.weights), size=n_samples, p=params.weights)
        noise = rng.normal(size=(n_samples, self.layout.n_features))
        X, cholesky = params.means[components], self.layout.of_groups(params.cholesky)
        for k in np.unique(components):
            own, factor = components == k, cholesky[k if len(cholesky) > 1 else 0]
            X[own] += noise[own] @ factor.T if factor.ndim == 2 else noise[own] * factor
        return X, components

    # -- M step -----------------------------------------------------------------------

    def m_step(self, params: Params, stats: Stats) -> Params:
        """Return the parameters that maximize the expected log-posterior."""
        return self.mode(stats.counts, *self.moments(params, stats), params)

    def mode(
        self, counts: Array, averages: Array, scatter: Array, before: Params | None = None
    ) -> Params:
        """Return the mode, given counts (K,), averages (K, D) and the scatter about them.

        Components that are switched off keep their mean and covariance from ``before``.
        """
        layout, prior, kappa = self.layout, self.prior, self.prior.mean_precision
        fixed = self.fixed if before is not None else None
        weights = self._weights(counts)
        if fixed and before:
            weights = fixed.shares(weights, before.weights)
        off = (weights == 0) & (prior.concentration < 1)
        lost = counts + kappa <= 0
        if prior.concentration >= 1 and (lost & ~fixed.means if fixed else lost).any():
            raise CollapseError("a component has lost all its rows")
        total = np.where(lost, 1, counts + kappa)
        gaps = averages - prior.mean
        means = averages - (kappa / total)[:, None] * gaps
        spread = kappa * counts / total
        if fixed and before:
            means[fixed.means] = before.means[fixed.means]
            spread = np.where(fixed.means, 0, spread)
            scatter = scatter + self._outer(fixed.means * counts, averages - means)
            scatter = scatter + self._outer(fixed.means * kappa, means - prior.mean)
        scatter = scatter + self._outer(spread, gaps)
        repeats = layout.n_repeats * counts.reshape(layout.n_groups, -1).sum(1)
        dof = prior.degrees_of_freedom - layout.flat_degrees_of_freedom + repeats
        if layout.group_size == 1:
            dof[off] = 1
        if fixed:
            dof[fixed.covariances] = 1
        if (dof <= 0).any():
            raise CollapseError("a component has lost all its rows")
        covariances = (prior.covariance + layout.pool(scatter)) / dof[:, None, None, None]
        covariances += self.reg_covar * np.eye(layout.block_size)
        if before is not None:
            means[off] = before.means[off]
            kept = off.copy() if layout.group_size == 1 else np.zeros(1, bool)
            kept |= fixed.covariances if fixed else False
            covariances[kept] = before.covariances[kept]
        return self._checked(Params(layout, weights, means, covariances))

    def recenter(self, stats: Stats, params: Params, new: Params) -> Stats:
        """Convert statistics from the coordinates of ``params`` to those of ``new``."""
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
        """Return the components that are not switched off."""
        if self.prior.concentration < 1:
            return params.active
        return np.arange(len(params.weights))

    def _weights(self, counts: Array) -> Array:
        weights = np.maximum(counts + (self.prior.concentration - 1), 0)
        # the last active component stays, and a component switched off does not return
        if self.prior.concentration < 1:
            weights[counts == 0] = 0
            weights[counts.argmax()] = max(weights.max(), np.finfo(float).tiny)
        return weights / weights.sum()

    def moments(self, params: Params, stats: Stats) -> tuple[Array, Array]:
        """Return averages (K, D) and the scatter about them, in the units of the data."""
        inverse = _inverse(stats.counts)
        average = inverse[:, None] * stats.first
        scatter = stats.second - self._outer(inverse, stats.first)
        cholesky = self.layout.of_groups(params.cholesky)
        if not self.layout.dense:
            return params.means + cholesky * average, cholesky**2 * scatter
        average = np.matmul(cholesky, average[:, :, None])[:, :, 0]
        return params.means + average, cholesky @ scatter @ cholesky.transpose(0, 2, 1)

    def _outer(self, weight: Array, vectors: Array) -> Array:
        """Return weighted outer products of vectors (K, D), shaped like ``Stats.second``."""
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
        free = ~self.fixed.covariances if self.fixed else slice(None)
        diagonal = np.einsum("gbii->gbi", cholesky[free])
        std = np.sqrt(np.einsum("gbii->gbi", params.covariances[free]))
        scale = self.scale.reshape(-1, *std.shape[1:]) if self.layout.n_repeats == 1 else (
            self.scale.min()
        )  # fmt: skip
        if (std < MIN_SCALE * scale).any() or (diagonal < MIN_CONDITIONAL_SCALE * std).any():
            raise CollapseError("a component has collapsed onto a point, a line or a plane")
        return params

    def collapsed(self, params: Params, n_rows: Array) -> Mask:
        """Return which components have a variance that is nothing but ``reg_covar``.

        Such a component holds fewer rows (K,) than its covariance needs, and the others vary
        in that direction. A component of many equal rows is not meant: it is in the data. Nor
        is a column of few values meant, in which no component varies.
        """
        layout, K = self.layout, len(n_rows)
        if not self.reg_covar or self.prior.has_scale or layout.n_groups == 1:
            return np.zeros(K, bool)
        matrices = layout.of_groups(params.covariances)
        if layout.dense:
            values, vectors = np.linalg.eigh(matrices)
            smallest, direction = values[:, 0], vectors[:, :, 0]
            variances = np.einsum("kd,jde,ke->kj", direction, matrices, direction)
        else:
            smallest = matrices.min(1)
            variances = matrices.T[matrices.argmin(1)]
        weights = np.where(np.eye(K, dtype=bool), 0, params.weights)
        spread = (variances * weights).sum(1) / np.maximum(weights.sum(1), MIN_SCALE)
        at_floor = smallest <= MAX_FLOOR * self.reg_covar
        few = n_rows < 2 * (layout.block_size + 1)
        found = at_floor & few & (spread >= MIN_SPREAD * self.reg_covar)
        if self.fixed:
            found &= ~self.fixed.covariances
        return np.asarray(found & (params.weights > 0))

    # -- prior ------------------------------------------------------------------------

    @property
    def is_named(self) -> bool:
        """Whether components differ in what they are meant to be."""
        return self.fixed is not None or self.prior.mean.ndim == 2

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
        """Return the log prior density, normalized if the prior is proper; 0 if it is flat.

        Components that are switched off are no longer part of the model.
        """
        if self.is_flat:
            return 0.0
        alpha, weights = self.prior.concentration, params.weights[self.in_model(params)]
        out = xlogy(alpha - 1, weights).sum()
        if alpha > 0:  # else the prior is not proper
            out += gammaln(len(weights) * alpha) - len(weights) * gammaln(alpha)
        return float(out + self.log_prior_of_components(params))

    def log_prior_of_components(self, params: Params) -> float:
        """Return the log prior density of means and covariances."""
        prior, layout, active = self.prior, self.layout, self.in_model(params)
        kappa, K = prior.mean_precision, len(active)
        out = -layout.log_det(params.cholesky)[active].sum() / 2
        if kappa > 0:
            gaps = (params.means - prior.mean)[active]
            factors = params.factors if len(params.factors) == 1 else params.factors[active]
            gaps = np.matmul(factors, gaps[:, :, None]) if layout.dense else factors * gaps
            out += K * layout.n_features / 2 * math.log(kappa / (2 * math.pi))
            out -= kappa / 2 * (gaps**2).sum()
        groups = active if layout.n_groups > 1 else slice(None)
        return float(out + log_inverse_wishart(prior, params.cholesky[groups]))


def _inverse(counts: Array) -> Array:
    """Return 1 / counts, and 0 where a count is 0."""
    return np.divide(1, counts, out=np.zeros_like(counts), where=counts > 0)
