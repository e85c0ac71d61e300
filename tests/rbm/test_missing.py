"""Rows with missing values, against enumeration of small machines."""

from itertools import combinations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.special import logsumexp
from sklearn.datasets import load_digits

from skem import BernoulliRBMCD
from skem.rbm import _model as rbm
from skem.rbm import _observed as observed

V, H = 6, 4


def states(n):
    return np.array([[i >> j & 1 for j in range(n)] for i in range(2**n)], dtype=float)


def machine(n_visible=V, n_hidden=H, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return rbm.Params(
        scale * rng.normal(size=(n_visible, n_hidden)),
        rng.normal(size=n_visible),
        rng.normal(size=n_hidden),
    )


def estimator(params):
    """A machine with weights set by hand."""
    model = BernoulliRBMCD(len(params.hidden))
    model.components_ = params.weights.T
    model.intercept_visible_, model.intercept_hidden_ = params.visible, params.hidden
    return model


def log_joint(params, rows=None):
    """log p*(v) of rows, or of all visible states, by a sum over all hidden states."""
    v = states(len(params.visible)) if rows is None else rows
    h = states(len(params.hidden))
    energy = (v @ params.visible)[:, None] + h @ params.hidden + v @ params.weights @ h.T
    return logsumexp(energy, axis=1)


def completions(row):
    """All rows that agree with the observed values."""
    missing = np.flatnonzero(np.isnan(row))
    rows = np.repeat(row[None], 2 ** len(missing), axis=0)
    rows[:, missing] = states(len(missing))
    return rows


ROWS = np.array(
    [
        [1, 0, np.nan, 1, np.nan, np.nan],
        [np.nan, 0, 0, 1, 0, 1],
        [np.nan, np.nan, np.nan, np.nan, np.nan, 0],
        [0.3, 0, np.nan, 0.9, np.nan, 1],  # gray
        [1, 1, 0, 0, 1, 0],
    ]
)


@pytest.mark.parametrize("n_hidden", [1, 4, 9])
def test_the_score_is_the_marginal_of_what_is_observed(n_hidden):
    params = machine(n_hidden=n_hidden)
    log_z = logsumexp(log_joint(params))
    expected = [logsumexp(log_joint(params, completions(row))) - log_z for row in ROWS]
    model = estimator(params)
    np.testing.assert_allclose(model.score_samples(ROWS), expected, rtol=1e-10)
    np.testing.assert_allclose(model.score_samples(csr_matrix(ROWS)), expected, rtol=1e-10)
    np.testing.assert_allclose(model.free_energy(ROWS), -np.array(expected) - log_z)
    assert model.score_samples(np.full((1, V), np.nan)) == 0


@pytest.mark.parametrize("n_hidden", [1, 4, 9])
def test_enumerated_expectations(n_hidden, monkeypatch):
    """Both layers, and blocks of states."""
    params = machine(n_hidden=n_hidden, scale=3.0)
    expected = []
    for row in ROWS:
        rows = completions(row)
        log_p = log_joint(params, rows)
        expected.append(np.exp(log_p - logsumexp(log_p)) @ rows)
    model = estimator(params)
    twice = np.tile(ROWS, (2, 1))
    np.testing.assert_allclose(model.impute(twice), np.tile(expected, (2, 1)), rtol=1e-9)
    monkeypatch.setattr(observed, "BLOCK", 4)
    np.testing.assert_allclose(model.impute(ROWS), expected, rtol=1e-9)


def test_expectations_of_two_separate_modes_are_exact():
    """All pixels on or all off: Gibbs chains would stay in one of the modes."""
    params = rbm.Params(np.full((8, 1), 40.0), np.full(8, -20.0), np.array([-161.0]))
    rows = np.full((1, 8), np.nan)
    on = np.logaddexp(0, np.array([20.0])) * 8 - 161
    off = np.logaddexp(0, np.array([-20.0])) * 8
    expected = 1 / (1 + np.exp(off - on))
    np.testing.assert_allclose(
        estimator(params).impute(rows)[0], np.repeat(expected, 8), rtol=1e-6
    )


def test_annealed_chains_are_close_to_enumeration(monkeypatch):
    params = machine(12, 10, scale=1.5)
    rng = np.random.default_rng(0)
    rows = (rng.random((12, 12)) < 0.5).astype(float)
    rows[rng.random(rows.shape) < 0.7] = np.nan
    rows[0] = np.nan
    model = estimator(params)
    score, filled = model.score_samples(rows), model.impute(rows)
    assert score[0] == 0
    monkeypatch.setattr(observed, "MAX_PRODUCTS", 0)
    np.testing.assert_allclose(model.score_samples(rows), score, atol=0.25)
    many = model.impute(rows, n_chains=200, n_steps=60)
    np.testing.assert_allclose(many, filled, atol=0.05)
    one_by_one = np.concatenate([model.score_samples(row[None]) for row in rows])
    np.testing.assert_array_equal(model.score_samples(rows), one_by_one)


SLOW_CASES = [(0.6, 0.3), (0.95, 0.3), (0.6, 0.5), (0.8, 0.5), (0.95, 0.5)]


def test_pseudo_log_likelihood_of_some_units_estimates_that_of_all():
    """The mean over all single units, or over all pairs, is the sum over all units."""
    params, v = machine(), states(V)[::5]
    whole = rbm.pseudo_log_likelihood(params, v)
    for size in (1, 2, V):
        groups = list(combinations(range(V), size))
        parts = [rbm.pseudo_log_likelihood(params, v, features) for features in groups]
        np.testing.assert_allclose(np.mean(parts, axis=0), whole)


def test_pseudo_log_likelihood_is_over_observed_units():
    params = machine()
    model = estimator(params)
    row = np.array([[1.0, 0, np.nan, 1, 0, 1]])
    filled = np.rint(np.nan_to_num(row, nan=-1))
    found = model.pseudo_log_likelihood(row)[0]
    expected = []
    for guess in (0.0, 1.0):
        filled[0, 2] = guess
        log_p, total = log_joint(params, filled)[0], 0.0
        for i in (0, 1, 3, 4, 5):
            other = filled.copy()
            other[0, i] = 1 - other[0, i]
            total += log_p - np.logaddexp(log_p, log_joint(params, other)[0])
        expected.append(total)
    assert np.isclose(found, expected, rtol=1e-9).any()


@pytest.mark.parametrize(
    ("equal", "share"),
    [
        (0.8, 0.3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_CASES),
    ],
)
def test_fits_with_missing_values_keep_dependence(equal, share):
    """Two bits that are equal with a known probability."""
    rng = np.random.default_rng(0)
    first = rng.random(20_000) < 0.5
    X = np.stack([first, first ^ (rng.random(20_000) > equal)], axis=1).astype(float)
    X[rng.random(X.shape) < share] = np.nan
    model = BernoulliRBMCD(4, n_iter=30, random_state=0).fit(X)
    p = np.exp(model.score_samples(states(2)))
    assert p[0] + p[3] == pytest.approx(equal, abs=0.02)


@pytest.mark.slow
def test_digits_with_missing_values():
    """Scores of complete rows, beside a fit on complete rows and independent pixels."""
    X = (load_digits().data > 7).astype(float)
    rng = np.random.default_rng(0)
    train, test = X[:1400], X[1400:]
    full = BernoulliRBMCD(16, n_iter=60, random_state=0).fit(train).score(test)
    mean = train.mean(0).clip(0.01, 0.99)
    independent = (test * np.log(mean) + (1 - test) * np.log(1 - mean)).sum(1).mean()
    for share, kept in ((0.3, 0.9), (0.7, 0.6)):
        holes = np.where(rng.random(train.shape) < share, np.nan, train)
        score = BernoulliRBMCD(16, n_iter=60, random_state=0).fit(holes).score(test)
        assert score > independent + kept * (full - independent)


def test_columns_without_observed_values_are_refused():
    X = (load_digits().data > 7).astype(float)[:100]
    X[:, 20] = np.nan
    for one in (X, csr_matrix(X)):
        with pytest.raises(
            ValueError, match="without any observed value, the first at index 20"
        ):
            BernoulliRBMCD(4).fit(one)


def test_filled_rows_do_not_depend_on_other_rows():
    params = machine(30, 25)
    rng = np.random.default_rng(0)
    rows = (rng.random((12, 30)) < 0.5).astype(float)
    rows[:, 5:] = np.nan
    rows[11] = rows[0]
    model = estimator(params)
    filled = model.impute(rows)
    one_by_one = np.concatenate([model.impute(row[None]) for row in rows])
    np.testing.assert_allclose(filled, one_by_one, rtol=1e-12)
    np.testing.assert_allclose(model.impute(rows[::-1]), filled[::-1], rtol=1e-12)
    assert (np.diff(filled[:2], axis=0)[0, 5:] != 0).all()
    assert not np.array_equal(filled, model.impute(rows, random_state=1))


def test_errors_of_filled_rows_average_out(monkeypatch):
    """Rows that differ only in units without weights have different errors."""
    monkeypatch.setattr(observed, "MAX_PRODUCTS", 0)
    params = machine(8, 6)
    wide = rbm.Params(
        np.vstack([np.zeros((10, 6)), params.weights]), np.zeros(18), params.hidden
    )
    wide.visible[10:] = params.visible
    bits = np.random.default_rng(0).permutation(states(10))[:400]
    rows = np.hstack([bits, np.full((400, 8), np.nan)])
    every = completions(np.full(8, np.nan))
    log_p = log_joint(params, every)
    expected = np.exp(log_p - logsumexp(log_p)) @ every
    error = estimator(wide).impute(rows, n_chains=1, n_steps=10)[:, 10:] - expected
    assert np.abs(error.mean(0)).max() < np.sqrt((error**2).mean()) / 2
