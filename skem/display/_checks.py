"""What displays ask of estimators and of images, and how they tell what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, get_tags
from sklearn.utils.validation import check_is_fitted


class Display:
    """The representation of a display: its name, and what it shows."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._about()})"

    def _about(self) -> str:
        raise NotImplementedError


def counted(n: int, thing: str) -> str:
    """Return a number of things in words."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


class Encoder:
    """The step of a fitted imputer before its model: columns of categories become numbers."""

    def __init__(self, imputer: Any) -> None:
        self._imputer = imputer

    def transform(self, X: Any) -> Any:
        return self._imputer.encode(X)

    fit_transform = transform

    @property
    def feature_names_in_(self) -> Any:
        return self._imputer.feature_names_in_

    def get_feature_names_out(self) -> Any:
        return self._imputer.code_names_

    def numbers(self) -> list[str]:
        """Return the names of the columns, without those of categories."""
        n_features = self._imputer.n_features_in_
        names = getattr(
            self._imputer, "feature_names_in_", [f"x{j}" for j in range(n_features)]
        )
        return [str(name) for name in names]

    def __sklearn_clone__(self) -> Encoder:
        return self


class Unwrapped(NamedTuple):
    """The model in a pipeline, a search or an imputer, and the steps before it."""

    model: Any
    before: list[Any]

    def transform(self, X: Any) -> Any:
        """Return X as the model gets it."""
        for step in self.before:
            X = step.transform(X)
        return X

    def names(self, X: Any) -> list[str] | None:
        """Return the names of the columns that the model gets, if they have any."""
        names = getattr(X, "columns", None)
        for step in self.before:
            if not hasattr(step, "get_feature_names_out"):
                names = None
            elif names is not None or hasattr(step, "feature_names_in_"):
                names = step.get_feature_names_out()
        names = getattr(self.model, "feature_names_in_", names)
        return None if names is None else [str(name) for name in names]

    def numbers(self, names: list[str]) -> list[str]:
        """Return the names without those of categories that an imputer has encoded."""
        for step in self.before:
            if isinstance(step, Encoder):
                own = [name for name in names if name in step.numbers()]
                names = own if len(own) > 1 else names
        return names

    def label(self, name: str, X: Any) -> str:
        """Return the label of a column; steps before the model may have changed its units."""
        changes = [step for step in self.before if not isinstance(step, Encoder)]
        is_changed = changes and name in map(str, getattr(X, "columns", []))
        return f"{name}\n(transformed)" if is_changed else name


def unwrapped(estimator: Any) -> Unwrapped:
    """Return the best estimator of a search, the last step of a pipeline, the model within."""
    before: list[Any] = []
    while True:
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "steps"):
            steps = [step for _, step in estimator.steps]
            before += [step for step in steps[:-1] if step not in (None, "passthrough")]
            estimator = steps[-1]
        elif hasattr(estimator, "encode") and hasattr(estimator, "estimator_"):
            before.append(Encoder(estimator))
            estimator = estimator.estimator_
        else:
            return Unwrapped(estimator, before)


def check_has(display: str, estimator: Any, name: str, kinds: str) -> None:
    """Refuse estimators that are not fitted, or have no attribute of this name."""
    check_is_fitted(estimator)
    if not hasattr(estimator, name):
        raise TypeError(
            f"{display} needs {kinds}, but it was given {type(estimator).__name__}, which has "
            f"no {name}."
        )


def name_of(y: Any) -> str | None:
    """Return the name of a series."""
    name = getattr(y, "name", None)
    return None if name is None else str(name)


def is_density(estimator: Any) -> bool:
    """Return whether the scores of an estimator are log-densities."""
    return bool(get_tags(estimator).estimator_type == "density_estimator")


def as_floats(X: Any) -> NDArray[np.floating]:
    """Return rows as an array of floats; NaN marks what is masked or missing."""
    if np.ma.isMaskedArray(X):
        return np.ma.filled(X.astype(float), np.nan)
    return np.asarray(check_array(X, dtype=float, ensure_all_finite=False, input_name="X"))


def reshaped(name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array in this shape, or say which shape is needed."""
    array = np.asarray(values)
    if array.size != np.prod(shape):
        raise ValueError(f"{name} must have the shape {shape}, but its shape is {array.shape}.")
    return array.reshape(shape)


def shape_of(estimator: Any, image_shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return the given shape of an image, or the shape of an estimator's last step."""
    model, before = unwrapped(estimator)
    shapes = [getattr(step, "image_shape", None) for step in (*before, model)]
    known = [shape for shape in (*shapes, image_shape) if shape is not None]
    return tuple(known[-1]) if known else None


# How None and the missing values of NumPy and pandas are written.
MISSING = ("None", "nan", "NaN", "NaT", "<NA>")


def class_masks(labels: NDArray[Any], most: int) -> dict[str, NDArray[np.bool_]]:
    """Return the rows of each label, of which there may be ``most``."""
    if labels.dtype == object:  # labels may be missing, and of mixed types
        labels = labels.astype(str)
        labels = np.where(np.isin(labels, MISSING), "missing", labels)
    classes = np.unique(labels)
    if len(classes) > most:
        raise ValueError(f"y may have {most} different labels, but it has {len(classes)}.")
    return {str(label): labels == label for label in classes}
