"""scikit-learn glue that the EM estimators share."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.special import logsumexp, softmax
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning

from skem._base.estimator import (
    MeanScoreMixin,
    check_is_fitted,
    hooks,
    warn_if_interrupted,
    weighted_mean,
)
from skem._base.passes import Passes
from skem._base.streams import rowwise
from skem._loop import Run, em
from skem._rows.parts import chunks, positive, working_dtype
from skem._threads import one_blas_thread, thread_map


class EMEstimator(
    MeanScoreMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    CallbackSupportMixin,
    DensityMixin,
    BaseEstimator,
):
    """What estimators with a categorical hidden variable, fitted by EM, have in common.

    A subclass has the parameters ``max_iter``, ``tol``, ``n_jobs``, ``verbose``,
    ``verbose_interval``, ``learning_offset`` and ``learning_decay``, and the methods

    - ``_check_rows(X, reset)``: X as a checked 2-D array;
    - ``_fitted_model()`` and ``_params(model)``: what the fitted attributes say;
    - ``_attributes(model, params, stats)``: the fitted attributes as a dict;
    - ``_n_parameters()``: the number of free parameters;
    - ``inverse_transform(code)``.
    """

    # -- fitting ----------------------------------------------------------------------

    def _passes(self, model: Any, X: Any, weight: Any) -> Passes:
        return Passes(model, X, weight, self.n_jobs)

    def _run_em(
        self,
        model: Any,
        passes: Passes,
        params: Any,
        X: Any,
        max_iter: int,
        delay: int = 0,
    ) -> Run:
        """EM to convergence, with callbacks and one line per ``verbose_interval``."""

        def line(run: Run) -> str:
            gain = run.objectives[-1] - run.objectives[-2]
            return f"{run.objectives[-1]:.6f} nats per sample, gain {gain:.2e}"

        return em(
            model,
            passes.total,
            params,
            max_iter=max_iter,
            tol=self.tol,
            delay=delay,
            **hooks(
                self,
                X,
                self.verbose_interval if self.verbose else 0,
                line,
                lambda run: self._attributes(model, *run.state),
            ),
        )

    def _keep(self, model: Any, run: Run) -> None:
        """Set the fitted attributes from a finished run, and say what went wrong."""
        params, stats = run.state
        self._set_attributes(model, params, stats, stats.weight, n_batches=1)
        self.lower_bounds_ = run.objectives[1:]
        self.lower_bound_ = run.objectives[-1]
        self.n_iter_ = run.n_iter
        self.converged_ = run.converged
        name = type(self).__name__
        warn_if_interrupted(self, run, stacklevel=5)
        if not (run.interrupted or run.converged or run.stopped) and self.max_iter > 0:
            warnings.warn(
                f"{name} did not converge in max_iter={self.max_iter} iterations: the "
                f"last change was not below tol={self.tol:g} nats per sample. Raise max_iter "
                "or tol.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _set_attributes(
        self, model: Any, params: Any, stats: Any, weight_seen: float, *, n_batches: int
    ) -> None:
        """Set the fitted attributes, and the statistics from which online EM goes on."""
        for name, value in self._attributes(model, params, stats).items():
            setattr(self, name, value)
        self._statistics = vars((1 / stats.weight) * stats)
        self._weight_seen, self._n_batches = weight_seen, n_batches

    def _update(self, model: Any, X: Any, weight: Any) -> None:
        """One step of online EM on a batch."""
        params = self._params(model)
        X, weight = positive(X, weight)
        with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
            stats = self._passes(model, X, weight).total(params)
        step = (self._n_batches + self.learning_offset) ** -self.learning_decay
        kept = type(stats)(**self._statistics)
        seen = self._weight_seen + stats.weight
        objective = float(stats.log_lik / stats.weight + model.log_prior(params) / seen)
        mixed = (1 - step) * kept + (step / stats.weight) * stats
        try:
            if not (np.isfinite(objective) and mixed.is_finite()):
                raise FloatingPointError("their likelihood is not finite")
            new = model.m_step(params, seen * mixed)
        except FloatingPointError as error:
            raise ValueError(
                f"X cannot be added to what was fitted: {error}. Rescale it as the first "
                "batch was, or give larger batches."
            ) from error
        mixed = model.recentre(mixed, params, new)
        self._set_attributes(model, new, mixed, seen, n_batches=self._n_batches + 1)
        self.lower_bound_ = objective
        self.lower_bounds_.append(objective)
        self.n_iter_ += 1

    # -- verbs ------------------------------------------------------------------------

    def _map_rows(
        self,
        X: ArrayLike,
        function: Callable[[Any, Any, Any], NDArray],
        dtype: DTypeLike | None = None,
    ) -> NDArray:
        """Apply ``function(model, params, rows)`` to chunks of X, in float64.

        The result has the given dtype, by default that of X.
        """
        check_is_fitted(self)
        checked: NDArray = self._check_rows(X, reset=False)
        model = self._fitted_model()
        params = self._params(model)

        def of_chunk(part: slice) -> NDArray:
            rows = model.rows(np.asarray(checked[part]), np.float64)
            return function(model, params, rows)

        parts = chunks(len(checked), model.row_size)
        run = thread_map(self.n_jobs)
        dtype = dtype or working_dtype(checked)
        out: NDArray | None = None
        with one_blas_thread():
            for part, values in zip(parts, run(of_chunk, parts), strict=True):
                if out is None:
                    out = np.empty((len(checked), *values.shape[1:]), dtype)
                out[part] = values
        assert out is not None
        return out

    @rowwise
    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
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

        def log_lik(model: Any, params: Any, rows: Any) -> NDArray:
            return logsumexp(model.log_joint(params, rows), axis=1)

        return self._map_rows(X, log_lik, np.float64)

    @rowwise
    def predict_proba(self, X: ArrayLike) -> NDArray:
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

        def posterior(model: Any, params: Any, rows: Any) -> NDArray:
            return softmax(model.log_joint(params, rows), axis=1)

        return self._map_rows(X, posterior)

    @rowwise
    def transform(self, X: ArrayLike) -> NDArray:
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

    def reconstruct(self, X: ArrayLike) -> NDArray:
        """Return the expected noise-free rows given X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            ``inverse_transform(predict_proba(X))``.
        """
        return self.inverse_transform(self.predict_proba(X))

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
