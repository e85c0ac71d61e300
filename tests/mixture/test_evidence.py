"""Labels and prior probabilities of rows, against the likelihood written out."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris, load_wine
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.preprocessing import StandardScaler

from skem import BayesianGMM_MAP

TYPES = ["full", "tied", "diag", "spherical"]
EMPIRICAL = {"prior": "empirical", "random_state": 0}


def evidence_of(y, n_components, n_labels, seed=0):
    """Labels of a few rows of each class; nothing is known of the others."""
    rng = np.random.default_rng(seed)
    out = np.ones((len(y), n_components))
    for k in np.unique(y):
        some = rng.choice(np.flatnonzero(y == k), n_labels, replace=False)
        out[some] = np.eye(n_components)[k]
    return out


def matrix(covariances, k, kind, n_features):
    own = covariances if kind == "tied" else covariances[k]
    return own if kind in ("full", "tied") else np.diag(np.broadcast_to(own, n_features))


def plain_log_likelihood(X, evidence, weights, means, covariances, kind):
    """sum_n log sum_k pi_k a_nk N(x_no | k), row by row."""
    out = 0.0
    for row, a in zip(X, evidence, strict=True):
        o = np.flatnonzero(~np.isnan(row))
        terms = 0.0
        for k, mean in enumerate(means):
            cov = matrix(covariances, k, kind, X.shape[1])[np.ix_(o, o)]
            density = multivariate_normal(mean[o], cov).pdf(row[o]) if len(o) else 1.0
            terms += weights[k] * a[k] * density
        out += np.log(terms)
    return out


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X, y


@pytest.mark.parametrize("kind", TYPES)
def test_the_objective_and_its_gradient(kind, iris):
    """The maximum is stationary, and its value is the likelihood written out."""
    X, y = iris[0][::3, :2].copy(), iris[1][::3]
    X[::7, 1] = np.nan
    rng = np.random.default_rng(0)
    evidence = np.where(rng.random((len(X), 1)) < 0.5, rng.random((len(X), 3)), 1.0)
    evidence[:9] = np.eye(3)[y[:9]]
    evidence /= evidence.max(axis=1, keepdims=True)
    model = BayesianGMM_MAP(
        3, covariance_type=kind, reg_covar=0, tol=1e-12, max_iter=5000, random_state=0
    )
    model.fit(X, resp_prior=evidence)
    fitted = model.weights_, model.means_, model.covariances_
    value = plain_log_likelihood(X, evidence, *fitted, kind)
    assert model.lower_bound_ * len(X) == pytest.approx(value)

    def of_changes(change):
        """Weights by a softmax; means and covariances moved and scaled."""
        weights = fitted[0] * np.exp(change[:3])
        means = fitted[1] + change[3:9].reshape(3, 2)
        scale = np.exp(change[9])
        args = weights / weights.sum(), means, fitted[2] * scale
        return plain_log_likelihood(X, evidence, *args, kind)

    gradient = approx_fprime(np.zeros(10), of_changes, 1e-6)
    np.testing.assert_allclose(gradient, 0, atol=0.02)


def test_equal_values_say_nothing(iris):
    X, _ = iris
    plain = BayesianGMM_MAP(3, random_state=0, tol=1e-9, max_iter=1000).fit(X)
    model = BayesianGMM_MAP(3, random_state=0, tol=1e-9, max_iter=1000)
    model.fit(X, resp_prior=np.full((len(X), 3), 0.2))
    assert model.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-6)
    np.testing.assert_allclose(np.sort(model.weights_), np.sort(plain.weights_), atol=1e-3)
    same = model.predict_proba(X, resp_prior=np.ones((len(X), 3)))
    np.testing.assert_allclose(same, model.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
def test_labels_of_all_rows_are_a_discriminant_analysis(kind, iris):
    """Weights, means and covariances are those of the classes."""
    X, y = iris
    model = BayesianGMM_MAP(3, covariance_type=kind, reg_covar=0, random_state=0)
    model.fit(X, resp_prior=np.eye(3)[y])
    means = [X[y == k].mean(0) for k in range(3)]
    np.testing.assert_allclose(model.weights_, 1 / 3)
    np.testing.assert_allclose(model.means_, means)
    matrices = np.array([np.cov(X[y == k].T, bias=True) for k in range(3)])
    expected = {
        "full": matrices,
        "tied": matrices.mean(0),
        "diag": np.array([np.diag(c) for c in matrices]),
        "spherical": np.array([np.trace(c) / 4 for c in matrices]),
    }[kind]
    np.testing.assert_allclose(model.covariances_, expected, rtol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X, resp_prior=np.eye(3)[y]), np.eye(3)[y])


@pytest.mark.parametrize("load", [load_iris, load_wine])
@pytest.mark.parametrize("seed", range(4))
def test_components_keep_the_order_of_the_labels(load, seed):
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    order = np.random.default_rng(seed).permutation(3)
    evidence = evidence_of(order[y], 3, 3, seed)
    model = BayesianGMM_MAP(3, covariance_type="tied", **EMPIRICAL)
    predicted = model.fit(X, resp_prior=evidence).predict(X)
    assert np.mean(predicted == order[y]) > 0.9


def test_a_component_without_labels_takes_the_rest(iris):
    X, y = iris
    evidence = np.ones((150, 3))
    evidence[y == 1] = [0, 0, 1]
    evidence[y == 0] = [1, 0, 0]  # the second column has no label
    model = BayesianGMM_MAP(3, **EMPIRICAL).fit(X, resp_prior=evidence)
    assert (model.predict(X[y == 2]) == 1).mean() > 0.9


def test_prior_probabilities_enter_predict_proba(iris):
    X, _ = iris
    model = BayesianGMM_MAP(2, random_state=0).fit(X)
    prior = np.random.default_rng(0).random((150, 2))
    expected = model.predict_proba(X) * prior
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(X, resp_prior=prior), expected, atol=1e-12)
    far = np.full((1, 4), 1e200)  # whose label decides, however far it is
    np.testing.assert_array_equal(model.predict_proba(far, [[0, 1]]), [[0, 1]])


def test_weights_are_repeats(iris):
    X, y = iris
    counts = np.random.default_rng(0).integers(0, 3, len(X))
    evidence = evidence_of(y, 3, 5)
    one = BayesianGMM_MAP(3, **EMPIRICAL).fit(X, sample_weight=counts, resp_prior=evidence)
    repeated = BayesianGMM_MAP(3, **EMPIRICAL).fit(
        np.repeat(X, counts, axis=0), resp_prior=np.repeat(evidence, counts, axis=0)
    )
    np.testing.assert_allclose(one.means_, repeated.means_, rtol=1e-6)


def test_wherever_rows_live(iris, tmp_path):
    X, y = iris
    X = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    evidence, weight = evidence_of(y, 3, 5), np.arange(150) % 3
    model = BayesianGMM_MAP(3, **EMPIRICAL).fit(X, sample_weight=weight, resp_prior=evidence)
    np.save(tmp_path / "X.npy", X)
    file = np.load(tmp_path / "X.npy", mmap_mode="r")
    blocks = da.from_array(X, chunks=(40, 4))
    for rows in (file, blocks, pd.DataFrame(X)):
        other = BayesianGMM_MAP(3, **EMPIRICAL)
        other.fit(rows, sample_weight=weight, resp_prior=evidence)
        np.testing.assert_allclose(other.means_, model.means_, rtol=1e-6)
    expected = model.predict_proba(X, resp_prior=evidence)
    np.testing.assert_allclose(model.predict_proba(file, resp_prior=evidence), expected)
    lazy = model.predict_proba(blocks, resp_prior=evidence)
    assert isinstance(lazy, da.Array)
    np.testing.assert_allclose(np.asarray(lazy), expected)


def test_an_atlas_guides_a_segmentation():
    """Two kinds of tissue with the same gray value, which only the atlas tells apart."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 200).reshape(20, 30, order="F")
    image = np.array([0.0, 1.0, 0.0])[truth] + 0.2 * rng.normal(size=truth.shape)
    atlas = 0.1 + 0.8 * np.eye(3)[truth.ravel()]
    graph = grid_to_graph(20, 30)
    for options in ({}, {"connectivity": graph, "coupling": 0.5}):
        model = BayesianGMM_MAP(3, **EMPIRICAL, **options)
        model.fit(image.reshape(-1, 1), resp_prior=atlas)
        found = model.predict_proba(image.reshape(-1, 1), resp_prior=atlas).argmax(1)
        assert np.mean(found == truth.ravel()) > 0.95
        assert model.means_.ravel() == pytest.approx([0, 1, 0], abs=0.1)


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (np.ones((150, 2)), "shape"),
        (np.ones(150), "shape"),
        (np.full((150, 3), -1.0), "at least 0"),
        (np.full((150, 3), np.nan), "NaN"),
        (np.eye(3)[np.arange(150) % 3] * (np.arange(150) != 7)[:, None], "row 7"),
        ([["a"] * 3] * 150, "numbers"),
    ],
)
def test_bad_evidence(evidence, message, iris):
    model = BayesianGMM_MAP(3, **EMPIRICAL)
    with pytest.raises(ValueError, match=message):
        model.fit(iris[0], resp_prior=evidence)
    assert not hasattr(model, "weights_")
    model.fit(iris[0])
    with pytest.raises(ValueError, match=message):
        model.predict_proba(iris[0], resp_prior=evidence)


def test_labels_need_their_components(iris):
    model = BayesianGMM_MAP(3, weight_concentration_prior=-1, **EMPIRICAL)
    with pytest.raises(ValueError, match="weight_concentration_prior"):
        model.fit(iris[0], resp_prior=np.ones((150, 3)))
