"""Online EM and single draws, against slow references."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from skem import BayesianGMM_MAP
from skem.mixture._candidates import Batch
from skem.mixture._covariances import Layout
from skem.mixture._model import Mixture
from skem.mixture._prior import flat_prior


def posterior_sums(model, X, weight):
    """Weighted sums of r, r x and r x x^T, and the log-likelihood, with scipy's densities."""
    joint = np.transpose(
        [
            pi * multivariate_normal(mean, covariance).pdf(X)
            for pi, mean, covariance in zip(
                model.weights_, model.means_, model.covariances_, strict=True
            )
        ]
    )
    r = weight[:, None] * joint / joint.sum(1, keepdims=True)
    second = np.einsum("nk,ni,nj->kij", r, X, X)
    return (r.sum(0), r.T @ X, second), weight @ np.log(joint.sum(1))


def test_a_step_of_online_em_is_that_of_its_source():
    """Averages of sums, then the mode under the prior, which is weighed against all rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)) + 4 * rng.integers(2, size=(300, 1))
    weight = rng.uniform(0.5, 3, size=300)
    first, later = slice(0, 180), slice(180, 300)
    alpha, kappa, nu, D = 3.0, 2.0, 7.0, 2
    mean, scale = np.array([1.0, 2.0]), np.array([[2.0, 0.3], [0.3, 1.0]])
    model = BayesianGMM_MAP(
        2,
        weight_concentration_prior=alpha,
        mean_precision_prior=kappa,
        mean_prior=mean,
        degrees_of_freedom_prior=nu,
        covariance_prior=scale,
        learning_offset=3.0,
        learning_decay=0.6,
        random_state=0,
    ).fit(X[first], sample_weight=weight[first])
    before, _ = posterior_sums(model, X[first], weight[first])
    batch, log_lik = posterior_sums(model, X[later], weight[later])
    log_prior = (
        model.lower_bound_ - model.score(X[first], sample_weight=weight[first])
    ) * weight[first].sum()
    seen, size = weight.sum(), (1 + 3.0) ** -0.6
    counts, sums, second = (
        seen * ((1 - size) * a / weight[first].sum() + size * b / weight[later].sum())
        for a, b in zip(before, batch, strict=True)
    )
    model.partial_fit(X[later], sample_weight=weight[later])
    np.testing.assert_allclose(
        model.weights_, (counts + alpha - 1) / (counts + alpha - 1).sum(), rtol=1e-8
    )
    np.testing.assert_allclose(
        model.means_, (kappa * mean + sums) / (kappa + counts)[:, None], rtol=1e-8
    )
    for k in range(2):
        average = sums[k] / counts[k]
        scatter = second[k] - counts[k] * np.outer(average, average)
        pull = (
            kappa * counts[k] / (kappa + counts[k]) * np.outer(average - mean, average - mean)
        )
        expected = (scale + scatter + pull) / (nu + counts[k] + D + 2)
        np.testing.assert_allclose(model.covariances_[k], expected, rtol=1e-7)
    bound = log_lik / weight[later].sum() + log_prior / seen
    assert model.lower_bound_ == pytest.approx(bound, rel=1e-9)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_samples_have_the_covariance_of_the_model(kind):
    """A factor that is transposed would give variances near 101 and 0.2 here."""
    model = BayesianGMM_MAP(1, covariance_type=kind, random_state=0)
    covariance = np.array([[100.0, 9.0], [9.0, 1.0]])
    model.weights_, model.means_ = np.ones(1), np.zeros((1, 2))
    model.covariances_ = covariance[None] if kind == "full" else covariance
    X, _ = model.sample(200_000)
    np.testing.assert_allclose(np.cov(X.T), covariance, rtol=0.02)


def test_a_component_without_rows_starts_with_the_average_covariance():
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(200, 2)), rng.normal([8, 0], size=(200, 2))]
    layout = Layout("full", 3, 2)
    model = Mixture(layout, flat_prior(layout), X.std(0))
    batch = Batch(model, X, np.ones(400), np.zeros(X.shape, bool))
    labels = np.repeat([0, 1], 200)
    within = (np.cov(X[:200].T, ddof=0) + np.cov(X[200:].T, ddof=0)) / 2
    shares = batch.shares_of_labels(labels)
    for params in (
        batch.params_of_shares(shares),
        batch.params(batch.sums_of(shares[None])[0], steady=True),
    ):
        np.testing.assert_allclose(params.covariances[2, 0], within, rtol=1e-3, atol=1e-3)
        assert (np.abs(params.means[2] - X).sum(1) < 1e-9).any()  # one of the rows
