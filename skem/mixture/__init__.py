"""Gaussian mixtures fitted to the mode of their posterior."""

from skem.mixture._conditionals import Conditional
from skem.mixture._estimator import BayesianGMM_MAP

__all__ = ["BayesianGMM_MAP", "Conditional"]
