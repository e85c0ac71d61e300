"""Places where a fit must work: no cache for compiled loops, a full disk, a broken numba."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # each process compiles anew

# A fit that is large enough for compiled loops, as short as it can be.
FIT = """
import warnings
import numpy as np
from skem import BayesianGMM_MAP
from skem.mixture import _model
_model.MIN_FAST_TIME = 0
X = np.random.default_rng(0).normal(size=(300, 2))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = BayesianGMM_MAP(2, random_state=0, max_iter=3, tol=10).fit(X)
for w in caught:
    print(w.category.__name__, w.message)
print("bound", round(model.lower_bound_, 9))
"""


def fit_in_a_process(**environment):
    found = subprocess.run(
        [sys.executable, "-c", FIT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    lines = found.stdout.splitlines()
    return lines[:-1], lines[-1]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    pytest.importorskip("numba")
    folder = tmp_path_factory.mktemp("cache")
    warned, bound = fit_in_a_process(NUMBA_CACHE_DIR=str(folder))
    assert warned == []
    assert list(folder.rglob("*.nbc"))  # the loop was compiled
    return bound


def test_no_place_for_a_cache(tmp_path, expected):
    """As in a container whose code and home cannot be written."""
    (tmp_path / "file").touch()
    warned, bound = fit_in_a_process(
        NUMBA_CACHE_LOCATOR_CLASSES="_UserProvidedCacheLocator",
        NUMBA_CACHE_DIR=str(tmp_path / "file" / "cache"),
    )
    assert len(warned) == 1
    assert "RuntimeWarning compiled loops cannot be cached" in warned[0]
    assert "NUMBA_CACHE_DIR" in warned[0]
    assert bound == expected


def test_full_disk(tmp_path, expected):
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)], capture_output=True
    )
    if made.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        warned, bound = fit_in_a_process(NUMBA_CACHE_DIR=str(tmp_path))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert len(warned) == 1
    assert "RuntimeWarning compiled loops cannot be cached on disk (OSError)" in warned[0]
    assert bound == expected


def test_broken_numba(tmp_path, expected):
    (tmp_path / "numba.py").write_text("raise ImportError('numba needs another NumPy')")
    warned, bound = fit_in_a_process(PYTHONPATH=str(tmp_path))
    assert len(warned) == 1
    assert "RuntimeWarning numba is installed but does not work (ImportError" in warned[0]
    assert bound.split(".")[0] == expected.split(".")[0]
    assert float(bound.split()[1]) == pytest.approx(float(expected.split()[1]), abs=1e-8)
