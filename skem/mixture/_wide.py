"""Starts for many features, where dense covariances are too slow for a race.

Candidates race under diagonal covariances, whose iterations cost D times less. They race in
standardized and in whitened units, because neither suits all data. The winners and the first
candidate then run a few iterations of EM in the true model, and the best one is the start.
"""

from collections.abc import Sequence

import numpy as np

from skem._typing import Array
from skem.mixture._candidates import Batch, labels_from_rows, whitened
from skem.mixture._covariances import Layout
from skem.mixture._model import Mixture
from skem.mixture._params import Prior

MIN_FEATURES = 12  # below this, a short race under dense covariances finds better starts
RACE_ROWS, RACE_ROWS_PER_COMPONENT = 500, 200  # rows of a race
N_ITER = 2  # iterations of EM in the true model, before candidates are compared


def winners(
    batch: Batch, stages: Sequence[tuple[int, int]], n_draws: int, rng: np.random.RandomState
) -> list[Array]:
    """Return the weighted responsibilities (K, n) of the best candidate in each unit."""
    return [
        _winner(batch, z, stages, n_draws, rng)
        for z in (batch.z, whitened(batch.z, batch.weight))
    ]


def _winner(
    batch: Batch,
    z: Array,
    stages: Sequence[tuple[int, int]],
    n_draws: int,
    rng: np.random.RandomState,
) -> Array:
    n, n_rows = len(z), RACE_ROWS_PER_COMPONENT * batch.model.layout.n_components
    few = np.linspace(0, n - 1, min(n, max(RACE_ROWS, n_rows))).astype(int)
    weight, model = batch.weight[few], diagonal(batch.model, z.shape[1])
    racing = Batch(model, z[few], weight, np.zeros((len(few), z.shape[1]), bool))
    labels = labels_from_rows(racing.z, weight, model.layout, n_draws, rng)
    sums = racing.race(racing.sums_of_labels(labels), stages).sums
    theta = racing.theta(*racing.moments(sums))
    return racing.shares(theta, racing.features(z - racing.center), batch.weight)[0]


def diagonal(model: Mixture, n_features: int) -> Mixture:
    """Return the model of rows with unit variances, with diagonal covariances."""
    old, prior = model.layout, model.prior
    layout = Layout("diag", old.n_components, n_features)
    extra = prior.degrees_of_freedom - old.flat_degrees_of_freedom
    varies = model.scale > 0
    variances = np.einsum("bdd->bd", prior.covariance[0])[0, varies] / model.scale[varies] ** 2
    covariance = np.full(n_features, variances.mean() if varies.any() else 0.0)
    return Mixture(
        layout,
        Prior(
            prior.concentration,
            prior.mean_precision,
            np.zeros(n_features),
            layout.flat_degrees_of_freedom + extra,
            layout.to_blocks(covariance),
        ),
        np.ones(n_features),
    )
