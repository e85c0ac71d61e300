"""What the EM estimators share: a categorical hidden variable, fitted by EM."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.special import logsumexp, softmax

from skem._base.estimator import (
    LatentEstimator,
    ReconstructMixin,
    hooks,
    warn,
    warn_if_interrupted,
)
from skem._base.passes import Model, Passes
from skem._base.places import hosted
from skem._base.streams import rowwise, weighted_mean
from skem._loop import Run, em
from skem._rows.parts import Rows, chunks, working_dtype
from skem._threads import ThreadMap, one_blas_thread
from skem._typing import AnyArray, Array

Trained = tuple[Any, Run]  # a model, and its finished run
# Log-density that stands for those below the range of floating-point numbers. Beside it, -inf
# has probability 0.
FARTHEST = -float(np.finfo(float).max)
# From FAR nats below 0, rounding hides differences between categories. NEAR nats below 0 they
# show. Of categories that differ by SURE nats, one is certain.
FAR, NEAR, SURE = 1e14, 1e12, 40.0


class EMEstimator(ReconstructMixin, LatentEstimator):
    """The frame of fits by EM.

    A subclass has the parameters ``max_iter``, ``tol``, ``n_jobs``, ``verbose``,
    ``verbose_interval``, ``learning_offset`` and ``learning_decay``, and the methods

    - ``_check_same_model(n_features)``: refuse to continue a fit of other sizes;
    - ``_fitted_model()`` and ``_params(model)``: what the fitted attributes say;
    - ``_attributes(model, params, stats)``: the fitted attributes as a dict;
    - ``_n_parameters()``: the number of free parameters;
    - ``inverse_transform(code)``.
    """

    # -- fitting ----------------------------------------------------------------------

    def _run_em(
        self, model: Model, passes: Any, params: Any, max_iter: int, **rule: Any
    ) -> Run:
        """Run EM to convergence, with callbacks and a line per ``verbose_interval``.

        ``rule`` says how the loop stops: ``tol``, ``delay`` or ``patient``.
        """

        def line(run: Run) -> str:
            gain = run.objectives[-1] - run.objectives[-2]
            return f"{run.objectives[-1]:.6f} nats per sample, gain {gain:.2e}"

        def keep(run: Run) -> None:
            self._fitting.best = model, run.state, run.objectives[-1]

        return em(
            model,
            passes.total,
            params,
            max_iter=max_iter,
            **{"tol": self.tol, **rule},
            **hooks(
                self,
                int(self.verbose_interval) if self.verbose else 0,
                line,
                lambda run: self._attributes(model, *run.state),
                keep=keep,
            ),
        )

    def _keep(self, trained: Trained) -> None:
        model, run = trained
        # a callback may ask for an earlier iteration, also one of an earlier start
        model, (params, stats), objective = self._fitting.best or (model, run.state, None)
        objectives = run.objectives or [self._start_objective(model, params, stats)]
        self._set_attributes(model, params, stats, stats.weight, n_batches=1)
        self.lower_bounds_ = objectives[1:]
        self.lower_bound_ = objectives[-1] if objective is None else objective
        self.n_iter_ = run.n_iter
        self.converged_ = run.converged
        warn_if_interrupted(self, run)
        if not (run.interrupted or run.converged or run.stopped) and self.max_iter > 0:
            warn(
                f"{type(self).__name__} did not converge in max_iter={self.max_iter} "
                f"iterations: the last change was not below tol={self.tol:g} nats per sample. "
                "Raise max_iter or tol."
            )

    def _start_objective(self, model: Model, params: Any, stats: Any) -> float:
        """Return the objective of a start without iterations: -inf where the prior is 0."""
        if not np.isfinite(stats.log_lik):
            raise ValueError(
                f"The log-likelihood at the starting values is {stats.log_lik}: they are too "
                "far from X. Change the starting values, or raise max_iter."
            )
        return float((stats.log_lik + model.log_prior(params)) / stats.weight)

    def _set_attributes(
        self, model: Model, params: Any, stats: Any, weight_seen: float, *, n_batches: int
    ) -> None:
        """Set the fitted attributes, and the statistics that online EM continues from."""
        for name, value in self._attributes(model, params, stats).items():
            setattr(self, name, value)
        self._statistics = vars((1 / stats.weight) * stats)
        self._weight_seen, self._n_batches = weight_seen, n_batches

    def _partial_fit(self, X: Any, sample_weight: Any) -> Self:
        """Fit the first batch; take one step of online EM on a later one."""
        if not self._is_fitted():
            return self.fit(X, sample_weight=sample_weight)
        self._check_parameters()
        rows = self._check_rows(X, sample_weight, reset=False)
        self._check_same_model(rows.shape[1])
        self._update(self._fitted_model(), rows.positive())
        return self

    def _update(self, model: Model, rows: Rows) -> None:
        params = self._params(model)
        with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
            stats = Passes(model, rows, self.n_jobs).total(params)
        step = (self._n_batches + self.learning_offset) ** -self.learning_decay
        kept = type(stats)(**hosted(self._statistics))
        seen = self._weight_seen + stats.weight
        objective = float(stats.log_lik / stats.weight + model.log_prior(params) / seen)
        mixed = (1 - step) * kept + (step / stats.weight) * stats
        try:
            if not (np.isfinite(objective) and mixed.is_finite()):
                raise FloatingPointError("its likelihood is not finite")
            new = model.m_step(params, seen * mixed)
        except FloatingPointError as error:
            raise ValueError(
                f"X cannot be added to the fit: {error}. Scale it like the first "
                "batch, or pass larger batches."
            ) from error
        mixed = model.recenter(mixed, params, new)
        self._set_attributes(model, new, mixed, seen, n_batches=self._n_batches + 1)
        self.lower_bound_ = objective
        self.lower_bounds_.append(objective)
        self.n_iter_ += 1

    # -- verbs ------------------------------------------------------------------------

    def _map_rows(
        self,
        X: ArrayLike,
        function: Callable[[Any, Any, Any], AnyArray],
        dtype: DTypeLike | None = None,
    ) -> AnyArray:
        """Apply ``function(model, params, rows)`` to chunks of X, in float64.

        The result has the given dtype, by default that of X.
        """
        values = self._in_memory(X)
        model = self._fitted_model()
        params = self._params(model)

        def of_chunk(part: slice) -> AnyArray:
            return function(model, params, model.rows(values[part], np.float64))

        parts = chunks(len(values), model.row_size)
        # a log-density may be too large a number for float32; infinity is then its limit
        with one_blas_thread(), np.errstate(over="ignore"):
            found = iter(ThreadMap(self.n_jobs)(of_chunk, parts))
            first = next(found)
            out = np.empty((len(values), *first.shape[1:]), dtype or working_dtype(values))
            out[parts[0]] = first
            for part, result in zip(parts[1:], found, strict=True):
                out[part] = result
        return out

    @rowwise
    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples,)
            The log-density log p(x) of the observed values, in nats.
        """
        return self._map_rows(X, _log_likelihood)

    @rowwise
    def log_joint(self, X: ArrayLike) -> Array:
        """Return the log-density of each row together with each value of the hidden variable.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_categories)
            The log-density log p(x, d) in nats, where d is the hidden variable. Its
            ``logsumexp`` over the categories is ``score_samples(X)``. Subtract the logarithms
            of the prior probabilities for log p(x | d).
        """
        return self._map_rows(X, _log_joint)

    @rowwise
    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the posterior probabilities of the hidden variable.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_categories)
            Probabilities; each row sums to 1.
        """
        return self._map_rows(X, _posterior)

    @rowwise
    def transform(self, X: ArrayLike) -> Array:
        """Return the posterior expectation of the hidden variable: its probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_categories)
            ``predict_proba(X)``.
        """
        return self.predict_proba(X)

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return Akaike's information criterion on X; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            Twice the number of free parameters minus twice the log-likelihood in nats.
        """
        mean, weight = weighted_mean(self, "score_samples", X, sample_weight)
        return 2 * self._n_parameters() - 2 * weight * mean

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the Bayesian information criterion on X; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            The number of free parameters times log n minus twice the log-likelihood in
            nats, n being the sum of the weights.
        """
        mean, weight = weighted_mean(self, "score_samples", X, sample_weight)
        return float(self._n_parameters() * np.log(weight) - 2 * weight * mean)


def with_limits(
    log_joint: Array,
    values: Callable[[], Array],
    log_joint_of: Callable[[Array], Array],
    center: Array | float = 0.0,
) -> Array:
    """Return log p(x, k), (n, K), also for rows so far away that rounding hides differences.

    Such a row gets its density, or ``FARTHEST`` if that underflows, for the nearest category
    and -inf for the others. The nearest category is that of the same row brought near, to
    where distances differ by more than rounding. ``values`` returns the rows X (n, D), and
    ``log_joint_of`` maps other rows to their log p(x, k). Rows are brought near to ``center``
    (D,), a point among the categories.
    """
    top = log_joint.max(1)
    far = np.flatnonzero(~(top > -FAR))
    if not len(far):
        return log_joint
    X = values()[far].astype(float) / 2 - np.divide(center, 2)  # no difference overflows
    X /= np.nanmax(np.abs(X), axis=1, keepdims=True)
    out, left = log_joint.copy(), np.arange(len(X))
    for exponent in range(150, -301, -25):
        distance = -log_joint_of(center + 10.0**exponent * X[left]).max(1)
        done = np.isfinite(distance)
        if not done.any():
            continue
        scale = 10.0**exponent * np.sqrt(NEAR / np.maximum(distance[done], NEAR))
        near = log_joint_of(center + scale[:, None] * X[left[done]])
        nearest = near >= near.max(1, keepdims=True) - SURE
        place = far[left[done]]
        limit = np.where(np.isfinite(top[place]), top[place], FARTHEST)
        out[place] = np.where(nearest, limit[:, None], -np.inf)
        left = left[~done]
        if not len(left):
            break
    return out


def _log_joint(model: Any, params: Any, rows: Any) -> Array:
    found: Array = model.log_joint(params, rows)
    return np.where(found <= FARTHEST, -np.inf, found)


def _log_likelihood(model: Any, params: Any, rows: Any) -> Array:
    found: Array = logsumexp(model.log_joint(params, rows), axis=1)
    return np.where(found <= FARTHEST, -np.inf, found)


def _posterior(model: Any, params: Any, rows: Any) -> Array:
    found: Array = softmax(model.log_joint(params, rows), axis=1)
    return found
