"""What is known of the component of each row: labels, or an atlas.

Row n has evidence a_nk, in proportion to how probable what is known is in component k:

    p(x_n, a_n) = sum_k pi_k a_nk N(x_n | mu_k, Sigma_k)

A label is a row of 0 with a single 1. Equal values say nothing. The responsibilities become
proportional to pi_k a_nk N(x_n | k), and the M step stays as it is.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import entr, softmax

from skem._rows.parts import Rows
from skem._typing import Array
from skem.mixture._aside import AsidePasses, checked_aside, of_positive
from skem.mixture._candidates import MIN_SHARE, params_of_moments, steadied
from skem.mixture._covariances import Layout
from skem.mixture._given import Given
from skem.mixture._missing import Groups
from skem.mixture._model import Mixture, Stats
from skem.mixture._params import Params
from skem.mixture._starts import Search, SearchInterruptedError

# Evidence nearer to equal than this, as a share of the largest entropy, is rounding.
MIN_INFORMATION = 1e-9
# A component with a smaller share of what is known starts from the rows instead.
MIN_KNOWN = 1e-3


def evidence_of_fit(resp_prior: Any, rows: Rows, estimator: Any) -> Array | None:
    """Return what is known of the components of the rows with a weight above 0."""
    if resp_prior is None:
        return None
    alpha = estimator.weight_concentration_prior
    if alpha is not None and alpha < 1:
        raise ValueError(
            "resp_prior cannot be combined with weight_concentration_prior below 1, which "
            "switches off components that labels may need: omit one of them."
        )
    evidence = evidence_of(resp_prior, len(rows), int(estimator.n_components))
    return of_positive(rows, evidence)


def evidence_of(resp_prior: Any, n_rows: int, n_components: int) -> Array:
    """Return checked evidence (n, K), whose largest value in each row is 1."""
    evidence = checked_aside("resp_prior", resp_prior, (n_rows, n_components))
    if not (np.isfinite(evidence).all() and (evidence >= 0).all()):
        raise ValueError(
            "resp_prior must hold finite probabilities of at least 0, but some are negative, "
            "NaN or infinite: give a row of equal values where nothing is known."
        )
    top = evidence.max(axis=1, keepdims=True)
    if not top.all():
        raise ValueError(
            f"resp_prior must have a value above 0 in each row, but row {int(top.argmin())} "
            "has none: give a row of equal values where nothing is known."
        )
    return evidence / top


def known_posterior(log_joint: Array, evidence: Array) -> tuple[Array, Array]:
    """Return the log-likelihood of each row (n,) and its posterior (n, K).

    If a row is impossible in all components that the evidence allows, the evidence decides.
    """
    with np.errstate(divide="ignore"):
        log_evidence = np.log(evidence)
    joint = log_joint + log_evidence
    top = joint.max(axis=1)
    joint = np.where(np.isfinite(top)[:, None], joint, log_evidence)
    highest = joint.max(axis=1)
    shares = np.exp(joint - highest[:, None])
    total = shares.sum(axis=1)
    return np.where(np.isfinite(top), highest, -np.inf) + np.log(total), shares / total[:, None]


class KnownMixture(Mixture):
    """Mixture in which something is known of the component of each row."""

    def e_step(
        self,
        params: Params,
        groups: Groups,
        weight: Array,
        responsibilities: Array | None = None,
    ) -> Stats:
        """Return the expected sums of a chunk, given the evidence as ``responsibilities``."""
        assert responsibilities is not None
        log_lik, r = known_posterior(self.log_joint(params, groups), responsibilities)
        stats = super().e_step(params, groups, weight, r)
        return replace(stats, log_lik=float(weight @ log_lik))


def known_passes(search: Search, evidence: Array | None, n_jobs: int | None) -> AsidePasses:
    """Return the passes that take the evidence into account."""
    assert evidence is not None
    known = KnownMixture(**vars(search.model))
    return AsidePasses(known, search.passes.rows, evidence, n_jobs)


def known_starts(
    search: Search, passes: AsidePasses, given: Given, starts: Iterator[Params]
) -> Iterator[Params]:
    """Yield starts whose components are in the order of the evidence, best first.

    What is given stays with its component.
    One start comes from the rows of which something is known, the other from the
    components that the rows alone suggest. EM runs from both, and the better end comes first.
    """
    matched = _matched(search.model, passes, next(starts))
    ends = []
    for start in (_from_evidence(search.model, passes, matched), matched):
        with suppress(FloatingPointError):
            run = search.em(passes, given.on(start))
            ends.append((run.objectives[-1], run.state[0]))
            if run.interrupted:
                raise SearchInterruptedError(run.state[0])
    ends.sort(key=lambda end: -end[0])
    yield from (params for _, params in ends)
    yield from (given.on(_matched(search.model, passes, params)) for params in starts)


def _information(evidence: Array) -> Array:
    """Return the evidence as probabilities, times how much it says between 0 and 1."""
    shares = evidence / evidence.sum(axis=1, keepdims=True)
    K = shares.shape[1]
    said = 1 - entr(shares).sum(axis=1) / np.log(K) if K > 1 else np.ones(len(shares))
    said[said < MIN_INFORMATION] = 0
    found: Array = shares * said[:, None]
    return found


def _matched(model: Mixture, passes: AsidePasses, params: Params) -> Params:
    """Return the parameters with the components in the order that suits the evidence."""
    agreement = passes.fold(partial(_agreement, model, params))
    _, order = linear_sum_assignment(-agreement)
    covariances = params.covariances
    if model.layout.n_groups > 1:
        covariances = covariances[order]
    return Params(params.layout, params.weights[order], params.means[order], covariances)


def _agreement(
    model: Mixture, params: Params, groups: Groups, weight: Array, evidence: Array
) -> Array:
    posterior = softmax(model.log_joint(params, groups), axis=1)
    found: Array = (weight[:, None] * _information(evidence)).T @ posterior
    return found


def _from_evidence(model: Mixture, passes: AsidePasses, matched: Params) -> Params:
    """Return the moments of the rows of which something is known."""
    layout, (K, D) = model.layout, matched.means.shape
    units = np.where(model.scale > 0, model.scale, 1.0)
    own = Layout("full" if layout.dense else "diag", K, D)
    variances = np.tile(
        np.diag(units**2) if layout.dense else units**2, (K, *[1] * own.dense, 1)
    )
    plain = replace(model, layout=own, fast=False)
    around = Params(own, np.full(K, 1 / K), matched.means, own.to_blocks(variances))
    stats = passes.fold(partial(_known_sums, plain, around))
    known = stats.counts > MIN_KNOWN * stats.weight
    if not known.any():
        return matched
    moments = plain.moments(around, stats)
    floor = (MIN_SHARE * model.scale) ** 2
    found = params_of_moments(model, *steadied(stats.counts, *moments, floor))
    means = np.where(known[:, None], found.means, matched.means)
    covariances = found.covariances
    if layout.n_groups > 1:
        covariances = np.where(known[:, None, None, None], covariances, matched.covariances)
    return Params(layout, np.full(K, 1 / K), means, covariances)


def _known_sums(
    model: Mixture, params: Params, groups: Groups, weight: Array, evidence: Array
) -> Stats:
    return model.e_step(params, groups, weight, _information(evidence))
