"""The fitted attributes of ShiftedTemplateEM."""

import math
from typing import Any

import numpy as np

from skem._typing import AnyArray, Array, Mask
from skem.template._model import SEEN, Params, ShiftedTemplate, Stats

# Attributes that some models have.
OF_SOME = {"template_", "template_seen_", "templates_", "templates_seen_"}
OF_SOME |= {"class_weights_", "amplitude_std_", "noise_spectrum_"}


def attributes(model: ShiftedTemplate, params: Params, stats: Stats) -> dict[str, Any]:
    """Return the fitted attributes, in the units of the user."""
    windows = model.windows
    dtype = np.float32 if model.single else np.float64
    channels = windows.image_shape[2:]

    def seen(den: Array, like: Array, shape: tuple[int, ...]) -> Mask:
        lines = np.broadcast_to(den > SEEN * stats.weight, like.shape)
        return windows.to_images(lines).reshape(shape)

    shape = (model.n_templates, *windows.window_shape, *channels)
    templates = model.of_template().to_image(params.template).astype(dtype).reshape(shape)
    templates_seen = seen(stats.template_den, params.template, shape)
    background = model.to_image(params.background).astype(dtype)
    smoothness = model.smoothness
    return {
        **_of_some(model, params, templates, templates_seen),
        "background_": background.reshape(windows.image_shape),
        "background_seen_": seen(stats.background_den, params.background, windows.image_shape),
        "noise_std_": math.sqrt(params.noise_var),
        "shift_prior_": params.shift_prior,
        "shift_shape_": windows.shift_shape,
        "image_shape_": windows.image_shape,
        "_center": model.center,
        "_variance": model.variance,
        "_smoothness": smoothness and (smoothness.template, smoothness.background),
        "_known_shifts": model.known_shifts,
        "_options": {
            "n_templates": model.n_templates,
            "additive": model.additive,
            "free_amplitude": model.free_amplitude,
            "stationary": model.stationary,
            "cyclic": windows.cyclic,
            "absent": model.absent,
        },
    }


def _of_some(
    model: ShiftedTemplate, params: Params, templates: AnyArray, templates_seen: Mask
) -> dict[str, Any]:
    """Return the attributes that depend on the options of the model."""
    windows = model.windows
    found: dict[str, Any]
    if model.n_templates == 1:
        found = {"template_": templates[0], "template_seen_": templates_seen[0]}
    else:
        present = params.shift_prior[: model.n_present].reshape(model.n_templates, -1)
        found = {
            "templates_": templates,
            "templates_seen_": templates_seen,
            "class_weights_": present.sum(1),
        }
    if params.amplitude_var is not None:
        std = np.sqrt(params.amplitude_var)
        found["amplitude_std_"] = std if model.n_templates > 1 else float(std[0])
    if params.spectrum is not None:
        spectrum = params.noise_var * params.spectrum
        *rest, last = windows.space
        found["noise_spectrum_"] = spectrum.reshape(*rest, last // 2 + 1)
    return found
