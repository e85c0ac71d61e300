"""The shifted-template model as pure functions over explicit parameters.

    x | c, d ~ N(M_cd, s^2 I),  M_cd = background B with the template F_c pasted at shift d
    (c, d)   ~ Categorical(a);  with one more category, "absent", for which M = B

``_occluding`` holds the formulas for a template in front of the background, ``_additive`` those
for one that is added to it, ``_amplitude`` what an amplitude of the template changes in both,
and ``_shift_prior`` the prior. Each line is centered at its mean over the data. This does not
change the differences between shifts, and sums of squares lose fewer digits by cancellation,
above all in float32.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike
from scipy.fft import dctn, idctn
from scipy.special import softmax, xlogy

from skem._base.em import with_limits
from skem._typing import AnyArray, Array, Mask
from skem.template import _additive, _amplitude, _occluding, _shift_prior
from skem.template._amplitude import Moments
from skem.template._occluding import SEEN, over_classes
from skem.template._params import Params, Rows, Smoothness, Stats, View
from skem.template._windows import Windows

# Number of images transformed at a time: bounds the memory of the preparation.
BLOCK = 16

MIN_NOISE_VAR = 1e-300  # its inverse is finite in float64


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
    known_shifts: Array | None = None  # (N,): probabilities that are not estimated
    free_amplitude: bool = False
    additive: bool = False  # whether the template is added to the background
    stationary: bool = False  # whether the noise has a spectrum; only if additive

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
        if missing and self.additive:
            raise ValueError(
                "X contains NaN, but composition='add' needs complete images: fill in the "
                "missing pixels with LatentImputer, or use composition='occlude'."
            )
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
        power = None
        if self.stationary:
            power = np.einsum("qkr,qkr->qk", spectrum, spectrum.conj()).real.astype(float)
        return Rows(pixels, spectrum, observed_spectrum, sum_sq, n_pixels, power)

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

    def _view(self, rows: Rows) -> View | None:
        """Return the lines of a chunk: a view if that is exact, otherwise a centered copy.

        An additive template needs their transform only.
        """
        if self.additive:
            return None
        dtype, missing = rows.spectrum.real.dtype, rows.observed_spectrum is not None
        as_is = rows.pixels.dtype == dtype and self.windows.full_shape[2] == 1
        if as_is and not missing:
            return View(self._lines(rows.pixels), self.center, None)
        lines = self.centered(rows.pixels, dtype, missing)
        observed = self._observed(rows.pixels) if missing else None
        return View(lines, 0 * self.center, observed)

    # -- E step -----------------------------------------------------------------------

    @np.errstate(over="ignore", invalid="ignore")  # EM refuses what is not finite
    def e_step(self, params: Params, rows: Rows, weight: Array) -> Stats:
        """Return the statistics of a chunk under its posterior."""
        view = self._view(rows)
        log_joint, moments = self._log_joint(params, rows, view)
        if self.hard:
            posterior = self.posterior(log_joint)
            bound = lower_bound(log_joint, posterior)
        else:  # the bound is tight: it is the normalization of the posterior
            top = log_joint.max(1, keepdims=True)
            posterior = np.exp(log_joint - top)
            total = posterior.sum(1, keepdims=True)
            posterior /= total
            bound = (top + np.log(total))[:, 0]
        return self._statistics(rows, view, weight, posterior, float(weight @ bound), moments)

    def log_joint(self, params: Params, rows: Rows) -> Array:
        """Return log p(x_k, c, d) in nats, (k, n_categories); "absent" is the last category.

        Images far away are treated as in ``with_limits``.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return with_limits(
                self._log_joint(params, rows, self._view(rows))[0],
                lambda: rows.pixels,
                lambda X: self._log_joint_of(params, X),
            )

    def _log_joint_of(self, params: Params, X: Array) -> Array:
        rows = self.rows(X, float)
        return self._log_joint(params, rows, self._view(rows))[0]

    def amplitude_moments(self, params: Params, rows: Rows) -> Moments | None:
        """Return the moments of the amplitude given class and shift, if it is free."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._log_joint(params, rows, self._view(rows))[1]

    def posterior(self, log_joint: Array) -> Array:
        """Return q (k, n_categories); in hard EM, q is 1 at the most probable category."""
        if self.hard:
            best = log_joint.argmax(1, keepdims=True)
            posterior = np.zeros(log_joint.shape)
            np.put_along_axis(posterior, best, 1.0, axis=1)
            return posterior
        return softmax(log_joint, axis=1)

    def given_posterior(self, rows: Rows, weight: Array, posterior: Array) -> Stats:
        """Return the statistics of a chunk under a given posterior, to start EM.

        All amplitudes are 1.
        """
        return self._statistics(rows, self._view(rows), weight, posterior, -math.inf, None)

    def _log_joint(
        self, params: Params, rows: Rows, view: View | None
    ) -> tuple[Array, Moments | None]:
        """Return log p(x_k, c, d), and the moments of the amplitude if it is free."""
        k, moments = len(rows.pixels), None
        if view is None:
            log_background, match, energy = _additive.log_parts(self, params, rows)
            gain: Array = match - energy / 2
        else:
            log_background, gain, match, energy = _occluding.log_parts(self, params, rows, view)
        if params.amplitude_var is not None:
            variance = self.windows.broadcast(params.amplitude_var)
            added, moments = _amplitude.free(match, energy, variance)
            gain = gain + added
        logits = gain.reshape(k, -1)
        if self.absent:
            logits = np.pad(logits, [(0, 0), (0, 1)])
        with np.errstate(divide="ignore"):
            logits += np.log(params.shift_prior)
        logits += log_background[:, None]
        return logits, moments

    def _statistics(
        self,
        rows: Rows,
        view: View | None,
        weight: Array,
        posterior: Array,
        bound: float,
        moments: Moments | None,
    ) -> Stats:
        """Return the statistics; ``moments`` are those of free amplitudes."""
        weighted = weight[:, None] * posterior
        shift_counts = weighted.sum(0)
        present = self.present(weighted)
        first = second = present
        amplitudes: dict[str, Array] = {}
        if moments is not None:
            first, second = present * moments.mean, present * moments.square
            amplitudes = {
                "amplitude_sum": _per_class(first),
                "amplitude_sq": _per_class(second),
            }
            squares = amplitudes["amplitude_sq"]
        else:
            of_class = shift_counts[: self.n_present]
            squares = of_class.reshape(self.n_templates, -1).sum(1)
        template_den = self.windows.broadcast(squares[:, None])
        if view is None:
            total, aligned, power = _additive.sums(self, rows, weight, first)
            images = {
                "template_num": aligned,
                "template_den": template_den,
                "background_num": total,
                "background_den": self.windows.broadcast(weight.sum()[None]),
                "pasted": first.sum(0),
                "power": power,
            }
        else:
            images = _occluding.sums(self, rows, view, weight, present, first, second)
            images.setdefault("template_den", template_den)
        return Stats(
            weight=float(weight.sum()),
            log_lik=bound,
            n_pixels=float(weight @ rows.n_pixels),
            sum_sq=float(weight @ rows.sum_sq),
            shift_counts=shift_counts,
            **images,
            **amplitudes,
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
        spectrum = None
        if self.additive:
            squares = stats.template_den.reshape(-1)
            template, background, noise_var, spectrum = _additive.m_step(
                self, params, stats, squares
            )
        else:
            template, background = _occluding.images(self, params, stats)
            noise_var = _occluding.noise_var(self, template, background, stats)
        amplitude_var = params.amplitude_var
        if (
            amplitude_var is not None
            and stats.amplitude_sum is not None
            and stats.amplitude_sq is not None
        ):
            counts = stats.shift_counts[: self.n_present].reshape(self.n_templates, -1).sum(1)
            amplitude_var, factor = _amplitude.mode(
                amplitude_var,
                counts,
                stats.amplitude_sum,
                stats.amplitude_sq,
                rescale=self.smoothness is None,
            )
            seen = stats.template_den > SEEN * stats.weight
            factor = np.where(seen, self.windows.broadcast(factor[:, None]), 1.0)
            template = template * factor
        return Params(
            template,
            background,
            noise_var,
            _shift_prior.mode(stats.shift_counts, *self._prior_options),
            amplitude_var,
            spectrum,
        )

    @property
    def _prior_options(self) -> tuple[int, bool, float, Array | None]:
        return self.n_templates, self.absent, self.concentration, self.known_shifts

    def dct(self, lines: Array) -> Array:
        """Return the DCT (..., h, w, C) of lines (..., R, *w)."""
        return dctn(self.windows.to_images(lines), axes=(-3, -2), norm="ortho")

    def undo_dct(self, coefficients: Array) -> Array:
        """Return lines (..., R, *w) with these DCT coefficients (..., h, w, C)."""
        return self.windows.to_lines(idctn(coefficients, axes=(-3, -2), norm="ortho"))

    def log_prior(self, params: Params) -> float:
        """Return the log prior density of the parameters, in nats; 0 for a flat prior."""
        log_prior = _shift_prior.log_density(params.shift_prior, *self._prior_options)
        if self.smoothness is not None:
            for lines, variances in (
                (params.template, self.smoothness.template),
                (params.background, self.smoothness.background),
            ):
                if variances is None:
                    continue
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

    def of_template(self) -> "ShiftedTemplate":
        """Return the model whose conversions fit templates: added ones are not centered."""
        return replace(self, center=0 * self.center) if self.additive else self

    # -- predictions -------------------------------------------------------------------

    def expected(self, params: Params, code: Array, amplitude: Array | None = None) -> Array:
        """Return sum_cd code[k, c, d] M_cd, (k, n_features), in the user's units.

        ``amplitude`` (k, c, *N) multiplies the templates; None means 1.
        """
        windows = self.windows
        present, total = self.present(code), code.sum(1)
        behind = windows.broadcast(total)
        if not self.additive:
            behind = behind - windows.coverage(over_classes(present))
        shown = present if amplitude is None else present * amplitude
        lines = windows.paste(shown, params.template)
        lines += behind[:, None] * params.background
        lines += windows.broadcast(np.multiply.outer(total, self.center))
        return windows.to_images(lines).reshape(len(code), -1)

    def colored(self, noise: Array, spectrum: Array) -> Array:
        """Return white noise (k, n_features) with the relative spectrum (Q,) of the model."""
        windows, lines = self.windows, self._lines(noise)
        root = np.sqrt(spectrum)
        colored = windows.inverse(windows.transform(lines) * root, windows.space)
        return windows.to_images(colored).reshape(noise.shape)

    def reconstruct(self, params: Params, rows: Rows) -> Array:
        """Return the expected noise-free images (k, n_features) given the images."""
        posterior = softmax(self.log_joint(params, rows), axis=1)
        moments = self.amplitude_moments(params, rows) if self.free_amplitude else None
        return self.expected(params, posterior, None if moments is None else moments.mean)

    def impute(self, params: Params, rows: Rows) -> Array:
        """Return the images with missing pixels replaced by their conditional expectation."""
        pixels = rows.pixels.copy()
        missing = np.isnan(pixels)
        pixels[missing] = self.reconstruct(params, rows)[missing]
        return pixels


def _per_class(values: Array) -> Array:
    """Return the sums (c,) of (k, c, *N) over images and shifts."""
    return values.reshape(*values.shape[:2], -1).sum((0, 2))


def lower_bound(log_joint: Array, posterior: Array) -> Array:
    """Return E_q log p(x, d) - E_q log q of each row, in nats."""
    with np.errstate(invalid="ignore"):
        terms = np.where(posterior > 0, posterior * log_joint, 0.0)
    return (terms - xlogy(posterior, posterior)).sum(1)
