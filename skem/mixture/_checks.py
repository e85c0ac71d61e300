"""Whether the rows suit the parameters of the mixture."""

from typing import Any

import numpy as np

from skem._base.estimator import warn
from skem._rows.parts import Rows


def check_size(estimator: Any, rows: Rows) -> None:
    """Refuse rows and parameters that do not go together, or warn of them."""
    K = estimator.n_components
    if estimator.connectivity is None and estimator.coupling != 1:
        warn(
            "coupling has no effect without connectivity, the graph of the rows.",
            UserWarning,
        )
    # few rows only adapt components that have a prior mean each
    adapts = (
        estimator.mean_prior is not None
        and np.ndim(estimator.mean_prior) == 2
        and bool(estimator.mean_precision_prior)
    )
    if rows.n_positive < K and not adapts:
        raise ValueError(
            f"n_components={K} needs at least {K} rows "
            f"with positive weight, but X has n_samples = {rows.n_positive}."
        )
    if rows.n_positive < 2 * K and K > 1 and not adapts:
        warn(
            f"n_components={K} is more than half of the {rows.n_positive} "
            "rows, so that components describe single rows: use fewer components.",
            UserWarning,
        )
    if estimator.connectivity is not None and rows.is_weighted:
        raise ValueError(
            "sample_weight cannot be combined with connectivity, because a row of a graph "
            "cannot be repeated: omit one of them."
        )
