import pickle

import numpy as np
import pytest

from skem import BayesianGMM_MAP
from skem._rows.moments import moments
from skem._rows.parts import CHUNK_SIZE, InMemory, Ones, chunks
from skem._rows.sampling import representative_rows
from skem._threads import ThreadMap


@pytest.mark.parametrize("n_rows", [1, 2, 7, 1000])
def test_chunks_cover_all_rows_once(n_rows):
    parts = chunks(n_rows, row_size=30_000)
    assert np.concatenate([np.arange(n_rows)[p] for p in parts]).tolist() == list(range(n_rows))
    sizes = [p.stop - p.start for p in parts]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * 30_000 <= CHUNK_SIZE + 30_000


def test_moments_do_not_cancel_far_from_zero():
    rng = np.random.default_rng(0)
    X = 1e9 + rng.normal(size=(1001, 3)) * [1e-3, 1, 10]
    X[5, 1] = np.nan
    weight = rng.uniform(size=1001)
    found = moments(InMemory(X, weight))
    shifted = np.ma.masked_invalid(X - 1e9)
    mean = np.ma.average(shifted, axis=0, weights=weight)
    np.testing.assert_allclose(found.mean - 1e9, mean, atol=1e-6)
    square = (weight[:, None] * (shifted - mean) ** 2).sum(0)
    np.testing.assert_allclose(found.square, square, rtol=1e-4)
    np.testing.assert_allclose(found.weight, (weight[:, None] * ~np.isnan(X)).sum(0))
    assert (found.low, found.high) == (np.nanmin(X), np.nanmax(X))


@pytest.mark.parametrize("size", [30, 100])
def test_representative_rows_do_not_tell_weights_from_repeats(size):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 12))
    repeats = rng.integers(0, 4, size=50)
    repeated = rng.permutation(X.repeat(repeats, axis=0))
    if size == 100:
        assert len(repeated) <= size
    a, b = (
        representative_rows(rows, size, np.random.RandomState(0))
        for rows in (InMemory(X, repeats.astype(float)), InMemory(repeated))
    )
    np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_allclose(a.weight, b.weight)
    np.testing.assert_allclose(a.weight.sum(), repeats.sum())


def test_weights_broadcast_from_one_number_are_this_number():
    """The sample of 60,000 equal weights of 2 has twice the weight of unweighted rows."""
    X = np.random.default_rng(0).normal(size=(60_000, 2))
    twice = InMemory(X, np.broadcast_to(2.0, len(X)))
    samples = [
        representative_rows(rows, 500, np.random.RandomState(0))
        for rows in (InMemory(X), twice)
    ]
    assert [sample.weight.sum() for sample in samples] == pytest.approx([60_000, 120_000])
    model = BayesianGMM_MAP(2, random_state=0, max_iter=3, tol=0.1)
    one = model.fit(X[:100], sample_weight=np.broadcast_to(2.0, 100)).lower_bound_
    assert model.fit(X[:100]).lower_bound_ == pytest.approx(one)


def test_ones_are_weights_of_any_part():
    ones = Ones(10)
    for key, n in ((slice(2, 7), 5), (slice(None, None, 3), 4), (np.array([1, 1, 2]), 3)):
        assert isinstance(ones[key], Ones)
        np.testing.assert_array_equal(ones[key], np.ones(n))
    assert not np.asarray(ones).flags.writeable
    own = np.array(ones)
    own[:] = 2
    np.testing.assert_array_equal(ones, np.ones(10))
    assert np.asarray(ones, dtype=np.float32).dtype == np.float32


def test_threads_start_where_a_pickle_arrives():
    run = ThreadMap(2)
    assert list(run(abs, [-1, 2, -3])) == [1, 2, 3]
    assert list(pickle.loads(pickle.dumps(run))(abs, [-1])) == [1]
