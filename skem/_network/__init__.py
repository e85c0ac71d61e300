"""What the estimators of torch networks share."""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        "VAEEstimator and GANEstimator need torch: pip install 'skem[torch]'."
    ) from error
