"""A Potts prior that draws neighbours to the same component, by mean field.

    p(z | pi) ~ prod_n pi_{z_n}  prod_{n ~ m} exp(beta [z_n = z_m])
    F(q, theta) = sum_nk q_nk (log pi_k N(x_n | k) - log q_nk)
                  + beta sum_{n ~ m} sum_k q_nk q_mk + log p(theta)

Given its neighbours, q_n = softmax_k(log pi_k N(x_n | k) + beta sum_{m ~ n} q_mk) maximises
F. Rows that are not neighbours are updated together, class by class, so that F never
decreases; the M step is that of the mixture. F bounds the log-density up to the normaliser
of the Potts prior, which is left out.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, sparray, spmatrix
from scipy.special import softmax, xlogy

from skem._covariances import Array
from skem._mixture_model import Mixture, Params, Stats

MAX_SWEEPS, SWEEP_TOL = 100, 1e-6


def neighbours(connectivity: sparray | spmatrix | Array, n_rows: int) -> csr_array:
    """The graph, symmetric, without loops."""
    graph = csr_array(connectivity, dtype=float)
    if graph.shape != (n_rows, n_rows):
        raise ValueError(
            f"connectivity has shape {graph.shape}, but X has {n_rows} rows: it must say of "
            "each pair of rows whether they are neighbours."
        )
    if not np.isfinite(graph.data).all() or (graph.data < 0).any():
        raise ValueError("connectivity must hold finite weights of at least 0.")
    graph = graph.maximum(graph.T).tocsr()
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def independent_classes(graph: csr_array) -> list[NDArray[np.intp]]:
    """Classes of rows without neighbours in their own class.

    Each takes the rows left whose random priority is above that of all neighbours left.
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


class PottsPasses:
    """E steps over all rows that keep their responsibilities from pass to pass."""

    def __init__(
        self,
        model: Mixture,
        X: Array,
        graph: csr_array,
        coupling: float,
    ) -> None:
        self._model, self._groups = model, model.rows(X, float)
        self._parts = [(rows, coupling * graph[rows]) for rows in independent_classes(graph)]
        self._weight = np.ones(len(X))
        self.responsibilities: Array | None = None

    def total(self, params: Params) -> Stats:
        """One sweep over the rows; ``log_lik`` is the bound."""
        log_joint = self._model.log_joint(params, self._groups)
        quality = self._sweep(log_joint)
        stats: Any = self._model.given_step(
            params, self._groups, self._weight, self.responsibilities
        )
        return replace(stats, log_lik=stats.log_lik + quality)

    def posterior(self, params: Params) -> Array:
        """The mean field of given parameters, (n, K)."""
        log_joint = self._model.log_joint(params, self._groups)
        finite = np.where(np.isfinite(log_joint), log_joint, 0)
        before = -np.inf
        for _ in range(MAX_SWEEPS):
            quality = self._sweep(log_joint)
            bound = (quality + float(np.vdot(self.responsibilities, finite))) / len(finite)
            if bound - before <= SWEEP_TOL:
                break
            before = bound
        return self.responsibilities

    def _sweep(self, log_joint: Array) -> float:
        """Update the responsibilities; entropy and agreement with neighbours."""
        if self.responsibilities is None:
            self.responsibilities = softmax(log_joint, axis=1)
        q = self.responsibilities
        agreement = 0.0
        for rows, graph in self._parts:
            q[rows] = softmax(log_joint[rows] + graph @ q, axis=1)
        for rows, graph in self._parts:
            agreement += float(np.vdot(q[rows], graph @ q))
        return agreement / 2 - float(xlogy(q, q).sum())
