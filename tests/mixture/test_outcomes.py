"""What fits end in: groups that a sample does not show, collapse, more starts."""

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.mixture import GaussianMixture

from skem import BayesianGMM_MAP
from skem.mixture._potts import PottsPasses, neighbors


def with_rare_group(n_rare, seed, n=30_000):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2)) + [6, 0] * rng.integers(2, size=(n, 1))
    X[:n_rare] = [3, 8] + 0.5 * rng.normal(size=(n_rare, 2))
    rng.shuffle(X)
    return X


def has_mean_at(model, mean):
    return np.abs(model.means_ - mean).max(1).min() < 0.5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_rare", [20, 60])
def test_groups_of_few_rows_are_found(n_rare, seed):
    X = with_rare_group(n_rare, seed)
    found = BayesianGMM_MAP(3, random_state=seed).fit(X)
    assert has_mean_at(found, [3, 8])
    given = BayesianGMM_MAP(3, means_init=[[0, 0], [6, 0], [3, 8]], random_state=seed).fit(X)
    assert has_mean_at(given, [3, 8])
    assert found.lower_bound_ == pytest.approx(given.lower_bound_, abs=1e-3)


@pytest.mark.slow
def test_samples_are_large_enough_for_the_parameters():
    """60 features, 20 components: few more than 60 of 5000 rows for a covariance."""
    X, y = make_blobs(12_000, 60, centers=20, random_state=0)
    model = BayesianGMM_MAP(20, random_state=0).fit(X)
    assert np.linalg.eigvalsh(model.covariances_).min() > 0.1
    shares = np.bincount(y) / len(y)
    np.testing.assert_allclose(np.sort(model.weights_), np.sort(shares), atol=0.01)


@pytest.mark.parametrize("n", [400, pytest.param(12_000, marks=pytest.mark.slow)])
def test_more_starts_never_end_worse(n):
    rng = np.random.default_rng(0)
    means = 2 * rng.normal(size=(8, 3))
    for seed in range(4):
        X = means[rng.integers(8, size=n)] + rng.normal(size=(n, 3)) @ rng.normal(size=(3, 3))
        one, three, six = (
            BayesianGMM_MAP(8, n_init=k, random_state=seed, max_iter=500).fit(X).lower_bound_
            for k in (1, 3, 6)
        )
        assert three >= one - 1e-9
        assert six >= one - 1e-9


def test_default_fit_is_seldom_below_that_of_scikit_learn():
    rng, below, above = np.random.default_rng(0), 0, 0
    for seed in range(20):
        means = 2 * rng.normal(size=(5, 4))
        X = means[rng.integers(5, size=400)] + rng.normal(size=(400, 4))
        ours = BayesianGMM_MAP(5, random_state=seed).fit(X).score(X)
        theirs = GaussianMixture(5, random_state=seed).fit(X).score(X)
        below += ours < theirs - 0.05
        above += ours > theirs + 0.05
    assert below <= 1
    assert above >= below


