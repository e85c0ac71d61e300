"""Warnings at the line that called skem."""

import warnings
from inspect import currentframe

from sklearn.exceptions import ConvergenceWarning

# Frames between a method of ours and the caller's line.
_INNER = ("skem", "sklearn.callback", "sklearn.base", "sklearn.utils", "contextlib")


def is_scored_by_search() -> bool:
    """Return whether a search or a cross-validation of scikit-learn calls skem."""
    frame = currentframe()
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(("sklearn.model_selection", "sklearn.metrics")):
            return True
        if not name.startswith(("skem", "sklearn")):
            return False
        frame = frame.f_back
    return False


def warn(message: str, category: type[Warning] = ConvergenceWarning) -> None:
    """Warn at the line that called skem."""
    frame, level = currentframe(), 1
    while frame is not None and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
        name = frame.f_globals.get("__name__", "")
        if not any(name == inner or name.startswith(f"{inner}.") for inner in _INNER):
            break
    warnings.warn(message, category, stacklevel=level)
