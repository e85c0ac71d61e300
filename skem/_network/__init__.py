"""Shared code of the estimators that use torch networks."""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        "VAEEstimator and GANEstimator need torch, which is not installed: run "
        "pip install torch."
    ) from error
