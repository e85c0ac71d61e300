"""BayesianGMM_MAP as its users meet it."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris, load_sample_image
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from versions import has

from skem import BayesianGMM_MAP
from skem._rows.parts import InMemory
from skem.mixture._covariances import Layout, fast_pays
from skem.mixture._pixels import merge_equal_pixels

TYPES = ["full", "tied", "diag", "spherical"]
STARTS = ["kmeans", "k-means++", "random", "random_from_data"]
ATTRIBUTES = ["weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"]
loose = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def draw(n=400, n_components=3, n_features=4, separation=4.0, seed=0):
    rng = np.random.default_rng(seed)
    means = separation * rng.normal(size=(n_components, n_features))
    labels = rng.integers(n_components, size=n)
    scales = rng.uniform(0.5, 1.5, size=(n_components, n_features))
    X = means[labels] + scales[labels] * rng.normal(size=(n, n_features))
    return X, labels


@pytest.fixture(scope="module")
def data():
    return draw()


def matrix(model, k):
    """The covariance matrix of component k, written out."""
    own = model.covariances_ if model.covariance_type == "tied" else model.covariances_[k]
    if model.covariance_type in ("full", "tied"):
        return own
    return np.diag(np.broadcast_to(own, model.means_.shape[1:]))


# -- the same as scikit-learn --------------------------------------------------------------


@loose
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("reg_covar", [None, 0.0, 1e-3])
def test_same_numbers_as_scikit_learn_from_the_same_start(kind, reg_covar):
    X, _ = draw(separation=1.0)
    first = GaussianMixture(3, covariance_type=kind, max_iter=1, random_state=0).fit(X)
    options = {
        "covariance_type": kind,
        "weights_init": first.weights_,
        "means_init": first.means_,
        "precisions_init": first.precisions_,
        "max_iter": 25,
        "tol": 0,
    }
    theirs = GaussianMixture(3, reg_covar=1e-6 if reg_covar is None else reg_covar, **options)
    ours = BayesianGMM_MAP(3, reg_covar=reg_covar, **options).fit(X)
    theirs.fit(X)
    for name in ATTRIBUTES:
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-8
        )
    assert ours.n_iter_ == theirs.n_iter_ == len(ours.lower_bounds_) == 25
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), atol=1e-8)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-8)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    for name in ("score", "bic", "aic"):
        np.testing.assert_allclose(getattr(ours, name)(X), getattr(theirs, name)(X), atol=1e-8)
    # theirs are those of the parameters before each M step, ours after it
    if has("1.7"):  # which keeps them
        np.testing.assert_allclose(ours.lower_bounds_[:-1], theirs.lower_bounds_[1:], atol=1e-8)
    assert ours._n_parameters() == theirs._n_parameters()


@loose
@pytest.mark.parametrize("kind", TYPES)
def test_max_iter_0_keeps_the_start_that_was_given(data, kind):
    X, _ = data
    shapes = {"full": (3, 4, 4), "tied": (4, 4), "diag": (3, 4), "spherical": (3,)}
    precisions = (
        np.full(shapes[kind], 2.0)
        if kind in ("diag", "spherical")
        else (np.broadcast_to(2 * np.eye(4), shapes[kind]))
    )
    start = {
        "weights_init": [0.2, 0.3, 0.5],
        "means_init": X[:3],
        "precisions_init": precisions,
    }
    model = BayesianGMM_MAP(3, covariance_type=kind, max_iter=0, **start).fit(X)
    np.testing.assert_allclose(model.weights_, start["weights_init"])
    np.testing.assert_allclose(model.means_, start["means_init"])
    np.testing.assert_allclose(model.precisions_, precisions, atol=1e-12)
    assert model.n_iter_ == 0
    assert model.lower_bounds_ == []
    only_means = BayesianGMM_MAP(3, means_init=X[:3], max_iter=0).fit(X)
    np.testing.assert_allclose(only_means.means_, X[:3])


@pytest.mark.parametrize("kind", TYPES)
def test_factors_precisions_and_covariances_are_consistent(data, kind):
    model = BayesianGMM_MAP(2, covariance_type=kind, random_state=0).fit(data[0])
    C, P, U = model.covariances_, model.precisions_, model.precisions_cholesky_
    if kind in ("diag", "spherical"):
        np.testing.assert_allclose(C * P, 1)
        np.testing.assert_allclose(U**2, P)
    else:
        np.testing.assert_allclose(C @ P, np.broadcast_to(np.eye(4), C.shape), atol=1e-10)
        np.testing.assert_allclose(U @ np.swapaxes(U, -1, -2), P)
        np.testing.assert_allclose(U, np.triu(U))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("init_params", STARTS)
def test_finds_the_clusters(data, kind, init_params):
    if (kind, init_params) == ("tied", "random"):
        return  # one covariance for all: random responsibilities all but tie
    X, labels = data
    model = BayesianGMM_MAP(
        3, covariance_type=kind, init_params=init_params, n_init=8, random_state=0
    )
    found = model.fit_predict(X)
    assert adjusted_rand_score(labels, found) > 0.95
    np.testing.assert_array_equal(found, model.predict(X))
    assert model.converged_
    assert (model.means_ >= X.min(0)).all()
    assert (model.means_ <= X.max(0)).all()


@loose
@pytest.mark.parametrize("init_params", STARTS)
def test_starts_are_proper_clusters(data, init_params):
    """Not singletons: weights of a start sum to 1 and covariances are as wide as clusters."""
    X, _ = data
    model = BayesianGMM_MAP(3, init_params=init_params, max_iter=0, random_state=1).fit(X)
    np.testing.assert_allclose(model.weights_.sum(), 1)
    assert (np.linalg.eigvalsh(model.covariances_) > 1e-2).all()
    gaps = np.linalg.norm(model.means_[:, None] - model.means_, axis=2)
    assert (gaps[np.triu_indices(3, 1)] > 1e-6).all()


def test_kmeans_start_is_that_of_k_means():
    X, _ = draw(separation=8.0)
    with pytest.warns(ConvergenceWarning):
        model = BayesianGMM_MAP(3, max_iter=1, tol=0, random_state=0).fit(X)
    centers = KMeans(3, random_state=0, n_init=1).fit(X).cluster_centers_
    np.testing.assert_allclose(np.sort(model.means_[:, 0]), np.sort(centers[:, 0]), atol=0.05)


def test_more_starts_are_no_worse():
    for seed in range(10):
        X, _ = draw(60, 4, 2, 1.0, seed)
        one = BayesianGMM_MAP(4, random_state=seed, init_params="random").fit(X)
        ten = BayesianGMM_MAP(4, random_state=seed, init_params="random", n_init=10).fit(X)
        assert ten.lower_bound_ >= one.lower_bound_ - 1e-12


@pytest.mark.slow
def test_starts_of_large_data_are_compared_on_a_sample():
    X, _ = draw(12_000, 6, 2, 3.0)
    # groups that overlap: EM goes on for hundreds of iterations that gain little
    options = {"n_init": 10, "tol": 1e-6, "max_iter": 2000, "random_state": 0}
    model = BayesianGMM_MAP(6, **options).fit(X)
    again = BayesianGMM_MAP(6, **options, n_jobs=2).fit(X)
    np.testing.assert_array_equal(model.means_, again.means_)
    best = max(GaussianMixture(6, random_state=s).fit(X).score(X) for s in range(5))
    assert model.score(X) > best - 1e-3


@loose
def test_warm_start_goes_on():
    X, _ = draw(separation=1.0)
    whole = BayesianGMM_MAP(2, max_iter=6, tol=0, random_state=0).fit(X)
    parts = BayesianGMM_MAP(2, max_iter=3, tol=0, random_state=0, warm_start=True)
    parts.fit(X).fit(X)
    np.testing.assert_allclose(parts.means_, whole.means_, rtol=1e-9)
    np.testing.assert_allclose(parts.precisions_, whole.precisions_, rtol=1e-9)
    parts.set_params(n_components=3)
    with pytest.raises(ValueError, match="n_components was 2"):
        parts.fit(X)


@loose
def test_warm_start_converges_in_the_end():
    X, _ = draw(separation=1.0)
    model = BayesianGMM_MAP(2, max_iter=2, tol=1e-7, random_state=0, warm_start=True)
    for _ in range(500):
        model.fit(X)
        if model.converged_:
            break
    assert model.converged_


def test_no_convergence_is_said(data):
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=1"):
        BayesianGMM_MAP(3, max_iter=1, tol=1e-12, random_state=0).fit(data[0])


def test_verbose_prints_a_line_per_interval(data, capsys):
    model = BayesianGMM_MAP(3, verbose=1, verbose_interval=2, tol=1e-9, random_state=0)
    model.fit(data[0])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_ // 2
    assert all("nats per sample" in line for line in lines)


def test_sample_has_the_moments_of_the_fit(data):
    for kind in TYPES:
        model = BayesianGMM_MAP(3, covariance_type=kind, random_state=0).fit(data[0])
        X, components = model.sample(50_000, random_state=0)
        shares = np.bincount(components, minlength=3) / len(X)
        np.testing.assert_allclose(shares, model.weights_, atol=0.01)
        for k in range(3):
            own = X[components == k]
            np.testing.assert_allclose(own.mean(0), model.means_[k], atol=0.05)
            np.testing.assert_allclose(np.cov(own.T), matrix(model, k), atol=0.08)
        assert (model.sample(5)[0] != model.sample(5, random_state=1)[0]).any()
    with pytest.raises(ValueError, match="n_samples must be"):
        model.sample(0)
    with pytest.raises(NotFittedError):
        BayesianGMM_MAP().sample()


def test_one_component_of_few_rows():
    X = np.random.default_rng(0).normal(size=(3, 2))
    model = BayesianGMM_MAP().fit(X)
    np.testing.assert_allclose(model.means_[0], X.mean(0))
    model.sample()


def test_bic_of_one_gaussian():
    X, _ = draw(200, 1, 3)
    for kind, n_parameters in zip(TYPES, (9, 9, 6, 4), strict=True):
        model = BayesianGMM_MAP(covariance_type=kind, reg_covar=0).fit(X)
        log_lik = model.score(X) * len(X)
        np.testing.assert_allclose(model.bic(X), n_parameters * np.log(200) - 2 * log_lik)
        np.testing.assert_allclose(model.aic(X), 2 * n_parameters - 2 * log_lik)
        np.testing.assert_allclose(model.icl(X), model.bic(X))  # nothing to be unsure of


def test_icl_of_iris_is_that_of_mclust():
    """mclust, VVV with three components: BIC -580.84, ICL -584.05 (its signs)."""
    X = load_iris().data
    model = BayesianGMM_MAP(3, reg_covar=0, tol=1e-8, max_iter=1000, random_state=0).fit(X)
    assert model.bic(X) == pytest.approx(580.84, abs=0.02)
    assert model.icl(X) == pytest.approx(584.05, abs=0.02)


def test_icl_of_old_faithful_is_that_of_mclust():
    """mclust, EEE with three components: BIC -2314.32, ICL -2358.38 (its signs).

    272 eruptions of the geyser, from A. Azzalini and A. W. Bowman, Applied Statistics 39, 1990.
    """
    X = np.loadtxt(Path(__file__).parent / "data/faithful.csv", delimiter=",", skiprows=1)
    model = BayesianGMM_MAP(
        3, covariance_type="tied", reg_covar=0, tol=1e-8, max_iter=1000, random_state=0
    ).fit(X)
    assert model.bic(X) == pytest.approx(2314.32, abs=0.05)
    assert model.icl(X) == pytest.approx(2358.38, abs=0.05)


def test_icl_counts_the_most_probable_components(data):
    X, _ = data
    model = BayesianGMM_MAP(5, random_state=0, prior="empirical").fit(X)
    r = model.predict_proba(X)
    np.testing.assert_allclose(model.icl(X), model.bic(X) - 2 * np.log(r.max(1)).sum())


# -- weights, missing values, numbers ------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("prior", ["flat", "empirical"])
def test_weights_are_repeats(data, kind, prior):
    X, _ = data
    X = X[:150].copy()
    X[::7, 1] = np.nan
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    options = {"covariance_type": kind, "prior": prior, "random_state": 0, "n_init": 2}
    one = BayesianGMM_MAP(2, **options).fit(X, sample_weight=counts)
    two = BayesianGMM_MAP(2, **options).fit(np.repeat(X, counts, axis=0))
    for name in ATTRIBUTES:
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-8)
    np.testing.assert_allclose(one.lower_bound_, two.lower_bound_)
    repeated = two.score(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(one.score(X, sample_weight=counts), repeated)


@pytest.mark.parametrize("kind", TYPES)
def test_missing_values_are_imputed_by_their_conditional_mean(data, kind):
    X, _ = data
    model = BayesianGMM_MAP(3, covariance_type=kind, random_state=0).fit(X)
    row = X[:1].copy()
    row[0, [1, 3]] = np.nan
    o, m = [0, 2], [1, 3]
    densities, means = [], []
    for k in range(3):
        cov = matrix(model, k)
        mu, part = model.means_[k], cov[np.ix_(o, o)]
        densities.append(model.weights_[k] * multivariate_normal.pdf(row[0, o], mu[o], part))
        means.append(mu[m] + cov[np.ix_(m, o)] @ np.linalg.solve(part, row[0, o] - mu[o]))
    share = np.array(densities) / np.sum(densities)
    filled = model.impute(row)
    np.testing.assert_allclose(filled[0, m], share @ np.array(means))
    np.testing.assert_array_equal(filled[0, o], row[0, o])
    np.testing.assert_allclose(model.score_samples(row), np.log(np.sum(densities)))
    np.testing.assert_allclose(model.predict_proba(row)[0], share)
    nothing = np.full((1, 4), np.nan)
    np.testing.assert_allclose(model.score_samples(nothing), 0, atol=1e-12)
    np.testing.assert_allclose(model.impute(nothing)[0], model.weights_ @ model.means_)
    np.testing.assert_array_equal(model.impute(X), X)


def test_fits_with_missing_values_find_the_clusters(data):
    X, labels = data
    holes = X.copy()
    holes[np.random.default_rng(3).random(X.shape) < 0.3] = np.nan
    model = BayesianGMM_MAP(3, random_state=0, n_init=3).fit(holes)
    assert adjusted_rand_score(labels, model.predict(X)) > 0.9
    missing = np.isnan(holes)
    error = (model.impute(holes) - X)[missing]
    assert (error**2).mean() < 0.5 * ((np.nanmean(holes, 0) - X)[missing] ** 2).mean()
    holes[:, 2] = np.nan
    with pytest.raises(ValueError, match="1 features without any observed value"):
        model.fit(holes)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("offset", "scale", "dtype"),
    [(1e6, 1e-3, np.float64), (1e6, 1.0, np.float64), (1e3, 1.0, np.float32)],
)
def test_far_from_the_origin(kind, offset, scale, dtype):
    """The fit moves with the data. Where the data round, they are moved back rounded."""
    X, labels = draw(600, 2, 3, 4.0, seed=1)
    far = (offset + scale * X).astype(dtype)
    near = (far.astype(float) - offset) / scale
    start = {"covariance_type": kind, "reg_covar": 0, "max_iter": 200, "tol": 1e-9}
    means = np.array([near[labels == k].mean(0) for k in range(2)])
    precisions = {
        "full": [np.eye(3)] * 2,
        "tied": np.eye(3),
        "diag": np.ones((2, 3)),
        "spherical": np.ones(2),
    }[kind]
    start["weights_init"] = [0.5, 0.5]
    expected = BayesianGMM_MAP(2, means_init=means, precisions_init=precisions, **start).fit(
        near
    )
    found = BayesianGMM_MAP(
        2,
        means_init=offset + scale * means,
        precisions_init=np.asarray(precisions) / scale**2,
        **start,
    ).fit(far)
    tol = 1e-7 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(
        found.covariances_ / scale**2, expected.covariances_, rtol=tol, atol=tol
    )
    np.testing.assert_allclose(found.weights_, expected.weights_, rtol=tol)
    np.testing.assert_allclose(
        (found.means_.astype(float) - offset) / scale, expected.means_, rtol=1e-6, atol=2e-4
    )
    if dtype == np.float64:
        default = BayesianGMM_MAP(2, covariance_type=kind, reg_covar=0, random_state=0)
        assert adjusted_rand_score(labels, default.fit_predict(far)) > 0.95


@pytest.mark.parametrize("kind", TYPES)
def test_float32_stays_and_agrees(data, kind):
    X, _ = data
    double = BayesianGMM_MAP(3, covariance_type=kind, random_state=0, tol=1e-6).fit(X)
    single = BayesianGMM_MAP(3, covariance_type=kind, random_state=0, tol=1e-6)
    single.fit(X.astype(np.float32))
    for name in ATTRIBUTES:
        assert getattr(single, name).dtype == np.float32
        np.testing.assert_allclose(
            getattr(single, name), getattr(double, name), rtol=2e-2, atol=2e-2
        )
    assert single.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert single.score_samples(X.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("kind", TYPES)
def test_a_tiny_cluster_in_wide_data(kind):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(500, 2)), 0.3 + 1e-6 * rng.normal(size=(100, 2))])
    labels = np.repeat([0, 1], [500, 100])
    if kind == "tied":
        return  # one covariance for both cannot tell
    model = BayesianGMM_MAP(
        2,
        covariance_type=kind,
        reg_covar=0,
        weights_init=[0.5, 0.5],
        means_init=[[0, 0], [0.3, 0.3]],
        precisions_init={
            "full": [np.eye(2), 1e8 * np.eye(2)],
            "diag": [[1, 1], [1e8, 1e8]],
            "spherical": [1, 1e8],
        }[kind],
    ).fit(X)
    assert (model.predict(X) == labels).all()
    own = X[labels == 1]
    found = model.covariances_[1]
    expected = np.cov(own.T, bias=True)
    expected = {
        "full": expected,
        "diag": np.diag(expected),
        "spherical": np.trace(expected) / 2,
    }[kind]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-16)


# -- priors --------------------------------------------------------------------------------


def test_toy_of_two_clusters():
    """The posterior mode of a well-known toy: the objective rises, components are found."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(5, 1, size=(200, 2)), rng.normal(8, 1, size=(200, 2))])
    model = BayesianGMM_MAP(
        2,
        weight_concentration_prior=1,
        mean_prior=0.0,
        mean_precision_prior=1,
        degrees_of_freedom_prior=3,
        covariance_prior=np.eye(2),
        max_iter=300,
        random_state=0,
        tol=1e-10,
    ).fit(X)
    assert (np.diff(model.lower_bounds_) > -1e-12).all()
    order = np.argsort(model.means_[:, 0])
    np.testing.assert_allclose(model.means_[order], [[5, 5], [8, 8]], atol=0.3)
    np.testing.assert_allclose(model.weights_, 0.5, atol=0.05)


