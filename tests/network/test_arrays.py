"""Networks learn from tensors where these are."""

import os
from dataclasses import replace

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone

from skem import GANEstimator, VAEEstimator
from skem._base import places
from skem._rows.arrays import Elsewhere

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("SCIPY_ARRAY_API") != "1", reason="set SCIPY_ARRAY_API=1"
    ),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
X = np.random.default_rng(0).normal(3, 2, size=(120, 4)) @ np.diag([1, 10, 0.1, 1])
IMAGES = np.random.default_rng(1).random((120, 4, 3))
SMALL = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
MODELS = {
    "vae": (VAEEstimator(2, **SMALL, early_stopping=True), X),
    "images": (VAEEstimator(2, **SMALL, image_shape=(4, 3)), IMAGES),
    "gan": (GANEstimator(2, **SMALL), X),
}


@pytest.fixture
def as_device(monkeypatch):
    """Let tensors of the CPU go the way of those of a GPU; count what NumPy reads."""
    read, place_of = [], places.place_of

    def elsewhere(values):
        place = place_of(values)

        def to_numpy(values):
            read.append(values.shape[0])
            return place.to_numpy(values)

        return place and replace(place, is_host=False, to_numpy=to_numpy)

    monkeypatch.setattr(places, "place_of", elsewhere)
    with sklearn.config_context(array_api_dispatch=True):
        yield read


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_same_fit(name, weighted, dtype, as_device, monkeypatch):
    model, rows = MODELS[name]
    rows = rows.astype(dtype)
    weight = np.random.default_rng(2).uniform(1e-3, 2, size=len(rows)) if weighted else None
    expected = clone(model).fit(rows, sample_weight=weight)
    tensor = torch.asarray(rows)
    given = None if weight is None else torch.asarray(weight)
    with monkeypatch.context() as context:
        context.setattr(Elsewhere, "read", None)  # all rows, part by part
        found = clone(model).fit(tensor, sample_weight=given)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(found.transform(tensor), expected.transform(rows), **tolerance)
    np.testing.assert_allclose(
        found.score(tensor, sample_weight=given),
        expected.score(rows, sample_weight=weight),
        rtol=1e-4,
    )
    found.partial_fit(tensor, sample_weight=given)
    expected.partial_fit(rows, sample_weight=weight)
    np.testing.assert_allclose(found.transform(tensor), expected.transform(rows), **tolerance)


def test_rows_of_a_fit_do_not_pass_the_host(as_device):
    """Of many rows, only those of a comparison and a few sums are read by NumPy."""
    rows = torch.asarray(np.tile(X, (50, 1)))
    GANEstimator(2, **{**SMALL, "max_iter": 1}).fit(rows)
    assert sum(as_device) <= 1000 + 5


def test_columns_of_several_kinds(as_device):
    rows = np.column_stack([X, np.arange(120) % 3])
    likelihood = {"gaussian": [0, 1, 2, 3], "categorical": [4]}
    model = VAEEstimator(2, likelihood=likelihood, **SMALL)
    expected, found = clone(model).fit(rows), clone(model).fit(torch.asarray(rows))
    np.testing.assert_allclose(found.transform(rows), expected.transform(rows), atol=1e-4)


def test_missing_values_are_refused_by_name(as_device):
    rows = X.copy()
    rows[0, 0] = np.nan
    for name in ("vae", "gan"):
        with pytest.raises(ValueError, match=r"NaN in X cannot be used .* X\.cpu\(\)"):
            clone(MODELS[name][0]).fit(torch.asarray(rows))
