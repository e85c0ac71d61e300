"""What the defaults of the RBM are, given what is known before a fit.

The constants were chosen on binary and gray tables and images of 100 to 60,000 rows and 4 to
784 features. ``benchmarks/defaults.py`` compares the result with scikit-learn's settings.
"""

from typing import NamedTuple

import numpy as np

from skem._rows.parts import LocalRows
from skem._typing import Array
from skem.rbm._rows import dense

MIN_BATCH, MAX_BATCH, N_BATCHES = 10, 100, 600  # N_BATCHES minibatches in a pass, if possible
# Small data can bear fewer updates before the RBM learns single rows: their number is
# UPDATES_PER_ROOT times the root of the number of rows, up to MAX_UPDATES, and at least
# MIN_PASSES passes.
UPDATES_PER_ROOT, MAX_UPDATES, MIN_PASSES = 100, 6000, 10
# The step size is STEP / (variance of a row * root of the number of hidden units), at most
# MAX_STEP: the gradient grows with both.
STEP, MAX_STEP = 120.0, 0.4
# With the default number of passes, the step size times the number of updates is at most
# PACE * number of rows / variance of a row, or MIN_PACE: wide rows, if few, are soon learned by
# heart.
PACE, MIN_PACE = 12.0, 60.0
MIN_VARIANCE = 1e-3  # of constant rows
# Persistent chains, at least. Fewer miss states that become probable, though no row is there.
MIN_CHAINS = 50
# Probability of the hidden units at the start. Units that are mostly off learn separate parts
# of binary rows, but slowly: fits of fewer than MANY_UPDATES start with larger probabilities.
# With HIDDEN_RESTING, hidden units with small weights depend most on the rows.
HIDDEN_MEAN, HIDDEN_RESTING, MANY_UPDATES = 0.05, 0.5, 1000
# Limits of the starting weights, and of the standard deviation of the inputs to hidden units.
# Fewer hidden than visible units cannot start uncoupled, so MAX_COUPLING limits that deviation
# times the one of a hidden unit.
MAX_WEIGHT, TOTAL_WEIGHT, MAX_INPUT, MAX_COUPLING = 0.5, 4.0, 1.0, 0.25
# The excess and the lack of the rows are defined in ``dependence``. If the excess is below
# RESTING_SHARE of the lack, an RBM gains less than a tenth of a nat, and its features are often
# worse than those of the start: a step of RESTING_STEP hardly changes the starting weights. For
# each feature they may cost START_COST nats, and at most MAX_COST in all; and EXCESS_COST more
# for each unit of excess beyond the lack.
RESTING_SHARE, RESTING_STEP = 0.5, 0.002
START_COST, MAX_COST, EXCESS_COST = 0.005, 0.1, 3.0
# Weight decay is DECAY * variance of a row / number of rows, within limits. It keeps long fits
# to few rows from divergence, and its cost in nats is small.
DECAY, MIN_DECAY, MAX_DECAY = 0.03, 1e-4, 0.005
SAMPLE_ROWS, SAMPLE_FEATURES = 1000, 500  # rows and features that are looked at


class Plan(NamedTuple):
    """The defaults of a fit."""

    step: float  # the initial step size
    scale: float  # standard deviation of the starting weights
    decay: float  # weight decay
    hidden_mean: float  # probability of the hidden units at the start


