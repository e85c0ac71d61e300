"""Starts of EM for the mixture: clusters of a sample of the rows.

Every start gives each component the mean and the covariance of the rows assigned to it. Its
covariance is mixed with a share of the average covariance within clusters, so that clusters
of few rows have a usable covariance.
"""

import logging
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed

from skem._base.passes import Passes
from skem._loop import DivergenceError, Run, em
from skem._rows.parts import InMemory, Rows
from skem._rows.sampling import representative_rows, rows_unlike
from skem._typing import Array, Indices, Mask
from skem.mixture._covariances import Layout
from skem.mixture._model import CollapseError, Mixture, Params
from skem.mixture._prior import check_covariances

# Minimum number of rows in the sample, in total and per component.
SAMPLE_ROWS, SAMPLE_ROWS_PER_COMPONENT = 5000, 50
# Largest number of rows added to the sample for a feature that is constant or missing in it.
MAX_EXTRA_ROWS = 50
# Number of replacement starts after collapses, before the fit gives up.
MAX_TRIES = 10
# The standard deviation within clusters, divided by the one of the data, is at least this.
MIN_SHARE = 1e-3
# An empty cluster counts as the share MIN_COUNT of the rows. The average covariance within
# clusters gets the weight of the share STEADY of an average cluster.
MIN_COUNT, STEADY = 1e-6, 0.05
DECIMALS = 9  # objectives that agree to this precision, in nats per row, are equal

logger = logging.getLogger("skem")


@dataclass(frozen=True)
class Given:
    """Starting values that the user gave; None for the others."""

    weights: Array | None = None
    means: Array | None = None
    covariances: Array | None = None  # (G, B, d, d)

    @property
    def is_complete(self) -> bool:
        return all(v is not None for v in (self.weights, self.means, self.covariances))

    @classmethod
    def all_of(cls, params: Params) -> "Given":
        """Return given values for all parameters, to continue a fit."""
        return cls(params.weights, params.means, params.covariances)

    def params(self, layout: Layout) -> Params:
        """Return the start as parameters; all values must be given."""
        values: Any = (self.weights, self.means, self.covariances)
        return Params(layout, *values)


def given_of(layout: Layout, weights: Any, means: Any, precisions: Any) -> Given:
    """Check and return the starting values of the user; None stays None."""
    K, D = layout.n_components, layout.n_features
    if weights is not None:
        weights = _checked("weights_init", weights, (K,))
        if (weights < 0).any() or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(
                "weights_init must be at least 0 and sum to 1, but its sum is "
                f"{weights.sum()} and its smallest value is {weights.min()}."
            )
    if means is not None:
        means = _checked("means_init", means, (K, D))
    if precisions is None:
        return Given(weights, means)
    blocks = layout.to_blocks(_checked("precisions_init", precisions, layout.public_shape))
    return Given(weights, means, np.linalg.inv(check_covariances("precisions_init", blocks)))


def _checked(name: str, values: Any, shape: tuple[int, ...]) -> Array:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers in the shape {shape}: {error}") from error
    if array.shape != shape:
        raise ValueError(
            f"{name} must hold numbers in the shape {shape}, but its shape is {array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers, but it has NaN or infinity.")
    return array


@dataclass(frozen=True)
class Trial:
    """A start, and the result of EM on the sample from it."""

    objective: float
    start: Params
    end: Params


@dataclass(frozen=True)
class Sample:
    """Rows on which starts are compared."""

    rows: InMemory
    is_whole: bool  # whether the sample contains all rows


def sample_of(rows: Rows, n_components: int, rng: np.random.RandomState) -> Sample:
    """Draw the sample on which starts are computed."""
    size = max(SAMPLE_ROWS, SAMPLE_ROWS_PER_COMPONENT * n_components)
    sample = representative_rows(rows, size, rng)
    if rows.n_positive <= size:
        return Sample(sample, True)
    return Sample(_varied(rows, sample), False)


def _varied(rows: Rows, sample: InMemory) -> InMemory:
    """Return the sample with additional rows in which its constant features vary."""
    values, weight = sample.values, np.asarray(sample.weight)
    constant = np.flatnonzero(~(np.fmax.reduce(values) > np.fmin.reduce(values)))
    for j in constant.tolist():
        more = rows_unlike(rows, j, values[0, j], MAX_EXTRA_ROWS)
        values = np.concatenate([values, more.values])
        weight = np.concatenate([weight, np.asarray(more.weight)])
    return InMemory(values, weight)


