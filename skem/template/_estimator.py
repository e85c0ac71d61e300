"""ShiftedTemplateEM: find a template that is hidden at an unknown position in many images.

This file is the estimator, ``_verbs`` its verbs. ``_model`` holds the E and M step, ``_starts``
the starts of EM, ``_classes`` those of several templates, ``_moves`` the moves out of a local
optimum, and ``_windows`` the correlations.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Tags, check_random_state

from skem._base.em import Trained
from skem._base.estimator import (
    Interval,
    StrOptions,
    warn,
    with_callbacks,
)
from skem._base.input import MAX_SUMMED_WEIGHT, check_rows
from skem._rows.parts import Rows as AllRows
from skem._threads import one_blas_thread
from skem._typing import Array
from skem.template._fitted import OF_SOME, attributes
from skem.template._given import check_options, check_schedule, known_shifts
from skem.template._model import Params, ShiftedTemplate, Smoothness, Stats
from skem.template._starts import model_of
from skem.template._training import Training
from skem.template._verbs import TemplateVerbs
from skem.template._windows import Windows, check_image_shape, new_windows

# What the flags of the model are called by the parameters of the estimator.
_ADD = {False: "occlude", True: "add"}
_FREE = {False: "fixed", True: "free"}
_STATIONARY = {False: "white", True: "stationary"}


class ShiftedTemplateEM(TemplateVerbs):
    """A template hidden at an unknown shift in noisy images, fitted by EM.

    Each image is a fixed background plus white Gaussian noise. A template replaces the
    pixels of the background in a window at a hidden shift:

    .. math::

        d &\\sim \\mathrm{Categorical}(a), \\\\
        x \\mid d &\\sim \\mathcal N(M_d, s^2 I), \\quad
        M_d = \\text{background with the template pasted at } d.

    A fit estimates template, background, noise and the distribution of the shifts, by maximum
    likelihood with a weak prior on the distribution of the shifts. There may be several
    templates, the template may have an amplitude of its own in each image, and it may be added
    to the background, also in noise that is not white. For very noisy images, a
    smoothness prior can be added. An EM iteration over n images of H rows and W columns costs
    O(n H W) for any number of shifts.

    Parameters
    ----------
    template_width : int, default=None
        Width of the template in pixels. None means half the width of the image.
    template_height : int, default=None
        Height of the template in pixels. None means the height of the image: the
        template then moves only sideways.
    image_shape : tuple of int, default=None
        Shape (height, width) or (height, width, channels) of the images that the rows of X
        hold in C order. None means the shape of an image if X is a stack (n_samples, height,
        width) or (n_samples, height, width, channels), and (1, n_features) otherwise.
    n_templates : int, default=1
        Number of templates, of which each image shows one. Each has its own probability and
        its own distribution of the shifts; background and noise are shared.
    composition : {"occlude", "add"}, default="occlude"
        "occlude" puts the template in front of the background. "add" adds it to the
        background, as a response is added to activity that is the same in all recordings;
        this needs complete images.
    amplitude : {"fixed", "free"}, default="fixed"
        "free" multiplies the template in each image by an amplitude, which may be negative.
        The amplitudes are Gaussian with mean 1, and their variance is estimated. With
        ``composition="occlude"``, the amplitude multiplies the pixels as they are: subtract
        an offset of all pixels first.
    noise : {"white", "stationary"}, default="white"
        "stationary" estimates the spectrum of the noise along the axes in which the template
        moves. Lines of the image that the template does not cross, such as channels, have
        independent noise with the same spectrum. It needs ``composition="add"``.
    cyclic : bool, default=False
        Whether images are periodic: a template that leaves the image enters it on the other
        side, and there are as many shifts as columns (and rows).
    shift_prior : array-like of shape (n_shifts,), default=None
        Known probabilities of the shifts, given that a template is present. They must sum
        to 1. They are not estimated, and the search for a start uses them.
    algorithm : {"soft", "hard"}, default="soft"
        "soft" is EM. "hard" assigns each image to its most probable shift. It converges
        faster, but is less accurate on noisy images.
    absent : bool, default=False
        Whether the template may be absent from an image. If so, the posterior has one
        more category, the last, and ``predict`` returns -1 for it.
    init : {"auto", "mean", "random"}, default="auto"
        How EM starts. "auto" compares several starts on ``init_size`` images, continues the
        best on all images, and then tries to shift a template that is off its place.
        "mean" starts with all shifts equally probable; it cannot start several templates.
        "random" starts from random pixels within the range of the data and a random noise
        level.
    n_init : int, default=2
        Number of random starts. "auto" compares them with its other starts; "random" uses
        only them.
    init_size : int, default=256
        Number of images for each template on which starts are compared.
    shrinkage : {"start", "map"} or None, default="start"
        "start" adds a start to "auto" in which template and background are shrunk. Shrinking
        prevents each image from matching its own noise in the template. The fit itself does
        not shrink. "map" keeps the shrunk estimate, which is suited to very noisy
        images: the mode under Gaussian priors on the DCT coefficients. The variances of these
        priors are estimated from the data for each radial frequency. It needs
        ``amplitude="fixed"``. None disables shrinkage.
    subset_schedule : tuple of (n_images, n_iter), default=None
        Pairs of numbers: EM runs ``n_iter`` iterations on the first ``n_images`` images, for
        one pair after the other, before the iterations on all images. With
        ``init="random"``, ``n_init=1`` and ``max_iter=1``,
        ``((50, 5), (100, 1), (300, 1), (500, 1))`` is a common schedule for 1000 images.
    template_init : array-like of shape (template_height, template_width), default=None
        Template to start from; several have a first axis of length ``n_templates``. If any
        of the four ``*_init`` arrays or numbers is given, ``init="auto"`` becomes "mean" for
        those that are not given. EM then runs from this start only, without a search and
        without moves.
    background_init : array-like of shape (height, width), default=None
        Background to start from.
    noise_std_init : float, default=None
        Standard deviation of the noise to start from.
    shift_prior_init : array-like of shape (n_shifts,), default=None
        Shift probabilities to start from; they must sum to 1. With ``absent``, the last entry
        is the probability of absence. See ``shift_prior`` for known probabilities. For
        several templates, probabilities in the order of ``shift_prior_``.
    shift_concentration_prior : float, default=1.1
        Concentration of the symmetric Dirichlet prior on the probabilities of the shifts, at
        least 1. It acts like ``shift_concentration_prior - 1`` additional images at each
        shift, so that shifts without a training image stay possible in new ones. With
        ``absent``, the probability of absence has a symmetric beta prior of the same
        concentration. 1 is maximum likelihood: a shift that no training image has then gets
        probability 0, and new images that have it are misplaced with confidence.
    max_iter : int, default=100
        The largest number of EM iterations on all images.
    tol : float, default=1e-4
        EM stops when an iteration changes the objective by less than this, in nats (units of
        natural logarithm) per image.
    random_state : int, RandomState or None, default=None
        Seed of the sample of images and of the random starts.
    n_jobs : int, default=None
        Number of threads for the passes over the images and for the starts. On dask, the
        threads serve the passes over each block. The results do not depend on it.
    warm_start : bool, default=False
        Whether ``fit`` starts from the parameters of the last fit.
    verbose : int, default=0
        If positive, a line is printed every ``verbose_interval`` iterations.
    verbose_interval : int, default=10
        Number of iterations between printed lines.
    learning_offset : float, default=10.0
        Number that makes the first steps of ``partial_fit`` smaller.
    learning_decay : float, default=0.7
        Step t of ``partial_fit`` has size (t + learning_offset) ** -learning_decay.

    Attributes
    ----------
    template_ : ndarray of shape (template_height, template_width[, channels])
        The template, if ``n_templates=1``.
    template_seen_ : ndarray of bool, of the shape of ``template_``
        False where the pixel of the template is missing in every image. The data do not
        determine these pixels, and ``template_`` keeps its starting value there.
    templates_ : ndarray of shape (n_templates, template_height, template_width[, channels])
        The templates, if there are several. ``template_`` and ``template_seen_`` are then
        missing.
    templates_seen_ : ndarray of bool, of the shape of ``templates_``
        What ``template_seen_`` is to one template.
    class_weights_ : ndarray of shape (n_templates,)
        The probability of each template, if there are several. With ``absent``, they sum to
        the probability of presence.
    amplitude_std_ : float or ndarray of shape (n_templates,)
        Standard deviation of the amplitudes, for each template, if ``amplitude="free"``.
    background_ : ndarray of shape (height, width[, channels])
        The background.
    background_seen_ : ndarray of bool, of the shape of ``background_``
        False where the pixel of the background is covered by the template, or missing, in
        every image. ``background_`` keeps its starting value there.
    noise_std_ : float
        The standard deviation of the noise.
    noise_spectrum_ : ndarray of shape (n_columns // 2 + 1,) or (height, width // 2 + 1)
        The variance of the noise at each frequency of ``scipy.fft.rfftn`` along the axes in
        which the template moves, if ``noise="stationary"``. Its mean over all frequencies of
        the complex transform is ``noise_std_ ** 2``.
    shift_prior_ : ndarray of shape (n_shifts,) or (n_shifts + 1,)
        The probability of each shift, in C order if the template moves along two axes;
        with ``absent``, the last entry is the probability of absence. For several templates,
        the probabilities of (template, shift) in C order.
    shift_shape_ : tuple of int
        The numbers (n_row_shifts, n_column_shifts) of shifts along both axes.
        ``np.unravel_index(d, shift_shape_)`` is the top left corner of the template for
        shift ``d``.
    image_shape_ : tuple of int
        The shape of an image.
    lower_bound_ : float
        The objective at the fitted parameters: log-likelihood plus log prior density, in
        nats per image. With ``shift_concentration_prior=1`` and without
        ``shrinkage="map"`` it equals ``score`` of the training images. In hard
        EM it is the bound at the most probable shifts, which is lower. After
        ``partial_fit`` it is the objective on the last batch before the update.
    lower_bounds_ : list of float
        The objective after each iteration on all images. It never decreases within a fit.
    n_iter_ : int
        Number of EM iterations on all images.
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
    skem.datasets.make_shifted_templates : Simulate this model.
    skem.datasets.load_hidden_face : A portrait hidden in a photograph.

    Notes
    -----
    NaN marks a missing pixel. Missing pixels are marginalized exactly, at about twice the
    time and memory; ``composition="add"`` refuses them. A pixel may be missing in all
    images: a border of NaN around the images lets the template reach beyond their edges.

    float32 data are fitted in float32. If the noise is below 1% of the size of the pixels,
    float32 would lose too many digits, and such passes are computed in float64. All methods
    except ``fit`` compute in float64. During the fit, the Fourier transform of X is kept in
    memory; it is as large as X.

    X may also be a memory map, a zarr array or an h5py dataset; each pass reads it part by
    part. A dask array or data frame is fitted on its workers, and row-wise methods then
    return lazy arrays.

    References
    ----------
    .. [1] B. J. Frey and N. Jojic, "Fast, large-scale transformation-invariant
       clustering", NIPS 2001.
    .. [2] N. Jojic and B. J. Frey, "Learning flexible sprites in video layers", CVPR 2001.
    .. [3] F. J. Sigworth, "A maximum-likelihood approach to single-particle image
       refinement", Journal of Structural Biology 122, 1998.
    .. [4] T. Bendory, N. Boumal, C. Ma, Z. Zhao and A. Singer, "Bispectrum inversion with
       application to multireference alignment", IEEE Transactions on Signal Processing 66,
       2018.
    .. [5] C. Liu, D. B. Rubin and Y. N. Wu, "Parameter expansion to accelerate EM: the PX-EM
       algorithm", Biometrika 85, 1998.
    .. [6] S. H. W. Scheres, "RELION: Implementation of a Bayesian approach to cryo-EM
       structure determination", Journal of Structural Biology 180, 2012.

    Examples
    --------
    >>> from skem import ShiftedTemplateEM
    >>> from skem.datasets import make_shifted_templates
    >>> data = make_shifted_templates(
    ...     n_samples=300, image_shape=(10, 30), template_width=8, random_state=0
    ... )
    >>> model = ShiftedTemplateEM(template_width=8, image_shape=(10, 30), random_state=0)
    >>> shifts = model.fit(data.X).predict(data.X)
    >>> float((shifts == data.shifts).mean())
    1.0
    """

    _fitted_name = "background_"
    _parameter_constraints: dict[str, Any] = {
        "template_width": [Interval(Integral, 1, None, closed="left"), None],
        "template_height": [Interval(Integral, 1, None, closed="left"), None],
        "image_shape": [tuple, list, None],
        "n_templates": [Interval(Integral, 1, None, closed="left")],
        "composition": [StrOptions({"occlude", "add"})],
        "amplitude": [StrOptions({"fixed", "free"})],
        "noise": [StrOptions({"white", "stationary"})],
        "cyclic": ["boolean"],
        "shift_prior": ["array-like", None],
        "algorithm": [StrOptions({"soft", "hard"})],
        "absent": ["boolean"],
        "init": [StrOptions({"auto", "mean", "random"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_size": [Interval(Integral, 1, None, closed="left")],
        "shrinkage": [StrOptions({"start", "map"}), None],
        "subset_schedule": [tuple, list, None],
        "template_init": ["array-like", None],
        "background_init": ["array-like", None],
        "noise_std_init": [Interval(Real, 0, None, closed="neither"), None],
        "shift_prior_init": ["array-like", None],
        "shift_concentration_prior": [Interval(Real, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "learning_offset": [Interval(Real, 0, None, closed="left")],
        "learning_decay": [Interval(Real, 0.5, 1, closed="right")],
    }

    def __init__(
        self,
        template_width: int | None = None,
        *,
        template_height: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        n_templates: int = 1,
        composition: Literal["occlude", "add"] = "occlude",
        amplitude: Literal["fixed", "free"] = "fixed",
        noise: Literal["white", "stationary"] = "white",
        cyclic: bool = False,
        shift_prior: ArrayLike | None = None,
        algorithm: Literal["soft", "hard"] = "soft",
        absent: bool = False,
        init: Literal["auto", "mean", "random"] = "auto",
        n_init: int = 2,
        init_size: int = 256,
        shrinkage: Literal["start", "map"] | None = "start",
        subset_schedule: tuple[tuple[int, int], ...] | None = None,
        template_init: ArrayLike | None = None,
        background_init: ArrayLike | None = None,
        noise_std_init: float | None = None,
        shift_prior_init: ArrayLike | None = None,
        shift_concentration_prior: float = 1.1,
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        learning_offset: float = 10.0,
        learning_decay: float = 0.7,
    ) -> None:
        self.template_width = template_width
        self.template_height = template_height
        self.image_shape = image_shape
        self.n_templates = n_templates
        self.composition = composition
        self.amplitude = amplitude
        self.noise = noise
        self.cyclic = cyclic
        self.shift_prior = shift_prior
        self.algorithm = algorithm
        self.absent = absent
        self.init = init
        self.n_init = n_init
        self.init_size = init_size
        self.shrinkage = shrinkage
        self.subset_schedule = subset_schedule
        self.template_init = template_init
        self.background_init = background_init
        self.noise_std_init = noise_std_init
        self.shift_prior_init = shift_prior_init
        self.shift_concentration_prior = shift_concentration_prior
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.learning_offset = learning_offset
        self.learning_decay = learning_decay

    # -- fitting ----------------------------------------------------------------------

    @with_callbacks
    def fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the template, the background, the noise and the distribution of the shifts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or a stack of images
            The images; NaN marks a missing pixel. A stack has shape (n_samples, height,
            width) or (n_samples, height, width, channels).
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images; an image of weight 2 counts like two equal images.

        Returns
        -------
        ShiftedTemplateEM
            The fitted estimator.
        """
        self._fit(X, sample_weight)
        return self

    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Update the fit with a batch of images, by online EM [1]_.

        The first batch is fitted as by ``fit``. Each later batch is used once: its statistics
        are averaged into the earlier ones with weight (t + learning_offset) **
        -learning_decay, and an M step follows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or a stack of images
            The batch.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images within the batch.

        Returns
        -------
        ShiftedTemplateEM
            The updated estimator.

        References
        ----------
        .. [1] O. Cappé and E. Moulines, "On-line expectation-maximization algorithm for
           latent data models", Journal of the Royal Statistical Society B 71, 2009.
        """
        return self._partial_fit(X, sample_weight)

    def _n_subtasks(self) -> int:
        return int(self.max_iter)

    def _train(self, rows: AllRows, resume: bool) -> Trained:
        check_schedule(self.subset_schedule)
        check_options(self, len(rows))
        image_shape = self._image_shape_of(rows.row_shape) or (1, rows.shape[1])
        windows = self._new_windows(image_shape, rows.shape[1])
        if resume:
            self._check_same_windows(windows)
        rng = check_random_state(self.random_state)
        with one_blas_thread():
            model, span = model_of(
                windows,
                rows,
                absent=self.absent,
                hard=self.algorithm == "hard",
                concentration=float(self.shift_concentration_prior),
                known_shifts=known_shifts(self.shift_prior, windows),
                **self._variant(),
            )
            return self._training(model, resume).run(model, rows, span, rng, self._run_em)

    def _keep(self, trained: Trained) -> None:
        super()._keep(trained)
        model = self._fitted_model()
        if self.noise_std_**2 <= model.min_noise_var * (1 + 1e-9):
            warn(
                f"noise_std_ is at its lower limit, {self.noise_std_:.3g}, which follows from "
                "the spread of all pixels: the images are without noise or too few, or a few "
                "of their pixels are much larger than the others. Clip these."
            )

    def _training(self, model: ShiftedTemplate, resume: bool) -> Training:
        """Return how the fit goes, with the given starting values and those of the last fit."""
        given = {
            "template_init": self.template_init,
            "background_init": self.background_init,
            "noise_std_init": self.noise_std_init,
            "shift_prior_init": self.shift_prior_init,
        }
        return Training(
            init=self.init,
            n_init=int(self.n_init),
            init_size=int(self.init_size),
            shrinkage=self.shrinkage,
            schedule=self.subset_schedule or (),
            max_iter=int(self.max_iter),
            tol=self.tol,
            n_jobs=self.n_jobs,
            given={name: value for name, value in given.items() if value is not None},
            last=self._params(model) if resume else None,
            last_smoothness=self._fitted_model().smoothness if resume else None,
        )

    def _variant(self) -> dict[str, Any]:
        """Return the options that make another model, under the names of the model."""
        return {
            "n_templates": int(self.n_templates),
            "additive": self.composition == "add",
            "free_amplitude": self.amplitude == "free",
            "stationary": self.noise == "stationary",
        }

    def _new_windows(self, image_shape: tuple[int, ...], n_features: int) -> Windows:
        height, width = self.template_height, self.template_width
        return new_windows(image_shape, n_features, height, width, bool(self.cyclic))

    def _check_same_model(self, n_features: int) -> None:
        self._check_same_windows(self._new_windows(self.image_shape_, n_features))

    def _check_same_windows(self, windows: Windows) -> None:
        """Raise an error if the last fit has other sizes or categories."""
        fitted = self._fitted_model()
        for name, old, new in (
            ("image_shape", self.image_shape_, windows.image_shape),
            (
                "template_height and template_width",
                fitted.windows.window_shape,
                windows.window_shape,
            ),
            ("absent", fitted.absent, self.absent),
            ("cyclic", fitted.windows.cyclic, bool(self.cyclic)),
            ("n_templates", fitted.n_templates, int(self.n_templates)),
            ("composition", _ADD[fitted.additive], self.composition),
            ("amplitude", _FREE[fitted.free_amplitude], self.amplitude),
            ("noise", _STATIONARY[fitted.stationary], self.noise),
        ):
            if old != new:
                raise ValueError(
                    f"{name} was {old} in the last fit, but is {new} now: restore the old "
                    "value, or fit from scratch with warm_start=False."
                )

    # -- input and fitted attributes ----------------------------------------------------

    def _image_shape_of(self, row_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the shape of an image: the parameter, or the shape of a stacked image."""
        if self.image_shape is None:
            return row_shape if len(row_shape) in (2, 3) else None
        return check_image_shape(self.image_shape)

    def _check_rows(self, X: Any, sample_weight: Any = None, *, reset: bool) -> AllRows:
        if reset:
            self._check_sample_axis(getattr(X, "shape", ()))
        image_shape = self._image_shape_of if reset else lambda row_shape: self.image_shape_
        return check_rows(
            self,
            X,
            sample_weight,
            reset=reset,
            image_shape=image_shape,
            order="C",
            max_weight=MAX_SUMMED_WEIGHT,
        )

    def _check_sample_axis(self, shape: tuple[int, ...]) -> None:
        """Say so if the images seem to lie along the last axis of X."""
        if len(shape) != 3:
            return
        advice = "If the last axis counts images, pass X.transpose(2, 0, 1)"
        if self.image_shape is None and shape[2] > 2 * max(shape[:2]):
            warn(
                f"X of shape {shape} is taken as {shape[0]} images of shape {shape[1:]}. "
                f"{advice}; otherwise set image_shape={shape[1:]}.",
                UserWarning,
            )
        if self.image_shape is not None:
            image_shape = tuple(self.image_shape)
            if image_shape == shape[:2] != shape[1:]:
                raise ValueError(
                    f"X of shape {shape} holds images of shape {shape[1:]}, but image_shape is "
                    f"{image_shape}. {advice}."
                )

    def _attributes(
        self, model: ShiftedTemplate, params: Params, stats: Stats
    ) -> dict[str, Any]:
        return attributes(model, params, stats)

    def _set_attributes(self, *state: Any, **options: Any) -> None:
        for name in OF_SOME:  # another model may have had them
            self.__dict__.pop(name, None)
        super()._set_attributes(*state, **options)

    def _templates(self) -> Array:
        """Return the fitted templates (n_templates, height, width[, channels])."""
        one = self._options["n_templates"] == 1
        templates: Array = self.template_[None] if one else self.templates_
        return templates

    def _fitted_model(self) -> ShiftedTemplate:
        options = dict(self._options)
        templates = self._templates()
        windows = Windows(self.image_shape_, templates.shape[1:3], options.pop("cyclic"))
        return ShiftedTemplate(
            windows,
            self._center,
            self._variance,
            single=templates.dtype == np.float32,
            hard=self.algorithm == "hard",
            concentration=float(self.shift_concentration_prior),
            smoothness=self._smoothness and Smoothness(*self._smoothness),
            known_shifts=self._known_shifts,
            **options,
        )

    def _params(self, model: ShiftedTemplate) -> Params:
        windows = model.windows
        templates = self._templates()
        templates = templates.reshape(
            len(templates), *windows.window_shape, windows.full_shape[2]
        )
        amplitude_var = spectrum = None
        if model.free_amplitude:
            amplitude_var = np.atleast_1d(self.amplitude_std_) ** 2
        if model.stationary and hasattr(self, "noise_spectrum_"):
            spectrum = self.noise_spectrum_.ravel() / self.noise_std_**2
        return Params(
            model.of_template().to_centered(templates),
            model.to_centered(self.background_.reshape(windows.full_shape)),
            self.noise_std_**2,
            self.shift_prior_,
            amplitude_var,
            spectrum,
        )

    def _n_parameters(self) -> int:
        model = self._fitted_model()
        seen = self.template_seen_ if model.n_templates == 1 else self.templates_seen_
        n_images = int(seen.sum() + self.background_seen_.sum())
        n_noise = self.noise_spectrum_.size if hasattr(self, "noise_spectrum_") else 1
        n_prior = len(self.shift_prior_) - 1
        if model.known_shifts is not None:
            n_prior = model.n_templates - 1 + model.absent
        return n_images + n_noise + n_prior + model.n_templates * model.free_amplitude

    @property
    def _n_features_out(self) -> int:
        return len(self.shift_prior_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.composition == "occlude"
        return tags
