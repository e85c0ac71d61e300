"""``to_sklearn``: scikit-learn's classes with our weights predict what ours predict."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.neural_network import BernoulliRBM

from skem import BayesianGMM_MAP, BernoulliRBMCD

X = load_iris().data
PIXELS = (load_digits().data[:300] > 7).astype(float)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixture_predicts_the_same(kind, dtype):
    data = X.astype(dtype)
    model = BayesianGMM_MAP(3, covariance_type=kind, prior="empirical", random_state=0)
    theirs = model.fit(data).to_sklearn()
    assert isinstance(theirs, GaussianMixture)
    assert theirs.get_params()["covariance_type"] == kind
    np.testing.assert_array_equal(theirs.predict(data), model.predict(data))
    # in single precision, scikit-learn rounds within its sums and ours in its results only
    exact = data.astype(float)
    tol = 1e-9 if dtype == np.float64 else 1e-6
    for name in ("predict_proba", "score_samples"):
        found = getattr(theirs, name)(exact)
        np.testing.assert_allclose(found, getattr(model, name)(data), rtol=tol, atol=tol)
    loose = theirs.predict_proba(data)
    np.testing.assert_allclose(loose, model.predict_proba(data), rtol=0, atol=1e-4)
    assert theirs.bic(X) == pytest.approx(model.bic(X), rel=1e-6)
    assert theirs.sample(5)[0].shape == (5, 4)
    assert clone(theirs).fit(X).converged_


def test_values_are_copied_with_their_history():
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = BayesianGMM_MAP(2, random_state=0, max_iter=77, reg_covar=1e-5).fit(frame)
    theirs = model.to_sklearn()
    assert list(theirs.feature_names_in_) == list("abcd")
    assert (theirs.max_iter, theirs.reg_covar, theirs.random_state) == (77, 1e-5, 0)
    assert theirs.n_iter_ == model.n_iter_
    assert theirs.lower_bounds_ == model.lower_bounds_
    assert theirs.lower_bounds_ is not model.lower_bounds_
    before = model.predict_proba(frame)
    theirs.means_ += 1
    theirs.precisions_cholesky_ *= 2
    np.testing.assert_array_equal(model.predict_proba(frame), before)


def test_mixture_set_by_hand():
    """The covariances that are set count, not the precisions of the fit before."""
    model = BayesianGMM_MAP(2, random_state=0).fit(X)
    model.covariances_ = 4 * model.covariances_
    theirs = model.to_sklearn()
    np.testing.assert_allclose(theirs.score_samples(X), model.score_samples(X), atol=1e-9)
    bare = BayesianGMM_MAP(2, covariance_type="diag")
    bare.weights_, bare.means_ = np.array([0.3, 0.7]), np.array([[0.0, 0], [1, 2]])
    bare.covariances_ = np.array([[1.0, 2], [3, 4]])
    rows = X[:, :2]
    expected = GaussianMixture(2, covariance_type="diag", means_init=bare.means_)
    expected.weights_, expected.means_ = bare.weights_, bare.means_
    expected.precisions_cholesky_ = bare.covariances_**-0.5
    found = bare.to_sklearn().score_samples(rows)
    np.testing.assert_allclose(found, expected.score_samples(rows), atol=1e-9)


def test_a_component_without_weight_stays_off():
    model = BayesianGMM_MAP(2, random_state=0).fit(X)
    model.weights_ = np.array([1.0, 0.0])
    with np.errstate(divide="ignore"):
        found = model.to_sklearn().predict_proba(X)
    np.testing.assert_array_equal(found, np.tile([1.0, 0.0], (150, 1)))


def test_a_background_cannot_be_exported():
    X = np.random.default_rng(0).normal(size=(100, 2))
    model = BayesianGMM_MAP(1, background="uniform", random_state=0).fit(X)
    with pytest.raises(ValueError, match="background=None"):
        model.to_sklearn()


def test_what_cannot_be_exported():
    with pytest.raises(NotFittedError):
        BayesianGMM_MAP().to_sklearn()
    with pytest.raises(NotFittedError):
        BernoulliRBMCD().to_sklearn()
    graph = np.eye(150, k=1) + np.eye(150, k=-1)
    model = BayesianGMM_MAP(2, connectivity=graph, random_state=0).fit(X)
    with pytest.raises(ValueError, match="set connectivity=None"):
        model.to_sklearn()
    alone = model.set_params(connectivity=None)
    np.testing.assert_array_equal(alone.to_sklearn().predict(X), alone.predict(X))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("algorithm", ["pcd", "cd"])
def test_rbm_transforms_the_same(algorithm, dtype):
    data = PIXELS.astype(dtype)
    model = BernoulliRBMCD(6, n_iter=3, algorithm=algorithm, random_state=0).fit(data)
    theirs = model.to_sklearn()
    assert isinstance(theirs, BernoulliRBM)
    assert theirs.get_params()["n_components"] == 6
    assert theirs.learning_rate == BernoulliRBM().learning_rate  # ours is "auto"
    codes = theirs.transform(data)
    assert codes.dtype == dtype
    np.testing.assert_allclose(codes, model.transform(data), rtol=0, atol=1e-6)
    assert np.isfinite(theirs.score_samples(data)).all()
    theirs.components_ += 1
    assert not np.allclose(theirs.components_, model.components_)
    assert clone(theirs).fit(data).components_.shape == (6, 64)


def test_rbm_set_by_hand():
    model = BernoulliRBMCD(2)
    model.components_ = np.array([[1.0, -1, 0], [0, 2, 0.5]])
    model.intercept_hidden_, model.intercept_visible_ = np.array([0.1, -0.2]), np.zeros(3)
    rows = np.array([[1.0, 0, 1], [0, 1, 1]])
    expected = 1 / (1 + np.exp(-(rows @ model.components_.T + model.intercept_hidden_)))
    np.testing.assert_allclose(model.to_sklearn().transform(rows), expected, atol=1e-12)
