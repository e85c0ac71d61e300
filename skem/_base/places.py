"""Results where X is: arrays of other libraries, with ``array_api_dispatch`` of scikit-learn.

What scikit-learn knows of other libraries is used in this file only.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, TypeVar

import numpy as np
from sklearn import get_config
from sklearn.utils._array_api import (
    _convert_to_numpy,
    _max_precision_float_dtype,
    get_namespace,
)

from skem._base.compat import check_same_namespace
from skem._rows.arrays import Elsewhere, Place, in_numpy
from skem._rows.parts import Rows

Class = TypeVar("Class", bound=type)
# What was asked once: the namespace of a type of arrays, and the place of a device. Libraries
# take long to answer.
_NAMESPACES: dict[type, Any] = {}
_PLACES: dict[tuple[str, str], Place] = {}
# Whether a method runs on rows that are in NumPy or ``Elsewhere`` by now.
_is_inside: ContextVar[bool] = ContextVar("_is_inside", default=False)


def place_of(values: Any) -> Place | None:
    """Return where an array is; None for NumPy, for other values, and without dispatch."""
    is_array = hasattr(values, "__dlpack__") and hasattr(values, "shape")
    if not is_array or isinstance(values, np.ndarray) or not get_config()["array_api_dispatch"]:
        return None
    kind = type(values)
    if kind not in _NAMESPACES:
        _NAMESPACES[kind] = get_namespace(values)[0]
    xp, device = _NAMESPACES[kind], values.device
    name = xp.__name__, str(device)
    if name not in _PLACES:
        _PLACES[name] = _new_place(xp, device)
    return _PLACES[name]


def _new_place(xp: Any, device: Any) -> Place:
    return Place(
        xp,
        device,
        is_host="cpu" in str(device).lower(),
        has_float64=_max_precision_float_dtype(xp, device) != xp.float32,
        to_numpy=partial(_convert_to_numpy, xp=xp),
    )


def hosted(values: Any) -> Any:
    """Return an array of any library and device in NumPy, also in a dict; else the values."""
    if isinstance(values, dict):
        return {name: hosted(value) for name, value in values.items()}
    place = place_of(values)
    return in_numpy(values) if place is None or place.is_host else place.to_numpy(values)


def rows_of(X: Any) -> Any:
    """Return an array on another device as rows that stay there, other values as they are."""
    place = place_of(X)
    return X if place is None else _rows_of(X, place)


def _rows_of(X: Any, place: Place) -> Any:
    """Return X in NumPy if it is in the memory of the CPU, else rows that stay there."""
    if place.is_host:
        return in_numpy(X)
    if getattr(X, "requires_grad", False):
        raise ValueError(
            "X requires a gradient, which the fit would not keep: pass X.detach()."
        )
    return Elsewhere(X, place)


def put(found: Any, place: Place | None) -> Any:
    """Return arrays of NumPy, also in a tuple or a dict, in this place."""
    if place is None:
        return found
    if isinstance(found, dict):
        return {name: put(value, place) for name, value in found.items()}
    if type(found) is tuple:
        return tuple(put(value, place) for value in found)
    return place.put(found) if isinstance(found, np.ndarray) and found.ndim else found


def follows_rows(
    *fits: str, verbs: tuple[str, ...], attribute: str
) -> Callable[[Class], Class]:
    """Make methods of a class take rows of any place, and return arrays of that place.

    During ``fits``, ``_place`` of the estimator says where its attributes are put. The other
    methods ask, like those of scikit-learn, for rows in the place of ``attribute``.
    """

    def decorated(cls: Class) -> Class:
        for name in fits:
            setattr(cls, name, _placed_fit(getattr(cls, name)))
        for name in verbs:
            setattr(cls, name, _placed_verb(getattr(cls, name), attribute))
        return cls

    return decorated


def _placed_fit(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def of_any(self: Any, X: Any, *args: Any, **options: Any) -> Any:
        place = place_of(X)
        if place is None:
            return method(self, X, *args, **options)
        vars(self)["_place"] = place
        try:
            args, options = tuple(map(hosted, args)), hosted(options)
            return method(self, _rows_of(X, place), *args, **options)
        finally:
            del self._place

    return of_any


def _placed_verb(method: Callable[..., Any], attribute: str) -> Callable[..., Any]:
    @wraps(method)
    def of_any(self: Any, X: Any, *args: Any, **options: Any) -> Any:
        place, fitted = place_of(X), getattr(self, attribute, None)
        if _is_inside.get() or isinstance(X, Rows):
            return method(self, rows_of(X), *args, **options)
        if fitted is not None and not place == place_of(fitted) is None:
            check_same_namespace(X, self, attribute=attribute, method=method.__name__)
        token = _is_inside.set(True)
        try:
            if place is None:
                return method(self, X, *args, **options)
            args, options = tuple(map(hosted, args)), hosted(options)
            return put(method(self, _rows_of(X, place), *args, **options), place)
        finally:
            _is_inside.reset(token)

    return of_any