@loose
@pytest.mark.parametrize("kind", TYPES)
def test_empirical_prior_follows_the_units(data, kind):
    X, _ = data
    units = 5.0 if kind == "spherical" else np.array([1e-3, 1.0, 1e3, 7.0])
    options = {
        "covariance_type": kind,
        "prior": "empirical",
        "random_state": 0,
        "init_params": "random",
        "max_iter": 20,
        "tol": 0,
    }
    one = BayesianGMM_MAP(3, **options).fit(X)
    two = BayesianGMM_MAP(3, **options).fit(X * units + 10)
    np.testing.assert_allclose(two.means_, one.means_ * units + 10, rtol=1e-6)
    np.testing.assert_array_equal(one.predict(X), two.predict(X * units + 10))


def test_given_priors_override_the_switch(data):
    X, _ = data
    model = BayesianGMM_MAP(
        2, prior="empirical", mean_prior=[9.0] * 4, mean_precision_prior=1e9
    )
    model.fit(X)
    np.testing.assert_allclose(model.means_, 9, atol=1e-4)
    flat = BayesianGMM_MAP(2, degrees_of_freedom_prior=50, covariance_prior=np.eye(4))
    assert flat.fit(X)._reg_covar == 0
    assert BayesianGMM_MAP(2).fit(X)._reg_covar == 1e-6


