"""Starts of EM for several templates.

EM with several templates has two more kinds of local optima: two templates share the images of
one class, or one template is the blend of two classes. The search therefore grows the templates
one after the other. A new template comes from splitting an old one along the main direction in
which its images differ, or from an image that the others explain worst. Then it exchanges: the
template that the images miss least is dropped, and another one grows in its place, as long as
this raises the objective.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add

import numpy as np
from scipy.linalg import eigh
from scipy.special import logsumexp, softmax

from skem._loop import em
from skem._rows.parts import InMemory, chunks, working_dtype
from skem._typing import Array
from skem.template._model import Params, Rows, ShiftedTemplate, Stats
from skem.template._starts import (
    N_ITER_START,
    N_ITER_TRIAL,
    lose_no_shift,
    most_unlike_background,
    plain,
    search,
    uniform_prior,
)

# Number of images that the templates explain worst, among which a new template is searched.
N_WORST = 10
# Largest number of images by which the direction of a split is found.
MAX_SPLIT = 512
# Gain in nats per image that an exchange of templates must bring.
MIN_GAIN = 1e-3

logger = logging.getLogger("skem")

Found = tuple[float, Params]  # the objective, in nats per image, and the parameters


@dataclass(frozen=True)
class Sample:
    """Prepared images that models with any number of templates share."""

    parts: list[tuple[Rows, Array]]

    @classmethod
    def of(cls, model: ShiftedTemplate, sample: InMemory, params: Params) -> "Sample":
        X = sample.values
        dtype = model.dtype_for(params, working_dtype(X))
        weight = np.asarray(sample.weight)
        parts = chunks(len(X), model.row_size)
        return cls([(model.rows(X[part], dtype), weight[part]) for part in parts])

    def total(self, model: ShiftedTemplate, params: Params) -> Stats:
        """Return the statistics of all images."""
        return reduce(add, (model.e_step(params, *part) for part in self.parts))

    def given(self, model: ShiftedTemplate, posteriors: list[Array]) -> Stats:
        """Return the statistics of all images under given posteriors."""
        both = zip(self.parts, posteriors, strict=True)
        return reduce(add, (model.given_posterior(*part, q) for part, q in both))

    def log_joint(self, model: ShiftedTemplate, params: Params) -> list[Array]:
        """Return log p(x, c, d) of the images of each part."""
        return [model.log_joint(params, rows) for rows, _ in self.parts]

    def image(self, index: int) -> Array:
        """Return the pixels (1, n_features) of one image."""
        for rows, _ in self.parts:
            if index < len(rows.pixels):
                break
            index -= len(rows.pixels)
        return rows.pixels[[index]]

    def run(self, model: ShiftedTemplate, params: Params, n_iter: int) -> Found:
        """Run EM; return the objective and the parameters."""
        run = em(model, partial(self.total, model), params, max_iter=n_iter)
        if run.interrupted:
            raise KeyboardInterrupt
        return run.objectives[-1], run.state[0]


def search_classes(
    model: ShiftedTemplate,
    sample: InMemory,
    kinds: list[str],
    span: tuple[float, float],
    rng: np.random.RandomState,
    n_jobs: int | None,
) -> tuple[Params, str, bool]:
    """Return a start with several templates, its kind, and whether Ctrl-C came.

    ``kinds`` are the starts of the first template. After Ctrl-C, the templates that are found
    so far are completed by copies, and the fit ends with them.
    """
    one = replace(plain(model), n_templates=1)
    params, kind, interrupted = search(one, sample, kinds, span, rng, n_jobs)
    best = -np.inf, params
    try:
        if interrupted:
            raise KeyboardInterrupt
        images = Sample.of(one, sample, params)
        best = images.run(one, params, 0)
        for n_templates in range(2, model.n_templates + 1):
            grown = replace(one, n_templates=n_templates)
            best = grow(grown, images, best[1], rng)
            for better in exchanged(grown, images, best, rng):
                best = better
            logger.debug("%d templates: %.6f nats per image", n_templates, best[0])
        return _any_shift(model, best[1]), kind, False
    except KeyboardInterrupt:
        return _any_shift(model, _completed(model, best[1])), kind, True


def grow(
    model: ShiftedTemplate, images: Sample, params: Params, rng: np.random.RandomState
) -> Found:
    """Return the best of several fits with one template more than ``params`` have."""
    trials = [
        images.run(model, start, N_ITER_TRIAL)
        for start in starts_with_one_more(model, images, params, rng)
    ]
    return images.run(model, max(trials, key=lambda found: found[0])[1], N_ITER_START)


def exchanged(
    model: ShiftedTemplate, images: Sample, found: Found, rng: np.random.RandomState
) -> Iterator[Found]:
    """Yield better fits, in which one template is dropped and another one grown."""
    for _ in range(model.n_templates if model.n_templates > 2 else 0):
        better = None
        for dropped in least_missed(model, images, found[1])[:2]:
            fewer = without(model, found[1], dropped)
            trial = grow(model, images, fewer, rng)
            if trial[0] > found[0] + MIN_GAIN:
                better = trial
                break
        if better is None:
            return
        found = better
        yield found


def starts_with_one_more(
    model: ShiftedTemplate, images: Sample, params: Params, rng: np.random.RandomState
) -> Iterator[Params]:
    """Yield starts: each template split, and a window of an image that is explained badly."""
    fewer = replace(model, n_templates=model.n_templates - 1)
    log_joint = images.log_joint(fewer, params)
    posteriors = [softmax(part, axis=1) for part in log_joint]
    for of_class in range(fewer.n_templates):
        sides = halves(fewer, images, params, posteriors, of_class)
        divided = [
            split_posterior(fewer, q, of_class, side)
            for q, side in zip(posteriors, sides, strict=True)
        ]
        yield model.m_step(
            extended(model, params, params.template[of_class]),
            lose_no_shift(images.given(model, divided)),
        )
    log_lik = np.concatenate([logsumexp(part, axis=1) for part in log_joint])
    n_pixels = np.concatenate([rows.n_pixels for rows, _ in images.parts])
    weight = np.concatenate([weight for _, weight in images.parts])
    worst = np.argsort(np.where(weight > 0, log_lik / np.maximum(n_pixels, 1), np.inf))
    chosen = worst[rng.randint(min(N_WORST, int((weight > 0).sum())))]
    yield extended(model, params, most_unlike_background(model, params, images.image(chosen)))


def halves(
    model: ShiftedTemplate,
    images: Sample,
    params: Params,
    posteriors: list[Array],
    of_class: int,
) -> list[Array]:
    """Return on which side of a class its images are, (k,) of bool for each part.

    The sides are the signs of the first principal component of the windows.
    """
    windows, background = model.windows, params.background[None]
    residuals, shares = [], []
    for (rows, weight), posterior in zip(images.parts, posteriors, strict=True):
        present = model.present(posterior)[:, of_class].astype(rows.spectrum.real.dtype)
        found = windows.gather_each(rows.spectrum, present)
        seen = windows.broadcast(present.reshape(len(present), 1, -1).sum(2))
        if rows.observed_spectrum is not None:
            seen = windows.gather_each(rows.observed_spectrum, present)
        if model.additive:
            found -= windows.gather_each(windows.spectrum(background), present)
        found -= seen * params.template[of_class]
        residuals.append(found.reshape(len(found), -1))
        shares.append(weight * present.reshape(len(present), -1).sum(1))
    share = np.concatenate(shares)
    chosen = np.argsort(-share)[: min(MAX_SPLIT, int((share > 0).sum()))]
    sides = np.zeros(len(share), bool)
    if len(chosen) > 1:
        whole = np.concatenate(residuals).astype(float)
        some = np.sqrt(share[chosen])[:, None] * whole[chosen]
        last = len(chosen) - 1
        _, top = eigh(some @ some.T, subset_by_index=[last, last])
        sides = whole @ (some.T @ top[:, 0]) > 0
    return np.split(sides, np.cumsum([len(part) for part in residuals])[:-1])


def split_posterior(
    model: ShiftedTemplate, posterior: Array, of_class: int, side: Array
) -> Array:
    """Move one class of the images on one side to a new class, which comes last."""
    present = model.present(posterior)
    moved = np.where(model.windows.broadcast(side), present[:, of_class], 0)
    present = np.concatenate([present, moved[:, None]], axis=1)
    present[:, of_class] -= moved
    rest = posterior[:, model.n_present :]
    return np.concatenate([present.reshape(len(posterior), -1), rest], axis=1)


def extended(model: ShiftedTemplate, params: Params, template: Array) -> Params:
    """Return parameters with a template more, as probable as the others on average."""
    old = model.n_templates - 1
    shifts = params.shift_prior[: old * model.windows.n_shifts].reshape(old, -1)
    absent = params.shift_prior[old * model.windows.n_shifts :]
    present = np.concatenate([shifts, shifts.mean(0)[None]]) * (old / model.n_templates)
    variance = params.amplitude_var
    return replace(
        params,
        template=np.concatenate([params.template, template[None]]),
        shift_prior=np.append(present.ravel(), absent),
        amplitude_var=None if variance is None else np.append(variance, variance.mean()),
    )


def without(model: ShiftedTemplate, params: Params, dropped: int) -> Params:
    """Return parameters without one template."""
    shifts = params.shift_prior[: model.n_present].reshape(model.n_templates, -1)
    kept = np.delete(shifts, dropped, axis=0)
    kept = kept * (shifts.sum() / (kept.sum() or 1.0))
    variance = params.amplitude_var
    return replace(
        params,
        template=np.delete(params.template, dropped, axis=0),
        shift_prior=np.append(kept.ravel(), params.shift_prior[model.n_present :]),
        amplitude_var=None if variance is None else np.delete(variance, dropped),
    )


def least_missed(model: ShiftedTemplate, images: Sample, params: Params) -> list[int]:
    """Return the templates in the order of what the images lose without them."""
    losses = np.zeros(model.n_templates)
    log_joint = images.log_joint(model, params)
    for (_, weight), part in zip(images.parts, log_joint, strict=True):
        for c in range(model.n_templates):
            less = part.copy()
            less[:, c * model.windows.n_shifts : (c + 1) * model.windows.n_shifts] = -np.inf
            lost = logsumexp(part, axis=1) - logsumexp(less, axis=1)
            losses[c] += weight @ lost
    return [int(c) for c in np.argsort(losses)]


def _completed(model: ShiftedTemplate, params: Params) -> Params:
    """Return parameters with all templates, the missing ones copies of the last."""
    while len(params.template) < model.n_templates:
        more = replace(model, n_templates=len(params.template) + 1)
        params = extended(more, params, params.template[-1])
    return params


def _any_shift(model: ShiftedTemplate, params: Params) -> Params:
    """Mix the prior with a uniform one; see ``lose_no_shift``."""
    return replace(params, shift_prior=(params.shift_prior + uniform_prior(model)) / 2)
