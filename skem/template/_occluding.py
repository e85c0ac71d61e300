"""A template in front of the background, in white noise.

In the layout of ``_windows`` (lines R, space S, window w, shifts N):

    log p(x, d) = [2 (C_d - X_d) - (|F|^2 - b_d)] / 2s^2 + log a_d + log N(x | B, s^2)
    C = F correlated with x,  X = window sums of sum_r xB,  b = window sums of sum_r B^2

Missing pixels are omitted from every sum.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from skem._typing import Array
from skem.template._params import Params, Rows, Stats, View

if TYPE_CHECKING:
    from skem.template._model import ShiftedTemplate

# A pixel counts as uncovered if its total weight is above this share of the images. Smaller
# weights are rounding errors of the running sums.
SEEN = 1e-8


def log_parts(
    model: "ShiftedTemplate", params: Params, rows: Rows, view: View
) -> tuple[Array, Array, Array, Array]:
    """Return log N(x | B), what a template adds to it, the matched filter and its energy.

    The shapes are (k,), (k, c, *N), (k, c, *N) and (c, 1...) or (k, c, *N).
    """
    windows, k = model.windows, len(rows.pixels)
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
    match = windows.correlate(rows.spectrum, params.template)
    gain = match - windows.sums(cross)[:, None]
    gain = 2 * gain - (covered_sq - windows.sums(square)[:, None])
    residual = rows.sum_sq - 2 * cross.reshape(k, -1).sum(1)
    residual += square.reshape(len(square), -1).sum(1)
    precision = 1 / params.noise_var
    log_background = rows.n_pixels * math.log(precision / (2 * math.pi))
    log_background = (log_background - precision * residual) / 2
    gain *= precision / 2
    if params.amplitude_var is not None:
        match, covered_sq = precision * match, precision * covered_sq
    return log_background, gain, match, covered_sq


def sums(
    model: "ShiftedTemplate",
    rows: Rows,
    view: View,
    weight: Array,
    present: Array,
    first: Array,
    second: Array,
) -> dict[str, Array]:
    """Return the sums that make templates and background; see ``Stats``.

    ``first`` and ``second`` are the weighted posteriors (k, c, *N) of present templates,
    times the moments of the amplitude if it is free.
    """
    windows, found = model.windows, {}
    lines, offset, observed = view
    uncovered = windows.broadcast(weight) - windows.coverage(over_classes(present))
    np.maximum(uncovered, 0, out=uncovered)
    if observed is None or rows.observed_spectrum is None:
        background_den = uncovered.sum(0)[None]
    else:
        found["template_den"] = windows.gather(rows.observed_spectrum, second)
        background_den = np.einsum("k...,kr...->r...", uncovered, observed)
    background_num = np.einsum("k...,kr...->r...", uncovered.astype(lines.dtype), lines).astype(
        float
    )
    background_num -= windows.broadcast(offset) * background_den
    return found | {
        "template_num": windows.gather(rows.spectrum, first),
        "background_num": background_num,
        "background_den": background_den,
    }


def images(model: "ShiftedTemplate", params: Params, stats: Stats) -> tuple[Array, Array]:
    """Return template and background at the mode given the old noise."""
    of_template = params.template, stats.template_num, stats.template_den
    of_background = params.background, stats.background_num, stats.background_den
    if model.smoothness is None:
        minimum = SEEN * stats.weight
        return _mean(*of_template, minimum), _mean(*of_background, minimum)
    variances = np.broadcast_to(
        model.smoothness.template,
        (model.n_templates, *model.smoothness.template.shape[-3:]),
    )
    of_classes = zip(*of_template, params.noise_var / variances, strict=True)
    template = np.stack([_smooth_mean(model, *one) for one in of_classes])
    assert model.smoothness.background is not None
    shrink = params.noise_var / model.smoothness.background
    return template, _smooth_mean(model, *of_background, shrink)


def _smooth_mean(
    model: "ShiftedTemplate", old: Array, num: Array, den: Array, shrink: Array
) -> Array:
    """Solve (den + C' shrink C) x = num, where C is the DCT, starting from ``old``.

    If ``den`` is constant, the preconditioner is the exact inverse, and one iteration is
    enough.
    """

    def spectral(lines: Array, factor: Array) -> Array:
        return model.undo_dct(factor * model.dct(lines))

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


def noise_var(
    model: "ShiftedTemplate", template: Array, background: Array, stats: Stats
) -> float:
    """Return the variance of the noise, given the new images."""
    square = stats.sum_sq
    for mean, num, den in (
        (template, stats.template_num, stats.template_den),
        (background, stats.background_num, stats.background_den),
    ):
        square += float(((den * mean - 2 * num) * mean).sum())
    return max(square / (stats.n_pixels or 1.0), model.min_noise_var)


def _mean(old: Array, num: Array, den: Array, minimum: float) -> Array:
    """Return num / den, or the old value of a pixel if ``den`` is at most ``minimum``."""
    seen = np.broadcast_to(den > minimum, num.shape)
    return np.divide(num, den, out=old.copy(), where=seen)


def over_classes(present: Array) -> Array:
    """Return the sum (k, *N) of (k, c, *N) over classes, without a copy if there is one."""
    return present[:, 0] if present.shape[1] == 1 else present.sum(1)
