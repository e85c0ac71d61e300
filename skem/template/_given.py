"""Starting values and schedules that a user gives, checked."""

from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skem._typing import Array
from skem.template._model import Params, ShiftedTemplate


def given_params(
    model: ShiftedTemplate,
    params: Params,
    *,
    template_init: ArrayLike | None = None,
    background_init: ArrayLike | None = None,
    noise_std_init: float | None = None,
    shift_prior_init: ArrayLike | None = None,
) -> Params:
    """Replace the parameters that are given; images are given in the user's units."""
    windows = model.windows
    *outer, channels = windows.full_shape
    limit = _limit(model)
    if template_init is not None:
        shapes = _shapes(windows.window_shape, channels)
        template = _checked("template_init", template_init, limit, *shapes)
        params = replace(params, template=model.to_centered(template)[None])
    if background_init is not None:
        shapes = _shapes(tuple(outer), channels)
        background = _checked("background_init", background_init, limit, *shapes)
        params = replace(params, background=model.to_centered(background))
    if noise_std_init is not None:
        if not noise_std_init < limit:
            raise ValueError(
                f"noise_std_init must be smaller than {limit:.0e}, but it is "
                f"{noise_std_init:g}: give the noise in the units of X."
            )
        noise_var = max(float(noise_std_init) ** 2, model.min_noise_var)
        params = replace(params, noise_var=noise_var)
    if shift_prior_init is not None:
        shape = (model.n_categories,)
        prior = _checked("shift_prior_init", shift_prior_init, limit, shape)
        if (prior < 0).any() or not np.isclose(prior.sum(), 1):
            raise ValueError(
                "shift_prior_init must be probabilities that sum to 1, but its smallest "
                f"entry is {prior.min():g} and its sum is {prior.sum():g}."
            )
        params = replace(params, shift_prior=prior)
    return params


def _limit(model: ShiftedTemplate) -> float:
    """Return the bound of starting values.

    Values below max^0.4 have squares below max^0.8, so that sums of weighted squares over all
    pixels stay finite.
    """
    return float(np.finfo(np.float32 if model.single else float).max ** 0.4)


def _checked(name: str, value: ArrayLike, limit: float, *shapes: tuple[int, ...]) -> Array:
    """Return an array of one of the shapes, reshaped to the last one."""
    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error
    fine = np.abs(array) < limit
    if array.shape not in shapes or not fine.all():
        raise ValueError(
            f"{name} must have shape {shapes[0]} and entries smaller than {limit:.0e}, but "
            f"it has shape {array.shape} and {fine.sum()} such entries."
        )
    return array.reshape(shapes[-1])


def _shapes(size: tuple[int, ...], channels: int) -> list[tuple[int, ...]]:
    """Return the allowed shapes of an image; the last one has all axes."""
    full = (*size, channels)
    if channels > 1:
        return [full]
    return [size, full] if size[0] > 1 else [size, size[1:], full]


def check_schedule(schedule: Any) -> None:
    """Raise an error if the schedule does not hold pairs of positive integers."""
    for stage in schedule or ():
        sizes = stage if isinstance(stage, (tuple, list)) else ()
        integers = all(isinstance(size, Integral) and int(size) > 0 for size in sizes)
        if len(sizes) != 2 or not integers:
            raise ValueError(
                "subset_schedule must hold pairs (n_images, n_iter) of positive integers, but "
                f"one of them is {stage!r}."
            )
