"""The shifted-template model as pure functions over explicit parameters.

    x | d ~ N(M_d, s^2 I),  M_d = background B with the template F pasted at shift d
    d     ~ Categorical(a); with one more category, "absent", for which M = B

In the layout of ``_windows`` (lines R, space S, window w, shifts N):

    log p(x, d) = [2 (C_d - X_d) - (|F|^2 - b_d)] / 2s^2 + log a_d + log N(x | B, s^2)
    C = F correlated with x,  X = window sums of sum_r xB,  b = window sums of sum_r B^2

Missing pixels are omitted from every sum. Each line is centered at its mean over the data.
This does not change the differences between shifts, and sums of squares lose fewer digits by
cancellation, above all in float32.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike
from scipy.fft import dctn, idctn
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import gammaln, softmax, xlogy

from skem._base.em import with_limits
from skem._stats import Additive
from skem._typing import AnyArray, Array, Mask
from skem.template._windows import Windows

# A pixel counts as uncovered if its total weight is above this share of the images. Smaller
# weights are rounding errors of the running sums.
SEEN = 1e-8
# Number of images transformed at a time: bounds the memory of the preparation.
BLOCK = 16

MIN_NOISE_VAR = 1e-300  # its inverse is finite in float64


@dataclass(frozen=True)
class Params:
    """Parameters of the model; template and background are centered."""

    template: Array  # (c, R, *w), one for each class
    background: Array  # (R, *S)
    noise_var: float
    shift_prior: Array  # (c*N,), or (c*N + 1,) if the template may be absent


@dataclass(frozen=True)
class Stats(Additive):
    """Expected sums over images; ``_den`` is the expected number of images per pixel."""

    weight: float  # sum of the sample weights
    log_lik: float  # the bound, in nats
    n_pixels: float  # number of observed pixels
    sum_sq: float  # sum of squares of the observed pixels, centered
    shift_counts: Array
    template_num: Array  # (c, R, *w)
    template_den: Array  # (c, 1, 1...), or (c, R, *w) where pixels are missing
    background_num: Array  # (R, *S)
    background_den: Array  # (1, *S), or (R, *S) where pixels are missing


@dataclass(frozen=True)
class Rows:
    """A chunk of k images, and its quantities that do not change from pass to pass."""

    pixels: Array  # (k, n_features), a view of the caller's memory
    spectrum: AnyArray  # (Q, k, R) complex: spectrum of the centered lines
    observed_spectrum: AnyArray | None  # spectrum of the 0/1 mask; None if nothing is missing
    sum_sq: Array  # (k,)
    n_pixels: Array  # (k,)


class View(NamedTuple):
    """The lines (k, R, *S) of a chunk for one pass; ``lines - offset`` is centered."""

    lines: Array
    offset: Array  # (R,)
    observed: Mask | None  # None if nothing is missing; missing pixels of ``lines`` are 0


@dataclass(frozen=True)
class Smoothness:
    """Variances of independent Gaussian priors on the DCT coefficients of the images."""

    template: Array  # (c, h, w, C)
    background: Array  # (H, W, C)


@dataclass(frozen=True)
class ShiftedTemplate:
    """Options and constants of the model; it holds neither parameters nor data."""

    windows: Windows
    center: Array  # (R,), subtracted from the pixels of each line
    variance: float  # variance of the centered pixels: the scale of the data
    single: bool = False  # whether the data are float32
    n_templates: int = 1
    absent: bool = False
    hard: bool = False
    concentration: float = 1.0
    smoothness: Smoothness | None = None

    @property
    def n_present(self) -> int:
        """Number of categories in which a template is present: a class and a shift."""
        return self.n_templates * self.windows.n_shifts

    @property
    def n_categories(self) -> int:
        return self.n_present + self.absent

    def present(self, posterior: Array) -> Array:
        """Return the entries (k, c, *N) of a posterior that belong to present templates."""
        entries = posterior[:, : self.n_present]
        return entries.reshape(-1, self.n_templates, *self.windows.shifts)

    @property
    def row_size(self) -> int:
        """Number of elements that a row counts as when rows are split into chunks."""
        # The factor makes chunks small enough to have several per thread. It also bounds the
        # memory of a chunk's posterior.
        return max(math.prod(self.windows.full_shape), 64 * self.n_categories)

    @property
    def mean_square(self) -> float:
        return self.variance + float(np.mean(self.center**2))

    @property
    def min_noise_var(self) -> float:
        return max(1e-10 * (self.variance or self.mean_square or 1.0), MIN_NOISE_VAR)

    def dtype_for(self, params: Params, dtype: DTypeLike) -> np.dtype:
        """Return the dtype to compute in.

        It is float64 if the noise is below 1% of the size of the pixels, because sums of
        squares in float32 would lose too many digits.
        """
        exact = params.noise_var < 1e-4 * self.mean_square
        return np.dtype(float if exact else dtype)

    # -- rows -------------------------------------------------------------------------

    def rows(self, pixels: Array, dtype: DTypeLike) -> Rows:
        """Prepare a chunk (k, n_features) in which NaN marks a missing pixel."""
        k, n_features = pixels.shape
        spectrum = self.windows.empty_spectrum(k, len(self.center), dtype)
        missing = bool(np.isnan(pixels).any())
        observed_spectrum = np.empty_like(spectrum) if missing else None
        sum_sq, n_pixels = np.empty(k), np.full(k, float(n_features))
        for start in range(0, k, BLOCK):
            block = slice(start, start + BLOCK)
            lines = self.centered(pixels[block], dtype, missing)
            spectrum[:, block] = self.windows.spectrum(lines)
            lines = lines.reshape(len(lines), -1)
            sum_sq[block] = np.einsum("kp,kp->k", lines, lines, dtype=float)
            if observed_spectrum is not None:
                observed = self._observed(pixels[block]).astype(dtype)
                observed_spectrum[:, block] = self.windows.spectrum(observed)
                n_pixels[block] = observed.reshape(len(observed), -1).sum(1)
        return Rows(pixels, spectrum, observed_spectrum, sum_sq, n_pixels)

    def centered(self, pixels: Array, dtype: DTypeLike, missing: bool) -> Array:
        """Return centered lines (k, R, *S); missing pixels are 0."""
        lines = self._lines(pixels)
        out = np.empty(lines.shape, dtype)
        center = self.windows.broadcast(self.center)
        np.subtract(lines, center, out=out, casting="same_kind")
        return np.nan_to_num(out, copy=False) if missing else out

    def _observed(self, pixels: Array) -> Mask:
        """Return the mask (k, R, *S) of the pixels that are not missing."""
        return self._lines(~np.isnan(pixels))

    def _lines(self, pixels: AnyArray) -> AnyArray:
        images = pixels.reshape(len(pixels), *self.windows.full_shape)
        return self.windows.to_lines(images)

    def _view(self, rows: Rows) -> View:
        """Return the lines of a chunk: a view if that is exact, otherwise a centered copy."""
        dtype, missing = rows.spectrum.real.dtype, rows.observed_spectrum is not None
        as_is = rows.pixels.dtype == dtype and self.windows.full_shape[2] == 1
        if as_is and not missing:
            return View(self._lines(rows.pixels), self.center, None)
        lines = self.centered(rows.pixels, dtype, missing)
        observed = self._observed(rows.pixels) if missing else None
        return View(lines, 0 * self.center, observed)

    # -- E step -----------------------------------------------------------------------

    def e_step(self, params: Params, rows: Rows, weight: Array) -> Stats:
        """Return the statistics of a chunk under its posterior."""
        view = self._view(rows)
        log_joint = self._log_joint(params, rows, view)
        if self.hard:
            posterior = self.posterior(log_joint)
            bound = lower_bound(log_joint, posterior)
        else:  # the bound is tight: it is the normalization of the posterior
            top = log_joint.max(1, keepdims=True)
            posterior = np.exp(log_joint - top)
            total = posterior.sum(1, keepdims=True)
            posterior /= total
            bound = (top + np.log(total))[:, 0]
        return self._statistics(rows, view, weight, posterior, float(weight @ bound))

    def log_joint(self, params: Params, rows: Rows) -> Array:
        """Return log p(x_k, d) in nats, (k, n_categories); "absent" is the last category.

        Images far away are treated as in ``with_limits``.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return with_limits(
                self._log_joint(params, rows, self._view(rows)),
                lambda: rows.pixels,
                lambda X: self._log_joint_of(params, X),
            )

    def _log_joint_of(self, params: Params, X: Array) -> Array:
        rows = self.rows(X, float)
        return self._log_joint(params, rows, self._view(rows))

    def posterior(self, log_joint: Array) -> Array:
        """Return q (k, n_categories); in hard EM, q is 1 at the most probable category."""
        if self.hard:
            best = log_joint.argmax(1, keepdims=True)
            posterior = np.zeros(log_joint.shape)
            np.put_along_axis(posterior, best, 1.0, axis=1)
            return posterior
        return softmax(log_joint, axis=1)

    def given_posterior(self, rows: Rows, weight: Array, posterior: Array) -> Stats:
        """Return the statistics of a chunk under a given posterior, to start EM."""
        return self._statistics(rows, self._view(rows), weight, posterior, -math.inf)

    def _log_joint(self, params: Params, rows: Rows, view: View) -> Array:
        windows, k = self.windows, len(rows.pixels)
        lines, offset, observed = view
        background_sq = params.background**2
        background = params.background.astype(lines.dtype)
        cross = np.einsum("kr...,r...->k...", lines, background).astype(float)
        cross -= np.einsum("r,r...->...", offset, params.background)
        if observed is None or rows.observed_spectrum is None:
            square = background_sq.sum(0)[None]
            covered_sq = np.array([np.sum(template**2) for template in params.template])
            covered_sq = windows.broadcast(covered_sq)
        else:
            square = np.einsum("kr...,r...->k...", observed, background_sq)
            covered_sq = windows.correlate(rows.observed_spectrum, params.template**2)
        gain = windows.correlate(rows.spectrum, params.template)
        gain -= windows.sums(cross)[:, None]
        gain = 2 * gain - (covered_sq - windows.sums(square)[:, None])
        residual = rows.sum_sq - 2 * cross.reshape(k, -1).sum(1)
        residual += square.reshape(len(square), -1).sum(1)
        precision = 1 / params.noise_var
        log_background = rows.n_pixels * math.log(precision / (2 * math.pi))
        log_background = (log_background - precision * residual) / 2
        logits = precision / 2 * gain.reshape(k, -1)
        if self.absent:
            logits = np.pad(logits, [(0, 0), (0, 1)])
        with np.errstate(divide="ignore"):
            logits += np.log(params.shift_prior)
        logits += log_background[:, None]
        return logits

    def _statistics(
        self, rows: Rows, view: View, weight: Array, posterior: Array, bound: float
    ) -> Stats:
        windows = self.windows
        lines, offset, observed = view
        weighted = weight[:, None] * posterior
        present = self.present(weighted)
        shift_counts = weighted.sum(0)
        uncovered = windows.broadcast(weight) - windows.coverage(_over_classes(present))
        np.maximum(uncovered, 0, out=uncovered)
        if observed is None or rows.observed_spectrum is None:
            of_class = shift_counts[: self.n_present].reshape(self.n_templates, 1, -1)
            template_den = windows.broadcast(of_class.sum(2))
            background_den = uncovered.sum(0)[None]
        else:
            template_den = windows.gather(rows.observed_spectrum, present)
            background_den = np.einsum("k...,kr...->r...", uncovered, observed)
        background_num = np.einsum(
            "k...,kr...->r...", uncovered.astype(lines.dtype), lines
        ).astype(float)
        background_num -= windows.broadcast(offset) * background_den
        return Stats(
            weight=float(weight.sum()),
            log_lik=bound,
            n_pixels=float(weight @ rows.n_pixels),
            sum_sq=float(weight @ rows.sum_sq),
            shift_counts=shift_counts,
            template_num=windows.gather(rows.spectrum, present),
            template_den=template_den,
            background_num=background_num,
            background_den=background_den,
        )

    # -- M step -----------------------------------------------------------------------

    def recenter(self, stats: Stats, params: Params, new: Params) -> Stats:
        """Return the statistics unchanged: they do not depend on the parameters."""
        return stats

    def m_step(self, params: Params, stats: Stats) -> Params:
        """Return the mode given the statistics.

        Pixels that no image shows keep their old value. With a smoothness prior, template and
        background are updated given the old noise, and then the noise given them. Each of
        these steps raises the objective.
        """
        of_template = params.template, stats.template_num, stats.template_den
        of_background = params.background, stats.background_num, stats.background_den
        if self.smoothness is None:
            template = _mean(*of_template, SEEN * stats.weight)
            background = _mean(*of_background, SEEN * stats.weight)
        else:
            variances = np.broadcast_to(
                self.smoothness.template,
                (self.n_templates, *self.smoothness.template.shape[-3:]),
            )
            of_classes = zip(*of_template, params.noise_var / variances, strict=True)
            template = np.stack([self._smooth_mean(*one) for one in of_classes])
            shrink = params.noise_var / self.smoothness.background
            background = self._smooth_mean(*of_background, shrink)
        return Params(
            template,
            background,
            self._noise_var(template, background, stats),
            self._shift_prior(stats.shift_counts),
        )

    def _smooth_mean(self, old: Array, num: Array, den: Array, shrink: Array) -> Array:
        """Solve (den + C' shrink C) x = num, where C is the DCT, starting from ``old``.

        If ``den`` is constant, the preconditioner is the exact inverse, and one iteration is
        enough.
        """

        def spectral(lines: Array, factor: Array) -> Array:
            return self._undo_dct(factor * self.dct(lines))

        def product(x: Array) -> Array:
            x = x.reshape(num.shape)
            return (den * x + spectral(x, shrink)).ravel()

        def precondition(x: Array) -> Array:
            return spectral(x.reshape(num.shape), 1 / (mean_den + shrink)).ravel()

        mean_den = float(np.mean(den))
        size = (num.size, num.size)
        solution, _ = cg(
            LinearOperator(size, product, dtype=float),
            num.ravel(),
            old.ravel(),
            rtol=1e-10,
            maxiter=10,
            M=LinearOperator(size, precondition, dtype=float),
        )
        return solution.reshape(num.shape)

    def dct(self, lines: Array) -> Array:
        """Return the DCT (..., h, w, C) of lines (..., R, *w)."""
        return dctn(self.windows.to_images(lines), axes=(-3, -2), norm="ortho")

    def _undo_dct(self, coefficients: Array) -> Array:
        return self.windows.to_lines(idctn(coefficients, axes=(-3, -2), norm="ortho"))

    def _noise_var(self, template: Array, background: Array, stats: Stats) -> float:
        square = stats.sum_sq
        for mean, num, den in (
            (template, stats.template_num, stats.template_den),
            (background, stats.background_num, stats.background_den),
        ):
            square += float(((den * mean - 2 * num) * mean).sum())
        return max(square / (stats.n_pixels or 1.0), self.min_noise_var)

    def _shift_prior(self, counts: Array) -> Array:
        """Return the mode of the probabilities of classes and shifts, and of absence.

        Absence against presence counts as one choice, and so does the class, however many
        shifts there are.
        """
        extra = self.concentration - 1
        of_class = counts[: self.n_present].reshape(self.n_templates, -1)
        shifts = of_class + extra
        totals = shifts.sum(1)
        if self.n_templates > 1:
            classes = of_class.sum(1) + extra
            shifts[totals == 0] = 1.0  # a class without images may have any distribution
            shifts *= (classes / classes.sum() / shifts.sum(1))[:, None]
            totals = shifts.sum(1)
        present = shifts.ravel()
        if not self.absent:
            return present / present.sum()
        choice = np.array([of_class.sum(), counts[-1]]) + extra
        choice /= choice.sum()
        total = totals.sum()
        if total > 0:
            present = choice[0] / total * present
        return np.append(present, choice[1])

    def log_prior(self, params: Params) -> float:
        """Return the log prior density of the parameters, in nats; 0 for a flat prior."""
        log_prior = 0.0
        if self.concentration != 1:
            shifts = params.shift_prior[: self.n_present].reshape(self.n_templates, -1)
            classes = shifts.sum(1)
            if self.absent:
                choice = np.array([classes.sum(), params.shift_prior[-1]])
                log_prior += _log_dirichlet(choice, self.concentration)
            if self.n_templates > 1:
                log_prior += _log_dirichlet(classes / (classes.sum() or 1.0), self.concentration)
            for one, total in zip(shifts, classes, strict=True):
                log_prior += _log_dirichlet(one / (total or 1.0), self.concentration)
        if self.smoothness is not None:
            for lines, variances in (
                (params.template, self.smoothness.template),
                (params.background, self.smoothness.background),
            ):
                terms = self.dct(lines) ** 2 / variances
                log_prior -= (terms + np.log(2 * np.pi * variances)).sum() / 2
        return float(log_prior)

    # -- between images in the user's units and centered lines ---------------------------

    def to_centered(self, image: Array) -> Array:
        """Convert images or templates (..., h, w, C) to centered lines."""
        return self.windows.to_lines(image) - self.windows.broadcast(self.center)

    def to_image(self, lines: Array) -> Array:
        """Convert centered lines (..., R, *S) or (..., R, *w) to images (..., h, w, C)."""
        return self.windows.to_images(lines + self.windows.broadcast(self.center))

    # -- predictions -------------------------------------------------------------------

    def expected(self, params: Params, code: Array) -> Array:
        """Return sum_d code[k, d] M_d, (k, n_features), in the user's units."""
        windows = self.windows
        present, total = self.present(code), code.sum(1)
        behind = windows.broadcast(total) - windows.coverage(_over_classes(present))
        lines = windows.paste(present, params.template)
        lines += behind[:, None] * params.background
        lines += windows.broadcast(np.multiply.outer(total, self.center))
        return windows.to_images(lines).reshape(len(code), -1)

    def impute(self, params: Params, rows: Rows) -> Array:
        """Return the images with missing pixels replaced by their conditional expectation."""
        pixels = rows.pixels.copy()
        missing = np.isnan(pixels)
        posterior = softmax(self.log_joint(params, rows), axis=1)
        pixels[missing] = self.expected(params, posterior)[missing]
        return pixels


def _mean(old: Array, num: Array, den: Array, minimum: float) -> Array:
    """Return num / den, or the old value of a pixel if ``den`` is at most ``minimum``."""
    seen = np.broadcast_to(den > minimum, num.shape)
    return np.divide(num, den, out=old.copy(), where=seen)


def _over_classes(present: Array) -> Array:
    """Return the sum (k, *N) of (k, c, *N) over classes, without a copy if there is one."""
    return present[:, 0] if present.shape[1] == 1 else present.sum(1)


def _log_dirichlet(probabilities: Array, alpha: float) -> float:
    """Return the log-density of a symmetric Dirichlet distribution."""
    n = len(probabilities)
    constant = gammaln(n * alpha) - n * gammaln(alpha)
    return float(constant + xlogy(alpha - 1, probabilities).sum())


def lower_bound(log_joint: Array, posterior: Array) -> Array:
    """Return E_q log p(x, d) - E_q log q of each row, in nats."""
    with np.errstate(invalid="ignore"):
        terms = np.where(posterior > 0, posterior * log_joint, 0.0)
    return (terms - xlogy(posterior, posterior)).sum(1)
