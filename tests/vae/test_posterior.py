"""Expectations given the observed values, against quadrature over the codes."""

import numpy as np
import pytest
import torch

from skem import VAEEstimator
from skem.vae import _posterior as posterior
from skem.vae._model import encode


def two_clusters(rng, n):
    X, far = rng.normal(size=(n, 4)), rng.random(n) < 0.05
    X[far, 1:] += 20
    return X


def curve(rng, n):
    t = rng.uniform(-3, 3, n)
    return np.c_[t, 2 * np.sin(2 * t), t**2] + 0.2 * rng.normal(size=(n, 3))


def binary(rng, n):
    t = rng.normal(size=(n, 1))
    return 1.0 * (rng.random((n, 6)) < 1 / (1 + np.exp(-3 * t * [1, 1, 1, -1, -1, 0.1])))


def by_quadrature(model, X):
    """E[x | x_o], E[z | x_o] and log p(x_o), by sums over a fine grid of codes."""
    d = model._n_features_out
    axis = np.linspace(-6, 6, 3001 if d == 1 else 241)
    z = np.stack(np.meshgrid(*[axis] * d), -1).reshape(-1, d)
    mean = model.inverse_transform(z)
    log_prior = -0.5 * (z**2 + np.log(2 * np.pi)).sum(1) + d * np.log(axis[1] - axis[0])
    rows, codes, scores = [], [], []
    for row in X:
        o = ~np.isnan(row)
        x, m = row[o], mean[:, o]
        if model.likelihood_ == "bernoulli":
            fit = x * np.log(m) + (1 - x) * np.log1p(-m)
        else:
            log_s = model._fitted(np.float64).network.log_variance.detach().numpy()
            s = (np.exp(log_s) * model._scaling["scale"] ** 2)[o]
            fit = -0.5 * ((x - m) ** 2 / s + np.log(2 * np.pi * s))
        log_joint = fit.sum(1) + log_prior
        top = log_joint.max()
        weight = np.exp(log_joint - top)
        scores.append(top + np.log(weight.sum()))
        weight /= weight.sum()
        rows.append(weight @ mean)
        codes.append(weight @ z)
    return np.array(rows), np.array(codes), np.array(scores)


@pytest.mark.parametrize("n_codes", [1, 2])
@pytest.mark.parametrize("make", [two_clusters, curve, binary])
def test_expectations_are_those_of_quadrature(make, n_codes):
    rng = np.random.default_rng(0)
    X = make(rng, 400)
    model = VAEEstimator(n_codes, hidden_layer_sizes=(16,), max_iter=15, random_state=0)
    model.fit(X)
    test = make(rng, 40)
    missing = rng.random(test.shape) < np.linspace(0.1, 0.9, 40)[:, None]
    missing[:, 0] |= ~missing.any(1)
    holes = np.where(missing, np.nan, test)
    rows, codes, scores = by_quadrature(model, holes)
    filled = model.impute(holes)
    np.testing.assert_array_equal(filled[~missing], test[~missing])
    error = ((filled - rows) / X.std(0))[missing]
    assert np.sqrt((error**2).mean()) < 0.05
    assert np.sqrt(((model.transform(holes) - codes) ** 2).mean()) < 0.05
    found = model.score_samples(holes)
    np.testing.assert_allclose(found.mean(), scores.mean(), atol=0.05)
    np.testing.assert_allclose(found, scores, atol=0.5)


def test_a_row_that_tells_nothing():
    rng = np.random.default_rng(0)
    model = VAEEstimator(2, hidden_layer_sizes=(16,), max_iter=5, random_state=0)
    model.fit(two_clusters(rng, 500))
    nothing = np.full((1, 4), np.nan)
    assert model.score_samples(nothing) == 0
    draws = model.inverse_transform(rng.normal(size=(20_000, 2)))
    np.testing.assert_allclose(
        (model.impute(nothing)[0] - draws.mean(0)) / draws.std(0), 0, atol=0.05
    )


def test_a_far_cluster_is_found_by_what_is_seen():
    X = two_clusters(np.random.default_rng(0), 500)
    for seed in range(3):
        model = VAEEstimator(2, hidden_layer_sizes=(32,), max_iter=5, random_state=seed).fit(X)
        filled = model.impute([[0, 20, np.nan, np.nan]])
        np.testing.assert_allclose(filled[0, 2:], 20, atol=1)


def test_fills_do_not_depend_on_other_rows():
    rng = np.random.default_rng(0)
    model = VAEEstimator(2, hidden_layer_sizes=(16,), max_iter=5, random_state=0)
    X = curve(rng, 300)
    model.fit(X)
    holes = np.where(rng.random(X.shape) < 0.4, np.nan, X)
    for verb in (model.impute, model.transform, model.score_samples):
        np.testing.assert_allclose(verb(holes)[::-1], verb(holes[::-1]), atol=1e-6)
        np.testing.assert_allclose(verb(holes[3:4]), verb(holes)[3:4], atol=1e-6)
    before = torch.random.get_rng_state()
    model.impute(holes)
    assert torch.equal(before, torch.random.get_rng_state())


def test_chains_start_in_proportion_to_the_weights_of_the_pool_or_at_the_encoder(monkeypatch):
    """Each weight is a multiple of 2 / N_CHAINS, so that the strata give exact shares."""
    rng = np.random.default_rng(0)
    model = VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=2, random_state=0)
    X = torch.from_numpy(curve(rng, 5))
    model.fit(X.numpy())
    network = model._fitted(np.float64).network
    k = posterior.N_CHAINS
    pool = posterior.pool_of(network, torch.from_numpy(rng.normal(size=(4, 2)) % 1))
    shares = torch.tensor([0.5, 0, 0.25, 0.25]).double()
    moves = torch.full((2, k, len(X), 3), 0.5).double()
    moves[1, ..., -1] = torch.inf  # no move is accepted
    monkeypatch.setattr(posterior, "N_BURN", 0)
    pooled = shares.log().expand(len(X), -1)
    z, _ = posterior._chains(network, pool, pooled, X, torch.ones_like(X), moves)
    expected = pool.z[[0] * (k // 4) + [2] * (k // 8) + [3] * (k // 8)]
    torch.testing.assert_close(z[: k // 2], expected[:, None].expand(-1, len(X), -1))
    with torch.no_grad():
        mean, _ = encode(network, X)  # the median of its proposal
    torch.testing.assert_close(z[k // 2 :], mean.expand(k // 2, -1, -1))