@pytest.mark.parametrize("n", [3000, pytest.param(15_000, marks=pytest.mark.slow)])
def test_rows_without_values_do_not_shape_the_start(n):
    X, _ = make_blobs(n, 8, centers=4, random_state=0)
    for observed in (0, 1):
        holes = X.copy()
        holes[: n // 4, observed:] = np.nan
        for seed in range(3):
            model = BayesianGMM_MAP(4, random_state=seed).fit(holes)
            expected = BayesianGMM_MAP(4, random_state=seed).fit(X[n // 4 :])
            score = expected.score(X[n // 4 :])
            assert model.score(X[n // 4 :]) == pytest.approx(score, abs=0.02)


def test_a_feature_that_only_poorly_observed_rows_have():
    X, _ = make_blobs(900, 6, centers=3, random_state=0)
    X[:600, 0] = np.nan
    X[600:, 1:5] = np.nan
    model = BayesianGMM_MAP(3, prior="empirical", random_state=0).fit(X)
    assert np.isfinite(model.score(X))


def test_two_components_find_a_rare_group_too():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = np.r_[rng.normal(size=(29_960, 3)), rng.normal([8, 8, 8], 0.3, size=(40, 3))]
        assert has_mean_at(BayesianGMM_MAP(2, random_state=seed).fit(X), [8, 8, 8])


def test_many_features_with_correlations_are_told_apart():
    """Five rows for each feature and component: fits reach EM from the true groups."""
    rng, n, D, K = np.random.default_rng(0), 1500, 30, 10
    y = rng.integers(K, size=n)
    factors = rng.normal(size=(K, D, D)) / np.sqrt(D) + 0.3 * np.eye(D)
    X = np.einsum("nij,nj->ni", factors[y], rng.normal(size=(n, D)))
    X += (1.5 * rng.normal(size=(K, D)))[y]
    parts = [X[y == k] for k in range(K)]
    truth = BayesianGMM_MAP(
        K,
        weights_init=np.bincount(y) / n,
        means_init=[part.mean(0) for part in parts],
        precisions_init=[np.linalg.inv(np.cov(part.T)) for part in parts],
    ).fit(X)
    for seed in range(4):
        found = BayesianGMM_MAP(K, random_state=seed).fit(X)
        assert found.lower_bound_ > truth.lower_bound_ - 0.01


# -- collapse ------------------------------------------------------------------------------


def test_a_component_on_a_single_row_is_a_collapse():
    X = np.r_[np.random.default_rng(0).normal(size=(100, 2)), [[30, 30]]]
    with pytest.warns(ConvergenceWarning, match="collapsed onto too few rows"):
        model = BayesianGMM_MAP(2, random_state=0).fit(X)
    assert np.linalg.eigvalsh(model.covariances_).min() < 2e-6
    BayesianGMM_MAP(2, prior="empirical", random_state=0).fit(X)  # and no warning


def test_a_spike_of_many_rows_is_in_the_data():
    """Zeros of a measurement, a column of two values, rounded values."""
    rng = np.random.default_rng(0)
    zeros = np.where(rng.random(300) < 0.4, 0, rng.normal(5, 1, size=300))[:, None]
    assert BayesianGMM_MAP(2, random_state=0).fit(zeros).covariances_.min() < 2e-6
    binary = np.c_[rng.normal(size=(300, 2)), rng.integers(2, size=300)]
    BayesianGMM_MAP(2, random_state=0).fit(binary)
    BayesianGMM_MAP(3, random_state=0).fit(load_iris().data)
    repeated = np.r_[rng.normal(size=(100, 2)), np.tile([[30.0, 30.0]], (50, 1))]
    model = BayesianGMM_MAP(2, random_state=0).fit(repeated)
    assert np.linalg.eigvalsh(model.covariances_).min() < 2e-6


def test_units_in_which_reg_covar_is_large_are_named():
    """Columns of sd 1e-3: a variance of 1e-6 is all that scikit-learn's reg_covar leaves."""
    X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 1e-3, 1]
    with pytest.warns(UserWarning, match="reg_covar=1e-06 is more than 10%.*of feature 1, and"):
        BayesianGMM_MAP(1).fit(X)
    BayesianGMM_MAP(1, reg_covar=1e-9).fit(X)  # and no warning
    BayesianGMM_MAP(1, prior="empirical").fit(X)
    BayesianGMM_MAP(1).fit(X * [1, 0, 1])  # a constant column has no scale


def test_collapse_does_not_depend_on_repeats_or_the_unit_of_weights():
    X = np.r_[np.random.default_rng(0).normal(size=(60, 2)), [[30, 30]]]
    counts = np.ones(61)
    fits = []
    one_less = np.r_[1e-3, counts[1:]]
    with pytest.warns(ConvergenceWarning, match="collapsed onto"):
        BayesianGMM_MAP(2, random_state=0).fit(X, sample_weight=one_less)
    for data, weight in ((X, counts), (X, 1e-9 * counts), (X, 1e9 * counts)):
        with pytest.warns(ConvergenceWarning, match="collapsed onto"):
            fits.append(BayesianGMM_MAP(2, random_state=0).fit(data, sample_weight=weight))
    for fit in fits[1:]:
        np.testing.assert_allclose(fit.means_, fits[0].means_, rtol=1e-6)


# -- stops ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_rarely_observed_features_are_fitted_to_the_end():
    """Four of eight features are observed in 3% of the rows."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(3000, 2)) @ rng.normal(size=(2, 8)) + 0.3 * rng.normal(size=(3000, 8))
    missing = rng.random(X.shape) < [0, 0, 0, 0, 0.97, 0.97, 0.97, 0.97]
    observed = np.where(missing, np.nan, X)
    default = BayesianGMM_MAP(1, max_iter=1000).fit(observed)
    with pytest.warns(ConvergenceWarning, match="max_iter=4000"):
        exact = BayesianGMM_MAP(1, max_iter=4000, tol=0).fit(observed)
    errors = [(model.impute(observed) - X)[missing] for model in (default, exact)]
    rms = np.sqrt(np.mean(np.square(errors), axis=1))
    assert rms[0] < 1.02 * rms[1]


@pytest.mark.parametrize("seed", range(5))
def test_random_responsibilities_do_not_stay_equal(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, 2)) + [5, 0] * rng.integers(2, size=(300, 1))
    random = BayesianGMM_MAP(2, init_params="random", random_state=seed).fit(X)
    assert random.score(X) == pytest.approx(BayesianGMM_MAP(2, random_state=0).fit(X).score(X))


# -- what users set ------------------------------------------------------------------------


def test_covariances_set_by_hand_are_checked():
    model = BayesianGMM_MAP(1)
    model.weights_, model.means_ = np.ones(1), np.zeros((1, 2))
    for wrong in ([[1, 0.5], [0.2, 1]], [[1, 2], [2, 1]]):
        model.covariances_ = np.array([wrong], dtype=float)
        with pytest.raises(ValueError, match="covariances_ must be symmetric"):
            model.score_samples([[0.0, 0.0]])
    model.covariances_ = np.eye(2)
    with pytest.raises(ValueError, match=r"covariances_ has shape \(2, 2\)"):
        model.score_samples([[0.0, 0.0]])


def test_ill_conditioned_factors_keep_their_digits():
    rng = np.random.default_rng(0)
    factor = np.triu(rng.normal(size=(5, 5)))
    np.fill_diagonal(factor, 10.0 ** np.arange(-6, 9, 3))
    model = BayesianGMM_MAP(1)
    model.weights_, model.means_ = np.ones(1), np.zeros((1, 5))
    model.precisions_cholesky_ = factor[None]
    X = rng.normal(size=(20, 5)) @ np.linalg.inv(factor)
    expected = np.log(np.diag(factor)).sum() - 2.5 * np.log(2 * np.pi)
    expected = expected - 0.5 * ((X @ factor) ** 2).sum(1)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-7)


def test_coupling_needs_a_graph():
    X = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.warns(UserWarning, match="coupling has no effect"):
        BayesianGMM_MAP(2, coupling=2.0, random_state=0).fit(X)


def test_predictions_on_a_graph_are_no_worse_than_the_fit():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 1)) + 1.5 * (np.arange(400) % 20 < 10)[:, None]
    graph = grid_to_graph(20, 20)
    model = BayesianGMM_MAP(2, connectivity=graph, coupling=3.0, random_state=0).fit(X)
    passes = PottsPasses(model._fitted_model(), X, neighbors(graph, 400), 3.0)
    passes.responsibilities = model.predict_proba(X)
    bound = passes.total(model._params(model._fitted_model())).log_lik / 400
    assert bound > model.lower_bound_ - 1e-3


def test_low_concentrations_switch_components_off_but_keep_the_groups():
    """1 - T/2 and 1 - T, with T = 5 parameters of a component."""
    for n in (150, 500, 5000):
        X, _ = make_blobs(n, 2, centers=[[0, 0], [8, 0], [0, 8]], random_state=0)
        options = {"max_iter": 2000, "tol": 1e-6, "random_state": 0}
        counts = [
            (
                BayesianGMM_MAP(8, weight_concentration_prior=a, **options).fit(X).weights_ > 0
            ).sum()
            for a in (-1.5, -4)
        ]
        assert 3 <= counts[1] <= 4 <= 8 > counts[0] >= 3
