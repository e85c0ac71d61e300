"""Sufficient statistics are values: they add, and they scale."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Self

import numpy as np


class Additive:
    """``+`` and scalar ``*`` for a frozen dataclass of numbers and arrays.

    A sum merges the statistics of disjoint rows. A scaled sum forgets, as in online EM. A
    field that is None, which the model does not need, stays None.
    """

    def __add__(self, other: Self) -> Self:
        return self._map(lambda a, b: a + b, other)

    def __mul__(self, factor: float) -> Self:
        return self._map(lambda a: factor * a)

    __rmul__ = __mul__

    def is_finite(self) -> bool:
        """Whether all numbers are finite."""
        values = (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
        return all(bool(np.isfinite(value).all()) for value in values if value is not None)

    def _map(self, function: Callable[..., Any], *others: Self) -> Self:
        values = (
            [getattr(part, field.name) for part in (self, *others)]
            for field in fields(self)  # type: ignore[arg-type]
        )
        return type(self)(*(None if v[0] is None else function(*v) for v in values))
