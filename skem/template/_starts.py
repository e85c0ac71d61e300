"""Starts of EM for the shifted template.

Image k itself contributes to the average that is the template. This favors its present shift
by about h*w/n nats. From a poor start, EM on few or noisy images therefore stays where it is.
*Wiener-EM* reduces this effect: before each E step, template and background are shrunk under
Gaussian priors on their DCT coefficients. The variances of these priors are estimated from
the data, one for each radial frequency.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from skem._base.passes import Passes
from skem._loop import em
from skem._rows.moments import moments
from skem._rows.parts import InMemory
from skem._rows.parts import Rows as AllRows
from skem._typing import AnyArray, Array
from skem.template import _amplitude, _shift_prior
from skem.template._model import (
    Params,
    Rows,
    ShiftedTemplate,
    Smoothness,
    Stats,
)
from skem.template._windows import Windows

# Number of EM iterations to compare starts, and to finish the best ones.
N_ITER_TRIAL, N_ITER_START = 5, 15
# Inverse temperatures of Wiener-EM: from the mean start, and from a start that is already good.
ANNEALING, NO_ANNEALING = tuple(np.geomspace(0.01, 1, 20)), (1.0,) * 8
# Number of starts that are finished.
N_FINALISTS = 3

Start = tuple[float, Params, str]  # objective, parameters, and kind of a start

logger = logging.getLogger("skem")


MAX_PIXEL = 1e140  # transforms multiply squares of pixels


def model_of(
    windows: Windows,
    rows: AllRows,
    *,
    additive: bool = False,
    free_amplitude: bool = False,
    **options: Any,
) -> tuple[ShiftedTemplate, tuple[float, float]]:
    """Return the model with the constants of the data, and the range of the pixels.

    Pixels that no image shows do not count. The center of a line without any observed pixel is
    the mean of all others.
    """
    found = moments(rows)
    if not found.weight.any():
        raise ValueError(f"X has shape {rows.shape}, but no observed value: all are NaN.")
    counts, mean, square = (
        windows.to_lines(values.reshape(windows.full_shape))
        for values in (found.weight, found.mean, found.square)
    )
    counts, mean, square = (v.reshape(len(v), -1) for v in (counts, mean, square))
    dtype = rows.working_dtype
    largest = max(-found.low, found.high)
    limit = float(np.sqrt(np.finfo(dtype).max / 100 / rows.size))
    if not largest < min(limit, MAX_PIXEL):
        raise ValueError(
            f"X has values up to {largest:g}, too large to be squared in {dtype}: rescale X."
        )
    if 0 < largest < np.sqrt(np.finfo(float).tiny):
        raise ValueError(
            f"X has values up to {largest:g} only, too small to be squared: rescale X."
        )
    center = np.full(len(counts), np.average(mean, weights=counts))
    seen, total = counts.any(1), counts.sum(1)
    np.divide((counts * mean).sum(1), total, out=center, where=seen)
    if free_amplitude and not additive:  # an amplitude multiplies the pixels as they are
        center[:] = 0
    center = center.astype(dtype).astype(float)
    square = square + counts * (mean - center[:, None]) ** 2
    variance = float(square.sum() / counts.sum())
    single = dtype == np.float32
    model = ShiftedTemplate(
        windows,
        center,
        variance,
        single,
        additive=additive,
        free_amplitude=free_amplitude,
        **options,
    )
    return model, (found.low, found.high)


def uniform_params(model: ShiftedTemplate) -> Params:
    """Return parameters with each pixel at the mean of its line and equal shift priors."""
    windows = model.windows
    lines = len(model.center)
    return Params(
        np.zeros((model.n_templates, lines, *windows.window)),
        np.zeros((lines, *windows.space)),
        max(model.variance, model.min_noise_var),
        uniform_prior(model),
        np.full(model.n_templates, _amplitude.START) if model.free_amplitude else None,
    )


def uniform_prior(model: ShiftedTemplate) -> Array:
    """Return equal probabilities of classes and shifts; that of absence, if allowed, is 1/2."""
    return _shift_prior.uniform(
        model.n_templates, model.windows.n_shifts, model.absent, model.known_shifts
    )


def mean_params(model: ShiftedTemplate, passes: Passes) -> Params:
    """Return the M step at a uniform posterior.

    This start is deterministic. Its large noise has the effect of annealing.
    """
    prior = uniform_prior(model)

    def statistics(rows: Rows, weight: Array) -> Stats:
        posterior = np.broadcast_to(prior, (len(weight), len(prior)))
        return model.given_posterior(rows, weight, posterior)

    start = uniform_params(model)
    return plain(model).m_step(start, passes.fold(statistics, start))


def dirichlet_params(
    model: ShiftedTemplate, passes: Passes, rng: np.random.RandomState
) -> Params:
    """Return the M step at a random posterior that is peaked at a few shifts per image."""
    concentration = np.full(model.n_present, 0.1)

    def statistics(rows: Rows, weight: Array) -> Stats:
        posterior = rng.dirichlet(concentration, size=len(weight))
        if model.absent:
            posterior = np.column_stack([posterior / 2, np.full(len(weight), 0.5)])
        return model.given_posterior(rows, weight, posterior)

    start = uniform_params(model)
    return plain(model).m_step(start, passes.fold(statistics, start))


def window_params(
    model: ShiftedTemplate, params: Params, X: AnyArray, rng: np.random.RandomState
) -> Params:
    """Return the mean start with a window of one random image as the template."""
    template = most_unlike_background(model, params, X[[rng.randint(len(X))]])
    return replace(params, template=template[None])


def most_unlike_background(model: ShiftedTemplate, params: Params, image: Array) -> Array:
    """Return the template (R, *w) that the most unusual window of an image (1, n_features) is.

    Missing pixels of the window are those of the background.
    """
    windows = model.windows
    lines = model.centered(image, float, missing=False)[0]
    lines = np.where(np.isnan(lines), params.background, lines)
    residual = lines - params.background
    energy = windows.sums((residual**2).sum(0))
    corner = np.unravel_index(energy.argmax(), windows.shifts)
    shown = residual if model.additive else lines
    for axis, (start, width) in enumerate(zip(corner, windows.window, strict=True), start=1):
        place = np.arange(start, start + width) % shown.shape[axis]
        shown = np.take(shown, place, axis=axis)
    return shown


def random_params(
    model: ShiftedTemplate, low: float, high: float, rng: np.random.RandomState
) -> Params:
    """Draw pixels uniformly within the range of the data, and a noise of up to 16 ranges."""
    start = uniform_params(model)
    center = model.windows.broadcast(model.center)
    template = rng.uniform(low, high, start.template.shape) - center
    if model.additive:  # a template is a difference
        template = rng.uniform(low - high, high - low, start.template.shape)
    background = rng.uniform(low, high, start.background.shape) - center
    noise_std = 16 * rng.uniform() * (high - low)
    noise_var = max(noise_std**2, model.min_noise_var)
    return replace(start, template=template, background=background, noise_var=noise_var)


def plain(model: ShiftedTemplate) -> ShiftedTemplate:
    """Return the model without its smoothness prior."""
    return replace(model, smoothness=None)


def follow_schedule(
    model: ShiftedTemplate,
    rows: AllRows,
    params: Params,
    schedule: Sequence[tuple[int, int]],
    n_jobs: int | None,
) -> Params:
    """Run ``n_iter`` iterations on the first ``n_images`` images, for each stage in turn."""
    for n_images, n_iter in schedule:
        first = rows.head(n_images)
        if first.n_positive:
            _, params = run_em(model, Passes(model, first, n_jobs), params, n_iter)
    return params


# -- Wiener-EM --------------------------------------------------------------------------


def smoothness_of(model: ShiftedTemplate, params: Params, stats: Stats) -> Smoothness:
    """Estimate the variance of the DCT coefficients at each radial frequency.

    ``params`` are maximum-likelihood estimates.
    """

    def variances(lines: Array, den: Array) -> Array:
        seen = den[den > 1e-3 * stats.weight]
        power = model.dct(lines) ** 2
        noise = _dct_noise(model, params, power.shape[:2])
        noise = noise / (seen.mean() if seen.size else stats.weight)
        height, width, _ = power.shape
        rows, columns = np.arange(height) / height, np.arange(width) / width
        radius = np.hypot(rows[:, None], columns) * max(height, width)
        band = np.rint(radius).astype(int)
        count = np.maximum(np.bincount(band.ravel()), 1)
        own = np.bincount(band.ravel(), noise.ravel()) / count
        signal = np.bincount(band.ravel(), power.mean(2).ravel()) / count - own
        signal = np.maximum(signal, 1e-3 * own)
        return np.broadcast_to(signal[band][..., None], power.shape)

    of_classes = zip(params.template, stats.template_den, strict=True)
    return Smoothness(
        np.stack([variances(*one) for one in of_classes]),
        None if model.additive else variances(params.background, stats.background_den),
    )


def _dct_noise(model: ShiftedTemplate, params: Params, shape: tuple[int, ...]) -> Array:
    """Return the variance of the noise at each DCT coefficient of an image (height, width)."""
    if params.spectrum is None:
        return np.full(shape, params.noise_var)
    space = model.windows.space
    spectrum = params.noise_var * params.spectrum.reshape(*space[:-1], -1)
    index = [
        np.rint(np.arange(n) / (2 * n) * s).astype(int)
        for n, s in zip(shape[-len(space) :], space, strict=True)
    ]
    return np.broadcast_to(spectrum[np.ix_(*index)], shape)


def shrink(
    model: ShiftedTemplate,
    passes: Passes,
    params: Params,
    inverse_temperatures: Sequence[float],
) -> tuple[Params, Smoothness | None]:
    """Run Wiener-EM: one iteration per inverse temperature, with a new prior each time.

    In the E step the log-likelihood is multiplied by the inverse temperature. Values below 1
    anneal.
    """
    smoothness = None
    for beta in inverse_temperatures:
        stats = passes.total(replace(params, noise_var=params.noise_var / beta))
        stats = lose_no_shift(stats)
        smoothness = smoothness_of(model, plain(model).m_step(params, stats), stats)
        params = replace(model, smoothness=smoothness).m_step(params, stats)
    return params, smoothness


def shrink_all(
    model: ShiftedTemplate, passes: Passes, params: Params
) -> tuple[Params, Smoothness | None]:
    """Run Wiener-EM on all rows, from ``params`` and from the mean start; return the better.

    The start found on a sample of images can be blurred, and more iterations on all images
    hardly sharpen it. Therefore the mean start is tried too.
    """
    candidates = [shrink(model, passes, params, NO_ANNEALING)]
    if model.n_templates == 1:  # a mean start would have equal templates
        candidates.append(shrink(model, passes, mean_params(model, passes), ANNEALING))
    return max(candidates, key=lambda found: passes.total(found[0]).log_lik)


def prior_at(model: ShiftedTemplate, passes: Passes, params: Params) -> Smoothness:
    """Estimate the smoothness prior from an M step at these parameters."""
    stats = passes.total(params)
    return smoothness_of(model, plain(model).m_step(params, stats), stats)


# -- the search -------------------------------------------------------------------------


def search(
    model: ShiftedTemplate,
    sample: InMemory,
    kinds: list[str],
    span: tuple[float, float],
    rng: np.random.RandomState,
    n_jobs: int | None,
) -> tuple[Params, str, bool]:
    """Return the best of several starts on a sample, its kind, and whether Ctrl-C came.

    All starts run for a few iterations. The best few run for more. After Ctrl-C, the best
    start so far is returned.
    """
    seeds = rng.randint(np.iinfo(np.int32).max, size=len(kinds))
    parallel = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    trials: list[Start] = []
    finals: list[Start] = []
    interrupted = False
    try:
        for found in parallel(
            delayed(run_start)(model, sample, kind, span, int(seed))
            for kind, seed in zip(kinds, seeds, strict=True)
        ):
            trials.append(found)
        order = sorted(range(len(kinds)), key=lambda i: -trials[i][0])[:N_FINALISTS]
        for found in parallel(delayed(finish)(model, sample, *trials[i]) for i in order):
            finals.append(found)
            logger.debug("start %r: %.6f nats per image", found[2], found[0])
    except KeyboardInterrupt:
        if not trials:
            raise
        interrupted = True
    _, params, kind = max(finals or trials, key=lambda found: found[0])
    prior = (params.shift_prior + uniform_prior(model)) / 2  # see lose_no_shift
    return replace(params, shift_prior=prior), kind, interrupted


def run_start(
    model: ShiftedTemplate,
    sample: InMemory,
    kind: str,
    span: tuple[float, float],
    seed: int,
) -> Start:
    """Run a few iterations from one start.

    ``kind`` is "mean", "shrunk", "posterior", "window" or "random".
    """
    passes = Passes(model, sample)
    rng = np.random.RandomState(seed)
    if kind == "random":
        params = random_params(model, *span, rng)
    elif kind == "posterior":
        params = dirichlet_params(model, passes, rng)
    else:
        params = mean_params(model, passes)
        if kind == "window":
            params = window_params(model, params, sample.values, rng)
        elif kind == "shrunk":
            params, _ = shrink(model, passes, params, ANNEALING)
    return *run_em(model, passes, params, N_ITER_TRIAL), kind


def finish(
    model: ShiftedTemplate, sample: InMemory, objective: float, params: Params, kind: str
) -> Start:
    """Run the remaining iterations of a start; each thread creates its own passes."""
    return *run_em(model, Passes(model, sample), params, N_ITER_START), kind


def run_em(
    model: ShiftedTemplate, passes: Passes, params: Params, max_iter: int
) -> tuple[float, Params]:
    """Run EM for some iterations; return the objective and the parameters."""
    run = em(model, passes.total, params, max_iter=max_iter)
    if run.interrupted:
        raise KeyboardInterrupt
    return run.objectives[-1], run.state[0]


def lose_no_shift(stats: Stats) -> Stats:
    """Mix the shift counts with a uniform distribution of share one third.

    EM could not recover a shift whose probability is 0.
    """
    share = stats.weight / (2 * len(stats.shift_counts))
    return replace(stats, shift_counts=stats.shift_counts + share)
