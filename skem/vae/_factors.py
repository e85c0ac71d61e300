"""Factor analysis, from which networks with Gaussian features start.

    z ~ N(0, I),  x = mean + W z + noise,  noise_i ~ N(0, s_i)

Its posterior N(mu(x), V) is a linear encoder, and its mean a linear decoder. EM fits it, with
expanded parameters (C. Liu, D. B. Rubin and Y. N. Wu, "Parameter expansion to accelerate EM",
Biometrika 1998): the covariance of the codes is estimated too, and then moved into W. Rows may
have missing values, which are NaN.
"""

from typing import NamedTuple

import numpy as np
from sklearn import config_context
from sklearn.utils.extmath import randomized_svd

from skem._typing import Array

# Steps along singular vectors and the gain that stops them, in nats per row; the same for EM.
# Later steps shrink noise variances towards 0: the rows at hand like that, others do not.
N_STEPS, STEP_TOL = 500, 1e-4
MAX_ITER, TOL = 500, 1e-3
RIDGE = 1e-9  # so that features without any observed value can be solved for
LARGE = 200_000  # with more values, singular vectors take longer than EM


class Factors(NamedTuple):
    """The parameters of a factor analysis."""

    mean: Array  # (D,)
    loadings: Array  # W, (D, d)
    noise: Array  # s, (D,)


class Sums(NamedTuple):
    """Expected sums over rows, given parameters."""

    codes: Array  # sum of E[z], (d,)
    products: Array  # sum of E[z z'], (d, d)
    loadings: Array  # the regression of the features on codes, (D, d)
    mean: Array  # and its intercept, (D,)
    noise: Array  # mean squared residuals, (D,)
    log_likelihood: float  # per row


def best_factors(
    x: Array,
    weight: Array,
    n_factors: int,
    floor: float,
    seed: int,
    *,
    held_out: tuple[Array, Array],
) -> tuple[Factors, bool]:
    """Return the factor analysis that is better on rows held out, with weights.

    It is either a maximum of the likelihood with all factors, or one that leaves out those of
    which a first step finds nothing: with few rows that is often the better one. Return whether
    it is sparse too.
    """
    every = fit_factors(x, weight, n_factors, floor, seed, sparse=False)
    sparse = fit_factors(x, weight, n_factors, floor, seed, sparse=True)
    better = mean_log_likelihood(sparse, *held_out) > mean_log_likelihood(every, *held_out)
    return (sparse, True) if better else (every, False)


def mean_log_likelihood(factors: Factors, x: Array, weight: Array) -> float:
    """Return the mean log-likelihood of rows, of their observed values."""
    observed = ~np.isnan(x)
    share = weight / weight.sum()
    return _sums_observed(factors, np.where(observed, x, 0), observed, share).log_likelihood


def fit_factors(
    x: Array, weight: Array, n_factors: int, floor: float, seed: int, *, sparse: bool
) -> Factors:
    """Return the factor analysis of standardized rows, by maximum likelihood.

    Parameters
    ----------
    x : ndarray of shape (n, D)
        The rows; NaN is missing. Each feature has mean 0 and variance 1, or about that.
    weight : ndarray of shape (n,)
        Weights of the rows.
    n_factors : int
        The number of factors, d.
    floor : float
        The smallest noise variance.
    seed : int
        Seed of the randomized singular vectors.
    sparse : bool
        Whether to leave out factors of which a first step finds nothing.

    Returns
    -------
    Factors
        The parameters.
    """
    share = weight / weight.sum()
    observed = ~np.isnan(x)
    complete = bool(observed.all())
    if complete:  # only the mean and the second moments count: they fit into few rows
        mean = share @ x
        x = np.sqrt(share)[:, None] * (x - mean)
        if len(x) > x.shape[1]:
            x = np.asarray(np.linalg.qr(x, mode="r"))
        filled = x
    else:
        mean = np.zeros(x.shape[1])
        x = np.where(observed, x, 0)
        filled = np.sqrt(share)[:, None] * x
    n_steps = 1 if sparse or filled.size > LARGE else N_STEPS
    factors = _principal(filled, mean, n_factors, floor, seed, n_steps)
    before = -np.inf
    for _ in range(MAX_ITER):
        if complete:
            sums = _sums_complete(factors, x)
        else:
            sums = _sums_observed(factors, x, observed, share)
        if sums.log_likelihood - before < TOL:
            break
        before = sums.log_likelihood
        factors = _maximized(sums, floor)
    return _rotated(factors)


