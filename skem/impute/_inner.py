"""What an imputer asks of the model inside it: one of skem, a pipeline, or a search."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from skem._typing import Array
from skem._warn import warn


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


def suit_rows(model: Any, n_rows: int) -> None:
    """Lower the number of components of a mixture that has more of them than there are rows."""
    from skem.mixture import BayesianGMM_MAP

    core = core_of(model)[1]
    if not isinstance(core, BayesianGMM_MAP) or hasattr(core, "weights_"):
        return
    if n_rows < core.n_components:
        n_components = max(1, n_rows // 2)
        warn(
            f"n_components={core.n_components} is more than the {n_rows} rows to learn from: "
            f"{n_components} are used.",
            UserWarning,
        )
        core.set_params(n_components=n_components)


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
    """Return whether a model draws missing values given the observed ones."""
    return hasattr(core_of(model)[1], "sample_conditional")


def draw(model: Any, rows: Array, seed: Any) -> Array:
    """Return the rows with missing values drawn given the observed ones."""
    steps, core = core_of(model)
    for step in steps:
        rows = step.transform(rows)
    filled = core.sample_conditional(rows, random_state=seed)[0]
    for step in reversed(steps):
        filled = step.inverse_transform(filled)
    found: Array = np.asarray(filled)
    return found
