"""Sufficient statistics are values: they add, and they scale."""

from dataclasses import fields
from typing import Self


class Additive:
    """Give a frozen dataclass of numbers and arrays ``+`` and scalar ``*``.

    The sum merges statistics of disjoint rows; the scaled sum forgets, as online EM
    does. A field that is None (a statistic that the model does not need) stays None.
    """

    def __add__(self, other: Self) -> Self:
        return self._map(lambda a, b: a + b, other)

    def __mul__(self, factor: float) -> Self:
        return self._map(lambda a: factor * a)

    __rmul__ = __mul__

    def _map(self, function, *others: Self) -> Self:
        values = (
            [getattr(part, field.name) for part in (self, *others)]
            for field in fields(self)  # type: ignore[arg-type]
        )
        return type(self)(*(None if v[0] is None else function(*v) for v in values))
