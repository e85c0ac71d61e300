"""VAEEstimator: a variational autoencoder that behaves like a scikit-learn estimator.

This file is the estimator. ``_model`` holds the networks, the bound and its gradient, and
``_training`` holds the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import qmc
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state, gen_batches

from skem._base.estimator import (
    Interval,
    ReconstructMixin,
    StrOptions,
    check_is_fitted,
    keep_features,
    with_callbacks,
)
from skem._base.input import check_codes, check_count
from skem._base.minibatch import relative
from skem._base.streams import blockwise, rowwise
from skem._loop import Patience
from skem._network.estimator import NetworkEstimator
from skem._network.scaling import Scaling, scaling_of
from skem._network.training import choose_device
from skem._rows.moments import Moments
from skem._rows.parts import LocalRows
from skem._typing import AnyArray, Array, Indices, Mask
from skem.vae._columns import (
    MixedScaling,
    check_unit_interval,
    columns_of,
    likelihood_name,
    likelihood_of,
    refuse_images,
    scaling_from,
    scaling_of_columns,
    with_categories,
)
from skem.vae._model import Design, build
from skem.vae._training import (
    BLOCK,
    N_DRAWS,
    Model,
    Training,
    begin_with_factors,
    bounds,
    codes,
    completed,
    decoded,
    drawn,
    epoch,
    start,
    validation_scores,
)

HOLE_ROWS = 100  # rows with missing values per block; they need more memory than others
# With max_iter="auto": the number of steps, and the limits of the number of passes.
AUTO_PASSES = (6000, 20, 400)
# With early_stopping="auto", rows are held out if there are at least and at most this many.
MIN_HELD_OUT, MAX_HELD_OUT = 20, 10_000
# It holds out this number of rows, unless they are more than a third of all: fewer do not tell
# chance from gain.
MIN_VALIDATION = 10
# What values outside of 0 and 1 lead to, for a warning.
OUTSIDE = (
    "the encoder sees them clipped, and their scores are low. Scale X like the rows of fit, or "
    "use likelihood='gaussian'."
)

OfRows = Callable[[Model, Array], Array]  # a function of a block of rows


class VAEEstimator(ReconstructMixin, NetworkEstimator):
    """A variational autoencoder: low-dimensional codes of rows, and a likelihood bound.

    A decoder maps a standard normal code to a distribution of rows. An encoder maps a row to
    an approximate posterior of its code:

    .. math::

        z \\sim \\mathcal N(0, I), \\quad x \\mid z \\sim p(x \\mid f(z)), \\quad
        q(z \\mid x) = \\mathcal N(\\mu(x), \\operatorname{diag} \\sigma^2(x)),

        \\log p(x) \\ge \\mathrm{ELBO}(x) = \\mathbb E_{q(z \\mid x)} \\log p(x \\mid z)
        - \\mathrm{KL}(q(z \\mid x) \\,\\|\\, p(z)).

    Both are neural networks. Adam trains them jointly by maximizing the bound [1]_. The
    estimator needs torch.

    Parameters
    ----------
    n_components : int, default=10
        The dimension of the code. Codes that the model does not need cost little.
    hidden_layer_sizes : tuple of int, default=(256, 256)
        Widths of the encoder's hidden layers; the decoder has them in reverse order. They
        are used by ``architecture="dense"`` only.
    activation : {"gelu", "relu", "tanh"}, default="gelu"
        The activation of the hidden layers.
    likelihood : {"auto", "bernoulli", "gaussian"} or dict, default="auto"
        The distribution of each feature given the code. "bernoulli" needs values between 0 and
        1; they may exceed this range by rounding errors. "gaussian" takes any values, and
        learns a noise variance for each feature. "auto" is "bernoulli" if the values of X at
        the first fit are between 0 and 1 and are either nearly all 0 and 1, or pixels
        (``image_shape`` is given). It is "gaussian" otherwise. A dict gives each column its
        own: ``{"gaussian": [...], "bernoulli": [...], "categorical": [...]}``, with lists of
        names (of a data frame) or indices. A column of categories holds codes 0, 1, 2, ..., as
        ``OrdinalEncoder`` returns them. The largest code at the first fit determines their
        number, which must be below 1000. Columns not named are Bernoulli if they hold 0 and 1
        and no other value, and Gaussian otherwise.
    image_shape : tuple of int, default=None
        Shape (height, width) or (height, width, channels) of a row that is an image.
    architecture : {"dense", "conv"}, default="dense"
        The layers of the networks. "conv" needs ``image_shape``. Its encoder has two
        convolutions and a dense hidden layer; its decoder has them in reverse order.
    encoder : callable, default=None
        Function that creates the encoder: ``encoder(n_features, 2 * n_components)`` returns a
        ``torch.nn.Module`` from rows to means and log-variances of codes. If ``likelihood`` is
        a dict, these rows have the Gaussian columns first, then the Bernoulli ones, then a
        column of 0 and 1 for each category, and ``n_features`` counts them.
    decoder : callable, default=None
        Function that creates the decoder: ``decoder(n_components, n_features)`` returns a
        ``torch.nn.Module`` from codes to logits (Bernoulli, categories) or means (Gaussian).
    beta : float, default=1.0
        Weight of the KL divergence in training. Scores are bounds of log p(x) for any value.
    kl_warmup : float, default=0.3
        The share of ``max_iter`` during which the weight of the KL divergence rises to
        ``beta``. ``early_stopping`` never stops in this phase. Built-in networks need no such
        phase and have none if features are Gaussian, or if ``likelihood`` is a dict.
    n_importance_samples : int, default=1
        Number of draws in the bound that ``score_samples`` returns. A number above 1 selects
        the importance-weighted bound [2]_, which is tighter and slower. The bound is averaged
        over several sets of draws, at least 64 draws in total. The draws of a row depend on its
        values and on the seed, not on other rows, so that their errors average out over rows.
        Rows with missing values have a bound of their own, see ``score_samples``.
    batch_size : "auto" or int, default="auto"
        Number of rows in a minibatch. "auto" is the number of rows divided by 100, at least
        16 and at most 128.
    learning_rate : {"one_cycle", "constant"}, default="one_cycle"
        The schedule of the step size. "one_cycle" rises during the first tenth of the steps
        and then falls to 0. "constant" does not change; ``partial_fit`` and fits that hold out
        rows (``early_stopping``) always use it.
    learning_rate_init : float, default=3e-3
        The largest step size.
    max_iter : "auto" or int, default="auto"
        Largest number of passes over the rows. "auto" is the number that makes 6000 steps, at
        least 20 and at most 400.
    tol : float, default=0.01
        Smallest rise of the validation score that counts, in nats (units of natural
        logarithm) per row.
    early_stopping : "auto" or bool, default="auto"
        Whether ``fit`` holds out validation rows and scores their ELBO after each pass. It
        stops when the score no longer rises, and restores the best weights. The weights that
        it scores and restores are running averages over about 100 steps. "auto" is True if
        there are from 20 to 10,000 rows, because longer fits would otherwise overfit. With
        fewer rows of Gaussian features, the result is the factor analysis from which fits
        start, after one pass, because too few rows could be held out to tell whether training
        helps.
    validation_fraction : float, default=0.1
        The share of the rows that ``early_stopping`` holds out. With "auto", these are at least
        10 rows, or a third of all if there are fewer than 30.
    n_iter_no_change : int, default=10
        Number of passes without a rise of at least ``tol`` after which ``fit`` stops.
    precision : {"float32", "bfloat16"}, default="float32"
        Number format of the matrix products in training; all else is in float32. "bfloat16"
        is faster on processors that support it, and slower on others.
    device : str, default="auto"
        Device of the networks: "cpu", "cuda", "cuda:1" and so on. "auto" is "cuda" if it is
        available, and "cpu" otherwise.
    random_state : int, RandomState or None, default=None
        Seed of the initial weights, the minibatches and the noise.
    warm_start : bool, default=False
        Whether ``fit`` starts from the weights of the last fit.
    verbose : int, default=0
        1 prints a line after each pass, 10 after every tenth pass.

    Attributes
    ----------
    loss_ : float
        Negative mean bound during the last training pass, in nats per row: the ELBO or, for
        minibatches with missing values, the importance-weighted bound of five draws.
    loss_curve_ : list of float
        The loss of every pass.
    kl_curve_ : list of float
        The KL divergence in the loss of every pass, in nats per row.
    validation_scores_ : list of float
        With ``early_stopping``, the mean ELBO of the validation rows after each pass of the
        last fit.
    likelihood_ : str or dict
        The distribution of the features: "bernoulli" or "gaussian", or the indices of the
        columns that are "gaussian", "bernoulli" and "categorical".
    n_iter_ : int
        Number of passes over the rows.
    t_ : int
        Number of Adam steps.
    device_ : str
        Device on which the networks were trained.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if X had names.

    Raises
    ------
    ValueError
        If the data or the parameters are inconsistent; the message names them.
    ImportError
        If torch is not installed.

    See Also
    --------
    BayesianGMM_MAP : Mixture with an exact likelihood.
    BernoulliRBMCD : Model of binary rows.

    Notes
    -----
    Networks with Gaussian features start from a factor analysis: the encoder and the decoder
    are its posterior and its mean, plus what the layers add. If the score of the validation
    rows does not rise by more than its standard error, the fit is the factor analysis of
    all rows. Its correlations are shrunk: it is fitted to the rows and to imaginary rows with
    independent features. Cross-validation chooses their number, from 0 to 1.5 times the number
    of rows.
    The noise variances are running means of the squared residuals, which maximize the bound.
    If ``likelihood`` is a dict, the factor analysis is of the Gaussian columns, and all other
    columns start independent of the code. User-defined encoders and decoders start from their
    own weights.

    NaN marks a missing value. It is omitted from the likelihood. In training, the encoder sees
    the mean of the feature in its place. Its posterior is then rough, and the ELBO would make
    the decoder lose dependence that the encoder cannot use. Minibatches with missing values
    therefore maximize an importance-weighted bound [4]_, of five draws.

    The weights, the state of Adam and the seed are stored as NumPy data. A pickle can therefore
    be loaded on any machine, and ``partial_fit`` can continue there.

    References
    ----------
    .. [1] D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014.
    .. [2] Y. Burda, R. Grosse and R. Salakhutdinov, "Importance weighted autoencoders",
       ICLR 2016.
    .. [3] P.-A. Mattei and J. Frellsen, "Leveraging the exact likelihood of deep latent
       variable models", NeurIPS 2018.
    .. [4] P.-A. Mattei and J. Frellsen, "MIWAE: deep generative modelling and imputation of
       incomplete data sets", ICML 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import VAEEstimator
    >>> X = load_digits().data / 16
    >>> model = VAEEstimator(2, max_iter=5, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 2)
    >>> model.sample(3, random_state=0).shape
    (3, 64)
    """

    _auto_passes = AUTO_PASSES
    _parameter_constraints: dict[str, Any] = {
        "n_components": [Interval(Integral, 1, qmc.Sobol.MAXDIM, closed="both")],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions({"gelu", "relu", "tanh"})],
        "likelihood": [StrOptions({"auto", "bernoulli", "gaussian"}), Mapping],
        "image_shape": ["array-like", None],
        "architecture": [StrOptions({"dense", "conv"})],
        "encoder": [callable, None],
        "decoder": [callable, None],
        "beta": [Interval(Real, 0, None, closed="left")],
        "kl_warmup": [Interval(Real, 0, 1, closed="both")],
        "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate": [StrOptions({"one_cycle", "constant"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "precision": [StrOptions({"float32", "bfloat16"})],
        "device": [str],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden_layer_sizes: tuple[int, ...] = (256, 256),
        activation: Literal["gelu", "relu", "tanh"] = "gelu",
        likelihood: Literal["auto", "bernoulli", "gaussian"] | Mapping[str, Any] = "auto",
        image_shape: tuple[int, ...] | None = None,
        architecture: Literal["dense", "conv"] = "dense",
        encoder: Callable[..., Any] | None = None,
        decoder: Callable[..., Any] | None = None,
        beta: float = 1.0,
        kl_warmup: float = 0.3,
        n_importance_samples: int = 1,
        batch_size: Literal["auto"] | int = "auto",
        learning_rate: Literal["one_cycle", "constant"] = "one_cycle",
        learning_rate_init: float = 3e-3,
        max_iter: Literal["auto"] | int = "auto",
        tol: float = 0.01,
        early_stopping: Literal["auto"] | bool = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        precision: Literal["float32", "bfloat16"] = "float32",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.likelihood = likelihood
        self.image_shape = image_shape
        self.architecture = architecture
        self.encoder = encoder
        self.decoder = decoder
        self.beta = beta
        self.kl_warmup = kl_warmup
        self.n_importance_samples = n_importance_samples
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    # -- fitting --------------------------------------------------------------------------

    @with_callbacks
    def fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train the encoder and the decoder.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or a stack of images
            The rows; NaN marks a missing value. Memory maps, zarr and HDF5 are read
            batch by batch.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        VAEEstimator
            The fitted estimator.
        """
        self._fit(X, sample_weight)
        return self

    @blockwise
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one more pass over these rows, at a constant step size.

        With ``likelihood="auto"``, the first batch decides between "bernoulli" and
        "gaussian". It also determines how Gaussian features are standardized, and how many
        categories a column has. The first batch should therefore be representative of the
        later ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or a stack of images
            The rows. The blocks of a dask array or data frame are used in their order, one at
            a time.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        VAEEstimator
            The updated estimator.
        """
        self._partial_fit(X, sample_weight)
        return self

    def _begin(
        self,
        rows: LocalRows,
        seen: Moments,
        seed: int,
        device: Any,
        fast: bool,
        resume: bool,
    ) -> Training:
        own = self.encoder is None and self.decoder is None
        if self.precision == "bfloat16" and not own:
            raise ValueError(
                "precision='bfloat16' needs the built-in networks, but encoder or decoder is "
                "given: use precision='float32', or leave both at None."
            )
        scaling = self._scaling_of(rows, seen, resume)
        columns = columns_of(scaling)
        design = Design(
            **self._sizes(sum(columns.sizes)),
            columns=columns,
            based=self._design["based"] if resume else own and not columns.all_bernoulli,
            encoder=self.encoder,
            decoder=self.decoder,
        )
        self._check_same_design(design, resume)
        if resume:
            scaling = scaling_from(self._scaling)
        adam = self._adam if resume else None
        half = self.precision == "bfloat16"
        return start(design, scaling, seed, device, half=half, fast=fast, adam=adam)

    def _start(
        self, rows: LocalRows, chosen: Indices, seed: int, resume: bool, n_passes: int | None
    ) -> Training:
        training: Training = super()._start(rows, chosen, seed, resume, n_passes)
        if training.design.based and not resume:
            begin_with_factors(training, rows, chosen)
        if n_passes is not None and self._stops_early(rows.n_positive):
            training.average = training.network.flat.values.detach().clone()
        return training

    def _stops_early(self, n_rows: int) -> bool:
        if self.early_stopping == "auto":
            return MIN_HELD_OUT <= n_rows <= MAX_HELD_OUT
        return bool(self.early_stopping)

    def _validation_share(self, n_rows: int) -> float:
        least = min(MIN_VALIDATION, n_rows // 3) / n_rows
        return max(float(self.validation_fraction), least * (self.early_stopping == "auto"))

    def _ends(self, training: Training, n_rows: int) -> bool:
        """Return whether the fit will be the factor analysis, whatever more passes learn."""
        return self._are_few(n_rows) and self._may_return(training, self._resumes())

    def _may_return(self, training: Training, resume: bool) -> bool:
        """Return whether the fit may end as the factor analysis from which it started."""
        return training.design.based and not resume

    def _are_few(self, n_rows: int) -> bool:
        """Return whether rows cannot tell if training helps: it would fit chance."""
        return self.early_stopping == "auto" and n_rows < MIN_HELD_OUT

    def _may_stop(self, training: Training, n_passes: int) -> bool:
        """Return False while the KL divergence is phased in: the bound of the codes falls."""
        return training.design.based or training.n_passes > self.kl_warmup * n_passes

    def _keeps_start(self, training: Training, resume: bool) -> bool:
        return resume or training.design.based

    def _check_rows(self, X: Any, sample_weight: Any = None, *, reset: bool) -> LocalRows:
        rows: LocalRows = super()._check_rows(X, sample_weight, reset=reset)
        if reset and isinstance(self.likelihood, Mapping):
            outline = BaseEstimator()
            keep_features(outline, X)
            self._names = getattr(outline, "feature_names_in_", None)
        return rows

    def _scaling_of(self, rows: LocalRows, seen: Moments, resume: bool) -> Scaling:
        """Return the scaling of X at a first fit, once its likelihood is known to suit X."""
        old, images = None, self.image_shape is not None
        names = self.__dict__.pop("_names", None)
        if resume:
            old, names = scaling_from(self._scaling), getattr(self, "feature_names_in_", None)
        likelihood: Any = self.likelihood
        if likelihood == "auto":
            likelihood = self.likelihood_ if resume else likelihood_of(rows, seen, images)
        if isinstance(likelihood, str) and not isinstance(old, MixedScaling):
            check_unit_interval(likelihood, rows, seen)
            total = float(np.sum(rows.weight))
            return scaling_of(seen, total, likelihood == "gaussian")
        if images:
            refuse_images(self.image_shape)
        return scaling_of_columns(likelihood, rows, seen, names, old)

    def _describe_columns(self, is_category: Mask, names: AnyArray | None) -> None:
        """Set ``likelihood`` for an imputer, which replaces categories by codes.

        The other columns stay what ``likelihood`` says, with indices instead of names.
        """
        if isinstance(self.likelihood, Mapping) or is_category.any():
            self.likelihood = with_categories(self.likelihood, is_category, names)

    def _validation_score(self, training: Training, rows: LocalRows, chosen: Indices) -> float:
        each = validation_scores(training, rows, chosen)
        return training.note_scores(each, np.asarray(rows.weight)[chosen])

    def _train(self, rows: LocalRows, resume: bool) -> Any:
        trained = super()._train(rows, resume)
        training, _, run, _ = trained
        has_risen = training.has_risen() and not self._are_few(rows.n_positive)
        if self._may_return(training, resume) and not has_risen:
            rows = relative(rows)
            try:
                begin_with_factors(training, rows, np.flatnonzero(rows.weight))
            except KeyboardInterrupt:
                run.interrupted = True
        return trained

    def _line(self, training: Training, patience: Patience | None) -> str:
        line = f"loss {training.losses[-1]:.3f} nats per sample"
        if patience is None:
            return line
        return f"{line}, validation score {patience.scores[-1]:.3f}"

    def _pass(
        self, training: Training, rows: LocalRows, chosen: Indices, i: int | None
    ) -> float:
        size = self._n_batch(len(chosen))
        n_batches = math.ceil(len(chosen) / size)
        beta = self.beta
        if i is not None and not training.design.based:
            n_passes = self._max_passes(rows.n_positive)
            beta *= min(1.0, (i + 1) / (self.kl_warmup * n_passes + 1))
        # while rows are held out, running averages take the place of the falling rate
        cycle = i if training.average is None else None
        rate = self._rate(training, rows.n_positive, n_batches, cycle)
        epoch(training, rows, chosen, size, rate, beta)
        return -training.losses[-1]

    def _attributes(
        self, training: Training, resume: bool, scores: list[float]
    ) -> dict[str, Any]:
        before: Any = self if resume else None
        losses = [*getattr(before, "loss_curve_", []), *training.losses]
        return {
            "loss_curve_": losses,
            "kl_curve_": [*getattr(before, "kl_curve_", []), *training.divergences],
            "loss_": losses[-1] if losses else math.nan,
            "n_iter_": len(losses),
            "t_": training.n_steps,
            "likelihood_": likelihood_name(training.scaling),
            "device_": str(training.device),
            "validation_scores_": scores,
            "_design": {**vars(training.design), "columns": tuple(training.design.columns)},
            "_scaling": vars(training.scaling),
            "_weights": training.weights(),
            "_adam": training.adam.state(),
            "_seed": training.seed,
            "_cache": {},
        }

    def _fitted(self, dtype: Any) -> Model:
        """Return the trained networks in this dtype, on the device that ``device`` names."""
        check_is_fitted(self)
        key = f"{np.dtype(dtype)} {self.device}"
        if key not in self._cache:
            design = Design(**self._design)
            network = build(design, self._seed, choose_device(self.device))
            model = Model(scaling_from(self._scaling), self._seed, design, network)
            model.restore(self._weights)
            network.convert(dtype)
            self._cache[key] = model
        return self._cache[key]

    @property
    def _n_features_out(self) -> int:
        return int(self._design["n_components"])

    def _each(self, X: ArrayLike, of_whole: OfRows, of_holes: OfRows) -> Array:
        """Apply a function to complete rows, another to those with holes, block by block."""
        rows = self._in_memory(X)
        model, found = self._fitted(rows.dtype), []
        model.scaling.warn_outside(rows, OUTSIDE)
        if isinstance(model.scaling, MixedScaling):
            model.scaling.check_codes(rows)
        for part in gen_batches(len(rows), BLOCK):
            block = np.asarray(rows[part])
            holes = np.isnan(block).any(axis=1)
            whole = of_whole(model, block[~holes])
            out = np.empty((len(block), *whole.shape[1:]), rows.dtype)
            out[~holes] = whole
            where = np.flatnonzero(holes)
            for i in range(0, len(where), HOLE_ROWS):
                some = where[i : i + HOLE_ROWS]
                out[some] = of_holes(model, block[some])
            found.append(out)
        return np.concatenate(found)

    # -- verbs ----------------------------------------------------------------------------

    @rowwise
    def transform(self, X: ArrayLike) -> Array:
        """Return the posterior mean of the code of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            The posterior means mu(x) of the encoder. For rows with missing values, the
            expectation of the code given the observed values, see :meth:`impute`.

        Warns
        -----
        UserWarning
            If features are Bernoulli and values lie outside of 0 and 1: they are clipped.
        """
        return self._each(X, codes, lambda model, rows: completed(model, rows).codes)

    @rowwise
    def inverse_transform(self, X: ArrayLike) -> Array:
        """Return the expected row given each code.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            The codes.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The expected rows E[x | z]; for Bernoulli features these are probabilities. Columns
            of categories hold the most probable code.
        """
        check_is_fitted(self)
        z = check_codes(X, self._n_features_out, "component")
        model = self._fitted(z.dtype)
        return np.concatenate([decoded(model, z[part]) for part in gen_batches(len(z), BLOCK)])

    @rowwise
    def score_samples(self, X: ArrayLike) -> Array:
        """Return a lower bound of the log-likelihood of each row.

        The quasi-random draws depend on the values of the row and on the seed. The score of a
        row therefore depends neither on the other rows nor on the call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; missing values are omitted from the likelihood.

        Returns
        -------
        ndarray of shape (n_samples,)
            The ELBO, in nats. If ``n_importance_samples`` is above 1, the importance-weighted
            bound. For rows with missing values, the logarithm of an importance-weighted mean
            that estimates the density of the observed values, see :meth:`impute`. For Gaussian
            features it bounds a density in the units of X. A Bernoulli feature at a distance e
            outside of 0 and 1 costs (e / 0.1)^2 / 2 nats. A column of categories adds the
            log-probability of its category.

        Warns
        -----
        UserWarning
            If features are Bernoulli and values lie outside of 0 and 1.
        """
        self._check_parameters()
        n = int(self.n_importance_samples)
        return self._each(
            X,
            lambda model, rows: bounds(model, rows, n, N_DRAWS),
            lambda model, rows: completed(model, rows).log_evidence,
        )

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> Array:
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            The number of rows to draw.
        random_state : int, RandomState or None, default=None
            Seed of this call; None means that of the estimator.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The rows. Their values are 0 or 1 if Bernoulli, codes of categories if categorical,
            and include the noise if Gaussian. The latter are real numbers, also where X held
            integers.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        rng = check_random_state(self._seed_of(random_state))
        z = rng.standard_normal((int(n_samples), self._n_features_out))
        return drawn(self._fitted(np.float64), z, rng)

    @rowwise
    def impute(self, X: ArrayLike) -> Array:
        """Return X with missing values replaced by their expectation given the observed ones.

        The expectation is an importance-weighted mean over draws of the code. The draws come
        from the prior and from what chains of Metropolis steps find. The steps propose
        codes by the encoder. Where few draws have nearly all the weight, the chains count too.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The complete rows. A missing category becomes the most probable one.
        """
        return self._each(
            X, lambda model, rows: rows, lambda model, rows: completed(model, rows).rows
        )