def test_small_concentration_switches_components_off(data):
    X, _ = data
    model = BayesianGMM_MAP(
        8,
        weight_concentration_prior=0.001,
        prior="empirical",
        max_iter=500,
        tol=1e-7,
        random_state=0,
    )
    strong = BayesianGMM_MAP(8, prior="empirical", random_state=0, max_iter=500)
    model.fit(X)
    strong.fit(X)
    assert (strong.weights_ > 0).all()
    off = model.weights_ == 0
    few = X[: 8 * 12]
    sparse = BayesianGMM_MAP(
        8, weight_concentration_prior=0.001, prior="empirical", random_state=0, tol=1e-6
    ).fit(few)
    assert np.isfinite(model.means_).all()
    assert np.isfinite(model.covariances_).all()
    np.testing.assert_allclose(model.weights_.sum(), 1)
    for fitted in (model, sparse):
        off = fitted.weights_ == 0
        posterior = fitted.predict_proba(X)
        assert (posterior[:, off] == 0).all()
        np.testing.assert_allclose(posterior.sum(1), 1)
        # the others alone are the same mixture
        alone = BayesianGMM_MAP(
            int((~off).sum()),
            weights_init=fitted.weights_[~off],
            means_init=fitted.means_[~off],
            precisions_init=fitted.precisions_[~off],
            max_iter=0,
        ).fit(X)
        np.testing.assert_allclose(alone.score_samples(X), fitted.score_samples(X))
        assert fitted._n_parameters() == alone._n_parameters()


