import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Set before NumPy and torch are loaded: threads of several workers wait for each other.
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import matplotlib as mpl
import pytest
from hypothesis import HealthCheck, settings

# "long" is for a campaign by hand, with new examples each time:
# pytest tests/base/test_any_input.py --hypothesis-profile=long
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "short", max_examples=40, deadline=None, derandomize=True, suppress_health_check=SLOW
)
settings.register_profile(
    "long", parent=settings.get_profile("short"), max_examples=5000, derandomize=False
)
settings.load_profile("short")


@pytest.fixture(autouse=True)
def _close_figures():
    mpl.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Let ``-n`` keep the tests of a file in one process: its fixtures are made once."""
    if config.getoption("dist", "no") == "load":
        config.option.dist = "loadfile"
