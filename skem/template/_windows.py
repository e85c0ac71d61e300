"""A window that moves over an image: correlations, window sums, and their layout.

An image (H, W, C) is stored as ``lines``, an array (R, *S). The window moves along the axes S.
If the window is as high as the image, S = (W,) and there are R = H*C lines. Otherwise
S = (H, W) and R = C. The window has shape w along these axes, there are N = S-w+1 shifts, and
a real FFT over S has Q frequencies. k counts images, and c counts templates.

Every quantity that depends on the shift is a correlation or a sum over the window. The sum
of a correlation over lines or over images is a matrix product in the Fourier domain. A sum
over the window is a running sum. No padding is needed, because the window never leaves the
image.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.fft import irfftn, rfftn
from scipy.ndimage import uniform_filter1d

from skem._typing import AnyArray, Array


@dataclass(frozen=True)
class Windows:
    """All positions of a window (h, w) in an image (H, W) or (H, W, C)."""

    image_shape: tuple[int, ...]
    window_shape: tuple[int, int]
    cyclic: bool = False  # whether a window that leaves the image enters it on the other side

    @cached_property
    def full_shape(self) -> tuple[int, int, int]:
        """The shape (H, W, C), with C = 1 for an image without channels."""
        height, width, *channels = self.image_shape
        return (height, width, channels[0] if channels else 1)

    @cached_property
    def space(self) -> tuple[int, ...]:
        """S: the size of the image along the axes of movement."""
        height, width = self.image_shape[:2]
        return (width,) if self.window_shape[0] == height else (height, width)

    @cached_property
    def window(self) -> tuple[int, ...]:
        """w: the size of the window along the axes of movement."""
        return self.window_shape[-len(self.space) :]

    @cached_property
    def shifts(self) -> tuple[int, ...]:
        """N: the number of shifts along the axes of movement."""
        if self.cyclic:
            return self.space
        return tuple(s - w + 1 for s, w in zip(self.space, self.window, strict=True))

    @cached_property
    def shift_shape(self) -> tuple[int, int]:
        """The numbers of row and column shifts."""
        return (1, *self.shifts)[-2], self.shifts[-1]

    @cached_property
    def n_shifts(self) -> int:
        return math.prod(self.shifts)

    @cached_property
    def multiplicity(self) -> Array:
        """The number of frequencies of a complex FFT that each of the Q stands for."""
        *rest, last = self.space
        counts = np.full(last // 2 + 1, 2.0)
        counts[0] = 1
        if last % 2 == 0:
            counts[-1] = 1
        return np.tile(counts, math.prod(rest))

    @property
    def n_axes(self) -> int:
        """The number of axes along which the window moves."""
        return len(self.space)

    @cached_property
    def axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.space), 0))

    def to_lines(self, images: AnyArray) -> AnyArray:
        """Convert images (..., H, W, C) to lines (..., R, *S); a view if C = 1."""
        *lead, height, width, channels = images.shape
        if len(self.space) == 2:
            return np.moveaxis(images, -1, -3)
        return np.moveaxis(images, -1, -2).reshape(*lead, height * channels, width)

    def to_images(self, lines: AnyArray) -> AnyArray:
        """Convert lines (..., R, *S) or (..., R, *w) to images (..., height, width, C)."""
        if len(self.space) == 2:
            return np.moveaxis(lines, -3, -1)
        *lead, _, width = lines.shape
        height, _, channels = self.full_shape
        return np.moveaxis(lines.reshape(*lead, height, channels, width), -2, -1)

    def broadcast(self, values: AnyArray) -> AnyArray:
        """Append the axes of movement to an array, for broadcasting."""
        return values.reshape(*values.shape, *[1] * len(self.space))

    def spectrum(self, lines: Array) -> AnyArray:
        """Return the FFT (Q, k, R) of lines (k, R, *S)."""
        spectrum = rfftn(lines, axes=self.axes)
        return spectrum.reshape(*lines.shape[:2], -1).transpose(2, 0, 1)

    def empty_spectrum(self, n_images: int, n_lines: int, dtype: DTypeLike) -> AnyArray:
        """Allocate a spectrum whose layout makes sums over R or k matrix products."""
        *rest, last = self.space
        n_frequencies = math.prod(rest) * (last // 2 + 1)
        return np.empty((n_frequencies, n_images, n_lines), np.result_type(dtype, 1j))

    def correlate(self, spectrum: AnyArray, kernels: Array) -> Array:
        """Return the sum over r and m of x[k, r, d + m] kernels[c, r, m], (k, c, *N)."""
        transformed = self.transform(kernels.astype(spectrum.real.dtype)).conj()
        product = np.matmul(spectrum, np.ascontiguousarray(transformed.transpose(2, 1, 0)))
        return self.inverse(product.transpose(1, 2, 0), self.shifts)

    def gather(self, spectrum: AnyArray, posterior: Array) -> Array:
        """Return the sum over k and d of posterior[k, c, d] x[k, r, d + m], (c, R, *w)."""
        weights = self.transform(posterior.astype(spectrum.real.dtype)).conj()
        weights = np.ascontiguousarray(weights.transpose(2, 0, 1))
        product = np.matmul(spectrum.transpose(0, 2, 1), weights)
        return self.inverse(product.transpose(2, 1, 0), self.window).astype(float)

    def gather_each(self, spectrum: AnyArray, posterior: Array) -> Array:
        """Return the sum over shifts of posterior[k, d] x[k, r, d + m], (k, R, *w)."""
        weights = self.transform(posterior).conj()
        product = spectrum.transpose(1, 2, 0) * weights[:, None, :]
        return self.inverse(product, self.window)

    def paste(self, code: Array, kernels: Array) -> Array:
        """Return the sum over c and d of code[k, c, d] times kernel c at d, (k, R, *S)."""
        codes, transformed = self.transform(code), self.transform(kernels)
        product = codes[:, 0, None] * transformed[0]
        for c in range(1, len(transformed)):
            product += codes[:, c, None] * transformed[c]
        return self.inverse(product, self.space)

    def sums(self, values: Array) -> Array:
        """Return the sums of (..., *S) over the window at each shift, (..., *N), in float64."""
        for axis, width in zip(self.axes, self.window, strict=True):
            sums = _running_sums(values, width, axis, -(width // 2), self._edge)
            kept = values.shape[axis] - (0 if self.cyclic else width - 1)
            values = sums[_first(sums, axis, kept)]
        return values

    def coverage(self, posterior: Array) -> Array:
        """Return the probability (k, *S) that the window covers each pixel."""
        for axis, size, width in zip(self.axes, self.space, self.window, strict=True):
            shape = list(posterior.shape)
            shape[axis] = size
            values = np.zeros(shape)
            values[_first(values, axis, posterior.shape[axis])] = posterior
            posterior = _running_sums(values, width, axis, (width - 1) // 2, self._edge)
        return posterior

    @property
    def _edge(self) -> str:
        """Mode in which filters of SciPy go on beyond the edge."""
        return "wrap" if self.cyclic else "constant"

    def transform(self, values: Array) -> AnyArray:
        """Return the FFT (..., Q) of values (..., *shape), which zeros extend to S."""
        lead = values.shape[: values.ndim - len(self.space)]
        return rfftn(values, s=self.space, axes=self.axes).reshape(*lead, -1)

    def inverse(self, spectrum: AnyArray, shape: tuple[int, ...]) -> Array:
        """Transform (..., Q) back to (..., *shape), the first corner of S."""
        *rest, last = self.space
        spectrum = spectrum.reshape(*spectrum.shape[:-1], *rest, last // 2 + 1)
        values = irfftn(spectrum, s=self.space, axes=self.axes)
        return values[(..., *map(slice, shape))]


def check_image_shape(image_shape: Any) -> tuple[int, ...]:
    """Check and return the shape of images."""
    shape = tuple(image_shape)
    sizes_fit = all(isinstance(size, Integral) and int(size) > 0 for size in shape)
    if len(shape) not in (2, 3) or not sizes_fit:
        raise ValueError(
            "image_shape must be (height, width) or (height, width, channels) with positive "
            f"integers, but it is {image_shape!r}."
        )
    return tuple(int(size) for size in shape)


def new_windows(
    image_shape: tuple[int, ...],
    n_features: int,
    template_height: int | None,
    template_width: int | None,
    cyclic: bool = False,
) -> Windows:
    """Return the windows of a template.

    By default, the template is as high as the image and half as wide.
    """
    if math.prod(image_shape) != n_features:
        raise ValueError(
            f"image_shape={image_shape} has {math.prod(image_shape)} pixels, but X has "
            f"{n_features} features: pass a shape with {n_features} pixels."
        )
    height, width = image_shape[:2]
    window = (
        height if template_height is None else int(template_height),
        max(1, width // 2) if template_width is None else int(template_width),
    )
    for name, size, limit in (
        ("template_height", window[0], height),
        ("template_width", window[1], width),
    ):
        if size > limit:
            raise ValueError(
                f"{name}={size} is larger than the image of (height, width) = "
                f"{(height, width)}: pass at most {limit}."
            )
    return Windows(image_shape, window, cyclic)


def _running_sums(values: Array, width: int, axis: int, origin: int, edge: str) -> Array:
    """Return sums over ``width`` entries; ``origin`` sets where each sum begins."""
    values = values.astype(float, copy=False)
    means = uniform_filter1d(values, width, axis, mode=edge, origin=origin)
    means *= width
    return means


def _first(values: Array, axis: int, size: int) -> tuple[slice, ...]:
    """Return the index of the first ``size`` entries along an axis."""
    index = [slice(None)] * values.ndim
    index[axis] = slice(size)
    return tuple(index)
