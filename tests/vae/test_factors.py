"""Factor analysis against its likelihood, and the networks that start from it."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis

from skem.vae import _model as vae
from skem.vae._factors import (
    Kind,
    choose_kind,
    fit_factors,
    linear_encoder,
    mean_log_likelihood,
)

FLOOR = 1e-7
ONES = np.ones(7)
ALL, FEW = Kind(False, 0.0), Kind(True, 0.0)  # of the factors


def rows_of_factors(n=400, seed=0):
    rng = np.random.default_rng(seed)
    W, s = rng.normal(size=(7, 2)), rng.uniform(0.2, 1, size=7)
    X = rng.normal(size=(n, 2)) @ W.T + np.sqrt(s) * rng.normal(size=(n, 7))
    return (X - X.mean(0)) / X.std(0)


def with_holes(X, share=0.3):
    return np.where(np.random.default_rng(1).random(X.shape) < share, np.nan, X)


def log_density(factors, x):
    """Log-densities of the observed values, one row at a time."""
    covariance = factors.loadings @ factors.loadings.T + np.diag(factors.noise)
    found = np.zeros(len(x))
    for i, row in enumerate(x):
        o = ~np.isnan(row)
        if o.any():
            part = covariance[np.ix_(o, o)]
            found[i] = multivariate_normal(factors.mean[o], part).logpdf(row[o])
    return found


@pytest.mark.parametrize("share", [0, 0.3])
def test_the_likelihood_is_that_of_the_normal_density(share):
    X, weight = with_holes(rows_of_factors(60), share), np.linspace(0.2, 1, 60)
    factors = fit_factors(X, weight, ONES, 2, FLOOR, 0, ALL)
    expected = np.average(log_density(factors, X), weights=weight)
    assert mean_log_likelihood(factors, X, weight) == pytest.approx(expected, rel=1e-9)


def log_density_of_imaginary_rows(factors, center, variance):
    """The mean log-density of a distribution with this mean and these variances."""
    covariance = factors.loadings @ factors.loadings.T + np.diag(factors.noise)
    moments = np.diag(variance) + np.outer(center - factors.mean, center - factors.mean)
    trace = np.trace(np.linalg.solve(covariance, moments))
    return -0.5 * (trace + np.linalg.slogdet(2 * np.pi * covariance)[1])


@pytest.mark.parametrize("share", [0, 0.3])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("n_imaginary", [0, 30])
def test_em_ends_where_the_objective_is_stationary(share, sparse, n_imaginary, monkeypatch):
    monkeypatch.setattr("skem.vae._factors.TOL", 1e-13)
    monkeypatch.setattr("skem.vae._factors.MAX_ITER", 5000)
    X, weight = with_holes(rows_of_factors(120), share), np.linspace(0.5, 1.5, 120)
    factors = fit_factors(X, weight, ONES, 2, FLOOR, 0, Kind(sparse, n_imaginary))
    part = n_imaginary / (n_imaginary + weight.sum())
    held = weight[:, None] * ~np.isnan(X)
    center = np.nansum(held * X, 0) / held.sum(0)
    variance = np.nansum(held * (X - center) ** 2, 0) / held.sum(0)

    def objective(factors):
        own = np.average(log_density(factors, X), weights=weight)
        other = log_density_of_imaginary_rows(factors, center, variance)
        return (1 - part) * own + part * other

    for name in ("mean", "loadings", "noise"):
        values = getattr(factors, name)
        for index in [(0,) * values.ndim, (6,) * values.ndim if values.ndim == 1 else (6, 1)]:
            ends = []
            for step in (1e-4, -1e-4):
                moved = values.copy()
                moved[index] += step
                ends.append(objective(factors._replace(**{name: moved})))
            assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(0, abs=1e-4)


def test_imaginary_rows_shrink_correlations_and_keep_variances():
    X = rows_of_factors()
    factors = fit_factors(X, np.ones(400), ONES, 2, FLOOR, 0, Kind(False, 400.0))
    variances = (factors.loadings**2).sum(1) + factors.noise
    np.testing.assert_allclose(variances, 1, atol=0.02)
    expected = 0.5 * np.corrcoef(X.T)
    found = factors.loadings @ factors.loadings.T
    off = ~np.eye(7, dtype=bool)
    np.testing.assert_allclose(found[off], expected[off], atol=0.06)


def test_wide_rows_have_imaginary_rows_too():
    """Above some size the first step is in closed form; singular vectors of all rows agree."""
    X = np.random.default_rng(0).normal(size=(40, 30)) @ np.diag(np.linspace(1, 2, 30))
    X = (X - X.mean(0)) / X.std(0)
    found = []
    for large in (0, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("skem.vae._factors.LARGE", large)
            factors = fit_factors(X, np.ones(40), np.ones(30), 3, FLOOR, 0, Kind(True, 20.0))
        found.append(factors.loadings @ factors.loadings.T + np.diag(factors.noise))
    np.testing.assert_allclose(*found, atol=1e-8)


def test_few_rows_are_shrunk_and_many_are_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 6))
    few = choose_kind(noise[:15], np.ones(15), np.ones(6), 3, FLOOR, 0)
    assert few.n_imaginary >= 3
    line = noise[:, :1] * [1, -1, 1, 1, -1, 1] + 1e-3 * noise
    exact = choose_kind(line / line.std(0), np.ones(400), np.ones(6), 3, FLOOR, 0)
    assert exact.n_imaginary == 0
    assert choose_kind(noise[:2], np.ones(2), np.ones(6), 3, FLOOR, 0).n_imaginary > 0


def test_features_that_are_constant_in_some_rows_are_not_elsewhere():
    """Without imaginary rows, each row in which they differ would cost millions of nats."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 6))
    X[:, 5] = 0
    X[::12, 5] = 3
    kind = choose_kind(X, np.ones(60), np.ones(6), 3, FLOOR, 0)
    factors = fit_factors(X[1:12], np.ones(11), np.ones(6), 3, FLOOR, 0, kind)
    assert mean_log_likelihood(factors, X, np.ones(60)) > -1000


