"""Variational autoencoders."""

from skem.vae._estimator import VAEEstimator

__all__ = ["VAEEstimator"]
