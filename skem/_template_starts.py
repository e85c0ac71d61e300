"""Where EM for the shifted template starts, and how it leaves a shifted optimum.

Image k is part of the template's mean, so its present shift is favoured by about
h*w/n nats: from a poor start, few or noisy images freeze where they are. Two remedies:

*Wiener-EM.* Before each E step the template and background are shrunk under Gaussian
priors on their DCT coefficients, whose variances are estimated from the data, one for
each radial frequency. This removes the noise that images recognise themselves by.

*The shift move.* At an optimum in which the template is off by some columns, and the
background fills the border, the M step is solved for every common shift of all posteriors
and the best is tried.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import irfftn, next_fast_len, rfftn
from sklearn.utils.parallel import Parallel, delayed

from skem._data import Passes, working_dtype
from skem._loop import Run, em
from skem._template_model import Params, Rows, ShiftedTemplate, Smoothness, Stats
from skem._windows import Array

# Iterations that compare starts, and that finish one.
N_ITER_TRIAL, N_ITER_START = 5, 15
# Wiener-EM of a start, and on all rows.
ANNEALING, NO_ANNEALING = tuple(np.geomspace(0.01, 1, 20)), (1.0,) * 8
# How far the shift move looks along each axis when there are two.
REACH_2D = 8
# Starts that are run to the end.
N_FINALISTS = 3
# Pixels that the shift move looks at, the moves that it tries, and how often it moves.
MOVE_SIZE, N_MOVES, MAX_MOVES = 2_500_000, 2, 4


def uniform_params(model: ShiftedTemplate) -> Params:
    """Everything at the mean of its line, every shift as probable as any other."""
    windows = model.windows
    lines = len(model.centre)
    return Params(
        np.zeros((lines, *windows.window)),
        np.zeros((lines, *windows.space)),
        max(model.variance, model.min_noise_var),
        uniform_prior(model),
    )


def uniform_prior(model: ShiftedTemplate) -> Array:
    """The same for every shift; the template absent from half of the images."""
    present = np.full(model.windows.n_shifts, 1 / model.windows.n_shifts)
    return np.append(present / 2, 0.5) if model.absent else present


def mean_params(model: ShiftedTemplate, passes: Passes) -> Params:
    """The M step at a uniform posterior: deterministic, and its large noise anneals."""
    prior = uniform_prior(model)

    def statistics(rows: Rows, weight: Array) -> Stats:
        posterior = np.broadcast_to(prior, (len(weight), len(prior)))
        return model.given_posterior(rows, weight, posterior)

    start = uniform_params(model)
    return plain(model).m_step(start, passes.fold(statistics, start))


def dirichlet_params(
    model: ShiftedTemplate, X: Array, weight: Array, rng: np.random.RandomState
) -> Params:
    """The M step at a random posterior, peaked at a few shifts in each image."""
    n_shifts = model.windows.n_shifts
    posterior = rng.dirichlet(np.full(n_shifts, 0.1), size=len(X))
    if model.absent:
        posterior = np.column_stack([posterior / 2, np.full(len(X), 0.5)])
    stats = model.given_posterior(model.rows(X, X.dtype), weight, posterior)
    return plain(model).m_step(uniform_params(model), stats)


def window_params(
    model: ShiftedTemplate, passes: Passes, X: Array, rng: np.random.RandomState
) -> Params:
    """The mean start, with the window of one image that differs most from the mean."""
    params = mean_params(model, passes)
    windows = model.windows
    mean = np.nanmean(X, axis=0, keepdims=True, dtype=float)
    image = X[[rng.randint(len(X))]]
    image = np.where(np.isnan(image), mean, image)
    mean, image = (model.centred(row, float, missing=False)[0] for row in (mean, image))
    energy = windows.sums(((image - mean) ** 2).sum(0))
    corner = np.unravel_index(energy.argmax(), windows.shifts)
    place = tuple(slice(c, c + w) for c, w in zip(corner, windows.window, strict=True))
    return replace(params, template=image[(slice(None), *place)], background=mean)


def random_params(
    model: ShiftedTemplate, low: float, high: float, rng: np.random.RandomState
) -> Params:
    """Random pixels within the data's range and a noise of up to 16 ranges."""
    start = uniform_params(model)
    centre = model.windows.broadcast(model.centre)
    template = rng.uniform(low, high, start.template.shape) - centre
    background = rng.uniform(low, high, start.background.shape) - centre
    noise_std = 16 * rng.uniform() * (high - low)
    noise_var = max(noise_std**2, model.min_noise_var)
    return replace(start, template=template, background=background, noise_var=noise_var)


