"""Arrays of other libraries, such as tensors of torch: NumPy reads them where they are."""

from typing import Any

import numpy as np


def in_numpy(values: Any) -> Any:
    """Return an array of another library as one of NumPy that shares its memory.

    Other values are returned as they are.

    Raises
    ------
    ValueError
        If NumPy cannot read it, for example because it is on a GPU.
    """
    foreign = hasattr(values, "__dlpack__") and hasattr(values, "shape")
    if isinstance(values, np.ndarray) or not foreign:
        return values
    try:
        return np.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        kind = type(values)
        raise ValueError(
            f"NumPy cannot read the {kind.__module__}.{kind.__qualname__} that was given: "
            f"{error}. Give dense numbers in the memory of the CPU, X.detach().cpu() for a "
            "tensor X of torch."
        ) from error
