"""BayesianGMM_MAP: a Gaussian mixture at the mode of its posterior.

A fit takes four rooms: ``_base`` (the frame and the loop of EM), ``_starts`` (the sample and
the starts), ``_model`` (E and M step), and the hot loop in ``_sums`` (NumPy) or ``_kernel``
(numba). Missing values are in ``_missing``, priors in ``_prior``, and the spatial prior is in
``_potts``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array, check_random_state

from skem._base.em import EMEstimator, Trained
from skem._base.estimator import (
    Interval,
    StrOptions,
    check_is_fitted,
    warn,
    with_callbacks,
)
from skem._base.input import check_count, check_rows
from skem._base.passes import Passes
from skem._base.streams import rowwise, weighted_mean
from skem._loop import Run, em
from skem._rows import open_rows
from skem._rows.moments import moments
from skem._rows.parts import Rows
from skem._threads import one_blas_thread
from skem._typing import Array, Indices
from skem.mixture._covariances import Layout, inverse_cholesky
from skem.mixture._missing import Group
from skem.mixture._model import Mixture, Params, Prior, Stats, fast_pays, params_of
from skem.mixture._pixels import merge_equal_pixels
from skem.mixture._potts import PottsMixture, PottsPasses, neighbors
from skem.mixture._prior import empirical_prior, flat_prior, given_prior, scale_of
from skem.mixture._starts import (
    Given,
    Sample,
    first_to_hold,
    given_of,
    sample_of,
    start,
    starts_of,
)

# BLAS is limited to one thread above this number of values: setting the limit takes about as
# long as an iteration on fewer.
MIN_LIMITED = 100_000


class BayesianGMM_MAP(EMEstimator):  # noqa: N801
    """A Gaussian mixture at the mode of its posterior, fitted by EM.

    A drop-in for scikit-learn's ``GaussianMixture`` with conjugate priors, sample
    weights, missing values and a spatial prior for images:

    .. math::

        k &\\sim \\mathrm{Categorical}(\\pi), \\quad
        x \\mid k \\sim \\mathcal N(\\mu_k, \\Sigma_k), \\\\
        \\pi &\\sim \\mathrm{Dirichlet}(\\alpha), \\quad
        \\mu_k \\mid \\Sigma_k \\sim \\mathcal N(\\mu_0, \\Sigma_k / \\kappa_0), \\quad
        \\Sigma_k \\sim \\mathcal W^{-1}(\\Sigma_0, \\nu_0).

    The default prior is flat, so that a changed import changes no result: the fit is
    maximum likelihood, with the ``reg_covar`` of scikit-learn, and gives the same numbers
    from the same start, after the same number of iterations. ``prior="empirical"`` is the
    choice for few rows per component.

    Parameters
    ----------
    n_components : int, default=1
        The number of components K.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Each component has its own covariance matrix ("full"), all share one ("tied"),
        each has its own diagonal matrix ("diag") or its own variance ("spherical").
    tol : float, default=1e-3
        EM stops one iteration after one that changes the objective by less than this, in
        nats per row, as scikit-learn does. Components that overlap much need 1e-6 or
        less: the likelihood is then all but flat along their weights.
    reg_covar : float, default=None
        Added to the diagonal of every covariance after each M step. None is 1e-6, as in
        scikit-learn, where the prior does not keep covariances away from 0, and 0 where
        it does: there it would only stop the objective from being monotone.
    max_iter : int, default=100
        The largest number of EM iterations on all rows.
    n_init : int, default=1
        Number of starts, of which the best goes on. On more than 5000 rows (or 50 for
        each component) the starts are run on a sample of so many.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        Where EM starts: from the clusters of k-means, from the rows nearest to centers
        that k-means++ or chance picked, or from random responsibilities. Clusters are
        found on the sample. Each component gets the mean and the covariance of its rows.
    weights_init : array-like of shape (n_components,), default=None
        Weights to start from; they sum to 1.
    means_init : array-like of shape (n_components, n_features), default=None
        Means to start from. What else is not given comes from the rows nearest to each.
    precisions_init : array-like, default=None
        Inverse covariances to start from, of the shape of ``precisions_``.
    random_state : int, RandomState or None, default=None
        Draws the sample and the starts.
    warm_start : bool, default=False
        Whether to start from the last fit.
    verbose : int, default=0
        1 prints a line every ``verbose_interval`` iterations.
    verbose_interval : int, default=10
        Iterations between lines.
    prior : {"flat", "empirical"}, default="flat"
        The priors that are not given below. "flat" has no effect: alpha = 1,
        kappa_0 = 0, Sigma_0 = 0 and nu_0 = -(D + 2) with full or spherical covariances,
        -(D + 1 + K) with tied and -3 with diagonal ones. "empirical" is weak and follows
        the units of X, after [1]_: mu_0 is the mean of X, kappa_0 = 0.01, nu_0 = D + 2 and
        Sigma_0 = cov(X) / K^(2/D), of which diagonal covariances take the diagonal and
        spherical ones its mean. A singular cov(X) is drawn to its diagonal.
    weight_concentration_prior : float, default=None
        The concentration alpha. Below 1 it switches components off: their weight becomes 0.
    mean_precision_prior : float, default=None
        The precision kappa_0: the prior mean counts as so many rows.
    mean_prior : array-like of shape (n_features,) or float, default=None
        The prior mean mu_0; a number stands for every feature. None, where kappa_0 > 0, is
        the mean of X.
    degrees_of_freedom_prior : float, default=None
        The degrees of freedom nu_0. The prior is proper if Sigma_0 is given and they are
        above D - 1, or above 0 with diagonal and spherical covariances.
    covariance_prior : array-like, default=None
        The scale matrix Sigma_0 itself: of shape (n_features, n_features) with full and
        tied covariances, (n_features,) with diagonal ones, a number with spherical ones.
        The mode of the prior is Sigma_0 / (nu_0 + D + 2) with full covariances.
    n_jobs : int, default=None
        Number of threads for the passes over the rows, on dask of each block, and for the
        starts. The results do not depend on it.
    connectivity : sparse matrix of shape (n_samples, n_samples), default=None
        Which rows are neighbors, as ``sklearn.feature_extraction.image.grid_to_graph``
        says of pixels. Neighbors are drawn to the same component by a Potts prior, in
        mean field, which takes the place of the weights and their prior: ``weights_`` only
        tells how many rows each component has. ``predict``, ``predict_proba`` and
        ``transform`` then need the rows of the graph. All other methods see each row
        alone, as the mixture does.
    coupling : float, default=1.0
        What a pair of neighbors in the same component adds to the log-density, in nats.
    learning_offset : float, default=10.0
        Damps the first steps of ``partial_fit``.
    learning_decay : float, default=0.7
        Step t of ``partial_fit`` has size (t + learning_offset) ** -learning_decay.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        The weights pi. Exactly 0 for a component that was switched off; its mean and
        covariance keep their last values.
    means_ : ndarray of shape (n_components, n_features)
        The means.
    covariances_ : ndarray
        The covariances: of shape (n_components, n_features, n_features) if full,
        (n_features, n_features) if tied, (n_components, n_features) if diagonal,
        (n_components,) if spherical.
    precisions_ : ndarray, of the shape of ``covariances_``
        Their inverses.
    precisions_cholesky_ : ndarray, of the shape of ``covariances_``
        Upper triangular factors U of the precisions U U^T.
    lower_bound_ : float
        The objective of the fitted parameters, in nats per row: log-likelihood plus log
        prior density, or its mean-field bound with ``connectivity``. After
        ``partial_fit`` it is that of the last batch, before it was learned.
    lower_bounds_ : list of float
        The objective after each iteration. It never decreases beyond rounding, unless
        ``reg_covar`` is added or a component is switched off.
    n_iter_ : int
        Number of EM iterations on all rows.
    converged_ : bool
        Whether the last change of the objective was below ``tol``.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X had them.

    Raises
    ------
    ValueError
        In ``fit``, for data or parameters that do not fit together, naming them.

    See Also
    --------
    sklearn.mixture.GaussianMixture : Maximum likelihood.
    sklearn.mixture.BayesianGaussianMixture : A variational posterior.

    Notes
    -----
    Rows with NaN are fitted and scored by what they have, exactly, under the assumption
    that values are missing at random. A start in which a component collapses onto a point
    or loses all rows is replaced by another; after ten, the parameters before the collapse
    are kept, with a warning. X of bytes, or of bytes / 255, with few different rows, such
    as the pixels of an image, is fitted on these and their counts, with the same result.
    float32 data are computed in float32 as long as it resolves the components. On large
    data the hot loop is compiled, where numba is installed.

    X may also be a memory map, an array of zarr or a dataset of h5py, which are read part by
    part at each pass, or a dask array or data frame, which is fitted on its workers. Of dask,
    methods that look at each row alone return lazy arrays.

    References
    ----------
    .. [1] C. Fraley and A. E. Raftery, "Bayesian regularization for normal mixture
       estimation and model-based clustering", Journal of Classification 24, 2007.
    .. [2] A. P. Dempster, N. M. Laird and D. B. Rubin, "Maximum likelihood from
       incomplete data via the EM algorithm", Journal of the Royal Statistical Society B
       39, 1977.
    .. [3] M. A. T. Figueiredo and A. K. Jain, "Unsupervised learning of finite mixture
       models", IEEE Transactions on Pattern Analysis and Machine Intelligence 24, 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from skem import BayesianGMM_MAP
    >>> X = np.array([[1.0, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, np.nan]])
    >>> model = BayesianGMM_MAP(n_components=2, prior="empirical", random_state=0).fit(X)
    >>> model.means_.round(1)[np.argsort(model.means_[:, 0])]
    array([[ 1.,  2.],
           [10.,  3.]])
    >>> model.predict([[0, 0]]) == model.predict([[2, 3]])
    array([ True])
    """

    _fitted_name = "weights_"
    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "reg_covar": [Interval(Real, 0, None, closed="left"), None],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "k-means++", "random", "random_from_data"})],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "prior": [StrOptions({"flat", "empirical"})],
        "weight_concentration_prior": [Interval(Real, 0, None, closed="neither"), None],
        "mean_precision_prior": [Interval(Real, 0, None, closed="left"), None],
        "mean_prior": ["array-like", Real, None],
        "degrees_of_freedom_prior": [Real, None],
        "covariance_prior": ["array-like", Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
        "connectivity": ["array-like", "sparse matrix", None],
        "coupling": [Interval(Real, 0, None, closed="left")],
        "learning_offset": [Interval(Real, 0, None, closed="left")],
        "learning_decay": [Interval(Real, 0.5, 1, closed="right")],
    }

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: Literal["full", "tied", "diag", "spherical"] = "full",
        tol: float = 1e-3,
        reg_covar: float | None = None,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: Literal["kmeans", "k-means++", "random", "random_from_data"] = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        prior: Literal["flat", "empirical"] = "flat",
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_prior: ArrayLike | None = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: ArrayLike | None = None,
        n_jobs: int | None = None,
        connectivity: Any = None,
        coupling: float = 1.0,
        learning_offset: float = 10.0,
        learning_decay: float = 0.7,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.prior = prior
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.n_jobs = n_jobs
        self.connectivity = connectivity
        self.coupling = coupling
        self.learning_offset = learning_offset
        self.learning_decay = learning_decay

    # -- fitting ------------------------------------------------------------------------

    @with_callbacks
    def fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Find the weights, means and covariances of the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; weight 2 is the same as the row twice.

        Returns
        -------
        BayesianGMM_MAP
            The fitted estimator.
        """
        self._fit(X, sample_weight)
        return self

    def fit_predict(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Indices:
        """Fit and return the most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            ``fit(X).predict(X)``.
        """
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Update the fit with a batch of rows, by online EM [1]_.

        The first batch is fitted as by ``fit``. A later one is seen once: its statistics
        are mixed into those kept so far with weight (t + learning_offset) **
        -learning_decay, and an M step follows. Prior and ``reg_covar`` are those of the
        first batch; the prior weighs as against all rows seen so far.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The batch.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows within the batch.

        Returns
        -------
        BayesianGMM_MAP
            The updated estimator.

        References
        ----------
        .. [1] O. Cappé and E. Moulines, "On-line expectation-maximization algorithm for
           latent data models", Journal of the Royal Statistical Society B 71, 2009.
        """
        if self.connectivity is not None:
            raise ValueError(
                "partial_fit cannot be combined with connectivity, a graph of all rows: "
                "set connectivity=None, or use fit."
            )
        return self._partial_fit(X, sample_weight)

    def _train(self, rows: Rows, resume: bool) -> Trained:
        self._check_size(rows)
        if resume:
            self._check_same_model(rows.shape[1])
        rng, shown = check_random_state(self.random_state), rows
        rows = rows.positive()
        # products of few rows have one thread anyway
        with one_blas_thread() if rows.size > MIN_LIMITED else nullcontext():
            if self.connectivity is None:
                rows = merge_equal_pixels(rows).positive()
            sample = sample_of(rows, self.n_components, rng)
            model = self._new_model(rows, sample)
            model, passes = self._passes(model, rows)
            # scikit-learn compares objectives before the M step, and so takes one step more
            delay = 0 if resume else 1
            starts = self._starts(model, sample, resume, rng)
            try:
                run, before = first_to_hold(
                    starts,
                    lambda params: self._run_em(
                        model, passes, params, shown, self.max_iter, delay
                    ),
                )
            except KeyboardInterrupt:
                params = start(model, sample.rows, self.init_params, Given(), 0)
                run = em(model, passes.total, params, max_iter=0)
                return model, replace(run, interrupted=True)
        return model, run or self._collapsed(before)

    def _check_size(self, rows: Rows) -> None:
        if rows.n_positive < self.n_components:
            raise ValueError(
                f"n_components={self.n_components} needs at least {self.n_components} rows "
                f"with positive weight, but X has n_samples = {rows.n_positive}."
            )
        if self.connectivity is not None and rows.is_weighted:
            raise ValueError(
                "sample_weight cannot be combined with connectivity: a row of a graph "
                "cannot be repeated. Leave one of them out."
            )

    def _passes(self, model: Mixture, rows: Rows) -> tuple[Mixture, Any]:
        """Return the model that is fitted, and its passes over the rows."""
        if self.connectivity is None:
            return model, Passes(model, rows, self.n_jobs)
        graph = neighbors(self.connectivity, len(rows))
        passes = PottsPasses(model, rows.given, graph, self.coupling)
        return PottsMixture(**vars(model)), passes

    def _starts(
        self, model: Mixture, sample: Sample, resume: bool, rng: np.random.RandomState
    ) -> Iterator[Params]:
        """Yield the parameters to start from; each one replaces a start that collapsed."""
        given = given_of(model.layout, self.weights_init, self.means_init, self.precisions_init)
        if resume:
            given = Given.all_of(self._params(model))
        return starts_of(
            model,
            sample,
            given,
            rng,
            init=self.init_params,
            n_init=self.n_init,
            n_jobs=self.n_jobs,
            max_iter=self.max_iter,
            tol=self.tol,
        )

    def _collapsed(self, before: Run | None) -> Run:
        """Return what a collapse left, with a warning; raise if it left nothing."""
        remedy = "reg_covar" if self.prior == "empirical" else "reg_covar or prior='empirical'"
        if before is None or not before.objectives:
            raise ValueError(
                "the likelihood of X is not finite at any start: X has constant or collinear "
                f"features, or values that are too large or too small. Use {remedy}, or "
                "rescale X."
            )
        warn(
            "all starts collapsed: a component shrank onto a point or lost its rows. The "
            "parameters before the first collapse are kept. Use fewer components, or "
            f"{remedy}."
        )
        return replace(before, stopped=True)

    def _new_model(self, rows: Rows, sample: Sample) -> Mixture:
        layout = Layout(self.covariance_type, self.n_components, rows.shape[1])
        seen = moments(sample.rows)
        scale = scale_of(seen)
        prior = flat_prior(layout)
        if self.prior == "empirical":
            prior = empirical_prior(layout, rows, seen.mean, scale)
        prior = given_prior(
            prior,
            layout,
            weight_concentration_prior=self.weight_concentration_prior,
            mean_precision_prior=self.mean_precision_prior,
            mean_prior=self.mean_prior,
            degrees_of_freedom_prior=self.degrees_of_freedom_prior,
            covariance_prior=self.covariance_prior,
        )
        if prior.mean_precision > 0 and self.mean_prior is None and self.prior == "flat":
            prior = replace(prior, mean=moments(rows).mean)
        reg_covar = self.reg_covar
        if reg_covar is None:
            reg_covar = 0.0 if prior.has_scale else 1e-6
        fast = fast_pays(layout, rows.n_positive) and find_spec("numba") is not None
        single = rows.dtype == np.float32
        return Mixture(layout, prior, scale, float(reg_covar), single, fast)

    def _check_same_model(self, n_features: int) -> None:
        """Refuse to continue a fit of other sizes."""
        for name, old, new in (
            ("the number of features", self.means_.shape[1], n_features),
            ("n_components", len(self.weights_), self.n_components),
            ("covariance_type", self._covariance_type, self.covariance_type),
        ):
            if old != new:
                raise ValueError(
                    f"{name} was {old!r} in the last fit, but is {new!r} now: set "
                    "it back, or fit anew with warm_start=False."
                )

    # -- input and fitted attributes ----------------------------------------------------

    def _check_rows(self, X: Any, sample_weight: Any = None, *, reset: bool) -> Rows:
        if self.connectivity is not None:
            X = open_rows(X).in_memory("connectivity").given
        # bytes stay bytes: equal pixels are found sooner
        is_bytes = getattr(X, "dtype", None) == np.uint8
        dtype = None if is_bytes else [np.float64, np.float32]
        minimum = 2 if reset else 1
        return check_rows(
            self, X, sample_weight, reset=reset, min_rows=minimum, dtype=dtype, order="C"
        )

    def _attributes(self, model: Mixture, params: Params, stats: Stats) -> dict[str, Any]:
        layout = model.layout
        factors = inverse_cholesky(params.cholesky).swapaxes(2, 3)
        precisions = factors @ factors.swapaxes(2, 3)
        values = {
            "weights_": params.weights,
            "means_": params.means,
            "covariances_": layout.to_public(params.covariances),
            "precisions_": layout.to_public(precisions),
            "precisions_cholesky_": layout.to_public(factors),
        }
        dtype = np.float32 if model.single else np.float64
        return {
            **{name: value.astype(dtype) for name, value in values.items()},
            "_covariance_type": layout.covariance_type,
            "_prior": vars(model.prior),
            "_scale": model.scale,
            "_reg_covar": model.reg_covar,
        }

    def _fitted_model(self) -> Mixture:
        """Return the fitted model; its prior is flat if the parameters were set by hand."""
        means = np.asarray(self.means_)
        kind = getattr(self, "_covariance_type", self.covariance_type)
        layout, single = Layout(kind, *means.shape), means.dtype == np.float32
        if not hasattr(self, "_prior"):
            return Mixture(layout, flat_prior(layout), np.ones(means.shape[1]), single=single)
        return Mixture(layout, Prior(**self._prior), self._scale, self._reg_covar, single)

    def _params(self, model: Mixture) -> Params:
        """Return the fitted parameters.

        They come from the factors of the precisions: rounding leaves these positive definite.
        """
        factors = getattr(self, "precisions_cholesky_", None)
        covariances = self.covariances_ if factors is None else None
        return params_of(model.layout, self.weights_, self.means_, factors, covariances)

    def _n_parameters(self) -> int:
        layout = self._fitted_model().layout
        K, D = layout.n_components, layout.n_features
        active = int(np.count_nonzero(self.weights_))
        of_covariances = layout.n_parameters * (active if layout.n_groups > 1 else K) // K
        return of_covariances + active * D + active - 1

    @property
    def _n_features_out(self) -> int:
        return len(self.weights_)

    # -- verbs --------------------------------------------------------------------------

    def predict(self, X: ArrayLike) -> Indices:
        """Return the most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples,)
            Numbers of components.
        """
        if self.connectivity is not None:
            return self.predict_proba(X).argmax(1)
        return self._components(X)

    @rowwise
    def _components(self, X: ArrayLike) -> Indices:
        return self._map_rows(X, _most_probable, np.intp)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the responsibilities: the posterior probabilities of the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value. With ``connectivity``, the rows of the
            graph, in its order.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            Probabilities; each row sums to 1.
        """
        if self.connectivity is None:
            return super().predict_proba(X)
        check_is_fitted(self)
        rows = self._check_rows(X, reset=False)
        model = self._fitted_model()
        graph = neighbors(self.connectivity, len(rows))
        passes = PottsPasses(model, rows.given, graph, self.coupling)
        with one_blas_thread():
            posterior = passes.posterior(self._params(model))
        return posterior.astype(rows.working_dtype, copy=False)

    @rowwise
    def inverse_transform(self, X: ArrayLike) -> Array:
        """Return the expected rows given the probabilities of the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Probabilities, as ``transform`` returns them.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            ``X @ means_``.
        """
        check_is_fitted(self)
        code = check_array(X, dtype=[np.float64, np.float32], input_name="X")
        if code.shape[1] != len(self.weights_):
            raise ValueError(
                f"X has {code.shape[1]} columns, but the model has {len(self.weights_)} "
                "components."
            )
        return (code @ self.means_).astype(code.dtype, copy=False)

    @rowwise
    def impute(self, X: ArrayLike) -> Array:
        """Return X with missing values filled by their conditional expectation.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The rows, complete: sum_k P(k | x_o) E[x | x_o, k] given what is observed.
        """
        return self._map_rows(X, Mixture.impute)

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
            ``bic(X)`` plus twice the entropy of the responsibilities in nats: components
            that overlap cost more [1]_.

        References
        ----------
        .. [1] C. Biernacki, G. Celeux and G. Govaert, "Assessing a mixture model for
           clustering with the integrated completed likelihood", IEEE Transactions on
           Pattern Analysis and Machine Intelligence 22, 2000.
        """
        mean, weight = weighted_mean(self, "_entropies", X, sample_weight)
        return self.bic(X, sample_weight) + 2 * weight * mean

    def _entropies(self, X: ArrayLike) -> Array:
        """Return the entropy of the responsibilities of each row, in nats."""
        return self._map_rows(X, Mixture.entropy, np.float64)

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> tuple[Array, Indices]:
        """Draw rows from the fitted model.

        Parameters
        ----------
        n_samples : int, default=1
            How many.
        random_state : int, RandomState or None, default=None
            Seed of this call; None draws anew each time.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows.
        components : ndarray of shape (n_samples,)
            Their components.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        rng = check_random_state(random_state)
        model = self._fitted_model()
        params = self._params(model)
        X, components = model.sample(params, n_samples, rng)
        return X.astype(np.float32 if model.single else np.float64, copy=False), components


def _most_probable(model: Mixture, params: Params, groups: list[Group]) -> Indices:
    return model.log_joint(params, groups).argmax(1)
