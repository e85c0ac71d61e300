"""The mixture on arrays of other libraries: the numbers of NumPy, where X is."""

import os
from dataclasses import replace

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV

from skem import BayesianGMM_MAP
from skem._base import places
from skem._base.compat import OwnCallback

strict = pytest.importorskip("array_api_strict")
pytestmark = [
    # scikit-learn dispatches only if this is set before it is imported
    pytest.mark.skipif(
        os.environ.get("SCIPY_ARRAY_API") != "1", reason="set SCIPY_ARRAY_API=1"
    ),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
TYPES = ["full", "tied", "diag", "spherical"]
VERBS = ["predict", "predict_proba", "transform", "reconstruct", "score_samples", "log_joint"]


@pytest.fixture(autouse=True)
def dispatch():
    with sklearn.config_context(array_api_dispatch=True):
        yield


def on_cpu(values):
    return strict.asarray(values, device=strict.Device("CPU_DEVICE"))


def on_device(values):
    """Return an array of a device from which NumPy may not read silently."""
    return strict.asarray(values, device=strict.Device("device1"))


def in_numpy(values):
    if isinstance(values, torch.Tensor):
        return values.numpy()
    return np.asarray(strict.asarray(values, device=strict.Device("CPU_DEVICE")))


@pytest.fixture(params=["strict", "device", "torch", "torch as a device"])
def array(request, monkeypatch):
    """A function that makes arrays; torch's of the CPU may go the way of a GPU's."""
    if request.param == "torch as a device":
        place_of = places.place_of

        def elsewhere(values):
            place = place_of(values)
            return place and replace(place, is_host=False)

        monkeypatch.setattr(places, "place_of", elsewhere)
    kinds = {"strict": on_cpu, "device": on_device}
    return kinds.get(request.param, torch.asarray)


def blobs(n=600, D=3, K=3, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    centers = 4 * rng.normal(size=(K, D))
    mixing = rng.normal(size=(K, D, D)) + 2 * np.eye(D)
    labels = rng.integers(K, size=n)
    rows = np.einsum("nij,nj->ni", mixing[labels], rng.normal(size=(n, D)))
    return shift + centers[labels] + rows


def assert_same(found, expected, tolerance=1e-8):
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray):
            own = getattr(found, name)
            np.testing.assert_allclose(in_numpy(own), value, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.lower_bounds_, expected.lower_bounds_, rtol=tolerance)
    assert found.n_iter_ == expected.n_iter_


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_numbers_of_numpy(array, kind, weighted):
    X, K = blobs(), 3
    weight = np.random.default_rng(1).uniform(0.5, 2, len(X)) if weighted else None
    if weighted:
        weight[::7] = 0
    expected = BayesianGMM_MAP(K, covariance_type=kind, random_state=0)
    found, given = clone(expected), array(X)
    expected.fit(X, sample_weight=weight)
    found.fit(given, sample_weight=None if weight is None else array(weight))
    assert_same(found, expected)
    for name in VERBS:
        result = getattr(found, name)(given)
        assert type(result) is type(given)
        assert result.device == given.device
        reference = getattr(expected, name)(X)
        np.testing.assert_allclose(in_numpy(result), reference, rtol=1e-8, atol=1e-8)
    codes = array(expected.transform(X))
    back = in_numpy(found.inverse_transform(codes))
    np.testing.assert_allclose(back, expected.inverse_transform(in_numpy(codes)), rtol=1e-8)
    for name in ("score", "aic", "bic", "icl"):
        scores = [getattr(model, name)(rows) for model, rows in ((found, given), (expected, X))]
        assert isinstance(scores[0], float)
        np.testing.assert_allclose(*scores, rtol=1e-8)
    rows, components = found.sample(5)
    assert type(rows) is type(components) is type(given)
    assert rows.device == components.device == given.device
    np.testing.assert_allclose(in_numpy(rows), expected.sample(5)[0], rtol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {"prior": "empirical"},
        {"mean_precision_prior": 0.1},
        {"weight_concentration_prior": -4.0, "n_components": 6},
        {"n_init": 3, "init_params": "k-means++"},
        {"init_params": "random_from_data"},
        {"init_params": "random", "tol": 1e-7},
        {"n_components": 1},
    ],
    ids=str,
)
def test_options(array, options):
    X = blobs(seed=2)
    expected = BayesianGMM_MAP(**{"n_components": 3, "random_state": 0, **options})
    assert_same(clone(expected).fit(array(X)), expected.fit(X))


@pytest.mark.parametrize("kind", TYPES)
def test_a_sample_finds_the_start(array, kind):
    """With more than 10,000 rows, starts, moves and a constant column need few of them."""
    X = np.column_stack([blobs(12_000, 2, 4, seed=3), np.zeros(12_000)])
    X[77, 2] = 5
    expected = BayesianGMM_MAP(4, covariance_type=kind, random_state=0).fit(X)
    assert_same(clone(expected).fit(array(X)), expected)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_blocks_change_nothing(kind, monkeypatch):
    from skem.mixture import _arrays

    X = blobs(seed=4)
    monkeypatch.setattr(_arrays, "BLOCK_SIZE", 100)
    expected = BayesianGMM_MAP(3, covariance_type=kind, random_state=0)
    assert_same(clone(expected).fit(on_device(X)), expected.fit(X))


