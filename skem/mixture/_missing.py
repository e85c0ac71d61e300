"""Rows with missing values: rows with the same observed features form a group.

Rows that share their pattern with few others are left to ``_repeated`` and ``_scattered``. The
observed features o of a group follow the marginal mixture, which is exact. One matrix,
M = A Sigma[:, o] A_o^T, gives the moments of all whitened coordinates:

    E[z | z_o] = M z_o,   Cov[z | z_o] = I - M M^T
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from skem._rows.arrays import Placed
from skem._typing import Array, Indices, Mask
from skem.mixture._arrays import PlacedGroup
from skem.mixture._covariances import inverse_cholesky
from skem.mixture._repeated import Repeated
from skem.mixture._scattered import Scattered
from skem.mixture._sums import Whitening

# Rows with the same pattern from which one factorization for all pays.
MIN_GROUP = 8
# With at most MAX_FEATURES, the matrices of all patterns are small enough to be computed
# together. A pattern then forms a group of its own from MIN_VALUES values.
MAX_FEATURES, MIN_VALUES = 10, 4096


@dataclass(frozen=True)
class Group:
    """Rows of a chunk in which the same features are missing."""

    values: Array  # (n, number of observed features)
    observed: Indices | None = None  # observed features; None means all
    place: Indices | None = None  # rows of the chunk; None means all

    def of(self, chunk: Array) -> Array:
        """Return the entries of this group from an array with one entry per row."""
        return chunk if self.place is None else chunk[self.place]

    def index(self, n_rows: int) -> Indices:
        return np.arange(n_rows) if self.place is None else self.place


Groups = list[Group | Repeated | Scattered | PlacedGroup]


@np.errstate(over="ignore", invalid="ignore")
def group_rows(values: Array | Placed, dtype: DTypeLike, *, dense: bool) -> Groups:
    """Group rows with the same missing features, and the rest by their number.

    If nothing is missing, the result is one group that is not copied, also on a device.
    Diagonal covariances, which are not ``dense``, need no matrices for a pattern.
    """
    if isinstance(values, Placed):
        if dtype == np.float32 or values.place.has_float64:
            return [PlacedGroup(values, dtype)]
        values = values.place.to_numpy(values.values)
    values = np.asarray(values, dtype)
    if not np.isnan(values.sum()) or not (missing := np.isnan(values)).any():
        return [Group(values)]
    places = same_patterns(missing)
    is_narrow = values.shape[1] <= MAX_FEATURES
    least = MIN_VALUES // values.shape[1] if is_narrow or not dense else MIN_GROUP
    groups: Groups = []
    rest: list[Indices] = []
    for place in places:
        if len(place) >= least:
            observed = np.flatnonzero(~missing[place[0]])
            groups.append(Group(values[np.ix_(place, observed)], observed, place))
        else:
            rest.append(place)
    if rest and is_narrow and dense:
        groups.append(_repeated(values, missing, rest))
    elif rest:
        groups.extend(_scattered(values, missing, np.concatenate(rest)))
    return groups


def same_patterns(missing: Mask) -> list[Indices]:
    """Return the rows of each pattern of missing values (n, D)."""
    keys = np.packbits(missing, axis=1)
    _, inverse = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1)


def _repeated(values: Array, missing: Mask, places: list[Indices]) -> Repeated:
    place = np.concatenate(places)
    starts = np.cumsum([0, *(len(p) for p in places[:-1])])
    return Repeated(values[place].astype(float), missing[place[starts]], starts, place)


def _scattered(values: Array, missing: Mask, place: Indices) -> list[Scattered]:
    counts = missing[place].sum(1)
    groups = (place[counts == count] for count in np.unique(counts))
    return [Scattered(values[own].astype(float), missing[own], own) for own in groups]


def some_values_of(groups: Groups, index: Indices, n_rows: int, n_features: int) -> Array:
    """Return some of the rows of the groups; missing values are NaN."""
    if isinstance(groups[0], PlacedGroup):
        return groups[0].take(index)
    return values_of(groups, n_rows, n_features)[index]


def values_of(groups: Groups, n_rows: int, n_features: int) -> Array:
    """Return the rows (n, D) of the groups; missing values are NaN."""
    values = np.full((n_rows, n_features), np.nan)
    for group in groups:
        observed = group.observed if isinstance(group, Group) else None
        columns = np.arange(n_features) if observed is None else observed
        values[group.index(n_rows)[:, None], columns] = group.values
    return values


def marginal(
    whitening: Whitening, observed: Indices | None
) -> tuple[Whitening, Callable[..., tuple[Any, ...]]]:
    """Return the mixture of the observed features, and a function that expands its sums.

    The function returns the sums over all features.
    """
    if observed is None:
        return whitening, lambda *sums: sums
    if whitening.factors.ndim == 2:
        return _diagonal_marginal(whitening, observed)
    factors, covariance = _dense_marginal(whitening, observed)
    n_missing = len(whitening.center) - len(observed)
    constants = whitening.constants + n_missing / 2 * math.log(2 * math.pi)
    constants = constants + _log_det(factors) - whitening.log_det
    back = whitening.factors @ covariance[:, :, observed] @ factors.transpose(0, 2, 1)
    left = np.eye(len(whitening.center)) - back @ back.transpose(0, 2, 1)

    def expand(log_lik: float, counts: Array, first: Array, second: Array) -> tuple[Any, ...]:
        n = counts if len(second) == len(counts) else counts.sum(keepdims=True)
        second = back @ second @ back.transpose(0, 2, 1) + n[:, None, None] * left
        return log_lik, counts, np.matmul(back, first[:, :, None])[:, :, 0], second

    part = Whitening(
        whitening.center[observed], factors, whitening.means[:, observed], constants
    )
    return part, expand


def conditional_means(whitening: Whitening, group: Group) -> Array:
    """Return E[x | x_o, k], (K, n, D), for a group with missing features."""
    center, means, observed = whitening.center, whitening.means, group.observed
    K, n, D = len(means), len(group.values), len(center)
    out = np.broadcast_to((center + means)[:, None], (K, n, D)).copy()
    assert observed is not None
    if whitening.factors.ndim == 3:
        factors, covariance = _dense_marginal(whitening, observed)
        slopes = covariance[:, :, observed] @ factors.transpose(0, 2, 1) @ factors
        gaps = (group.values - center[observed])[None] - means[:, None, observed]
        out += gaps @ slopes.transpose(0, 2, 1)
    out[:, :, observed] = group.values
    return out


def _dense_marginal(whitening: Whitening, observed: Indices) -> tuple[Array, Array]:
    """Return the inverse Cholesky factors of the observed features, and all covariances."""
    covariance = whitening.covariances
    part = covariance[:, observed[:, None], observed]
    return inverse_cholesky(np.linalg.cholesky(part)), covariance


def _diagonal_marginal(
    whitening: Whitening, observed: Indices
) -> tuple[Whitening, Callable[..., tuple[Any, ...]]]:
    D = len(whitening.center)
    missing = np.setdiff1d(np.arange(D), observed)
    constants = whitening.constants + len(missing) / 2 * math.log(2 * math.pi)
    constants = constants - np.log(whitening.factors[:, missing]).sum(1)

    def expand(log_lik: float, counts: Array, first: Array, second: Array) -> tuple[Any, ...]:
        firsts, seconds = np.zeros((len(counts), D)), np.zeros((len(counts), D))
        firsts[:, observed], seconds[:, observed] = first, second
        seconds[:, missing] = counts[:, None]
        return log_lik, counts, firsts, seconds

    part = Whitening(
        whitening.center[observed],
        whitening.factors[:, observed],
        whitening.means[:, observed],
        constants,
    )
    return part, expand


def _log_det(factors: Array) -> Array:
    return np.log(np.einsum("kii->ki", factors)).sum(1)
