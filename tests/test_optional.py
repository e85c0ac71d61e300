"""Packages that may be missing: what works without them, and what an error says."""

import subprocess
import sys

import pytest

# As if the packages were not installed: no finder finds them.
WITHOUT = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in {packages!r}
        return None if hidden else self.finder.find_spec(name, path, target)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
"""


def run_without(packages, code):
    code = WITHOUT.format(packages=packages) + code
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("package", "install", "code"),
    [
        ("torch", "torch", "import skem; skem.VAEEstimator"),
        ("torch", "torch", "from skem import GANEstimator"),
        ("matplotlib", "matplotlib", "from skem import TemplateDisplay"),
        ("matplotlib", "matplotlib", "from skem import morph"),
        ("matplotlib", "matplotlib", "from skem.datasets import *; load_hidden_face(10)"),
        ("PIL", "pillow", "from skem.datasets import *; load_hidden_face(10)"),
    ],
)
def test_a_missing_package_is_named(package, install, code):
    out = run_without([package], code)
    last = out.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: "), out.stderr
    assert f"not installed: run pip install {install}." in last


def test_what_needs_no_other_package():
    """Fits in memory; without numba, loops that would be compiled run in NumPy."""
    code = """
import numpy as np
import skem
from skem.mixture import _covariances
_covariances.MIN_FAST_TIME = 0
X = np.random.default_rng(0).normal(size=(60, 4))
skem.BayesianGMM_MAP(2, random_state=0, tol=1).fit(X).predict(X)
skem.BernoulliRBMCD(2, n_iter=2).fit(X > 0).transform(X > 0)
skem.ShiftedTemplateEM(2, tol=1).fit(X).predict(X)
X[0, 0] = np.nan
assert np.isfinite(skem.LatentImputer(skem.BayesianGMM_MAP(2, tol=1)).fit_transform(X)).all()
skem.History(), skem.EarlyStopping()
"""
    missing = ["torch", "numba", "dask", "distributed", "matplotlib", "PIL", "rich"]
    out = run_without([*missing, "zarr", "h5py", "pandas", "polars"], code)
    assert out.returncode == 0, out.stderr
