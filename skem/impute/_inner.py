"""What an imputer asks of the model inside it: one of skem, a pipeline, or a search."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from skem._typing import Array


def core_of(model: Any) -> tuple[list[Any], Any]:
    """Return the transformers of a pipeline, and the model after them.

    A fitted search is represented by its best estimator.
    """
    if isinstance(model, Pipeline):
        steps = [step for _, step in model.steps if step not in (None, "passthrough")]
        inner, core = core_of(steps[-1])
        return [*steps[:-1], *inner], core
    if isinstance(model, FrozenEstimator) or hasattr(model, "best_estimator_"):
        return core_of(getattr(model, "best_estimator_", None) or model.estimator)
    if hasattr(model, "estimator") and not hasattr(model, "impute"):  # a search to be fitted
        return core_of(model.estimator)
    return [], model


def check_model(model: Any) -> None:
    """Refuse a model that cannot fill missing values."""
    steps, core = core_of(model)
    if not hasattr(core, "impute"):
        raise TypeError(
            f"estimator must have a method impute, but {type(core).__name__} has "
            "none: use for example BayesianGMM_MAP, BernoulliRBMCD or VAEEstimator."
        )
    for step in steps:
        if not hasattr(step, "inverse_transform"):
            raise TypeError(
                "the steps before the model of a pipeline must have a method "
                f"inverse_transform, but {type(step).__name__} has none."
            )


def takes_codes(model: Any) -> bool:
    """Return whether a model that is not fitted yet takes columns of codes of categories.

    Steps before it would change the codes.
    """
    steps, core = core_of(model)
    frozen = isinstance(model, FrozenEstimator)
    return not (steps or frozen) and hasattr(core, "_describe_columns")


def takes_nan(model: Any) -> bool:
    """Return whether all parts of a model accept NaN."""
    steps, core = core_of(model)
    return all(get_tags(part).input_tags.allow_nan for part in [*steps, core])


def impute(model: Any, rows: Array) -> Array:
    """Return the rows with missing values replaced by their expectation."""
    steps, core = core_of(model)
    for step in steps:
        rows = step.transform(rows)
    filled = core.impute(rows)
    for step in reversed(steps):
        filled = step.inverse_transform(filled)
    found: Array = np.asarray(filled)
    return found


def can_draw(model: Any) -> bool:
    """Return whether a fitted model is a Gaussian mixture, whose conditionals are known."""
    names = "means_", "covariances_", "covariance_type", "predict_proba"
    return all(hasattr(core_of(model)[1], name) for name in names)


def draw(model: Any, rows: Array, rng: np.random.RandomState) -> Array:
    """Return the rows with missing values drawn given the observed ones."""
    steps, core = core_of(model)
    for step in steps:
        rows = step.transform(rows)
    filled = draw_from_mixture(core, np.asarray(rows, float), rng)
    for step in reversed(steps):
        filled = step.inverse_transform(filled)
    found: Array = np.asarray(filled)
    return found


def draw_from_mixture(mixture: Any, rows: Array, rng: np.random.RandomState) -> Array:
    """Draw a component of each row, then its missing values (n, D) from their conditional."""
    posterior = mixture.predict_proba(rows)
    edges = posterior.cumsum(1)
    component = (rng.random_sample(len(rows))[:, None] * edges[:, -1:] > edges).sum(1)
    means = np.asarray(mixture.means_, float)
    covariances = dense_covariances(
        mixture.covariance_type, np.asarray(mixture.covariances_, float), means.shape
    )
    noise, filled, missing = rng.standard_normal(rows.shape), rows.copy(), np.isnan(rows)
    # rows that share a component and a pattern share a factorization
    keys = np.column_stack([component, np.packbits(missing, axis=1)])
    _, inverse = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    for place in np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1):
        m, k = missing[place[0]], component[place[0]]
        if not m.any():
            continue
        mean, cov = means[k], covariances[k]
        slope = np.linalg.solve(cov[np.ix_(~m, ~m)], cov[np.ix_(~m, m)])  # (o, m)
        rest = cov[np.ix_(m, m)] - cov[np.ix_(m, ~m)] @ slope
        expected = mean[m] + (rows[np.ix_(place, ~m)] - mean[~m]) @ slope
        values, vectors = np.linalg.eigh(rest)  # rounding may make it singular
        root = vectors * np.sqrt(np.maximum(values, 0))
        filled[np.ix_(place, m)] = expected + noise[np.ix_(place, m)] @ root.T
    return filled


def dense_covariances(kind: str, covariances: Array, shape: tuple[int, ...]) -> Array:
    """Return covariances of any type as matrices (K, D, D)."""
    K, D = shape
    if kind in ("full", "tied"):
        return np.broadcast_to(covariances, (K, D, D))
    scales = np.broadcast_to(covariances.reshape(K, -1), (K, D))
    return np.eye(D) * scales[:, None, :]
