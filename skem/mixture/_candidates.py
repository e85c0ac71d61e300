"""Short runs of EM from several starts at once, to choose the start of a fit.

The features of a row are phi(x) = (1, x, products of two entries of x). Log-densities and
sums over rows are linear in them, so that an iteration for all candidates is two matrix
products:

    log p(x, k) = theta_k . phi(x),   sums_k = sum_n r_nk phi(x_n)

Rows are standardized. Products of large numbers would lose digits otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from skem._typing import Array, Indices
from skem.mixture._covariances import Layout
from skem.mixture._model import Mixture
from skem.mixture._params import Params

# The average covariance within components gets the weight of the share STEADY of an average
# component. A component of few rows then has a usable covariance.
STEADY = 0.05
MIN_SHARE = 1e-3  # smallest standard deviation within components, in units of the data
MIN_COUNT = 1e-6  # a component without rows counts as this share of all rows
SMALL_GAIN = 1e-4  # nats per row: a race ends if no candidate gains more
RIDGE = 1e-10  # added to variances of standardized rows: a race outlives a collapse
DECIMALS = 9  # objectives that agree to this precision, in nats per row, are equal


@dataclass(frozen=True)
class Scores:
    """The state of S candidates after their last E step."""

    sums: Array  # (S, K, F)
    responsibilities: Array  # (S, K, n), times the weights of the rows
    log_density: Array  # (S, n)
    objective: Array  # (S,), nats per row
    n_bad: Indices  # (S,), number of components with too few rows

    def best(self, n: int) -> Indices:
        """Return the best candidates: few bad components first, then a high objective."""
        return np.lexsort((-self.objective.round(DECIMALS), self.n_bad))[:n]

    def take(self, index: Indices) -> "Scores":
        """Return some of the candidates."""
        return Scores(*(value[index] for value in vars(self).values()))


class Batch:
    """Standardized rows, on which candidates are compared."""

    def __init__(self, model: Mixture, X: Array, weight: Array, missing: Array) -> None:
        self.model, self.weight = model, weight
        self.center = weight @ X / weight.sum()
        positive = np.where(model.scale > 0, model.scale, 1.0)
        if model.layout.n_repeats > 1:  # one variance for all features: one unit
            positive = np.full_like(positive, math.sqrt(np.mean(positive**2)))
        self.units = positive
        self.z = (X - self.center) / self.units
        D = model.layout.n_features
        self._row, self._column = np.tril_indices(D)
        # too few rows for a covariance; neither repeats nor a factor of the weights matter
        self.few = (D + 1 if model.layout.dense else 2) * weight_of_a_row(weight)
        self.has_missing = bool(missing.any())
        varies = model.scale > 0
        # variance of missing values, which were filled in, is part of the floor
        self._floor = MIN_SHARE**2 * varies + weight @ missing / weight.sum()
        self._added = self._blocks(model.reg_covar / self.units**2 + RIDGE * varies)
        self._prior = model.prior.covariance * self._blocks(1 / self.units**2)
        if model.layout.dense:
            self._prior = model.prior.covariance / self._outer_units

    def _blocks(self, variances: Array) -> Array:
        """Return variances (D,) as blocks (B, d, d)."""
        layout = self.model.layout
        if layout.n_repeats > 1:
            variances = variances.mean(keepdims=True)
        return layout.to_blocks(np.diag(variances) if layout.dense else variances)[0]

    @cached_property
    def phi(self) -> Array:
        """The features (n, F) of the rows."""
        return self.features(self.z)

    def features(self, z: Array) -> Array:
        """Return the features phi (n, F) of standardized rows (n, D)."""
        return np.concatenate([np.ones((len(z), 1)), z, self.products(z)], axis=1)

    def products(self, z: Array) -> Array:
        """Return the products of two entries, the last features of phi."""
        if not self.model.layout.dense:
            return z * z
        return z[..., self._row] * z[..., self._column]

    # -- iterations ---------------------------------------------------------------------

    def shares_of_labels(self, labels: Indices) -> Array:
        """Return weighted responsibilities (..., K, n) that assign each row to a component."""
        K = self.model.layout.n_components
        shares: Array = (labels[..., None, :] == np.arange(K)[:, None]) * self.weight
        return shares

    def sums_of_labels(self, labels: Indices) -> Array:
        """Return the sums of candidates that assign each row to a component, (S, K, F)."""
        return self.sums_of(self.shares_of_labels(labels))

    def sums_of(self, responsibilities: Array) -> Array:
        """Return the sums, given weighted responsibilities (S, K, n)."""
        S, K, n = responsibilities.shape
        return (responsibilities.reshape(S * K, n) @ self.phi).reshape(S, K, -1)

    def moments(self, sums: Array) -> tuple[Array, Array, Array]:
        """Return counts (S, K), averages (S, K, D) and scatter (S, K, D, D) or (S, K, D)."""
        D = self.model.layout.n_features
        counts = np.maximum(sums[..., 0], MIN_COUNT * self.weight.sum())
        averages = sums[..., 1 : D + 1] / counts[..., None]
        products = sums[..., D + 1 :]
        if not self.model.layout.dense:
            return counts, averages, np.maximum(products - counts[..., None] * averages**2, 0)
        scatter = np.empty((*counts.shape, D, D))
        scatter[..., self._row, self._column] = products
        scatter[..., self._column, self._row] = products
        outer = averages[..., :, None] * averages[..., None, :]
        return counts, averages, scatter - counts[..., None, None] * outer

    def steadied(self, sums: Array) -> tuple[Array, Array, Array]:
        """Return the moments; the scatter is mixed with the average one of all components."""
        counts, averages, scatter = self.moments(sums)
        averages = self._without_empty(sums[..., 0], averages)
        return steadied(counts, averages, scatter, self._floor)

    def _without_empty(self, counts: Array, averages: Array) -> Array:
        """Return the averages (..., K, D); a component without rows gets one of them."""
        empty = counts <= 0
        if not empty.any():
            return averages
        rows = self.z[np.linspace(0, len(self.z) - 1, averages.shape[-2]).astype(int)]
        return np.where(empty[..., None], rows, averages)

    def theta(self, counts: Array, averages: Array, scatter: Array) -> Array:
        """Return theta (S, K, F) of the mode given the moments."""
        layout = self.model.layout
        (S, K), D, d = counts.shape, layout.n_features, layout.block_size
        if layout.group_size > 1:
            scatter, repeats = scatter.sum(1, keepdims=True), counts.sum(1, keepdims=True)
        else:
            repeats = layout.n_repeats * counts
        if layout.n_repeats > 1:
            scatter = scatter.sum(-1, keepdims=True)
        blocks = scatter.reshape(S, -1, layout.n_blocks, d, d)
        extra = self.model.prior.degrees_of_freedom - layout.flat_degrees_of_freedom
        covariance = (self._prior + blocks) / (repeats + extra)[..., None, None, None]
        covariance = covariance + self._added
        if d == 1:
            precision, log_dets = 1 / covariance, np.log(covariance[..., 0, 0])
        else:
            precision, log_dets = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
        log_det = layout.n_repeats * log_dets.sum(-1)
        if layout.dense:
            matrix = precision[:, :, 0]
            slope = (matrix @ averages[..., None])[..., 0]
            products = -matrix[..., self._row, self._column]
            products[..., self._row == self._column] *= 0.5
        else:
            diagonal = np.broadcast_to(precision[..., 0, 0], (S, precision.shape[1], D))
            slope, products = diagonal * averages, -0.5 * diagonal
        constant = np.log(counts / self.weight.sum()) - log_det / 2
        constant = constant - 0.5 * (averages * slope).sum(-1) - D / 2 * math.log(2 * math.pi)
        products = np.broadcast_to(products, (S, K, products.shape[-1]))
        return np.concatenate([constant[..., None], slope, products], axis=-1)

    def e_step(self, theta: Array, log_rest: Array | None = None) -> Scores:
        """Return the posterior, the sums and the objective of each candidate.

        ``log_rest`` (S, n) is the log-density of components that do not change.
        """
        r, log_density = self._posterior(theta, self.phi, self.weight, log_rest)
        sums = self.sums_of(r)
        n_bad = (sums[..., 0] < self.few / self.model.layout.group_size).sum(1)
        objective = log_density @ self.weight / self.weight.sum()
        return Scores(sums, r, log_density, objective, n_bad)

    def shares(self, theta: Array, phi: Array, weight: Array) -> Array:
        """Return the weighted responsibilities (S, K, n) of rows with features phi (n, F)."""
        return self._posterior(theta, phi, weight, None)[0]

    def _posterior(
        self, theta: Array, phi: Array, weight: Array, log_rest: Array | None
    ) -> tuple[Array, Array]:
        """Return weighted responsibilities (S, K, n) and log-densities (S, n)."""
        S, K, F = theta.shape
        r = (theta.reshape(S * K, F) @ phi.T).reshape(S, K, -1)
        top = r.max(1)
        if log_rest is not None:
            np.maximum(top, log_rest, out=top)
        r -= top[:, None]
        np.exp(r, out=r)
        total = r.sum(1)
        if log_rest is not None:
            total += np.exp(log_rest - top)
        log_density = top + np.log(total)
        r *= (weight / total)[:, None]
        return r, log_density

    def run(
        self,
        sums: Array,
        n_iter: int,
        *,
        steady: bool = False,
        log_rest: Array | None = None,
    ) -> Scores:
        """Run EM from each candidate, for ``n_iter`` iterations or until none gains much."""
        before: Any = -np.inf
        for i in range(n_iter):
            moments = self.steadied if steady and i == 0 else self.moments
            with np.errstate(divide="ignore", invalid="ignore"):  # a candidate may collapse
                scores = self.e_step(self.theta(*moments(sums)), log_rest)
            sums = scores.sums
            if (np.abs(scores.objective - before) < SMALL_GAIN).all():
                break
            before = scores.objective
        return scores

    def race(self, sums: Array, plan: Sequence[tuple[int, int]]) -> Scores:
        """Run all candidates, then only the best: the plan lists (iterations, kept)."""
        for i, (n_iter, n_kept) in enumerate(plan):
            scores = self.run(sums, n_iter, steady=i == 0)
            scores = scores.take(scores.best(n_kept))
            sums = scores.sums
        return scores

    # -- parameters ---------------------------------------------------------------------

    def params(self, sums: Array, *, steady: bool = False) -> Params:
        """Return the parameters of one candidate (K, F), in the units of the data."""
        moments = (self.steadied if steady else self.moments)(sums[None])
        return self._in_units(*(value[0] for value in moments))

    def params_of_shares(self, shares: Array) -> Params:
        """Return steady parameters, given weighted responsibilities (K, n).

        Unlike ``sums_of``, this does not need the products of all rows.
        """
        counts = np.maximum(shares.sum(1), MIN_COUNT * self.weight.sum())
        averages = shares @ self.z / counts[:, None]
        averages = self._without_empty(shares.sum(1), averages)
        scatter = np.empty((*averages.shape, *averages.shape[1:] * self.model.layout.dense))
        for k, share in enumerate(shares):
            gaps = self.z - averages[k]
            if self.model.layout.dense:
                scatter[k] = (gaps * share[:, None]).T @ gaps
            else:
                scatter[k] = share @ gaps**2
        return self._in_units(*steadied(counts, averages, scatter, self._floor))

    def _in_units(self, counts: Array, averages: Array, scatter: Array) -> Params:
        units = self._outer_units if self.model.layout.dense else self.units**2
        averages = self.center + self.units * averages
        return params_of_moments(self.model, counts, averages, scatter * units)

    @property
    def _outer_units(self) -> Array:
        return np.outer(self.units, self.units)


def steadied(
    counts: Array, averages: Array, scatter: Array, floor: Array
) -> tuple[Array, Array, Array]:
    """Mix the scatter (..., K, D, D) or (..., K, D) with its average over the components.

    ``floor`` (D,) is added to the variances of the average.
    """
    total = counts.sum(-1, keepdims=True)[..., None]
    counts = np.maximum(counts, MIN_COUNT * total[..., 0])
    shape = (*counts.shape, *[1] * (scatter.ndim - counts.ndim))
    total = total.reshape(*counts.shape[:-1], *[1] * (scatter.ndim - counts.ndim + 1))
    within = scatter.sum(counts.ndim - 1, keepdims=True) / total
    within = within + (np.diag(floor) if scatter.ndim - counts.ndim == 2 else floor)
    some = STEADY * total / counts.shape[-1]
    own = counts.reshape(shape)
    return counts, averages, own / (own + some) * (scatter + some * within)


def params_of_moments(model: Mixture, counts: Array, averages: Array, scatter: Array) -> Params:
    """Return the mode, given the moments of each component."""
    if model.layout.covariance_type == "tied":
        scatter = scatter.sum(0, keepdims=True)
    return model.mode(counts, averages, scatter)


def weight_of_a_row(weight: Array) -> float:
    """Return the weight that counts as one row: a small one, but not that of an outlier."""
    if weight.min() == weight.max():  # a quantile takes as long as an iteration of EM
        return float(weight[0])
    return float(np.quantile(weight, 0.1))


def labels_from_rows(
    z: Array, weight: Array, layout: Layout, n_starts: int, rng: np.random.RandomState
) -> Indices:
    """Assign rows to the nearest of K rows chosen by k-means++, ``n_starts`` times: (S, n)."""
    K, n = layout.n_components, len(z)
    square = (z * z).sum(1)

    def distances(index: Indices) -> Array:
        gaps = square[index][:, None] - 2 * (z[index] @ z.T) + square
        return np.maximum(gaps, 0)

    labels = np.zeros((n_starts, n), dtype=int)
    nearest = distances(rng.choice(n, size=n_starts, p=weight / weight.sum()))
    for k in range(1, K):
        cumulated = np.cumsum(nearest * weight, axis=1)
        drawn = rng.uniform(size=n_starts) * cumulated[:, -1]
        pairs = zip(cumulated, drawn, strict=True)
        index = [np.searchsorted(row, u, side="right") for row, u in pairs]
        found = distances(np.minimum(index, n - 1))
        labels[found < (1 - MIN_COUNT) * nearest] = k  # rounding does not decide a tie
        nearest = np.minimum(nearest, found)
    return labels


def whitened(z: Array, weight: Array) -> Array:
    """Return the rows with unit covariance; correlated features then count once."""
    centered = z - weight @ z / weight.sum()
    values, vectors = np.linalg.eigh((weight[:, None] * centered).T @ centered / weight.sum())
    kept = values > MIN_SHARE**2 * max(values[-1], 1e-300)
    return centered @ (vectors[:, kept] / np.sqrt(values[kept]))
