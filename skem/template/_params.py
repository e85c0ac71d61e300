"""Parameters, statistics and prepared images of the shifted-template model."""

from dataclasses import dataclass
from typing import NamedTuple

from skem._stats import Additive
from skem._typing import AnyArray, Array, Mask


@dataclass(frozen=True)
class Params:
    """Parameters of the model; template and background are centered."""

    template: Array  # (c, R, *w), one for each class
    background: Array  # (R, *S)
    noise_var: float
    shift_prior: Array  # (c*N,), or (c*N + 1,) if the template may be absent
    amplitude_var: Array | None = None  # (c,), if the amplitudes are free
    spectrum: Array | None = None  # (Q,), of the noise, beside noise_var; None if it is white


@dataclass(frozen=True)
class Stats(Additive):
    """Expected sums over images; ``_den`` is the expected number of images per pixel."""

    weight: float  # sum of the sample weights
    log_lik: float  # the bound, in nats
    n_pixels: float  # number of observed pixels
    sum_sq: float  # sum of squares of the observed pixels, centered
    shift_counts: Array
    template_num: Array  # (c, R, *w)
    template_den: Array  # (c, 1, 1...), or (c, R, *w) where pixels are missing
    background_num: Array  # (R, *S)
    background_den: Array  # (1, *S), or (R, *S) where pixels are missing
    amplitude_sum: Array | None = None  # (c,): sums of the mean amplitudes, if they are free
    amplitude_sq: Array | None = None  # (c,): sums of the mean squared amplitudes
    pasted: Array | None = None  # (c, *N): sums of posteriors times amplitudes, if additive
    power: Array | None = None  # (Q,): sum of |x^|^2, in stationary noise


@dataclass(frozen=True)
class Rows:
    """A chunk of k images, and its quantities that do not change from pass to pass."""

    pixels: Array  # (k, n_features), a view of the caller's memory
    spectrum: AnyArray  # (Q, k, R) complex: spectrum of the centered lines
    observed_spectrum: AnyArray | None  # spectrum of the 0/1 mask; None if nothing is missing
    sum_sq: Array  # (k,)
    n_pixels: Array  # (k,)
    power: Array | None = None  # (Q, k): |x^|^2 summed over lines, in stationary noise


class View(NamedTuple):
    """The lines (k, R, *S) of a chunk for one pass; ``lines - offset`` is centered."""

    lines: Array
    offset: Array  # (R,)
    observed: Mask | None  # None if nothing is missing; missing pixels of ``lines`` are 0


@dataclass(frozen=True)
class Smoothness:
    """Variances of independent Gaussian priors on the DCT coefficients of the images."""

    template: Array  # (c, h, w, C)
    background: Array | None  # (H, W, C); None for an additive template
