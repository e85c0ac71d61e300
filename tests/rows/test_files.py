"""Arrays on disk are streamed: the same numbers, in memory that does not grow with them."""

import os
import tracemalloc
from itertools import pairwise

import h5py
import numpy as np
import pytest
import zarr
from sklearn.datasets import load_digits

from skem import (
    BayesianGMM_MAP,
    BernoulliRBMCD,
    GANEstimator,
    LatentImputer,
    ShiftedTemplateEM,
    VAEEstimator,
)
from skem._rows.files import Stored
from skem.datasets import make_shifted_templates

KINDS = ["memmap", "fortran", "big-endian", "zarr", "hdf5", "hdf5-unchunked"]


def stored(X, kind, folder):
    """X in a file of some kind, in chunks that do not fit together with anything."""
    path, chunks = folder / kind, (max(1, len(X) // 7), *X.shape[1:])
    if kind == "zarr":
        array = zarr.create_array(path, shape=X.shape, chunks=chunks, dtype=X.dtype)
        array[:] = X
        return array
    if kind.startswith("hdf5"):
        options = {"chunks": chunks, "compression": "gzip"} if kind == "hdf5" else {}
        with h5py.File(path, "w") as file:
            file.create_dataset("X", data=X, **options)
        return h5py.File(path)["X"]
    if kind == "fortran":
        X = np.asfortranarray(X)
    if kind == "big-endian":
        X = X.astype(X.dtype.newbyteorder(">"))
    np.save(f"{path}.npy", X)
    return np.load(f"{path}.npy", mmap_mode="r")


@pytest.fixture(params=KINDS)
def store(request, tmp_path, monkeypatch):
    """A function that stores an array; parts are small."""
    monkeypatch.setattr("skem._rows.files.PART_SIZE", 2**14)
    return lambda X: stored(X, request.param, tmp_path)


def three_clusters(n_samples, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_samples, 3)) + 3 * rng.integers(0, 3, size=(n_samples, 1))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("holes", [False, True])
def test_mixture(store, weighted, holes):
    X = three_clusters(3000)
    rng = np.random.default_rng(1)
    if holes:
        X[rng.random(X.shape) < 0.1] = np.nan
    weight = rng.uniform(0.5, 2, len(X)) if weighted else None
    file = store(X)
    model = BayesianGMM_MAP(3, prior="empirical", random_state=0, tol=1e-6)
    own = model.fit(file, sample_weight=weight)
    read = vars(own).copy()
    model = BayesianGMM_MAP(**model.get_params()).fit(X, sample_weight=weight)
    assert read["n_iter_"] == model.n_iter_
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(read[name], getattr(model, name), rtol=0, atol=1e-8)
    for verb in ("predict", "predict_proba", "transform", "score_samples", "impute"):
        values = getattr(own, verb)(file)
        assert type(values) is np.ndarray
        np.testing.assert_allclose(values, getattr(model, verb)(X), rtol=0, atol=1e-8)
    for verb in ("score", "bic", "icl"):
        found = getattr(own, verb)(file, sample_weight=weight)
        np.testing.assert_allclose(found, getattr(model, verb)(X, sample_weight=weight))
    own.partial_fit(file, sample_weight=weight)
    np.testing.assert_allclose(own.means_, model.partial_fit(X, None, weight).means_)


@pytest.mark.parametrize("n_samples", [8000, 60_000])
def test_rows_of_weight_0_are_as_if_they_were_not_there(tmp_path, n_samples):
    """Half of the rows are left: few enough to be looked at, or to be sorted, as a whole."""
    X, weight = three_clusters(n_samples), np.arange(n_samples) % 2
    expected = BayesianGMM_MAP(3, random_state=0, tol=1e-6).fit(X[1::2])
    X[::2] = 1e200  # what marks cells that are not there
    for kind in ("memmap", "zarr"):
        file = stored(X, kind, tmp_path)
        found = BayesianGMM_MAP(3, random_state=0, tol=1e-6).fit(file, sample_weight=weight)
        assert found.n_iter_ == expected.n_iter_
        np.testing.assert_allclose(found.means_, expected.means_, atol=1e-8)
    found.partial_fit(file, sample_weight=weight)
    expected.partial_fit(np.load(tmp_path / "memmap.npy")[1::2])
    np.testing.assert_allclose(found.means_, expected.means_, atol=1e-8)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float16, np.uint8])
