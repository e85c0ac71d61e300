"""A uniform background, against its density written out."""

import pickle

import dask.array as da
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from skem import BayesianGMM_MAP

TYPES = ["full", "tied", "diag", "spherical"]


def table(n=400, share=0.1, n_features=2, seed=0):
    """Three clusters, and rows anywhere in a large box; label -1."""
    rng = np.random.default_rng(seed)
    means = 4 * np.eye(3, n_features) * [[1], [1], [-1]]
    labels = rng.integers(3, size=n)
    X = means[labels] + 0.7 * rng.normal(size=(n, n_features))
    errors = rng.random(n) < share
    X[errors] = rng.uniform(-30, 30, size=X.shape)[errors]
    return X, np.where(errors, -1, labels)


def plain_densities(model, X, weights, means, covariances):
    """p(x | Gaussians) of the observed values of each row."""
    out = np.zeros(len(X))
    for missing in np.unique(np.isnan(X), axis=0):
        o, own = ~missing, (np.isnan(X) == missing).all(1)
        for k, mean in enumerate(means):
            cov = covariances if model.covariance_type == "tied" else covariances[k]
            if model.covariance_type in ("diag", "spherical"):
                cov = np.diag(np.broadcast_to(cov, X.shape[1]))
            out[own] += weights[k] * multivariate_normal(mean[o], cov[np.ix_(o, o)]).pdf(
                X[own][:, o]
            )
    return out


def volumes(X, box):
    return np.exp(~np.isnan(X) @ np.log(box[1] - box[0]))


@pytest.mark.parametrize("kind", TYPES)
def test_the_maximum_is_stationary(kind):
    X, _ = table(200)
    X[::9, 1] = np.nan
    model = BayesianGMM_MAP(
        3,
        covariance_type=kind,
        background="uniform",
        reg_covar=0,
        tol=1e-12,
        max_iter=5000,
        random_state=0,
    ).fit(X)
    box = np.array([np.nanmin(X, axis=0), np.nanmax(X, axis=0)])
    fitted = model.weights_, model.means_, model.covariances_
    share, volume = model.background_weight_, volumes(X, box)

    def value(share, *parameters):
        densities = plain_densities(model, X, *parameters)
        return np.log(share / volume + (1 - share) * densities).sum()

    assert model.lower_bound_ * len(X) == pytest.approx(value(share, *fitted))
    assert model.score_samples(X).sum() == pytest.approx(value(share, *fitted))

    def of_changes(change):
        weights = fitted[0] * np.exp(change[:3])
        covariances = (np.asarray(fitted[2]).T * np.exp(change[9])).T
        return value(
            share + change[10],
            weights / weights.sum(),
            fitted[1] + change[3:9].reshape(3, 2),
            covariances,
        )

    gradient = approx_fprime(np.zeros(11), of_changes, 1e-7)
    np.testing.assert_allclose(gradient, 0, atol=0.02)
    assert np.all(np.diff(model.lower_bounds_) > -1e-10)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.25])
def test_gross_errors_are_found(seed, share):
    X, labels = table(share=share, n_features=3, seed=seed)
    model = BayesianGMM_MAP(3, background="uniform", random_state=0).fit(X)
    found = model.predict(X)
    assert np.mean((found == -1) == (labels == -1)) > 0.97
    assert adjusted_rand_score(labels, found) > 0.95
    assert model.background_weight_ == pytest.approx(np.mean(labels == -1), abs=0.03)
    far = np.full((1, 3), 100.0)  # outside of the box
    assert model.predict(far) == -1
    assert model.score_samples(far) < np.log(1e-100)


def test_scores_are_a_density():
    X, _ = table(200)
    model = BayesianGMM_MAP(2, background=[[-40, -40], [40, 40]], random_state=0).fit(X)

    # midpoints; the box ends at an edge of the grid
    middles = np.arange(-60, 60, 0.2) + 0.1
    grid = np.stack(np.meshgrid(middles, middles), axis=2).reshape(-1, 2)
    assert np.exp(model.score_samples(grid)).sum() * 0.2**2 == pytest.approx(1, abs=1e-6)
    assert np.isfinite(model.score_samples([[39.0, -39]]))


