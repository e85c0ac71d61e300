"""BernoulliRBMCD against exact enumeration of small machines, and as its users meet it."""

import pickle
import re

import numpy as np
import pytest
import skops.io
from numba import njit, uint32
from scipy.sparse import csr_matrix
from scipy.special import expit, gammaln, logit, logsumexp
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline

import skem.rbm._estimator
from skem import BernoulliRBMCD, History
from skem._vector_math import philox
from skem.rbm import _model as rbm
from skem.rbm._kernel import KernelWorkspace, draw
from skem.rbm._training import Options, Workspace, gradient_step, initial_state

V, H = 6, 4


def states(n):
    return np.array([[i >> j & 1 for j in range(n)] for i in range(2**n)], dtype=float)


def machine(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return rbm.Params(scale * rng.normal(size=(V, H)), rng.normal(size=V), rng.normal(size=H))


def energies(params):
    """-E(v, h) of every pair of states, (2^V, 2^H)."""
    v, h = states(V), states(H)
    return (v @ params.visible)[:, None] + h @ params.hidden + v @ params.weights @ h.T


def estimator(params):
    """An estimator that holds the given machine."""
    model = BernoulliRBMCD(n_components=H, n_iter=0).fit(states(V))
    model.components_ = params.weights.T.copy()
    model.intercept_visible_, model.intercept_hidden_ = params.visible, params.hidden
    model._log_partition = {}
    return model


@pytest.fixture(scope="module")
def digits():
    return (load_digits().data > 7).astype(float)


# -- exact ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_log_partition_is_the_sum_over_all_states(scale):
    params = machine(scale=scale)
    expected = logsumexp(energies(params))
    for one in (params, params.transposed):
        np.testing.assert_allclose(rbm.exact_log_partition(one), expected, rtol=1e-12)


def test_log_partition_of_odd_sizes():
    rng = np.random.default_rng(1)
    for n, m in ((1, 1), (9, 3), (17, 5), (3, 8), (8, 1)):
        params = rbm.Params(rng.normal(size=(n, m)), rng.normal(size=n), rng.normal(size=m))
        expected = (
            logsumexp(-rbm.free_energy(params, states(n)))
            if n < 12
            else (logsumexp(-rbm.free_energy(params.transposed, states(m))))
        )
        np.testing.assert_allclose(rbm.exact_log_partition(params), expected, rtol=1e-12)


def test_score_samples_is_the_marginal():
    params = machine()
    joint = energies(params)
    expected = logsumexp(joint, axis=1) - logsumexp(joint)
    model = estimator(params)
    np.testing.assert_allclose(model.score_samples(states(V)), expected, rtol=1e-10)
    np.testing.assert_allclose(np.exp(model.score_samples(states(V))).sum(), 1)
    np.testing.assert_allclose(model.free_energy(states(V)), -logsumexp(joint, axis=1))
    assert model.log_partition() == (pytest.approx(logsumexp(joint)), 0.0, "exact")


def test_conditionals_are_ratios_of_the_joint():
    params = machine()
    joint = np.exp(energies(params))
    given_v = joint @ states(H) / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(rbm.hidden_probabilities(params, states(V)), given_v)
    given_h = (joint.T @ states(V)) / joint.sum(0)[:, None]
    np.testing.assert_allclose(rbm.visible_probabilities(params, states(H)), given_h)
    model = estimator(params)
    np.testing.assert_allclose(model.transform(states(V)), given_v)
    np.testing.assert_allclose(model.inverse_transform(states(H)), given_h)


def test_pseudo_log_likelihood_is_the_product_of_conditionals():
    params = machine()
    log_p = logsumexp(energies(params), axis=1)
    flips = np.arange(2**V)[:, None] ^ (1 << np.arange(V))
    expected = (log_p[:, None] - np.logaddexp(log_p[:, None], log_p[flips])).sum(1)
    np.testing.assert_allclose(
        estimator(params).pseudo_log_likelihood(states(V)), expected, rtol=1e-9
    )


def test_annealed_importance_sampling_is_within_its_error():
    params = machine(scale=1.5)
    exact = logsumexp(energies(params))
    rng = np.random.default_rng(0)
    found = [
        rbm.ais_log_partition(params, params.visible, rng, n_temperatures=200, dtype=float)
        for _ in range(20)
    ]
    errors = np.array([one.value - exact for one in found])
    stated = np.array([one.standard_error for one in found])
    assert stated.max() < 0.2
    assert np.abs(errors.mean()) < 3 * np.sqrt((stated**2).mean() / 20)
    assert 0.5 < errors.std() / stated.mean() < 2


def test_log_partition_finds_states_far_from_the_rows():
    """With equal weights, states differ only in the numbers of units that are on."""
    n, weight, bias = 30, 0.5, -6.5
    on = np.arange(n + 1)
    states = gammaln(n + 1) - gammaln(on + 1) - gammaln(n + 1 - on)
    energy = weight * np.outer(on, on) + bias * (on[:, None] + on)
    exact = logsumexp(states[:, None] + states + energy)
    params = rbm.Params(np.full((n, n), weight), np.full(n, bias), np.full(n, bias))
    rare = np.full(n, logit(0.01))  # rows in which hardly any unit is on
    alone = rbm.ais_log_partition(params, rare, np.random.default_rng(0))
    assert alone.value < exact - 10, "annealing from the rows misses the other states"
    found = rbm.log_partition(params, rare, np.random.default_rng(0))
    assert found.value == pytest.approx(exact, abs=0.05)
    # and without such states, the estimate is that of the rows
    weak = rbm.Params(np.full((n, n), 0.01), np.full(n, bias), np.full(n, bias))
    alone = rbm.ais_log_partition(weak, rare, np.random.default_rng(0))
    assert rbm.log_partition(weak, rare, np.random.default_rng(0)) == alone


def test_gibbs_samples_have_the_marginals():
    params = machine()
    joint = np.exp(energies(params))
    expected = joint.sum(1) @ states(V) / joint.sum()
    X = estimator(params).sample(20_000, random_state=0, n_steps=60)
    np.testing.assert_allclose(X.mean(0), expected, atol=0.015)


def test_imputation_is_the_conditional_mean():
    params = machine()
    joint = np.exp(energies(params)).sum(1)
    row = np.array([1.0, 0, np.nan, 1, np.nan, np.nan])
    seen = ~np.isnan(row)
    fits = (states(V)[:, seen] == row[seen]).all(1)
    expected = (joint[fits] @ states(V)[fits]) / joint[fits].sum()
    filled = estimator(params).impute(row[None], n_chains=200, n_steps=60)
    np.testing.assert_allclose(filled[0], expected, atol=0.02)


def workspace(kind, *args):
    if kind == "numpy":
        return Workspace(*args)
    return KernelWorkspace(*args, sparse=kind == "gathered", n_threads=1 + (kind == "gathered"))


@pytest.mark.parametrize("kind", ["numpy", "compiled", "gathered"])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_expected_update_is_the_gradient(persistent, centered, kind):
    """Many Gibbs steps are exact: the mean update is that of enumeration."""
    rng = np.random.default_rng(2)
    params = machine(scale=0.5)
    data = states(V)[rng.integers(2**V, size=50)]
    weight = rng.dirichlet(np.ones(50))
    joint = np.exp(energies(params) - logsumexp(energies(params)))
    v, h = joint.sum(1) @ states(V), joint.sum(0) @ states(H)
    model_pairs = states(V).T @ joint @ states(H)
    h_data = expit(data @ params.weights + params.hidden)
    dW = (data * weight[:, None]).T @ h_data - model_pairs
    dv, dh = weight @ data - v, weight @ h_data - h
    mu, lam = weight @ data, weight @ h_data
    if centered:
        dW -= np.outer(mu, dh) + np.outer(dv, lam)
        db, dc = dv - dW @ lam, dh - dW.T @ mu
    else:
        db, dc = dv, dh
    state = initial_state(data.mean(0), H, 50, 0)
    options = Options(persistent, 12, centered, 0.0)
    space = workspace(kind, state, 50, options, 3)
    total = [0.0, 0.0, 0.0]
    repeats = 1500
    for _ in range(repeats):
        for name in ("weights", "visible", "hidden"):
            getattr(state.params, name)[:] = getattr(params, name)
        state.visible_mean[:], state.hidden_mean[:] = mu, lam
        state.rows[V:] = state.rows[:V:2] + state.rows[1:V:2]
        gradient_step(state, data, weight.astype(np.float32), 1.0, space)
        for i, name in enumerate(("weights", "visible", "hidden")):
            total[i] = total[i] + getattr(state.params, name) - getattr(params, name)
    for found, expected in zip(total, (dW, db, dc), strict=True):
        np.testing.assert_allclose(found / repeats, expected, atol=0.012)


@pytest.mark.parametrize("n_visible", [9, 12])
def test_compiled_products_are_matrix_products(n_visible):
    """Odd numbers of pixels, values between 0 and 1, rows and columns of zeros."""
    rng = np.random.default_rng(0)
    batch = rng.random((7, n_visible)).astype(np.float32)
    batch[rng.random(batch.shape) < 0.5] = 0
    batch[rng.random(batch.shape) < 0.3] = 1
    batch[2], batch[:, 4] = 0, 0
    states, weight = [], rng.dirichlet(np.ones(7)).astype(np.float32)
    for kind in ("numpy", "gathered"):
        state = initial_state(batch.mean(0), 5, 7, 0)
        space = workspace(kind, state, 7, Options(decay=0.3), 0)
        space.v[:14], space.h[14:16], space.v[14:16] = np.tile(batch, (2, 1)), 0.5, 0.25
        space.hidden_inputs(slice(0, 14))
        expected = space.v[:14] @ state.params.weights
        np.testing.assert_allclose(space.h[:14], expected, rtol=1e-4, atol=1e-6)
        space.ascend(np.concatenate([weight, -0.3 * weight, [1, 1]]).astype(np.float32), 0.7)
        states.append(state)
    np.testing.assert_allclose(
        states[0].params.weights, states[1].params.weights, rtol=1e-4, atol=1e-6
    )
    pairs = states[1].rows[: n_visible // 2 * 2].reshape(n_visible // 2, 2, 5).sum(1)
    np.testing.assert_allclose(states[1].rows[n_visible:], pairs, rtol=1e-5, atol=1e-6)


def test_compiled_draws_are_philox_and_uniform():
    @njit
    def words(a, b, c, d, key, other):
        return philox(uint32(a), uint32(b), uint32(c), uint32(d), uint32(key), uint32(other))

    assert words(0, 0, 0, 0, 0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    pi = 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0
    assert words(*pi) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
    x = np.tile(np.linspace(-6, 6, 13, dtype=np.float32), (40_000, 1))
    bias, out = np.full(13, 0.5, np.float32), np.empty_like(x)
    draw(x, bias, out, np.uint64(5), 3, 1, 0)
    expected = expit(np.linspace(-6, 6, 13) + 0.5)
    np.testing.assert_allclose(x[0], expected, rtol=1e-6)
    error = np.sqrt(expected * (1 - expected) / len(x))
    assert (np.abs(out.mean(0) - expected) < 4 * error).all()
    correlation = np.corrcoef(out[:-1, 3:10].T, out[1:, 3:10].T)
    assert np.abs(correlation - np.eye(14)).max() < 0.025
    part = np.empty_like(x[20:])
    draw(np.zeros_like(part), bias, part, np.uint64(5), 3, 1, 20)
    whole = np.empty_like(x)
    draw(np.zeros_like(x), bias, whole, np.uint64(5), 3, 1, 0)
    np.testing.assert_array_equal(part, whole[20:])


def test_compiled_fits_are_as_good(monkeypatch):
    """Dense and gathered, one thread and two; the first machine is fitted by NumPy."""
    X = (load_digits().data > 12).astype(float)
    options = {"n_iter": 40, "batch_size": 60, "random_state": 0, "learning_rate": 0.2}
    found = [BernoulliRBMCD(16, **options).fit(X).score(X)]
    monkeypatch.setattr("skem.rbm._machine.MIN_FAST", 0)
    monkeypatch.setattr("skem.rbm._machine.MIN_SPARSE", 0)
    for density, n_jobs in ((0.0, 1), (1.0, 1), (1.0, 2)):
        monkeypatch.setattr("skem.rbm._machine.MAX_DENSITY", density)
        found.append(BernoulliRBMCD(16, **options, n_jobs=n_jobs).fit(X).score(X))
    assert np.ptp(found) < 0.35
    base = X.mean(0).clip(1e-3, 1 - 1e-3)
    independent = (X * np.log(base) + (1 - X) * np.log(1 - base)).sum(1).mean()
    assert min(found) > independent + 2


# -- learning ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_learns_digits_better_than_scikit_learn(digits):
    model = BernoulliRBMCD(16, n_iter=30, random_state=0).fit(digits)
    theirs = BernoulliRBM(16, n_iter=30, random_state=0, learning_rate=0.05).fit(digits)
    other = estimator(machine())
    other.components_ = theirs.components_
    other.intercept_visible_ = theirs.intercept_visible_
    other.intercept_hidden_ = theirs.intercept_hidden_
    other.n_features_in_ = 64
    mean = digits.mean(0).clip(1e-3, 1 - 1e-3)
    base = (digits * np.log(mean) + (1 - digits) * np.log(1 - mean)).sum(1).mean()
    assert model.score(digits) > base + 4
    assert model.score(digits) > other.score(digits)


@pytest.mark.parametrize("n", [101, 15, 7])
@pytest.mark.parametrize("algorithm", ["cd", "pcd"])
def test_short_batches_do_not_bias_the_model(n, algorithm):
    rng = np.random.default_rng(0)
    X = (rng.random((n, 20)) < 0.5).astype(float)
    model = BernoulliRBMCD(
        3, n_iter=60, random_state=0, learning_rate=0.05, algorithm=algorithm, batch_size=10
    )
    model.fit(X)
    np.testing.assert_allclose(model.sample(4000, 0, n_steps=100).mean(), X.mean(), atol=0.05)


def test_partial_fit_goes_on(digits):
    model = BernoulliRBMCD(16, random_state=0)
    scores = []
    for _ in range(3):
        for _ in range(8):
            assert model.partial_fit(digits.astype(np.float32)) is model
        scores.append(model.score(digits))
    assert scores[0] < scores[1] < scores[2]
    assert model.components_.dtype == np.float32
    assert model.n_iter_ == 24


def test_pickles_go_on_alike(digits):
    model = BernoulliRBMCD(8, n_iter=2, random_state=0).fit(digits)
    dumped = skops.io.dumps(model)
    unknown = skops.io.get_untrusted_types(data=dumped)
    copies = [pickle.loads(pickle.dumps(model)), skops.io.loads(dumped, trusted=unknown)]
    model.partial_fit(digits)
    for copy in copies:
        copy.partial_fit(digits)
        np.testing.assert_array_equal(copy.components_, model.components_)


def test_reproducible_without_the_global_generator(digits):
    before = np.random.get_state()[1].copy()
    one = BernoulliRBMCD(8, n_iter=2, random_state=0).fit(digits)
    two = BernoulliRBMCD(8, n_iter=2, random_state=0).fit(digits)
    np.testing.assert_array_equal(one.components_, two.components_)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_sparse_is_dense(digits):
    one = BernoulliRBMCD(8, n_iter=3, random_state=0).fit(digits)
    two = BernoulliRBMCD(8, n_iter=3, random_state=0).fit(csr_matrix(digits))
    np.testing.assert_allclose(one.components_, two.components_, rtol=1e-9)
    np.testing.assert_allclose(
        one.score_samples(csr_matrix(digits)), one.score_samples(digits), rtol=1e-9
    )


@pytest.mark.slow
def test_missing_pixels(digits):
    rng = np.random.default_rng(0)
    missing = rng.random(digits.shape) < 0.3
    X = np.where(missing, np.nan, digits)
    model = BernoulliRBMCD(48, n_iter=50, random_state=0).fit(X)
    filled = model.impute(X[:300])
    np.testing.assert_array_equal(filled[~missing[:300]], digits[:300][~missing[:300]])
    wrong = ((filled > 0.5) != digits[:300])[missing[:300]].mean()
    mean = np.nanmean(X, 0) > 0.5
    assert wrong < 0.6 * (mean != digits[:300])[missing[:300]].mean()
    assert np.isfinite(model.transform(X)).all()
    X[:, 3] = np.nan
    with pytest.raises(ValueError, match="without any observed value"):
        model.fit(X)


def test_large_machines_are_scored_by_sampling(digits):
    model = BernoulliRBMCD(32, n_iter=3, random_state=0).fit(digits)
    found = model.log_partition()
    assert found.method == "ais"
    assert 0 < found.standard_error < 0.5
    assert model.log_partition() is found


def test_values_outside_the_unit_interval_are_said(digits):
    with pytest.warns(UserWarning, match="outside \\[0, 1\\]"):
        BernoulliRBMCD(4, n_iter=1).fit(load_digits().data)


def test_in_a_search_and_a_pipeline(digits):
    y = load_digits().target
    search = GridSearchCV(
        BernoulliRBMCD(n_iter=5, random_state=0), {"n_components": [2, 16]}, cv=3
    ).fit(digits)
    assert search.best_params_ == {"n_components": 16}
    accuracy = [
        make_pipeline(machine, LogisticRegression(max_iter=1000))
        .fit(digits[:1200], y[:1200])
        .score(digits[1200:], y[1200:])
        for machine in (
            BernoulliRBMCD(64, n_iter=50, random_state=0),
            BernoulliRBM(64, n_iter=50, learning_rate=0.05, random_state=0),
        )
    ]
    assert accuracy[0] > max(0.85, accuracy[1] - 0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"algorithm": "ml"}, "algorithm"),
        ({"n_gibbs_steps": 0}, "n_gibbs_steps"),
        ({"weight_decay": -1}, "weight_decay"),
    ],
)
def test_wrong_parameters_are_named(digits, options, message):
    with pytest.raises(ValueError, match=message):
        BernoulliRBMCD(**options).fit(digits)


