"""Scaling of rows for networks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skem._base.estimator import warn
from skem._base.input import in_unit_interval
from skem._rows.moments import Moments
from skem._typing import Array

# When features count as binary, see is_binary.
BINARY, GRAY = 0.5, 0.05
# Standard deviation of the normal penalty of what lies outside of 0 and 1.
OUTSIDE = 0.1
# Largest factor by which scaled rows are multiplied. A larger factor would amplify rounding
# errors until they look like data.
MAX_GAIN = 100.0


@dataclass(frozen=True)
class Scaling:
    """Scaling of rows for the networks: (x - offset) / scale, with missing values filled."""

    standardized: bool
    offset: Array
    scale: Array
    fill: Array  # in the units of the networks
    observed: Array  # the share of rows in which each feature is observed

    def apply(self, rows: Array, dtype: Any, device: Any) -> tuple[Tensor, Tensor | None]:
        """Return a scaled copy of the rows, and a 0/1 mask of the observed values.

        The mask is None if nothing is missing.
        """
        missing = np.isnan(rows)
        if self.standardized:  # in float64: values far from 0 would lose digits in float32
            values = Scaling.scaled(self, rows)
            far = float(np.finfo(dtype).max) ** (1 / 3)  # its square, many times, is finite
            np.clip(values, -far, far, out=values)
            values = values.astype(dtype)
        else:
            values = np.array(rows, dtype)
        seen = None
        if missing.any():
            np.copyto(values, self.fill.astype(dtype), where=missing)
            seen = torch.from_numpy((~missing).astype(dtype)).to(device)
        x = torch.from_numpy(values)
        if not self.standardized:
            x.clamp_(0, 1)
        return x.to(device), seen

    def of_tensor(self, rows: Tensor, dtype: Any, device: Any) -> Tensor:
        """Return a scaled copy of complete rows, which leave their device for ``device``."""
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        if not self.standardized:
            return rows.to(device=device, dtype=kind, copy=True).clamp_(0, 1)
        wide = torch.float32 if rows.device.type == "mps" else torch.float64
        offset, scale = (
            torch.from_numpy(v).to(rows.device, wide) for v in (self.offset, self.scale)
        )
        far = float(np.finfo(dtype).max) ** (1 / 3)
        values = ((rows.to(wide) - offset) / scale).clamp_(-far, far)
        return values.to(device=device, dtype=kind)

    def invert(self, rows: Array) -> Array:
        """Convert scaled rows to the user's units."""
        if not self.standardized:
            return rows
        return (rows * self.scale + self.offset).astype(rows.dtype)

    def scaled(self, rows: Array) -> Array:
        """Return (rows - offset) / scale; missing values stay NaN."""
        with np.errstate(over="ignore"):  # infinity is the limit of rows far away
            found: Array = (rows - self.offset) / self.scale
        return found

    def outside(self, rows: Array) -> Array:
        """Return by how much values lie outside of 0 and 1, if they should not."""
        if self.standardized:
            return np.zeros_like(rows)
        return np.abs(rows - np.clip(rows, 0, 1))

    def penalties(self, rows: Array) -> Array:
        """Return what the score of each row loses for values outside of 0 and 1.

        A value at distance e loses (e / 0.1)^2 / 2 nats, and the values are clipped otherwise.
        """
        if self.standardized:
            return np.zeros(len(rows), rows.dtype)
        return penalties_of(self.outside(rows))

    def warn_outside(self, rows: Array, effect: str) -> None:
        """Warn of values that should be between 0 and 1; ``effect`` says what then."""
        gap = np.nan_to_num(self.outside(rows))
        if in_unit_interval(-gap.max(initial=0), 1, rows.dtype):
            return
        n = np.count_nonzero(gap.max(axis=1) > 0)
        warn(
            f"{n} of {len(rows)} rows have values outside of 0 and 1, by up to "
            f"{gap.max():.3g}, but the rows of fit have none: {effect}",
            UserWarning,
        )

    @property
    def log_volume(self) -> float:
        """Mean log-ratio of the density of scaled rows to the density in the user's units."""
        return float(self.observed @ np.log(self.scale))

    def gain(self, seen: Moments, spread: float) -> float:
        """Return the factor that gives rows the total variance ``spread``, at most 100."""
        variance = (seen.square / seen.weight / self.scale**2).sum()
        return min(MAX_GAIN, float(np.sqrt(spread / variance))) if variance > 0 else 1.0

    def log_volumes(self, rows: Array) -> Array:
        """Return the log-ratio of the densities for the observed values of each row."""
        return ~np.isnan(rows) @ np.log(self.scale)


def penalties_of(gap: Array) -> Array:
    """Return what rows lose for values at these distances (n, D) from 0 and 1; NaN is 0."""
    with np.errstate(over="ignore"):
        found: Array = 0.5 * (np.nan_to_num(gap) ** 2).sum(1) / OUTSIDE**2
    return found


def is_binary(seen: Moments) -> bool:
    """Return whether values between 0 and 1 are nearly all at 0 and at 1.

    The variance of a feature of mean m is m (1 - m) if all its values are 0 or 1, and less if
    they are not. Features whose variance is below ``BINARY`` of that have at most the
    share ``GRAY`` of the sum of m (1 - m).
    """
    largest = np.clip(seen.mean * (1 - seen.mean), 0, None)
    variance = np.divide(seen.square, seen.weight, out=0 * largest, where=seen.weight > 0)
    gray = variance < BINARY * largest
    return bool(largest[gray].sum() <= GRAY * largest.sum() and largest.sum() > 0)


def scaling_of(seen: Moments, weight: float, standardized: bool) -> Scaling:
    """Return the scaling of standardized features, or of features between 0 and 1."""
    seen.check_observed()
    mean, observed = seen.mean, seen.weight / weight
    if not standardized:
        return Scaling(False, 0 * mean, np.ones_like(mean), mean, observed)
    deviation = np.sqrt(seen.square / seen.weight)
    if not np.isfinite(deviation).all():
        raise ValueError(
            f"X has values from {seen.low:.3g} to {seen.high:.3g}, too large to be squared: "
            "rescale X."
        )
    constant = deviation <= 1e-13 * np.abs(mean)  # up to rounding
    return Scaling(True, mean, np.where(constant, 1, deviation), 0 * mean, observed)
