"""An amplitude of the template in each image, integrated out.

The window shows g F instead of F, with g ~ N(1, v). Given a class and a shift, let u be the
matched filter, the product of what the window shows with F, and f = |F|^2 its energy, both
divided by the variance of the noise. The likelihood as a function of g is that of a Gaussian
of precision f and mean u / f, and hence

    log p(x, d) = [log p(x, d) at g = 1] + v (u - f)^2 / 2(1 + v f) - log(1 + v f) / 2,
    E[g | x, d] = 1 + v (u - f) / (1 + v f),    Var[g | x, d] = v / (1 + v f).
"""

from typing import NamedTuple

import numpy as np

from skem._typing import Array

# Variance of the amplitudes at the start of EM, which could not leave 0.
START = 0.25
# The smallest size of a mean amplitude, beside the root of the mean square, by which templates
# are rescaled. Amplitudes of both signs may have a mean of 0.
MIN_MEAN = 0.1


class Moments(NamedTuple):
    """Posterior moments of the amplitude, given the class and the shift, (k, c, *N)."""

    mean: Array
    square: Array


def free(match: Array, energy: Array, variance: Array) -> tuple[Array, Moments]:
    """Return what a free amplitude adds to log p(x, d), and the moments of the amplitude."""
    spread = 1 + variance * energy
    excess = match - energy
    added = variance * excess**2 / (2 * spread) - np.log(spread) / 2
    mean = 1 + variance * excess / spread
    return added, Moments(mean, mean**2 + variance / spread)


def mode(
    variance: Array, counts: Array, sums: Array, squares: Array, rescale: bool
) -> tuple[Array, Array]:
    """Return the variances (c,) that the moments determine, and factors (c,) of templates.

    ``counts``, ``sums`` and ``squares`` are the expected sums of 1, g and g^2 over the images
    of each class. With ``rescale``, the mean m of the amplitudes is a parameter too, and g F
    is written as (g / m) (m F). EM then finds the scale of the template much sooner
    (parameter expansion of Liu, Rubin and Wu, 1998).
    """
    seen = counts > 0
    count = np.where(seen, counts, 1.0)
    mean, square = sums / count, squares / count
    rescaled = seen & (mean**2 > MIN_MEAN**2 * square) & rescale
    factor = np.where(rescaled, mean, 1.0)
    new = square / factor**2 - 2 * mean / factor + 1
    return np.where(seen, np.maximum(new, 0.0), variance), factor
