"""Where the template is in each image, and how large: what the posterior says."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from skem._typing import Array, Indices
from skem.template._model import Params, Rows, ShiftedTemplate


class Modes(NamedTuple):
    """The most probable class (n,) and shift (n,) of each image; -1 for absence."""

    classes: Indices
    shifts: Indices


def modes(posterior: Array, n_templates: int, n_shifts: int) -> Modes:
    """Return the most probable class, and its most probable shift.

    Shifts of different templates cannot be compared, since the corner of a template is
    arbitrary. The class is therefore chosen first. The template is absent if that is more
    probable than this shift.
    """
    present = posterior[:, : n_templates * n_shifts].reshape(-1, n_templates, n_shifts)
    classes = present.sum(2).argmax(1) if n_templates > 1 else np.zeros(len(present), int)
    of_class = present[np.arange(len(present)), classes]
    shifts = of_class.argmax(1)
    if posterior.shape[1] > n_templates * n_shifts:
        absent = posterior[:, -1] > of_class[np.arange(len(present)), shifts]
        classes, shifts = np.where(absent, -1, classes), np.where(absent, -1, shifts)
    return Modes(classes, shifts)


def places(model: ShiftedTemplate, params: Params, rows: Rows, subpixel: bool) -> Array:
    """Return the corner of the template (k, n_axes), NaN where it is absent."""
    windows = model.windows
    flat = np.full(model.n_categories, 1 / model.n_categories)
    log_lik = model.log_joint(replace(params, shift_prior=flat), rows)
    with np.errstate(divide="ignore"):
        posterior = softmax(log_lik + np.log(params.shift_prior), axis=1)
    found = modes(posterior, model.n_templates, windows.n_shifts)
    index = np.unravel_index(found.shifts.clip(0), windows.shifts)
    corner = np.stack(index, axis=1).astype(float)
    if subpixel:
        of_class = model.present(log_lik)[np.arange(len(log_lik)), found.classes.clip(0)]
        corner += _vertex(of_class, index, windows.cyclic)
    corner[found.shifts < 0] = np.nan
    return corner


def _vertex(log_lik: Array, index: tuple[Indices, ...], cyclic: bool) -> Array:
    """Return the offset (k, n_axes) of the vertex of a parabola through three neighbors.

    It is at most half a pixel. Shifts at the edge, which lack a neighbor, stay as they are.
    """
    offsets = np.zeros((len(log_lik), len(index)))
    each = np.arange(len(log_lik))
    here = log_lik[(each, *index)]
    for axis, at in enumerate(index):
        size = log_lik.shape[axis + 1]

        def beside(step: int, axis: int = axis, at: Indices = at, size: int = size) -> Array:
            moved = list(index)
            moved[axis] = (at + step) % size
            values: Array = log_lik[(each, *moved)]
            return values

        before, after = beside(-1), beside(1)
        bend = before - 2 * here + after
        inside = np.ones(len(at), bool) if cyclic else (at > 0) & (at < size - 1)
        with np.errstate(invalid="ignore", over="ignore"):
            usable = inside & (size > 2) & np.isfinite(bend) & (bend < 0)
            np.divide(before - after, 2 * bend, out=offsets[:, axis], where=usable)
    return offsets.clip(-0.5, 0.5)


def amplitudes(model: ShiftedTemplate, params: Params, rows: Rows) -> Array:
    """Return the posterior mean of the amplitude (k,), given that a template is present."""
    moments = model.amplitude_moments(params, rows)
    assert moments is not None
    log_joint = model.log_joint(params, rows)[:, : model.n_present]
    posterior = model.present(softmax(log_joint, axis=1))
    mean = posterior * moments.mean
    return mean.reshape(len(mean), -1).sum(1)
