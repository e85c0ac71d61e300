"""LatentImputer against closed forms, and as its users meet it."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skem import BayesianGMM_MAP, BernoulliRBMCD, GANEstimator, LatentImputer, VAEEstimator


@pytest.fixture(name="X", scope="module")
def rows():
    return load_iris().data[np.random.default_rng(0).permutation(150)]


@pytest.fixture(name="holes", scope="module")
def rows_with_holes(X):
    return np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)


def test_fills_with_the_conditional_mean(X, holes):
    imputer = LatentImputer(BayesianGMM_MAP(1, reg_covar=0)).fit(X)
    mean, cov = X.mean(0), np.cov(X.T, bias=True)
    filled = imputer.transform(holes)
    for row, found in zip(holes, filled, strict=True):
        o, m = ~np.isnan(row), np.isnan(row)
        gain = cov[np.ix_(m, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
        expected = mean[m] + gain @ (row[o] - mean[o])
        np.testing.assert_allclose(found[m], expected, rtol=1e-8)
        np.testing.assert_array_equal(found[o], row[o])


def test_better_than_the_mean(X, holes):
    missing = np.isnan(holes)

    def error(imputer):
        return np.sqrt(((imputer.fit_transform(holes) - X)[missing] ** 2).mean())

    vae = VAEEstimator(2, max_iter=200, hidden_layer_sizes=(32,), random_state=0)
    for model in (None, BayesianGMM_MAP(3, prior="empirical", random_state=0), vae):
        assert error(LatentImputer(model)) < 0.6 * error(SimpleImputer())


def test_tuned_in_a_pipeline(X, holes):
    y = load_iris().target[np.random.default_rng(0).permutation(150)]
    pipeline = make_pipeline(
        StandardScaler(),
        LatentImputer(BayesianGMM_MAP(prior="empirical", random_state=0)),
        LogisticRegression(),
    )
    grid = {"latentimputer__estimator__n_components": [1, 2, 3]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(holes, y)
    assert search.best_score_ > 0.85
    alone = GridSearchCV(
        LatentImputer(BayesianGMM_MAP(prior="empirical", random_state=0)),
        {"estimator__n_components": [1, 2, 10]},
    ).fit(holes)
    assert np.isfinite(alone.best_score_)


def test_models_that_need_complete_rows(X, holes):
    class Complete(BayesianGMM_MAP):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.input_tags.allow_nan = False
            return tags

    complete = ~np.isnan(holes).any(1)
    weight = np.arange(150.0)
    one = LatentImputer(Complete(1)).fit(holes, sample_weight=weight)
    two = BayesianGMM_MAP(1).fit(holes[complete], sample_weight=weight[complete])
    np.testing.assert_allclose(one.estimator_.means_, two.means_)
    with pytest.raises(ValueError, match="no row of X is complete"):
        LatentImputer(Complete(1)).fit(np.where(np.arange(4) == 2, np.nan, X))


def test_frames_weights_and_names(X, holes):
    frame = pd.DataFrame(holes, columns=list("abcd"))
    imputer = LatentImputer(BayesianGMM_MAP(1)).set_output(transform="pandas")
    out = imputer.fit(frame, sample_weight=np.r_[np.ones(100), np.zeros(50)]).transform(frame)
    assert list(out.columns) == list(imputer.get_feature_names_out()) == list("abcd")
    np.testing.assert_allclose(
        imputer.estimator_.means_, BayesianGMM_MAP(1).fit(holes[:100]).means_
    )
    with sklearn.config_context(enable_metadata_routing=True):
        model = BayesianGMM_MAP(1).set_fit_request(sample_weight=True)
        routed = LatentImputer(model).fit(holes, sample_weight=np.arange(150.0))
    direct = BayesianGMM_MAP(1).fit(holes, sample_weight=np.arange(150.0))
    np.testing.assert_allclose(routed.estimator_.means_, direct.means_)
    assert (
        LatentImputer().fit(holes.astype(np.float32)).transform(holes.astype(np.float32)).dtype
        == np.float32
    )


def test_observed_values_stay(X):
    rows = np.array([[np.nan, 0.0, 3.0, -2.0]])
    model = BernoulliRBMCD(4, n_iter=3, random_state=0)
    imputer = LatentImputer(model).fit((X.mean(0) < X) * 1.0)
    with pytest.warns(UserWarning, match="outside \\[0, 1\\] are clipped"):
        filled = imputer.transform(rows)
    np.testing.assert_array_equal(filled[0, 1:], rows[0, 1:])
    assert 0 <= filled[0, 0] <= 1


def test_models_of_others(holes):
    class Toy(BaseEstimator):
        def fit(self, X, y=None, foo=None, sample_weight=None):
            self.mean_, self.foo_ = np.average(X, axis=0, weights=sample_weight), foo
            return self

        def impute(self, X):
            return np.where(np.isnan(X), self.mean_, X)

    imputer = LatentImputer(Toy()).fit(holes, foo="abc", sample_weight=np.ones(150))
    assert imputer.estimator_.foo_ == "abc"
    assert not hasattr(imputer, "score")
    weight = np.r_[np.ones(100), np.zeros(50)]
    mixture = LatentImputer(BayesianGMM_MAP(1)).fit(holes)
    expected = mixture.estimator_.score(holes[:100])
    assert mixture.score(holes, sample_weight=weight) == pytest.approx(expected)


def test_wrong_models_are_named(X):
    with pytest.raises(TypeError, match="GANEstimator has none"):
        LatentImputer(GANEstimator()).fit(X)
    with pytest.raises(ValueError, match="inf"):
        LatentImputer().fit(np.where(X > 7, np.inf, X))
