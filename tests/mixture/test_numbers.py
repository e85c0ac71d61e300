"""Numbers at the ends of their range, and attributes that the user sets."""

import copy
import pickle

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from skem import BayesianGMM_MAP
from skem._base.em import with_limits

TYPES = ("full", "tied", "diag", "spherical")


@pytest.fixture(scope="module", name="X")
def two_clusters():
    rng = np.random.default_rng(0)
    return np.r_[rng.normal(size=(100, 3)), 2 * rng.normal(size=(100, 3)) + 5]


# -- rows far away -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e154, 1e200, 1.7e308, -1.7e308])
@pytest.mark.parametrize("kind", TYPES)
def test_rows_far_away_have_the_limit(X, kind, size):
    model = BayesianGMM_MAP(2, covariance_type=kind, random_state=0).fit(X)
    rows = np.array(
        [[size, 1, 2], [size, size, -size], [np.nan, size, 1], [size, *[np.nan] * 2]]
    )
    near = model.predict(rows / abs(size) * 1e8)
    posterior = model.predict_proba(rows)
    np.testing.assert_allclose(posterior.sum(1), 1)
    if kind != "tied":  # with shared covariances the distances differ by less than rounding
        np.testing.assert_array_equal(posterior.argmax(1), near)
        np.testing.assert_array_equal(np.sort(posterior, axis=1), [[0, 1]] * 4)
    np.testing.assert_array_equal(model.predict(rows), posterior.argmax(1))
    scores = model.score_samples(rows)
    assert not np.isnan(scores).any()
    assert (scores < -1e300).all()
    assert model.icl(rows) > 1e300
    filled = model.impute(rows)
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[~np.isnan(rows)], rows[~np.isnan(rows)])


def test_far_rows_are_filled_by_regression():
    rng = np.random.default_rng(0)
    X = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 2]], size=500)
    model = BayesianGMM_MAP(1).fit(X)
    slope = model.covariances_[0, 1, 0] / model.covariances_[0, 0, 0]
    filled = model.impute([[1e200, np.nan], [-1e307, np.nan]])
    np.testing.assert_allclose(filled[:, 1], slope * filled[:, 0], rtol=1e-12)


# -- float32 -------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e20, 1e-22, 1e30])
@pytest.mark.parametrize("kind", TYPES)
def test_attributes_beyond_float32_are_float64(X, kind, factor):
    options = {"covariance_type": kind, "prior": "empirical", "random_state": 0}
    single = (X * factor).astype(np.float32)
    model = BayesianGMM_MAP(2, **options).fit(single)
    expected = BayesianGMM_MAP(2, **options).fit(single.astype(float))
    for name in ("covariances_", "precisions_", "precisions_cholesky_"):
        np.testing.assert_allclose(getattr(model, name), getattr(expected, name), rtol=1e-4)
    assert model.score(single) == pytest.approx(expected.score(single), abs=1e-4)


@pytest.mark.parametrize("unit", [1e-60, 1e-45, 1e-43, 1e39, 1e60])
def test_weights_beyond_float32(X, unit):
    """A factor of all weights changes nothing, whatever float32 can hold."""
    weight = 1.0 + np.arange(len(X)) % 3
    expected = BayesianGMM_MAP(2, random_state=0).fit(
        X.astype(np.float32), sample_weight=weight
    )
    model = BayesianGMM_MAP(2, random_state=0)
    model.fit(X.astype(np.float32), sample_weight=unit * weight)
    np.testing.assert_allclose(model.means_, expected.means_, rtol=1e-5)
    assert model.lower_bound_ == pytest.approx(expected.lower_bound_, rel=1e-6)


def test_weights_too_large_to_be_summed(X):
    weight = np.full(len(X), 2e100)
    for verb in (BayesianGMM_MAP(2).fit, BayesianGMM_MAP(2).partial_fit):
        with pytest.raises(ValueError, match=r"values below 1e\+100.*rescale it"):
            verb(X, sample_weight=weight)
    expected = BayesianGMM_MAP(2, random_state=0).fit(X)
    model = BayesianGMM_MAP(2, random_state=0).fit(X, sample_weight=weight / 2)
    np.testing.assert_allclose(model.means_, expected.means_, rtol=1e-5)


def test_a_spread_whose_square_underflows_counts_as_none():
    X = np.random.default_rng(0).normal(size=(50, 2)) * [1, 1e-160]
    model = BayesianGMM_MAP(2, random_state=0).fit(X)
    assert np.isfinite(model.score(X))
    np.testing.assert_allclose(model.covariances_[:, 1, 1], 1e-6)


