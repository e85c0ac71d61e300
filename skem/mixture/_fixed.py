"""Parameters that EM leaves as they were given."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from skem._typing import Mask
from skem.mixture._covariances import Layout
from skem.mixture._given import Given
from skem.mixture._params import Fixed

# The starting values that give each kind of parameter.
INITIAL = {
    "weights": "weights_init",
    "means": "means_init",
    "covariances": "precisions_init",
}


def fixed_of(fixed: Any, layout: Layout, given: Given) -> Fixed | None:
    """Check and return which parameters are fixed; None if none are."""
    if fixed is None:
        return None
    masks = dict(fixed) if isinstance(fixed, Mapping) else dict.fromkeys(fixed, True)
    unknown = [name for name in masks if name not in INITIAL]
    if unknown:
        raise ValueError(
            f"fixed must name some of {', '.join(INITIAL)}, but it has {unknown[0]!r}."
        )
    K = layout.n_components
    found = {name: _mask(name, masks.get(name, False), K) for name in INITIAL}
    for name, mask in found.items():
        if mask.any() and getattr(given, name) is None:
            raise ValueError(
                f"fixed has {name!r}, but {INITIAL[name]} is None: give the values to keep."
            )
    weights, covariances = found["weights"], found["covariances"]
    if layout.n_groups == 1:
        if covariances.any() and not covariances.all():
            raise ValueError(
                "fixed has the covariances of some components, but covariance_type='tied' has "
                "one matrix for all: fix all of them, or none."
            )
        found["covariances"] = covariances[:1]
    if weights.any() and not weights.all():
        assert given.weights is not None
        if given.weights[~weights].sum() <= 0:
            raise ValueError(
                "the fixed weights sum to 1, which leaves nothing for the other components: "
                "lower them in weights_init, or fix all weights."
            )
    return Fixed(**found) if any(mask.any() for mask in found.values()) else None


def _mask(name: str, mask: Any, n_components: int) -> Mask:
    array = np.asarray(mask)
    if array.dtype != bool or array.shape not in ((), (n_components,)):
        raise ValueError(
            f"fixed[{name!r}] must be True or hold {n_components} booleans, one for each "
            f"component, but it is {mask!r}."
        )
    return np.broadcast_to(array, (n_components,)).copy()


def n_free(layout: Layout, fixed: Fixed | None, active: Mask) -> int:
    """Return the number of free parameters; ``active`` (K,) are the components not off."""
    groups = active if layout.n_groups > 1 else np.ones(1, bool)
    weights, means = active, active
    if fixed:
        groups, means = groups & ~fixed.covariances, active & ~fixed.means
        weights = active & ~fixed.weights
    n_covariances = layout.n_parameters // layout.n_groups * int(groups.sum())
    return n_covariances + layout.n_features * int(means.sum()) + max(int(weights.sum()) - 1, 0)
