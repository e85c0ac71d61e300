"""The hyperparameters of the mixture: given ones, and those that a switch supplies."""

from typing import Any

import numpy as np

from skem._base.passes import Passes
from skem._rows.parts import n_positive
from skem.mixture._covariances import Array, Layout
from skem.mixture._model import Mixture, Params, Prior

MEAN_PRECISION = 0.01  # of the empirical prior: 1% of a row
# Correlations with a smaller eigenvalue are singular, and are drawn to 0 by this or more.
MIN_EIGENVALUE, MIN_DRAW = 1e-6, 1e-3


def flat_prior(layout: Layout) -> Prior:
    """The prior under which the mode is the maximum of the likelihood."""
    shape = (1, layout.n_blocks, layout.block_size, layout.block_size)
    return Prior(
        1.0, 0.0, np.zeros(layout.n_features), layout.flat_degrees_of_freedom, np.zeros(shape)
    )


def empirical_prior(
    layout: Layout, X: Array, weight: Array, middle: Array, scale: Array
) -> Prior:
    """The prior of Fraley and Raftery (2007): weak, and equivariant to the units of X."""
    mean, covariance = data_moments(layout, X, weight, middle, scale)
    share = layout.n_components ** (2 / layout.n_features)
    if layout.dense:
        covariance = _definite(covariance, sum(n_positive(weight)))
    return Prior(1.0, MEAN_PRECISION, mean, layout.n_features + 2, covariance / share)


def _definite(covariance: Array, n_rows: int) -> Array:
    """The covariance (1, 1, D, D), drawn to its diagonal where it is singular."""
    diagonal = covariance * np.eye(covariance.shape[-1])
    std = np.sqrt(np.einsum("gbii->gbi", covariance))
    correlation = covariance / (std[..., None] * std[..., None, :])
    if np.linalg.eigvalsh(correlation).min() > MIN_EIGENVALUE:
        return covariance
    share = max(MIN_DRAW, len(std[0, 0]) / (n_rows + len(std[0, 0])))
    return (1 - share) * covariance + share * diagonal


def data_moments(
    layout: Layout, X: Array, weight: Array, middle: Array, scale: Array
) -> tuple[Array, Array]:
    """The mean of the data and their covariance as (1, B, d, d): one component, one pass.

    ``middle`` and ``scale`` are about those of the features.
    A constant feature counts as having the smallest spread of the others, so that the
    covariance is positive definite.
    """
    single = Layout(layout.covariance_type, 1, layout.n_features)
    positive = scale[scale > 0]
    floor = positive.min() if len(positive) else 1.0
    spread = np.where(scale > 0, scale, floor)
    blocks: Any = np.diag(spread**2) if single.dense else spread**2
    if single.n_repeats > 1:
        blocks = np.mean(spread**2)
    params = Params(single, np.ones(1), middle[None], single.to_blocks(blocks))
    model = Mixture(single, flat_prior(single), scale)
    stats = Passes(model, X, weight).total(params)
    averages, scatter = model.moments(params, stats)
    covariance = single.pool(scatter) / (single.n_repeats * stats.weight)
    rest: Any = np.where(scale > 0, 0, floor**2)
    if single.n_repeats > 1:
        rest = np.where((scale > 0).any(), 0, floor**2)
    return averages[0], covariance + single.to_blocks(np.diag(rest) if single.dense else rest)


def given_prior(
    prior: Prior,
    layout: Layout,
    *,
    weight_concentration_prior: float | None,
    mean_precision_prior: float | None,
    mean_prior: Any,
    degrees_of_freedom_prior: float | None,
    covariance_prior: Any,
) -> Prior:
    """``prior`` with what was given in place of what it says."""
    concentration, precision = weight_concentration_prior, mean_precision_prior
    dof, least = degrees_of_freedom_prior, layout.flat_degrees_of_freedom
    if dof is not None and not least <= dof < np.inf:
        raise ValueError(
            f"degrees_of_freedom_prior must be finite and at least {least}, where it has no "
            f"effect, but it is {dof!r}."
        )
    return Prior(
        prior.concentration if concentration is None else float(concentration),
        prior.mean_precision if precision is None else float(precision),
        prior.mean if mean_prior is None else _mean(mean_prior, layout),
        prior.degrees_of_freedom if dof is None else float(dof),
        prior.covariance if covariance_prior is None else _scale(covariance_prior, layout),
    )


def _mean(mean_prior: Any, layout: Layout) -> Array:
    mean = np.asarray(mean_prior, dtype=float)
    if mean.ndim == 0:
        mean = np.full(layout.n_features, float(mean))
    if mean.shape != (layout.n_features,) or not np.isfinite(mean).all():
        raise ValueError(
            f"mean_prior must hold {layout.n_features} finite numbers, one for each feature, "
            f"but it is {mean_prior!r}."
        )
    return mean


def _scale(covariance_prior: Any, layout: Layout) -> Array:
    scale = np.asarray(covariance_prior, dtype=float)
    if scale.shape != layout.prior_shape:
        raise ValueError(
            f"covariance_prior has shape {scale.shape}, but covariance_type="
            f"{layout.covariance_type!r} and {layout.n_features} features need "
            f"{layout.prior_shape}."
        )
    return check_covariances("covariance_prior", layout.to_blocks(scale))


def check_covariances(name: str, blocks: Array) -> Array:
    """Blocks that are symmetric and positive definite."""
    symmetric = np.allclose(blocks, blocks.transpose(0, 1, 3, 2))
    definite = np.isfinite(blocks).all() and symmetric
    if not definite or not (np.linalg.eigvalsh(blocks) > 0).all():
        raise ValueError(f"{name} must be symmetric and positive definite.")
    return blocks
