"""The verbs of the mixture about hidden things: components, and missing values."""

from numbers import Integral
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp, softmax
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state

from skem._base.draws import generator_of
from skem._base.estimator import check_is_fitted
from skem._base.input import check_codes, check_count, check_width
from skem._base.places import hosted, place_of, put
from skem._base.streams import row_function, rowwise, weighted_mean
from skem._rows.arrays import Elsewhere
from skem._rows.parts import InMemory, Rows
from skem._threads import one_blas_thread
from skem._typing import Array, Indices
from skem.mixture._background import BackgroundMixture, density_of_fit
from skem.mixture._conditionals import Conditional, Regression, common_gaps, deviations, draw
from skem.mixture._evidence import evidence_of, known_posterior
from skem.mixture._export import gaussian_mixture
from skem.mixture._fitted import FittedMixture
from skem.mixture._missing import Groups
from skem.mixture._model import Mixture
from skem.mixture._noisy import NoisyMixture, noise_of
from skem.mixture._params import Params
from skem.mixture._potts import PottsPasses, neighbors


class MixtureVerbs(FittedMixture):
    """What a fitted mixture says of the components and of missing values."""

    def predict(self, X: ArrayLike) -> Indices:
        """Return the most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples,)
            The index of the most probable component; -1 for the background.
        """
        if self.connectivity is not None:
            return self.predict_proba(X).argmax(1)
        return self._components(X)

    @rowwise
    def _components(self, X: ArrayLike) -> Indices:
        return self._map_rows(X, _most_probable, np.intp)

    def score_samples(
        self, X: ArrayLike, measurement_covariance: ArrayLike | None = None
    ) -> Array:
        """Return the log-likelihood of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        measurement_covariance : array-like of shape (n_samples, n_features) or \
                (n_samples, n_features, n_features), default=None
            The measurement errors of the rows, as in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            The log-density log p(x) of the observed values, in nats.
        """
        if measurement_covariance is not None:
            return self._with_noise(X, measurement_covariance, "_noisy_scores")
        check_is_fitted(self)
        if density_of_fit(self) is None:
            return super().score_samples(X)
        return self._log_densities(X)

    @rowwise
    def _log_densities(self, X: ArrayLike) -> Array:
        return self._map_rows(X, _log_density)

    def _with_noise(self, X: ArrayLike, measurement_covariance: ArrayLike, name: str) -> Array:
        """Return a method of the rows with their measurement errors."""
        self._refuse_background("measurement_covariance")
        if self.connectivity is not None:
            raise ValueError(
                "measurement_covariance cannot be combined with connectivity: omit one."
            )
        rows = self._check_rows(X, reset=False)
        known = rows.values if isinstance(rows, InMemory) else None
        noise = noise_of(measurement_covariance, rows.shape, known)
        return self._of_both(rows, noise, name)

    def _noisy_log_joint(self, both: Array) -> Array:
        D = np.shape(self.means_)[1]
        values, noise = both[:, :D].astype(float), both[:, D:]
        noise = noise.reshape(values.shape + (-1,) * (noise.shape[1] > D))
        plain = self._fitted_model()
        model = NoisyMixture(**vars(plain))
        return model.log_joint_of(self._params(plain), values, noise)

    def _noisy_scores(self, both: Array) -> Array:
        found: Array = logsumexp(self._noisy_log_joint(both), axis=1)
        return found

    def _noisy_posterior(self, both: Array) -> Array:
        found: Array = softmax(self._noisy_log_joint(both), axis=1)
        return found

    def _known_posterior(self, both: Array) -> Array:
        D = np.shape(self.means_)[1]
        log_joint = self._map_rows(both[:, :D], Mixture.log_joint, np.float64)
        evidence = both[:, D:]
        evidence[~evidence.any(1)] = 1  # dask tries the method on a row of zeros
        return known_posterior(log_joint, evidence)[1]

    def _of_both(self, rows: Rows, aside: Array, name: str) -> Array:
        """Return a method of checked rows with what each has beside it, wherever they live."""
        rows.refuse("values beside the rows")
        both = rows.with_columns(aside.reshape(len(aside), -1))
        found: Array = both.apply(row_function(self, (both.shape[1],), name))
        return found

    def predict_proba(
        self,
        X: ArrayLike,
        resp_prior: ArrayLike | None = None,
        measurement_covariance: ArrayLike | None = None,
    ) -> Array:
        """Return the responsibilities: the posterior probabilities of the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value. With ``connectivity``, X must hold the rows
            of the graph in the same order.
        resp_prior : array-like of shape (n_samples, n_components), default=None
            What is known of the component of each row, as in ``fit``.
        measurement_covariance : array-like of shape (n_samples, n_features) or \
                (n_samples, n_features, n_features), default=None
            The measurement errors of the rows, as in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            Probabilities; each row sums to 1. With ``background`` it has one more column, the
            last.
        """
        if measurement_covariance is not None:
            if resp_prior is not None:
                raise ValueError(
                    "measurement_covariance cannot be combined with resp_prior: omit one."
                )
            return self._with_noise(X, measurement_covariance, "_noisy_posterior")
        if self.connectivity is None and resp_prior is None:
            return super().predict_proba(X)
        check_is_fitted(self)
        rows, evidence = self._check_rows(X, reset=False), None
        if resp_prior is not None:
            self._refuse_background("resp_prior")
            evidence = evidence_of(resp_prior, len(rows), np.shape(self.weights_)[0])
        if self.connectivity is None and evidence is not None:
            return self._of_both(rows, evidence, "_known_posterior").astype(rows.working_dtype)
        rows = rows.in_memory("connectivity")
        model = self._fitted_model()
        graph = neighbors(self.connectivity, len(rows))
        passes = PottsPasses(model, rows.given, graph, self.coupling, evidence)
        with one_blas_thread():
            posterior = passes.posterior(
                self._params(model), getattr(self, "_responsibilities", None)
            )
        return posterior.astype(rows.working_dtype, copy=False)

    @rowwise
    def inverse_transform(self, X: ArrayLike) -> Array:
        """Return the expected rows given the probabilities of the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Probabilities, as ``transform`` returns them; with ``background`` it has one more
            column, and the mean of the background is that of its density.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            ``X @ means_``.
        """
        check_is_fitted(self)
        if isinstance(X, Elsewhere):
            check_width(X.shape, np.shape(self.means_)[0], "component")
            means = X.place.cast(X.place.put(hosted(self.means_)), X.dtype)
            return X.place.xp.matmul(X.place.cast(X.values, X.dtype), means)
        means, density = hosted(self.means_), density_of_fit(self)
        if density is not None:
            means = np.vstack([means, density.mean()])
        code = check_codes(X, len(means), "component")
        return (code @ means).astype(code.dtype, copy=False)

    @overload
    def impute(self, X: ArrayLike, return_std: Literal[False] = ...) -> Array: ...

    @overload
    def impute(self, X: ArrayLike, return_std: Literal[True]) -> tuple[Array, Array]: ...

    def impute(self, X: ArrayLike, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Return X with missing values replaced by their conditional expectation.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        return_std : bool, default=False
            Whether to return the standard deviations too.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The complete rows: sum_k P(k | x_o) E[x | x_o, k], where x_o are the observed
            values of a row.
        std : ndarray of shape (n_samples, n_features)
            The standard deviation of each missing value given the observed ones, in the
            units of X; 0 for observed values. Only with ``return_std=True``.
        """
        if return_std:
            return self._filled(X), self._deviations(X)
        return self._filled(X)

    @rowwise
    def _filled(self, X: ArrayLike) -> Array:
        return self._map_rows(X, _imputed)

    @rowwise
    def _deviations(self, X: ArrayLike) -> Array:
        return self._map_rows(X, deviations)

    def condition(self, X: ArrayLike) -> Conditional:
        """Return the mixture of the missing features, given the observed ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows that all miss the same features, which NaN marks.

        Returns
        -------
        Conditional
            For each row a Gaussian mixture of the missing features: ``features`` (n_missing,),
            ``weights`` (n_samples, n_components), ``means`` (n_samples, n_components,
            n_missing) and ``covariances`` (n_components, n_missing, n_missing).

        Raises
        ------
        ValueError
            If the rows do not miss the same features, or miss none.

        Examples
        --------
        >>> import numpy as np
        >>> from skem import BayesianGMM_MAP
        >>> x = np.linspace(-1, 1, 50)
        >>> model = BayesianGMM_MAP().fit(np.column_stack([x, 2 * x + 1]))
        >>> found = model.condition([[0.5, np.nan]])
        >>> found.features, found.means.round(3)
        (array([1]), array([[[2.]]]))
        """
        self._refuse_background("condition")
        model, rows = self._fitted_model(), self._check_rows(X, reset=False)
        rows.refuse("condition")
        regression = Regression.of(self._params(model), common_gaps(rows))
        return Conditional(
            np.flatnonzero(regression.missing),
            super().predict_proba(X),
            self._conditional_means(X, regression),
            regression.covariances_of_all(),
        )

    @rowwise
    def _conditional_means(self, X: ArrayLike, regression: Regression) -> Array:
        return regression.all_means(np.asarray(self._in_memory(X), float))

    def sample_conditional(
        self,
        X: ArrayLike,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> Array:
        """Draw the missing values of rows, given the observed ones.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            The rows; NaN marks a missing value.
        n_samples : int, default=1
            The number of draws for each row.
        random_state : int, RandomState or None, default=None
            Seed of this call; None means that of the estimator.

        Returns
        -------
        ndarray of shape (n_samples, n_rows, n_features)
            ``n_samples`` completed tables. A draw takes a component of the row, then its
            missing values together. Observed values are unchanged.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        seed = self._seed_of(random_state)
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        return self._draws(X, int(n_samples), int(seed)).swapaxes(0, 1)

    @rowwise
    def _draws(self, X: ArrayLike, n_samples: int, seed: int) -> Array:
        """Return the draws of each row, (n_rows, n_samples, n_features)."""
        rows, model = self._check_rows(X, reset=False), self._fitted_model()
        rows.refuse("sample_conditional")
        values = np.asarray(rows.given, float)
        rng = generator_of(values, seed)
        found = draw(model, self._params(model), values, n_samples, rng).swapaxes(0, 1)
        return found.astype(rows.working_dtype, copy=False)

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> tuple[Array, Indices]:
        """Draw rows from the fitted model.

        Parameters
        ----------
        n_samples : int, default=1
            The number of rows to draw.
        random_state : int, RandomState or None, default=None
            Seed of this call; None means that of the estimator.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows.
        components : ndarray of shape (n_samples,)
            The component of each row; -1 for the background.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        rng = check_random_state(self._seed_of(random_state))
        model = self._fitted_model()
        params = self._params(model)
        X, components = model.sample(params, n_samples, rng)
        X = X.astype(np.float32 if model.single else np.float64, copy=False)
        return put((X, components), place_of(self.means_))

    def _update(self, model: Any, rows: Rows) -> None:
        if isinstance(model, BackgroundMixture):
            model.density.check(rows)
        super()._update(model, rows)

    def to_sklearn(self) -> GaussianMixture:
        """Return scikit-learn's fitted ``GaussianMixture`` with the same parameters.

        It is for tools that know scikit-learn's class only, such as converters to ONNX. It has
        the same predictions for complete rows. It refuses missing values, and a further fit of
        it knows neither the prior nor sample weights.

        Returns
        -------
        sklearn.mixture.GaussianMixture
            The fitted estimator; later changes of one do not change the other.

        Raises
        ------
        ValueError
            If the mixture has a graph, ``connectivity``, or a background, which
            ``GaussianMixture`` lacks.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skem import BayesianGMM_MAP
        >>> X = load_iris().data
        >>> model = BayesianGMM_MAP(3, prior="empirical", random_state=0).fit(X)
        >>> theirs = model.to_sklearn()
        >>> type(theirs).__name__, bool((theirs.predict(X) == model.predict(X)).all())
        ('GaussianMixture', True)
        """
        check_is_fitted(self)
        model = self._fitted_model()
        return gaussian_mixture(self, self._params(model), model.reg_covar)

    def icl(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the integrated completed likelihood criterion on X; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            ``bic(X)`` minus twice the sum of the log-probabilities of the most probable
            components, in nats [1]_. This penalizes components that overlap. R's mclust
            returns the same number with the opposite sign.

        References
        ----------
        .. [1] C. Biernacki, G. Celeux and G. Govaert, "Assessing a mixture model for
           clustering with the integrated completed likelihood", IEEE Transactions on
           Pattern Analysis and Machine Intelligence 22, 2000.
        """
        mean, weight = weighted_mean(self, "_log_certainties", X, sample_weight)
        return self.bic(X, sample_weight) - 2 * weight * mean

    def _log_certainties(self, X: ArrayLike) -> Array:
        """Return the log-probability of the most probable component of each row."""
        return self._map_rows(X, Mixture.log_certainty, np.float64)

    def _refuse_background(self, name: str) -> None:
        check_is_fitted(self)
        if density_of_fit(self) is not None:
            raise ValueError(
                f"{name} needs Gaussian components only, but the model has a background: fit "
                "with background=None."
            )


def _most_probable(model: Mixture, params: Params, groups: Groups) -> Indices:
    found: Indices = model.log_joint(params, groups).argmax(1)
    return np.where(found == len(params.weights), -1, found)


def _imputed(model: Mixture, params: Params, groups: Groups) -> Array:
    return model.impute(params, groups)


def _log_density(model: BackgroundMixture, params: Params, groups: Groups) -> Array:
    return model.log_density(params, groups)