def _principal(
    x: Array, mean: Array, n_factors: int, floor: float, seed: int, n_steps: int
) -> Factors:
    """Return factors of rows whose squares sum to variances, near the best ones.

    A step takes the best loadings for the noise, which are singular vectors, and then the noise
    that they leave.
    """
    D, d = x.shape[1], min(n_factors, *x.shape)
    variance = (x**2).sum(0)
    noise, loadings = np.maximum(variance, floor), np.zeros((D, n_factors))
    before = -np.inf
    for _ in range(n_steps):
        root = np.sqrt(noise)
        # with dispatch, scikit-learn takes another factorization, with other rounding
        with config_context(array_api_dispatch=False):
            _, values, axes = randomized_svd(x / root, d, random_state=seed)
        scale = np.sqrt(np.maximum(values**2 - 1, 0))
        loadings[:, :d] = root[:, None] * axes.T * scale
        top = np.maximum(values**2, 1)
        log_likelihood = -0.5 * (
            (variance / noise).sum() + np.sum(np.log(top) - top + 1) + np.log(noise).sum()
        )
        noise = np.maximum(variance - (loadings**2).sum(1), floor)
        if log_likelihood - before < STEP_TOL:
            break
        before = log_likelihood
    return Factors(mean, loadings, noise)


def _posterior(factors: Factors) -> tuple[Array, Array]:
    """Return W' / s, (d, D), and the posterior precision of the code of a complete row."""
    scaled = (factors.loadings / factors.noise[:, None]).T
    return scaled, np.eye(len(scaled)) + scaled @ factors.loadings


def _sums_complete(factors: Factors, x: Array) -> Sums:
    """Return the sums of centered rows whose weights are in their lengths."""
    scaled, precision = _posterior(factors)
    covariance = np.linalg.inv(precision)
    codes = x @ scaled.T @ covariance
    products = covariance + codes.T @ codes
    cross = x.T @ codes  # (D, d)
    loadings = np.linalg.solve(products, cross.T).T
    variance = (x**2).sum(0)
    noise = variance - (loadings * cross).sum(1)
    fit = (variance / factors.noise).sum() - (cross * scaled.T).sum()
    log_det = np.log(factors.noise).sum() + np.linalg.slogdet(precision)[1]
    log_likelihood = -0.5 * (fit + log_det + len(variance) * np.log(2 * np.pi))
    return Sums(
        np.zeros(len(scaled)), products, loadings, factors.mean, noise, float(log_likelihood)
    )


def _sums_observed(factors: Factors, x: Array, observed: Array, share: Array) -> Sums:
    """Return the sums of rows with missing values, given as 0."""
    n, d = len(x), factors.loadings.shape[1]
    seen = observed.astype(float)
    scaled, _ = _posterior(factors)
    outer = (scaled[:, None, :] * factors.loadings.T[None]).reshape(d * d, -1)
    precision = np.eye(d) + (seen @ outer.T).reshape(n, d, d)
    residual = seen * (x - factors.mean)
    shifts = residual @ scaled.T
    covariance = np.linalg.inv(precision)
    codes = (covariance @ shifts[..., None])[..., 0]
    # the regression of each feature on (code, 1), over the rows in which it is observed
    augmented = np.concatenate([codes, np.ones((n, 1))], 1)
    products = augmented[:, :, None] * augmented[:, None, :]
    products[:, :d, :d] += covariance
    weighted = share[:, None] * seen
    left = (weighted.T @ products.reshape(n, -1)).reshape(-1, d + 1, d + 1)
    right = (weighted * x).T @ augmented
    left += RIDGE * np.eye(d + 1)
    both = np.linalg.solve(left, right[..., None])[..., 0]
    mass = np.maximum(weighted.sum(0), RIDGE)
    noise = ((weighted * x**2).sum(0) - (both * right).sum(1)) / mass
    fit = seen * (residual**2 / factors.noise + np.log(2 * np.pi * factors.noise))
    fit = fit.sum(1) - (shifts * codes).sum(1) + np.linalg.slogdet(precision)[1]
    total = np.tensordot(share, products[:, :d, :d], 1)
    return Sums(share @ codes, total, both[:, :d], both[:, d], noise, float(-0.5 * share @ fit))


def _maximized(sums: Sums, floor: float) -> Factors:
    """Return the M step; the mean and the covariance of the codes move into the features."""
    covariance = sums.products - np.outer(sums.codes, sums.codes)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    mean = sums.mean + sums.loadings @ sums.codes
    return Factors(mean, sums.loadings @ root, np.maximum(sums.noise, floor))


def _rotated(factors: Factors) -> Factors:
    """Rotate the codes so that their posterior covariance is diagonal."""
    scaled, _ = _posterior(factors)
    vectors = np.linalg.eigh(scaled @ factors.loadings)[1][:, ::-1]
    return Factors(factors.mean, factors.loadings @ vectors, factors.noise)


def linear_encoder(factors: Factors) -> tuple[Array, Array, Array]:
    """Return weights (d, D), bias (d,) and log-variances (d,) of the posterior of a code."""
    scaled, precision = _posterior(factors)
    variance = 1 / np.diag(precision)
    weight = variance[:, None] * scaled
    return weight, -weight @ factors.mean, np.log(variance)
