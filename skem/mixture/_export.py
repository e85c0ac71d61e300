"""The mixture as scikit-learn's fitted ``GaussianMixture``."""

from typing import Any

import numpy as np
from sklearn.mixture import GaussianMixture

from skem._base.export import as_fitted
from skem.mixture._params import Params, public_values


def gaussian_mixture(estimator: Any, params: Params, reg_covar: float) -> GaussianMixture:
    """Return a fitted ``GaussianMixture`` with these parameters, in float64."""
    if estimator.connectivity is not None:
        raise ValueError(
            "to_sklearn cannot keep connectivity, since GaussianMixture predicts each row "
            "alone: set connectivity=None to export the mixture without the graph."
        )
    if getattr(estimator, "_background", None) is not None:
        raise ValueError(
            "to_sklearn cannot keep the background, which GaussianMixture lacks: fit with "
            "background=None to export the mixture."
        )
    layout = params.layout
    parameters = {
        "n_components": layout.n_components,
        "covariance_type": layout.covariance_type,
        "reg_covar": reg_covar,
    }
    values = public_values(params, single=False)
    fitted: dict[str, Any] = {name: np.array(value) for name, value in values.items()}
    fitted["n_features_in_"] = layout.n_features
    history = ("converged_", "n_iter_", "lower_bound_", "lower_bounds_")
    return as_fitted(GaussianMixture, estimator, parameters, fitted, history)
