"""Arrays of torch and of the array API are those of NumPy: same memory, same numbers."""

import os

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skem import (
    BayesianGMM_MAP,
    BernoulliRBMCD,
    GANEstimator,
    LatentImputer,
    ShiftedTemplateEM,
    VAEEstimator,
)
from skem._rows.arrays import in_numpy

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
# scikit-learn dispatches only if this is set before it is imported
needs_scipy = pytest.mark.skipif(
    os.environ.get("SCIPY_ARRAY_API") != "1", reason="set SCIPY_ARRAY_API=1"
)
DISPATCH = pytest.mark.parametrize("dispatch", [False, pytest.param(True, marks=needs_scipy)])
X = np.random.default_rng(0).normal(size=(60, 4))
WEIGHT = np.random.default_rng(1).uniform(1, 2, size=60)
SMALL = {"hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}
MODELS = {
    "mixture": (BayesianGMM_MAP(2, random_state=0), X),
    "template": (ShiftedTemplateEM(2, random_state=0), X),
    "rbm": (BernoulliRBMCD(3, n_iter=2, random_state=0), (X > 0) * 1.0),
    "vae": (VAEEstimator(2, **SMALL), X),
    "gan": (GANEstimator(2, **SMALL), X),
    "imputer": (LatentImputer(BayesianGMM_MAP(2, random_state=0)), X),
}


def strict(values):
    return pytest.importorskip("array_api_strict").asarray(values)


@DISPATCH
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", [torch.asarray, strict], ids=["torch", "strict"])
@pytest.mark.parametrize("name", MODELS)
def test_verbs_take_them(name, kind, dtype, dispatch):
    model, values = MODELS[name]
    values = values.astype(dtype)
    given, weight = kind(values), kind(WEIGHT)
    expected = clone(model).fit(values, sample_weight=WEIGHT)
    codes = expected.transform(values)
    with sklearn.config_context(array_api_dispatch=dispatch):
        found = clone(model).fit(given, sample_weight=weight)
        np.testing.assert_array_equal(found.transform(given), codes)
        own = found.transform(given).dtype  # of the library, where results follow X
        assert str(own).rsplit(".", 1)[-1] == np.dtype(dtype).name
        assert found.score(given) == expected.score(values)
        for verb in ("predict", "score_samples", "impute", "reconstruct"):
            if hasattr(found, verb):
                ours = getattr(found, verb)(given)
                np.testing.assert_array_equal(ours, getattr(expected, verb)(values))
        if name in ("mixture", "rbm", "vae", "template"):
            back = found.inverse_transform(kind(codes))
            np.testing.assert_array_equal(back, expected.inverse_transform(codes))
        if hasattr(found, "partial_fit"):
            found.partial_fit(given, sample_weight=weight)
            expected.partial_fit(values, sample_weight=WEIGHT)
            np.testing.assert_array_equal(found.transform(given), expected.transform(values))


@pytest.mark.parametrize("name", ["vae", "gan", "mixture"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_not_copied(name, dtype):
    tensor = torch.asarray(X).to(dtype)
    assert in_numpy(tensor).ctypes.data == tensor.data_ptr()
    rows = clone(MODELS[name][0])._check_rows(tensor, reset=True)
    assert np.shares_memory(rows.given, tensor.numpy())


def test_a_search_takes_tensors():
    search = GridSearchCV(BayesianGMM_MAP(random_state=0), {"n_components": [1, 2]}, cv=2)
    expected = clone(search).fit(X).cv_results_["mean_test_score"]
    found = search.fit(torch.asarray(X)).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(4, 2, device="meta"),
        torch.zeros(4, 2, requires_grad=True),
        torch.zeros(4, 2, dtype=torch.bfloat16),
        torch.eye(4).to_sparse(),
    ],
    ids=["device", "gradient", "dtype", "sparse"],
)
@pytest.mark.parametrize("name", MODELS)
@DISPATCH
def test_what_cannot_be_read_is_named(name, tensor, dispatch):
    message = r"torch\.Tensor that was given: .* X\.detach\(\)\.cpu\(\)"
    with (
        sklearn.config_context(array_api_dispatch=dispatch),
        pytest.raises(ValueError, match=message),
    ):
        clone(MODELS[name][0]).fit(tensor)
