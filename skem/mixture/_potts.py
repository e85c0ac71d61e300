"""A Potts prior that favors the same component for neighbors, fitted by mean field.

    p(z) ~ prod_{n ~ m} exp(beta [z_n = z_m]),   x_n | z_n = k ~ N(mu_k, Sigma_k)
    F(q, theta) = sum_nk q_nk (log N(x_n | k) - log q_nk)
                  + beta sum_{n ~ m} sum_k q_nk q_mk + log p(mu, Sigma)

Given its neighbors, q_n = softmax_k(log N(x_n | k) + beta sum_{m ~ n} q_mk) maximizes F.
The rows are split into classes without neighbors inside a class. One class after the other
is updated, so that F never decreases. The M step of means and covariances is the one of the
mixture. The weights of the mixture are not part of the model: learned together with the
coupling, they would grow until one component had all rows. F bounds the log-density up to
the constant log-normalizer of the Potts prior.
"""

from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np
from scipy.sparse import csr_array, sparray, spmatrix
from scipy.special import softmax, xlogy

from skem._typing import Array, Indices
from skem.mixture._model import Mixture, Stats
from skem.mixture._params import Params

# The mean field of given parameters has converged when a sweep raises the bound by at most
# SWEEP_TOL nats per row, far less than a usual ``tol``. MAX_SWEEPS only bounds the time.
MAX_SWEEPS, SWEEP_TOL = 100, 1e-6


def neighbors(connectivity: sparray | spmatrix | Array, n_rows: int) -> csr_array:
    """Return the graph, made symmetric and without self-loops."""
    graph = csr_array(connectivity, dtype=float)
    if graph.shape != (n_rows, n_rows):
        raise ValueError(
            f"connectivity has shape {graph.shape}, but X has {n_rows} rows: pass a matrix of "
            f"shape {(n_rows, n_rows)}, with one entry for each pair of rows."
        )
    if not np.isfinite(graph.data).all() or (graph.data < 0).any():
        raise ValueError(
            "connectivity must hold finite weights of at least 0, but some are negative, NaN "
            "or infinite: use 1 for neighbors and 0 for other pairs."
        )
    graph = graph.maximum(graph.T).tocsr()
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def independent_classes(graph: csr_array) -> list[Indices]:
    """Return classes of rows without neighbors inside a class.

    Every row has a random priority. Each class takes the remaining rows whose priority is
    above the priorities of all their remaining neighbors.
    """
    n = graph.shape[0]
    priority = np.random.RandomState(0).permutation(n) + 1
    degrees = np.diff(graph.indptr)
    some = np.flatnonzero(degrees)
    classes = []
    left = priority.copy()
    while left.any():
        highest = np.zeros(n, dtype=left.dtype)
        if len(some):
            highest[some] = np.maximum.reduceat(left[graph.indices], graph.indptr[some])
        chosen = np.flatnonzero((left > 0) & (left > highest))
        classes.append(chosen)
        left[chosen] = 0
    return classes


class PottsMixture(Mixture):
    """Mixture whose labels have a Potts prior instead of weights."""

    def log_prior(self, params: Params) -> float:
        return 0.0 if self.is_flat else self.log_prior_of_components(params)

    def _weights(self, counts: Array) -> Array:
        return counts / counts.sum()


class PottsPasses:
    """E steps over all rows; the responsibilities are kept from pass to pass."""

    def __init__(
        self,
        model: Mixture,
        X: Array,
        graph: csr_array,
        coupling: float,
        evidence: Array | None = None,
    ) -> None:
        self._model, self._groups = model, model.rows(X, float)
        self._parts = [(rows, coupling * graph[rows]) for rows in independent_classes(graph)]
        self._weight, self._evidence = np.ones(len(X)), evidence
        self.responsibilities: Array | None = None

    def total(self, params: Params) -> Stats:
        """Run one sweep over the rows and return the statistics; ``log_lik`` is the bound."""
        log_density = self._log_density(params)
        quality = self._sweep(log_density)
        q: Any = self.responsibilities
        stats = self._model.e_step(params, self._groups, self._weight, q)
        return replace(stats, log_lik=float(np.vdot(q, _finite(log_density))) + quality)

    def posterior(self, params: Params, fitted: Array | None) -> Array:
        """Return the mean field (n, K) at these parameters.

        The mean field has several modes. Sweeps start from the rows alone, and from the
        responsibilities of the fit; the higher bound wins.
        """
        log_density = self._log_density(params)
        found = [self._settled(log_density, softmax(log_density, axis=1))]
        if fitted is not None and fitted.shape == log_density.shape:
            found.append(self._settled(log_density, fitted.astype(float)))
        return max(found, key=itemgetter(0))[1]

    def _settled(self, log_density: Array, start: Array) -> tuple[float, Array]:
        """Return the bound in nats per row and the mean field that sweeps end in."""
        self.responsibilities, before = start.copy(), -np.inf
        for _ in range(MAX_SWEEPS):
            quality = self._sweep(log_density)
            q = self.responsibilities
            bound = (quality + float(np.vdot(q, _finite(log_density)))) / len(q)
            if bound - before <= SWEEP_TOL:
                break
            before = bound
        return bound, q

    def _log_density(self, params: Params) -> Array:
        """Return log N(x | k), (n, K), plus the log of the evidence.

        It is -inf for components that are switched off or that the evidence excludes.
        """
        log_joint = self._model.log_joint(params, self._groups)
        log_density = log_joint - np.log(np.where(params.weights > 0, params.weights, 1))
        if self._evidence is None:
            return log_density
        with np.errstate(divide="ignore"):
            return log_density + np.log(self._evidence)

    def _sweep(self, log_density: Array) -> float:
        """Update the responsibilities; return their entropy plus neighbor agreement."""
        if self.responsibilities is None:
            self.responsibilities = softmax(log_density, axis=1)
        q = self.responsibilities
        agreement = 0.0
        for rows, graph in self._parts:
            q[rows] = softmax(log_density[rows] + graph @ q, axis=1)
        for rows, graph in self._parts:
            agreement += float(np.vdot(q[rows], graph @ q))
        return agreement / 2 - float(xlogy(q, q).sum())


def _finite(log_density: Array) -> Array:
    return np.where(np.isfinite(log_density), log_density, 0)
