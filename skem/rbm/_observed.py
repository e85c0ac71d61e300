"""Rows with missing values: the likelihood of what is observed, and the expected rest.

Given the observed units o of a row, the missing units m and the hidden ones are a smaller
RBM,

    p(m, h | o) = exp(b_m'm + (c + W_o'o)'h + m'W_m h) / Z_o,

and log p(o) = b_o'o + log Z_o - log Z. The states of its smaller layer are enumerated if they
are few. Otherwise log Z_o and the expectations come from annealed Gibbs chains in which o
stays fixed.
"""

from collections.abc import Iterator

import numpy as np
from scipy.special import expit, logit, logsumexp

from skem._base.draws import row_shifts
from skem._typing import AnyArray, Array, Indices
from skem.rbm._model import (
    MAX_EXACT,
    Params,
    ais_log_partition,
    binary_states,
    exact_log_partition,
    free_energy,
    mean_field,
    sigmoid,
    sum_softplus,
)

# Enumeration takes at most this number of products for each row, about 0.02 seconds.
MAX_PRODUCTS = 2**21
BLOCK = 2**17  # largest number of elements of an array of states and units
N_CHAINS, N_TEMPERATURES = 100, 200  # of annealing for the likelihood of an incomplete row
N_MEAN_FIELD = 20  # mean-field steps before annealing
MEAN_LIMIT = 0.02  # smallest distance from 0 and 1 of the means at which annealing starts


def conditional(params: Params, row: Array, missing: AnyArray) -> Params:
    """Return the RBM of the missing and the hidden units, given the observed ones."""
    hidden = params.hidden + row[~missing] @ params.weights[~missing]
    return Params(params.weights[missing], params.visible[missing], hidden)


def is_small(n_missing: int, n_hidden: int) -> bool:
    """Return whether the states of the smaller layer are enumerated."""
    few, many = sorted((n_missing, n_hidden))
    return few <= MAX_EXACT and 2**few * many <= MAX_PRODUCTS


# -- the likelihood ---------------------------------------------------------------------------


def observed_free_energy(params: Params, v: Array, mean: Array) -> Array:
    """Return F(o) = -log sum_m,h exp(-E) of each row, (n,), with its missing units summed out.

    That of a row with nothing observed is -log Z, which is left to the caller: it is NaN here.
    """
    missing = np.isnan(v)
    empty = missing.all(1)
    out = free_energy(params, np.where(missing, 0, v))
    out[empty] = np.nan
    for i in np.flatnonzero(missing.any(1) & ~empty):
        given = conditional(params, v[i], missing[i])
        if is_small(*given.weights.shape):
            log_z = exact_log_partition(given)
        else:
            log_z = _annealed_log_partition(given, mean[missing[i]])
        out[i] = -(v[i, ~missing[i]] @ params.visible[~missing[i]]) - log_z
    return out


def _annealed_log_partition(params: Params, mean: Array) -> float:
    """Estimate log Z by annealing from independent units with the means of mean field.

    All rows use the same random numbers, so that the result does not depend on other rows.
    """
    unknown = np.full((1, len(mean)), np.nan)
    start = _starting_mean(mean_field(params, unknown, mean, N_MEAN_FIELD))
    return ais_log_partition(
        params,
        logit(start[0]),
        np.random.Generator(np.random.SFC64(0)),
        n_chains=N_CHAINS,
        n_temperatures=N_TEMPERATURES,
    ).value


def _starting_mean(mean: Array) -> Array:
    clipped: Array = np.clip(mean, MEAN_LIMIT, 1 - MEAN_LIMIT)
    return clipped


# -- the expectation --------------------------------------------------------------------------


def impute(
    params: Params,
    v: Array,
    mean: Array,
    seed: int,
    *,
    n_chains: int,
    n_steps: int,
) -> Array:
    """Return the rows with missing values replaced by their expectation.

    Rows with the same missing units are enumerated together if that is cheap. The others are
    filled by annealed chains, whose random numbers depend on the row and on the seed.
    """
    out, missing = v.copy(), np.isnan(v)
    n_missing, n_hidden = missing.sum(1), len(params.hidden)
    small = np.array([is_small(int(n), n_hidden) for n in n_missing]) & (n_missing > 0)
    for index in _equal_rows(missing, np.flatnonzero(small)):
        holes = missing[index[0]]
        out[np.ix_(index, holes)] = _expected(params, v[index], holes)
    rest = np.flatnonzero((n_missing > 0) & ~small)
    if len(rest):
        out[rest] = _annealed(params, v[rest], mean, seed, n_chains, n_steps)
    return out


