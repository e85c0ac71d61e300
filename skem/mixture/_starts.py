"""Where EM for the mixture starts: from clusters of a sample of the rows.

Every start gives each component the mean and the covariance of the rows assigned to it,
steadied by a share of the covariance within all clusters, so that no component starts
from a single row.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed

from skem._base.passes import Passes
from skem._loop import em
from skem.mixture._covariances import Array, Layout
from skem.mixture._model import Mixture, Params

# A cluster that is only rounding wide takes this share of the data's standard deviation.
MIN_SHARE = 1e-3
# The share of the rows that a cluster without rows counts for, and the share of an average
# cluster that the covariance within all clusters does.
MIN_COUNT, STEADY = 1e-6, 0.05
DECIMALS = 9  # of objectives, in nats per row, that tell starts apart

logger = logging.getLogger("skem")


@dataclass(frozen=True)
class Given:
    """Starting values that the user gave; None where there are none."""

    weights: Array | None = None
    means: Array | None = None
    covariances: Array | None = None  # (G, B, d, d)

    @property
    def is_complete(self) -> bool:
        return all(v is not None for v in (self.weights, self.means, self.covariances))

    def params(self, layout: Layout) -> Params:
        """The start, if it is complete."""
        values: Any = (self.weights, self.means, self.covariances)
        return Params(layout, *values)


@dataclass(frozen=True)
class Trial:
    """A start, and where EM on the sample led from it."""

    objective: float
    start: Params
    end: Params


def start(
    model: Mixture,
    X: Array,
    weight: Array,
    init: str,
    given: Given,
    seed: int | np.random.RandomState,
) -> Params:
    """The parameters of a start; NaN in X is filled with the mean of its cluster."""
    K = model.layout.n_components
    rng = check_random_state(seed)
    missing = np.isnan(X)
    X = _filled(X, weight, np.ones((len(X), 1)), missing)
    if init == "random":
        shares = rng.uniform(size=(len(X), K))
        shares /= shares.sum(1, keepdims=True)
    else:
        shares = np.eye(K)[_labels(model, X, weight, init, given.means, rng)]
    X = _filled(X, weight, shares, missing)
    counts, averages, scatter = _moments(model, X, weight, shares, missing)
    empty = counts <= MIN_COUNT * weight.sum()
    if empty.any():  # they start from rows, as wide as clusters are on average
        averages[empty] = X[rng.randint(len(X), size=empty.sum())]
        least = MIN_COUNT * weight.sum()
        if model.layout.covariance_type != "tied":
            within = scatter[~empty].sum(0) / counts[~empty].sum()
            scatter[empty] = least * within
        counts = np.maximum(counts, least)
    params = model.mode(counts, averages, scatter)
    changes = {name: value for name, value in vars(given).items() if value is not None}
    return replace(params, **changes)


def _labels(
    model: Mixture,
    X: Array,
    weight: Array,
    init: str,
    means: Array | None,
    rng: np.random.RandomState,
) -> NDArray[np.intp]:
    """The cluster of each row."""
    K = model.layout.n_components
    if means is not None:
        return _nearest(X, means)
    if len(X) <= K:
        return np.arange(len(X))
    if init == "kmeans":
        kmeans = KMeans(K, n_init=1, random_state=rng)
        equal = (weight == weight[0]).all()
        return kmeans.fit(X, sample_weight=None if equal else weight).labels_
    if init == "k-means++":
        centres, _ = kmeans_plusplus(X, K, sample_weight=weight, random_state=rng)
        return _nearest(X, centres)
    drawn = rng.choice(len(X), size=K, replace=False, p=weight / weight.sum())
    return _nearest(X, X[drawn])


def _nearest(X: Array, centres: Array) -> NDArray[np.intp]:
    return cdist(X, centres).argmin(1)


def _filled(X: Array, weight: Array, shares: Array, missing: NDArray[np.bool_]) -> Array:
    """X with missing values replaced by what their clusters have on average."""
    if not missing.any():
        return X
    known = np.where(missing, 0, X)
    shares_w = shares * weight[:, None]
    total = shares_w.T @ ~missing
    averages = np.divide(shares_w.T @ known, total, out=np.zeros_like(total), where=total > 0)
    return np.where(missing, shares @ averages, X)


def _moments(
    model: Mixture, X: Array, weight: Array, shares: Array, missing: NDArray[np.bool_]
) -> tuple[Array, Array, Array]:
    """Counts, averages and steadied scatter of the clusters."""
    D, dense = X.shape[1], model.layout.dense
    shares = shares * weight[:, None]
    counts = shares.sum(0)
    centre = weight @ X / weight.sum()
    X = X - centre
    averages = shares.T @ X / np.maximum(counts, np.finfo(float).tiny)[:, None]
    scatter = np.empty((len(counts), D, D) if dense else (len(counts), D))
    for k, average in enumerate(averages):
        gaps = X - average
        scaled = shares[:, k, None] * gaps
        scatter[k] = scaled.T @ gaps if dense else (scaled * gaps).sum(0)
    within = scatter.sum(0) / weight.sum()
    floor = (MIN_SHARE * model.scale) ** 2 + weight @ missing / weight.sum() * model.scale**2
    within = within + (np.diag(floor) if dense else floor)
    some, shape = STEADY * weight.sum() / len(counts), (-1, *[1] * within.ndim)
    mixed = (counts / (counts + some)).reshape(shape) * (scatter + some * within)
    if model.layout.covariance_type == "tied":
        mixed = mixed.sum(0, keepdims=True)
    return counts, averages + centre, mixed


def search(
    model: Mixture,
    X: Array,
    weight: Array,
    new_start: Callable[[Any], Params],
    seeds: list[Any],
    *,
    n_jobs: int | None,
    **options: Any,
) -> list[Trial]:
    """EM on these rows from a start for each seed, the best first; none that collapses."""
    parallel = Parallel(n_jobs=n_jobs, prefer="threads")
    trials = parallel(
        delayed(run_start)(model, X, weight, new_start, seed, options) for seed in seeds
    )
    # starts that lead to the same mode differ by rounding, and then the first wins
    kept = sorted((t for t in trials if t), key=lambda trial: -round(trial.objective, DECIMALS))
    logger.debug("starts: %s nats per row", [trial.objective for trial in kept])
    return kept


def run_start(
    model: Mixture,
    X: Array,
    weight: Array,
    new_start: Callable[[Any], Params],
    seed: Any,
    options: dict[str, Any],
) -> Trial | None:
    """EM from one start; None if it collapses."""
    try:
        params = new_start(seed)
        run = em(model, Passes(model, X, weight).total, params, **options)
    except FloatingPointError:
        return None
    if run.interrupted:
        raise KeyboardInterrupt
    return Trial(run.objectives[-1], params, run.state[0])