def test_shrunk_factors_describe_other_rows_better():
    """Of 15 rows in 6 dimensions, the maximum of the likelihood describes these rows only."""
    rng, gains = np.random.default_rng(0), []
    for _ in range(10):
        X, test = np.split(rng.normal(size=(515, 6)) @ rng.normal(size=(6, 6)), [15])
        mean, scale, weight = X.mean(0), X.std(0), np.ones(15)
        X, test = (X - mean) / scale, (test - mean) / scale
        kind = choose_kind(X, weight, np.ones(6), 6, FLOOR, 0)
        own, most = (
            fit_factors(X, weight, np.ones(6), 6, FLOOR, 0, each) for each in (kind, ALL)
        )
        gains.append(
            mean_log_likelihood(own, test, np.ones(500))
            - mean_log_likelihood(most, test, np.ones(500))
        )
    assert np.mean(gains) > 0
    assert np.median(gains) >= 0


@pytest.mark.parametrize("d", [1, 2, 4])
def test_no_worse_than_that_of_scikit_learn(d):
    X = rows_of_factors()
    peer = FactorAnalysis(d, tol=1e-8, max_iter=5000).fit(X).score(X)
    factors = fit_factors(X, np.ones(400), ONES, d, FLOOR, 0, ALL)
    assert mean_log_likelihood(factors, X, np.ones(400)) > peer - 0.01


def test_weights_are_repeats():
    X, counts = with_holes(rows_of_factors(50)), np.arange(50) % 3
    options = {"variance": ONES, "n_factors": 2, "floor": FLOOR, "seed": 0, "kind": FEW}
    one = fit_factors(X, counts.astype(float), **options)
    two = fit_factors(np.repeat(X, counts, axis=0), np.ones(counts.sum()), **options)
    np.testing.assert_allclose(one.noise, two.noise, rtol=1e-6)


def test_networks_on_factors_are_the_factor_analysis():
    """The encoder is then the exact posterior: every bound is the log-likelihood."""
    X = rows_of_factors()
    factors = fit_factors(X, np.ones(400), ONES, 2, FLOOR, 0, ALL)
    design = vae.Design(7, 2, (5,), "gelu", "dense", None, (7, 0), True, None, None)
    net = vae.build(design, 0, torch.device("cpu"))
    base = (*linear_encoder(factors), factors.loadings, factors.mean, np.sqrt(factors.noise))
    vae.stand_on(net, vae.Base(*map(torch.from_numpy, base)))
    net.convert(float)
    points, shifts = torch.rand((1, 20, 2)), torch.rand((400, 2), dtype=torch.float64)
    found = vae.bound(net, torch.from_numpy(X), None, points.double(), shifts)
    np.testing.assert_allclose(found, log_density(factors, X), atol=1e-3)