def test_switched_off_for_certain():
    """A component with less than 1 - alpha rows goes in the next M step."""
    X, _ = draw(100, 1, 2)
    model = BayesianGMM_MAP(
        2,
        weight_concentration_prior=0.01,
        prior="empirical",
        weights_init=[0.995, 0.005],
        means_init=[X.mean(0), X.mean(0)],
        precisions_init=[np.linalg.inv(np.cov(X.T))] * 2,
        max_iter=20,
    ).fit(X)
    np.testing.assert_array_equal(model.weights_, [1, 0])
    np.testing.assert_array_equal(model.predict(X), 0)
    np.testing.assert_array_equal(model.partial_fit(X[:50]).weights_, [1, 0])


# -- collapse ------------------------------------------------------------------------------


def test_collapsing_starts_are_replaced():
    """On 280 rows without regularization many starts end on a single row."""
    X = np.concatenate([draw(270, 2, 2, 3.0)[0], np.tile([[9.0, 9.0]], (10, 1))])
    for seed in range(10):
        model = BayesianGMM_MAP(3, reg_covar=0, random_state=seed, init_params="random")
        try:
            model.fit(X)
        except ConvergenceWarning:
            continue
        assert (np.linalg.eigvalsh(model.covariances_) > 1e-10).all()
        assert np.isfinite(model.score(X))


