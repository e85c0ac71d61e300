"""The default model: a Gaussian mixture chosen by the likelihood of held-out rows.

benchmarks/defaults.py compares what is chosen with other imputers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skem._rows.parts import Rows
from skem._typing import Array, Indices

if TYPE_CHECKING:
    from skem.mixture import BayesianGMM_MAP

# The numbers of components to try after one; the first that does not pay ends the search.
LADDER = (3, 8, 20)
# Rows that each component needs: fewer, and the held-out likelihood of tables with 20 to 300
# rows prefers components that impute worse.
MIN_ROWS, MIN_ROWS_PER_FEATURE = 30, 2
MAX_ROWS = 2000  # rows to choose on
# Tables with fewer rows than this are split three times, larger ones once.
FEW_ROWS, N_FOLDS = 500, 3
TEST_SHARE = 5  # one row of five is held out
N_TURNS = 4  # a quarter of its cells is hidden at a time


def choose_mixture(rows: Rows) -> BayesianGMM_MAP:
    """Return the mixture that describes held-out rows best, not fitted.

    The prior shrinks covariances to a diagonal matrix. Whether it counts as one row, or as one
    for each feature, is decided with one component. More components are then tried as long
    as they raise the log-likelihood and do not raise the error on hidden cells: few rows for
    each component describe the density better than the mean. The choice takes one to five times
    as long as the fit of the chosen model. If that has one component, whose fit takes
    milliseconds, it takes up to thirty times as long, because three components are tried too.
    """
    rows = rows.positive()
    values, weight = rows.every(max(1, len(rows) // MAX_ROWS))
    values = np.asarray(values, float)
    splits = list(_splits(values, weight))
    n_rows, n_features = values.shape
    needed = max(MIN_ROWS, MIN_ROWS_PER_FEATURE * n_features)
    # the stronger prior takes fewer iterations, and the weaker one may then end early
    best = _tried(values, splits, 1, n_features, [])
    if n_features > 1:
        best = _tried(values, splits, 1, 1, best.log_liks if best else []) or best
    if best is None:
        return _mixture(values, 1, 1, max_iter=200)
    limit = np.inf
    for K in LADDER:
        if n_rows < K * needed:
            break
        trial = _tried(values, splits, K, best.strength, best.log_liks)
        if trial is None:
            break
        if best.n_components == 1:
            limit = _error(best, values, splits)
        if _error(trial, values, splits) > limit:
            break
        best = trial
    return _mixture(values, best.n_components, best.strength, max_iter=200)


class Split(NamedTuple):
    """Rows to learn from, and rows to score, whose cells are hidden in turns."""

    train: Indices
    weight: Array
    test: Array
    test_weight: Array
    turn: Indices  # when each cell of the latter is hidden


class Trial(NamedTuple):
    """Mixtures of one kind, fitted to each split."""

    n_components: int
    strength: int
    models: list[Any]
    log_liks: list[float]  # of held-out rows, in nats per row

    def total(self) -> float:
        return sum(self.log_liks)


def _splits(values: Array, weight: Array) -> Iterator[Split]:
    rng = np.random.default_rng(0)
    place = rng.permutation(len(values)) % TEST_SHARE
    for fold in range(N_FOLDS if len(values) < FEW_ROWS else 1):
        train, test = np.flatnonzero(place != fold), np.flatnonzero(place == fold)
        if len(train) > 1 and len(test):
            turn = rng.integers(N_TURNS, size=(len(test), values.shape[1]))
            yield Split(train, weight[train], values[test], weight[test], turn)


def _tried(
    values: Array, splits: list[Split], n_components: int, strength: int, best: list[float]
) -> Trial | None:
    """Return fitted mixtures; None if they cannot be fitted, or once others are better.

    ``best`` holds the log-likelihoods of these others.
    """
    trial = Trial(n_components, strength, [], [])
    for split in splits:
        own, test = _seen(values, split)
        if not own.shape[1]:
            return None
        model = _mixture(own, n_components, strength, tol=1e-2, max_iter=50)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(own, sample_weight=split.weight)
                log_lik = model.score(test, sample_weight=split.test_weight)
        except ValueError:
            return None
        trial.models.append(model)
        trial.log_liks.append(log_lik)
        if best and trial.total() <= sum(best[: len(trial.models)]):
            return None
    return trial


def _seen(values: Array, split: Split) -> tuple[Array, Array]:
    """Return the rows of a split without features that have no value among the first."""
    seen = ~np.isnan(values[split.train]).all(0)
    return values[split.train][:, seen], split.test[:, seen]


def _error(trial: Trial, values: Array, splits: list[Split]) -> float:
    """Return the mean squared error on cells that are hidden in turns.

    Its unit is the variance of a feature.
    """
    total = 0.0
    for model, split in zip(trial.models, splits, strict=True):
        own, test = _seen(values, split)
        turn = split.turn[:, : test.shape[1]]
        hidden = [np.where(turn == i, np.nan, test) for i in range(N_TURNS)]
        filled = model.impute(np.concatenate(hidden)).reshape(N_TURNS, *test.shape)
        errors = np.nan_to_num((filled - test) ** 2).sum(0) / _variances(own)
        total += float(split.test_weight @ errors.sum(1)) / float(split.test_weight.sum())
    return total


def _variances(values: Array) -> Array:
    """Return the variances of the features, or the smallest one for constant features."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of features without a value
        variances = np.nanvar(values, axis=0)
    positive = variances[variances > 0]
    found: Array = np.where(variances > 0, variances, positive.min() if len(positive) else 1)
    return found


def _mixture(
    values: Array, n_components: int, strength: int, **options: Any
) -> BayesianGMM_MAP:
    """Return a mixture whose prior counts as ``strength`` rows without correlations."""
    from skem.mixture import BayesianGMM_MAP

    model = BayesianGMM_MAP(n_components, prior="empirical", random_state=0, **options)
    if strength == 1:  # that of the empirical prior
        return model
    D = values.shape[1]
    scale = strength * _variances(values) / n_components ** (2 / D)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return model
    return model.set_params(
        covariance_prior=np.diag(scale), degrees_of_freedom_prior=strength - (D + 2)
    )
