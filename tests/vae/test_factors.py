"""Factor analysis against its likelihood, and the networks that start from it."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis

from skem.vae import _model as vae
from skem.vae._factors import fit_factors, linear_encoder, mean_log_likelihood

FLOOR = 1e-7


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
    factors = fit_factors(X, weight, 2, FLOOR, 0, sparse=False)
    expected = np.average(log_density(factors, X), weights=weight)
    assert mean_log_likelihood(factors, X, weight) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("share", [0, 0.3])
@pytest.mark.parametrize("sparse", [False, True])
def test_em_ends_where_the_likelihood_is_stationary(share, sparse, monkeypatch):
    monkeypatch.setattr("skem.vae._factors.TOL", 1e-13)
    monkeypatch.setattr("skem.vae._factors.MAX_ITER", 5000)
    X, weight = with_holes(rows_of_factors(), share), np.ones(400)
    factors = fit_factors(X, weight, 2, FLOOR, 0, sparse=sparse)
    for name in ("mean", "loadings", "noise"):
        values = getattr(factors, name)
        for index in [(0,) * values.ndim, (6,) * values.ndim if values.ndim == 1 else (6, 1)]:
            ends = []
            for step in (1e-4, -1e-4):
                moved = values.copy()
                moved[index] += step
                other = factors._replace(**{name: moved})
                ends.append(mean_log_likelihood(other, X, weight))
            assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_no_worse_than_that_of_scikit_learn(d):
    X = rows_of_factors()
    peer = FactorAnalysis(d, tol=1e-8, max_iter=5000).fit(X).score(X)
    factors = fit_factors(X, np.ones(400), d, FLOOR, 0, sparse=False)
    assert mean_log_likelihood(factors, X, np.ones(400)) > peer - 0.01


def test_weights_are_repeats():
    X, counts = with_holes(rows_of_factors(50)), np.arange(50) % 3
    options = {"n_factors": 2, "floor": FLOOR, "seed": 0, "sparse": True}
    one = fit_factors(X, counts.astype(float), **options)
    two = fit_factors(np.repeat(X, counts, axis=0), np.ones(counts.sum()), **options)
    np.testing.assert_allclose(one.noise, two.noise, rtol=1e-6)


def test_networks_on_factors_are_the_factor_analysis():
    """The encoder is then the exact posterior: every bound is the log-likelihood."""
    X = rows_of_factors()
    factors = fit_factors(X, np.ones(400), 2, FLOOR, 0, sparse=False)
    design = vae.Design(7, 2, (5,), "gelu", "dense", None, (7, 0), True, None, None)
    net = vae.build(design, 0, torch.device("cpu"))
    base = (*linear_encoder(factors), factors.loadings, factors.mean, np.sqrt(factors.noise))
    vae.stand_on(net, vae.Base(*map(torch.from_numpy, base)))
    net.convert(float)
    points, shifts = torch.rand((1, 20, 2)), torch.rand((400, 2), dtype=torch.float64)
    found = vae.bound(net, torch.from_numpy(X), None, points.double(), shifts)
    np.testing.assert_allclose(found, log_density(factors, X), atol=1e-3)
