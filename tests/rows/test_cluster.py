"""Dask arrays: the numbers of memory, from blocks that stay on two worker processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.distributed import Client, LocalCluster
from dask.sizeof import sizeof
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from versions import needs_callbacks

from skem import (
    BayesianGMM_MAP,
    BernoulliRBMCD,
    GANEstimator,
    LatentImputer,
    ShiftedTemplateEM,
    VAEEstimator,
)
from skem._threads import own_threads
from skem.datasets import make_shifted_templates


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


def three_clusters(n_samples, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_samples, 4)) + 2 * rng.integers(0, 3, size=(n_samples, 1))


def with_holes(X):
    X = X.copy()
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    return X


def weights_of(n_samples):
    weight = np.random.default_rng(2).uniform(0, 2, n_samples)
    weight[::9] = 0
    return weight


def assert_same(found, expected):
    """The same fit, to 1e-8, after the same iterations."""
    assert found.n_iter_ == expected.n_iter_
    assert found.converged_ == expected.converged_
    assert len(found.lower_bounds_) == len(expected.lower_bounds_)
    for name, value in vars(expected).items():
        if name.endswith("_") and not name.startswith("_"):
            assert type(getattr(found, name)) is type(value)
            if name == "feature_names_in_":
                np.testing.assert_array_equal(found.feature_names_in_, value)
            else:
                np.testing.assert_allclose(getattr(found, name), value, rtol=1e-8, atol=1e-8)


MIXTURES = {
    "few rows": (three_clusters(700), {}),
    "sorted sample": (three_clusters(12_000), {"n_init": 2}),
    "ordered sample": (three_clusters(60_000), {}),
    "holes": (with_holes(three_clusters(6000)), {"prior": "empirical"}),
    "tied": (three_clusters(6000), {"covariance_type": "tied", "mean_precision_prior": 2}),
    "diagonal": (three_clusters(6000), {"covariance_type": "diag", "max_iter": 100}),
    "spherical": (three_clusters(6000), {"covariance_type": "spherical"}),
    "pixels": (three_clusters(30_000).clip(0, 7).astype(np.uint8), {"reg_covar": 1e-3}),
    "shares of 255": (three_clusters(60_000).clip(0, 7).round() / 255, {"reg_covar": 1e-6}),
    "bits": ((three_clusters(30_000) > 2), {"reg_covar": 1e-3}),
    "integers": ((10 * three_clusters(6000)).astype(np.int16), {}),
    "rare feature": (np.c_[three_clusters(60_000), np.arange(60_000) % 7001 == 11], {}),
    "far away": (1e6 + three_clusters(6000), {}),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", MIXTURES)
def test_mixture(client, case, weighted):
    X, options = MIXTURES[case]
    model = BayesianGMM_MAP(3, random_state=0, **{"tol": 1e-4, "max_iter": 200, **options})
    weight = weights_of(len(X)) if weighted else None
    expected = model.fit(X, sample_weight=weight)
    blocks = da.from_array(X, chunks=(len(X) // 3 + 1, 3)).persist()
    lazy_weight = da.from_array(weight, chunks=len(X) // 5) if weighted else None
    model = BayesianGMM_MAP(**model.get_params())
    assert_same(model.fit(blocks, sample_weight=lazy_weight), expected)
    for verb in ("score", "aic", "bic", "icl"):
        found = getattr(model, verb)(blocks, sample_weight=lazy_weight)
        assert isinstance(found, float)
        np.testing.assert_allclose(found, getattr(expected, verb)(X, sample_weight=weight))
    model.partial_fit(blocks, sample_weight=lazy_weight)
    expected.partial_fit(X, sample_weight=weight)
    assert_same(model, expected)


TEMPLATES = {
    "sideways": {},
    "absent": {"absent": True, "shift_concentration_prior": 2.0, "shrinkage": None},
    "smooth": {"shrinkage": "map"},
    "stages": {"init": "random", "n_init": 1, "subset_schedule": ((30, 3), (90, 2))},
    "hard": {"algorithm": "hard", "shrinkage": None},
    "anywhere": {"template_height": 4, "shrinkage": None},
}


@pytest.mark.parametrize(
    ("case", "weighted"),
    [
        pytest.param(
            case,
            weighted,
            marks=[pytest.mark.slow] * (weighted or case in ("smooth", "hard", "anywhere")),
        )
        for case in TEMPLATES
        for weighted in (False, True)
    ],
)
def test_shifted_template(client, case, weighted):
    images = make_shifted_templates(
        n_samples=160, image_shape=(6, 24), template_width=8, noise_std=0.5, random_state=0
    ).X
    images[::5, 7] = np.nan
    options = {"template_width": 8, "image_shape": (6, 24), "random_state": 0, "tol": 1e-3}
    model = ShiftedTemplateEM(**options, **TEMPLATES[case])
    weight = weights_of(160) if weighted else None
    expected = model.fit(images, sample_weight=weight)
    blocks = da.from_array(images, chunks=(45, 50))
    lazy_weight = da.from_array(weight, chunks=60) if weighted else None
    model = ShiftedTemplateEM(**model.get_params())
    assert_same(model.fit(blocks, sample_weight=lazy_weight), expected)
    for verb in ("predict", "align", "impute", "predict_proba", "score_samples"):
        found = getattr(model, verb)(blocks)
        assert isinstance(found, da.Array)
        values = getattr(expected, verb)(images)
        assert (found.shape, found.dtype) == (values.shape, values.dtype)
        np.testing.assert_allclose(found.compute(), values, rtol=0, atol=1e-8)
    model.partial_fit(blocks, sample_weight=lazy_weight)
    assert_same(model, expected.partial_fit(images, sample_weight=weight))


def test_stacks_of_images(client):
    data = make_shifted_templates(
        n_samples=300, image_shape=(6, 24), template_width=8, random_state=0
    )
    stack = data.X.reshape(300, 6, 24)
    blocks = da.from_array(stack, chunks=(100, 6, 12)).persist()
    model = ShiftedTemplateEM(8, random_state=0).fit(blocks)
    expected = ShiftedTemplateEM(8, random_state=0).fit(stack)
    assert_same(model, expected)
    np.testing.assert_array_equal(model.predict(blocks), expected.predict(stack))
    assert model.align(blocks).shape == (300, 48)
    with pytest.raises(ValueError, match=r"shape \(5, 24\)"):
        model.fit(blocks).set_params(image_shape=(6, 24)).predict(blocks[:, :5])


@pytest.fixture(scope="module")
def fitted():
    X = three_clusters(6000)
    return BayesianGMM_MAP(3, random_state=0, n_jobs=2).fit(X), X


def test_predictions_are_lazy(client, fitted):
    model, X = fitted
    blocks = da.from_array(X, chunks=(1000, 4))

    def refuse(*args, **options):
        raise AssertionError("something was computed")

    verbs = ["predict", "predict_proba", "transform", "score_samples", "impute", "reconstruct"]
    with dask.config.set(scheduler=refuse):
        lazy = {verb: getattr(model, verb)(blocks) for verb in verbs}
        assert type(model.inverse_transform(lazy["transform"])) is da.Array
    expected = {verb: getattr(model, verb)(X) for verb in verbs}
    other = BayesianGMM_MAP(3, random_state=0).fit(X)
    lazy["transform"] = other.transform(blocks)
    other.fit(X + 100)  # what was asked for before stays as it was
    for verb, array in lazy.items():
        assert type(array) is da.Array
        assert (array.shape, array.dtype) == (expected[verb].shape, expected[verb].dtype)
        assert array.chunks[0] == blocks.chunks[0]
        np.testing.assert_allclose(array.compute(), expected[verb], rtol=0, atol=1e-8)
    assert model.predict_proba(blocks.astype(np.float32)).dtype == np.float32
    labels = BayesianGMM_MAP(3, random_state=0).fit_predict(blocks)
    np.testing.assert_array_equal(labels.compute(), expected["predict"])
    pipeline = make_pipeline(BayesianGMM_MAP(3, random_state=0)).fit(blocks)
    assert type(pipeline.transform(blocks)) is da.Array


def test_weights_of_unknown_length_may_have_other_blocks(client):
    X, weight = np.random.default_rng(0).normal(size=(60, 2)), np.arange(1.0, 61)
    series = dd.from_pandas(pd.Series(weight), npartitions=3)
    blocks = da.from_array(X, chunks=(25, 2))
    model = BayesianGMM_MAP(random_state=0).fit(blocks, sample_weight=series)
    assert_same(model, BayesianGMM_MAP(random_state=0).fit(X, sample_weight=weight))
    with pytest.raises(ValueError, match="sample_weight has shape"):
        model.fit(blocks[:50], sample_weight=series)


@pytest.mark.slow
def test_blocks_of_unknown_length_and_none(client):
    X = three_clusters(9000)
    weight = weights_of(9000)
    blocks, lazy_weight = da.from_array(X, chunks=(1500, 2)), da.from_array(weight, chunks=1500)
    chosen = X[:, 0] > 1
    chosen[1500:3000] = False  # a block of no rows
    lazy = da.from_array(chosen, chunks=1500)
    model = BayesianGMM_MAP(2, random_state=0, tol=1e-6)
    expected = model.fit(X[chosen], sample_weight=weight[chosen])
    some = blocks[lazy]
    model = BayesianGMM_MAP(**model.get_params()).fit(some, sample_weight=lazy_weight[lazy])
    assert_same(model, expected)
    assert np.isnan(some.shape[0])  # X is not touched
    np.testing.assert_array_equal(model.predict(some), expected.predict(X[chosen]))
    score = model.score(some, sample_weight=weight[chosen])
    np.testing.assert_allclose(score, expected.score(X[chosen], sample_weight=weight[chosen]))
    with pytest.raises(ValueError, match="sample_weight has shape"):
        model.fit(some, sample_weight=lazy_weight)


def test_data_frames_have_names(client):
    frame = pd.DataFrame(three_clusters(900), columns=list("abcd"))
    parts = dd.from_pandas(frame, npartitions=4)
    model = BayesianGMM_MAP(3, random_state=0)
    expected = BayesianGMM_MAP(3, random_state=0).fit(frame)
    assert_same(model.fit(parts, sample_weight=parts["a"].abs() * 0 + 1), expected)
    assert model.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(model.predict(parts), expected.predict(frame))
    np.testing.assert_allclose(model.score(parts), expected.score(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(parts.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="feature names should match"):
        model.partial_fit(parts.rename(columns={"a": "z"}))


def test_blocks_are_not_gathered(client, monkeypatch):
    """All that comes to the client is a sample of 5000 rows, statistics and counts."""
    blocks = da.random.default_rng(0).normal(size=(600_000, 4), chunks=(50_000, 4)).persist()
    received, get = [], Client.get

    def recorded(self, *args, **options):
        result = get(self, *args, **options)
        received.append(sizeof(result))
        return result

    monkeypatch.setattr(Client, "get", recorded)
    model = BayesianGMM_MAP(2, random_state=0, tol=1e-2).fit(
        blocks, sample_weight=blocks[:, 0] ** 2
    )
    assert len(received) > model.n_iter_
    assert sum(received) < 0.05 * blocks.nbytes
    assert max(received) < 1.2 * 5000 * 4 * 8


class Killer:
    """A callback that kills the first worker before an iteration, or during it."""

    def __init__(self, client, at, delay):
        self.client, self.left, self.delay = client, at, delay

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **options):
        pass

    def on_fit_task_end(self, estimator, context, **options):
        self.left -= 1
        if self.left == 0:
            pid = next(iter(self.client.run(os.getpid).values()))
            threading.Thread(target=self.kill, args=(pid,)).start()

    def kill(self, pid):
        time.sleep(self.delay)
        os.kill(pid, signal.SIGKILL)


@needs_callbacks
@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_a_worker_may_die(client, kept):
    X, weight = three_clusters(120_000), weights_of(120_000)
    options = {"n_components": 3, "random_state": 0, "tol": 0, "max_iter": 12}
    with pytest.warns(ConvergenceWarning, match="max_iter=12"):
        expected = BayesianGMM_MAP(**options).fit(X, sample_weight=weight)
    blocks = da.from_array(X, chunks=(10_000, 4))
    blocks = blocks.persist() if kept else blocks
    before = set(client.run(os.getpid).values())
    model = BayesianGMM_MAP(**options).set_callbacks(Killer(client, at=4, delay=0.05))
    lazy_weight = da.from_array(weight, chunks=20_000)
    with pytest.warns(ConvergenceWarning, match="max_iter=12"):
        model.fit(blocks, sample_weight=lazy_weight)
    client.wait_for_workers(2, timeout=60)
    assert set(client.run(os.getpid).values()) != before
    assert_same(model, expected)


@pytest.mark.slow
def test_large_parameters_travel_without_a_warning(client):
    X = np.random.default_rng(0).normal(size=(600, 600)) * np.arange(1, 601)
    model = BayesianGMM_MAP(3, prior="empirical", random_state=0, tol=1e9)
    expected = BayesianGMM_MAP(3, prior="empirical", random_state=0, tol=1e9).fit(X)
    assert_same(model.fit(da.from_array(X, chunks=(200, 600)).persist()), expected)


def test_without_a_cluster():
    X = three_clusters(6000)
    with dask.config.set(scheduler="threads"):
        model = BayesianGMM_MAP(3, random_state=0).fit(da.from_array(X, chunks=(2000, 4)))
    assert_same(model, BayesianGMM_MAP(3, random_state=0).fit(X))


@pytest.mark.parametrize(
    "model",
    [
        BernoulliRBMCD(4, random_state=0),
        VAEEstimator(2, hidden_layer_sizes=(8,), random_state=0),
        GANEstimator(4, hidden_layer_sizes=(8,), random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore:mode collapse")
def test_minibatches_block_by_block(client, model):
    X, weight = load_digits().data[:300] / 16, weights_of(300)
    blocks, lazy_weight = da.from_array(X, chunks=(100, 30)), da.from_array(weight, chunks=100)
    for _ in range(2):
        model.partial_fit(blocks, sample_weight=lazy_weight)
    found = model.transform(X)
    lazy = model.transform(blocks)
    assert type(lazy) is da.Array
    np.testing.assert_allclose(lazy.compute(), found, atol=1e-6)
    np.testing.assert_allclose(model.score(blocks), model.score(X), rtol=1e-6)
    expected = type(model)(**model.get_params())
    for start in (0, 100, 200, 0, 100, 200):
        part = slice(start, start + 100)
        expected.partial_fit(X[part], sample_weight=weight[part])
    np.testing.assert_array_equal(expected.transform(X), found)
    frame = pd.DataFrame(X, columns=[f"p{i}" for i in range(64)])
    parts = dd.from_pandas(frame, npartitions=3)
    named = type(model)(**model.get_params()).partial_fit(parts, sample_weight=weight)
    assert named.feature_names_in_[3] == "p3"
    with pytest.raises(TypeError, match="partial_fit"):
        model.fit(blocks)


def test_weights_of_minibatches(client):
    X, weight = load_digits().data[:300] / 16, np.random.default_rng(0).uniform(0.5, 2, 300)
    weight[100:200] = 0
    blocks = da.from_array(X, chunks=(100, 64))
    model = BernoulliRBMCD(4, random_state=0)
    expected = BernoulliRBMCD(4, random_state=0)
    for part in (slice(100), slice(200, 300)):  # a block without any weight is left out
        expected.partial_fit(X[part], sample_weight=weight[part])
    model.partial_fit(blocks, sample_weight=da.from_array(weight, chunks=70))
    np.testing.assert_array_equal(model.components_, expected.components_)
    before = model.components_.copy()
    for wrong in (np.r_[weight, weight], weight[:250], da.ones(299)):
        with pytest.raises(ValueError, match="sample_weight has shape"):
            model.partial_fit(blocks, sample_weight=wrong)
    with pytest.raises(ValueError, match="at least 1 row"):
        model.partial_fit(blocks[:0])
    with pytest.raises(ValueError, match="at least 1 row"):
        model.partial_fit(blocks[:0], sample_weight=da.ones(0))
    negative = np.where(np.arange(300) == 250, -1, weight)
    for wrong, message in ((0 * weight, "above"), (negative, "at least 0")):
        with pytest.raises(ValueError, match=message):
            model.partial_fit(blocks, sample_weight=da.from_array(wrong, chunks=100))
    np.testing.assert_array_equal(model.components_, before)


def test_imputer(client):
    X = with_holes(three_clusters(600))
    blocks = da.from_array(X, chunks=(200, 4))
    imputer = LatentImputer(BayesianGMM_MAP(2, random_state=0))
    expected = imputer.fit(X).transform(X)
    lazy = imputer.fit(blocks).transform(blocks)
    assert type(lazy) is da.Array
    np.testing.assert_allclose(lazy.compute(), expected, atol=1e-8)
    table = pd.DataFrame(X, columns=list("abcd"))
    frame = dd.from_pandas(table, npartitions=2)
    assert imputer.fit(frame).feature_names_in_.tolist() == list("abcd")
    np.testing.assert_allclose(imputer.transform(frame).compute(), expected, atol=1e-8)
    np.testing.assert_allclose(imputer.score(frame), imputer.score(table))
    for verb in ("transform", "score"):
        with pytest.raises(ValueError, match="feature names should match"):
            getattr(imputer, verb)(frame[list("dcba")])


def test_frames_of_several_types(client):
    X = three_clusters(600)
    frame = pd.DataFrame(X, columns=list("abcd")).assign(d=X[:, 3] > 2)
    frame["c"] = frame["c"].astype("Float64")
    expected = BayesianGMM_MAP(2, random_state=0, reg_covar=1e-3).fit(frame)
    model = BayesianGMM_MAP(2, random_state=0, reg_covar=1e-3)
    assert_same(model.fit(dd.from_pandas(frame, npartitions=3)), expected)


def test_what_cannot_be_lazy_is_refused(client, fitted):
    model, X = fitted
    blocks = da.from_array(X, chunks=(1000, 4))
    framed = BayesianGMM_MAP(3, random_state=0).fit(X).set_output(transform="pandas")
    with pytest.raises(ValueError, match="set_output"):
        framed.transform(blocks)
    np.testing.assert_array_equal(framed.predict(blocks), model.predict(X))
    with pytest.raises(ValueError, match="at least 1 row"):
        model.score(blocks[:0])
    with pytest.raises((TypeError, ValueError)):
        model.predict(dask.delayed(X))
    machine = BernoulliRBMCD(2, n_iter=1).fit(load_digits().data / 16)
    with pytest.raises(TypeError, match="X is a dask collection"):
        machine.gibbs(da.ones((10, 64)))


def test_fits_in_threads_leave_the_configuration_as_it_was(client):
    X = three_clusters(3000)
    name = "distributed.admin.large-graph-warning-threshold"
    before = dask.config.get(name)
    blocks = da.from_array(X, chunks=(1000, 4)).persist()

    def fit(seed):
        return BayesianGMM_MAP(3, random_state=seed).fit(blocks).means_

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(fit, range(6)))
    assert dask.config.get(name) == before
    for seed, means in enumerate(found):
        expected = BayesianGMM_MAP(3, random_state=seed).fit(X).means_
        np.testing.assert_allclose(means, expected, atol=1e-8)


def test_threads_are_not_the_cores_of_the_cluster(client):
    assert own_threads(None) == 1
    with parallel_config(backend="dask"):
        assert own_threads(None) == 1
        assert own_threads(3) == 3
        assert own_threads(-1) == os.cpu_count()
    for options in ({"backend": "threading"}, {"backend": "loky"}, {}):
        with parallel_config(n_jobs=2, **options):
            assert own_threads(None) == 2
    with parallel_config(backend="sequential"):
        assert own_threads(2) == 1


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_restarts_and_searches_on_the_cluster(client, n_jobs):
    X = three_clusters(8000)
    images = make_shifted_templates(
        n_samples=200, image_shape=(6, 24), template_width=8, random_state=0
    ).X
    mixture = BayesianGMM_MAP(3, n_init=3, random_state=0, n_jobs=n_jobs)
    template = ShiftedTemplateEM(8, image_shape=(6, 24), random_state=0, n_jobs=n_jobs)
    machine = BernoulliRBMCD(n_iter=2, random_state=0)

    def search(model, X):
        return GridSearchCV(model, {"n_components": [2, 3]}, cv=2, n_jobs=n_jobs).fit(X)

    def fits():
        small = BayesianGMM_MAP(random_state=0, n_init=2, n_jobs=n_jobs)
        return [
            mixture.fit(X).means_,
            template.fit(images).template_,
            search(small, X).cv_results_["mean_test_score"],
            search(machine, load_digits().data[:100] / 16).cv_results_["mean_test_score"],
        ]

    expected = fits()
    with parallel_config(backend="dask"):
        for found, values in zip(fits(), expected, strict=True):
            np.testing.assert_allclose(found, values, rtol=1e-10)


def test_errors(client, fitted):
    model, X = fitted
    blocks = da.from_array(X, chunks=(1000, 4))
    before = model.means_.copy()
    infinite = X.copy()
    infinite[4321, 1] = np.inf
    for verb in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match="X contains infinity"):
            getattr(model, verb)(da.from_array(infinite, chunks=(1000, 4)))
    with pytest.raises(ValueError, match="X contains infinity"):
        model.predict(da.from_array(infinite, chunks=(1000, 4))).compute()
    for verb in ("predict", "score_samples", "partial_fit", "score"):
        with pytest.raises(ValueError, match="3 features, but BayesianGMM_MAP is expecting 4"):
            getattr(model, verb)(blocks[:, :3])
    for weight in (np.ones(5999), np.ones((6000, 1)), da.ones(5999)):
        with pytest.raises(ValueError, match="sample_weight has shape"):
            model.fit(blocks, sample_weight=weight)
    for weight, message in (
        (da.ones(6000) * -1, "at least 0"),
        (da.ones(6000) * np.nan, "at least 0"),
        (da.zeros(6000), "above"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(blocks, sample_weight=weight)
    with pytest.raises(ValueError, match="must hold numbers"):
        model.fit(blocks.astype(str))
    with pytest.raises(ValueError, match="rows and columns"):
        model.fit(blocks[:, 0])
    with pytest.raises(ValueError, match="at least 2 rows"):
        model.fit(blocks[:1])
    with pytest.raises(ValueError, match="without any observed value"):
        model.fit(da.full((100, 2), np.nan, chunks=50))
    with pytest.raises(ValueError, match="connectivity"):
        BayesianGMM_MAP(2, connectivity=np.eye(6000)).fit(blocks)
    np.testing.assert_array_equal(model.means_, before)


QUERY_PLANNING = """
import dask
dask.config.set({"array.query-planning": True})
import dask.array as da, numpy as np
from dask.distributed import Client, LocalCluster
from skem import BayesianGMM_MAP
if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(9000, 3)) * [1, 2, 3]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        with Client(cluster):
            expected = BayesianGMM_MAP(2, random_state=0).fit(X)
            for blocks in (da.from_array(X, chunks=(2000, 2)),
                           da.from_array(X, chunks=(2000, 2)).persist()):
                assert not hasattr(blocks, "to_delayed")
                model = BayesianGMM_MAP(2, random_state=0)
                model.fit(blocks, sample_weight=da.ones(9000, chunks=1000))
                assert model.n_iter_ == expected.n_iter_
                np.testing.assert_allclose(model.means_, expected.means_, atol=1e-8)
                labels = model.predict(blocks)
                assert not isinstance(labels, np.ndarray)
                np.testing.assert_array_equal(labels.compute(), expected.predict(X))
                np.testing.assert_allclose(model.score(blocks), expected.score(X))
    print("done")
"""


IMPORT = """
import dask
from skem._rows.cluster import _large_parameters

with _large_parameters:
    import distributed
print(dask.config.get("distributed.worker.memory.target"))
"""


def test_distributed_may_be_imported_while_a_fit_computes():
    """A setting of a library that is not imported yet would remove its defaults in the end."""
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert float(run.stdout) == 0.6, run.stderr


@pytest.mark.slow
def test_arrays_with_query_planning(tmp_path):
    script = tmp_path / "planned.py"
    script.write_text(QUERY_PLANNING)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert run.stdout.endswith("done\n"), run.stderr
