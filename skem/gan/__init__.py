"""Generative adversarial networks."""

from skem.gan._estimator import GANEstimator

__all__ = ["GANEstimator"]