def test_narrow_components_far_from_each_other(array):
    """Expanding squares would lose the digits of diagonal components that are narrow."""
    X = blobs(seed=5) * 1e-4
    X[:300] += 1e3
    expected = BayesianGMM_MAP(2, covariance_type="diag", reg_covar=0, random_state=0)
    assert_same(clone(expected).fit(array(X)), expected.fit(X), 1e-6)


@pytest.mark.parametrize("kind", TYPES)
def test_single_precision(array, kind):
    X = blobs(seed=6, shift=100).astype(np.float32)
    expected = BayesianGMM_MAP(3, covariance_type=kind, random_state=0).fit(X)
    found = clone(expected).fit(array(X), sample_weight=array(np.full(len(X), 1e30)))
    assert in_numpy(found.means_).dtype == in_numpy(found.score_samples(array(X))).dtype
    np.testing.assert_allclose(in_numpy(found.means_), expected.means_, rtol=2e-3)
    np.testing.assert_allclose(found.score(array(X)), expected.score(X), rtol=1e-4)


def test_a_device_without_float64(monkeypatch):
    """Where float32 cannot tell components apart, such a device leaves them to NumPy."""
    monkeypatch.setattr(places, "_max_precision_float_dtype", lambda xp, device: xp.float32)
    monkeypatch.setattr(places, "_PLACES", {})
    for scale in (1.0, 1e-5):
        X = blobs(seed=7).astype(np.float32)
        X[:300] = X[:300] * np.float32(scale) + 50
        expected = BayesianGMM_MAP(2, reg_covar=0, random_state=0).fit(X)
        found = clone(expected).fit(on_device(X))
        assert found.means_.dtype == strict.float32
        np.testing.assert_allclose(in_numpy(found.means_), expected.means_, rtol=1e-4)
        proba = in_numpy(found.predict_proba(on_device(X)))
        np.testing.assert_allclose(proba, expected.predict_proba(X), atol=1e-3)


def test_rows_far_away(array):
    X = blobs(seed=8)
    expected = BayesianGMM_MAP(3, random_state=0).fit(X)
    found = clone(expected).fit(array(X))
    X[::50] *= 1e12
    X[::100] *= 1e250
    for name in VERBS:
        result = in_numpy(getattr(found, name)(array(X)))
        np.testing.assert_allclose(result, getattr(expected, name)(X), rtol=1e-6, atol=1e-8)


def test_given_starts_warm_start_and_online(array):
    X = blobs(seed=9)
    starts = {"means_init": X[:3], "weights_init": np.full(3, 1 / 3)}
    model = BayesianGMM_MAP(3, random_state=0)
    for options in (
        {"means_init": X[:3]},
        {**starts, "precisions_init": np.stack([np.eye(3)] * 3)},
    ):
        expected = clone(model).set_params(**options).fit(X)
        placed = {name: array(value) for name, value in options.items()}
        found = clone(model).set_params(**placed).fit(array(X))
        assert_same(found, expected)
    for fitted, rows in ((expected, X), (found, array(X))):
        fitted.set_params(warm_start=True, max_iter=3).fit(rows)
        fitted.partial_fit(rows).partial_fit(rows)
    assert_same(found, expected)


def test_weights_set_by_hand(array):
    X = blobs(seed=10)
    found = BayesianGMM_MAP(3, random_state=0).fit(array(X))
    found.means_ = found.means_ + 1
    expected = BayesianGMM_MAP(3, random_state=0).fit(X)
    expected.means_ = expected.means_ + 1
    np.testing.assert_allclose(found.score(array(X)), expected.score(X))


def test_callbacks_score_rows_in_their_place(array):
    from skem.callbacks import EarlyStopping, History

    X = blobs(seed=11)
    expected, found = History(X), History(array(X))
    BayesianGMM_MAP(3, random_state=0).set_callbacks(expected).fit(X)
    model = BayesianGMM_MAP(3, random_state=0).set_callbacks(found, EarlyStopping(array(X)))
    model.fit(array(X))
    assert type(model.means_) is type(array(X))
    seen = []

    class Seen(OwnCallback):
        """What scikit-learn's callbacks see: X as it was given, and a model of its place."""

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context, *, X=None):
            pass

        def on_fit_task_end(
            self, estimator, context, *, X=None, fitted_estimator=None, **beside
        ):
            if context.task_name == "iteration":
                seen.append((type(X), fitted_estimator.score(X)))

    model.set_callbacks(Seen()).fit(array(X))
    assert {kind for kind, _ in seen} == {type(array(X))}
    np.testing.assert_allclose([score for _, score in seen], model.lower_bounds_, rtol=1e-8)