def test_verbs_with_a_background():
    X, _ = table(300)
    model = BayesianGMM_MAP(3, background="uniform", random_state=0).fit(X)
    proba = model.predict_proba(X)
    assert proba.shape == (300, 4)
    np.testing.assert_allclose(proba.sum(1), 1)
    expected = np.where(proba.argmax(1) == 3, -1, proba.argmax(1))
    np.testing.assert_array_equal(model.predict(X), expected)
    assert model.transform(X).shape[1] == len(model.get_feature_names_out())
    center = (X.min(0) + X.max(0)) / 2
    np.testing.assert_allclose(
        model.reconstruct(X), proba[:, :3] @ model.means_ + proba[:, 3:] * center
    )
    drawn, components = model.sample(4000, random_state=0)
    assert np.mean(components == -1) == pytest.approx(model.background_weight_, abs=0.02)
    assert (np.abs(drawn[components == -1] - center) <= np.ptp(X, axis=0) / 2).all()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), proba)
    plain = BayesianGMM_MAP(3, random_state=0).fit(X)
    assert model._n_parameters() == plain._n_parameters() + 1
    assert model.bic(X) < plain.bic(X)
    assert model.set_params(background=None).fit(X).background_weight_ == 0
    assert model.predict_proba(X).shape == (300, 3)


def test_imputes_by_the_background_too():
    """E[x | x_o] of a Gaussian and the box, written out."""
    X, _ = table(300)
    model = BayesianGMM_MAP(1, background="uniform", random_state=0).fit(X)
    row = np.array([[3.0, np.nan]])
    (m,), (c,), share = model.means_, model.covariances_, model.background_weight_
    box = np.array([X.min(0), X.max(0)])
    inside = (1 - share) * multivariate_normal(m[0], c[0, 0]).pdf(3.0)
    outside = share / (box[1, 0] - box[0, 0])
    expected = inside * (m[1] + c[1, 0] / c[0, 0] * (3 - m[0])) + outside * box[:, 1].mean()
    filled, std = model.impute(row, return_std=True)
    assert filled[0, 1] == pytest.approx(expected / (inside + outside))
    seconds = [
        inside
        * (c[1, 1] - c[1, 0] ** 2 / c[0, 0] + (m[1] + c[1, 0] / c[0, 0] * (3 - m[0])) ** 2),
        outside * (box[:, 1].mean() ** 2 + np.ptp(box[:, 1]) ** 2 / 12),
    ]
    variance = sum(seconds) / (inside + outside) - filled[0, 1] ** 2
    assert std[0, 1] == pytest.approx(np.sqrt(variance))
    far = np.array([[box[0, 0], np.nan]])  # which belongs to the background
    drawn = model.sample_conditional(far, 20_000, random_state=0)[:, 0, 1]
    assert model.predict(far) == -1
    ranks = (np.sort(drawn) - box[0, 1]) / np.ptp(box[:, 1])
    assert np.abs(ranks - np.linspace(0, 1, len(ranks))).max() < 1.95 / np.sqrt(len(ranks))
    np.testing.assert_array_equal(model.impute(X), X)


def test_wherever_rows_live_and_weights_are_repeats(tmp_path):
    X, _ = table(300)
    X[::11, 0] = np.nan
    np.save(tmp_path / "X.npy", X)
    weight = np.random.default_rng(0).integers(1, 3, 300)
    options = {"background": "uniform", "random_state": 0, "tol": 1e-10, "max_iter": 2000}
    model = BayesianGMM_MAP(3, **options).fit(X, sample_weight=weight)
    others = [BayesianGMM_MAP(3, **options).fit(np.repeat(X, weight, axis=0))]
    for rows in (np.load(tmp_path / "X.npy", mmap_mode="r"), da.from_array(X, (80, 2))):
        others.append(BayesianGMM_MAP(3, **options).fit(rows, sample_weight=weight))
        np.testing.assert_allclose(np.asarray(model.predict(rows)), model.predict(X))
    for other in others:
        assert other.lower_bound_ == pytest.approx(model.lower_bound_, abs=1e-6)
        assert other.background_weight_ == pytest.approx(model.background_weight_, abs=1e-4)


