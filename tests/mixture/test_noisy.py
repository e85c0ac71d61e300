"""Measurement errors of each row, against the likelihood and one iteration written out."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime
from scipy.sparse import eye_array
from scipy.stats import multivariate_normal

from skem import BayesianGMM_MAP

TYPES = ["full", "tied", "diag", "spherical"]
K, D = 2, 2
MEANS = np.array([[0.0, 0.0], [3.0, -2.0]])


def table(n=160, seed=0, kind="matrices"):
    """Two clusters, noise of known covariance, and the true rows."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(K, size=n)
    truth = MEANS[labels] + rng.normal(size=(n, D)) * [1.0, 0.4]
    mixing = 0.7 * rng.normal(size=(n, D, D))
    noise = mixing @ mixing.transpose(0, 2, 1) * rng.uniform(0.1, 2, size=(n, 1, 1))
    if kind == "variances":
        noise = np.einsum("nii->ni", noise).copy()
        return truth + np.sqrt(noise) * rng.normal(size=(n, D)), noise, truth
    draws = np.einsum("nij,nj->ni", np.linalg.cholesky(noise), rng.normal(size=(n, D)))
    return truth + draws, noise, truth


def matrix(kind, covariances, k):
    own = covariances if kind == "tied" else covariances[k]
    return own if kind in ("full", "tied") else np.diag(np.broadcast_to(own, D))


def as_matrices(noise):
    return noise if noise.ndim == 3 else noise[:, :, None] * np.eye(D)


def plain_log_likelihood(kind, X, noise, weights, means, covariances):
    """sum_n log sum_k pi_k N(x_no | mu_ko, (Sigma_k + S_n)_oo), row by row."""
    out = 0.0
    for row, own in zip(X, as_matrices(noise), strict=True):
        o = np.flatnonzero(~np.isnan(row))
        terms = []
        for k in range(K):
            total = (matrix(kind, covariances, k) + own)[np.ix_(o, o)]
            gap = row[o] - means[k][o]
            distance = gap @ np.linalg.solve(total, gap)
            log_det = np.linalg.slogdet(2 * np.pi * total)[1]
            terms.append(np.log(weights[k]) - (distance + log_det) / 2)
        out += np.logaddexp.reduce(terms)
    return out


def plain_iteration(X, noise, weights, means, covariances):
    """One iteration as in the paper, equations 24 and 25, row by row."""
    counts, first = np.zeros(K), np.zeros((K, D))
    kept = [[] for _ in range(K)]
    for row, own in zip(X, noise, strict=True):
        densities = [
            weights[k] * multivariate_normal(means[k], covariances[k] + own).pdf(row)
            for k in range(K)
        ]
        q = np.array(densities) / sum(densities)
        for k in range(K):
            gain = covariances[k] @ np.linalg.inv(covariances[k] + own)
            b = means[k] + gain @ (row - means[k])
            counts[k] += q[k]
            first[k] += q[k] * b
            kept[k].append((q[k], b, covariances[k] - gain @ covariances[k]))
    means = first / counts[:, None]
    covariances = [
        sum(q * (np.outer(b - means[k], b - means[k]) + B) for q, b, B in kept[k]) / counts[k]
        for k in range(K)
    ]
    return counts / len(X), means, np.array(covariances)


