"""The default model: a Gaussian mixture chosen by the likelihood of held-out rows.

benchmarks/defaults_impute.py compares what is chosen with other imputers.
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

# The numbers of components to try, in order; the first that does not pay ends the search.
LADDER = (1, 3, 8, 20)
# Rows that each component needs: fewer, and the held-out likelihood of tables with 20 to 300
# rows prefers components that impute worse.
MIN_ROWS, MIN_ROWS_PER_FEATURE = 30, 2
MAX_ROWS = 2000  # rows to choose on
# Tables with fewer rows than this are split three times, larger ones once.
FEW_ROWS, N_FOLDS = 500, 3
TEST_SHARE = 5  # one row of five is held out
N_TURNS = 4  # a quarter of its cells is hidden at a time
# The squared error of more components, divided by that of one, that is still accepted.
MAX_LOSS = 1.0
# From this number of components, only the best prior so far is tried.
MANY_COMPONENTS = 8


def choose_mixture(rows: Rows) -> BayesianGMM_MAP:
    """Return the mixture that describes held-out rows best, not fitted.

    The candidates differ in the number of components and in the strength of the prior, which
    shrinks covariances to a diagonal matrix: it counts as one row, or as one for each feature.
    The highest log-likelihood wins, unless its error on hidden cells is above that of a single
    component: few rows for each component describe the density better than the mean. The
    choice takes one to four times as long as the fit of the chosen model, and more on tables of
    some hundred rows.
    """
    rows = rows.positive()
    values, weight = rows.every(max(1, len(rows) // MAX_ROWS))
    values = np.asarray(values, float)
    splits = list(_splits(values, weight))
    n_rows, n_features = values.shape
    needed = max(MIN_ROWS, MIN_ROWS_PER_FEATURE * n_features)
    best, top, limit, strengths = (1, 1), -np.inf, np.inf, [1, n_features]
    for K in LADDER:
        if K > 1 and n_rows < K * needed:
            break
        if K >= MANY_COMPONENTS:
            strengths = [best[1]]
        found = {(K, m): _held_out(values, splits, K, m) for m in strengths}
        pick = max(found, key=lambda c: found[c].log_lik)
        if K == 1:
            limit = MAX_LOSS * found[pick].error
        if not (found[pick].log_lik > top and found[pick].error <= limit):
            break
        best, top = pick, found[pick].log_lik
    return _mixture(values, *best, max_iter=200)


class Split(NamedTuple):
    """Rows to learn from, and rows to score, whose cells are hidden in turns."""

    train: Indices
    weight: Array
    test: Array
    test_weight: Array
    turn: Indices  # when each cell of the latter is hidden


class Score(NamedTuple):
    """How a mixture describes held-out rows."""

    log_lik: float  # nats per row
    error: float  # mean squared error on hidden cells, in variances of the features


def _splits(values: Array, weight: Array) -> Iterator[Split]:
    rng = np.random.default_rng(0)
    place = rng.permutation(len(values)) % TEST_SHARE
    for fold in range(N_FOLDS if len(values) < FEW_ROWS else 1):
        train, test = np.flatnonzero(place != fold), np.flatnonzero(place == fold)
        if len(train) > 1 and len(test):
            turn = rng.integers(N_TURNS, size=(len(test), values.shape[1]))
            yield Split(train, weight[train], values[test], weight[test], turn)


def _held_out(values: Array, splits: list[Split], n_components: int, strength: int) -> Score:
    """Return the scores of a mixture on held-out rows; the worst if it cannot be fitted."""
    log_lik = error = 0.0
    for split in splits:
        # features without a value among few rows are left out
        own = values[split.train]
        seen = ~np.isnan(own).all(0)
        own, test = own[:, seen], split.test[:, seen]
        model = _mixture(own, n_components, strength, tol=1e-2, max_iter=50)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(own, sample_weight=split.weight)
                log_lik += model.score(test, sample_weight=split.test_weight)
                error += _error(model, test, split.turn[:, seen], own, split.test_weight)
        except ValueError:
            return Score(-np.inf, np.inf)
    return Score(log_lik, error)


def _error(model: Any, test: Array, turn: Indices, own: Array, weight: Array) -> float:
    """Return the mean squared error on cells that are hidden in turns."""
    total = 0.0
    for i in range(N_TURNS):
        filled = model.impute(np.where(turn == i, np.nan, test))
        total += float(weight @ (np.nan_to_num((filled - test) ** 2) / _variances(own)).sum(1))
    return total / float(weight.sum())


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
