"""Weighted moments of features, with missing values, in one pass."""

import math
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from skem._rows.arrays import Placed
from skem._rows.parts import Rows, Weights, chunks
from skem._typing import AnyArray, Array

# Elements of a block: its float64 copies then fit in the cache (5 MB).
BLOCK_SIZE = 640_000


@dataclass(frozen=True)
class Moments:
    """Weighted moments of every feature over its observed values."""

    weight: Array
    mean: Array
    square: Array  # sum of squares about the mean
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

    def check_observed(self) -> None:
        """Refuse features without any observed value."""
        check_observed(self.weight)


def check_observed(weight: Array) -> None:
    """Refuse features whose observed values have a total weight of 0."""
    unseen = np.flatnonzero(weight == 0)
    if len(unseen):
        raise ValueError(
            f"X has {len(unseen)} features without any observed value, the first at index "
            f"{unseen[0]}: drop or fill them."
        )


def moments(rows: Rows) -> Moments:
    """Return the moments of the rows, from one pass in float64.

    Nothing cancels, however far from 0 the data are.
    """
    return rows.fold_in_place(_moments_of)


@np.errstate(over="ignore", invalid="ignore")
def _moments_of(X: AnyArray | Placed, weight: Weights) -> Moments:
    if isinstance(X, Placed):
        parts = chunks(len(X), max(1, X.shape[1]))
        return reduce(add, (_placed_moments(X[part], weight[part]) for part in parts))
    size = max(1, BLOCK_SIZE // X.shape[1])

    def of_block(start: int) -> Moments:
        values = np.array(X[start : start + size], dtype=float)
        w = np.asarray(weight[start : start + size])[:, None]
        where: dict[str, Any] = {}
        if np.isnan(values.sum()) or not w.all():
            where["where"] = ~np.isnan(values) & (w > 0)
            w = w * where["where"]
            np.copyto(values, 0, where=~where["where"])
        total = np.broadcast_to(w.sum(0), values.shape[1:]).copy()

        def average(values: Array) -> Array:
            return np.divide((w * values).sum(0), total, out=0 * total, where=total > 0)

        low = values.min(initial=np.inf, **where)
        high = values.max(initial=-np.inf, **where)
        mean = average(values)
        values -= mean
        rest = average(values)  # what rounding left out of the mean
        square = (w * (values - rest) ** 2).sum(0)
        return Moments(total, mean + rest, square, low, high)

    return reduce(add, map(of_block, range(0, len(X), size)))


def _placed_moments(X: Placed, weight: Weights) -> Moments:
    """Return the moments of complete rows on a device."""
    place, xp = X.place, X.place.xp
    values = place.cast(X.values, np.float64 if place.has_float64 else np.float32)
    unit = float(np.max(weight)) or 1.0  # float32 holds neither tiny nor huge weights
    w = place.put(np.asarray(weight) / unit)
    total = max(float(np.sum(weight)) / unit, np.finfo(float).tiny)
    mean = xp.matmul(w, values) / total
    rest = xp.matmul(w, values - mean) / total  # what rounding left out of the mean
    square = xp.matmul(w, (values - mean - rest) ** 2)
    there = (w > 0)[:, None]
    low = xp.min(xp.where(there, values, xp.full_like(values, math.inf)))
    high = xp.max(xp.where(there, values, xp.full_like(values, -math.inf)))
    found = xp.stack([mean, rest, square, xp.broadcast_to(low, mean.shape), high + 0 * mean])
    mean, rest, square, low, high = place.to_numpy(found).astype(float)
    weights = np.full(len(mean), float(np.sum(weight)))
    return Moments(weights, mean + rest, unit * square, float(low[0]), float(high[0]))