def test_bits_are_merged_whatever_their_type(store, dtype):
    probabilities = np.where(np.arange(9000)[:, None] % 2, [0.2, 0.5, 0.7], [0.9, 0.1, 0.4])
    X = (np.random.default_rng(0).random((9000, 3)) < probabilities).astype(dtype)
    model = BayesianGMM_MAP(2, prior="empirical", random_state=0, max_iter=500)
    expected = model.fit(X).means_, model.n_iter_
    model.fit(store(X))
    assert model.n_iter_ == expected[1]
    np.testing.assert_allclose(model.means_, expected[0], atol=1e-8)


@pytest.mark.parametrize("dtype", ["float64", "uint8"])
def test_shifted_template(store, dtype):
    images = make_shifted_templates(
        n_samples=200, image_shape=(6, 20), template_width=6, random_state=0
    ).X.reshape(200, 6, 20)
    if dtype == "uint8":
        images = (40 * (images - images.min())).clip(0, 255).astype(dtype)
    file = store(images)
    model = ShiftedTemplateEM(6, subset_schedule=((50, 2),), random_state=0)
    found = model.fit(file).template_, model.n_iter_, model.predict(file), model.align(file)
    model.fit(images)
    assert found[1] == model.n_iter_
    np.testing.assert_allclose(found[0], model.template_, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(found[2], model.predict(images))
    np.testing.assert_allclose(found[3], model.align(images), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "model",
    [
        BernoulliRBMCD(6, n_iter=2, random_state=0),
        BernoulliRBMCD(6, n_iter=2, early_stopping=True, random_state=0),
        VAEEstimator(2, max_iter=2, hidden_layer_sizes=(8,), random_state=0),
        VAEEstimator(
            2, max_iter=2, hidden_layer_sizes=(8,), early_stopping=True, random_state=0
        ),
        GANEstimator(4, max_iter=2, hidden_layer_sizes=(8,), random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore:mode collapse")
@pytest.mark.parametrize("holes", [False, True])
def test_minibatches(store, model, holes):
    """A file of so few parts fits in one window, and rows come in the order of memory."""
    X = (load_digits().data[:140] / 16).astype(np.float32)
    if holes and not isinstance(model, GANEstimator):
        X[::3, 20] = np.nan
    file = store(X)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
    found = model.fit(file, sample_weight=weight).transform(file)
    score = model.score(file, sample_weight=weight)
    np.testing.assert_allclose(
        model.fit(X, sample_weight=weight).transform(X), found, atol=1e-5
    )
    np.testing.assert_allclose(model.score(X, sample_weight=weight), score, rtol=1e-5)
    again = model.partial_fit(file).transform(X[:5])
    np.testing.assert_allclose(
        model.fit(X, None, weight).partial_fit(X).transform(X[:5]), again
    )


def test_machine_clips_what_it_reads(store):
    X = 3 * load_digits().data[:140] / 16 - 1
    file = store(X)
    model = BernoulliRBMCD(6, n_iter=2, random_state=0)
    with pytest.warns(UserWarning, match="clipped"):
        found = model.fit(file).components_
    np.testing.assert_allclose(model.fit(X.clip(0, 1)).components_, found)


def test_parts_cover_all_rows_once(store):
    X = np.arange(3000.0).reshape(1000, 3)
    rows = Stored(store(X))
    for index in (slice(None), slice(130, 777), slice(180, 190), slice(5, 5)):
        part, expected = rows.select(index), X[index]
        edges = part.edges()
        read = [part[a:b] for a, b in pairwise(edges)]
        np.testing.assert_array_equal(np.concatenate(part.collect(lambda X, w: X)), expected)
        np.testing.assert_array_equal(np.concatenate(read), expected)
        assert len(part) == len(expected) == edges[-1]
    np.testing.assert_array_equal(rows[130:777][np.array([3, 600, 3])], X[[133, 730, 133]])
    index = np.array([3, 600, 3, 0])
    np.testing.assert_array_equal(rows.select(slice(100, None)).take(index), X[100:][index])
    chosen = np.flatnonzero(np.random.default_rng(0).random(1000) < 0.1)
    some = rows.select(chosen)
    read = [some[a:b] for a, b in pairwise(some.edges())]
    np.testing.assert_array_equal(np.concatenate(read), X[chosen])
    np.testing.assert_array_equal(
        some.select(slice(20, 50))[np.array([3, 1])], X[chosen][[23, 21]]
    )
    np.testing.assert_array_equal(
        some.select(slice(20, None)).take(np.array([60, 1])), X[chosen][[80, 21]]
    )
    assert len(some.select(slice(5, 5))) == len(some[5:5]) == 0


class Counted:
    """An array in chunks that counts what is read of it."""

    def __init__(self, X, n_rows):
        self.X, self.n_read, self.chunks = X, 0, (n_rows, *X.shape[1:])
        self.shape, self.dtype = X.shape, X.dtype

    def __getitem__(self, key):
        rows = self.X[key]
        self.n_read += len(rows)
        return rows


def test_rows_in_random_order_read_chunks_once_or_twice(monkeypatch):
    monkeypatch.setattr("skem._rows.files.PART_SIZE", 1)
    file = Counted(np.arange(20_000.0).reshape(10_000, 2), 100)
    rows = Stored(file)
    shuffled = np.random.default_rng(0).permutation(10_000)
    order = rows.batch_order(shuffled)
    assert np.array_equal(np.sort(order), np.arange(10_000))
    assert not np.array_equal(rows.batch_order(shuffled[::-1]), order)
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        np.testing.assert_array_equal(rows[batch], file.X[batch])
    assert file.n_read <= 1.2 * len(order)
    window = order[:800] // 100  # eight chunks, from anywhere, well mixed
    assert len(np.unique(window)) == 8
    assert len(np.unique(window[:50])) == 8
    assert np.ptp(window) > 20


def test_training_reads_each_chunk_about_once_a_pass(monkeypatch):
    monkeypatch.setattr("skem._rows.files.PART_SIZE", 1)
    X = np.random.default_rng(0).random((6000, 8), np.float32).round()
    file = Counted(X, 200)
    BernoulliRBMCD(4, n_iter=2, batch_size=50, random_state=0).fit(file)
    # finite values, their range, means, rows from everywhere, and two passes
    assert file.n_read / len(X) < 4 + 2 * 1.3


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("weighted", [False, True])
def test_memory_of_a_mixture_does_not_grow_with_the_file(
    tmp_path, monkeypatch, dtype, weighted
):
    """uint8 are pixels of few colors, which are merged part by part."""
    monkeypatch.setattr("skem._rows.files.PART_SIZE", 2**20)
    monkeypatch.setattr("skem._rows.parts.CHUNK_SIZE", 2**20)
    peaks = []
    for n in (500_000, 2_000_000):
        file = np.memmap(tmp_path / f"{n}", dtype, "w+", shape=(n, 3))
        for start in range(0, n, 100_000):
            file[start : start + 100_000] = 8 + three_clusters(100_000, start)
        weight = np.ones(n) if weighted else None
        model = BayesianGMM_MAP(3, random_state=0, max_iter=2, tol=1e9)
        model.fit(file, sample_weight=weight)  # numba is imported
        tracemalloc.start()
        model.fit(file, sample_weight=weight).score(file, sample_weight=weight)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # given weights are in memory, and so is their cumulative sum
    assert peaks[1] - peaks[0] < 1.2 * 8 * 1_500_000 * weighted + 2**20


@pytest.mark.slow
def test_memory_of_chunks_is_not_held(tmp_path, monkeypatch):
    """Rows to start from come from all over the file."""
    monkeypatch.setattr("skem._rows.files.PART_SIZE", 2**18)
    X = np.random.default_rng(0).normal(size=(600_000, 10)).astype(np.float32)
    file = zarr.create_array(tmp_path / "X", shape=X.shape, chunks=(5000, 10), dtype=X.dtype)
    file[:] = X
    model = BayesianGMM_MAP(2, random_state=0, max_iter=2, tol=1e9)
    model.fit(file)
    tracemalloc.start()
    model.fit(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * X.nbytes


@pytest.mark.parametrize(
    ("model", "verb"),
    [
        (BernoulliRBMCD(2, n_iter=1, batch_size=5000, random_state=0), "score"),
        (BernoulliRBMCD(2, n_iter=1, batch_size=5000, early_stopping=True), "score"),
        (VAEEstimator(1, max_iter=1, hidden_layer_sizes=(2,), batch_size=5000), "score"),
        pytest.param(
            *(ShiftedTemplateEM(10, init="mean", max_iter=1, tol=1e9), "score"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda model: type(model).__name__ if not isinstance(model, str) else model,
)
def test_memory_of_others_is_below_that_of_the_file(tmp_path, monkeypatch, model, verb):
    monkeypatch.setattr("skem._rows.files.PART_SIZE", 2**20)
    monkeypatch.setattr("skem._rows.parts.CHUNK_SIZE", 2**19)
    file = np.memmap(tmp_path / "X", np.float32, "w+", shape=(100_000, 40))
    file[:] = np.random.default_rng(0).random(file.shape, np.float32).round()
    model.fit(np.array(file[:1000]))
    tracemalloc.start()
    getattr(model.fit(file), verb)(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * file.nbytes


def test_errors(store):
    X = three_clusters(300)
    model = BayesianGMM_MAP(2).fit(X)
    X[200, 1] = np.inf
    file = store(X)
    with pytest.raises(ValueError, match="infinity"):
        BayesianGMM_MAP(2).fit(file)
    with pytest.raises(ValueError, match="infinity"):
        model.predict(file)


def test_errors_of_shape_and_type(tmp_path):
    model = BayesianGMM_MAP(2).fit(three_clusters(300))
    wide = stored(np.ones((9, 4)), "zarr", tmp_path)
    for verb in ("predict", "partial_fit", "score"):
        with pytest.raises(ValueError, match="expecting 3 features"):
            getattr(model, verb)(wide)
    with pytest.raises(ValueError, match="at least 2 rows"):
        BayesianGMM_MAP().fit(stored(np.ones((1, 4)), "hdf5", tmp_path))
    with pytest.raises(ValueError, match="must have rows and columns"):
        BayesianGMM_MAP().fit(stored(np.ones(9), "memmap", tmp_path))
    with pytest.raises(ValueError, match="must hold numbers"):
        BayesianGMM_MAP().fit(stored(np.ones((9, 4), complex), "hdf5-unchunked", tmp_path))
    with pytest.raises(ValueError, match="sample_weight"):
        BayesianGMM_MAP().fit(wide, sample_weight=np.ones(4))


def test_a_map_that_is_copied_on_write_keeps_its_changes(tmp_path):
    np.save(tmp_path / "X.npy", three_clusters(1000))
    file = np.load(tmp_path / "X.npy", mmap_mode="c")
    file += 100
    assert BayesianGMM_MAP(1).fit(file).means_.min() > 90
    assert file.min() > 80


def test_images_of_another_shape_are_refused(tmp_path):
    stack = np.random.default_rng(0).random((60, 6, 9))
    other = stored(stack.reshape(60, 9, 6), "zarr", tmp_path)
    template = ShiftedTemplateEM(4, random_state=0).fit(stack)
    options = {"image_shape": (6, 9), "hidden_layer_sizes": (4,), "max_iter": 1}
    network = VAEEstimator(1, **options).fit(stack)
    for model, verbs in ((template, ("predict", "score")), (network, ("transform", "score"))):
        for verb in verbs:
            with pytest.raises(ValueError, match=r"images of shape \(9, 6\)"):
                getattr(model, verb)(other)
    with pytest.raises(ValueError, match="3 dimension"):
        BayesianGMM_MAP(2).fit(other)
    with pytest.raises(ValueError, match="3 dimension"):
        BernoulliRBMCD(2).fit(other)


def test_scores_of_large_weights(store):
    X = three_clusters(300)
    model = BayesianGMM_MAP(2, random_state=0).fit(X)
    found = model.score(store(X), sample_weight=np.full(300, 1e306))
    np.testing.assert_allclose(found, model.score(X))


def test_imputer(store):
    X = three_clusters(400)
    X[::3, 1] = np.nan
    imputer = LatentImputer(BayesianGMM_MAP(2, random_state=0))
    expected = imputer.fit(X).transform(X), imputer.score(X)
    file = store(X)
    np.testing.assert_allclose(imputer.fit(file).transform(file), expected[0], atol=1e-8)
    np.testing.assert_allclose(imputer.score(file), expected[1])
    default = LatentImputer().fit(file).transform(file)
    np.testing.assert_allclose(default, LatentImputer().fit_transform(X), atol=1e-8)
    for wrong in (
        {"categorical_features": [1]},
        {"missing_values": -1},
        {"add_indicator": True},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* needs? X in memory"):
            LatentImputer(**wrong).fit(file)


def test_few_rows_of_positive_weight(tmp_path):
    """Only these are sorted, to start from some of them."""
    X = three_clusters(1_000_000).astype(np.float32)
    file, weight = stored(X, "memmap", tmp_path), np.zeros(len(X))
    weight[::200] = 1
    model = BayesianGMM_MAP(3, random_state=0)
    tracemalloc.start()
    model.fit(file, sample_weight=weight)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 2
    expected = BayesianGMM_MAP(3, random_state=0).fit(X[::200])
    np.testing.assert_allclose(model.means_, expected.means_, atol=1e-5)


def test_imputer_refuses_images(tmp_path):
    images = stored(np.random.default_rng(0).random((60, 6, 9)), "zarr", tmp_path)
    with pytest.raises(ValueError, match="3 dimension"):
        LatentImputer(ShiftedTemplateEM(4, random_state=0)).fit(images)


def test_a_file_that_shrinks_is_refused(tmp_path):
    """Reading beyond its end would kill the process by a signal."""
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(5000, 4)))
    X = np.load(path, mmap_mode="r")
    model = BayesianGMM_MAP(2, random_state=0).fit(X)
    os.truncate(path, 1000)
    for read in (model.score, model.predict, BayesianGMM_MAP(2).fit):
        with pytest.raises(ValueError, match="the file of X has shrunk to 1000 bytes"):
            read(X)


def test_chunks_that_are_not_stored_are_told(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 4))
    array = stored(X, "zarr", tmp_path)
    BayesianGMM_MAP(1).fit(array)  # warnings are errors in these tests
    lost = next(path for path in tmp_path.rglob("c/0/0"))
    lost.unlink()
    with pytest.warns(UserWarning, match=r"stores \d+ of its \d+ chunks.* read as .*0"):
        BayesianGMM_MAP(1).fit(array)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        some = file.create_dataset("X", shape=(60, 4), chunks=(20, 4), dtype=float)
        some[:40] = X[:40]
        with pytest.warns(UserWarning, match="stores 2 of its 3 chunks"):
            BayesianGMM_MAP(1).fit(some)
        none = file.create_dataset("Y", shape=(60, 4), dtype=float)
        with pytest.warns(UserWarning, match="stores 0 of its 1 chunks"):
            BayesianGMM_MAP(1, prior="empirical", reg_covar=1).fit(none)


@pytest.mark.parametrize("kind", ["memmap", "zarr"])
def test_a_selection_stays_clipped(kind, tmp_path):
    X = np.random.default_rng(0).normal(size=(50, 3))
    rows = Stored(stored(X, kind, tmp_path)).clip(-0.5, 1)
    clipped, index = X.clip(-0.5, 1), np.array([3, 7, 8, 40])
    weighted = rows.reweighted(np.arange(50) % 2 * 1.0)
    np.testing.assert_array_equal(rows.select(index)[np.arange(4)], clipped[index])
    np.testing.assert_array_equal(rows.head(9)[:], clipped[:9])
    np.testing.assert_array_equal(
        rows.select(index).select(np.array([1, 3]))[:], clipped[[7, 40]]
    )
    np.testing.assert_array_equal(weighted.positive()[:], clipped[1::2])
    np.testing.assert_array_equal(rows.take(index), clipped[index])
    parts = rows.select(index).collect(lambda part, weight: part)
    np.testing.assert_array_equal(np.concatenate(parts), clipped[index])
