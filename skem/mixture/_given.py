"""Starting values that the user gave, and the start that they imply on all rows."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from skem._base.passes import Passes
from skem._typing import Array
from skem.mixture._candidates import MIN_SHARE, params_of_moments, steadied
from skem.mixture._covariances import Layout
from skem.mixture._missing import Groups
from skem.mixture._model import Mixture, Stats
from skem.mixture._params import Params, check_covariances


@dataclass(frozen=True)
class Given:
    """Starting values that the user gave; None for the others."""

    weights: Array | None = None
    means: Array | None = None
    covariances: Array | None = None  # (G, B, d, d)

    @property
    def is_empty(self) -> bool:
        return all(v is None for v in vars(self).values())

    @property
    def is_complete(self) -> bool:
        return all(v is not None for v in vars(self).values())

    @classmethod
    def all_of(cls, params: Params) -> "Given":
        """Return given values for all parameters, to continue a fit."""
        return cls(params.weights, params.means, params.covariances)

    def on(self, params: Params) -> Params:
        """Return the parameters with the given values in their place."""
        return replace(params, **{k: v for k, v in vars(self).items() if v is not None})

    def params(self, layout: Layout) -> Params:
        """Return the start as parameters; all values must be given."""
        values: Any = (self.weights, self.means, self.covariances)
        return Params(layout, *values)


def given_of(layout: Layout, weights: Any, means: Any, precisions: Any) -> Given:
    """Check and return the starting values of the user; None stays None."""
    K, D = layout.n_components, layout.n_features
    if weights is not None:
        weights = _checked("weights_init", weights, (K,))
        if (weights < 0).any() or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(
                "weights_init must be at least 0 and sum to 1, but its sum is "
                f"{weights.sum()} and its smallest value is {weights.min()}."
            )
    if means is not None:
        means = _checked("means_init", means, (K, D))
    if precisions is None:
        return Given(weights, means)
    blocks = layout.to_blocks(_checked("precisions_init", precisions, layout.public_shape))
    return Given(weights, means, np.linalg.inv(check_covariances("precisions_init", blocks)))


def _checked(name: str, values: Any, shape: tuple[int, ...]) -> Array:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers in the shape {shape}: {error}") from error
    if array.shape != shape:
        raise ValueError(
            f"{name} must hold numbers in the shape {shape}, but its shape is {array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers, but it has NaN or infinity.")
    return array


def start_at_means(model: Mixture, passes: Passes, means: Array) -> Params:
    """Return the start in which each row, of all rows, belongs to the nearest mean.

    Features are standardized for the distances, which leave out missing values.
    """
    K, D = means.shape
    dense = model.layout.dense
    layout = Layout("full" if dense else "diag", K, D)
    units = np.where(model.scale > 0, model.scale, 1.0)
    variances = np.tile(np.diag(units**2) if dense else units**2, (K, *[1] * (1 + dense)))
    nearest = Params(layout, np.full(K, 1 / K), means, layout.to_blocks(variances))
    plain = replace(model, layout=layout, fast=False)
    stats = passes.fold(partial(_of_nearest, plain, nearest), nearest)
    averages, scatter = plain.moments(nearest, stats)
    floor = (MIN_SHARE * model.scale) ** 2
    return params_of_moments(model, *steadied(stats.counts, averages, scatter, floor))


def _of_nearest(model: Mixture, params: Params, groups: Groups, weight: Array) -> Stats:
    nearest = model.log_joint(params, groups).argmax(1)
    shares = np.eye(len(params.weights))[nearest]
    return model.e_step(params, groups, weight, shares)