def given(kind="full", **options):
    shape = {"full": (K, D, D), "tied": (D, D), "diag": (K, D), "spherical": (K,)}[kind]
    dense = kind in ("full", "tied")
    return BayesianGMM_MAP(
        K,
        covariance_type=kind,
        weights_init=[0.5, 0.5],
        means_init=MEANS + 0.3,
        precisions_init=np.broadcast_to(np.eye(D) if dense else 1.0, shape),
        **{"reg_covar": 0, "tol": 0, "max_iter": 3, **options},
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_iterations_are_those_of_the_paper():
    X, noise, _ = table()
    params = np.array([0.5, 0.5]), MEANS + 0.3, np.stack([np.eye(D)] * K)
    for n_iter in range(1, 4):
        params = plain_iteration(X, noise, *params)
        model = given(max_iter=n_iter).fit(X, measurement_covariance=noise)
        np.testing.assert_allclose(model.weights_, params[0], rtol=1e-10)
        np.testing.assert_allclose(model.means_, params[1], rtol=1e-10)
        np.testing.assert_allclose(model.covariances_, params[2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("noise_kind", ["matrices", "variances"])
@pytest.mark.parametrize("kind", TYPES)
def test_the_maximum_is_stationary(kind, noise_kind):
    X, noise, _ = table(kind=noise_kind)
    X[::7, 0] = np.nan
    model = given(kind, tol=1e-12, max_iter=20_000).fit(X, measurement_covariance=noise)
    fitted = model.weights_, model.means_, model.covariances_
    value = plain_log_likelihood(kind, X, noise, *fitted)
    assert model.lower_bound_ * len(X) == pytest.approx(value)
    scores = model.score_samples(X, measurement_covariance=noise)
    assert scores.sum() == pytest.approx(value)

    def of_changes(change):
        weights = fitted[0] * np.exp(change[:K])
        means = fitted[1] + change[K : K + K * D].reshape(K, D)
        factors = np.exp(change[-K:])
        covariances = fitted[2] * factors[0] if kind == "tied" else (fitted[2].T * factors).T
        return plain_log_likelihood(kind, X, noise, weights / weights.sum(), means, covariances)

    gradient = approx_fprime(np.zeros(K + K * D + K), of_changes, 1e-6)
    np.testing.assert_allclose(gradient, 0, atol=0.02)
    assert np.all(np.diff(model.lower_bounds_) > -1e-10)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("full", [False, True])
def test_no_error_is_none_and_infinity_is_missing(kind, full):
    X, *_ = table(kind="variances")
    holes = np.random.default_rng(0).random(X.shape) < 0.2
    missing = np.where(holes, np.nan, X)
    plain = given(kind).fit(missing)
    for values, variances in (
        (missing, np.zeros_like(X)),
        (X, np.where(holes, np.inf, 0)),
        (missing, np.where(holes, np.inf, 0)),
        (missing, np.where(holes, np.nan, 0)),  # of what is missing, nothing is known
    ):
        own = variances
        if full:
            own = np.zeros((*X.shape, D))
            own[:, np.arange(D), np.arange(D)] = variances
        model = given(kind).fit(values, measurement_covariance=own)
        for name in ("weights_", "means_", "covariances_", "lower_bounds_"):
            np.testing.assert_allclose(
                getattr(model, name), getattr(plain, name), rtol=1e-9, atol=1e-12
            )
        np.testing.assert_allclose(
            model.predict_proba(values, measurement_covariance=own),
            plain.predict_proba(missing),
            atol=1e-9,
        )
    largest = given(kind).fit(X, measurement_covariance=np.where(holes, 1e12, 0))
    np.testing.assert_allclose(largest.means_, plain.means_, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_noise_is_taken_off(seed):
    """Without given starts; nearer to the true covariances than a fit that ignores noise."""
    X, noise, truth = table(n=2000, seed=seed)
    model = BayesianGMM_MAP(K, random_state=0).fit(X, measurement_covariance=noise)
    ignoring = BayesianGMM_MAP(K, random_state=0).fit(X)
    expected = np.diag([1.0, 0.16])

    def error(fitted):
        order = np.argsort(fitted.means_[:, 0])
        return np.abs(fitted.covariances_[order] - expected).max()

    assert error(model) < 0.25 < error(ignoring)
    assert model.score(truth) > ignoring.score(truth)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_wherever_rows_live_and_weights_are_repeats(tmp_path):
    X, noise, _ = table()
    X[::9, 1] = np.nan
    weight = np.arange(len(X)) % 3
    model = given().fit(X, sample_weight=weight, measurement_covariance=noise)
    repeated = given().fit(
        np.repeat(X, weight, axis=0), measurement_covariance=np.repeat(noise, weight, axis=0)
    )
    np.testing.assert_allclose(repeated.covariances_, model.covariances_, rtol=1e-9)
    np.save(tmp_path / "X.npy", X)
    file = np.load(tmp_path / "X.npy", mmap_mode="r")
    blocks = da.from_array(X, (50, D))
    for rows in (file, blocks, pd.DataFrame(X)):
        other = given().fit(rows, sample_weight=weight, measurement_covariance=noise)
        np.testing.assert_allclose(other.covariances_, model.covariances_, rtol=1e-9)
    scores = model.score_samples(X, measurement_covariance=noise)
    np.testing.assert_allclose(model.score_samples(file, measurement_covariance=noise), scores)
    lazy = model.score_samples(blocks, measurement_covariance=noise)
    assert isinstance(lazy, da.Array)
    np.testing.assert_allclose(np.asarray(lazy), scores)
    infinite = np.full(X.shape, np.inf)
    infinite[:, 0] = 0
    with pytest.raises(ValueError, match="infinite variances"):
        given().fit(blocks, measurement_covariance=infinite)
    single = given().fit(X.astype(np.float32), measurement_covariance=noise)
    np.testing.assert_allclose(
        single.means_,
        given().fit(X.astype(np.float32).astype(float), measurement_covariance=noise).means_,
        rtol=1e-5,
    )


def test_fixed_parameters_and_priors_hold():
    X, noise, _ = table()
    model = given(fixed=["means"], prior="empirical", tol=1e-3, max_iter=100)
    model.fit(X, measurement_covariance=noise)
    np.testing.assert_allclose(model.means_, MEANS + 0.3)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.ones((160, 3)), "shape"),
        (np.ones((160, D, 3)), "shape"),
        (np.ones(160), "shape"),
        (-np.ones((160, D)), "at least 0"),
        (np.full((160, D), np.nan), "NaN"),
        (np.tile([[1.0, 2], [2, 1]], (160, 1, 1)), "eigenvalues"),
        (np.tile([[1.0, 0.5], [0, 1]], (160, 1, 1)), "symmetric"),
        ([["a"] * D] * 160, "numbers"),
    ],
)
def test_bad_errors(noise, message):
    X, *_ = table()
    with pytest.raises(ValueError, match=message):
        given().fit(X, measurement_covariance=noise)


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ({"background": "uniform"}, {}),
        ({"connectivity": eye_array(160)}, {}),
        ({}, {"resp_prior": np.ones((160, K))}),
    ],
)
def test_what_cannot_be_combined(options, keywords):
    X, noise, _ = table()
    with pytest.raises(ValueError, match="cannot be combined"):
        given(**options).fit(X, measurement_covariance=noise, **keywords)
