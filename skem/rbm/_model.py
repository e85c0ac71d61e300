"""The restricted Boltzmann machine as pure functions over explicit parameters.

    E(v, h) = -b'v - c'h - v'W h,   v (n_visible,) and h (n_hidden,) binary
    P(h_j = 1 | v) = sigmoid(c_j + v'W_j),   P(v_i = 1 | h) = sigmoid(b_i + W_i'h)
    F(v) = -b'v - sum_j softplus(c_j + v'W_j),   log p(v) = -F(v) - log Z

log Z is a sum over the states of the smaller layer, or is estimated by annealed importance
sampling (AIS; Salakhutdinov and Murray, 2008).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike
from scipy.special import expit, log_expit, logit, logsumexp

from skem._typing import Array

# The size of the smaller layer up to which log Z is exact.
MAX_EXACT = 20
N_CHAINS = 400  # of annealed importance sampling
N_MEAN_FIELD, MIN_BASE = 50, 1e-3  # iterations to a mode, smallest probability there
N_ERRORS = 3  # standard errors by which estimates differ clearly
# Number of factors that are multiplied before a logarithm is taken. Their product is finite
# if the exponent of each factor is below MAX_EXPONENT.
GROUP, MAX_EXPONENT = 8, 80.0


@dataclass(frozen=True)
class Params:
    """Weights and biases of the RBM."""

    weights: Array  # (n_visible, n_hidden)
    visible: Array  # b, (n_visible,)
    hidden: Array  # c, (n_hidden,)

    def astype(self, dtype: DTypeLike) -> "Params":
        return Params(*(value.astype(dtype, copy=False) for value in vars(self).values()))

    def copy(self) -> "Params":
        return Params(*(value.copy() for value in vars(self).values()))

    @property
    def transposed(self) -> "Params":
        """The same RBM with its layers swapped."""
        return Params(self.weights.T, self.hidden, self.visible)


class LogPartition(NamedTuple):
    """log Z in nats, the standard error of its estimate (0 if exact), and the method."""

    value: float
    standard_error: float
    method: str


@np.errstate(over="ignore")
def sigmoid(x: Array) -> Array:
    """Compute the sigmoid in place; this takes a third of the time of ``expit``."""
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    return np.reciprocal(x, out=x)


def hidden_probabilities(params: Params, v: Any) -> Array:
    """Return P(h = 1 | v), (n, n_hidden); v may be sparse."""
    activation = v @ params.weights
    activation += params.hidden
    return sigmoid(activation)


def visible_probabilities(params: Params, h: Array) -> Array:
    """Return P(v = 1 | h), (n, n_visible)."""
    activation = h @ params.weights.T
    activation += params.visible
    return sigmoid(activation)


def mean_field(params: Params, v: Array, mean: Array, n_steps: int) -> Array:
    """Fill missing values by mean-field steps that start from the mean."""
    missing = np.isnan(v)
    if not missing.any():
        return v
    known, v = v, np.where(missing, mean, v)
    for _ in range(n_steps):
        p = visible_probabilities(params, hidden_probabilities(params, v))
        v = np.where(missing, p, known)
    return v


def draw(probabilities: Array, rng: np.random.Generator) -> Array:
    """Draw binary variables with these probabilities; the dtype is that of the input."""
    uniform = rng.random(probabilities.shape, dtype=np.float32)
    return (uniform < probabilities).astype(probabilities.dtype)


def walk(params: Params, v: Array, n_steps: int, rng: np.random.Generator) -> Array:
    """Run Gibbs steps from ``v`` and return the visible units."""
    for _ in range(n_steps):
        h = draw(hidden_probabilities(params, v), rng)
        v = draw(visible_probabilities(params, h), rng)
    return v


def free_energy(params: Params, v: Any) -> Array:
    """Return F(v), (n,); v may be sparse."""
    return -(v @ params.visible) - np.logaddexp(0, v @ params.weights + params.hidden).sum(1)


def sum_softplus(inputs: Array) -> Array:
    """Return sum_j log(1 + exp(inputs_j)) of each row, with one log for a group of factors."""
    if np.abs(inputs).max(initial=0) >= MAX_EXPONENT:
        return np.logaddexp(0, inputs).sum(1)
    factors = np.exp(inputs)
    factors += 1
    return _log_of_products(factors)


def pseudo_log_likelihood(
    params: Params, v: Array, features: Any = None, observed: Array | None = None
) -> Array:
    """Return sum_i log p(v_i | other units), (n,), for binary v.

    With ``features``, the sum is estimated from these units only. With ``observed``, a mask of
    the shape of v, the sum is over the observed units.
    """
    inputs = v @ params.weights + params.hidden
    energy = free_energy(params, v)
    out = np.zeros(len(v))
    chosen = range(v.shape[1]) if features is None else features
    for i in chosen:
        row = params.weights[i]
        change = 1 - 2 * v[:, i]
        flipped = -(v @ params.visible) - change * params.visible[i]
        flipped -= np.logaddexp(0, inputs + change[:, None] * row).sum(1)
        out += log_expit(flipped - energy) * (1 if observed is None else observed[:, i])
    return out * (v.shape[1] / len(chosen))


def exact_log_partition(params: Params) -> float:
    """Return log Z by enumeration of the smaller layer.

    The units of this layer are split into two halves. Their inputs to the other layer are x
    and y. With the factors 1 + exp(x_i) exp(y_i), no exponential is needed for each pair of
    states of the halves.
    """
    if params.weights.shape[1] > params.weights.shape[0]:
        params = params.transposed
    params = params.astype(float)
    m = len(params.hidden)
    first, second = binary_states(m // 2), binary_states(m - m // 2)
    x = first @ params.weights[:, : m // 2].T
    y = second @ params.weights[:, m // 2 :].T + params.visible
    x_bias, y_bias = first @ params.hidden[: m // 2], second @ params.hidden[m // 2 :]
    safe = np.abs(x).max(initial=0) + np.abs(y).max(initial=0) < MAX_EXPONENT
    exp_x = np.exp(x) if safe else x
    terms = [
        logsumexp(x_bias + (_log_product(exp_x, row) if safe else _log_sum(x, row)))
        for row in y
    ]
    return float(logsumexp(np.array(terms) + y_bias))


def log_partition(params: Params, base: Array, rng: np.random.Generator) -> LogPartition:
    """Return log Z: exact if the smaller layer is small, else by AIS.

    Chains that start at independent units with ``base`` may miss states that no row resembles.
    Others therefore start near a mode of the mean field. Their estimate is returned if it is
    clearly larger, since both tend to be too low.
    """
    if min(params.weights.shape) <= MAX_EXACT:
        return LogPartition(exact_log_partition(params), 0.0, "exact")
    found = ais_log_partition(params, base, rng)
    unknown = np.full((1, len(base)), np.nan)
    mode = mean_field(params, unknown, np.full(len(base), 0.5), N_MEAN_FIELD)[0]
    mode = logit(np.clip(mode, MIN_BASE, 1 - MIN_BASE))
    other = ais_log_partition(params, mode, rng, n_chains=N_CHAINS // 4)
    noise = math.hypot(found.standard_error, other.standard_error)
    return other if other.value - found.value > N_ERRORS * noise else found


def _log_product(exp_x: Array, y: Array) -> Array:
    """Return log prod_i (1 + exp_x[:, i] exp(y_i)), with one log for a group of factors."""
    factors = exp_x * np.exp(y)
    factors += 1
    whole = factors.shape[1] // GROUP * GROUP
    out = np.zeros(len(factors))
    if whole:
        stride = whole // GROUP
        products = factors[:, :stride]
        for g in range(1, GROUP):
            products = products * factors[:, g * stride : (g + 1) * stride]
        out += np.log(products).sum(1)
    return out + np.log(factors[:, whole:]).sum(1)


def _log_sum(x: Array, y: Array) -> Array:
    return np.logaddexp(0, x + y).sum(1)


def binary_states(n: int) -> Array:
    """Return all binary vectors of length n, (2^n, n)."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)


