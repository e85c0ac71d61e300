"""Moves of components to where they explain more, tried on a sample.

A sample shows no group of few rows. One pass over all rows finds the rows of lowest density,
and the sample is joined by them. A move then merges two components that overlap, and puts the
free one at a group of such rows, or splits a component that fits badly (Ueda, Nakano,
Ghahramani and Hinton, 2000).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.cluster import KMeans

from skem._base.passes import Passes
from skem._rows.parts import InMemory
from skem._typing import Array, Indices
from skem.mixture._candidates import DECIMALS, Batch, Scores
from skem.mixture._missing import Groups, some_values_of
from skem.mixture._model import Mixture
from skem.mixture._params import Params

N_LOW_GROUPS = 10  # clusters of the rows of lowest density
N_PAIRS = 3  # pairs of components that may be merged
# Moves of a round: which pair is merged, and to which low group the free component goes, or
# which badly fitted component is split.
PLAN = ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1))
N_ROUNDS = 5  # rounds at most; a round without an accepted move is the last
N_ITER = 4  # iterations of EM after a move, before it is compared
MIN_GAIN = 1e-6  # smallest gain of a move, in nats per row
MIN_REST = 1e-300  # smallest share of a row that other components explain
SPLIT_SHIFT = 0.8  # standard deviations from a component to its halves


@dataclass(frozen=True)
class Lowest:
    """The rows of lowest density, as a value that can be summed over parts."""

    size: int
    values: Array
    weight: Array
    log_density: Array

    def __add__(self, other: "Lowest") -> "Lowest":
        return Lowest(
            self.size,
            np.concatenate([self.values, other.values]),
            np.concatenate([self.weight, other.weight]),
            np.concatenate([self.log_density, other.log_density]),
        ).cut()

    def cut(self) -> "Lowest":
        """Return the lowest rows only, in an order that does not depend on the parts."""
        order = np.lexsort([*self.values.T, self.log_density.round(DECIMALS)])[: self.size]
        return Lowest(
            self.size, self.values[order], self.weight[order], self.log_density[order]
        )


def with_lowest(
    model: Mixture, passes: Passes, sample: InMemory, params: Params, size: int
) -> InMemory:
    """Return the sample in which all rows of lowest density stand for themselves."""
    low = passes.fold(partial(_lowest_of, model, params, size), params)
    limit = low.log_density.max()
    values, weight = sample.values, np.asarray(sample.weight)
    others = _log_density(model, params, model.rows(values, float)) > limit
    rest = weight.sum() - low.weight.sum()
    if not others.any() or rest <= 0:
        return InMemory(low.values, low.weight)
    kept = weight[others]
    return InMemory(
        np.concatenate([values[others], low.values.astype(values.dtype)]),
        np.concatenate([kept * (rest / kept.sum()), low.weight]),
    )


def _lowest_of(
    model: Mixture, params: Params, size: int, groups: Groups, weight: Array
) -> Lowest:
    log_density = _log_density(model, params, groups)
    index = np.arange(len(log_density))
    if len(index) > size:
        index = np.argpartition(log_density, size)[:size]
    values = some_values_of(groups, index, len(log_density), model.layout.n_features)
    return Lowest(size, values, weight[index], log_density[index]).cut()


def _log_density(model: Mixture, params: Params, groups: Any) -> Array:
    return np.asarray(logsumexp(model.log_joint(params, groups), axis=1), dtype=float)


def moved(model: Mixture, sample: InMemory, params: Params) -> Params | None:
    """Return parameters that fit the sample better after moves, or None."""
    groups = model.rows(sample.values, float)
    X, weight = model.impute(params, groups), np.asarray(sample.weight)
    batch = Batch(model, X, weight, np.isnan(sample.values))
    log_joint = model.log_joint(params, groups)
    shares = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True)).T
    scores = batch.run(batch.sums_of((shares * weight)[None]), 1)
    accepted = False
    for _ in range(N_ROUNDS):
        better = _moved_once(batch, scores)
        if better is None:
            break
        scores, accepted = batch.run(better, N_ITER), True
    return batch.params(scores.sums[0]) if accepted else None


def _moved_once(batch: Batch, scores: Scores) -> Array | None:
    """Return the sums (1, K, F) after the best move, or None if no move is a gain.

    Each move changes two or three components. They run a few iterations of EM while the
    others stay as they are.
    """
    sums, log_density = scores.sums[0], scores.log_density[0]
    best: tuple[tuple[int, float], Array] | None = None
    for changed, new in proposals(batch, scores):
        taken = scores.responsibilities[0, changed].sum(0) / batch.weight
        log_rest = log_density + np.log(np.maximum(1 - taken, MIN_REST))
        tried = batch.run(new[None], N_ITER, log_rest=log_rest[None])
        few = int(tried.n_bad[0]) - _n_few(batch, sums[changed])
        rank = (few, -float(tried.objective[0]))
        if best is None or rank < best[0]:
            whole = sums.copy()
            whole[changed] = tried.sums[0]
            best = rank, whole
    if best is None:
        return None
    (few, objective), whole = best
    gain = -objective - float(scores.objective[0])
    return whole[None] if few < 0 or (few == 0 and gain > MIN_GAIN) else None


def _n_few(batch: Batch, sums: Array) -> int:
    return int((sums[:, 0] < batch.few / batch.model.layout.group_size).sum())


def proposals(batch: Batch, scores: Scores) -> Iterator[tuple[list[int], Array]]:
    """Yield the components that a move changes, and their sums after it."""
    sums = scores.sums[0]
    pairs = _mergeable(scores.responsibilities[0], batch.weight)
    bad = _badly_fitted(batch, scores)
    groups = _low_groups(batch, scores.log_density[0])
    for i, j in PLAN:
        first, second = pairs[i % len(pairs)]
        merged = sums[first] + sums[second]
        if j < len(groups):
            yield [first, second], np.stack([merged, groups[j]])
        free = [int(k) for k in bad if k not in (first, second)]
        if j < len(free):
            parent = free[j]
            yield [first, second, parent], np.stack([merged, *_halves(batch, sums[parent])])


def _mergeable(r: Array, weight: Array) -> list[tuple[int, int]]:
    """Return the pairs of components to merge: the most alike, then the smallest with another.

    Components are alike if their responsibilities are.
    """
    products = (r / weight) @ r.T
    norms = np.sqrt(np.diag(products))
    alike = products / np.maximum(np.outer(norms, norms), 1e-300)
    first, second = np.triu_indices(len(r), 1)
    order = np.argsort(-alike[first, second], kind="stable")[:N_PAIRS]
    pairs = [(int(first[i]), int(second[i])) for i in order]
    smallest = int(r.sum(1).argmin())
    alike[smallest, smallest] = -1
    return [*pairs[:1], (int(alike[smallest].argmax()), smallest), *pairs[1:]]


def _badly_fitted(batch: Batch, scores: Scores) -> Indices:
    """Return the components, first those whose rows have a lower density than expected."""
    counts, averages, scatter = batch.moments(scores.sums)
    theta = batch.theta(counts, averages, scatter)[0]
    # E[phi] under a component equals its sums divided by its count
    expected = np.einsum("kf,kf->k", theta, scores.sums[0])
    found = scores.responsibilities[0] @ scores.log_density[0]
    return np.argsort(found - expected, kind="stable")


def _low_groups(batch: Batch, log_density: Array) -> list[Array]:
    """Return the sums of groups of rows of low density, the most promising first."""
    index = np.argsort(log_density, kind="stable")[: max(200, len(log_density) // 6)]
    if len(index) < 2 * N_LOW_GROUPS:
        return []
    with_weights = batch.weight[index]
    labels = KMeans(N_LOW_GROUPS, n_init=1, random_state=0).fit(
        batch.z[index], sample_weight=with_weights
    ).labels_  # fmt: skip
    found = []
    for label in range(N_LOW_GROUPS):
        own = index[labels == label]
        weight, phi = batch.weight[own], batch.phi[own]
        if weight.sum() < batch.few:
            continue
        sums = weight @ phi
        steady = batch.steadied(np.stack([sums, batch.weight @ batch.phi])[None])
        theta = batch.theta(*steady)[0, 0]
        gain = weight @ (phi @ theta - log_density[own])
        found.append((gain, sums))
    found.sort(key=lambda pair: -pair[0])
    return [sums for _, sums in found]


def _halves(batch: Batch, sums: Array) -> tuple[Array, Array]:
    """Return the sums of two halves of a component; together they have its moments."""
    counts, averages, scatter = (value[0, 0] for value in batch.moments(sums[None, None]))
    shift = np.zeros(len(averages))
    if scatter.ndim == 2:
        values, vectors = np.linalg.eigh(scatter / counts)
        shift = SPLIT_SHIFT * np.sqrt(max(values[-1], 0)) * vectors[:, -1]
    else:
        axis = scatter.argmax()
        shift[axis] = SPLIT_SHIFT * np.sqrt(scatter[axis] / counts)
    moment = batch.products(shift) * (counts / 2)
    halves = []
    for sign in (1, -1):
        mean = averages + sign * shift
        # the halves share the scatter that their distance does not explain
        products = sums[len(mean) + 1 :] / 2 - batch.products(averages) * counts / 2
        products = products - moment + batch.products(mean) * counts / 2
        halves.append(np.concatenate([[counts / 2], counts / 2 * mean, products]))
    return halves[0], halves[1]
