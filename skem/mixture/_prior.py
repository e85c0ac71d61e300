"""Hyperparameters of the mixture: given by the user, flat, or estimated from the data."""

from typing import Any

import numpy as np

from skem._base.estimator import warn
from skem._base.passes import Passes
from skem._rows.moments import Moments
from skem._rows.parts import Rows
from skem._typing import Array
from skem.mixture._covariances import Layout
from skem.mixture._model import Mixture
from skem.mixture._params import Params, Prior, check_covariances

# A feature is treated as constant if its standard deviation divided by its mean is not above
# this: such a spread is rounding error.
MIN_RELATIVE_SPREAD = 1e-15
# Below this, squares of the scale and products of two squares are finite in float64.
MAX_SCALE = 1e70
MIN_SCALE = 1e-150  # features of a smaller spread, whose square underflows, count as constant
MEAN_PRECISION = 0.01  # in the empirical prior, the mean counts as 1% of a row
# Share of the variance of a feature from which reg_covar shapes the fit.
MAX_REG_SHARE = 0.1
# In the empirical prior, the covariance counts as one row: benchmarks/prior.py compares more.
N_PRIOR_ROWS = 1


def scale_of(seen: Moments) -> Array:
    """Return the standard deviations of the features; 0 for constant ones."""
    seen.check_observed()
    scale = np.sqrt(seen.square / np.maximum(seen.weight, np.finfo(float).tiny))
    scale[scale <= MIN_RELATIVE_SPREAD * np.abs(seen.mean)] = 0
    scale[scale < MIN_SCALE] = 0
    if not (scale < MAX_SCALE).all():
        raise ValueError(
            f"X has values as large as {max(seen.high, -seen.low):.3g}, too large for sums of "
            "their squares: rescale X."
        )
    return scale


def flat_prior(layout: Layout) -> Prior:
    """Return the prior for which the posterior mode is the maximum-likelihood estimate."""
    shape = (1, layout.n_blocks, layout.block_size, layout.block_size)
    return Prior(
        1.0, 0.0, np.zeros(layout.n_features), layout.flat_degrees_of_freedom, np.zeros(shape)
    )


def empirical_prior(layout: Layout, rows: Rows, mean: Array, scale: Array) -> Prior:
    """Return a weak prior that follows the units of X.

    Its scale is the variances of the data divided by K^(2/D), as if K equal components shared
    the volume (Fraley and Raftery, 2007). It counts as one row. Correlations are left out:
    with few rows per feature those of the data are mostly noise.
    """
    mean, variances = data_moments(layout, rows, mean, scale)
    share = layout.n_components ** (2 / layout.n_features)
    dof = layout.flat_degrees_of_freedom + N_PRIOR_ROWS
    return Prior(1.0, MEAN_PRECISION, mean, dof, variances / share)


def data_moments(layout: Layout, rows: Rows, mean: Array, scale: Array) -> tuple[Array, Array]:
    """Compute the mean of the data and their variances, as blocks (1, B, d, d), in one pass.

    ``mean`` and ``scale`` come from a sample and center the pass. A constant feature gets
    the smallest spread of the other features, so that the blocks are positive definite.
    """
    one = Layout("diag", 1, layout.n_features)
    positive = scale[scale > 0]
    floor = positive.min() if len(positive) else 1.0
    spread = np.where(scale > 0, scale, floor)
    params = Params(one, np.ones(1), mean[None], one.to_blocks(spread**2))
    model = Mixture(one, flat_prior(one), scale)
    stats = Passes(model, rows).total(params)
    averages, scatter = model.moments(params, stats)
    variances = scatter[0] / stats.weight + np.where(scale > 0, 0, floor**2)
    if layout.n_repeats > 1:
        return averages[0], layout.to_blocks(variances.mean())
    return averages[0], layout.to_blocks(np.diag(variances) if layout.dense else variances)


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
    """Return ``prior`` with the given hyperparameters replaced."""
    concentration, precision = weight_concentration_prior, mean_precision_prior
    dof, minimum = degrees_of_freedom_prior, layout.flat_degrees_of_freedom
    if dof is not None and not minimum <= dof < np.inf:
        raise ValueError(
            f"degrees_of_freedom_prior must be finite and at least {minimum} (the value "
            f"without effect), but it is {dof!r}."
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
    K, D = layout.n_components, layout.n_features
    if mean.ndim == 0:
        mean = np.full(D, float(mean))
    if mean.shape not in ((D,), (K, D)) or not np.isfinite(mean).all():
        raise ValueError(
            f"mean_prior must hold {D} finite numbers, one for each feature, or such a row for "
            f"each of the {K} components, but it is {mean_prior!r}."
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


def check_units(scale: Array, reg_covar: float) -> None:
    """Warn if ``reg_covar`` is not small beside the variances ``scale**2`` (D,)."""
    small = np.flatnonzero((scale > 0) & (MAX_REG_SHARE * scale**2 < reg_covar))
    if len(small):
        others = f" and {len(small) - 1} more" if len(small) > 1 else ""
        warn(
            f"reg_covar={reg_covar:g} is more than {MAX_REG_SHARE:.0%} of the variance of "
            f"feature {small[0]}{others}, and widens the components there: rescale X, for "
            "example with StandardScaler, or lower reg_covar.",
            UserWarning,
        )
