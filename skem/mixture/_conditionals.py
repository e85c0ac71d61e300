"""Conditional distributions: the mixture of the missing values of a row, given the others.

With the precision Lambda_k of component k, the missing features m and the observed ones o,

    Cov[x_m | x_o, k] = Lambda_k,mm^-1
    E[x_m | x_o, k] = mu_k,m - Lambda_k,mm^-1 Lambda_k,mo (x_o - mu_k,o)

Lambda = A^T A with the inverse Cholesky factor A. The decomposition A[:, m] = Q R gives both
without squaring a condition number: Lambda_mm^-1 = R^-1 R^-T, and the slope of the mean is
-R^-1 Q^T A[:, o].
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from skem._rows.parts import Rows, Weights
from skem._typing import AnyArray, Array, Indices, Mask
from skem.mixture._background import BackgroundMixture
from skem.mixture._missing import Groups, same_patterns, values_of
from skem.mixture._model import Mixture
from skem.mixture._params import Params


@dataclass(frozen=True)
class Conditional:
    """Gaussian mixtures of the missing features, one mixture for each row.

    Attributes
    ----------
    features : ndarray of shape (n_missing,)
        The indices of the missing features.
    weights : ndarray of shape (n_samples, n_components)
        The weights of the components given the observed values.
    means : ndarray of shape (n_samples, n_components, n_missing)
        The means of the missing features given the observed values and the component.
    covariances : ndarray of shape (n_components, n_missing, n_missing)
        The covariances of the missing features given the observed values and the component.
        They do not depend on the observed values.
    """

    features: Indices
    weights: Array
    means: Array
    covariances: Array


@dataclass(frozen=True)
class Regression:
    """How the missing features follow from the observed ones in G groups of components."""

    params: Params
    missing: Mask  # (D,)
    slopes: Array  # (G, m, o)
    roots: Array  # (G, m, m), the conditional covariance is root @ root.T

    @classmethod
    def of(cls, params: Params, missing: Mask) -> "Regression":
        factors = params.factors
        if factors.ndim == 2:
            G, m = len(factors), int(missing.sum())
            roots = np.eye(m) / factors[:, missing, None]
            return cls(params, missing, np.zeros((G, m, len(missing) - m)), roots)
        q, r = np.linalg.qr(factors[:, :, missing])
        roots = np.linalg.inv(r)
        slopes = -roots @ (q.transpose(0, 2, 1) @ factors[:, :, ~missing])
        return cls(params, missing, slopes, roots)

    def group(self, k: int) -> int:
        return k if len(self.roots) > 1 else 0

    def means(self, X: Array, k: int) -> Array:
        """Return E[x_m | x_o, k] of the rows X (n, D), (n, m)."""
        mean, missing = self.params.means[k], self.missing
        gaps = X[:, ~missing] - mean[~missing]
        found: Array = mean[missing] + gaps @ self.slopes[self.group(k)].T
        return found

    def covariances_of_all(self) -> Array:
        """Return the conditional covariances of all components, (K, m, m)."""
        K, shape = len(self.params.means), self.roots.shape[1:]
        return np.broadcast_to(self.roots @ self.roots.transpose(0, 2, 1), (K, *shape)).copy()

    def all_means(self, X: Array) -> Array:
        """Return E[x_m | x_o, k] for all k, (n, K, m)."""
        return np.stack([self.means(X, k) for k in range(len(self.params.means))], axis=1)


def _regressions(params: Params, X: Array) -> Iterator[tuple[Indices, Regression]]:
    """Yield the rows with the same missing features, and their regression."""
    missing = np.isnan(X)
    for place in same_patterns(missing):
        if missing[place[0]].any():
            yield place, Regression.of(params, missing[place[0]])


def _posterior(model: Mixture, params: Params, groups: Groups) -> Array:
    found: Array = softmax(model.log_joint(params, groups), axis=1)
    return found


@np.errstate(over="ignore", invalid="ignore")
def deviations(model: Mixture, params: Params, groups: Groups) -> Array:
    """Return the conditional standard deviations (n, D); 0 for observed values."""
    posterior = _posterior(model, params, groups)
    X = values_of(groups, len(posterior), model.layout.n_features)
    out = np.zeros_like(X)
    for place, regression in _regressions(params, X):
        p = posterior[place][:, :, None]
        means, m = regression.all_means(X[place]), regression.missing
        variances = np.broadcast_to((regression.roots**2).sum(2), means.shape)
        if isinstance(model, BackgroundMixture):
            density, own = model.density, X[place]
            means = np.append(means, density.filled(own)[:, None, m], axis=1)
            variances = np.append(variances, density.variances(own)[:, None, m], axis=1)
        # the mean of a row far away may overflow, but only one component then counts
        means = np.where(p > 0, means, 0)
        gaps = means - (p * means).sum(1, keepdims=True)
        between = (p * np.where((p > 0) & (p < 1), gaps, 0) ** 2).sum(1)
        within = (p * variances).sum(1)
        out[np.ix_(place, regression.missing)] = np.sqrt(within + between)
    return out


@dataclass(frozen=True)
class Gaps:
    """In how many rows each feature is missing."""

    n_rows: int
    counts: Array

    def __add__(self, other: "Gaps") -> "Gaps":
        return Gaps(self.n_rows + other.n_rows, self.counts + other.counts)


def _gaps_of(X: AnyArray, weight: Weights) -> Gaps:
    return Gaps(len(X), np.isnan(np.asarray(X, float)).sum(0))


def common_gaps(rows: Rows) -> Mask:
    """Return which features are missing in all rows; refuse other gaps, and none."""
    seen = rows.fold(_gaps_of)
    missing: Mask = seen.counts == seen.n_rows
    if not missing.any() or seen.counts[~missing].any():
        raise ValueError(
            "condition needs rows of X that all miss the same features, at least one: mark "
            "them with NaN, and call it once for each set of missing features."
        )
    return missing


@np.errstate(over="ignore", invalid="ignore")
def draw(
    model: Mixture, params: Params, X: Array, n_draws: int, rng: np.random.RandomState
) -> Array:
    """Return the rows with missing values drawn given the observed ones, (n_draws, n, D)."""
    groups = model.rows(X, float)
    edges = _posterior(model, params, groups).cumsum(1)
    uniform = rng.random_sample((n_draws, len(X), 1)) * edges[:, -1:]
    components = (uniform > edges).sum(2)
    noise = rng.standard_normal((n_draws, *X.shape))
    out = np.tile(X, (n_draws, 1, 1))
    if isinstance(model, BackgroundMixture):
        outlying = (components == len(params.means))[:, :, None]
        if outlying.any():
            out = np.where(outlying, model.density.completed(X, n_draws, rng), out)
    for place, regression in _regressions(params, X):
        features, own = np.flatnonzero(regression.missing), components[:, place]
        for k in range(len(params.means)):
            draws, rows = np.nonzero(own == k)
            index = draws[:, None], place[rows][:, None], features
            root = regression.roots[regression.group(k)]
            out[index] = regression.means(X[place[rows]], k) + noise[index] @ root.T
    if not np.isfinite(out).all():  # rows so far away that their values overflow
        out = np.where(np.isfinite(out), out, model.impute(params, groups))
    return out
