"""Places where a fit must work, or say why it cannot: disks, processes, missing packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import skem

HERE = Path(skem.__file__).parents[1]
pytestmark = pytest.mark.slow  # each process compiles anew

# A fit that is large enough for compiled loops, as short as it can be.
FIT = """
import warnings
import numpy as np
from skem import BayesianGMM_MAP
from skem.mixture import _covariances
_covariances.MIN_FAST_TIME = 0
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


# -- torch ---------------------------------------------------------------------------------


def run_process(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


FORK = """
import os, signal, sys
import numpy as np
import torch
from skem import {name}
torch.set_num_threads({before})
X = np.random.default_rng(0).random((500, 100))
model = {name}(2, hidden_layer_sizes=(256,), max_iter=1, random_state=0)
model.fit(X)
if os.fork() == 0:
    signal.alarm(60)
    torch.set_num_threads({after})
    try:
        model.fit(X)
        print("fitted")
    except RuntimeError as error:
        print(error)
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.parametrize("name", ["VAEEstimator", "GANEstimator"])
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [(2, 2, "set_num_threads(1)"), (2, 1, "fitted"), (1, 2, "fitted")],
)
def test_fork_after_threads_of_torch(name, before, after, message):
    """The threads of OpenMP do not exist in the child, which would wait for them."""
    pytest.importorskip("torch")
    found = run_process(FORK.format(name=name, before=before, after=after))
    assert message in found.stdout, found.stderr


@pytest.mark.parametrize("name", ["VAEEstimator", "GANEstimator"])
def test_the_first_fit_loads_little_and_sets_no_variable(name):
    pytest.importorskip("torch")
    found = run_process(f"""
import os, sys
import numpy as np
import skem.vae, skem.gan
before, modules = dict(os.environ), set(sys.modules)
X = np.random.default_rng(0).random((60, 4))
skem.{name}(2, hidden_layer_sizes=(4,), max_iter=1).fit(X)
assert dict(os.environ) == before
print(len(set(sys.modules) - modules))
""")
    assert int(found.stdout) < 20, found.stderr


MODELS_OF_PACKAGES = [
    (
        "torch",
        "VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=1)",
        "pip install torch",
    ),
    ("torch", "BayesianGMM_MAP(2)", ""),
    ("numba", "VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=1)", ""),
    ("numba", "BernoulliRBMCD(2, n_iter=1)", ""),
    ("numba", "BayesianGMM_MAP(2)", ""),
]


@pytest.mark.parametrize(("package", "model", "message"), MODELS_OF_PACKAGES)
def test_pickles_where_a_package_is_missing(package, model, message, tmp_path):
    pytest.importorskip(package)
    code = """
import pickle
import numpy as np
from skem import *
model = {model}.fit(np.random.default_rng(0).random((60, 4)))
pickle.dump(model, open({path!r}, "wb"))
"""
    path = str(tmp_path / "model.pickle")
    assert run_process(code.format(model=model, path=path)).returncode == 0
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError({package!r})")
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')).score([[0, 1, 0, 1]])"
    found = run_process(
        code.replace("sys.argv[1]", repr(path)), PYTHONPATH=f"{tmp_path}:{HERE}"
    )
    assert message in found.stderr
    assert bool(found.returncode) == bool(message), found.stderr
