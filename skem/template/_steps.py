"""One step of EM at a time, as public functions of images and parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array

from skem._rows.parts import InMemory
from skem._typing import Array
from skem.template import _model
from skem.template._model import Params, Rows, ShiftedTemplate
from skem.template._starts import model_of
from skem.template._windows import new_windows


class TemplateParams(NamedTuple):
    """The parameters of the shifted-template model.

    Parameters
    ----------
    template : ndarray of shape (template_height, template_width[, channels])
        The template.
    background : ndarray of shape (height, width[, channels])
        The background.
    noise_std : float
        The standard deviation of the noise.
    shift_prior : ndarray of shape (n_shifts,) or (n_shifts + 1,)
        The probability of each shift. If there is one more, it is that of absence.
    """

    template: Array
    background: Array
    noise_std: float
    shift_prior: Array


def log_joint(
    X: ArrayLike,
    template: ArrayLike,
    background: ArrayLike,
    noise_std: float,
    shift_prior: ArrayLike,
) -> Array:
    """Return log p(x, d) for each image and shift.

    Parameters
    ----------
    X : array-like of shape (n_samples, height, width[, channels])
        The images; NaN marks a missing pixel.
    template : array-like of shape (template_height, template_width[, channels])
        The template.
    background : array-like of shape (height, width[, channels])
        The background.
    noise_std : float
        The standard deviation of the noise, above 0.
    shift_prior : array-like of shape (n_shifts,) or (n_shifts + 1,)
        The probability of each shift. If there is one more, it is that of absence.

    Returns
    -------
    ndarray of shape (n_samples, n_categories)
        The logarithms in nats. Subtract ``np.log(shift_prior)`` for log p(x | d).

    Raises
    ------
    ValueError
        If the shapes do not fit together or a parameter is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from skem.template import log_joint
    >>> log_joint([[[0.0, 0.0, 1.0]]], [[1.0]], np.zeros((1, 3)), 1.0, np.ones(3) / 3).round(2)
    array([[-4.86, -4.86, -3.86]])
    """
    model, rows, _ = _prepared(X, template, background, shift_prior)
    params = _params(model, template, background, noise_std, shift_prior)
    return model.log_joint(params, rows)


def e_step(
    X: ArrayLike,
    template: ArrayLike,
    background: ArrayLike,
    noise_std: float,
    shift_prior: ArrayLike,
    *,
    hard: bool = False,
) -> Array:
    """Return the posterior of the shift of each image, q(d) = p(d | x).

    Parameters
    ----------
    X : array-like of shape (n_samples, height, width[, channels])
        The images; NaN marks a missing pixel.
    template : array-like of shape (template_height, template_width[, channels])
        The template.
    background : array-like of shape (height, width[, channels])
        The background.
    noise_std : float
        The standard deviation of the noise, above 0.
    shift_prior : array-like of shape (n_shifts,) or (n_shifts + 1,)
        The probability of each shift. If there is one more, it is that of absence.
    hard : bool, default=False
        Whether to return 1 at the most probable shift and 0 elsewhere: hard EM.

    Returns
    -------
    ndarray of shape (n_samples, n_categories)
        Probabilities; each row sums to 1.

    Raises
    ------
    ValueError
        If the shapes do not fit together or a parameter is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from skem.template import e_step
    >>> e_step([[[0.0, 0.0, 1.0]]], [[1.0]], np.zeros((1, 3)), 0.3, np.ones(3) / 3).round(2)
    array([[0., 0., 1.]])
    """
    model, rows, _ = _prepared(X, template, background, shift_prior, hard=hard)
    params = _params(model, template, background, noise_std, shift_prior)
    return model.posterior(model.log_joint(params, rows))


def m_step(
    X: ArrayLike,
    posterior: ArrayLike,
    template: ArrayLike,
    background: ArrayLike,
    *,
    shift_concentration_prior: float = 1.0,
) -> TemplateParams:
    """Return the parameters that maximize the lower bound at given posteriors.

    Parameters
    ----------
    X : array-like of shape (n_samples, height, width[, channels])
        The images; NaN marks a missing pixel.
    posterior : array-like of shape (n_samples, n_shifts) or (n_samples, n_shifts + 1)
        The probability of each shift in each image, and of absence if there is one more.
    template : array-like of shape (template_height, template_width[, channels])
        The template before the step. Its pixels that no image shows keep their values.
    background : array-like of shape (height, width[, channels])
        The background before the step. Its pixels that no image shows keep their values.
    shift_concentration_prior : float, default=1.0
        Concentration of the Dirichlet prior on the shift probabilities, at least 1. At 1,
        the step maximizes the likelihood.

    Returns
    -------
    TemplateParams
        The new ``template``, ``background``, ``noise_std`` and ``shift_prior``.

    Raises
    ------
    ValueError
        If the shapes do not fit together or a parameter is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from skem.template import m_step
    >>> images = [[[0.0, 0.0, 1.0]], [[3.0, 0.0, 0.0]]]
    >>> new = m_step(images, [[0, 0, 1], [1, 0, 0]], [[0.0]], np.zeros((1, 3)))
    >>> float(new.template[0, 0]), float(new.noise_std) > 0
    (2.0, True)
    """
    if not shift_concentration_prior >= 1:
        raise ValueError(
            "shift_concentration_prior must be at least 1, but it is "
            f"{shift_concentration_prior!r}."
        )
    posterior = np.asarray(posterior, dtype=float)
    if posterior.ndim != 2 or (posterior < 0).any() or not np.allclose(posterior.sum(1), 1):
        raise ValueError(
            "posterior must have a row of probabilities that sum to 1 for each image, but it "
            f"has shape {posterior.shape} or other sums."
        )
    concentration = float(shift_concentration_prior)
    start = posterior.mean(0)
    model, rows, shapes = _prepared(X, template, background, start, concentration=concentration)
    _check_length(posterior, rows)
    old = _params(model, template, background, 1.0, start)
    stats = model.given_posterior(rows, np.ones(len(posterior)), posterior)
    new = model.m_step(old, stats)
    return TemplateParams(
        model.to_image(new.template[0]).reshape(shapes[0]),
        model.to_image(new.background).reshape(shapes[1]),
        float(np.sqrt(new.noise_var)),
        new.shift_prior,
    )


def lower_bound(
    X: ArrayLike,
    posterior: ArrayLike,
    template: ArrayLike,
    background: ArrayLike,
    noise_std: float,
    shift_prior: ArrayLike,
) -> float:
    """Return the lower bound of the log-likelihood, E_q log p(x, d) - E_q log q(d).

    Parameters
    ----------
    X : array-like of shape (n_samples, height, width[, channels])
        The images; NaN marks a missing pixel.
    posterior : array-like of shape (n_samples, n_shifts) or (n_samples, n_shifts + 1)
        Any probabilities q of the shifts in each image. At those of ``e_step`` the bound is
        equal to the log-likelihood.
    template : array-like of shape (template_height, template_width[, channels])
        The template.
    background : array-like of shape (height, width[, channels])
        The background.
    noise_std : float
        The standard deviation of the noise, above 0.
    shift_prior : array-like of shape (n_shifts,) or (n_shifts + 1,)
        The probability of each shift. If there is one more, it is that of absence.

    Returns
    -------
    float
        The bound, in nats, summed over the images.

    Raises
    ------
    ValueError
        If the shapes do not fit together or a parameter is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from skem.template import lower_bound
    >>> params = [[1.0]], np.zeros((1, 3)), 1.0, np.ones(3) / 3
    >>> round(lower_bound([[[0.0, 0.0, 1.0]]], [[0.0, 0.0, 1.0]], *params), 2)
    -3.86
    """
    joint = log_joint(X, template, background, noise_std, shift_prior)
    posterior = np.asarray(posterior, dtype=float)
    if posterior.shape != joint.shape:
        raise ValueError(
            f"posterior must have shape {joint.shape}, one row for each image and one column "
            f"for each shift, but it has shape {posterior.shape}."
        )
    return float(_model.lower_bound(joint, posterior).sum())


def _prepared(
    X: ArrayLike,
    template: ArrayLike,
    background: ArrayLike,
    shift_prior: ArrayLike,
    **options: Any,
) -> tuple[ShiftedTemplate, Rows, list[tuple[int, ...]]]:
    """Return the model, the images as one chunk, and the shapes of template and background."""
    images = check_array(
        X, dtype=float, ensure_all_finite="allow-nan", allow_nd=True, ensure_2d=False
    )
    shapes = [np.shape(template), np.shape(background)]
    if images.ndim not in (3, 4) or shapes[1] != images.shape[1:]:
        raise ValueError(
            "X must be images (n_samples, height, width[, channels]) and background one such "
            f"image, but X has shape {images.shape} and background has shape {shapes[1]}."
        )
    if len(shapes[0]) != len(shapes[1]) or shapes[0][2:] != shapes[1][2:]:
        raise ValueError(
            "template must have the axes (height, width[, channels]) of background, but the "
            f"shapes are {shapes[0]} and {shapes[1]}."
        )
    values = images.reshape(len(images), -1)
    windows = new_windows(shapes[1], values.shape[1], *shapes[0][:2])
    n_categories = np.size(shift_prior)
    if n_categories not in (windows.n_shifts, windows.n_shifts + 1):
        raise ValueError(
            f"The template has {windows.n_shifts} shifts, but there are {n_categories} "
            "probabilities of shifts: pass one for each, and one for absence if it is allowed."
        )
    absent = n_categories > windows.n_shifts
    model, _ = model_of(windows, InMemory(values), absent=absent, **options)
    return model, model.rows(values, float), shapes


def _params(
    model: ShiftedTemplate,
    template: ArrayLike,
    background: ArrayLike,
    noise_std: float,
    shift_prior: ArrayLike,
) -> Params:
    """Return checked parameters, centered."""
    prior = np.asarray(shift_prior, dtype=float)
    if prior.ndim != 1 or (prior < 0).any() or not np.isclose(prior.sum(), 1):
        raise ValueError(
            "shift_prior must be probabilities that sum to 1, but it has shape "
            f"{prior.shape} and sum {prior.sum():g}."
        )
    if not 0 < noise_std < np.inf:
        raise ValueError(f"noise_std must be above 0 and finite, but it is {noise_std!r}.")
    full = model.windows.full_shape
    images = []
    for name, image, shape in (
        ("template", template, (*model.windows.window_shape, full[2])),
        ("background", background, full),
    ):
        array = np.asarray(image, dtype=float).reshape(shape)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are not finite: replace them.")
        images.append(model.to_centered(array))
    return Params(images[0][None], images[1], float(noise_std) ** 2, prior)


def _check_length(posterior: Array, rows: Rows) -> None:
    if len(posterior) != len(rows.pixels):
        raise ValueError(
            f"X holds {len(rows.pixels)} images, but posterior has {len(posterior)} rows: pass "
            "one row for each image."
        )