def test_scikit_learn_agrees(array):
    """From the same start, both make the same steps on tensors."""
    X = blobs(seed=12)
    options = {
        "means_init": X[:3],
        "weights_init": np.full(3, 1 / 3),
        "precisions_init": np.stack([np.eye(3)] * 3),
        "max_iter": 7,
        "tol": 0,
        "init_params": "random",
    }
    expected = GaussianMixture(3, **options).fit(X)
    found = BayesianGMM_MAP(3, **options).fit(array(X))
    np.testing.assert_allclose(in_numpy(found.means_), expected.means_, rtol=1e-8)
    np.testing.assert_allclose(found.score(array(X)), expected.score(X), rtol=1e-8)


def test_a_search_takes_tensors():
    X = blobs(seed=13)
    search = GridSearchCV(BayesianGMM_MAP(random_state=0), {"n_components": [1, 3]}, cv=2)
    expected = clone(search).fit(X).cv_results_["mean_test_score"]
    found = search.fit(torch.asarray(X)).cv_results_["mean_test_score"]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_missing_values_of_the_cpu():
    X = blobs(seed=14)
    X[::3, 1] = np.nan
    expected = BayesianGMM_MAP(3, random_state=0).fit(X)
    for array in (torch.asarray, on_cpu):
        found = clone(expected).fit(array(X))
        assert_same(found, expected, 0)
        np.testing.assert_array_equal(in_numpy(found.impute(array(X))), expected.impute(X))
        assert type(found.impute(array(X))) is type(array(X))
        filled, std = found.impute(array(X), return_std=True)
        assert type(std) is type(filled) is type(array(X))


def test_what_a_device_cannot_do_is_named():
    X = blobs(seed=15)
    holes = X.copy()
    holes[0, 0] = np.nan
    fitted = BayesianGMM_MAP(2, random_state=0).fit(on_device(X))
    graph = np.eye(len(X))
    for name, call in {
        "NaN in X": lambda: fitted.predict(on_device(holes)),
        "this method": lambda: fitted.impute(on_device(X)),
        "condition": lambda: fitted.condition(on_device(X)),
        "connectivity": lambda: BayesianGMM_MAP(2, connectivity=graph).fit(on_device(X)),
        "background": lambda: BayesianGMM_MAP(2, background="uniform").fit(on_device(X)),
        "resp_prior": lambda: fitted.fit(on_device(X), resp_prior=np.ones((len(X), 2))),
        "measurement_covariance": lambda: fitted.fit(on_device(X), measurement_covariance=X**2),
    }.items():
        with pytest.raises(
            ValueError, match=f"{name} cannot be used .*device1.*memory of the CPU"
        ):
            call()
    for rows, message in {
        "one": (X[0], r"X has shape \(3,\)"),
        "inf": (np.where(X[0, 0] == X, np.inf, X), "infinity"),
        "short": (X[:1], "at least 2 rows"),
        "narrow": (X[:, :2], "features"),
    }.values():
        with pytest.raises(ValueError, match=message):
            (fitted.predict if "features" in message else clone(fitted).fit)(on_device(rows))


def test_integers_and_images(array):
    X = np.round(10 * blobs(seed=16)).astype(np.int32)
    expected = BayesianGMM_MAP(3, random_state=0).fit(X)
    assert_same(clone(expected).fit(array(X)), expected)
    pixels = np.random.default_rng(0).integers(0, 4, size=(3000, 3)) / 255.0
    expected = BayesianGMM_MAP(2, reg_covar=1e-7, random_state=0).fit(pixels)
    assert_same(clone(expected).fit(array(pixels)), expected)


def test_another_place_than_that_of_fit():
    X = blobs(seed=17)
    found = BayesianGMM_MAP(2, random_state=0).fit(torch.asarray(X))
    with pytest.raises(ValueError, match=r"predict\(\) must use the same namespace"):
        found.predict(X)
    again = found.fit(X)
    assert isinstance(again.means_, np.ndarray)


def test_rows_stay_on_the_device(monkeypatch):
    """A fit brings the sample to the host, and no more rows than that."""
    from skem._rows.arrays import Elsewhere

    X, brought = blobs(30_000, seed=18), []
    place_of = places.place_of

    def counted(values):
        place = place_of(values)

        def to_numpy(values):
            found = place.to_numpy(values)
            brought.append(found.size)
            return found

        return place and replace(place, to_numpy=to_numpy)

    monkeypatch.setattr(places, "place_of", counted)
    monkeypatch.setattr(Elsewhere, "read", None)  # parts of all rows
    model = BayesianGMM_MAP(3, random_state=0).fit(on_device(X))
    brought.clear()
    for name in VERBS:
        getattr(model, name)(on_device(X))
    assert sum(brought) < 300 * len(VERBS)  # parameters, several times
    brought.clear()
    model.score(on_device(X))  # a number for each row, and the parameters
    assert sum(brought) < len(X) + 1000
