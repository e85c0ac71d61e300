"""What displays ask of estimators and of images."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted


def check_has(display: str, estimator: Any, name: str, kinds: str) -> None:
    """Refuse estimators that are not fitted, or have no attribute of this name."""
    check_is_fitted(estimator)
    if not hasattr(estimator, name):
        raise TypeError(
            f"{display} needs {kinds}, but it was given {type(estimator).__name__}, which has "
            f"no {name}."
        )


def reshaped(name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array in this shape, or say which shape is needed."""
    array = np.asarray(values)
    if array.size != np.prod(shape):
        raise ValueError(f"{name} must have the shape {shape}, but its shape is {array.shape}.")
    return array.reshape(shape)
