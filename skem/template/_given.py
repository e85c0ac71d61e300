"""Starting values and schedules that a user gives, checked."""

from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skem._typing import Array
from skem.template._model import Params, ShiftedTemplate
from skem.template._windows import Windows


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
        if model.n_templates > 1:
            shapes = [(model.n_templates, *shape) for shape in shapes]
        template = _checked("template_init", template_init, limit, *shapes)
        template = template.reshape(model.n_templates, *template.shape[-3:])
        params = replace(params, template=model.of_template().to_centered(template))
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
        prior = _probabilities("shift_prior_init", shift_prior_init, model.n_categories)
        params = replace(params, shift_prior=prior)
    return params


def known_shifts(shift_prior: ArrayLike | None, windows: Windows) -> Array | None:
    """Return the checked probabilities (n_shifts,) of shifts that are known."""
    if shift_prior is None:
        return None
    return _probabilities("shift_prior", shift_prior, windows.n_shifts)


def _probabilities(name: str, value: ArrayLike, size: int) -> Array:
    prior = _checked(name, value, np.inf, (size,))
    if (prior < 0).any() or not np.isclose(prior.sum(), 1):
        raise ValueError(
            f"{name} must be probabilities that sum to 1, but its smallest "
            f"entry is {prior.min():g} and its sum is {prior.sum():g}."
        )
    return prior


def check_options(estimator: Any, n_images: int) -> None:
    """Raise an error if parameters of the estimator contradict each other."""
    n_templates = int(estimator.n_templates)
    if n_templates > n_images:
        raise ValueError(
            f"n_templates={n_templates} needs as many images, but X has n_samples={n_images}: "
            "pass fewer templates or more images."
        )
    if estimator.noise == "stationary" and estimator.composition == "occlude":
        raise ValueError(
            "noise='stationary' needs composition='add': behind a template that occludes the "
            "background, the likelihood of a shift is no correlation any more. Set "
            "composition='add', or noise='white'."
        )
    if estimator.shift_prior is not None and estimator.shift_prior_init is not None:
        raise ValueError(
            "shift_prior and shift_prior_init are both given: pass shift_prior if the "
            "probabilities are known, or shift_prior_init if EM starts from them."
        )
    if estimator.amplitude == "free" and estimator.shrinkage == "map":
        raise ValueError(
            "shrinkage='map' has no mode with amplitude='free': the prior would shrink the "
            "template to 0 and raise the amplitudes. Set shrinkage='start' or None."
        )
    if n_templates == 1 or estimator.template_init is not None:
        return
    names = ("background_init", "noise_std_init", "shift_prior_init")
    given = [name for name in names if getattr(estimator, name) is not None]
    if estimator.init == "mean" or given:
        what = given[0] if given else "init='mean'"
        raise ValueError(
            f"{what} would start all {n_templates} templates from the same image, and EM "
            "could not tell them apart: pass template_init too, or use init='auto' or "
            "'random' without starting values."
        )


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