def test_a_table_without_errors_keeps_its_groups():
    X, y = load_iris(return_X_y=True)
    model = BayesianGMM_MAP(3, prior="empirical", background="uniform", random_state=0).fit(X)
    assert model.background_weight_ < 0.1
    assert adjusted_rand_score(y, model.predict(X)) > 0.8


def test_errors_do_not_inflate_the_empirical_prior():
    X, labels = table(share=0.2, n_features=3)
    clean = BayesianGMM_MAP(3, prior="empirical").fit(X[labels >= 0])
    model = BayesianGMM_MAP(3, prior="empirical", background="uniform").fit(X)
    plain = BayesianGMM_MAP(3, prior="empirical").fit(X)
    scales = [np.trace(m._prior["covariance"][0, 0]) for m in (clean, model, plain)]
    assert 0.5 < scales[1] / scales[0] < 1.5
    assert scales[2] > 3 * scales[0]


def test_online_em_needs_a_box():
    X, _ = table(2000)
    model = BayesianGMM_MAP(3, background=[[-30, -30], [30, 30]], random_state=0)
    whole = model.fit(X).background_weight_
    model = BayesianGMM_MAP(3, background=[[-30, -30], [30, 30]], random_state=0)
    for part in np.split(X, 10):
        model.partial_fit(part)
    assert model.background_weight_ == pytest.approx(whole, abs=0.02)
    with pytest.raises(ValueError, match="widen the limits"):
        model.partial_fit(X + 100)


