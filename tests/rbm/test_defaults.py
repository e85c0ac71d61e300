"""Defaults that follow from the rows, values outside [0, 1], and weights set by hand."""

import pickle
import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import BernoulliRBM
from sklearn.preprocessing import MinMaxScaler

from skem import BernoulliRBMCD
from skem._rows.parts import InMemory
from skem.rbm._defaults import batch_size, dependence, n_passes, plan
from skem.rbm._training import initial_state


@pytest.fixture(scope="module")
def digits():
    return (load_digits().data > 7).astype(float)


# -- what follows from the rows ---------------------------------------------------------------


def test_small_data_get_more_passes_but_fewer_updates():
    updates = []
    for n in (1, 10, 100, 1000, 10_000, 100_000):
        size = batch_size(n)
        assert n_passes(n, size) >= 10
        updates.append(n_passes(n, size) * -(-n // size))
    assert updates == sorted(updates)
    assert updates[2] == pytest.approx(1000, rel=0.02)


def test_dependence_of_known_rows():
    """Equal binary columns, independent ones, gray ones that vary less than binary units."""
    rng = np.random.default_rng(0)
    first = (rng.random(1000) < 0.5).astype(float)
    variance = first.var()
    excess, lack = dependence(InMemory(np.stack([first, first, first], axis=1)))
    assert excess == pytest.approx(2.0)
    assert lack == pytest.approx(0, abs=1e-12)
    X = (rng.random((1000, 3)) < 0.5).astype(float)
    assert 0 <= dependence(InMemory(X))[0] < 0.2
    gray = InMemory(0.5 + 0.2 * (np.stack([first, first], axis=1) - 0.5))
    excess, lack = dependence(gray)
    assert lack == pytest.approx(1 - 0.04 * variance / 0.25, abs=1e-3)
    assert excess == pytest.approx((0.08 * variance - 0.25) / 0.25, abs=1e-3)


def test_dependence_of_rows_with_holes_and_weights():
    rng = np.random.default_rng(0)
    first = (rng.random(900) < 0.5).astype(float)
    X = np.stack([first, first, 1 - first], axis=1)
    X[rng.random(X.shape) < 0.5] = np.nan
    assert dependence(InMemory(X))[0] == pytest.approx(2.0, abs=0.2)
    other = np.concatenate([np.stack([first] * 3, 1), rng.random((90, 3))])
    weight = np.r_[np.ones(900), np.zeros(90)]
    assert dependence(InMemory(other, weight))[0] == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize("hidden_mean", [0.05, 0.5])
def test_the_start_is_an_rbm_of_independent_units(hidden_mean):
    """Orthogonal weights couple no pair of visible units; means are those given."""
    mean = np.array([0.2, 0.5, 0.7, 0.9])
    params = initial_state(mean, 32, 5, 0, scale=0.05, hidden_mean=hidden_mean).params
    gram = params.weights @ params.weights.T
    np.testing.assert_allclose(gram, 32 * 0.05**2 * np.eye(4), atol=1e-6)
    model = BernoulliRBMCD(32)
    model.components_ = params.weights.T.astype(float)
    model.intercept_visible_ = params.visible.astype(float)
    model.intercept_hidden_ = params.hidden.astype(float)
    v = np.array([[i >> j & 1 for j in range(4)] for i in range(16)], dtype=float)
    p = np.exp(model.score_samples(v))
    np.testing.assert_allclose(p @ v, mean, atol=0.01)
    np.testing.assert_allclose(p @ model.transform(v), hidden_mean, atol=0.001)
    centered = v - p @ v
    covariance = (centered.T * p) @ centered
    np.testing.assert_allclose(covariance, np.diag(mean * (1 - mean)), atol=0.005)


def test_the_step_falls_with_the_variance_and_the_number_of_units():
    narrow, wide = np.full(20, 0.5), np.full(800, 0.5)
    assert plan(narrow, 16).step == plan(narrow, 64).step == 0.4
    assert plan(wide, 64).step == pytest.approx(120 / 200 / 8)
    assert plan(wide, 256).step == pytest.approx(plan(wide, 64).step / 2)


def test_few_rows_have_many_chains(digits):
    """With ten chains, an RBM of few wide rows had states that no chain had visited."""
    for batch, chains in ((10, 50), (80, 80)):
        model = BernoulliRBMCD(6, n_iter=1, batch_size=batch, random_state=0).fit(digits[:30])
        assert model.h_samples_.shape == (chains, 6)
        assert model.partial_fit(digits[:30]).h_samples_.shape == (chains, 6)


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_gray_rows_without_dependence_keep_useful_features(load):
    """Accuracy beside scikit-learn's, and nats beside those of independent features."""
    data = load()
    n = 2 * len(data.data) // 3
    order = np.random.default_rng(0).permutation(len(data.data))
    X = MinMaxScaler().fit_transform(data.data)[order].clip(0, 1)
    y = data.target[order]
    rbms = [BernoulliRBMCD(random_state=0), BernoulliRBM(random_state=0)]
    accuracy = []
    for rbm in rbms:
        features = rbm.fit(X[:n]).transform(X)
        classifier = LogisticRegression(max_iter=1000).fit(features[:n], y[:n])
        accuracy.append(classifier.score(features[n:], y[n:]))
    assert accuracy[0] >= accuracy[1]
    mean, held = X[:n].mean(0), X[n:]
    independent = (held * np.log(mean) + (1 - held) * np.log(1 - mean)).sum(1).mean()
    assert rbms[0].score(held) > independent - min(0.005 * X.shape[1], 0.1) - 0.02


def test_gray_columns_of_few_factors_have_better_features_than_in_scikit_learn():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(900, 3))
    X = z @ rng.normal(size=(3, 20)) + rng.normal(size=(900, 20))
    X, y = MinMaxScaler().fit_transform(X).clip(0, 1), z[:, 0] > 0
    found = []
    for rbm in (BernoulliRBMCD(random_state=0), BernoulliRBM(random_state=0)):
        features = rbm.fit(X[:600]).transform(X)
        found.append(LogisticRegression().fit(features[:600], y[:600]))
        found[-1] = found[-1].score(features[600:], y[600:])
    assert found[0] > found[1] + 0.1


@pytest.mark.parametrize("n_hidden", [8, 256])
def test_the_start_couples_visible_units_weakly(digits, n_hidden):
    """The inputs of hidden units times the deviation of a hidden unit are at most 1/4."""
    X = digits[:500]
    found = plan(X.mean(0), n_hidden, InMemory(X))
    state = initial_state(X.mean(0), n_hidden, 50, 0, found.scale, found.hidden_mean)
    centered = X - X.mean(0)
    inputs = (centered @ state.params.weights).std(0).mean()
    limit = 1.0 if n_hidden >= 64 else 0.25 / np.sqrt(found.hidden_mean * 0.95)
    assert inputs <= 1.3 * limit


def test_hidden_units_are_mostly_off_unless_the_rows_are_gray(digits):
    assert BernoulliRBMCD(32, random_state=0).fit(digits[:500]).transform(digits).mean() < 0.4
    iris = MinMaxScaler().fit_transform(load_iris().data)
    assert BernoulliRBMCD(32, random_state=0).fit(iris).transform(
        iris.clip(0, 1)
    ).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_long_fits_of_tiny_data_do_not_diverge():
    """Bars and stripes: all 16 patterns, uniform -99.8 nats, entropy -41.6."""
    bits = np.array([[i >> j & 1 for j in range(3)] for i in range(8)])
    bars = np.repeat(bits[:, None], 3, axis=1).reshape(8, 9)
    X = np.concatenate([bars, np.repeat(bits, 3, axis=1)]).astype(float)
    for n_hidden, n_iter, worst in ((4, 2000, -69.1), (16, 2000, -56), (16, 6000, -56)):
        model = BernoulliRBMCD(n_hidden, n_iter=n_iter, random_state=0).fit(X)
        assert 16 * model.score(X) > worst


def test_weight_decay_does_not_move_the_means():
    """Shrinking weights alone would change the probabilities of the units."""
    X = np.tile(load_digits().data[:200] > 7, (5, 1)).astype(float)
    model = BernoulliRBMCD(16, n_iter=30, weight_decay=0.2, random_state=0).fit(X)
    np.testing.assert_allclose(model.sample(3000, 0, n_steps=50).mean(0), X.mean(0), atol=0.06)


def test_verbose_prints_a_likelihood(digits, capsys):
    BernoulliRBMCD(8, n_iter=3, verbose=1, random_state=0).fit(digits)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    values = [float(re.search(r"pseudo-log-likelihood (-\d+\.\d+) nats", s)[1]) for s in lines]
    assert values[0] < values[2] < -5
    assert lines[1].startswith("[BernoulliRBMCD] iteration 2 of 3: ")


# -- values outside [0, 1] --------------------------------------------------------------------


def test_rounding_is_allowed():
    X = MinMaxScaler().fit_transform(load_breast_cancer().data)
    assert X.max() > 1
    model = BernoulliRBMCD(4, n_iter=1, random_state=0).fit(X)
    model.partial_fit(X)
    assert np.isfinite(model.score(X))


@pytest.mark.parametrize(
    "verb", ["transform", "score_samples", "free_energy", "pseudo_log_likelihood", "gibbs"]
)
def test_no_verb_clips_in_silence(digits, verb):
    model = BernoulliRBMCD(4, n_iter=1, random_state=0).fit(digits)
    with pytest.warns(UserWarning, match="values outside \\[0, 1\\] are clipped"):
        getattr(model, verb)(7.0 * digits[:3])


def test_imputed_rows_keep_observed_values(digits):
    model = BernoulliRBMCD(4, n_iter=1, random_state=0).fit(digits)
    rows = 7.0 * digits[:3]
    rows[:, 5], rows[1, 6] = np.nan, -2
    with pytest.warns(UserWarning, match="clipped"):
        filled = model.impute(rows)
    seen = ~np.isnan(rows)
    np.testing.assert_array_equal(filled[seen], rows[seen])
    np.testing.assert_allclose(filled[:, 5], model.impute(rows.clip(0, 1))[:, 5])


# -- weights set by hand ----------------------------------------------------------------------


def by_hand(theirs):
    model = BernoulliRBMCD(len(theirs.components_), random_state=0)
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        setattr(model, name, getattr(theirs, name))
    return model


def test_weights_of_scikit_learn_have_a_likelihood(digits):
    theirs = BernoulliRBM(6, n_iter=2, random_state=0).fit(digits[:, :10])
    model = by_hand(theirs)
    v = np.array([[i >> j & 1 for j in range(10)] for i in range(2**10)], dtype=float)
    assert np.exp(model.score_samples(v)).sum() == pytest.approx(1)
    np.testing.assert_allclose(model.transform(v), theirs.transform(v), rtol=1e-6)
    assert model.sample(3).shape == model.gibbs(v[:3]).shape == (3, 10)
    v[:, 4] = np.nan
    assert np.isfinite(model.impute(v)).all()
    model.partial_fit(digits[:, :10])
    assert model.n_iter_ == 1
    assert pickle.loads(pickle.dumps(model)).log_partition() == model.log_partition()


def test_log_partition_follows_the_weights(digits):
    model = BernoulliRBMCD(6, n_iter=2, random_state=0).fit(digits)
    before = model.log_partition()
    assert model.log_partition() is before
    model.intercept_visible_[:] = 0.0  # in place
    changed = model.log_partition()
    fresh = BernoulliRBMCD(6)
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        setattr(fresh, name, getattr(model, name))
    assert changed == fresh.log_partition()
    assert changed != before


def test_partial_fit_goes_on_from_weights_set_by_hand(digits):
    model = BernoulliRBMCD(6, n_iter=2, learning_rate=1e-6, random_state=0).fit(digits)
    new = np.random.default_rng(0).normal(size=(6, 64))
    model.components_ = new
    model.partial_fit(digits)
    np.testing.assert_allclose(model.components_, new, atol=1e-3)


def test_wrong_weights_are_named(digits):
    model = by_hand(BernoulliRBM(6, n_iter=1, random_state=0).fit(digits))
    with pytest.raises(ValueError, match="X has 10 features, but components_ has 64"):
        model.score(digits[:, :10])
    model.intercept_hidden_ = np.zeros(5)
    with pytest.raises(ValueError, match="intercept_hidden_"):
        model.score(digits)
    assert not hasattr(clone(model), "components_")
