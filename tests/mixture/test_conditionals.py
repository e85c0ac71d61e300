"""Conditional distributions of the mixture, against densities and Gaussian formulas."""

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm

from skem import BayesianGMM_MAP, LatentImputer

TYPES = ["full", "tied", "diag", "spherical"]


def table(n=300, n_features=4, seed=0):
    """Three correlated clusters in different units."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(3, n_features, n_features))
    labels = rng.integers(3, size=n)
    X = np.einsum("nij,nj->ni", mixing[labels], rng.normal(size=(n, n_features)))
    return (X + 2 * rng.normal(size=(3, n_features))[labels]) * 10.0 ** np.arange(n_features)


def matrix(model, k):
    own = model.covariances_ if model.covariance_type == "tied" else model.covariances_[k]
    if model.covariance_type in ("full", "tied"):
        return own
    return np.diag(np.broadcast_to(own, model.means_.shape[1:]))


def plain_conditional(model, row):
    """Weights, means and covariances of the missing values of a row, by Schur complements."""
    m, o = np.flatnonzero(np.isnan(row)), np.flatnonzero(~np.isnan(row))
    shares, means, covariances = [], [], []
    for k, mean in enumerate(model.means_):
        cov = matrix(model, k)
        gain = cov[np.ix_(m, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
        density = multivariate_normal(mean[o], cov[np.ix_(o, o)]).pdf(row[o]) if len(o) else 1
        shares.append(model.weights_[k] * density)
        means.append(mean[m] + gain @ (row[o] - mean[o]))
        covariances.append(cov[np.ix_(m, m)] - gain @ cov[np.ix_(o, m)])
    return np.array(shares) / sum(shares), np.array(means), np.array(covariances)


def moments(shares, means, covariances):
    """Mean and covariance of a mixture."""
    mean = shares @ means
    gaps = means - mean
    return mean, np.einsum("k,kij->ij", shares, covariances) + (gaps.T * shares) @ gaps


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("gaps", [[1], [0, 3], [0, 1, 2], [0, 1, 2, 3]])
def test_conditions_are_those_of_each_component(kind, gaps):
    X = table() / 10.0 ** (np.arange(4) if kind == "spherical" else np.zeros(4))
    model = BayesianGMM_MAP(3, covariance_type=kind, random_state=0).fit(X)
    rows = X[:6].copy()
    rows[:, gaps] = np.nan
    found = model.condition(rows)
    np.testing.assert_array_equal(found.features, gaps)
    size = np.nanstd(X, axis=0)[gaps]
    for i, row in enumerate(rows):
        shares, means, covariances = plain_conditional(model, row)
        np.testing.assert_allclose(found.weights[i], shares, atol=1e-9)
        np.testing.assert_allclose(found.means[i] / size, means / size, rtol=1e-8, atol=1e-9)
        scales = np.outer(size, size)
        np.testing.assert_allclose(found.covariances / scales, covariances / scales, atol=1e-9)


def test_a_conditional_density_is_a_ratio_of_likelihoods():
    """p(y | x) of the mixture of ``condition`` is p(x, y) / p(x)."""
    X = table()[:, :2]
    model = BayesianGMM_MAP(3, random_state=0).fit(X)
    rows = np.column_stack([X[:5, 0], np.full(5, np.nan)])
    found = model.condition(rows)
    for y in np.quantile(X[:, 1], [0.1, 0.5, 0.9]):
        densities = norm(found.means[:, :, 0], np.sqrt(found.covariances[:, 0, 0])).pdf(y)
        both = np.column_stack([X[:5, 0], np.full(5, y)])
        ratio = model.score_samples(both) - model.score_samples(rows)
        np.testing.assert_allclose(np.log((found.weights * densities).sum(1)), ratio)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("n_features", [4, 12])  # few and many features group rows otherwise
def test_standard_deviations_are_those_of_the_conditional_mixture(kind, n_features):
    X = table(n_features=n_features) / 10.0 ** np.arange(n_features)
    model = BayesianGMM_MAP(3, covariance_type=kind, prior="empirical", random_state=0).fit(X)
    missing = np.random.default_rng(1).random(X.shape) < 0.4
    missing[0], missing[1] = True, False
    holes = np.where(missing, np.nan, X)[:40]
    filled, std = model.impute(holes, return_std=True)
    np.testing.assert_array_equal(filled, model.impute(holes))
    for i, row in enumerate(holes):
        gaps = np.isnan(row)
        mean, covariance = moments(*plain_conditional(model, row))
        np.testing.assert_allclose(filled[i, gaps], mean, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(std[i, gaps], np.sqrt(np.diag(covariance)), rtol=1e-7)
        assert not std[i, ~gaps].any()


def test_draws_come_in_tables_and_keep_what_is_observed():
    X = table()
    model = BayesianGMM_MAP(3, random_state=0).fit(X)
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.3, np.nan, X)
    drawn = model.sample_conditional(holes, 5, random_state=3)
    assert drawn.shape == (5, *X.shape)
    seen = ~np.isnan(holes)
    np.testing.assert_array_equal(drawn[:, seen], np.tile(holes[seen], (5, 1)))
    assert np.isfinite(drawn).all()
    assert (drawn[0] != drawn[1])[~seen].all()
    np.testing.assert_array_equal(drawn, model.sample_conditional(holes, 5, random_state=3))
    np.testing.assert_array_equal(model.sample_conditional(X), X[None])
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="n_samples"):
            model.sample_conditional(X, wrong)


@pytest.mark.parametrize("kind", TYPES)
def test_draws_have_the_density_of_the_conditional(kind):
    """The probability integral transform of a conditional mixture is uniform."""
    X = table()[:, :2]
    model = BayesianGMM_MAP(3, covariance_type=kind, random_state=0).fit(X)
    row = np.array([[np.median(X[:, 0]), np.nan]])
    drawn = model.sample_conditional(row, 20_000, random_state=0)[:, 0, 1]
    shares, means, covariances = plain_conditional(model, row[0])
    spread = np.sqrt(covariances[:, 0, 0])
    ranks = np.sort((norm(means[:, 0], spread).cdf(drawn[:, None]) * shares).sum(1))
    assert np.abs(ranks - np.linspace(0, 1, len(ranks))).max() < 1.95 / np.sqrt(len(ranks))


def test_the_imputer_draws_by_the_mixture():
    X = table()
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.3, np.nan, X)
    mixture = BayesianGMM_MAP(2, random_state=0)
    imputer = LatentImputer(mixture, sample_posterior=True, random_state=5)
    drawn = imputer.fit_transform(holes)
    expected = imputer.estimator_.sample_conditional(holes, random_state=5)[0]
    np.testing.assert_array_equal(drawn, expected)


def test_wherever_rows_live(tmp_path):
    X = table()
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.3, np.nan, X)
    np.save(tmp_path / "X.npy", holes)
    model = BayesianGMM_MAP(2, random_state=0).fit(holes)
    filled, std = model.impute(holes, return_std=True)
    for other in (
        da.from_array(holes, chunks=(70, 4)),
        np.load(tmp_path / "X.npy", mmap_mode="r"),
        pd.DataFrame(holes),
    ):
        if not isinstance(other, pd.DataFrame):
            np.testing.assert_allclose(model.impute(other, return_std=True), (filled, std))
        if isinstance(other, da.Array):
            assert isinstance(model.impute(other, return_std=True)[1], da.Array)
            continue
        drawn = model.sample_conditional(other)
        np.testing.assert_array_equal(drawn, model.sample_conditional(holes))
    single = model.impute(holes.astype(np.float32), return_std=True)
    assert {values.dtype for values in single} == {np.dtype(np.float32)}
    assert model.sample_conditional(holes.astype(np.float32)).dtype == np.float32


def test_conditions_and_draws_of_dask(tmp_path):
    X = table()
    model = BayesianGMM_MAP(2, random_state=0).fit(X)
    holes = np.where([False, True, False, True], np.nan, X)
    blocks, frame = da.from_array(holes, chunks=(70, 2)), pd.DataFrame(holes)
    found = model.condition(holes)
    for other in (blocks, dd.from_pandas(frame, npartitions=3)):
        lazy = model.condition(other)
        np.testing.assert_array_equal(lazy.features, [1, 3])
        np.testing.assert_allclose(np.asarray(lazy.weights), found.weights)
        np.testing.assert_allclose(np.asarray(lazy.means), found.means)
        np.testing.assert_allclose(lazy.covariances, found.covariances)
        drawn = model.sample_conditional(other, 3, random_state=5)
        assert isinstance(drawn, da.Array)
        drawn = np.asarray(drawn)
        assert drawn.shape == (3, *X.shape)
        np.testing.assert_array_equal(drawn[..., [0, 2]], np.tile(X[:, [0, 2]], (3, 1, 1)))
    # equal blocks with the same seed would repeat the noise of each other
    expected = model.sample_conditional(holes[70:140], 3, random_state=5)
    drawn = np.asarray(model.sample_conditional(blocks, 3, random_state=5))
    np.testing.assert_array_equal(drawn[:, 70:140], expected)
    assert not np.isclose(drawn[:, :70, 1], drawn[:, 70:140, 1]).any()
    with pytest.raises(ValueError, match="miss the same features"):
        model.condition(da.from_array(np.vstack([holes, X]), chunks=(70, 4)))


def test_rows_far_away_have_finite_answers():
    X = table()
    model = BayesianGMM_MAP(3, random_state=0).fit(X)
    far = np.array([[1e300, np.nan, 2.0, np.nan], [-1e160, 1e200, np.nan, 1.0]])
    filled, std = model.impute(far, return_std=True)
    assert np.isfinite(filled).all()
    assert np.isfinite(std).all()
    assert np.isfinite(model.sample_conditional(far, 3)).all()


def test_rows_of_one_pattern_only():
    X = table()
    model = BayesianGMM_MAP(2, random_state=0).fit(X)
    holes = X[:3].copy()
    with pytest.raises(ValueError, match="miss the same features"):
        model.condition(holes)
    holes[0, 1] = np.nan
    with pytest.raises(ValueError, match="miss the same features"):
        model.condition(holes)
    assert model.condition(holes[:1]).means.shape == (1, 2, 1)