class Uniform:
    """The density of a box, as users would write it."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def fit(self, X):
        return self

    def score_samples(self, X):
        return -np.log(self.high - self.low) * (~np.isnan(X)).sum(1)


def wide(n_features=2):
    """A background of one wide Gaussian."""
    rng = np.random.default_rng(5)
    return FrozenEstimator(BayesianGMM_MAP().fit(15 * rng.normal(size=(500, n_features))))


def test_a_given_density_is_as_a_box():
    X, _ = table(300)
    X[::11, 0] = np.nan
    box = BayesianGMM_MAP(3, background=[[-30, -30], [30, 30]], random_state=0).fit(X)
    model = BayesianGMM_MAP(3, background=Uniform(-30.0, 30.0), random_state=0).fit(X)
    np.testing.assert_allclose(model.means_, box.means_, rtol=1e-9)
    assert model.background_weight_ == pytest.approx(box.background_weight_)
    np.testing.assert_array_equal(model.predict(X), box.predict(X))
    with pytest.raises(ValueError, match="no method impute"):
        model.impute(X)
    with pytest.raises(ValueError, match="no method sample"):
        model.sample(3)


def test_a_gaussian_background_is_a_component_that_stays():
    """The maximum is that of a mixture with one more component, fixed."""
    X, _ = table(300)
    X[::11, 0] = np.nan
    density = wide()
    options = {"tol": 1e-12, "max_iter": 5000, "reg_covar": 0, "random_state": 0}
    model = BayesianGMM_MAP(2, background=density, **options).fit(X)
    share = model.background_weight_
    covariances = np.concatenate([model.covariances_, density.covariances_])
    other = BayesianGMM_MAP(
        3,
        fixed={"means": [False, False, True], "covariances": [False, False, True]},
        weights_init=np.append(model.weights_ * (1 - share), share),
        means_init=np.vstack([model.means_, density.means_]),
        precisions_init=np.linalg.inv(covariances),
        **options,
    ).fit(X)
    assert model.background_weight_ == pytest.approx(other.weights_[2], abs=1e-5)
    np.testing.assert_allclose(model.means_, other.means_[:2], atol=1e-4)
    np.testing.assert_allclose(model.score_samples(X), other.score_samples(X), atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X), atol=1e-4)
    for mine, theirs in zip(
        model.impute(X, return_std=True), other.impute(X, return_std=True), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-2)
    np.testing.assert_allclose(model.reconstruct(X), other.reconstruct(X), atol=1e-2)
    row = np.array([[np.nan, 20.0]])
    drawn = [m.sample_conditional(row, 20_000, random_state=0)[:, 0, 0] for m in (model, other)]
    ranks = np.searchsorted(np.sort(drawn[1]), np.sort(drawn[0])) / 20_000
    assert np.abs(ranks - np.linspace(0, 1, 20_000)).max() < 1.95 * np.sqrt(2 / 20_000)


def test_a_given_density_wherever_rows_live(tmp_path):
    X, _ = table(300)
    np.save(tmp_path / "X.npy", X)
    density = FrozenEstimator(KernelDensity(bandwidth=10.0).fit(X))
    model = BayesianGMM_MAP(3, background=density, random_state=0).fit(X)
    again = pickle.loads(pickle.dumps(model))
    for rows in (np.load(tmp_path / "X.npy", mmap_mode="r"), da.from_array(X, (80, 2))):
        other = BayesianGMM_MAP(3, background=density, random_state=0).fit(rows)
        assert other.lower_bound_ == pytest.approx(model.lower_bound_, abs=1e-6)
        np.testing.assert_array_equal(np.asarray(again.predict(rows)), model.predict(X))
    search = GridSearchCV(model, {"n_components": [1, 3]}, cv=2).fit(X)
    assert search.best_estimator_.background is density
    rows, components = model.sample(2000, random_state=0)
    assert np.isfinite(rows).all()
    assert np.mean(components == -1) == pytest.approx(model.background_weight_, abs=0.03)
    plain = FrozenEstimator(GaussianMixture(random_state=0).fit(20 * X))
    assert BayesianGMM_MAP(3, background=plain).fit(X).sample(5)[0].shape == (5, 2)


def test_a_density_that_cannot_score_the_rows():
    X, _ = table(100)
    with pytest.raises(ValueError, match=r"not fitted.*FrozenEstimator"):
        BayesianGMM_MAP(2, background=KernelDensity()).fit(X)
    with pytest.raises(ValueError, match="3 features"):
        BayesianGMM_MAP(2, background=wide(3)).fit(X)
    with pytest.raises(ValueError, match="log-density for each row"):
        BayesianGMM_MAP(2, background=Uniform(0.0, np.nan)).fit(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": [[0, 0], [1, 1]]}, "widen the limits"),
        ({"background": [0, 1]}, "shape"),
        ({"background": [[1, 1], [0, 0]]}, "lower limits"),
        ({"background": "normal"}, "background"),
        ({"connectivity": grid_to_graph(10, 10)}, "connectivity"),
    ],
)
def test_what_cannot_be_a_background(options, message):
    X, _ = table(100)
    with pytest.raises(ValueError, match=message):
        BayesianGMM_MAP(2, **{"background": "uniform", **options}).fit(X)


def test_refusals_name_the_background():
    X, _ = table(100)
    model = BayesianGMM_MAP(2, background="uniform", random_state=0)
    with pytest.raises(ValueError, match="resp_prior"):
        model.fit(X, resp_prior=np.ones((100, 2)))
    with pytest.raises(ValueError, match="partial_fit"):
        model.partial_fit(X)
    with pytest.raises(ValueError, match="observed"):
        model.fit(X * [1, np.nan])
    with pytest.raises(ValueError, match="feature 1 is constant"):
        model.fit(X * [1, 0])
    model.fit(X)
    holes = np.where([True, False], X, np.nan)
    with pytest.raises(ValueError, match="has a background"):
        model.condition(holes)
