"""BayesianGMM_MAP: a Gaussian mixture at the mode of its posterior.

A fit takes these steps: ``_starts`` draws a sample and finds starts on it (``_candidates``,
``_moves``) or takes those that the user gave (``_given``). ``skem._loop`` repeats the E and M
steps of ``_model``, whose inner loop is ``_sums`` (NumPy) or ``_kernel`` (numba). ``_missing``
handles missing values, ``_prior`` the priors, ``_potts`` the spatial prior, and ``_pixels``
equal rows of images. ``_verbs`` has the verbs about missing values, and ``_conditionals`` the
maths behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state

from skem._base.em import Trained
from skem._base.estimator import (
    HasMethods,
    Interval,
    StrOptions,
    with_callbacks,
)
from skem._base.input import MAX_SUMMED_WEIGHT, check_rows
from skem._base.passes import Passes
from skem._base.places import follows_rows, hosted
from skem._compiled import has_numba
from skem._loop import em
from skem._rows import open_rows
from skem._rows.arrays import in_numpy
from skem._rows.moments import Moments, moments
from skem._rows.parts import Rows
from skem._threads import one_blas_thread
from skem._typing import Array, Indices
from skem.mixture._background import (
    BackgroundMixture,
    core_of,
    refuse_others,
    trimmed_starts,
)
from skem.mixture._checks import check_size
from skem.mixture._covariances import Layout, fast_pays
from skem.mixture._densities import density_of
from skem.mixture._evidence import evidence_of_fit, known_passes, known_starts
from skem.mixture._fixed import fixed_of
from skem.mixture._given import Given, given_of
from skem.mixture._model import Mixture
from skem.mixture._noisy import noise_of_fit, noisy_passes
from skem.mixture._outcome import first_to_hold
from skem.mixture._pixels import merge_equal_pixels
from skem.mixture._potts import PottsMixture, PottsPasses, neighbors
from skem.mixture._prior import (
    check_units,
    empirical_prior,
    flat_prior,
    given_prior,
    scale_of,
)
from skem.mixture._starts import Search, SearchInterruptedError, sample_of
from skem.mixture._verbs import MixtureVerbs

# The tolerance shrinks with the share of rows in which a feature is observed, down to this.
MIN_SHARE = 0.01


@follows_rows(
    "fit",
    "partial_fit",
    verbs=(
        *("predict", "predict_proba", "transform", "inverse_transform", "reconstruct"),
        *("score_samples", "log_joint", "score", "aic", "bic", "icl"),
        *("impute", "condition", "sample_conditional"),
    ),
    attribute="means_",
)
class BayesianGMM_MAP(MixtureVerbs):  # noqa: N801
    """A Gaussian mixture at the mode of its posterior, fitted by EM.

    A drop-in for scikit-learn's ``GaussianMixture`` with conjugate priors, sample
    weights, missing values and a spatial prior for images:

    .. math::

        k &\\sim \\mathrm{Categorical}(\\pi), \\quad
        x \\mid k \\sim \\mathcal N(\\mu_k, \\Sigma_k), \\\\
        \\pi &\\sim \\mathrm{Dirichlet}(\\alpha), \\quad
        \\mu_k \\mid \\Sigma_k \\sim \\mathcal N(\\mu_0, \\Sigma_k / \\kappa_0), \\quad
        \\Sigma_k \\sim \\mathcal W^{-1}(\\Sigma_0, \\nu_0).

    The default prior is flat. The fit is then maximum likelihood with the ``reg_covar`` of
    scikit-learn. From complete given starts (weights, means and precisions) it gives the same
    numbers after the same number of iterations as ``GaussianMixture``; without them the starts
    differ, even with the same seed. ``prior="empirical"`` is recommended if there are fewer
    than ten rows for each feature and component.

    Parameters
    ----------
    n_components : int, default=1
        The number of components K.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        The form of the covariances. "full": each component has its own covariance matrix.
        "tied": all components share one matrix. "diag": each component has its own diagonal
        matrix. "spherical": each component has one variance.
    tol : float, default=1e-3
        EM stops when an iteration changes the objective by less than tol, in nats (units of
        natural logarithm) per row, and all further iterations together are expected to gain
        less than 10 tol. The expectation follows from how fast the changes shrink. If all
        starting parameters are given, EM stops one iteration after the first small change, as
        in scikit-learn. With missing values, tol is multiplied by the share of rows in which
        the rarest feature is observed. Components that overlap strongly need 1e-6 or less,
        because the likelihood hardly depends on their weights.
    reg_covar : float, default=None
        Number added to the diagonal of every covariance after each M step. None means 0 if
        the prior keeps covariances away from 0, and 1e-6 otherwise, as in scikit-learn. With
        a value above 0, the objective may decrease slightly.
    max_iter : int, default=100
        The largest number of EM iterations on all rows.
    n_init : int, default=1
        Number of starts, each the winner of a race of candidates; the best is kept. More starts
        never end worse, unless the first one collapses. With more than 10,000 rows, every
        start runs on a sample of at least 5000, and the best continues on all rows.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        How EM starts, in units of the standard deviations of the features. "kmeans": from the
        clusters of k-means. "k-means++": from the rows nearest to centers chosen by k-means++.
        "random_from_data": from the rows nearest to randomly chosen rows. "random": from
        responsibilities that random directions define. Each component gets the mean and the
        covariance of its rows. Several draws race for a few iterations of EM on the sample,
        and the best one is the start.
    weights_init : array-like of shape (n_components,), default=None
        Weights to start from; they must sum to 1.
    means_init : array-like of shape (n_components, n_features), default=None
        Means to start from. Weights and covariances that are not given are computed from
        the rows nearest to each mean.
    precisions_init : array-like, default=None
        Inverse covariances to start from, with the shape of ``precisions_``.
    random_state : int, RandomState or None, default=None
        Seed of the sample and of the starts.
    warm_start : bool, default=False
        Whether ``fit`` starts from the parameters of the last fit.
    verbose : int, default=0
        If positive, a line is printed every ``verbose_interval`` iterations.
    verbose_interval : int, default=10
        Number of iterations between printed lines.
    prior : {"flat", "empirical"}, default="flat"
        Source of the hyperparameters that are not given below. "flat" has no effect:
        alpha = 1, kappa_0 = 0, Sigma_0 = 0 and nu_0 = -(D + 2) with full or spherical
        covariances, -(D + 1 + K) with tied and -3 with diagonal ones. "empirical" is a weak
        prior that follows the units of X: mu_0 is the mean of X, kappa_0 = 0.01, nu_0 is 1
        above the flat value, and Sigma_0 = diag(var(X)) / K^(2/D), the volume of X shared by
        K components [1]_. Spherical covariances use the mean of the variances. The prior
        counts as one row, and keeps components of few rows from collapsing.
    weight_concentration_prior : float, default=None
        The concentration alpha. A value below 1 favors few components, and a component whose
        count falls below 1 - alpha is switched off: its weight becomes 0. This needs values
        below 0, such as 1 - T/2 for a component with T parameters [3]_. If rows are few, a
        lower value may switch off every component. EM does not find the smallest number of
        components that way; compare ``bic``.
    mean_precision_prior : float, default=None
        The precision kappa_0: the number of rows that the prior mean counts as.
    mean_prior : array-like of shape (n_features,) or (n_components, n_features), or float, \
            default=None
        The prior mean mu_0; a single number is used for every feature. None means the mean
        of X if kappa_0 > 0. With a row for each component, EM starts there, unless
        ``means_init`` is given.
    degrees_of_freedom_prior : float, default=None
        The degrees of freedom nu_0. The prior is proper if Sigma_0 is given and nu_0 is
        above D - 1, or above 0 with diagonal and spherical covariances.
    covariance_prior : array-like, default=None
        The scale matrix Sigma_0. Its shape is (n_features, n_features) with full and tied
        covariances and (n_features,) with diagonal ones; it is a number with spherical ones.
        The mode of the prior is Sigma_0 / (nu_0 + D + 2) with full covariances.
    fixed : list of str or dict, default=None
        Names of parameters that stay as given: "weights", "means" and "covariances". Their
        values are ``weights_init``, ``means_init`` and ``precisions_init``, or those of the
        last fit with ``warm_start``. A dict maps a name to booleans of shape (n_components,)
        that say for which components. With some fixed weights, the others share the rest.
    background : "uniform", array-like of shape (2, n_features) or estimator, default=None
        A background for outliers, beside the components. "uniform" is a uniform density in
        the bounding box of X, and an array holds the lower and the upper limits of a box. A
        fitted estimator with ``score_samples`` is a density that EM does not change; wrap it in
        ``sklearn.frozen.FrozenEstimator``, so that ``clone`` keeps the fit. ``predict``
        returns -1 for rows of the background, and ``predict_proba`` and ``transform`` have
        one more column. ``predict`` treats rows outside a box as if the box continued.
    n_jobs : int, default=None
        Number of threads for the passes over the rows and for the starts. On dask, the
        threads serve the passes over each block. The results do not depend on it.
    connectivity : sparse matrix of shape (n_samples, n_samples), default=None
        Graph of neighboring rows, such as the pixel graph from
        ``sklearn.feature_extraction.image.grid_to_graph``. A Potts prior favors the same
        component for neighbors; it is fitted by mean field. It replaces the weights and
        their prior: ``weights_`` then only reports the share of rows of each component.
        ``predict``, ``predict_proba`` and ``transform`` need the rows of the graph. All
        other methods ignore the graph and treat each row as the mixture does.
    coupling : float, default=1.0
        Amount that a pair of neighbors in the same component adds to the log-density, in
        nats.
    learning_offset : float, default=10.0
        Number that makes the first steps of ``partial_fit`` smaller.
    learning_decay : float, default=0.7
        Step t of ``partial_fit`` has size (t + learning_offset) ** -learning_decay.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        The weights pi. The weight of a component that was switched off is exactly 0; its
        mean and covariance keep their last values.
    means_ : ndarray of shape (n_components, n_features)
        The means of the components.
    covariances_ : ndarray
        The covariances of the components. The shape is
        (n_components, n_features, n_features) if full, (n_features, n_features) if tied,
        (n_components, n_features) if diagonal, (n_components,) if spherical.
    precisions_ : ndarray, of the shape of ``covariances_``
        The inverses of the covariances.
    precisions_cholesky_ : ndarray, of the shape of ``covariances_``
        Upper triangular factors U of the precisions U U^T.
    background_weight_ : float
        The share of the background, which ``weights_`` leaves out; 0 without
        ``background``.
    lower_bound_ : float
        The objective at the fitted parameters, in nats per row: log-likelihood plus log
        prior density. With ``connectivity`` it is the mean-field bound. After
        ``partial_fit`` it is the objective on the last batch before the update.
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
        Names of the features, if X had names.

    Raises
    ------
    ValueError
        If the data or the parameters are inconsistent; the message names them.

    See Also
    --------
    sklearn.mixture.GaussianMixture : Mixture fitted by maximum likelihood.
    sklearn.mixture.BayesianGaussianMixture : Mixture with a variational posterior.

    Notes
    -----
    Rows with NaN are fitted and scored by their observed values. This is exact if values are
    missing at random. If a component collapses, so that its smallest variance is that of
    ``reg_covar`` on few rows, EM tries another start; after three, the best is kept with a
    warning. Many equal rows are not a collapse. If X holds bytes, or bytes / 255, and few rows
    are different, the fit uses the different rows and their counts, with the same result; the
    pixels of an image are an example. float32 data are computed in float32 as long as its
    precision resolves the components. On large data the inner loop is compiled, if numba is
    installed.

    X may also be a memory map, a zarr array or an h5py dataset; each pass reads it part by
    part. A dask array or data frame is fitted on its workers, and row-wise methods then
    return lazy arrays.

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
    _parameter_constraints: dict[str, Any] = {
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
        "weight_concentration_prior": [Interval(Real, None, None, closed="neither"), None],
        "mean_precision_prior": [Interval(Real, 0, None, closed="left"), None],
        "mean_prior": ["array-like", Real, None],
        "degrees_of_freedom_prior": [Real, None],
        "covariance_prior": ["array-like", Interval(Real, 0, None, closed="neither"), None],
        "fixed": ["array-like", dict, None],
        "background": [
            StrOptions({"uniform"}),
            "array-like",
            HasMethods("score_samples"),
            None,
        ],
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
        fixed: Sequence[str] | Mapping[str, Any] | None = None,
        background: Literal["uniform"] | ArrayLike | BaseEstimator | None = None,
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
        self.fixed = fixed
        self.background = background
        self.n_jobs = n_jobs
        self.connectivity = connectivity
        self.coupling = coupling
        self.learning_offset = learning_offset
        self.learning_decay = learning_decay

    # -- fitting ------------------------------------------------------------------------

    @with_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
        resp_prior: ArrayLike | None = None,
        measurement_covariance: ArrayLike | None = None,
    ) -> Self:
        """Fit the weights, means and covariances of the components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a row of weight 2 counts like two equal rows.
        resp_prior : array-like of shape (n_samples, n_components), default=None
            Prior knowledge of the component of each row: before row n is seen, the probability
            of component k is proportional to ``weights_[k] * resp_prior[n, k]``. A row of 0
            with a single 1 is a label. Equal values carry no information. Components keep the
            order of the columns.
        measurement_covariance : array-like of shape (n_samples, n_features) or \
                (n_samples, n_features, n_features), default=None
            Variances or covariances of the measurement errors of each row, in squared units
            of X. The fit describes the rows without their errors: extreme deconvolution [1]_.
            0 means no error; with infinity the value is ignored, like NaN.

        Returns
        -------
        BayesianGMM_MAP
            The fitted estimator.

        References
        ----------
        .. [1] J. Bovy, D. W. Hogg and S. T. Roweis, "Extreme deconvolution: inferring
           complete distribution functions from noisy, heterogeneous and incomplete
           observations", Annals of Applied Statistics 5, 2011.
        """
        self._fit(
            X,
            sample_weight,
            resp_prior=resp_prior,
            measurement_covariance=measurement_covariance,
        )
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
            The result of ``fit(X).predict(X)``.
        """
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Update the fit with a batch of rows, by online EM [1]_.

        The first batch is fitted as by ``fit``. Each later batch is used once: its statistics
        are averaged into the earlier ones with weight (t + learning_offset) **
        -learning_decay, and an M step follows. The prior and ``reg_covar`` are those of the
        first batch. The prior is weighed against all rows seen so far.

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
        if isinstance(self.background, str):
            raise ValueError(
                "partial_fit cannot be combined with background='uniform', whose box holds all "
                "rows: give the limits of the features, or use fit."
            )
        if self.connectivity is not None:
            raise ValueError(
                "partial_fit cannot be combined with connectivity, which is a graph of all "
                "rows: set connectivity=None, or use fit."
            )
        changed = sorted(self._set_by_hand())
        if changed:
            raise ValueError(
                f"{', '.join(changed)} were set after the last fit, but partial_fit continues "
                "from sums over the rows of that fit: use fit with warm_start=True."
            )
        return self._partial_fit(X, sample_weight)

    def _train(
        self,
        rows: Rows,
        resume: bool,
        resp_prior: Any = None,
        measurement_covariance: Any = None,
    ) -> Trained:
        check_size(self, rows)
        self._refuse_elsewhere(
            rows, resp_prior=resp_prior, measurement_covariance=measurement_covariance
        )
        if resume:
            self._check_same_model(rows.shape[1])
        rng = check_random_state(self.random_state)
        refuse_others(self, resp_prior)
        evidence = evidence_of_fit(resp_prior, rows, self)
        rows, noise = noise_of_fit(measurement_covariance, rows, self, resp_prior)
        rows = rows.positive()
        with one_blas_thread():
            if self.connectivity is None and evidence is None and noise is None:
                rows = merge_equal_pixels(rows).positive()
            search, given = self._search(rows, rng, resume)
            starts = search.starts(given, rng, int(self.n_init), self.n_jobs)
            if evidence is not None and given.means is None:
                known = known_passes(search, evidence, self.n_jobs)
                starts = known_starts(search, known, given, starts)
            if self.background is not None and given.means is None:
                starts = trimmed_starts(search, given, rng, int(self.n_init))
            model, passes = self._passes(search, evidence, noise)
            # scikit-learn notices convergence one step later: from the same start, do the same
            rule: dict[str, Any] = {"patient": True, "tol": search.tol}
            if given.is_complete:
                rule = {"delay": 0 if resume else 1, "tol": self.tol}
            try:
                outcome = first_to_hold(
                    search,
                    starts,
                    lambda params: self._run_em(
                        model, passes, params, int(self.max_iter), **rule
                    ),
                    is_final=given.means is not None,
                )
            except KeyboardInterrupt as error:
                if isinstance(error, SearchInterruptedError):
                    params = error.best
                else:
                    *_, params = search.found(given, 0)
                run = em(model, passes.total, params, max_iter=0)
                return model, replace(run, interrupted=True)
        run = outcome.checked(is_given=not given.is_empty)
        self._responsibilities = getattr(passes, "responsibilities", None)
        return model, run

    def _search(
        self, rows: Rows, rng: np.random.RandomState, resume: bool
    ) -> tuple[Search, Given]:
        """Draw a sample, set the prior, and return where starts are looked for."""
        layout = Layout(self.covariance_type, int(self.n_components), rows.shape[1])
        sample = sample_of(rows, layout, rng)
        seen = moments(sample.rows)
        seen.check_observed()
        core = rows if self.background is None else core_of(sample.rows)
        mixture = self._new_model(layout, core, seen if core is rows else moments(core))
        given = self._given(mixture, resume)
        mixture = replace(mixture, fixed=fixed_of(self.fixed, layout, given))
        if self.connectivity is not None and mixture.fixed and mixture.fixed.weights.any():
            raise ValueError(
                "fixed cannot have the weights with connectivity, whose prior replaces them."
            )
        if self.background is not None:
            density = density_of(self.background, rows)
            mixture = BackgroundMixture(**vars(mixture), density=density)
        # what a row tells of a feature that is rarely observed changes the objective little
        share = max(MIN_SHARE, float((seen.weight / np.sum(sample.rows.weight)).min()))
        passes, tol = Passes(mixture, rows, self.n_jobs), self.tol * share
        return Search(mixture, passes, sample, self.init_params, int(self.max_iter), tol), given

    def _passes(
        self, search: Search, evidence: Array | None, noise: Array | None
    ) -> tuple[Mixture, Any]:
        """Return the model to fit, and its passes over the rows."""
        if noise is not None:
            passes = noisy_passes(search, noise, self.n_jobs)
            return passes.model, passes
        if self.connectivity is None and evidence is None:
            return search.model, search.passes
        if self.connectivity is None:
            passes = known_passes(search, evidence, self.n_jobs)
            return passes.model, passes
        X = search.passes.rows.given
        graph = neighbors(self.connectivity, len(X))
        field = PottsPasses(search.model, X, graph, self.coupling, evidence)
        return PottsMixture(**vars(search.model)), field

    def _given(self, model: Mixture, resume: bool) -> Given:
        """Return the starting values that are given, or those of the last fit."""
        means = self.means_init
        if means is None and model.prior.mean_precision > 0 and model.prior.mean.ndim == 2:
            means = model.prior.mean
        starts = (self.weights_init, means, self.precisions_init)
        given = given_of(model.layout, *map(hosted, starts))
        return Given.all_of(self._params(model)) if resume else given

    def _new_model(self, layout: Layout, rows: Rows, seen: Moments) -> Mixture:
        scale = scale_of(seen)
        prior = flat_prior(layout)
        if self.prior == "empirical":
            prior = empirical_prior(layout, rows, seen.mean, scale)
        prior = given_prior(
            prior,
            layout,
            weight_concentration_prior=self.weight_concentration_prior,
            mean_precision_prior=self.mean_precision_prior,
            mean_prior=hosted(self.mean_prior),
            degrees_of_freedom_prior=self.degrees_of_freedom_prior,
            covariance_prior=hosted(self.covariance_prior),
        )
        if prior.mean_precision > 0 and self.mean_prior is None and self.prior == "flat":
            prior = replace(prior, mean=moments(rows).mean)
        reg_covar = self.reg_covar
        if reg_covar is None:
            reg_covar = 0.0 if prior.has_scale else 1e-6
        check_units(scale, reg_covar)
        fast = fast_pays(layout, rows.n_positive) and has_numba()
        single = rows.dtype == np.float32
        return Mixture(layout, prior, scale, float(reg_covar), single, fast)

    def _check_same_model(self, n_features: int) -> None:
        """Raise an error if the last fit has other sizes."""
        for name, old, new in (
            ("the number of features", self.means_.shape[1], n_features),
            ("n_components", np.shape(self.weights_)[0], self.n_components),
            ("covariance_type", self._covariance_type, self.covariance_type),
        ):
            if old != new:
                raise ValueError(
                    f"{name} was {old!r} in the last fit, but is {new!r} now: restore the "
                    "old value, or fit from scratch with warm_start=False."
                )

    # -- input ----------------------------------------------------

    def _check_rows(self, X: Any, sample_weight: Any = None, *, reset: bool) -> Rows:
        if self.connectivity is not None:
            X = open_rows(X).in_memory("connectivity").given
        X = in_numpy(X)
        # bytes are not converted: equal pixels are then found faster
        is_bytes = getattr(X, "dtype", None) == np.uint8
        dtype = None if is_bytes else [np.float64, np.float32]
        minimum = 2 if reset else 1
        return check_rows(
            self,
            X,
            sample_weight,
            reset=reset,
            min_rows=minimum,
            dtype=dtype,
            order="C",
            max_weight=MAX_SUMMED_WEIGHT,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags
