"""GANEstimator: a generative adversarial network as a scikit-learn estimator.

This file is the estimator. ``_model`` holds the networks, their losses and gradients, and
``_training`` holds the training.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state, gen_batches

from skem._base.estimator import (
    Interval,
    StrOptions,
    check_is_fitted,
    warn,
    with_callbacks,
)
from skem._base.input import check_codes, check_count, in_unit_interval
from skem._base.streams import blockwise, rowwise
from skem._loop import Patience
from skem._network.estimator import NetworkEstimator
from skem._network.layers import WIDTH
from skem._network.scaling import Scaling, scaling_of
from skem._network.training import choose_device
from skem._rows.moments import Moments
from skem._rows.parts import LocalRows
from skem._typing import Array, Indices
from skem._warn import is_scored_by_search
from skem.gan._model import Design, Networks
from skem.gan._training import (
    Training,
    coverage,
    epoch,
    features_and_logits,
    fitted,
    rows_of,
    start,
)

# What values outside of 0 and 1 lead to, for a warning.
OUTSIDE = "they are clipped. Scale X like the rows of fit."
MIN_RANGE = 0.5  # values between 0 and 1 are not scaled if their range is above this
SPREAD = 200.0  # the total variance of the rows that enter the discriminator
ROWS = 2000  # rows per block: processing all rows at once would take too much memory
# Collapse is reported if coverage is below MIN_COVERAGE and was measured on at least
# MIN_COMPARED rows.
MIN_COVERAGE, MIN_COMPARED = 0.4, 100
# With max_iter="auto": the number of steps, and the limits of the number of passes.
AUTO_PASSES = (3000, 50, 3000)


class GANEstimator(NetworkEstimator):
    """A generative adversarial network: a generator trained against a discriminator.

    A generator G maps noise to rows. A discriminator D estimates the probability that a row
    comes from the data and not from the generator:

    .. math::

        x = G(z), \\; z \\sim p(z), \\quad D(x) = \\sigma(d(x)),

        \\max_D \\; \\mathbb E_x \\log D(x) + \\mathbb E_z \\log(1 - D(G(z))),

        \\min_G \\; -\\mathbb E_z \\log D(G(z)).

    Adam trains them in turn [1]_. For the best D against a given G, d(x) is the log-ratio of
    the data density to the generator density. The estimator needs torch.

    Parameters
    ----------
    n_components : int, default=100
        The dimension of the noise from which a row is generated.
    hidden_layer_sizes : tuple of int, default=(128,)
        Widths of the generator's hidden layers; the discriminator has them in reverse order.
        They are used by ``architecture="dense"`` only.
    activation : {"gelu", "relu", "tanh"}, default="gelu"
        The activation of the hidden layers.
    image_shape : tuple of int, default=None
        Shape (height, width) or (height, width, channels) of a row that is an image.
    architecture : {"dense", "conv"}, default="dense"
        The layers of the networks. "conv" needs ``image_shape``. Its generator ends with two
        transposed convolutions; its discriminator begins with two convolutions.
    loss : {"non_saturating", "minimax"}, default="non_saturating"
        The loss of the generator. "non_saturating" is the negative mean of log D. "minimax" is
        the mean of log(1 - D); its gradient is small while the discriminator wins.
    noise : {"normal", "uniform"}, default="normal"
        The distribution of each noise component: standard normal, or uniform between -1 and
        1.
    spectral_norm : bool, default=True
        Whether each weight matrix of the discriminator is divided by its largest singular
        value [2]_. The first matrix is then multiplied by a constant that compensates for the
        scale of the rows. This bounds the slope of the discriminator and stabilizes training.
    average : float, default=0.999
        Decay of the running average of the generator's weights: the share of the average that
        is kept at each step. The averaged weights are used to draw rows. With 0, the last
        weights are used.
    batch_size : int, default=128
        Number of rows in a minibatch.
    learning_rate : {"one_cycle", "constant"}, default="one_cycle"
        The schedule of the step size. "one_cycle" rises during the first tenth of the steps
        of a fit to its largest value, then falls to 0. Without the fall, the generator
        keeps circling around the data. ``partial_fit`` uses a constant step.
    learning_rate_init : float, default=8e-3
        The largest step size of both networks.
    beta_1 : float, default=0.0
        Decay of Adam's running mean of the gradient.
    beta_2 : float, default=0.99
        Decay of Adam's running mean of the squared gradient.
    max_iter : "auto" or int, default="auto"
        Number of passes over the rows. Training needs some thousands of steps, whatever the
        number of rows: "auto" is the number that makes 3000 steps, but at least 50.
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
    discriminator_loss_curve_ : list of float
        The discriminator's mean loss in each pass, in nats (units of natural logarithm). It is
        2 log 2 = 1.386 if the discriminator cannot distinguish generated rows from the data,
        and 0 if it always can.
    generator_loss_curve_ : list of float
        The generator's mean loss in each pass, in nats.
    coverage_ : float
        The share of rows of X that have a generated row nearby [3]_. It is computed from up
        to 1000 rows of X and the same number of generated rows. Nearby means no farther than
        the fifth nearest neighbor among the distinct rows. Coverage is near 1 for draws from
        the data distribution, and near 0 if all generated rows are alike. It is NaN if all
        rows of X are alike.
    n_iter_ : int
        Number of passes over the rows.
    t_ : int
        Number of steps of each network.
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

    Warns
    -----
    ConvergenceWarning
        If few rows of X have a generated row nearby: the generator has collapsed.

    See Also
    --------
    VAEEstimator : Codes of rows and a likelihood bound; supports missing values.

    Notes
    -----
    X is not scaled if its values are between 0 and 1 and span more than half of that range.
    Generated values are then between 0 and 1 too, and rows to be scored are clipped to this
    range. Otherwise the features are standardized internally.

    References
    ----------
    .. [1] I. Goodfellow et al., "Generative adversarial nets", NeurIPS 2014.
    .. [2] T. Miyato, T. Kataoka, M. Koyama and Y. Yoshida, "Spectral normalization for
       generative adversarial networks", ICLR 2018.
    .. [3] M. F. Naeem, S. J. Oh, Y. Uh, Y. Choi and J. Yoo, "Reliable fidelity and diversity
       metrics for generative models", ICML 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import GANEstimator
    >>> X = load_digits().data / 16
    >>> model = GANEstimator(20, max_iter=100, random_state=0).fit(X)
    >>> model.sample(3, random_state=0).shape
    (3, 64)
    >>> model.transform(X).shape
    (1797, 128)
    """

    _allow_nan = False
    _score_compares = False

    _auto_passes = AUTO_PASSES
    _parameter_constraints: dict[str, Any] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions({"gelu", "relu", "tanh"})],
        "image_shape": ["array-like", None],
        "architecture": [StrOptions({"dense", "conv"})],
        "loss": [StrOptions({"non_saturating", "minimax"})],
        "noise": [StrOptions({"normal", "uniform"})],
        "spectral_norm": ["boolean"],
        "average": [Interval(Real, 0, 1, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"one_cycle", "constant"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "device": [str],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 100,
        *,
        hidden_layer_sizes: tuple[int, ...] = (128,),
        activation: Literal["gelu", "relu", "tanh"] = "gelu",
        image_shape: tuple[int, ...] | None = None,
        architecture: Literal["dense", "conv"] = "dense",
        loss: Literal["non_saturating", "minimax"] = "non_saturating",
        noise: Literal["normal", "uniform"] = "normal",
        spectral_norm: bool = True,
        average: float = 0.999,
        batch_size: int = 128,
        learning_rate: Literal["one_cycle", "constant"] = "one_cycle",
        learning_rate_init: float = 8e-3,
        beta_1: float = 0.0,
        beta_2: float = 0.99,
        max_iter: Literal["auto"] | int = "auto",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.image_shape = image_shape
        self.architecture = architecture
        self.loss = loss
        self.noise = noise
        self.spectral_norm = spectral_norm
        self.average = average
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    # -- fitting --------------------------------------------------------------------------

    @with_callbacks
    def fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train the generator and the discriminator in turn.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or a stack of images
            The rows. Memory maps, zarr and HDF5 are read batch by batch.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        GANEstimator
            The fitted estimator.
        """
        training, _, run, _ = self._fit(X, sample_weight)
        few = len(training.compared) < MIN_COMPARED
        if self.coverage_ < MIN_COVERAGE and not few and not run.interrupted:
            warn(
                f"mode collapse: only {self.coverage_:.0%} of the rows of X have a generated "
                "row nearby (coverage_). Use spectral_norm=True, lower learning_rate_init, or "
                "raise max_iter if training was short."
            )
        return self

    @blockwise
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one more pass over these rows.

        The first batch determines whether and how features are standardized. It should
        therefore be representative of the later ones.

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
        GANEstimator
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
        inside = in_unit_interval(seen.low, seen.high, rows.working_dtype)
        if resume:
            scaling, gain = Scaling(**self._scaling), self._design["gain"]
            if not scaling.standardized and not inside:
                raise ValueError(
                    "the networks were built for values between 0 and 1, but X has values from "
                    f"{seen.low:.3g} to {seen.high:.3g}: scale X like the first rows, or call "
                    "fit with warm_start=False."
                )
        else:
            as_it_is = inside and seen.low < seen.high - MIN_RANGE
            scaling = scaling_of(seen, float(np.sum(rows.weight)), not as_it_is)
            gain = scaling.gain(seen, SPREAD)
        design = Design(
            **self._sizes(rows.shape[1]),
            standardized=scaling.standardized,
            spectral=self.spectral_norm,
            gain=gain,
            noise=self.noise,
            loss=self.loss,
        )
        self._check_same_design(design, resume, "loss")
        betas = float(self.beta_1), float(self.beta_2)
        states = self._adams if resume else (None, None)
        return start(design, scaling, seed, device, rows, betas=betas, fast=fast, states=states)

    def _pass(
        self, training: Training, rows: LocalRows, chosen: Indices, i: int | None
    ) -> float:
        size = self._n_batch(len(chosen))
        rate = self._rate(training, rows.n_positive, math.ceil(len(chosen) / size), i)
        epoch(training, rows, chosen, size, rate, self.average)
        return -training.losses[-1][1]

    def _line(self, training: Training, patience: Patience | None) -> str:
        discriminator, generator = training.losses[-1]
        return f"loss {discriminator:.3f} of D, {generator:.3f} of G, nats per sample"

    def _attributes(
        self, training: Training, resume: bool, scores: list[float]
    ) -> dict[str, Any]:
        before: Any = self if resume else None
        names = "discriminator_loss_curve_", "generator_loss_curve_"
        curves = {
            name: [*getattr(before, name, []), *(pair[i] for pair in training.losses)]
            for i, name in enumerate(names)
        }
        return {
            **curves,
            "coverage_": coverage(training),
            "n_iter_": len(curves[names[0]]),
            "t_": training.n_steps,
            "device_": str(training.average.device),
            "_design": vars(training.networks.design),
            "_scaling": vars(training.scaling),
            "_weights": training.weights(),
            "_adams": [adam.state() for adam in training.adams],
            "_seed": training.seed,
            "_cache": {},
        }

    def _fitted(self, dtype: Any) -> Networks:
        """Return the networks in this dtype, on the device that ``device`` names."""
        check_is_fitted(self)
        key = f"{np.dtype(dtype)} {self.device}"
        if key not in self._cache:
            device = choose_device(self.device)
            self._cache[key] = fitted(
                Design(**self._design), self._seed, device, self._weights, dtype
            )
        return self._cache[key]

    @property
    def _n_features_out(self) -> int:
        sizes = self._design["hidden_layer_sizes"] or (self._design["n_features"],)
        return int(sizes[0]) if self._design["architecture"] == "dense" else WIDTH

    # -- verbs ----------------------------------------------------------------------------

    def _discriminated(self, X: ArrayLike, which: int) -> Array:
        """Return an output of the discriminator: its features (0) or its logits (1)."""
        rows = self._in_memory(X)
        networks, scaling = self._fitted(rows.dtype), Scaling(**self._scaling)
        scaling.warn_outside(rows, OUTSIDE)
        return np.concatenate(
            [
                features_and_logits(networks, scaling, rows[part])[which]
                for part in gen_batches(len(rows), ROWS)
            ]
        )

    @rowwise
    def transform(self, X: ArrayLike) -> Array:
        """Return the features of each row: the last hidden layer of the discriminator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray of shape (n_samples, n_hidden)
            The features. ``n_hidden`` is the first of ``hidden_layer_sizes``, or 256 for
            ``architecture="conv"``. Without hidden layers the features are the rows.
        """
        return self._discriminated(X, 0)

    @rowwise
    def score_samples(self, X: ArrayLike) -> Array:
        """Return log D(x) / (1 - D(x)), the discriminator's log-density ratio.

        It estimates log p(x) - log p_G(x), with the data density p and the generator density
        p_G. With ``spectral_norm`` it stays near 0, because the slope of d is bounded. It is
        not a likelihood: a high value means that a row is unlike generated rows. A high
        ``score`` therefore indicates a poor generator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            The log-ratios, in nats.
        """
        return self._discriminated(X, 1)

    def score(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the mean log-density ratio of the rows.

        It is near 0 if the discriminator cannot distinguish the rows from generated rows. It
        cannot be used to compare fits: a higher score does not mean a better generator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            The (weighted) mean of ``score_samples(X)``, in nats per sample.

        Warns
        -----
        UserWarning
            If a search or a cross-validation of scikit-learn calls it.
        """
        if is_scored_by_search():
            warn(
                "the score of GANEstimator does not compare generators: give the search a "
                "scoring, for example a function that returns coverage_.",
                UserWarning,
            )
        return super().score(X, y, sample_weight)

    @rowwise
    def inverse_transform(self, X: ArrayLike) -> Array:
        """Return the rows that the generator makes from noise.

        This is not the inverse of ``transform``, which returns features of the discriminator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            The noise.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The generated rows G(z), in the units of the data.
        """
        check_is_fitted(self)
        z = check_codes(X, self._design["n_components"], "noise component")
        networks, scaling = self._fitted(z.dtype), Scaling(**self._scaling)
        return np.concatenate(
            [rows_of(networks, scaling, z[part]) for part in gen_batches(len(z), ROWS)]
        )

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> Array:
        """Draw rows from the generator.

        Parameters
        ----------
        n_samples : int, default=1
            The number of rows to draw.
        random_state : int, RandomState or None, default=None
            Seed of this call; None means that of the estimator.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The rows, in the units of the data.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        rng = check_random_state(self._seed_of(random_state))
        shape = int(n_samples), int(self._design["n_components"])
        normal = self._design["noise"] == "normal"
        return self.inverse_transform(
            rng.standard_normal(shape) if normal else rng.uniform(-1, 1, shape)
        )
