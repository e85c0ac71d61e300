"""Contrastive divergence for the restricted Boltzmann machine, one minibatch at a time.

The gradient of the mean log-likelihood is <v h'>_data - <v h'>_model. The average over the
model is estimated by persistent chains, or by a few Gibbs steps from the data. Visible and
hidden units are centered at slowly moving means mu and lam (Melchior, Fischer and Wiskott,
2016). Centering adds two terms of rank 1, and the data need not be changed:

    dW = <v h'> - <v h'>_model - mu dh' - dv lam',  db = dv - dW lam,  dc = dh - dW' mu

The arithmetic is in float32: its rounding error is far below the noise of a minibatch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg.blas import sgemm

from skem._base.minibatch import batches
from skem._rows.parts import LocalRows
from skem._typing import AnyArray, Array, Indices
from skem.rbm._model import (
    Params,
    draw,
    hidden_probabilities,
    mean_field,
    pseudo_log_likelihood,
    sigmoid,
    visible_probabilities,
)
from skem.rbm._rows import dense

# Rate of the moving means. The average of the parameters covers about the last AVERAGE_SPAN
# updates, and is computed every AVERAGE_EVERY updates.
CENTER_RATE, AVERAGE_SPAN, AVERAGE_EVERY = 0.01, 400, 10
MAX_BIAS = 1e6  # a larger bias means divergence: the sigmoid saturates near 100
# Largest number of validation rows that are scored, and of features that are predicted. A
# score then takes less time than a pass.
VALIDATION_ROWS, VALIDATION_FEATURES = 1000, 16
LIMIT = 0.01  # smallest distance of the means from 0 and 1 when initial biases are computed
# Gibbs steps that draw the missing values of a row: the first time, and each time later.
FIRST_FILL, LATER_FILL = 10, 2
VALIDATION_FILL = 20  # mean-field steps that fill missing values of validation rows


class Purpose(IntEnum):
    """Purpose of a stream of random numbers."""

    WEIGHTS = 1
    UNITS = 2
    ORDER = 3
    VALIDATION = 4
    FILL = 5
    CHAINS = 6


@dataclass
class State:
    """The arrays that training changes in place."""

    rows: Array  # the weights, then space for sums of pairs of their rows
    params: Params  # its weights are a view of rows
    average: Params
    chains: Array  # hidden units of the persistent chains, (n_chains, n_hidden)
    visible_mean: Array  # mu
    hidden_mean: Array  # lam
    n_updates: int = 0
    n_averaged: int = 0  # number of updates that the average includes


@dataclass(frozen=True)
class Options:
    """Options of the gradient and of the update."""

    persistent: bool = True
    n_gibbs_steps: int = 1
    centered: bool = True
    decay: float = 0.0


def initial_state(
    mean: Array,
    n_hidden: int,
    n_chains: int,
    seed: int,
    scale: float = 0.01,
    hidden_mean: float = 0.5,
) -> State:
    """Return an RBM of almost independent units with these means, and random chains.

    The rows or the columns of the weights, whichever are fewer, are orthogonal. The hidden
    units then see all directions of the rows. To second order, visible units i and j are
    coupled by a multiple of sum_h W_ih W_jh, which is 0 if there are at least as many hidden as
    visible units. The biases make each visible unit as probable as it is on average, and each
    hidden unit as probable as ``hidden_mean``.
    """
    rng = generator(Purpose.WEIGHTS, seed)
    mean = np.clip(mean, LIMIT, 1 - LIMIT).astype(np.float32)
    weights = scale * _orthogonal(rng, len(mean), n_hidden)
    hidden = np.full(n_hidden, hidden_mean, np.float32)
    visible = np.log(mean / (1 - mean)) - weights @ hidden
    params = Params(weights, visible, np.log(hidden / (1 - hidden)) - mean @ weights)
    chains = random_chains(n_chains, hidden, seed)
    return resumed_state(params, params, chains, mean, hidden)


def random_chains(n_chains: int, mean: Array, seed: int) -> Array:
    """Return hidden units that are 1 with these probabilities."""
    uniform = generator(Purpose.CHAINS, seed).random((n_chains, len(mean)))
    return (uniform < mean).astype(np.float32)


def _orthogonal(rng: np.random.Generator, n_visible: int, n_hidden: int) -> Array:
    """Return a random matrix with orthogonal rows or columns and a mean square of 1."""
    few, many = sorted((n_visible, n_hidden))
    q, r = np.linalg.qr(rng.standard_normal((many, few), np.float32))
    q *= np.sign(r.diagonal()) * np.float32(many**0.5)
    return q if n_visible == many else np.ascontiguousarray(q.T)


def resumed_state(
    params: Params,
    average: Params,
    chains: Array,
    visible_mean: Array,
    hidden_mean: Array,
    n_updates: int = 0,
) -> State:
    """Return a state with copies of the given arrays."""
    n_visible = len(params.visible)
    rows = np.zeros((n_visible + n_visible // 2, len(params.hidden)), np.float32)
    rows[:n_visible] = params.weights
    own = Params(rows[:n_visible], params.visible.copy(), params.hidden.copy())
    arrays = chains.copy(), visible_mean.copy(), hidden_mean.copy()
    return State(rows, own, average.copy(), *arrays, n_updates, n_updates)


def generator(purpose: Purpose, *seeds: int) -> np.random.Generator:
    """Return the stream of random numbers for a purpose."""
    return np.random.Generator(np.random.SFC64([int(purpose), *seeds]))


class Workspace:
    """Buffers for the rows of a batch and of the chains, and the arithmetic in NumPy."""

    def __init__(self, state: State, n_rows: int, options: Options, seed: int) -> None:
        n_visible, n_hidden = state.params.weights.shape
        self.options, self.n_rows, self.params = options, n_rows, state.params
        self.chains = state.chains
        if not options.persistent:
            self.chains = np.empty((n_rows, n_hidden), np.float32)
        m = len(self.chains)
        n = n_rows + m
        self.inputs = np.empty((m, n_visible), np.float32)  # inputs of the visible units
        self.v = np.empty((n + 2, n_visible), np.float32)  # 2 rows for the rank-1 terms
        self.h = np.empty((n + 2, n_hidden), np.float32)
        self.parts = [(slice(0, n_rows), slice(0, len(self.chains)))]
        self.map: Callable[..., Iterable[Any]] = map
        self._rng = generator(Purpose.UNITS, seed, state.n_updates)
        self._uniform = np.empty(n * max(n_visible, n_hidden), np.float32)

    def hidden_inputs(self, rows: slice) -> None:
        np.matmul(self.v[rows], self.params.weights, out=self.h[rows])

    def sigmoid(self, x: Array, bias: Array) -> None:
        """Replace x by the sigmoid of x + bias."""
        x += bias
        sigmoid(x)

    def draw(self, x: Array, bias: Array, out: Array, key: tuple[int, int, int]) -> None:
        """Replace x by the sigmoid of x + bias, and draw units with it into ``out``.

        ``key`` is used by the compiled workspace only.
        """
        self.sigmoid(x, bias)
        uniform = self._uniform[: x.size].reshape(x.shape)
        self._rng.random(out=uniform, dtype=np.float32)
        np.less(uniform, x, out=out, casting="unsafe")

    def ascend(self, weight: Array, rate: float) -> None:
        """Add the gradient, a weighted sum over the rows, to the weights."""
        self.h *= weight[:, None]
        keep, W = 1 - rate * self.options.decay, self.params.weights
        sgemm(rate, self.h.T, self.v.T, beta=keep, c=W.T, trans_b=1, overwrite_c=1)


def compiled_workspaces(
    state: State, options: Options, seed: int, sparse: bool, n_threads: int
) -> Callable[[int], Workspace]:
    """Return a function from batch size to compiled workspace."""
    from skem.rbm._kernel import KernelWorkspace  # numba takes time to import

    return cache(
        lambda n_rows: KernelWorkspace(
            state, n_rows, options, seed, sparse=sparse, n_threads=n_threads
        )
    )


@np.errstate(over="ignore", invalid="ignore")
def gradient_step(
    state: State, batch: Any, weight: Array, rate: float, space: Workspace
) -> None:
    """Update the parameters by one gradient step on a batch whose weights sum to 1."""
    options, params, n, m = space.options, state.params, space.n_rows, len(space.chains)
    v, h = space.v[: n + m], space.h[: n + m]
    v[:n] = batch

    def sample(part: tuple[slice, slice]) -> None:
        """Compute the hidden units of some rows, and the Gibbs steps of some chains."""
        rows, chains = part
        space.hidden_inputs(rows)
        if options.persistent:
            space.sigmoid(h[rows], params.hidden)
        else:
            key = (state.n_updates, 0, rows.start)
            space.draw(h[rows], params.hidden, space.chains[chains], key)
        ends = slice(n + chains.start, n + chains.stop)
        for step in range(options.n_gibbs_steps):
            inputs = space.inputs[chains]
            np.matmul(space.chains[chains], params.weights.T, out=inputs)
            key = (state.n_updates, 2 * step + 1, chains.start)
            space.draw(inputs, params.visible, v[ends], key)
            space.hidden_inputs(ends)
            if step == options.n_gibbs_steps - 1 and not options.persistent:
                space.sigmoid(h[ends], params.hidden)
                break
            key = (state.n_updates, 2 * step + 2, chains.start)
            space.draw(h[ends], params.hidden, space.chains[chains], key)

    list(space.map(sample, space.parts))
    chain_weight = np.full(m, 1 / m, np.float32) if options.persistent else weight
    signed = np.concatenate([weight, -chain_weight])
    dv, dh = signed @ v, signed @ h
    mu, lam = state.visible_mean, state.hidden_mean
    mu += CENTER_RATE * (weight @ v[:n] - mu)
    lam += CENTER_RATE * (weight @ h[:n] - lam)
    if not options.centered:
        mu, lam = 0 * mu, 0 * lam
    v, h = space.v, space.h
    v[n + m], h[n + m] = mu, -dh
    v[n + m + 1], h[n + m + 1] = dv, -lam
    weights = np.concatenate([signed, np.ones(2, np.float32)])
    if options.decay:
        _shift_biases(params, mu, lam, rate * options.decay)
    db, dc = dv - (weights * (h @ lam)) @ v, dh - (weights * (v @ mu)) @ h
    space.ascend(weights, rate)
    params.visible[:] += rate * db
    params.hidden[:] += rate * dc
    state.n_updates += 1
    if state.n_updates % AVERAGE_EVERY == 0:
        _average(state)


class Holes:
    """The drawn values of missing units, which continue from pass to pass.

    A missing value is drawn from its distribution given the observed units of its row. Its
    expectation would have no covariance with other units. The draws of a row are kept, one bit
    for each feature, so that the Gibbs chains mix in the course of a fit.
    """

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self._shape, self._seed = shape, seed
        self._bits: AnyArray | None = None
        self._known: AnyArray = np.zeros(0, bool)

    def filled(self, v: Array, index: Indices, state: State) -> Array:
        """Return the rows ``v``, whose indices are ``index``, with drawn missing units."""
        missing = np.isnan(v)
        if not missing.any():
            return v
        if self._bits is None:
            self._bits = np.zeros((self._shape[0], -(-self._shape[1] // 8)), np.uint8)
            self._known = np.zeros(self._shape[0], bool)
        rng = generator(Purpose.FILL, self._seed, state.n_updates)
        known = self._known[index]
        start = draw(np.broadcast_to(state.visible_mean, v.shape), rng)
        start[known] = np.unpackbits(self._bits[index[known]], axis=1, count=v.shape[1])
        drawn = np.where(missing, start, v)
        for _ in range(LATER_FILL if known.all() else FIRST_FILL):
            h = draw(hidden_probabilities(state.params, drawn), rng)
            drawn = np.where(missing, draw(visible_probabilities(state.params, h), rng), v)
        self._bits[index] = np.packbits(drawn > 0.5, axis=1)
        self._known[index] = True
        return drawn


def _shift_biases(params: Params, mu: Array, lam: Array, share: float) -> None:
    """Keep the mean inputs of the units when the weights shrink by ``share``.

    The decay is then that of the centered weights in (v - mu)'W (h - lam).
    """
    params.visible[:] += share * (params.weights @ lam)
    params.hidden[:] += share * (mu @ params.weights)


@dataclass
class Training:
    """An RBM during training."""

    state: State
    seed: int
    dtype: np.dtype  # dtype of the fitted attributes
    workspace: Callable[[int], Workspace]  # from batch size to workspace
    step: float  # the initial step size
    holes: Holes
    watch: Callable[["Training"], float] | None = None  # what to print after a pass
    n_before: int = 0  # number of passes in earlier fits
    n_passes: int = 0

    def is_finite(self) -> bool:
        return all(bool(np.isfinite(value).all()) for value in vars(self.state.params).values())

    def snapshot(self) -> Params:
        return self.state.average.copy()

    def restore(self, snapshot: Params) -> None:
        for name, value in vars(self.state.params).items():
            value[:] = vars(snapshot)[name]
        self.state.average = snapshot


def epoch(
    training: Training,
    rows: LocalRows,
    chosen: Indices,
    batch_size: int,
    rate: Callable[[int], float],
) -> None:
    """Take a step for each minibatch of the chosen rows, shuffled.

    ``rate`` returns the step size of each update.
    """
    state, weight = training.state, np.asarray(rows.weight)
    order = generator(Purpose.ORDER, training.seed, state.n_updates).permutation(len(chosen))
    mean_weight = weight[chosen[order]].mean()
    for index in batches(rows, chosen[order], batch_size):
        own = weight[index]
        batch = training.holes.filled(dense(rows[index], np.float32), index, state)
        weights = (own / own.sum()).astype(np.float32)
        share = own.sum() / (mean_weight * len(own))  # batches of small weight: short steps
        space = training.workspace(len(index))
        gradient_step(state, batch, weights, rate(state.n_updates) * share, space)
        if not np.abs(state.params.hidden).max() < MAX_BIAS:
            raise FloatingPointError(f"the biases have grown beyond {MAX_BIAS:g}")
    largest = max(float(np.abs(value).max()) for value in vars(state.params).values())
    if not largest < MAX_BIAS:
        raise FloatingPointError(f"the weights have grown beyond {MAX_BIAS:g}")
    _average(state)
    training.n_passes += 1


def validation_score(training: Training, rows: LocalRows, chosen: Indices) -> float:
    """Estimate the pseudo-log-likelihood of the chosen rows from a fixed set of features.

    Missing values are filled by mean field, and are not scored.
    """
    state, chosen = training.state, chosen[:VALIDATION_ROWS]
    given = dense(rows[chosen], np.float32)
    v = np.rint(mean_field(state.average, given, state.visible_mean, VALIDATION_FILL))
    order = np.random.Generator(np.random.SFC64(0)).permutation(v.shape[1])
    order = order[:VALIDATION_FEATURES]
    each = pseudo_log_likelihood(state.average, v, order, ~np.isnan(given))
    return float(np.average(each, weights=np.asarray(rows.weight)[chosen]))


def _average(state: State) -> None:
    """Move the average toward the parameters; at first it equals them."""
    pending = state.n_updates - state.n_averaged
    if state.n_updates <= AVERAGE_EVERY:
        share = 1.0
    else:
        share = max(pending / AVERAGE_SPAN, pending / state.n_updates)
    for average, value in zip(
        vars(state.average).values(), vars(state.params).values(), strict=True
    ):
        average += share * (value - average)
    state.n_averaged = state.n_updates
