"""Factor analysis, from which networks with Gaussian features start.

    z ~ N(0, I),  x = mean + W z + noise,  noise_i ~ N(0, s_i)

Its posterior N(mu(x), V) is a linear encoder, and its mean a linear decoder. EM fits it, with
expanded parameters (C. Liu, D. B. Rubin and Y. N. Wu, "Parameter expansion to accelerate EM",
Biometrika 1998): the covariance of the codes is estimated too, and then moved into W. Rows may
have missing values, which are NaN.

Few rows, or far ones, show correlations that other rows do not have. The maximum of the
likelihood then has noise variances near 0, and each row that differs costs many nats. The fit
therefore shrinks correlations: it adds imaginary rows, whose features have the variances of the
real ones and are independent. Cross-validation chooses their number, which may be 0.

A feature may be constant in the rows to learn from, and vary in those held out. Its noise
variance is then its variance over the whole table.
"""

from collections.abc import Iterator
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
SMALL = 64  # with fewer rows or features, all singular vectors take less time than a few
# The shares of imaginary rows to choose from, and the rows and folds to choose on. Fewer rows
# than the least cannot be cut into folds.
SHARES, N_FOLDS = (0.0, 0.01, 0.03, 0.1, 0.3, 0.6), 5
MIN_CHOICE, MAX_CHOICE, SHARE_OF_FEW = 6, 1000, 0.3


class Factors(NamedTuple):
    """The parameters of a factor analysis."""

    mean: Array  # (D,)
    loadings: Array  # W, (D, d)
    noise: Array  # s, (D,)


class Kind(NamedTuple):
    """What the rows do not determine, and cross-validation does."""

    sparse: bool  # whether factors are left out of which a first step finds nothing
    n_imaginary: float  # number of imaginary rows with independent features


class Imaginary(NamedTuple):
    """Rows with independent features, by their moments."""

    share: float  # of all rows
    variance: Array  # (D,); the mean is 0


class Sums(NamedTuple):
    """Expected sums over rows, given parameters."""

    codes: Array  # sum of E[z], (d,)
    products: Array  # sum of E[z z'], (d, d)
    loadings: Array  # the regression of the features on codes, (D, d)
    mean: Array  # and its intercept, (D,)
    noise: Array  # mean squared residuals, (D,)
    log_likelihood: float  # per row


def choose_kind(
    x: Array, weight: Array, variance: Array, n_factors: int, floor: float, seed: int
) -> Kind:
    """Return the kind of factor analysis that describes held-out rows best.

    The rows, with weights, are cut into folds, of which each is held out once. First the number
    of imaginary rows is chosen, then whether factors are left out.
    """
    if len(x) < MIN_CHOICE:
        return Kind(False, SHARE_OF_FEW / (1 - SHARE_OF_FEW) * float(weight.sum()))
    order = np.random.default_rng(seed).permutation(len(x))[:MAX_CHOICE]
    folds = list(_folds(x[order], weight[order]))

    def score(share: float, sparse: bool) -> float:
        total = 0.0
        for own, own_weight, other, other_weight in folds:
            kind = Kind(sparse, share / (1 - share) * float(own_weight.sum()))
            factors = fit_factors(own, own_weight, variance, n_factors, floor, seed, kind)
            mean = mean_log_likelihood(factors, other, other_weight)
            total += float(other_weight.sum()) * mean
        return total

    scores = [score(share, False) for share in SHARES]
    best = int(np.argmax(scores))
    share, total = SHARES[best], float(np.mean([fold[1].sum() for fold in folds]))
    sparse = score(share, True) > scores[best]
    return Kind(sparse, share / (1 - share) * total)