def test_if_all_starts_collapse_the_fit_says_so_and_keeps_the_last_parameters():
    X = np.repeat(np.random.default_rng(0).normal(size=(4, 2)), 5, axis=0)
    with pytest.warns(ConvergenceWarning, match="starts collapsed"):
        model = BayesianGMM_MAP(4, reg_covar=0, random_state=0).fit(X)
    assert np.isfinite(model.score(X))
    assert np.isfinite(model.sample(3)[0]).all()
    proper = BayesianGMM_MAP(4, prior="empirical", random_state=0).fit(X)
    assert np.isfinite(proper.score(X))


def test_given_start_that_loses_a_component_is_replaced_with_a_warning(data):
    X, _ = data
    model = BayesianGMM_MAP(
        3,
        reg_covar=0,
        weights_init=[0.3, 0.3, 0.4],
        means_init=[X[0], X[1], X.mean(0) + 1e7],
        precisions_init=[np.eye(4)] * 3,
        random_state=0,
    )
    with pytest.warns(ConvergenceWarning, match="lost a component from the given start"):
        model.fit(X)
    assert np.abs(model.means_).max() < 100


@pytest.mark.parametrize("kind", TYPES)
def test_constant_columns(kind):
    X = np.column_stack([np.ones(50), np.random.default_rng(0).normal(size=(50, 2))])
    for options in ({}, {"prior": "empirical"}):
        model = BayesianGMM_MAP(2, covariance_type=kind, random_state=0, **options).fit(X)
        assert np.isfinite(model.score(X))
        assert np.isfinite(model.covariances_).all()


def test_starts_without_rows_or_with_few_distinct_ones():
    X, _ = draw(60, 2, 2)
    with pytest.warns(ConvergenceWarning, match="lost a component from the given start"):
        model = BayesianGMM_MAP(2, means_init=[[0, 0], [1e4, 1e4]], random_state=0).fit(X)
    assert np.abs(model.means_).max() < 100
    model = BayesianGMM_MAP(2, means_init=[[0, 0], [0, 0]], random_state=0).fit(X)
    assert np.abs(model.means_).max() < 100
    rng = np.random.default_rng(0)
    black = np.zeros((60_000, 3))
    black[:20_000] = rng.random((20_000, 3))
    rng.shuffle(black)
    options = {"max_iter": 3, "tol": 10.0}
    for seed in range(5):
        model = BayesianGMM_MAP(3, init_params="random_from_data", random_state=seed, **options)
        assert np.isfinite(model.fit(black).score(black))
    two = np.repeat(X[:2], 10, axis=0)
    for init_params in STARTS:
        model = BayesianGMM_MAP(3, init_params=init_params, random_state=0, prior="empirical")
        assert np.isfinite(model.fit(two).score(two))
    flat = np.column_stack([X, np.ones(60)])
    with pytest.raises(ValueError, match="constant or collinear"):
        BayesianGMM_MAP(2, reg_covar=0).fit(flat)


@pytest.mark.parametrize("kind", TYPES)
def test_weights_are_repeats_where_features_are_equal(kind):
    """Grey pixels as RGB: bytes are merged into few rows with weights, floats are not."""
    grey = np.random.default_rng(0).integers(0, 60, size=900)
    grey[:300] += 150
    pixels = np.repeat(grey[:, None], 3, axis=1)
    options = {"covariance_type": kind, "prior": "empirical", "random_state": 0}
    as_bytes = BayesianGMM_MAP(2, **options).fit(pixels.astype(np.uint8))
    as_floats = BayesianGMM_MAP(2, **options).fit(pixels.astype(float))
    expected = pytest.approx(as_floats.score(pixels), abs=1e-6)
    assert as_bytes.score(pixels.astype(np.uint8)) == expected


@pytest.mark.parametrize("kind", TYPES)
def test_empirical_prior_of_collinear_features_and_few_rows(kind):
    X, _ = draw(60, 2, 3)
    rng = np.random.default_rng(0)
    for data in (np.column_stack([X, X[:, 0]]), rng.normal(size=(8, 10))):
        model = BayesianGMM_MAP(2, covariance_type=kind, prior="empirical", random_state=0)
        model.fit(data)
        assert model.converged_
        near = data + 0.1 * rng.normal(size=data.shape)
        assert model.score(near) > model.score(data) - 200


def test_interrupt_of_the_search_stops_the_fit(data, monkeypatch):
    from skem.mixture._model import Mixture

    original, calls = Mixture.m_step, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(Mixture, "m_step", interrupted)
    with pytest.warns(ConvergenceWarning, match="was interrupted"):
        model = BayesianGMM_MAP(3, n_init=5, random_state=0).fit(data[0])
    assert len(calls) == 3
    assert np.isfinite(model.score(data[0]))