def starts_of(
    model: Mixture,
    sample: Sample,
    given: Given,
    rng: np.random.RandomState,
    *,
    init: str,
    n_init: int,
    n_jobs: int | None,
    **options: Any,
) -> Iterator[Params]:
    """Yield starts in the order in which EM tries them.

    First comes the given start, or the starts found on the sample, best first. Replacements
    follow. EM uses the next start only if it collapses from the one before.
    """
    new_start = partial(start, model, sample.rows, init)
    if given.is_complete:
        yield given.params(model.layout)
    elif n_init > 1 or not sample.is_whole:
        first = deepcopy(rng)  # the first start is the same as with n_init=1
        seeds = [first, *rng.randint(2**31 - 1, size=n_init - 1).tolist()]
        of_seed = partial(new_start, given)
        for trial in search(model, sample.rows, of_seed, seeds, n_jobs=n_jobs, **options):
            yield trial.start if sample.is_whole else trial.end
    else:
        yield new_start(given, rng)
    for seed in rng.randint(2**31 - 1, size=MAX_TRIES).tolist():
        yield new_start(Given(), seed)


def first_to_hold(
    starts: Iterator[Params], run_em: Callable[[Params], Run]
) -> tuple[Run | None, Run | None]:
    """Return the run from the first start that does not collapse.

    If all starts collapse, return None and the run up to the first collapse.
    """
    before: Run | None = None
    try:
        for params in starts:
            try:
                return run_em(params), None
            except DivergenceError as failure:
                if before is None or not before.objectives:
                    before = failure.run
    except CollapseError:
        pass  # this start itself is degenerate, and so are all others
    return None, before


def start(
    model: Mixture,
    sample: InMemory,
    init: str,
    given: Given,
    seed: int | np.random.RandomState,
) -> Params:
    """Return the parameters of a start; NaN is replaced by the mean of the cluster."""
    X, weight = sample.values, np.asarray(sample.weight)
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
    if empty.any():  # empty clusters start at random rows, with the average covariance
        averages[empty] = X[rng.randint(len(X), size=empty.sum())]
        minimum = MIN_COUNT * weight.sum()
        if model.layout.covariance_type != "tied":
            within = scatter[~empty].sum(0) / counts[~empty].sum()
            scatter[empty] = minimum * within
        counts = np.maximum(counts, minimum)
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
) -> Indices:
    """Assign each row to a cluster."""
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
        centers, _ = kmeans_plusplus(X, K, sample_weight=weight, random_state=rng)
        return _nearest(X, centers)
    drawn = rng.choice(len(X), size=K, replace=False, p=weight / weight.sum())
    return _nearest(X, X[drawn])


def _nearest(X: Array, centers: Array) -> Indices:
    return cdist(X, centers).argmin(1)


def _filled(X: Array, weight: Array, shares: Array, missing: Mask) -> Array:
    """Return X with missing values replaced by the averages of their clusters."""
    if not missing.any():
        return X
    known = np.where(missing, 0, X)
    shares_w = shares * weight[:, None]
    total = shares_w.T @ ~missing
    averages = np.divide(shares_w.T @ known, total, out=np.zeros_like(total), where=total > 0)
    return np.where(missing, shares @ averages, X)


def _moments(
    model: Mixture, X: Array, weight: Array, shares: Array, missing: Mask
) -> tuple[Array, Array, Array]:
    """Return the counts, averages and regularized scatter of the clusters."""
    D, dense = X.shape[1], model.layout.dense
    shares = shares * weight[:, None]
    counts = shares.sum(0)
    center = weight @ X / weight.sum()
    X = X - center
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
    return counts, averages + center, mixed


def search(
    model: Mixture,
    sample: InMemory,
    new_start: Callable[[Any], Params],
    seeds: list[Any],
    *,
    n_jobs: int | None,
    **options: Any,
) -> list[Trial]:
    """Run EM on the sample from one start per seed; return the trials, best first.

    Starts that collapse are omitted.
    """
    parallel = Parallel(n_jobs=n_jobs, prefer="threads")
    trials = parallel(
        delayed(run_start)(model, sample, new_start, seed, options) for seed in seeds
    )
    # starts that reach the same mode differ by rounding only: the first of them wins
    kept = sorted((t for t in trials if t), key=lambda trial: -round(trial.objective, DECIMALS))
    logger.debug("starts: %s nats per row", [trial.objective for trial in kept])
    return kept


def run_start(
    model: Mixture,
    sample: InMemory,
    new_start: Callable[[Any], Params],
    seed: Any,
    options: dict[str, Any],
) -> Trial | None:
    """Run EM from one start; return None if it collapses."""
    try:
        params = new_start(seed)
        run = em(model, Passes(model, sample).total, params, **options)
    except FloatingPointError:
        return None
    if run.interrupted:
        raise KeyboardInterrupt
    return Trial(run.objectives[-1], params, run.state[0])
