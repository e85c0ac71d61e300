"""Default fits: of tables beside factor analysis, and which likelihood features have."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_iris,
    load_linnerud,
    load_wine,
)
from sklearn.decomposition import FactorAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skem import VAEEstimator


def halves(X, seed=0):
    X = X[np.random.default_rng(seed).permutation(len(X))]
    n = 2 * len(X) // 3
    scaler = StandardScaler().fit(X[:n])
    return scaler.transform(X[:n]), scaler.transform(X[n:])


@pytest.mark.slow
@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_no_worse_than_factor_analysis(load):
    X, test = halves(load().data)
    model = VAEEstimator(random_state=0).fit(X)
    d = min(model.n_components, X.shape[1])
    assert model.score(test) > FactorAnalysis(d, random_state=0).fit(X).score(test) - 0.1
    again = VAEEstimator(random_state=0, max_iter=3000).fit(X)
    assert again.score(test) > model.score(test) - 0.1


@pytest.mark.slow
def test_few_rows_are_no_worse_than_by_factor_analysis():
    """A single split says little: a far row may be in either part."""
    gains = []
    for load in (load_linnerud, load_iris, load_wine):
        for seed in range(6):
            X, test = halves(load().data, seed)
            X = X[:40]
            d = min(10, *X.shape)
            own = VAEEstimator(random_state=0).fit(X).score(test)
            gains.append(own - FactorAnalysis(d, random_state=0).fit(X).score(test))
    assert (np.mean(np.reshape(gains, (3, 6)), axis=1) > -0.1).all()


def test_few_rows_take_one_pass_and_are_factor_analysis():
    X = np.random.default_rng(0).normal(size=(15, 3))
    model = VAEEstimator(random_state=0).fit(X)
    assert model.n_iter_ == 1
    assert VAEEstimator(random_state=0, max_iter=1).fit(X).score(X) == model.score(X)
    assert VAEEstimator(random_state=0, max_iter=7, early_stopping=False).fit(X).n_iter_ == 7
    assert VAEEstimator(random_state=0, max_iter=7).fit(1.0 * (X > 0)).n_iter_ == 7
    # what a user asks for on top of a fit is trained
    model.set_params(warm_start=True, max_iter=5).fit(X)
    assert model.n_iter_ == 6


def test_at_least_ten_rows_are_held_out_by_default(monkeypatch):
    seen, score = [], VAEEstimator._validation_score

    def noted(self, training, rows, chosen):
        seen.append(len(chosen))
        return score(self, training, rows, chosen)

    monkeypatch.setattr(VAEEstimator, "_validation_score", noted)
    X = np.random.default_rng(0).normal(size=(300, 3))
    for n, expected in ((24, 8), (40, 10), (300, 30)):
        VAEEstimator(2, max_iter=1, random_state=0).fit(X[:n])
        assert seen[-1] == expected
    VAEEstimator(2, max_iter=1, early_stopping=True, random_state=0).fit(X[:40])
    assert seen[-1] == 4


@pytest.mark.slow
@pytest.mark.parametrize("max_iter", [5, 50, 500])
def test_longer_fits_are_no_worse(max_iter):
    X, test = halves(load_wine().data)
    scores = [
        VAEEstimator(random_state=0, max_iter=n).fit(X).score(test) for n in (max_iter, 1500)
    ]
    assert scores[1] > scores[0] - 0.1


def test_an_exact_line_has_little_noise():
    t = np.random.default_rng(0).normal(size=(300, 1))
    X = t * [1.0, 2.0, -3.0, 0.5] + [0, 1, 2, 3]
    model = VAEEstimator(2, random_state=0).fit(X)
    assert model.score(X) > 15
    drawn = model.sample(500, random_state=0)
    np.testing.assert_allclose(drawn[:, 1], 2 * drawn[:, 0] + 1, atol=0.05)


def test_constant_columns_stay_constant():
    X = np.c_[load_iris().data, np.full(150, 7.0)]
    model = VAEEstimator(2, max_iter=10, random_state=0).fit(X)
    np.testing.assert_allclose(model.sample(200, random_state=0)[:, 4], 7, atol=0.01)
    assert np.isfinite(model.score(X))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("d", [2, 8, 32])
def test_mean_scores_of_probabilistic_pca_are_right(d, seed):
    """The posterior is then exact: every score is log p(x) but for the error of the draws."""
    rng = np.random.default_rng(0)
    W = rng.normal(size=(40, d))
    X = rng.normal(size=(600, d)) @ W.T + 0.5 * rng.normal(size=(600, 40))
    options = {"hidden_layer_sizes": (), "max_iter": 1, "learning_rate_init": 1e-30}
    model = VAEEstimator(d, **options, random_state=seed, early_stopping=False).fit(X)
    network, scale = model._fitted(np.float64).network, model._scaling["scale"]
    loadings = network.base.to_row.numpy() * scale[:, None]
    noise = np.exp(network.log_variance.detach().numpy()) * scale**2
    mean = network.base.row_mean.numpy() * scale + model._scaling["offset"]
    exact = multivariate_normal(mean, loadings @ loadings.T + np.diag(noise)).logpdf(X).mean()
    # training moves the noise variances by a hundredth of what their draws say
    encoder_gap = 0.05
    assert exact - encoder_gap - 0.02 < model.score(X) < exact + 0.02


# -- which likelihood -------------------------------------------------------------------------


def test_auto_looks_at_the_values():
    rng = np.random.default_rng(0)
    options = {"max_iter": 1, "hidden_layer_sizes": (4,)}
    digits = load_digits().data / 16

    def chosen(X, **more):
        return VAEEstimator(2, **options, **more).fit(X).likelihood_

    assert chosen(1.0 * (digits > 0.5)) == "bernoulli"
    assert chosen(digits, image_shape=(8, 8)) == "bernoulli"
    assert chosen(digits) == "gaussian"
    assert chosen(16 * digits, image_shape=(8, 8)) == "gaussian"
    for X in (load_iris().data, load_wine().data, rng.normal(size=(100, 3))):
        assert chosen(MinMaxScaler().fit_transform(X)) == "gaussian"
    one_hot = np.eye(5)[rng.integers(5, size=200)]
    assert chosen(np.c_[one_hot, rng.random((200, 3))]) == "gaussian"
    assert chosen(one_hot) == "bernoulli"


def test_anomalies_beyond_the_range_have_low_scores():
    X = MinMaxScaler().fit_transform(load_wine().data)
    for likelihood in ("auto", "bernoulli"):
        model = VAEEstimator(likelihood=likelihood, max_iter=20, random_state=0).fit(X)
        for shift in (1, 10, 1000):
            moved = X.copy()
            moved[:, 3] += shift
            if likelihood == "bernoulli":
                with pytest.warns(UserWarning, match="outside of 0 and 1"):
                    scores = model.score_samples(moved)
            else:
                scores = model.score_samples(moved)
            both = np.r_[model.score_samples(X), scores]
            assert roc_auc_score(np.repeat([1, 0], len(X)), both) > 0.99


def test_rounding_of_min_max_scalers_is_no_matter():
    X = MinMaxScaler().fit_transform(load_digits().data[:200])
    X[3, 20], X[4, 20] = 1.0000000000000002, -1e-17
    model = VAEEstimator(2, likelihood="bernoulli", max_iter=1, random_state=0).fit(X)
    model.partial_fit(X).set_params(warm_start=True).fit(X)
    assert np.isfinite(model.score(X))
    assert VAEEstimator(2, image_shape=(8, 8), max_iter=1).fit(X).likelihood_ == "bernoulli"


def test_bytes_and_channels_are_told():
    images = np.random.default_rng(0).integers(0, 256, size=(30, 3, 8, 8), dtype=np.uint8)
    model = VAEEstimator(2, image_shape=(8, 8, 3), max_iter=1)
    with pytest.raises(ValueError, match="moveaxis"):
        model.fit(images)
    with pytest.warns(UserWarning, match="X by 255"):
        model.fit(np.moveaxis(images, 1, -1))


@pytest.mark.filterwarnings("ignore:X has a single row")
def test_wide_rows_and_few_rows():
    rng = np.random.default_rng(0)
    for shape in ((1, 3), (2, 3), (7, 40), (30, 200)):
        X = rng.normal(size=shape)
        model = VAEEstimator(max_iter=2, random_state=0).fit(X)
        assert np.isfinite(model.score(X))
        holes = np.where(rng.random(shape) < 0.1, np.nan, X)
        assert np.isfinite(model.impute(holes)).all()


def test_few_binary_rows_are_learned_before_early_stopping():
    """While the KL divergence is phased in, bounds may fall: no reason to stop."""
    rng = np.random.default_rng(0)
    weights = 2 * rng.normal(size=(2, 12))
    logits = rng.normal(size=(800, 2)) @ weights
    X = 1.0 * (rng.random(logits.shape) < 1 / (1 + np.exp(-logits)))
    X, test = X[:300], X[300:]
    model = VAEEstimator(2, hidden_layer_sizes=(16,), random_state=0).fit(X)
    p = (X.sum(0) + 0.5) / (len(X) + 1)
    apart = (test * np.log(p) + (1 - test) * np.log1p(-p)).sum(1).mean()
    assert model.score(test) > apart + 0.5


@pytest.mark.parametrize(
    ("missing", "allowed"), [(0.2, 0.025), pytest.param(0.5, 0.06, marks=pytest.mark.slow)]
)
def test_correlations_survive_missing_values(missing, allowed):
    rng = np.random.default_rng(0)
    X = np.sqrt(0.735) * rng.normal(size=(1000, 1)) + np.sqrt(0.265) * rng.normal(
        size=(1000, 4)
    )
    pairs = np.triu_indices(4, 1)
    complete = np.corrcoef(X.T)[pairs].mean()
    model = VAEEstimator(hidden_layer_sizes=(64,), random_state=0)
    model.fit(np.where(rng.random(X.shape) < missing, np.nan, X))
    found = np.corrcoef(model.sample(40_000, random_state=0).T)[pairs].mean()
    assert found == pytest.approx(complete, abs=allowed)


@pytest.mark.parametrize("n", [8, 19])
def test_few_rows_are_a_better_factor_analysis(n):
    """Rows of one factor: the maximum of the likelihood describes the rows at hand too well."""
    gains = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        W = rng.normal(size=(1, 5))
        X, new = (rng.normal(size=(m, 1)) @ W + rng.normal(size=(m, 5)) for m in (n, 500))
        model = VAEEstimator(1, random_state=0).fit(X)
        factors = FactorAnalysis(1, tol=1e-6, max_iter=5000).fit(X)
        gains.append(model.score(new) - factors.score(new))
    assert np.mean(gains) > 0


@pytest.mark.parametrize(("offset", "scale"), [(1e6, 1), (0, 1e100), (1e12, 1e4)])
def test_validation_scores_do_not_depend_on_the_units(offset, scale):
    """Rows held out are standardized in float64, before they become float32."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(200, 5))
    model = VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=4, random_state=0)
    scores = np.array(model.fit(X).validation_scores_)
    other = np.array(model.fit(scale * X + offset).validation_scores_)
    np.testing.assert_allclose(other + 5 * np.log(scale), scores, atol=1e-3)