@pytest.mark.parametrize("kind", TYPES)
def test_same_iterations_as_scikit_learn_with_the_default_tolerance(kind):
    X = load_iris().data
    options = {"covariance_type": kind, "weights_init": np.ones(3) / 3}
    options |= {"means_init": X[[0, 50, 100]]}
    options["precisions_init"] = {
        "full": [np.eye(4)] * 3,
        "tied": np.eye(4),
        "diag": np.ones((3, 4)),
        "spherical": np.ones(3),
    }[kind]
    ours = BayesianGMM_MAP(3, **options).fit(X)
    theirs = GaussianMixture(3, **options).fit(X)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.converged_
    np.testing.assert_allclose(ours.means_, theirs.means_, atol=1e-9)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, atol=1e-9)


def test_rows_of_weight_0_do_not_count(data):
    X, _ = data
    far = np.vstack([X, np.full((1, 4), 1e160)])
    weight = np.r_[np.ones(len(X)), 0]
    one = BayesianGMM_MAP(2, random_state=0).fit(far, sample_weight=weight)
    two = BayesianGMM_MAP(2, random_state=0).fit(X)
    np.testing.assert_allclose(one.means_, two.means_)
    hidden = np.column_stack([X, np.full(len(X), np.nan)])
    hidden[0, 4] = 1.0
    with pytest.raises(ValueError, match="without any observed value"):
        BayesianGMM_MAP(2).fit(hidden, sample_weight=np.r_[0, np.ones(len(X) - 1)])


def test_the_unit_of_the_weights_does_not_matter(data):
    X, _ = data
    one = BayesianGMM_MAP(3, random_state=0).fit(X)
    two = BayesianGMM_MAP(3, random_state=0).fit(X, sample_weight=np.full(len(X), 1e-3))
    np.testing.assert_allclose(one.means_, two.means_, rtol=1e-9)


def test_rare_values_of_a_feature_are_seen():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40_000, 3))
    X[:, 2] = np.nan
    X[[7, 17_000, 33_333], 2] = [999.0, 1000.0, 1001.0]
    model = BayesianGMM_MAP(1).fit(X)
    np.testing.assert_allclose(model.means_[0, 2], 1000, atol=1)
    X[:, 2] = 5.0
    X[12_345, 2] = 6.0
    model = BayesianGMM_MAP(1, reg_covar=0).fit(X)
    np.testing.assert_allclose(model.means_[0], X.mean(0), atol=1e-9)


def test_prior_mean_is_that_of_all_rows():
    X, _ = draw(20_000, 1, 2)
    model = BayesianGMM_MAP(1, mean_precision_prior=1e12).fit(X)
    np.testing.assert_allclose(model.means_[0], X.mean(0), rtol=1e-9)


@pytest.mark.parametrize("kind", TYPES)
def test_parameters_set_by_hand(data, kind):
    X, _ = data
    fitted = BayesianGMM_MAP(3, covariance_type=kind, random_state=0).fit(X)
    model = BayesianGMM_MAP(3, covariance_type=kind)
    model.weights_, model.means_ = fitted.weights_, fitted.means_
    model.covariances_ = fitted.covariances_
    np.testing.assert_allclose(model.sample(5, 0)[0], fitted.sample(5, 0)[0])
    model.precisions_cholesky_ = fitted.precisions_cholesky_
    np.testing.assert_allclose(model.score_samples(X), fitted.score_samples(X))
    np.testing.assert_array_equal(model.predict(X), fitted.predict(X))
    assert model.bic(X) == fitted.bic(X)


def test_without_pressure_no_component_is_switched_off(data):
    """A component that loses its rows keeps its prior: the objective does not fall."""
    X, _ = data
    model = BayesianGMM_MAP(
        4, prior="empirical", mean_precision_prior=50, mean_prior=20, random_state=0, tol=1e-9
    ).fit(X)
    assert (np.diff(model.lower_bounds_) > -1e-10).all()


def test_criteria_take_weights(data):
    X, _ = data
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    repeated = np.repeat(X, weight, axis=0)
    model = BayesianGMM_MAP(3, random_state=0).fit(X)
    for criterion in (model.aic, model.bic, model.icl):
        np.testing.assert_allclose(criterion(X, sample_weight=weight), criterion(repeated))


# -- images --------------------------------------------------------------------------------


def test_bytes_are_fitted_on_unique_rows():
    image = load_sample_image("china.jpg")[::6, ::6].reshape(-1, 3)
    options = {"random_state": 0, "means_init": image[[10, 3000, 5000]].astype(float)}
    options |= {"weights_init": [1 / 3] * 3, "precisions_init": [np.eye(3) / 1000] * 3}
    bytes_ = BayesianGMM_MAP(3, **options).fit(image)
    floats = BayesianGMM_MAP(3, **options).fit(image.astype(float))  # not / 255
    for name in ATTRIBUTES:
        np.testing.assert_allclose(getattr(bytes_, name), getattr(floats, name), rtol=1e-8)
    assert bytes_.n_iter_ == floats.n_iter_
    for dtype in (np.float64, np.float32):  # bytes / 255 are found as well
        values = image / dtype(255)
        merged = merge_equal_pixels(InMemory(values))
        rows = merged.values
        assert len(rows) < 0.8 * len(image)
        assert merged.weight.sum() == len(image)
        assert rows.dtype == dtype
        assert set(map(tuple, rows)) == set(map(tuple, values))
    other = InMemory(np.random.default_rng(0).random((100, 3)))
    assert merge_equal_pixels(other) is other
    np.testing.assert_allclose(bytes_.lower_bound_, floats.lower_bound_)
    weight = np.random.default_rng(0).integers(0, 3, len(image))
    bytes_.fit(image, sample_weight=weight)
    floats.fit(image.astype(float), sample_weight=weight)
    np.testing.assert_allclose(bytes_.means_, floats.means_, rtol=1e-8)
    np.testing.assert_array_equal(bytes_.predict(image), floats.predict(image))


