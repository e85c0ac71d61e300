"""Weighted moments of features, with missing values, in one pass."""

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skem._rows.parts import fold

MOMENT_SIZE = 640_000  # elements of a block


@dataclass(frozen=True)
class Moments:
    """Weighted moments of every feature over its observed values."""

    weight: NDArray
    mean: NDArray
    square: NDArray  # sum of squares about the mean
    low: float
    high: float

    def __add__(self, other: "Moments") -> "Moments":
        weight = self.weight + other.weight
        share = np.divide(other.weight, weight, out=0 * weight, where=weight > 0)
        gap = other.mean - self.mean
        return Moments(
            weight,
            self.mean + share * gap,
            self.square + other.square + self.weight * share * gap**2,
            min(self.low, other.low),
            max(self.high, other.high),
        )


def moments(X: Any, weight: Any) -> Moments:
    """One pass, in float64, that does not cancel however far from 0 the data are."""
    found: Moments = fold(_moments_of, X, weight)
    return found


@np.errstate(over="ignore", invalid="ignore")
def _moments_of(X: NDArray, weight: NDArray) -> Moments:
    X = np.asarray(X)
    size = max(1, MOMENT_SIZE // X.shape[1])

    def of_block(start: int) -> Moments:
        values = np.array(X[start : start + size], dtype=float)
        observed = ~np.isnan(values) & (weight[start : start + size, None] > 0)
        w = weight[start : start + size, None] * observed
        np.copyto(values, 0, where=~observed)
        total = w.sum(0)

        def average(values: NDArray) -> NDArray:
            return np.divide((w * values).sum(0), total, out=0 * total, where=total > 0)

        low = values.min(initial=np.inf, where=observed)
        high = values.max(initial=-np.inf, where=observed)
        middle = average(values)
        values -= middle
        rest = average(values)  # what rounding left out of the mean
        square = (w * (values - rest) ** 2).sum(0)
        return Moments(total, middle + rest, square, low, high)

    return reduce(add, map(of_block, range(0, len(X), size)))
