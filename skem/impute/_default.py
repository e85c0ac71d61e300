"""The default model: a Gaussian mixture chosen by the likelihood of held-out rows.

benchmarks/defaults_impute.py compares what is chosen with other imputers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

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
# From this number of components, only the best prior so far is tried.
MANY_COMPONENTS = 8


def choose_mixture(rows: Rows) -> BayesianGMM_MAP:
    """Return the mixture with the highest likelihood of held-out rows, not fitted.

    The candidates differ in the number of components and in the strength of the prior, which
    shrinks covariances to a diagonal matrix: it counts as one row, or as one for each feature.
    The choice takes about as long as a fit.
    """
    rows = rows.positive()
    values, weight = rows.every(max(1, len(rows) // MAX_ROWS))
    values = np.asarray(values, float)
    splits = list(_splits(len(values)))
    needed = max(MIN_ROWS, MIN_ROWS_PER_FEATURE * values.shape[1])
    best, best_score, strengths = (1, 1), -np.inf, [1, values.shape[1]]
    for K in LADDER:
        if K > 1 and len(values) < K * needed:
            break
        if K >= MANY_COMPONENTS:
            strengths = [best[1]]
        candidates = [(K, strength) for strength in dict.fromkeys(strengths)]
        scores = [_held_out(values, weight, splits, *c) for c in candidates]
        i = int(np.argmax(scores))
        if not scores[i] > best_score:
            break
        best, best_score = candidates[i], scores[i]
    return _mixture(values, *best, max_iter=200)


def _splits(n_rows: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield rows to learn from and rows to score."""
    place = np.random.default_rng(0).permutation(n_rows) % TEST_SHARE
    for fold in range(N_FOLDS if n_rows < FEW_ROWS else 1):
        train, test = np.flatnonzero(place != fold), np.flatnonzero(place == fold)
        if len(train) > 1 and len(test):
            yield train, test


def _held_out(
    values: Array,
    weight: Array,
    splits: list[tuple[Indices, Indices]],
    n_components: int,
    strength: int,
) -> float:
    """Return the mean log-likelihood of held-out rows; -inf if the mixture cannot be fitted."""
    total = 0.0
    for train, test in splits:
        # features without a value among few rows are left out
        seen = ~np.isnan(values[train]).all(0)
        own = values[np.ix_(train, seen)]
        model = _mixture(own, n_components, strength, tol=1e-2, max_iter=50)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(own, sample_weight=weight[train])
                total += model.score(values[np.ix_(test, seen)], sample_weight=weight[test])
        except ValueError:
            return -np.inf
    return total


def _mixture(
    values: Array, n_components: int, strength: int, **options: Any
) -> BayesianGMM_MAP:
    """Return a mixture whose prior counts as ``strength`` rows without correlations."""
    from skem.mixture import BayesianGMM_MAP

    model = BayesianGMM_MAP(n_components, prior="empirical", random_state=0, **options)
    if strength == 1:  # that of the empirical prior
        return model
    D = values.shape[1]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of features without a value
        variances = np.nanvar(values, axis=0)
    positive = variances[(variances > 0) & np.isfinite(variances)]
    if not len(positive):
        return model
    variances = np.where(variances > 0, variances, positive.min())
    scale = strength * variances / n_components ** (2 / D)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return model
    return model.set_params(
        covariance_prior=np.diag(scale), degrees_of_freedom_prior=strength - (D + 2)
    )
