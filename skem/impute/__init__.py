"""LatentImputer: fill missing values with a latent-variable model."""

from skem.impute._estimator import LatentImputer

__all__ = ["LatentImputer"]
