"""The densities that a background can have: uniform in a box, or a fitted estimator.

Each answers the same questions: how dense it is, what it expects of missing values, and draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr
from sklearn.exceptions import NotFittedError

from skem._rows.parts import Rows, Weights
from skem._typing import AnyArray, Array, Mask


@dataclass(frozen=True)
class Box:
    """Uniform between the lower and the upper limits of each feature, (2, D)."""

    limits: Array

    @property
    def shown(self) -> Any:
        """What the fitted mixture keeps of the density."""
        return self.limits

    def log_density(self, X: Array) -> Array:
        """Return log p(x) of the observed values; it is the same outside of the box."""
        found: Array = -(~np.isnan(X) @ np.log(self.limits[1] - self.limits[0]))
        return found

    def excludes(self, X: Array) -> Mask:
        """Return which rows have no density at all."""
        mask: Mask = ((self.limits[0] > X) | (self.limits[1] < X)).any(axis=1)
        return mask

    def check(self, rows: Rows) -> None:
        """Refuse rows outside of the box."""
        seen = rows.fold(_extremes_of)
        outside = np.flatnonzero((seen.low < self.limits[0]) | (seen.high > self.limits[1]))
        if len(outside):
            j = int(outside[0])
            low, high = self.limits[:, j]
            raise ValueError(
                f"background has the limits {low:g} and {high:g} for feature {j}, but X has "
                f"values from {seen.low[j]:g} to {seen.high[j]:g} there: widen the limits."
            )

    def mean(self) -> Array:
        found: Array = self.limits.mean(axis=0)
        return found

    def filled(self, X: Array) -> Array:
        """Return X with missing values replaced by their expectation."""
        return np.where(np.isnan(X), self.mean(), X)

    def variances(self, X: Array) -> Array:
        """Return the variances of the missing values given the observed ones, (n, D)."""
        return np.broadcast_to(np.ptp(self.limits, axis=0) ** 2 / 12, X.shape)

    def completed(self, X: Array, n_draws: int, rng: np.random.RandomState) -> Array:
        """Return the rows with missing values drawn, (n_draws, n, D)."""
        low, high = self.limits
        draws = low + (high - low) * ndtr(rng.standard_normal((n_draws, *X.shape)))
        return np.where(np.isnan(X), draws, X)

    def sample(self, n: int, rng: np.random.RandomState) -> Array:
        low, high = self.limits
        found: Array = low + (high - low) * rng.random_sample((n, len(low)))
        return found


@dataclass(frozen=True)
class FittedDensity:
    """A fitted estimator with ``score_samples``; its other verbs serve where it has them."""

    estimator: Any

    @property
    def shown(self) -> Any:
        return self.estimator

    def log_density(self, X: Array) -> Array:
        found = np.asarray(self.estimator.score_samples(X), dtype=float)
        if found.shape != (len(X),) or np.isnan(found).any() or (found == np.inf).any():
            raise ValueError(
                f"score_samples of background={self.estimator!r} must return a log-density for "
                "each row, but it returned other shapes or values that are NaN or infinite."
            )
        return found

    def excludes(self, X: Array) -> Mask:
        return np.zeros(len(X), bool)

    def check(self, rows: Rows) -> None:
        """Refuse an estimator that cannot score such rows."""
        try:
            self.log_density(np.asarray(rows.take(np.arange(1)), dtype=float))
        except NotFittedError as error:
            raise ValueError(
                f"background={self.estimator!r} is not fitted. Fit it first, and wrap it in "
                "sklearn.frozen.FrozenEstimator, because clone forgets what others have learnt."
            ) from error

    def mean(self) -> Array:
        verb = self._verb("impute", "has no mean")
        n_features: int = self.estimator.n_features_in_
        found: Array = verb(np.full((1, n_features), np.nan))[0]
        return found

    def filled(self, X: Array) -> Array:
        found: Array = self._verb("impute", "cannot fill missing values")(X)
        return found

    def variances(self, X: Array) -> Array:
        verb = self._verb("impute", "cannot fill missing values")
        found: Array = verb(X, return_std=True)[1] ** 2
        return found

    def completed(self, X: Array, n_draws: int, rng: np.random.RandomState) -> Array:
        verb = self._verb("sample_conditional", "cannot draw missing values")
        found: Array = verb(X, n_draws, random_state=rng)
        return found

    def sample(self, n: int, rng: np.random.RandomState) -> Array:
        verb = self._verb("sample", "cannot draw rows")
        try:
            drawn = verb(n, random_state=rng)
        except TypeError:  # GaussianMixture.sample takes no seed
            drawn = verb(n)
        rows: Array = np.asarray(drawn[0] if isinstance(drawn, tuple) else drawn)
        return rows

    def _verb(self, name: str, lack: str) -> Callable[..., Any]:
        found = getattr(self.estimator, name, None)
        if found is None:
            raise ValueError(
                f"background={self.estimator!r} {lack}, because it has no method {name}: use "
                "an estimator that has it, such as BayesianGMM_MAP."
            )
        verb: Callable[..., Any] = found
        return verb


Density = Box | FittedDensity


def density_of(background: Any, rows: Rows) -> Density:
    """Return the density that the user asks for."""
    found: Density
    if isinstance(background, str):
        return _bounding_box(rows)
    if hasattr(background, "score_samples"):
        found = FittedDensity(background)
    else:
        found = Box(_checked_limits(background, rows.shape[1]))
    found.check(rows)
    return found


def _bounding_box(rows: Rows) -> Box:
    seen = rows.fold(_extremes_of)
    limits = np.stack([seen.low, seen.high]).astype(float)
    constant = np.flatnonzero(~(limits[0] < limits[1]))
    if len(constant):
        raise ValueError(
            f"background='uniform' needs features that vary, but feature {constant[0]} is "
            "constant: drop it, or give the limits of each feature."
        )
    return Box(limits)


def _checked_limits(background: Any, n_features: int) -> Array:
    try:
        limits = np.asarray(background, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"background must be 'uniform', limits or a fitted density: {error}"
        ) from error
    shape = (2, n_features)
    if limits.shape != shape or not np.isfinite(limits).all() or (limits[0] >= limits[1]).any():
        raise ValueError(
            "background must be 'uniform', a fitted density with score_samples, or hold finite "
            f"lower limits and higher upper limits in the shape {shape}, but it is "
            f"{background!r}."
        )
    return limits


@dataclass(frozen=True)
class Extremes:
    """The smallest and the largest value of each feature."""

    low: Array
    high: Array

    def __add__(self, other: "Extremes") -> "Extremes":
        return Extremes(np.fmin(self.low, other.low), np.fmax(self.high, other.high))


def _extremes_of(X: AnyArray, weight: Weights) -> Extremes:
    return Extremes(np.fmin.reduce(X), np.fmax.reduce(X))