def ais_log_partition(
    params: Params,
    base: Array,
    rng: np.random.Generator,
    *,
    start: Array | None = None,
    n_chains: int = N_CHAINS,
    n_temperatures: int = 1000,
    dtype: DTypeLike = np.float32,
) -> LogPartition:
    """Estimate log Z by annealing between the RBM and independent visible units.

    At inverse temperature t the visible biases are (1 - t) base + t b, and W and c are
    multiplied by t. Forward annealing starts from the independent units; its estimate tends
    to be too low. Reverse annealing starts from ``start``, which holds samples of the RBM;
    its estimate tends to be too high. The chains hardly mix at the end. Therefore more chains
    improve the estimate more than more temperatures.
    """
    params, base = params.astype(dtype), base.astype(dtype)
    temperatures = np.linspace(0, 1, n_temperatures + 1)
    sign = 1
    if start is None:
        v = draw(np.broadcast_to(expit(base), (n_chains, len(base))), rng)
    else:
        v, sign, temperatures = start.astype(dtype), -1, temperatures[::-1]
    log_weight = sum(_anneal(params, base, v, temperatures, rng))
    log_base = float(np.logaddexp(0, base.astype(float)).sum())
    log_base += len(params.hidden) * math.log(2)
    mean = logsumexp(log_weight) - math.log(len(v))
    error = float(np.exp(log_weight - mean).std(ddof=1) / math.sqrt(len(v)))
    method = "ais" if start is None else "reverse ais"
    return LogPartition(log_base + sign * float(mean), error, method)


def _anneal(
    params: Params, base: Array, v: Array, temperatures: Array, rng: np.random.Generator
) -> Iterator[Array]:
    """Yield the log-weights of the chains at each change of temperature, (n_chains,)."""
    slope = params.visible - base
    weights = np.ascontiguousarray(params.weights.T)
    for old, new in pairwise(temperatures.astype(v.dtype)):
        inputs = v @ params.weights
        inputs += params.hidden
        positive = np.maximum(inputs, 0)
        change = (v @ slope + positive.sum(1)) * float(new - old)
        np.abs(inputs, out=inputs)
        low, high = np.exp(inputs * -old), np.exp(inputs * -new)
        low += 1
        probabilities = np.where(positive > 0, 1, high)
        high += 1
        probabilities /= high
        yield change + _log_of_products(np.divide(high, low, out=low))
        inputs = draw(probabilities, rng) @ weights
        inputs += slope
        inputs *= new
        inputs += base
        v = draw(sigmoid(inputs), rng)


def _log_of_products(factors: Array) -> Array:
    """Return the sum of the logs of each row, with one log for a group of factors."""
    whole = factors.shape[1] // GROUP * GROUP
    products = factors[:, :whole].reshape(len(factors), whole // GROUP, GROUP).prod(2)
    return np.log(products).sum(1, dtype=float) + np.log(factors[:, whole:]).sum(1, dtype=float)