@pytest.fixture(scope="module")
def noisy_image():
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 50), dtype=int)
    truth[10:30, 15:40] = 1
    X = truth[..., None] * np.array([1.0, 0.5, 0.8]) + rng.normal(size=(40, 50, 3))
    return X.reshape(-1, 3), truth.ravel(), grid_to_graph(40, 50)


def test_neighbors_help_in_segmentation(noisy_image):
    X, truth, graph = noisy_image
    plain = BayesianGMM_MAP(2, random_state=0, covariance_type="tied").fit(X)
    model = BayesianGMM_MAP(
        2, random_state=0, covariance_type="tied", connectivity=graph, coupling=1.0, tol=1e-6
    )
    labels = model.fit_predict(X)
    assert (np.diff(model.lower_bounds_) > -1e-10).all()
    assert (
        adjusted_rand_score(truth, labels)
        > 0.9
        > 0.3
        > (adjusted_rand_score(truth, plain.predict(X)))
    )
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    np.testing.assert_allclose(model.transform(X), model.predict_proba(X))
    for other in (1 - truth, truth):  # another image of the same scene
        Y = other[:, None] * np.array([1.0, 0.5, 0.8]) + X - truth[:, None] * [1.0, 0.5, 0.8]
        assert adjusted_rand_score(other, model.predict(Y)) > 0.9
    with pytest.raises(ValueError, match="connectivity has shape"):
        model.predict(X[:10])
    with pytest.raises(ValueError, match="sample_weight cannot"):
        model.fit(X, sample_weight=np.ones(len(X)))
    with pytest.raises(ValueError, match="partial_fit cannot"):
        model.partial_fit(X)


def test_any_graph_will_do(noisy_image):
    X, _, _ = noisy_image
    X = X[:6]
    graph = csr_array(([1.0, 2.0], ([0, 3], [1, 4])), shape=(6, 6))
    BayesianGMM_MAP(2, connectivity=graph, random_state=0, prior="empirical").fit(X)
    BayesianGMM_MAP(2, connectivity=graph.toarray(), random_state=0, prior="empirical").fit(X)
    with pytest.raises(ValueError, match="at least 0"):
        BayesianGMM_MAP(2, connectivity=-graph, random_state=0).fit(X)


# -- online, memory, state -----------------------------------------------------------------


def test_partial_fit_learns_from_batches():
    X, labels = draw(6000, 3, 4, 4.0)
    model = BayesianGMM_MAP(3, random_state=0, prior="empirical")
    for start in range(0, 6000, 300):
        model.partial_fit(X[start : start + 300])
    whole = BayesianGMM_MAP(3, random_state=0, prior="empirical").fit(X)
    assert model.score(X) > whole.score(X) - 0.02
    assert adjusted_rand_score(labels, model.predict(X)) > 0.98
    assert model.n_iter_ == len(model.lower_bounds_)


def test_partial_fit_with_missing_values_and_weights(data):
    X = data[0].copy()
    X[::5, 0] = np.nan
    model = BayesianGMM_MAP(3, random_state=0).partial_fit(X[:200])
    model.partial_fit(X[200:], sample_weight=np.ones(200))
    assert np.isfinite(model.score(X))


def test_failed_partial_fit_changes_nothing(data):
    X, _ = data
    model = BayesianGMM_MAP(3, random_state=0).partial_fit(X)
    before = pickle.dumps({k: v for k, v in vars(model).items() if k != "_callbacks"})
    for bad in (np.full((5, 4), 1e300), X[:, :2], np.full((5, 4), np.inf)):
        with pytest.raises(ValueError, match="X"):
            model.partial_fit(bad)
    after = pickle.dumps({k: v for k, v in vars(model).items() if k != "_callbacks"})
    assert before == after


def test_memory_map(tmp_path, data):
    X, _ = data
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    one = BayesianGMM_MAP(3, random_state=0).fit(mapped)
    two = BayesianGMM_MAP(3, random_state=0).fit(X)
    np.testing.assert_array_equal(one.means_, two.means_)
    np.testing.assert_array_equal(one.predict(mapped), two.predict(X))


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr("skem._rows.parts.CHUNK_SIZE", 20_000)
    X, _ = draw(3000)
    one = BayesianGMM_MAP(3, random_state=0).fit(X)
    two = BayesianGMM_MAP(3, random_state=0, n_jobs=3).fit(X)
    np.testing.assert_array_equal(one.covariances_, two.covariances_)
    np.testing.assert_array_equal(one.score_samples(X), two.score_samples(X))


@pytest.mark.slow
def test_compiled_fit_gives_the_same(monkeypatch, data):
    pytest.importorskip("numba")
    X, _ = data
    for kind in TYPES:
        plain = BayesianGMM_MAP(3, covariance_type=kind, random_state=0, max_iter=30).fit(X)
        with monkeypatch.context() as patch:
            patch.setattr("skem.mixture._estimator.fast_pays", lambda layout, n: True)
            fast = BayesianGMM_MAP(3, covariance_type=kind, random_state=0, max_iter=30).fit(X)
        np.testing.assert_allclose(fast.covariances_, plain.covariances_, rtol=1e-9, atol=1e-12)
        assert fast.n_iter_ == plain.n_iter_


