"""Parameters of the mixture and hyperparameters of its prior."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
from scipy.special import multigammaln

from skem._typing import Array, Indices, Mask
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


def in_single_range(values: Array) -> bool:
    """Return whether float32 can hold the values."""
    size = np.abs(values[values != 0])
    limits = np.finfo(np.float32)
    return bool(size.min(initial=1) >= limits.tiny and size.max(initial=1) <= limits.max)


class CollapseError(FloatingPointError):
    """A component has collapsed onto a point, a line or a plane, or has lost its rows."""


@dataclass(frozen=True)
class Params:
    """Parameters of the mixture; weight 0 marks a component that is switched off."""

    layout: Layout
    weights: Array  # (K,)
    means: Array  # (K, D)
    covariances: Array  # (G, B, d, d)
    background: float | None = None  # share of a uniform background, see ``_background``

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


def filled_far(params: Params, x: Array, k: int) -> Array:
    """Return a row (D,) far away, filled by component k; what overflows is the limit."""
    layout, observed = params.layout, ~np.isnan(x)
    cholesky = layout.of_groups(params.cholesky)[k if layout.n_groups > 1 else 0]
    covariance = cholesky @ cholesky.T if layout.dense else np.diag(cholesky**2)
    largest = np.abs(x[observed]).max()
    gap = x[observed] / largest - params.means[k, observed] / largest
    part = np.linalg.solve(covariance[np.ix_(observed, observed)], gap)
    filled = params.means[k] / largest + covariance[:, observed] @ part
    limit = np.finfo(float).max / largest
    return np.where(observed, x, np.clip(filled, -limit, limit) * largest)


def public_values(params: Params, *, single: bool) -> dict[str, Array]:
    """Return the values of the public attributes, in float32 if ``single`` and in its range."""
    layout = params.layout
    factors = inverse_cholesky(params.cholesky).swapaxes(2, 3)
    values = {
        "weights_": params.weights,
        "means_": params.means,
        "covariances_": layout.to_public(params.covariances),
        "precisions_": layout.to_public(factors @ factors.swapaxes(2, 3)),
        "precisions_cholesky_": layout.to_public(factors),
    }
    if single and all(in_single_range(value) for value in values.values()):
        return {name: value.astype(np.float32) for name, value in values.items()}
    return values


def digests_of(values: Mapping[str, Any]) -> dict[str, int]:
    """Return a checksum of each value, which tells whether it was changed."""
    return {name: crc32(np.asarray(value).tobytes()) for name, value in values.items()}


def params_of(layout: Layout, attributes: Mapping[str, Any], changed: set[str]) -> Params:
    """Return the parameters that public attributes describe.

    The factors of the precisions are preferred to the covariances, because they remain
    positive definite under rounding. If only covariances or precisions are ``changed``, the
    others are out of date.
    """
    shares: Array = np.asarray(attributes["weights_"], dtype=float)
    shares, places = shares / shares.sum(), np.asarray(attributes["means_"], dtype=float)
    share = attributes.get("background_weight_")
    factors = attributes.get("precisions_cholesky_")
    if "precisions_cholesky_" not in changed and changed & {"covariances_", "precisions_"}:
        factors = None
    if factors is None:
        is_inverse = "precisions_" in changed and "covariances_" not in changed
        name = "precisions_" if is_inverse else "covariances_"
        blocks = _checked_blocks(layout, name, attributes[name])
        covariances = np.linalg.inv(blocks) if is_inverse else blocks
        return Params(layout, shares, places, covariances, share)
    lower = np.ascontiguousarray(layout.to_blocks(factors).swapaxes(2, 3))
    cholesky = inverse_cholesky(lower)
    params = Params(layout, shares, places, cholesky @ cholesky.swapaxes(2, 3), share)
    # to factor the product again would lose digits if it is ill-conditioned
    vars(params).update(cholesky=cholesky, factors=layout.of_groups(lower))
    return params


def _checked_blocks(layout: Layout, name: str, values: Any) -> Array:
    if np.shape(values) != layout.public_shape:
        raise ValueError(
            f"{name} has shape {np.shape(values)}, but covariance_type="
            f"{layout.covariance_type!r} needs {layout.public_shape}."
        )
    return check_covariances(name, layout.to_blocks(values))


@dataclass(frozen=True)
class Prior:
    """Hyperparameters of the prior; :func:`flat_prior` returns those without effect."""

    concentration: float  # alpha
    mean_precision: float  # kappa_0
    mean: Array  # mu_0, (D,) or (K, D)
    degrees_of_freedom: float  # nu_0
    covariance: Array  # Psi_0, (1, B, d, d)

    @property
    def has_scale(self) -> bool:
        """Whether the prior keeps covariances away from 0."""
        return bool(np.any(self.covariance))


@dataclass(frozen=True)
class Fixed:
    """Which parameters EM leaves as they are."""

    weights: Mask  # (K,)
    means: Mask  # (K,)
    covariances: Mask  # (G,)

    def shares(self, new: Array, before: Array) -> Array:
        """Return the new weights; the free ones share what the fixed ones leave."""
        free = np.where(self.weights, 0, new)
        left = 1 - before[self.weights].sum()
        total = free.sum()
        return np.where(self.weights, before, left * free / total if total > 0 else free)


def log_inverse_wishart(prior: Prior, cholesky: Array) -> float:
    """Return the log-density of all blocks, given their Cholesky factors (G, B, d, d)."""
    d, nu, psi = cholesky.shape[-1], prior.degrees_of_freedom, prior.covariance
    half_log_det = np.log(np.einsum("gbii->gbi", cholesky)).sum()
    precision = inverse_cholesky(cholesky)
    psis = np.broadcast_to(psi, cholesky.shape)
    out = -(nu + d + 1) * half_log_det
    out -= np.einsum("gbij,gbik,gbjk->", precision, precision, psis) / 2
    sign, log_det = np.linalg.slogdet(psi)
    if nu > d - 1 and (sign > 0).all():
        norm = nu / 2 * (log_det - d * math.log(2)) - multigammaln(nu / 2, d)
        out += len(cholesky) * norm.sum()
    return float(out)