def given_params(
    model: ShiftedTemplate,
    params: Params,
    *,
    template_init: ArrayLike | None,
    background_init: ArrayLike | None,
    noise_std_init: float | None,
    shift_prior_init: ArrayLike | None,
) -> Params:
    """The parameters with what is given in its place; images in the user's units."""

    def check(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
        array = np.array(value, dtype=float)
        if array.size != math.prod(shape) or not np.isfinite(array).all():
            raise ValueError(
                f"{name} must hold {' x '.join(map(str, shape))} finite numbers, but it "
                f"has shape {array.shape} and {np.isfinite(array).sum()} finite numbers."
            )
        return array.reshape(shape)

    windows = model.windows
    channels = windows.full_shape[2]
    if template_init is not None:
        shape = (*windows.window_shape, channels)
        template = check("template_init", template_init, shape)
        params = replace(params, template=model.to_centred(template))
    if background_init is not None:
        background = check("background_init", background_init, windows.full_shape)
        params = replace(params, background=model.to_centred(background))
    if noise_std_init is not None:
        noise_var = max(float(noise_std_init) ** 2, model.min_noise_var)
        params = replace(params, noise_var=noise_var)
    if shift_prior_init is not None:
        prior = check("shift_prior_init", shift_prior_init, (model.n_categories,))
        if (prior < 0).any() or not np.isclose(prior.sum(), 1):
            raise ValueError(
                "shift_prior_init must be probabilities that sum to 1, but its smallest "
                f"entry is {prior.min():g} and its sum is {prior.sum():g}."
            )
        params = replace(params, shift_prior=prior)
    return params


def plain(model: ShiftedTemplate) -> ShiftedTemplate:
    """The same model without its smoothness prior."""
    return replace(model, smoothness=None)


# -- Wiener-EM --------------------------------------------------------------------------


def smoothness_of(model: ShiftedTemplate, params: Params, stats: Stats) -> Smoothness:
    """Prior variances of the DCT coefficients, by radial frequency, from an ML estimate."""

    def variances(lines: Array, den: Array) -> Array:
        seen = den[den > 1e-3 * stats.weight]
        noise = params.noise_var / (seen.mean() if seen.size else stats.weight)
        power = model.dct(lines) ** 2
        height, width, _ = power.shape
        rows, columns = np.arange(height) / height, np.arange(width) / width
        radius = np.hypot(rows[:, None], columns) * max(height, width)
        band = np.rint(radius).astype(int)
        total = np.bincount(band.ravel(), power.mean(2).ravel())
        signal = total / np.maximum(np.bincount(band.ravel()), 1) - noise
        signal = np.maximum(signal, 1e-3 * noise)
        return np.broadcast_to(signal[band][..., None], power.shape)

    return Smoothness(
        variances(params.template, stats.template_den),
        variances(params.background, stats.background_den),
    )


def shrink(
    model: ShiftedTemplate, passes: Passes, params: Params, heat: Sequence[float]
) -> tuple[Params, Smoothness | None]:
    """Wiener-EM: one iteration, with the prior estimated anew, for each of ``heat``.

    In the E step the log-likelihood is multiplied by ``heat``: below 1 it anneals.
    """
    smoothness = None
    for beta in heat:
        stats = passes.total(replace(params, noise_var=params.noise_var / beta))
        smoothness = smoothness_of(model, plain(model).m_step(params, stats), stats)
        params = replace(model, smoothness=smoothness).m_step(params, stats)
    return params, smoothness


def shrink_all(
    model: ShiftedTemplate, passes: Passes, params: Params
) -> tuple[Params, Smoothness | None]:
    """Wiener-EM on all rows, from ``params`` and from the mean start; the better one.

    Few images leave a blur that more iterations on all of them hardly sharpen.
    """
    candidates = [
        shrink(model, passes, params, NO_ANNEALING),
        shrink(model, passes, mean_params(model, passes), ANNEALING),
    ]
    return max(candidates, key=lambda found: passes.total(found[0]).log_lik)


# -- the search -------------------------------------------------------------------------


def search(
    model: ShiftedTemplate,
    X: Array,
    weight: Array,
    kinds: list[str],
    span: tuple[float, float],
    rng: np.random.RandomState,
    n_jobs: int | None,
) -> tuple[Params, str]:
    """The best of several starts on a sample, and its kind.

    All run for a few iterations, and the best few for more.
    """
    seeds = rng.randint(np.iinfo(np.int32).max, size=len(kinds))
    parallel = Parallel(n_jobs=n_jobs, prefer="threads")
    runs = parallel(
        delayed(advance)(model, X, weight, kind, span, int(seed))
        for kind, seed in zip(kinds, seeds, strict=True)
    )
    order = sorted(range(len(kinds)), key=lambda i: -runs[i].objectives[-1])
    order = order[:N_FINALISTS]
    finals = parallel(delayed(finish)(model, X, weight, runs[i]) for i in order)
    if any(run.interrupted for run in [*runs, *finals]):
        raise KeyboardInterrupt
    best = max(range(len(finals)), key=lambda i: finals[i].objectives[-1])
    return finals[best].state[0], kinds[order[best]]


def advance(
    model: ShiftedTemplate,
    X: Array,
    weight: Array,
    kind: str,
    span: tuple[float, float],
    seed: int,
) -> Run:
    """A few iterations from one start: "mean", "shrunk", "posterior" or "random"."""
    passes = Passes(model, X, weight)
    rng = np.random.RandomState(seed)
    if kind == "random":
        params = random_params(model, *span, rng)
    elif kind == "posterior":
        params = dirichlet_params(model, X, weight, rng)
    elif kind == "window":
        params = window_params(model, passes, X, rng)
    else:
        params = mean_params(model, passes)
    if kind == "shrunk":
        params, _ = shrink(model, passes, params, ANNEALING)
    return em(model, passes.total, params, max_iter=N_ITER_TRIAL)


def finish(model: ShiftedTemplate, X: Array, weight: Array, run: Run) -> Run:
    """More iterations of a start."""
    passes = Passes(model, X, weight)
    return em(model, passes.total, run.state[0], max_iter=N_ITER_START)


# -- the shift move ---------------------------------------------------------------------


def follow_moves(
    model: ShiftedTemplate,
    passes: Passes,
    run: Run,
    X: Array,
    weight: Array,
    train: Callable[[Params, int], Run],
) -> Run:
    """Go on from ``run`` for as long as a move raises the objective.

    ``train(params, n_iter)`` runs EM after ``n_iter`` iterations.
    """
    step = max(1, len(X) * X.shape[1] // MOVE_SIZE)
    sample, sample_weight = X[::step], weight[::step]
    for _ in range(MAX_MOVES):
        for move in best_moves(model, run.state[0], sample, sample_weight):
            start = moved(model, passes, run.state[0], move)
            trial = em(model, passes.total, start, max_iter=N_ITER_TRIAL)
            if trial.interrupted or trial.objectives[-1] > run.objectives[-1]:
                break
        else:
            break
        run = run.then(train(trial.state[0], run.n_iter))
        if run.interrupted:
            break
    return run


def best_moves(
    model: ShiftedTemplate, params: Params, X: Array, weight: Array
) -> list[tuple[int, ...]]:
    """The common shifts of all posteriors whose M steps explain the sample best."""
    windows = model.windows
    dtype = working_dtype(X)
    rows = model.rows(X, dtype)
    posterior = model.posterior(model.log_joint(params, rows)) * weight[:, None]
    present = posterior[:, : windows.n_shifts].reshape(-1, *windows.shifts)
    lines = model.centred(X, dtype, rows.observed_spectrum is not None)
    by_template = _template_part(model, lines, present.astype(dtype))
    covered = windows.coverage(present).astype(dtype)
    weights = windows.broadcast(weight).astype(dtype)
    reach = [n - 1 if len(windows.shifts) == 1 else REACH_2D for n in windows.shifts]
    reach = [min(r, n - 1) for r, n in zip(reach, windows.shifts, strict=True)]
    explained = {}
    for move in product(*(range(-r, r + 1) for r in reach)):
        uncovered = weights - _shifted(covered, move)
        num = np.einsum("k...,kr...->r...", uncovered, lines)
        den = uncovered.sum(0)
        by_background = (num**2).sum(0)[den > 1e-3] / den[den > 1e-3]
        center = tuple(m + n - 1 for m, n in zip(move, windows.shifts, strict=True))
        if any(move):
            explained[move] = by_background.sum(dtype=float) + by_template[center]
    return sorted(explained, key=explained.__getitem__)[: -N_MOVES - 1 : -1]


def _template_part(model: ShiftedTemplate, lines: Array, present: Array) -> Array:
    """Sum of squares that the template explains after each move, (2N-1,) by axis.

    From the images aligned at their posteriors, beyond the window on both sides.
    """
    windows, axes = model.windows, model.windows.axes
    wide = [s + n - 1 for s, n in zip(windows.space, windows.shifts, strict=True)]
    size = [next_fast_len(length, real=True) for length in wide]
    weights = rfftn(present, s=size, axes=axes).conj()
    everywhere = np.ones((1, *windows.space), present.dtype)
    den = irfftn(weights.sum(0) * rfftn(everywhere, s=size, axes=axes), s=size, axes=axes)
    value = np.zeros(size)
    for line in range(lines.shape[1]):
        aligned = (weights * rfftn(lines[:, line], s=size, axes=axes)).sum(0)
        num = irfftn(aligned, s=size, axes=axes)
        value += np.divide(num**2, den[0], out=np.zeros(size), where=den[0] > 1e-2)
    order = [np.arange(-n + 1, s) for n, s in zip(windows.shifts, windows.space, strict=True)]
    return windows.sums(value[np.ix_(*order)])


def _shifted(values: Array, move: tuple[int, ...]) -> Array:
    """Values (k, *S) moved, with zeros where nothing comes from."""
    out = np.zeros_like(values)
    source, target = [slice(None)], [slice(None)]
    for step, size in zip(move, values.shape[1:], strict=True):
        source.append(slice(max(-step, 0), size - max(step, 0)))
        target.append(slice(max(step, 0), size - max(-step, 0)))
    out[tuple(target)] = values[tuple(source)]
    return out


def moved(
    model: ShiftedTemplate, passes: Passes, params: Params, move: tuple[int, ...]
) -> Params:
    """The M step at the posteriors of ``params`` moved; what leaves stays at the border."""
    windows = model.windows

    def statistics(rows: Rows, weight: Array) -> Stats:
        posterior = model.posterior(model.log_joint(params, rows))
        present = posterior[:, : windows.n_shifts].reshape(-1, *windows.shifts)
        for axis, step in enumerate(move, start=1):
            target = np.clip(np.arange(present.shape[axis]) + step, 0, None)
            target = target.clip(max=present.shape[axis] - 1)
            out = np.moveaxis(np.zeros_like(present), axis, 0)
            np.add.at(out, target, np.moveaxis(present, axis, 0))
            present = np.moveaxis(out, 0, axis)
        posterior[:, : windows.n_shifts] = present.reshape(len(present), -1)
        return model.given_posterior(rows, weight, posterior)

    stats = passes.fold(statistics, params)
    return model.m_step(params, replace(stats, shift_counts=stats.shift_counts + 0.5))
