"""Quasi-random draws of codes that are the same at every call."""

import math

import numpy as np
from scipy.stats import qmc

from skem._typing import Array


def sobol_points(n: int, n_components: int, seed: int) -> Array:
    """Return n quasi-random points in the unit cube, (n, n_components)."""
    sobol = qmc.Sobol(n_components, rng=np.random.default_rng(seed))
    points: Array = sobol.random_base2(math.ceil(math.log2(n)))[:n]
    return points
