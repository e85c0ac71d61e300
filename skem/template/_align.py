"""Windows of images at the place of the template."""

from dataclasses import replace

import numpy as np
from scipy.special import softmax

from skem._typing import Array
from skem.template._model import Params, Rows, ShiftedTemplate

# Images with larger pixels are aligned after a multiplication by SMALLER.
MAX_ALIGNED, SMALLER = 1e290, 2.0**-100


def align(model: ShiftedTemplate, params: Params, rows: Rows) -> Array:
    """Return the posterior mean of each image's window, given a present template."""
    present = params.shift_prior[: model.n_present]
    total = present.sum()
    prior = present / total if total > 0 else np.full(len(present), 1 / len(present))
    of_shifts = replace(model, absent=False)
    log_joint = of_shifts.log_joint(replace(params, shift_prior=prior), rows)
    posterior = softmax(log_joint, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        out = _aligned(model, params, rows, posterior)
    size = np.nanmax(np.abs(rows.pixels), axis=1, initial=0).astype(float)
    far = np.flatnonzero(size > MAX_ALIGNED)
    if len(far):  # the sums would be infinite: make all smaller, the result larger
        small = replace(model, center=SMALLER * model.center)
        near = small.rows(SMALLER * rows.pixels[far].astype(float), float)
        own = replace(params, template=SMALLER * params.template)
        largest = SMALLER * np.finfo(float).max
        found = _aligned(small, own, near, posterior[far]).clip(-largest, largest)
        out[far] = found / SMALLER
    return out


def _aligned(model: ShiftedTemplate, params: Params, rows: Rows, posterior: Array) -> Array:
    """Return the posterior mean of the window, (k, h*w*C), in the user's units.

    ``posterior`` holds the probabilities of classes and shifts, given a present template.
    """
    windows, present = model.windows, model.present(posterior)
    lines = windows.gather_each(rows.spectrum, present.sum(1))
    if rows.observed_spectrum is not None:
        for c, template in enumerate(params.template):
            share = windows.broadcast(present[:, c].reshape(len(present), 1, -1).sum(2))
            seen = windows.gather_each(rows.observed_spectrum, present[:, c])
            lines += (share - seen) * template
    return model.to_image(lines).reshape(len(lines), -1)
