"""A template that is added to the background, in white or in stationary noise.

    x = B + F_c shifted by d + e,    e: periodic stationary Gaussian noise of spectrum P

The shift is a phase in the Fourier domain, and the noise is independent there. With the
hat for the FFT over S, L = 1/P, and q^(omega) the transform of a posterior over the shifts:

    matched filter  u_c = inverse FFT of L (x^ - B^) conj(F_c^)
    energy          f_c = sum over omega of L |F_c^|^2 / |S|
    log p(x, c, d)  = u_c[d] - f_c / 2 + log N(x | B, P) + log a

The statistics of the M step do not depend on the parameters. Given F, the background is
B^ = (sum_k x_k^ - sum_c Q_c^ F_c^) / n, where Q_c^ sums q^ over the images. What is left is a
linear system for F, which conjugate gradients solve with FFTs of single images.
White noise is the case of a constant spectrum.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from skem._typing import AnyArray, Array
from skem.template._params import Params, Rows, Stats

if TYPE_CHECKING:
    from skem.template._model import ShiftedTemplate

# Tolerance and largest number of iterations of conjugate gradients; each of them raises the
# objective, so that an M step that is not finished is an M step all the same.
CG_TOL, CG_ITER = 1e-10, 50
# Directions whose curvature is below this share of what rounding would give are not followed.
CG_FLAT = 1e-14


class Sums(NamedTuple):
    """What the M step asks of the posteriors, in the Fourier domain."""

    total: AnyArray  # (R, Q): the sum of the images
    aligned: AnyArray  # (c, R, Q): the sum of the images, moved back
    pasted: AnyArray  # (c, Q): the sum of the posteriors
    squares: Array  # (c, 1, 1): the expected sums of squared amplitudes


def noise_spectrum(params: Params, n_frequencies: int) -> Array:
    """Return P (Q,), the variance of the noise at each frequency."""
    if params.spectrum is None:
        return np.full(n_frequencies, params.noise_var)
    return params.noise_var * params.spectrum


def log_parts(
    model: "ShiftedTemplate", params: Params, rows: Rows
) -> tuple[Array, Array, Array]:
    """Return log N(x | B, P) (k,), the matched filter (k, c, *N) and its energy (c, 1...)."""
    windows, spectrum = model.windows, rows.spectrum
    power = noise_spectrum(params, len(spectrum))
    template, background = (
        windows.transform(params.template),
        windows.transform(params.background),
    )
    filters = template.conj() / power
    kernels = np.concatenate([filters, (background.conj() / power)[None]])
    kernels = np.ascontiguousarray(kernels.transpose(2, 1, 0)).astype(spectrum.dtype)
    product = np.matmul(spectrum, kernels)  # (Q, k, c + 1)
    of_background = (filters * background).sum(1)[None]
    match = windows.inverse(product[:, :, :-1].transpose(1, 2, 0), windows.shifts)
    match = match - windows.inverse(of_background, windows.shifts)
    share = windows.multiplicity / np.prod(windows.space)
    energy = (share * np.abs(template) ** 2 / power).sum((1, 2))
    cross = np.einsum("q,qk->k", share, product[:, :, -1].real.astype(float))
    own = rows.sum_sq / params.noise_var if rows.power is None else (share / power) @ rows.power
    residual = own - 2 * cross + (share * np.abs(background) ** 2 / power).sum()
    log_det = len(model.center) * float(windows.multiplicity @ np.log(2 * np.pi * power))
    return -(residual + log_det) / 2, match, windows.broadcast(energy)


def sums(
    model: "ShiftedTemplate", rows: Rows, weight: Array, first: Array
) -> tuple[Array, Array, Array | None]:
    """Return the sums of images at their place (R, *S), moved back (c, R, *S), and of |x^|^2.

    ``first`` holds the weighted posteriors (k, c, *N), times the mean amplitude if it is free.
    """
    windows, spectrum = model.windows, rows.spectrum
    weights = windows.transform(first.astype(spectrum.real.dtype)).conj()
    whole = np.broadcast_to(weight[:, None, None], (*weight.shape, 1, weights.shape[-1]))
    weights = np.concatenate([weights, whole.astype(weights.dtype)], axis=1)
    weights = np.ascontiguousarray(weights.transpose(2, 0, 1))
    product = np.matmul(spectrum.transpose(0, 2, 1), weights).transpose(2, 1, 0)
    lines = windows.inverse(product, windows.space).astype(float)
    return lines[-1], lines[:-1], None if rows.power is None else rows.power @ weight


def m_step(
    model: "ShiftedTemplate", params: Params, stats: Stats, squares: Array
) -> tuple[Array, Array, float, Array | None]:
    """Return template, background, variance of the noise and its relative spectrum."""
    windows = model.windows
    assert stats.pasted is not None
    of = Sums(
        windows.transform(stats.background_num),
        windows.transform(stats.template_num),
        windows.transform(stats.pasted),
        squares[:, None, None],
    )
    power = noise_spectrum(params, of.total.shape[-1])
    shrink = None if model.smoothness is None else 1 / model.smoothness.template
    template = _solve(model, params.template, of, stats.weight, power, shrink)
    transformed = windows.transform(template)
    background = (of.total - (of.pasted[:, None] * transformed).sum(0)) / stats.weight
    explained = (
        -2 * (background.conj() * of.total).real + stats.weight * np.abs(background) ** 2
    )
    cross = 2 * (of.pasted[:, None] * background.conj() - of.aligned.conj()) * transformed
    explained += (cross.real + of.squares * np.abs(transformed) ** 2).sum(0)
    explained = explained.sum(0) / np.prod(windows.space)
    new = windows.inverse(background, windows.space)
    if stats.power is None:
        square = stats.sum_sq + float(windows.multiplicity @ explained)
        return template, new, max(square / stats.n_pixels, model.min_noise_var), None
    count = stats.weight * len(model.center)
    found = (stats.power / np.prod(windows.space) + explained) / count
    found = np.maximum(found, model.min_noise_var)
    variance = float(windows.multiplicity @ found / np.prod(windows.space))
    return template, new, variance, found / variance


def _solve(
    model: "ShiftedTemplate",
    old: Array,
    of: Sums,
    weight: float,
    power: Array,
    shrink: Array | None,
) -> Array:
    """Solve for the templates, from the old ones; the background is eliminated."""
    windows, shape = model.windows, old.shape

    def cropped(spectrum: AnyArray) -> Array:
        return windows.inverse(spectrum / power, windows.window)

    def product(x: Array) -> Array:
        lines = x.reshape(shape)
        spectrum = windows.transform(lines)
        shared = (of.pasted[:, None] * spectrum).sum(0) / weight
        out = cropped(of.squares * spectrum - of.pasted[:, None].conj() * shared)
        if shrink is not None:
            out = out + model.undo_dct(shrink * model.dct(lines))
        return out.ravel()

    def precondition(x: Array) -> Array:
        spectrum = windows.transform(x.reshape(shape))
        scale = np.maximum(of.squares, 1e-3 * weight)
        return windows.inverse(spectrum * power / scale, windows.window).ravel()

    target = cropped(of.aligned - of.pasted[:, None].conj() * (of.total / weight)).ravel()
    start = old.ravel()
    limit = CG_TOL * float(np.linalg.norm(target))
    return _conjugate_gradients(product, precondition, target, start, limit).reshape(shape)


def _conjugate_gradients(
    product: Callable[[Array], Array],
    precondition: Callable[[Array], Array],
    target: Array,
    x: Array,
    limit: float,
) -> Array:
    """Solve a positive semidefinite system until the residual is below ``limit``.

    Directions that the data do not determine, such as a constant that is exchanged between
    template and background, keep their values.
    """
    residual = target - product(x)
    direction, before = np.zeros_like(x), 1.0
    for _ in range(CG_ITER):
        if np.linalg.norm(residual) <= limit:
            break
        step = precondition(residual)
        size = float(residual @ step)
        direction = step + size / before * direction
        image = product(direction)
        curvature = float(direction @ image)
        if not curvature > CG_FLAT * float(np.linalg.norm(direction) * np.linalg.norm(image)):
            break
        x = x + size / curvature * direction
        residual = residual - size / curvature * image
        before = size
    return x