# -- a few rows of extreme size --------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:n_components=2 is more than half")
@pytest.mark.parametrize("size", [1e153, 1e200, 1e300])
@pytest.mark.parametrize("kind", TYPES)
def test_sums_are_finite_or_the_rows_refused(X, kind, size):
    for rows in (np.full((2, 3), size), np.r_[X, np.full((2, 3), size)]):
        for n_components in (1, 2):
            model = BayesianGMM_MAP(n_components, covariance_type=kind, prior="empirical")
            try:
                model.fit(rows).partial_fit(rows)
            except ValueError as error:
                assert "rescale X" in str(error) or "Scale it" in str(error)  # noqa: PT017
                continue
            kept = [value for value in model._statistics.values() if value is not None]
            assert all(np.isfinite(value).all() for value in kept)
            assert np.isfinite(model.covariances_).all()
            assert np.isfinite(model.lower_bound_)


# -- attributes set by hand ----------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_attributes_set_after_a_fit_are_used(X, copied):
    fitted = BayesianGMM_MAP(1).fit(X)
    mean, covariance = fitted.means_[0], fitted.covariances_[0]

    def expected(matrix):
        return multivariate_normal(mean, matrix).logpdf(X).mean()

    model = copied(fitted)
    model.covariances_ = 4 * np.eye(3)[None]
    assert model.score(X) == pytest.approx(expected(4 * np.eye(3)))
    model.precisions_cholesky_ = 0.5 * np.eye(3)[None]  # as with scikit-learn, this one counts
    model.covariances_ = np.eye(3)[None]
    assert model.score(X) == pytest.approx(expected(4 * np.eye(3)))
    model = copied(fitted)
    model.covariances_[0] *= 2
    assert model.score(X) == pytest.approx(expected(2 * covariance))
    model = copied(fitted)
    model.precisions_ = 2 * model.precisions_
    assert model.score(X) == pytest.approx(expected(covariance / 2))
    assert fitted.score(X) == pytest.approx(expected(covariance))


def test_partial_fit_does_not_mix_what_was_set_with_earlier_sums(X):
    model = BayesianGMM_MAP(2, random_state=0).fit(X)
    model.means_ = model.means_ + 1
    with pytest.raises(ValueError, match="means_ were set after the last fit"):
        model.partial_fit(X)
    model.set_params(warm_start=True).fit(X).partial_fit(X)


@pytest.mark.parametrize("offset", [0.0, 1e9, 1e30])
def test_far_rows_beside_components_far_from_0(offset):
    """The nearest component is certain, and the score is the distance, wherever 0 is."""
    X = np.array([[-1.0], [1.0]]) * max(1.0, 1e-10 * offset) + offset
    means = X.copy()
    model = BayesianGMM_MAP(2, covariance_type="spherical", means_init=means, max_iter=0)
    model.fit(np.repeat(X, 20, axis=0))
    for row, nearest in ((1e100, 1), (-1e100, 0)):
        posterior = model.predict_proba([[row]])
        np.testing.assert_array_equal(posterior, np.eye(2)[[nearest]])
        distance = (row - model.means_[nearest, 0]) ** 2 / model.covariances_[nearest]
        assert model.score_samples([[row]])[0] == pytest.approx(-distance / 2)
    assert not np.isnan(model.predict_proba([[0.0]])).any()


def test_one_component_far_away():
    model = BayesianGMM_MAP(1, prior="empirical").fit([[1e30], [1e30]])
    assert model.predict_proba([[1.0]])[0, 0] == 1
    distance = 1e60 / model.covariances_[0, 0, 0]
    assert model.score_samples([[1.0]])[0] == pytest.approx(-distance / 2)


def test_no_rows_are_asked_for_while_all_are_too_far():
    means = np.array([[-1e-200], [1e-200]])  # and a spread of 1e-200

    def log_joint_of(X):
        assert len(X)
        with np.errstate(over="ignore"):
            return -((1e200 * (X - means.T)) ** 2) / 2

    X = np.array([[3.0], [-5.0]])
    found = with_limits(np.full((2, 2), -np.inf), lambda: X, log_joint_of)
    np.testing.assert_array_equal(found.argmax(1), [1, 0])
    assert np.isfinite(found.max(1)).all()