def test_a_step_that_is_too_large_is_said(digits):
    with pytest.raises(ValueError, match="learning_rate"), np.errstate(all="ignore"):
        BernoulliRBMCD(8, learning_rate=1e300, n_iter=3, random_state=0).fit(digits)


@pytest.mark.filterwarnings("ignore:X has a single row")
def test_wrong_codes_are_refused(digits):
    model = BernoulliRBMCD(8, n_iter=1, random_state=0).fit(digits)
    with pytest.raises(ValueError, match="8 are needed"):
        model.inverse_transform(np.ones((2, 5)))
    with pytest.raises(ValueError, match="n_samples must be"):
        model.sample(0)
    for verb, options in (
        ("gibbs", {"n_steps": -1}),
        ("impute", {"n_steps": 0}),
        ("impute", {"n_chains": 1.5}),
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            getattr(model, verb)(digits[:2], **options)
    with pytest.raises(ValueError, match="one row"):
        model.log_partition(digits[:1])
    with pytest.raises(ValueError, match="n_components=9"):
        model.set_params(n_components=9).partial_fit(digits)
    weight = np.zeros(len(digits))
    weight[0] = 1
    with pytest.raises(ValueError, match="sample_weight"):
        BernoulliRBMCD(4, early_stopping=True, random_state=0).fit(digits, None, weight)


def test_sparse_rows_with_missing_values(digits):
    X = csr_matrix(digits)
    X.data[::7] = np.nan
    one = BernoulliRBMCD(8, n_iter=3, random_state=0).fit(X)
    two = BernoulliRBMCD(8, n_iter=3, random_state=0).fit(X.toarray())
    np.testing.assert_allclose(one.components_, two.components_, atol=1e-4)
    assert one.sample(2).dtype == float


def test_few_updates_are_not_lost(digits):
    """The averaged weights are the last ones while there are few."""
    model = BernoulliRBMCD(8, n_iter=1, batch_size=600, random_state=0).fit(digits)
    assert model.score(digits) > -30
    np.testing.assert_allclose(
        model.components_.T, model._last["weights"], rtol=1e-6, atol=1e-8
    )


def test_the_weights_of_the_best_score_are_kept(digits):
    seen = []

    def keep(model, X):
        seen.append(model.components_.copy())
        return 0.0

    model = BernoulliRBMCD(
        48,
        learning_rate=0.3,
        schedule="constant",
        n_iter=60,
        early_stopping=True,
        random_state=0,
    )
    model.set_callbacks(History(scoring=keep)).fit(digits[:200])
    best = int(np.argmax(model.validation_scores_))
    assert best < model.n_iter_ - 1
    np.testing.assert_array_equal(model.components_, seen[best])
    assert not np.array_equal(model.components_, seen[-1])


def test_early_stopping_returns_to_the_best_weights(digits):
    few = digits[:200]
    options = {"n_components": 48, "random_state": 0, "learning_rate": 0.3, "batch_size": 10}
    stopped = BernoulliRBMCD(
        **options, n_iter=200, early_stopping=True, n_iter_no_change=4
    ).fit(few)
    assert stopped.n_iter_ < 200
    assert len(stopped.validation_scores_) == stopped.n_iter_
    best, *later = stopped.validation_scores_[-5:]
    assert max(later) <= best + stopped.tol
    others = digits[200:]
    longer = BernoulliRBMCD(**options, n_iter=200).fit(few)
    found = [m.pseudo_log_likelihood(others).mean() for m in (stopped, longer)]
    assert found[0] > found[1]
    with pytest.raises(ValueError, match="validation_fraction"):
        BernoulliRBMCD(early_stopping=True).fit(digits[:2])


def test_an_interrupted_fit_keeps_what_it_has(digits, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("skem.rbm._machine.validation_score", stop)
    with pytest.warns(ConvergenceWarning, match="interrupted after 1 iteration"):
        model = BernoulliRBMCD(4, n_iter=3, early_stopping=True, random_state=0).fit(digits)
    assert np.isfinite(model.score(digits))
    assert model.n_iter_ == 1


def test_every_call_of_partial_fit_counts(digits):
    model = BernoulliRBMCD(4, batch_size=len(digits), random_state=0)
    before = None
    for _ in range(25):
        after = model.partial_fit(digits).components_.copy()
        assert before is None or not np.array_equal(before, after)
        before = after
    assert BernoulliRBMCD(4, batch_size=50).partial_fit(digits[:1]).h_samples_.shape == (50, 4)


def test_weights_count_in_batches_of_any_size():
    """Two groups of rows, one nine times as heavy: its share of the samples is 0.9."""
    rng = np.random.default_rng(0)
    groups = np.repeat([[1] * 4 + [0] * 4, [0] * 4 + [1] * 4], 500, axis=0)
    X, weight = np.abs(groups - (rng.random(groups.shape) < 0.1)), np.repeat([9.0, 1.0], 500)
    for size, scale in ((2, 1.0), (50, 1e-60)):
        model = BernoulliRBMCD(8, batch_size=size, n_iter=10, random_state=0)
        model.fit(X, sample_weight=scale * weight)
        share = (model.sample(1000, 0, n_steps=300)[:, :4].mean(1) > 0.5).mean()
        assert 0.7 < share < 0.98, (size, share)


def test_complete_rows_are_returned(digits):
    model = BernoulliRBMCD(4, n_iter=1, random_state=0).fit(digits)
    np.testing.assert_array_equal(model.impute(digits[:5]), digits[:5])
    with pytest.raises(NotFittedError):
        BernoulliRBMCD().score(digits)


@pytest.mark.parametrize("centered", [True, False])
def test_weights_that_grow_without_end_are_told(centered):
    model = BernoulliRBMCD(
        2, n_iter=2, learning_rate=1e30, centered=centered, weight_decay=0, random_state=0
    )
    with pytest.raises(ValueError, match="learning_rate"):
        model.fit(np.ones((3, 3)))


def test_a_doubtful_partition_function_is_told(monkeypatch):
    model = BernoulliRBMCD(2, n_iter=1, random_state=0).fit(np.eye(4))
    doubtful = rbm.LogPartition(3.0, 0.9, "ais")
    monkeypatch.setattr(skem.rbm._estimator, "log_partition", lambda *given: doubtful)
    with pytest.warns(ConvergenceWarning, match=r"standard error of at least 0.9.*not mix"):
        model.log_partition()


def test_verbose_prints_the_score_of_each_pass(capsys):
    X = (np.random.default_rng(0).random((300, 6)) < 0.3).astype(float)
    model = BernoulliRBMCD(2, n_iter=4, early_stopping=True, verbose=1, random_state=0).fit(X)
    printed = re.findall(r"validation score (-?[0-9.]+)", capsys.readouterr().out)
    assert [float(value) for value in printed] == [
        pytest.approx(score, abs=6e-4) for score in model.validation_scores_[: len(printed)]
    ]
    assert len(printed) >= model.n_iter_