def batch_size(n_rows: int) -> int:
    """Return the number of rows in a minibatch."""
    return min(MAX_BATCH, max(MIN_BATCH, n_rows // N_BATCHES))


def n_chains(n_rows: int) -> int:
    """Return the number of persistent chains, given that of rows in a minibatch."""
    return max(n_rows, MIN_CHAINS)


def n_passes(n_rows: int, size: int) -> int:
    """Return the number of passes over the rows."""
    n_updates = min(MAX_UPDATES, UPDATES_PER_ROOT * n_rows**0.5)
    return max(MIN_PASSES, -int(-n_updates // -(-n_rows // size)))


def plan(
    mean: Array,
    n_hidden: int,
    rows: LocalRows | None = None,
    n_updates: int = MANY_UPDATES,
    *,
    is_paced: bool = False,
) -> Plan:
    """Return the defaults for units with these means.

    ``rows`` are all rows of a fit of ``n_updates``. If ``is_paced``, this number is a default
    too, and few wide rows get small steps.
    """
    variance = max(float((mean * (1 - mean)).sum()), MIN_VARIANCE)
    step = min(MAX_STEP, STEP / (variance * n_hidden**0.5))
    limit = min(MAX_WEIGHT, TOTAL_WEIGHT / n_hidden**0.5)
    if rows is None:
        spread = _input(n_hidden < len(mean), HIDDEN_MEAN)
        return Plan(step, min(limit, spread / variance**0.5), MIN_DECAY, HIDDEN_MEAN)
    decay = min(MAX_DECAY, max(MIN_DECAY, DECAY * variance / rows.n_positive))
    if is_paced:
        step = min(step, max(MIN_PACE, PACE * rows.n_positive / variance) / n_updates)
    excess, lack = dependence(rows)
    rests = excess < RESTING_SHARE * lack
    gray = lack / max(excess, lack, 1e-6)  # 0 for binary rows, 1 if there is nothing to learn
    off = HIDDEN_MEAN * max(1.0, MANY_UPDATES / n_updates) ** 0.5
    off = min(HIDDEN_RESTING, off)
    hidden_mean = off + gray * (HIDDEN_RESTING - off)
    spread = _input(n_hidden < len(mean), hidden_mean)
    scale = min(limit, spread / max((1 - lack) * variance, MIN_VARIANCE) ** 0.5)
    # A hidden unit with mean q and small weights w adds q (1 - q) (w'(v - mean))^2 / 2 to
    # log p*(v). The squares are larger in states of the RBM than in gray rows, by
    # ``lack * variance`` in all.
    each = hidden_mean * (1 - hidden_mean) / 2 * lack * variance
    cost = min(START_COST * len(mean), MAX_COST) + EXCESS_COST * max(excess - lack, 0)
    cheap = (cost / (n_hidden * max(each, 1e-7))) ** 0.5
    step = min(step, RESTING_STEP) if rests else step
    return Plan(step, min(scale, cheap), decay, hidden_mean)


def _input(coupled: bool, hidden_mean: float) -> float:
    """Return the standard deviation of the inputs to hidden units at the start."""
    deviation = (hidden_mean * (1 - hidden_mean)) ** 0.5
    return min(MAX_INPUT, MAX_COUPLING / deviation) if coupled else MAX_INPUT


def dependence(rows: LocalRows) -> tuple[float, float]:
    """Return the excess of the rows in common variance, and their lack of single variance.

    Binary units with the means m of the features have the variances m (1 - m). The excess is
    the largest eigenvalue of the covariance of the features minus these variances, in units of
    their mean. If it is negative, the likelihood has a maximum at weights of 0. The lack is
    the share of these variances that the features do not have; it is 0 for binary rows.
    """
    X, weight = rows.every(max(1, len(rows) // SAMPLE_ROWS))
    X = dense(X, float)
    X = X[:, :: max(1, X.shape[1] // SAMPLE_FEATURES)]
    seen = ~np.isnan(X)
    weighted = seen * np.asarray(weight)[:, None]
    mean = (weighted * np.nan_to_num(X)).sum(0) / np.maximum(weighted.sum(0), 1e-12)
    X = np.where(seen, X - mean, 0)
    covariance = (X.T * weight) @ X / np.maximum(weighted.T @ seen, 1e-12)
    binary = mean * (1 - mean)
    largest = np.linalg.eigvalsh(covariance - np.diag(binary))[-1]
    lack = 1 - covariance.diagonal().sum() / max(binary.sum(), 1e-12)
    return float(largest / max(binary.mean(), 1e-12)), float(np.clip(lack, 0, 1))
