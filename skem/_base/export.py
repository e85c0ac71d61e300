"""Fitted estimators of scikit-learn, made from those of skem."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any


def as_fitted(
    kind: type,
    estimator: Any,
    parameters: Mapping[str, Any],
    values: Mapping[str, Any],
    others: Sequence[str] = (),
) -> Any:
    """Return an estimator of class ``kind`` with the fitted values.

    It also has copies of the ``others`` of our fitted attributes, if there are any. Its
    parameters are those of ``estimator`` that have the same names, except for the given
    ``parameters``. It keeps its own defaults where ours say None or "auto".
    """
    ours = {**estimator.get_params(deep=False), **parameters}
    theirs = kind()
    for name in theirs.get_params():
        value = ours.get(name)
        if not (value is None or (isinstance(value, str) and value == "auto")):
            theirs.set_params(**{name: value})
    vars(theirs).update(values)
    for name in (*others, "feature_names_in_"):
        if getattr(estimator, name, None) is not None:
            setattr(theirs, name, copy(getattr(estimator, name)))
    return theirs