def test_small_data_are_never_compiled_for():
    assert not fast_pays(Layout("full", 3, 3), 100_000)
    assert fast_pays(Layout("full", 3, 3), 2_000_000)
    assert not fast_pays(Layout("diag", 3, 30), 10_000_000)


def test_interrupted_fit_keeps_what_it_has(data, monkeypatch):
    from skem.mixture._model import Mixture

    X, _ = data
    original, calls = Mixture.m_step, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(Mixture, "m_step", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted after 3 iterations"):
        model = BayesianGMM_MAP(3, tol=0, random_state=0).fit(X)
    assert model.n_iter_ == 3
    assert np.isfinite(model.score(X))


def test_copies_and_pickles_score_the_same(data):
    X, _ = data
    model = BayesianGMM_MAP(3, random_state=0).fit(X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.score_samples(X), model.score_samples(X))
        other.partial_fit(X)


def test_data_frames_give_names(data):
    X = pd.DataFrame(data[0], columns=list("abcd"))
    model = BayesianGMM_MAP(2, random_state=0).fit(X).set_output(transform="pandas")
    assert list(model.feature_names_in_) == list("abcd")
    assert list(model.transform(X).columns) == ["bayesiangmm_map0", "bayesiangmm_map1"]


def test_iris_by_icl_and_bic():
    X = load_iris().data
    bics = [
        BayesianGMM_MAP(k, random_state=0, n_init=5, prior="empirical").fit(X).bic(X)
        for k in range(1, 6)
    ]
    assert np.argmin(bics) + 1 in (2, 3)


def test_reconstruct_is_the_expected_mean(data):
    X, _ = data
    model = BayesianGMM_MAP(3, random_state=0).fit(X)
    np.testing.assert_allclose(model.reconstruct(X), model.predict_proba(X) @ model.means_)
    with pytest.raises(ValueError, match="but 3 are needed"):
        model.inverse_transform(np.ones((2, 5)))


# -- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_components": 401}, "n_samples = 400"),
        ({"covariance_type": "round"}, "covariance_type"),
        ({"tol": -1}, "tol"),
        ({"reg_covar": -1}, "reg_covar"),
        ({"init_params": "best"}, "init_params"),
        ({"prior": "weak"}, "prior"),
        ({"weight_concentration_prior": np.inf}, "weight_concentration_prior"),
        ({"mean_precision_prior": -1}, "mean_precision_prior"),
        ({"mean_prior": [1, 2]}, "mean_prior must hold 4"),
        ({"covariance_prior": np.eye(3)}, "covariance_prior has shape"),
        ({"covariance_prior": -np.eye(4)}, "covariance_prior must be symmetric and positive"),
        ({"covariance_prior": np.triu(np.ones((4, 4)))}, "covariance_prior must be symmetric"),
        ({"weights_init": [0.5, 0.5]}, "weights_init must hold"),
        ({"weights_init": [0.5, 0.5, 0.5]}, "weights_init must be at least 0 and sum to 1"),
        ({"weights_init": [-0.5, 0.5, 1]}, "weights_init must be at least 0"),
        ({"means_init": [[1, 2]]}, "means_init must hold"),
        ({"means_init": np.full((3, 4), np.nan)}, "means_init must hold finite"),
        ({"precisions_init": np.eye(4)}, "precisions_init must hold"),
        ({"precisions_init": [-np.eye(4)] * 3}, "precisions_init must be symmetric and pos"),
        ({"covariance_type": "diag", "precisions_init": -np.ones((3, 4))}, "positive definite"),
        ({"coupling": -1}, "coupling"),
        ({"degrees_of_freedom_prior": -1000}, "degrees_of_freedom_prior must be"),
        ({"degrees_of_freedom_prior": np.nan}, "degrees_of_freedom_prior"),
        ({"means_init": [["a"] * 4] * 3}, "means_init must hold numbers"),
    ],
)
def test_wrong_parameters_are_named(data, options, message):
    model = BayesianGMM_MAP(**{"n_components": 3, **options})
    with pytest.raises(ValueError, match=message):
        model.fit(data[0])
    assert not hasattr(model, "weights_")
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((1, 2)), "minimum of 2"),
        (np.full((5, 2), np.inf), "infinity"),
        (np.ones(5), "2D array"),
        (np.full((5, 2), 1e200) * np.arange(5)[:, None], "X"),
    ],
)
def test_bad_data_are_refused(X, message):
    model = BayesianGMM_MAP(2)
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    assert not hasattr(model, "weights_")


@pytest.mark.parametrize("value", [0.1, 7.0, -1 / 3, 1e5])
def test_empirical_prior_of_a_constant_feature_in_a_sample(value):
    """Its weighted mean in the sample of 5000 rows is not exact."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8000, 3)) + 3 * rng.integers(0, 3, size=(8000, 1))
    X[:, 1] = value
    model = BayesianGMM_MAP(3, prior="empirical", random_state=0).fit(X)
    np.testing.assert_allclose(model.means_[:, 1], value)
    assert np.isfinite(model.lower_bound_)


def test_tiny_weights():
    X = np.random.default_rng(0).normal(size=(300, 2))
    X[:100] += 5
    expected = BayesianGMM_MAP(2, random_state=0).fit(X)
    model = BayesianGMM_MAP(2, random_state=0).fit(X, sample_weight=np.full(300, 1e-20))
    np.testing.assert_allclose(model.means_, expected.means_)
