"""Parameters of the mixture and hyperparameters of its prior."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skem._typing import Array, Indices
from skem.mixture._covariances import Layout, inverse_cholesky
from skem.mixture._sums import Whitening


def check_covariances(name: str, blocks: Array) -> Array:
    """Return the blocks if they are symmetric and positive definite."""
    symmetric = np.allclose(blocks, blocks.transpose(0, 1, 3, 2))
    definite = np.isfinite(blocks).all() and symmetric
    if not definite or not (np.linalg.eigvalsh(blocks) > 0).all():
        raise ValueError(
            f"{name} must be symmetric and positive definite, but it is not: check its entries "
            "and its eigenvalues."
        )
    return blocks


class CollapseError(FloatingPointError):
    """A component has collapsed onto a point, a line or a plane, or has lost its rows."""


@dataclass(frozen=True)
class Params:
    """Parameters of the mixture; weight 0 marks a component that is switched off."""

    layout: Layout
    weights: Array  # (K,)
    means: Array  # (K, D)
    covariances: Array  # (G, B, d, d)

    @cached_property
    def cholesky(self) -> Array:
        """Cholesky factors of the covariances, as lower triangular blocks."""
        try:
            return np.linalg.cholesky(self.covariances)
        except np.linalg.LinAlgError as error:
            raise CollapseError("a covariance is not positive definite") from error

    @cached_property
    def factors(self) -> Array:
        """Inverse Cholesky factors: (G, D, D) or (G, D)."""
        return self.layout.of_groups(inverse_cholesky(self.cholesky))

    @cached_property
    def active(self) -> Indices:
        return np.flatnonzero(self.weights > 0)

    @cached_property
    def whitening(self) -> Whitening:
        """The whitening of the active components."""
        active, layout = self.active, self.layout
        weights, means = self.weights[active], self.means[active]
        factors = self.factors
        if len(factors) > 1:
            factors = factors[active]
        elif factors.ndim == 2:
            factors = np.broadcast_to(factors, means.shape)
        log_norm = layout.n_features * math.log(2 * math.pi) + layout.log_det(self.cholesky)
        center = weights @ means
        return Whitening(
            center, factors, means - center, np.log(weights) - log_norm[active] / 2
        )


def params_of(
    layout: Layout, weights: ArrayLike, means: ArrayLike, factors: Any, covariances: Any
) -> Params:
    """Return the parameters that fitted attributes describe.

    The factors of the precisions are preferred to the covariances, because they remain
    positive definite under rounding.
    """
    shares: Array = np.asarray(weights, dtype=float)
    shares, places = shares / shares.sum(), np.asarray(means, dtype=float)
    if factors is None:
        if np.shape(covariances) != layout.public_shape:
            raise ValueError(
                f"covariances_ has shape {np.shape(covariances)}, but covariance_type="
                f"{layout.covariance_type!r} needs {layout.public_shape}."
            )
        blocks = check_covariances("covariances_", layout.to_blocks(covariances))
        return Params(layout, shares, places, blocks)
    lower = np.ascontiguousarray(layout.to_blocks(factors).swapaxes(2, 3))
    cholesky = inverse_cholesky(lower)
    params = Params(layout, shares, places, cholesky @ cholesky.swapaxes(2, 3))
    # to factor the product again would lose digits if it is ill-conditioned
    vars(params).update(cholesky=cholesky, factors=layout.of_groups(lower))
    return params


@dataclass(frozen=True)
class Prior:
    """Hyperparameters of the prior; :func:`flat_prior` returns those without effect."""

    concentration: float  # alpha
    mean_precision: float  # kappa_0
    mean: Array  # mu_0, (D,)
    degrees_of_freedom: float  # nu_0
    covariance: Array  # Psi_0, (1, B, d, d)

    @property
    def has_scale(self) -> bool:
        """Whether the prior keeps covariances away from 0."""
        return bool(np.any(self.covariance))
