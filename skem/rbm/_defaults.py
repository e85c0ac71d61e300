"""What the defaults of the machine are, given what is known before a fit.

The constants were chosen on binary and gray tables and images of 100 to 60,000 rows and 4 to
784 features. ``benchmarks/defaults.py`` compares the result with scikit-learn's settings.
"""

from typing import NamedTuple

import numpy as np

from skem._rows.parts import LocalRows
from skem._typing import Array
from skem.rbm._rows import dense

MIN_BATCH, MAX_BATCH, N_BATCHES = 10, 100, 600  # N_BATCHES minibatches in a pass, if possible
# Small data can bear fewer updates before the machine learns single rows: their number is
# UPDATES_PER_ROOT times the root of the number of rows, up to MAX_UPDATES, and at least
# MIN_PASSES passes.
UPDATES_PER_ROOT, MAX_UPDATES, MIN_PASSES = 100, 6000, 10
# The step size is STEP / (variance of a row * root of the number of hidden units), at most
# MAX_STEP: the gradient grows with both.
STEP, MAX_STEP = 120.0, 0.4
# Limits of the starting weights, and of the standard deviation of the inputs to hidden units.
MAX_WEIGHT, TOTAL_WEIGHT, MAX_INPUT = 0.25, 4.0, 0.5
# The excess of the rows is defined in ``dependence``. Below MIN_EXCESS there is nothing that a
# machine can learn, and a step of RESTING_STEP hardly changes the starting weights, which cost
# little. They may cost START_COST nats, and EXCESS_COST more for each unit of excess.
MIN_EXCESS, RESTING_STEP = 0.5, 0.01
START_COST, EXCESS_COST = 0.03, 0.3
SAMPLE_ROWS, SAMPLE_FEATURES = 1000, 500  # rows and features that are looked at


class Plan(NamedTuple):
    """The start of training."""

    step: float  # the initial step size
    scale: float  # standard deviation of the starting weights


def batch_size(n_rows: int) -> int:
    """Return the number of rows in a minibatch."""
    return min(MAX_BATCH, max(MIN_BATCH, n_rows // N_BATCHES))


def n_passes(n_rows: int, size: int) -> int:
    """Return the number of passes over the rows."""
    n_updates = min(MAX_UPDATES, UPDATES_PER_ROOT * n_rows**0.5)
    return max(MIN_PASSES, -int(-n_updates // -(-n_rows // size)))


def step_size(mean: Array, n_hidden: int) -> float:
    """Return the initial step size for units with these means."""
    variance = float((mean * (1 - mean)).sum())
    return min(MAX_STEP, STEP / (max(variance, 1e-3) * n_hidden**0.5))


def plan(mean: Array, n_hidden: int, rows: LocalRows | None = None) -> Plan:
    """Return the step size and the starting weights; ``rows`` are those of a whole fit."""
    variance = float((mean * (1 - mean)).sum())
    scale = min(
        MAX_WEIGHT, TOTAL_WEIGHT / n_hidden**0.5, MAX_INPUT / max(variance, 1e-3) ** 0.5
    )
    step = step_size(mean, n_hidden)
    if rows is None:
        return Plan(step, scale)
    excess, gap = dependence(rows)
    # A hidden unit with small weights w adds (w'(v - mean))^2 / 8 to log p*(v). The squares are
    # larger in states of the machine than in gray rows, by ``gap`` in all.
    cost = START_COST + EXCESS_COST * max(excess, 0)
    cheap = (8 * cost / (n_hidden * max(gap, 1e-6))) ** 0.5
    step = step if excess >= MIN_EXCESS else min(step, RESTING_STEP)
    return Plan(step, min(scale, cheap))


def dependence(rows: LocalRows) -> tuple[float, float]:
    """Return how much the rows have to learn, and what they lack in variance.

    The first number is the largest eigenvalue of the covariance of the features, minus the
    variances m (1 - m) of binary units with the same means m, relative to the mean of these.
    Weights of 0 are a maximum of the likelihood if it is negative. The second is the sum over
    the features of m (1 - m) minus their variance, which is 0 for binary rows.
    """
    X, _ = rows.every(max(1, len(rows) // SAMPLE_ROWS))
    X = dense(X, float)
    gap_factor = X.shape[1]
    X = X[:, :: max(1, X.shape[1] // SAMPLE_FEATURES)]
    gap_factor /= X.shape[1]
    seen = (~np.isnan(X)).astype(float)
    counts = np.maximum(seen.sum(0), 1)
    X = np.nan_to_num(X)
    mean = X.sum(0) / counts
    X -= mean * seen
    pairs = np.maximum(seen.T @ seen, 1)
    covariance = X.T @ X / pairs
    binary = mean * (1 - mean)
    gap = float(np.maximum(binary - covariance.diagonal(), 0).sum()) * gap_factor
    largest = np.linalg.eigvalsh(covariance - np.diag(binary))[-1]
    return float(largest / max(binary.mean(), 1e-12)), gap