def _folds(x: Array, weight: Array) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield rows to learn from and rows held out, with their weights."""
    place = np.arange(len(x)) % N_FOLDS
    for fold in range(N_FOLDS):
        own = place != fold
        yield x[own], weight[own], x[~own], weight[~own]


def mean_log_likelihood(factors: Factors, x: Array, weight: Array) -> float:
    """Return the mean log-likelihood of rows, of their observed values."""
    observed, share = ~np.isnan(x), weight / weight.sum()
    if observed.all():
        x = np.sqrt(share)[:, None] * (x - factors.mean)
        return _sums_complete(factors, x).log_likelihood
    return _sums_observed(factors, np.where(observed, x, 0), observed, share).log_likelihood


def fit_factors(
    x: Array,
    weight: Array,
    variance: Array,
    n_factors: int,
    floor: float,
    seed: int,
    kind: Kind,
) -> Factors:
    """Return the factor analysis of standardized rows and imaginary ones, by EM.

    Parameters
    ----------
    x : ndarray of shape (n, D)
        The rows; NaN is missing. Each feature has mean 0 and variance 1, or about that.
    weight : ndarray of shape (n,)
        Weights of the rows.
    variance : ndarray of shape (D,)
        Variances of the features over the whole table.
    n_factors : int
        The number of factors, d.
    floor : float
        The smallest noise variance.
    seed : int
        Seed of the randomized singular vectors.
    kind : Kind
        The number of imaginary rows, and whether factors are left out.

    Returns
    -------
    Factors
        The parameters.
    """
    total = float(weight.sum())
    share, observed = weight / (total + kind.n_imaginary), ~np.isnan(x)
    mass = np.maximum(share @ observed, RIDGE)
    center = share @ np.where(observed, x, 0) / mass
    x = np.where(observed, x - center, 0)
    part = kind.n_imaginary / (total + kind.n_imaginary)
    own = share @ x**2 / mass
    other = Imaginary(part, own)
    least = np.where(own > floor, floor, np.maximum(variance, floor))
    complete, rooted = bool(observed.all()), np.sqrt(share)[:, None] * x
    if complete and len(x) > x.shape[1]:  # only the second moments count: they fit into D rows
        rooted = np.asarray(np.linalg.qr(rooted, mode="r"))
    factors = _principal(rooted, other, n_factors, least, seed, kind.sparse)
    before = -np.inf
    for _ in range(MAX_ITER):
        if complete:
            sums = _sums_complete(factors, rooted, other)
        else:
            sums = _sums_observed(factors, x, observed, share, other)
        if sums.log_likelihood - before < TOL:
            break
        before = sums.log_likelihood
        factors = _maximized(sums, least)
    return _rotated(Factors(factors.mean + center, factors.loadings, factors.noise))


def _principal(
    x: Array, other: Imaginary, n_factors: int, floor: Array, seed: int, sparse: bool
) -> Factors:
    """Return factors of rows whose squares sum to variances, near the best ones.

    A step takes the best loadings for the noise, which are singular vectors, and then the noise
    that they leave. In a first step the noise is the variance. It suffices if the factors are
    sparse, and for large tables.
    """
    D, own = x.shape[1], other.share * other.variance
    if other.share and D * (D + len(x)) <= LARGE:
        x, own = np.vstack([x, np.diag(np.sqrt(own))]), np.zeros(D)
    d, variance = min(n_factors, *x.shape), (x**2).sum(0) + own
    first = np.maximum(variance, floor)
    noise, loadings = first, np.zeros((D, n_factors))
    before = -np.inf
    for _ in range(1 if sparse or own.any() or x.size > LARGE else N_STEPS):
        root = np.sqrt(noise)
        values, axes = _singular(x / root, d, seed)
        top = np.maximum(values**2 + (own / first).max(), 1)
        loadings[:, :d] = root[:, None] * axes.T * np.sqrt(top - 1)
        log_likelihood = -0.5 * (
            (variance / noise).sum() + np.sum(np.log(top) - top + 1) + np.log(noise).sum()
        )
        noise = np.maximum(variance - (loadings**2).sum(1), floor)
        if log_likelihood - before < STEP_TOL:
            break
        before = log_likelihood
    return Factors(np.zeros(D), loadings, noise)


def _singular(x: Array, d: int, seed: int) -> tuple[Array, Array]:
    """Return the d largest singular values, and their vectors (d, D)."""
    if min(x.shape) <= SMALL:
        _, values, axes = np.linalg.svd(x, full_matrices=False)
        return values[:d], axes[:d]
    # with dispatch, scikit-learn takes another factorization, with other rounding
    with config_context(array_api_dispatch=False):
        _, values, axes = randomized_svd(x, d, random_state=seed)
    return values, axes


def _posterior(factors: Factors) -> tuple[Array, Array]:
    """Return W' / s, (d, D), and the posterior precision of the code of a complete row."""
    scaled = (factors.loadings / factors.noise[:, None]).T
    return scaled, np.eye(len(scaled)) + scaled @ factors.loadings


