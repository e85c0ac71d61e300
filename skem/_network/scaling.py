"""Rows as networks take them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skem._rows.moments import Moments

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Scaling:
    """How rows become what the networks see: (x - offset) / scale, with holes filled."""

    standardised: bool
    offset: Array
    scale: Array
    fill: Array  # in the units of the networks
    observed: Array  # the share of rows in which a feature was seen

    def apply(self, rows: Array, dtype: Any, device: Any) -> tuple[Tensor, Tensor | None]:
        """A copy of the rows, and where they were seen, if anything was not."""
        missing = np.isnan(rows)
        if self.standardised:  # in float64: what is far from 0 would lose its digits
            values = ((rows - self.offset) / self.scale).astype(dtype)
        else:
            values = np.array(rows, dtype)
        seen = None
        if missing.any():
            np.copyto(values, self.fill.astype(dtype), where=missing)
            seen = torch.from_numpy((~missing).astype(dtype)).to(device)
        x = torch.from_numpy(values)
        if not self.standardised:
            x.clamp_(0, 1)
        return x.to(device), seen

    def invert(self, rows: Array) -> Array:
        """Back to the units of the user."""
        if not self.standardised:
            return rows
        return (rows * self.scale + self.offset).astype(rows.dtype)

    @property
    def log_volume(self) -> float:
        """What makes the density of scaled rows that of rows in the user's units."""
        return float(self.observed @ np.log(self.scale))

    def gain(self, seen: Moments, spread: float) -> float:
        """What makes the total variance of scaled rows this; at most a hundred."""
        variance = (seen.square / seen.weight / self.scale**2).sum()
        return min(100.0, float(np.sqrt(spread / variance))) if variance > 0 else 1.0

    def log_volumes(self, rows: Array) -> Array:
        """The same for each row, of what is seen of it."""
        return ~np.isnan(rows) @ np.log(self.scale)


def scaling_of(seen: Moments, weight: float, standardised: bool) -> Scaling:
    """Standardisation of features, or, between 0 and 1, their values as they are."""
    if (seen.weight == 0).any():
        raise ValueError(
            f"X has {int((seen.weight == 0).sum())} features without any observed value, the "
            f"first at index {int(np.argmin(seen.weight))}: drop or fill them."
        )
    mean, observed = seen.mean, seen.weight / weight
    if not standardised:
        return Scaling(False, 0 * mean, np.ones_like(mean), mean, observed)
    deviation = np.sqrt(seen.square / seen.weight)
    if not np.isfinite(deviation).all():
        raise ValueError(
            f"X has values from {seen.low:.3g} to {seen.high:.3g}, too large to be squared: "
            "rescale it."
        )
    constant = deviation <= 1e-13 * np.abs(mean)  # but for rounding
    return Scaling(True, mean, np.where(constant, 1, deviation), 0 * mean, observed)
