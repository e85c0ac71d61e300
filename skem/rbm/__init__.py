"""Restricted Boltzmann machines."""

from skem.rbm._estimator import BernoulliRBMCD

__all__ = ["BernoulliRBMCD"]