def _sums_complete(factors: Factors, x: Array, other: Imaginary | None = None) -> Sums:
    """Return the sums of centered rows whose weights are in their lengths."""
    scaled, precision = _posterior(factors)
    covariance = np.linalg.inv(precision)
    to_code = covariance @ scaled
    codes = x @ to_code.T
    products = covariance + codes.T @ codes
    cross = x.T @ codes  # (D, d)
    variance = (x**2).sum(0)
    if other is not None:
        own = other.share * other.variance
        products += to_code * own @ to_code.T
        cross += own[:, None] * to_code.T
        variance += own
    loadings = np.linalg.solve(products, cross.T).T
    noise = variance - (loadings * cross).sum(1)
    fit = (variance / factors.noise).sum() - (cross * scaled.T).sum()
    log_det = np.log(factors.noise).sum() + np.linalg.slogdet(precision)[1]
    log_likelihood = -0.5 * (fit + log_det + len(variance) * np.log(2 * np.pi))
    return Sums(
        np.zeros(len(scaled)), products, loadings, factors.mean, noise, float(log_likelihood)
    )


def _sums_observed(
    factors: Factors,
    x: Array,
    observed: Array,
    share: Array,
    other: Imaginary | None = None,
) -> Sums:
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
    total = np.tensordot(share, products, 1)
    squares, mass = (weighted * x**2).sum(0), weighted.sum(0)
    fit = seen * (residual**2 / factors.noise + np.log(2 * np.pi * factors.noise))
    fit = share @ (fit.sum(1) - (shifts * codes).sum(1) + np.linalg.slogdet(precision)[1])
    if other is not None:
        more = _sums_imaginary(factors, other)
        left, total = left + more.products, total + more.products
        right, squares, fit = right + more.cross, squares + more.squares, fit + more.fit
        mass = mass + other.share
    left += RIDGE * np.eye(d + 1)
    both = np.linalg.solve(left, right[..., None])[..., 0]
    noise = (squares - (both * right).sum(1)) / np.maximum(mass, RIDGE)
    return Sums(total[d, :d], total[:d, :d], both[:, :d], both[:, d], noise, float(-0.5 * fit))


class _ImaginarySums(NamedTuple):
    products: Array  # of (code, 1), (d + 1, d + 1)
    cross: Array  # of features and (code, 1), (D, d + 1)
    squares: Array  # of features, (D,)
    fit: float  # minus twice the log-likelihood


def _sums_imaginary(factors: Factors, other: Imaginary) -> _ImaginarySums:
    """Return the expected sums over imaginary rows."""
    scaled, precision = _posterior(factors)
    to_code, t = np.linalg.solve(precision, scaled), other.variance
    gap = -factors.mean
    mean = np.r_[to_code @ gap, 1.0]  # of (code, 1)
    products = mean[:, None] * mean
    products[:-1, :-1] += np.linalg.inv(precision) + to_code * t @ to_code.T
    cross = np.column_stack([t[:, None] * to_code.T, np.zeros(len(t))])
    fit = ((t + gap**2) / factors.noise + np.log(2 * np.pi * factors.noise)).sum()
    fit -= (scaled * to_code * t).sum() + (scaled @ gap) @ mean[:-1]
    fit += np.linalg.slogdet(precision)[1]
    share = other.share
    return _ImaginarySums(share * products, share * cross, share * t, share * float(fit))


def _maximized(sums: Sums, floor: Array) -> Factors:
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
