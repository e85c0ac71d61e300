"""Contrastive divergence for the restricted Boltzmann machine, one minibatch at a time.

The gradient of the mean log-likelihood is <v h'>_data - <v h'>_model. Persistent chains, or
a few Gibbs steps from the data, stand for the model. Both factors are centred at slowly
moving means mu and lam (Melchior, Fischer and Wiskott, 2016), which adds two terms of rank
1, and leaves the data as they are:

    dW = <v h'> - <v h'>_model - mu dh' - dv lam',  db = dv - dW lam,  dc = dh - dW' mu
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg.blas import dgemm, sgemm

from skem._rbm_model import Array, Params

# Rates of the moving means; updates that the average of the parameters reaches back.
CENTRE_RATE, AVERAGE_SPAN, AVERAGE_EVERY = 0.01, 400, 10
LIMIT = 0.01  # means are kept this far from 0 and 1 when biases start from them


@dataclass
class State:
    """What training changes, in place."""

    params: Params
    average: Params
    chains: Array  # hidden units of the persistent chains, (n_chains, n_hidden)
    visible_mean: Array  # mu
    hidden_mean: Array  # lam
    n_updates: int = 0


def initial_state(
    mean: Array, n_hidden: int, n_chains: int, rng: np.random.Generator, dtype: Any
) -> State:
    """Small weights, visible biases at the logits of the mean, random chains."""
    mean = np.clip(mean, LIMIT, 1 - LIMIT).astype(dtype)
    weights = (0.01 * rng.standard_normal((len(mean), n_hidden))).astype(dtype)
    visible = np.log(mean / (1 - mean))
    params = Params(weights, visible, np.zeros(n_hidden, dtype))
    chains = (rng.random((n_chains, n_hidden)) < 0.5).astype(dtype)
    half = np.full(n_hidden, 0.5, dtype)
    copies = Params(*(value.copy() for value in vars(params).values()))
    return State(params, copies, chains, mean.copy(), half)


def sigmoid(x: Array) -> Array:
    """In place."""
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    return np.reciprocal(x, out=x)


class Workspace:
    """Arrays of a batch: rows of the data, of the chains, and two for the rank-1 terms."""

    def __init__(self, n_rows: int, state: State, persistent: bool) -> None:
        n_visible, n_hidden = state.params.weights.shape
        self.persistent, self.n_rows = persistent, n_rows
        self.chains = state.chains if persistent else np.empty((n_rows, n_hidden))
        self.chains = self.chains.astype(state.params.weights.dtype, copy=False)
        self.n_chains = len(self.chains)
        dtype = state.params.weights.dtype
        n = n_rows + self.n_chains + 2
        self.v, self.h = np.empty((n, n_visible), dtype), np.empty((n, n_hidden), dtype)
        self.uniform = np.empty(
            max(n_rows, self.n_chains) * max(n_visible, n_hidden), np.float32
        )
        self.gemm = sgemm if dtype == np.float32 else dgemm

    def draw(self, probabilities: Array, rng: np.random.Generator, out: Array) -> Array:
        uniform = self.uniform[: probabilities.size].reshape(probabilities.shape)
        rng.random(out=uniform, dtype=np.float32)
        return np.less(uniform, probabilities, out=out, casting="unsafe")


@np.errstate(over="ignore")
def update(
    state: State,
    batch: Any,
    weight: Array,
    rate: float,
    rng: np.random.Generator,
    space: Workspace,
    *,
    n_gibbs_steps: int,
    centred: bool,
    decay: float,
) -> None:
    """One step up the gradient on a batch whose weights sum to 1."""
    W, b, c = state.params.weights, state.params.visible, state.params.hidden
    n, m = space.n_rows, space.n_chains
    v0, h0 = space.v[:n], space.h[:n]
    vk, hk = space.v[n : n + m], space.h[n : n + m]
    v0[:] = batch
    np.matmul(v0, W, out=h0)
    h0 += c
    sigmoid(h0)
    if not space.persistent:
        space.draw(h0, rng, space.chains)
    for _ in range(n_gibbs_steps):
        np.matmul(space.chains, W.T, out=vk)
        vk += b
        space.draw(sigmoid(vk), rng, vk)
        np.matmul(vk, W, out=hk)
        hk += c
        space.draw(sigmoid(hk), rng, space.chains)
    _ascend(state, weight, rate, space, centred=centred, decay=decay)


def _ascend(
    state: State, weight: Array, rate: float, space: Workspace, *, centred: bool, decay: float
) -> None:
    W, b, c = state.params.weights, state.params.visible, state.params.hidden
    n, m = space.n_rows, space.n_chains
    v, h = space.v, space.h
    chain_weight = np.full(m, 1 / m, v.dtype) if space.persistent else weight
    h[:n] *= weight[:, None]
    h[n : n + m] *= -chain_weight[:, None]
    v_data, h_data = weight @ v[:n], h[:n].sum(0)
    dv = v_data - chain_weight @ v[n : n + m]
    dh = h_data + h[n : n + m].sum(0)
    mu, lam = state.visible_mean, state.hidden_mean
    last = n + m
    if centred:
        mu += CENTRE_RATE * (v_data - mu)
        lam += CENTRE_RATE * (h_data - lam)
        v[last], h[last] = mu, -dh
        v[last + 1], h[last + 1] = dv, -lam
        last += 2
        db = dv - v[:last].T @ (h[:last] @ lam)
        dc = dh - h[:last].T @ (v[:last] @ mu)
    else:
        db, dc = dv, dh
    keep = 1 - rate * decay
    space.gemm(rate, h[:last].T, v[:last].T, beta=keep, c=W.T, trans_b=1, overwrite_c=1)
    b += rate * db
    c += rate * dc
    state.n_updates += 1
    if state.n_updates < AVERAGE_EVERY or state.n_updates % AVERAGE_EVERY == 0:
        _average(state)


def _average(state: State) -> None:
    """Move the average towards the parameters; at first it is them."""
    n = max(state.n_updates, AVERAGE_EVERY)
    share = max(AVERAGE_EVERY / AVERAGE_SPAN, AVERAGE_EVERY / n)
    for average, value in zip(
        vars(state.average).values(), vars(state.params).values(), strict=True
    ):
        average += share * (value - average)
