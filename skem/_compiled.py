"""Whether loops can be compiled; without numba, or where it fails, NumPy takes its place."""

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec


@cache
def has_numba() -> bool:
    """Return whether numba works; warn once if it is installed and does not."""
    if find_spec("numba") is None:
        return False
    try:
        import_module("skem._vector_math")
    except Exception as error:  # a broken numba fails in many ways
        warnings.warn(
            f"numba is installed but does not work ({type(error).__name__}: {error}): loops "
            "run in NumPy, which is slower. Reinstall numba, or uninstall it.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