def _equal_rows(missing: AnyArray, index: Indices) -> Iterator[Indices]:
    """Yield groups of the rows ``index`` that miss the same units."""
    if len(index) == 0:
        return
    _, group = np.unique(np.packbits(missing[index], axis=1), axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    edges = np.flatnonzero(np.diff(group.ravel()[order])) + 1
    for part in np.split(order, edges):
        yield index[part]


def _expected(params: Params, v: Array, missing: AnyArray) -> Array:
    """Return the exact expectation of the missing units, (n, n_missing)."""
    params = params.astype(float)
    W, visible = params.weights[missing], params.visible[missing]
    hidden = params.hidden + v[:, ~missing].astype(float) @ params.weights[~missing]
    if len(visible) < len(params.hidden):
        return np.stack([_over_visible(Params(W, visible, one)) for one in hidden])
    totals, sums = [], []
    for states in _state_blocks(len(params.hidden), len(visible)):
        inputs = states @ W.T + visible
        log_weight = hidden @ states.T + sum_softplus(inputs)  # (n, n_states)
        totals.append(logsumexp(log_weight, axis=1))
        sums.append(np.exp(log_weight - totals[-1][:, None]) @ expit(inputs))
    return _joined(np.array(totals), np.array(sums))


def _over_visible(params: Params) -> Array:
    """Return the expectation of the visible units by enumeration of their states."""
    totals, sums = [], []
    for states in _state_blocks(*params.weights.shape):
        inputs = states @ params.weights + params.hidden
        log_weight = states @ params.visible + sum_softplus(inputs)
        totals.append([logsumexp(log_weight)])
        sums.append(np.exp(log_weight - totals[-1][0])[None] @ states)
    return _joined(np.array(totals), np.array(sums))[0]


def _state_blocks(n_units: int, n_others: int) -> Iterator[Array]:
    """Yield all states of a layer in blocks that fit in the cache."""
    n_low = min(n_units, max(0, (BLOCK // n_others).bit_length() - 1))
    low = binary_states(n_low)
    for high in binary_states(n_units - n_low):
        yield np.hstack([low, np.broadcast_to(high, (len(low), len(high)))])


def _joined(totals: Array, sums: Array) -> Array:
    """Return the average of the means of blocks, weighted by the logarithms ``totals``."""
    share = np.exp(totals - logsumexp(totals, axis=0))
    joined: Array = np.einsum("bn,bnd->nd", share, sums)
    return joined


def _annealed(
    params: Params,
    known: Array,
    mean: Array,
    seed: int,
    n_chains: int,
    n_steps: int,
) -> Array:
    """Return rows with NaN replaced by averages over annealed Gibbs chains.

    Each chain starts at independent missing units and is annealed to the RBM during the
    first half of the steps. The probabilities of the visible units are averaged over the rest.
    All rows share uniform numbers, to which each row adds its own shifts modulo 1: the chains
    of a row do not depend on the other rows, and errors still average out over rows.
    """
    missing, n_visible = np.isnan(known), known.shape[1]
    shifts = row_shifts(known, n_visible + len(params.hidden), seed).astype(np.float32)
    rng = np.random.Generator(np.random.SFC64(seed))

    def drawn(probabilities: Array, shifts: Array) -> Array:
        uniform = rng.random(shifts.shape[1], dtype=np.float32) + shifts
        uniform -= np.floor(uniform)  # modulo 1, in a quarter of the time
        return (uniform < probabilities).astype(probabilities.dtype)

    start = _starting_mean(mean_field(params, known, mean, N_MEAN_FIELD))
    start = np.where(missing, start, 0.5)
    base: Array = logit(start)
    slope, n_warm = params.visible - base, n_steps // 2
    total = np.zeros_like(known)
    for _ in range(n_chains):
        v = np.where(missing, drawn(start, shifts[:, :n_visible]), known)
        for step in range(n_steps):
            t = min(1, (step + 1) / (n_warm + 1))
            h = drawn(sigmoid(t * (v @ params.weights + params.hidden)), shifts[:, n_visible:])
            p = sigmoid(base + t * (slope + h @ params.weights.T))
            if step >= n_warm:
                total += p
            v = np.where(missing, drawn(p, shifts[:, :n_visible]), known)
    total /= n_chains * (n_steps - n_warm)
    return np.where(missing, total, known)
