"""The maths of the mixture, against plain references, enumeration and numerical gradients."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.special import logsumexp
from scipy.stats import dirichlet, invgamma, invwishart, multivariate_normal

from skem._base.passes import Passes
from skem._loop import em
from skem._rows.parts import InMemory
from skem.mixture import _sums
from skem.mixture._covariances import Layout
from skem.mixture._missing import Group
from skem.mixture._model import Mixture
from skem.mixture._params import CollapseError, Params, Prior
from skem.mixture._potts import PottsMixture, PottsPasses, independent_classes, neighbors
from skem.mixture._prior import empirical_prior, flat_prior

TYPES = ["full", "tied", "diag", "spherical"]
K, D = 3, 4


def spd(rng, d):
    root = rng.normal(size=(d, d + 3))
    return root @ root.T / d


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(60, D)) @ spd(rng, D) + 3 * rng.normal(size=D) for _ in range(K)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def holes(data):
    X = data.copy()
    X[np.random.default_rng(1).random(X.shape) < 0.25] = np.nan
    X[5] = np.nan
    return X


@pytest.fixture(params=[0, 10])
def grouping(request, monkeypatch):
    """Rows with rare patterns of missing values are filled one by one, or together."""
    monkeypatch.setattr("skem.mixture._missing.MAX_FEATURES", request.param)
    monkeypatch.setattr("skem.mixture._missing.MIN_VALUES", 10 * D)


@pytest.mark.parametrize("share", [0.2, 0.75])
@pytest.mark.parametrize("kind", TYPES)
def test_rows_with_patterns_of_their_own(kind, share, grouping):
    """Their sums are those of rows that are told one by one with their observed values."""
    rng = np.random.default_rng(4)
    X = 2 * rng.normal(size=(70, D))
    X[rng.random(X.shape) < share] = np.nan
    model, params = make(kind)
    groups = model.rows(X, float)
    np.testing.assert_allclose(
        model.log_joint(params, groups), slow_log_joint(params, X), rtol=1e-9, atol=1e-9
    )
    weight = rng.uniform(0.5, 2, size=70)
    together = model.e_step(params, groups, weight)
    alone = [
        model.e_step(params, [marginal_group(x)], w)
        for x, w in zip(X[:, None], weight[:, None], strict=True)
    ]
    for name, value in vars(together).items():
        expected = sum(getattr(part, name) for part in alone)
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9, err_msg=name)


def marginal_group(x):
    """A row (1, D) as a group that shares its pattern."""
    observed = np.flatnonzero(~np.isnan(x[0]))
    return Group(x[:, observed], observed, np.arange(1))


def proper_prior(layout, rng, concentration=2.5):
    d = layout.block_size
    blocks = np.stack([spd(rng, d) for _ in range(layout.n_blocks)])[None]
    return Prior(concentration, 0.7, rng.normal(size=D), d + 1.5, blocks)


def random_params(layout, rng):
    d = layout.block_size
    shape = (layout.n_groups, layout.n_blocks)
    blocks = np.stack([[spd(rng, d) for _ in range(shape[1])] for _ in range(shape[0])])
    return Params(layout, rng.dirichlet(np.full(K, 5.0)), 2 * rng.normal(size=(K, D)), blocks)


def make(kind, prior="proper", seed=0, **options):
    rng = np.random.default_rng(seed)
    layout = Layout(kind, K, D)
    chosen = proper_prior(layout, rng) if prior == "proper" else flat_prior(layout)
    return Mixture(layout, chosen, np.ones(D), **options), random_params(layout, rng)


def matrices(params):
    """The covariance matrix of each component, written out."""
    blocks = params.covariances
    out = []
    for k in range(K):
        block = blocks[k if len(blocks) > 1 else 0]
        if params.layout.dense:
            out.append(block[0])
        else:
            out.append(np.diag(np.broadcast_to(block[:, 0, 0], D)))
    return np.array(out)


def slow_log_joint(params, X):
    """log p(x_o, k) by scipy, for each pattern of missing values."""
    out = np.zeros((len(X), K)) + np.log(params.weights)
    patterns, which = np.unique(~np.isnan(X), axis=0, return_inverse=True)
    for (p, seen), (k, cov) in itertools.product(
        enumerate(patterns), enumerate(matrices(params))
    ):
        if seen.any():
            rows = np.flatnonzero(which == p)
            mean, part = params.means[k][seen], cov[np.ix_(seen, seen)]
            out[rows, k] += multivariate_normal.logpdf(X[np.ix_(rows, seen)], mean, part)
    return out


def slow_log_prior(params, prior):
    out = dirichlet.logpdf(params.weights, np.full(K, prior.concentration))
    for mean, cov in zip(params.means, matrices(params), strict=True):
        out += multivariate_normal.logpdf(mean, prior.mean, cov / prior.mean_precision)
    nu, psi = prior.degrees_of_freedom, prior.covariance[0]
    for group in params.covariances:
        for block, scale in zip(group, psi, strict=True):
            if nu <= len(scale) - 1:  # not proper: without the normalizer
                out -= (nu + len(scale) + 1) / 2 * np.linalg.slogdet(block)[1]
                out -= np.trace(scale @ np.linalg.inv(block)) / 2
            elif params.layout.dense:
                out += invwishart.logpdf(block, nu, scale)
            else:
                out += invgamma.logpdf(block[0, 0], nu / 2, scale=scale[0, 0] / 2)
    return out


def total(model, X, params, weight=None):
    weight = np.ones(len(X)) if weight is None else weight
    return Passes(model, InMemory(X, weight)).total(params)


# -- E step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("missing", [False, True])
def test_log_joint_is_that_of_scipy(kind, missing, data, holes, grouping):
    model, params = make(kind)
    X = holes if missing else data
    found = model.log_joint(params, model.rows(X, float))
    np.testing.assert_allclose(found, slow_log_joint(params, X), rtol=1e-10, atol=1e-10)


def slow_moments(params, X, weight, resp):
    """Counts, sums of E[d] and E[d d^T], d = x - mu_k, row by row."""
    counts, first, second = np.zeros(K), np.zeros((K, D)), np.zeros((K, D, D))
    for (n, row), (k, cov) in itertools.product(enumerate(X), enumerate(matrices(params))):
        o = ~np.isnan(row)
        gap, left = np.zeros(D), cov.copy()
        if o.any():
            slope = cov[:, o] @ np.linalg.inv(cov[np.ix_(o, o)])
            gap, left = slope @ (row - params.means[k])[o], cov - slope @ cov[o]
        r = weight[n] * resp[n, k]
        counts[k] += r
        first[k] += r * gap
        second[k] += r * (np.outer(gap, gap) + left)
    return counts, first, second


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("missing", [False, True])
def test_statistics_are_those_of_a_slow_loop(kind, missing, data, holes, grouping):
    model, params = make(kind)
    X = holes if missing else data
    weight = np.random.default_rng(2).uniform(0, 3, len(X))
    log_joint = slow_log_joint(params, X)
    norm = logsumexp(log_joint, axis=1)
    counts, first, second = slow_moments(params, X, weight, np.exp(log_joint - norm[:, None]))
    stats = total(model, X, params, weight)
    np.testing.assert_allclose(stats.log_lik, weight @ norm, rtol=1e-11)
    np.testing.assert_allclose(stats.weight, weight.sum(), rtol=1e-12)
    np.testing.assert_allclose(stats.counts, counts, rtol=1e-9)
    averages, scatter = model.moments(params, stats)
    gaps = first / counts[:, None]
    np.testing.assert_allclose(averages, params.means + gaps, rtol=1e-9)
    expected = second - counts[:, None, None] * gaps[:, :, None] * gaps[:, None]
    if kind == "tied":
        expected = expected.sum(0, keepdims=True)
    elif kind in ("diag", "spherical"):
        expected = np.einsum("kii->ki", expected)
    np.testing.assert_allclose(scatter, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", TYPES)
def test_statistics_add_over_chunks_and_do_not_depend_on_threads(kind, holes, monkeypatch):
    model, params = make(kind)
    whole = total(model, holes, params)
    monkeypatch.setattr("skem._rows.parts.CHUNK_SIZE", 16 * D * 20)
    parts = total(model, holes, params)
    threads = Passes(model, InMemory(holes), 3).total(params)
    for name in vars(whole):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)
        np.testing.assert_array_equal(getattr(threads, name), getattr(parts, name))


@pytest.mark.parametrize("kind", TYPES)
def test_recentered_statistics_give_the_same_m_step(kind, data):
    model, params = make(kind)
    other = random_params(model.layout, np.random.default_rng(9))
    stats = total(model, data, params)
    moved = model.recenter(stats, params, other)
    one, two = model.m_step(params, stats), model.m_step(other, moved)
    np.testing.assert_allclose(one.means, two.means, rtol=1e-9)
    np.testing.assert_allclose(one.covariances, two.covariances, rtol=1e-8, atol=1e-9)


# Each number of features and dtype is compiled by itself, which takes seconds.
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("dtype", "n_features"),
    [
        *((np.float64, n) for n in (4, 13)),
        (np.float32, 13),
        *(pytest.param(np.float64, n, marks=pytest.mark.slow) for n in (1, 2, 3, 5, 8)),
        *(pytest.param(np.float32, n, marks=pytest.mark.slow) for n in (1, 2, 3, 4, 5, 8)),
    ],
)
def test_compiled_loop_gives_the_sums_of_numpy(n_features, kind, dtype):
    kernel = pytest.importorskip("skem.mixture._kernel")
    rng = np.random.default_rng(3)
    layout = Layout(kind, K, n_features)
    d = layout.block_size
    blocks = [[spd(rng, d) for _ in range(layout.n_blocks)] for _ in range(layout.n_groups)]
    means = 3 * rng.normal(size=(K, n_features))
    params = Params(layout, rng.dirichlet(np.ones(K)), means, np.array(blocks))
    X = (means[rng.integers(K, size=1000)] + rng.normal(size=(1000, n_features))).astype(dtype)
    weight = rng.uniform(0, 2, len(X))
    weight[:3] = 0
    expected = _sums.sums(params.whitening, X.astype(float), weight)
    found = kernel.sums(params.whitening, X, weight)
    tol = 1e-11 if dtype is np.float64 else 2e-5
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol * np.abs(b).max())


@pytest.mark.parametrize("n_features", [3, 12])
def test_compiled_loop_leaves_out_what_changes_no_digit(n_features):
    kernel = pytest.importorskip("skem.mixture._kernel")
    rng = np.random.default_rng(4)
    means = 100 * rng.normal(size=(K, n_features))
    layout = Layout("full", K, n_features)
    blocks = np.stack([spd(rng, n_features) for _ in range(K)])[:, None]
    params = Params(layout, np.full(K, 1 / K), means, blocks)
    X = means[rng.integers(K, size=2000)] + rng.normal(size=(2000, n_features))
    X[7] = 1e6  # far from all components: exp of its log-density is 0
    expected = _sums.sums(params.whitening, X, np.ones(len(X)))
    found = kernel.sums(params.whitening, X, np.ones(len(X)))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize("spread", [1.0, 1e5])
def test_expanded_squares_and_plain_ones_agree(spread, monkeypatch):
    rng = np.random.default_rng(5)
    layout = Layout("diag", K, D)
    params = Params(
        layout,
        np.full(K, 1 / K),
        spread * rng.normal(size=(K, D)),
        rng.uniform(0.5, 2, (K, D, 1, 1)),
    )
    X = params.means[rng.integers(K, size=500)] + rng.normal(size=(500, D))
    found = _sums.sums(params.whitening, X, np.ones(500))
    monkeypatch.setattr("skem.mixture._sums.MAX_EXPANSION", -1)
    expected = _sums.sums(params.whitening, X, np.ones(500))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


# -- priors and M step ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_log_prior_is_normalized(kind):
    model, params = make(kind)
    np.testing.assert_allclose(
        model.log_prior(params), slow_log_prior(params, model.prior), rtol=1e-11
    )


@pytest.mark.parametrize("kind", TYPES)
def test_flat_prior_is_silent(kind):
    model, params = make(kind, "flat")
    assert model.log_prior(params) == 0
    # and one that is flat but for its Dirichlet says no more than that
    almost = replace(model, prior=replace(model.prior, concentration=2.0))
    expected = dirichlet.logpdf(params.weights, np.full(K, 2.0))
    np.testing.assert_allclose(almost.log_prior(params), expected, rtol=1e-9)


def unpack(theta, params):
    """Parameters from free coordinates: softmax, means, Cholesky factors with log diagonal."""
    layout = params.layout
    G, B, d = layout.n_groups, layout.n_blocks, layout.block_size
    logits, rest = np.append(theta[: K - 1], 0), theta[K - 1 :]
    means, rest = rest[: K * D].reshape(K, D), rest[K * D :]
    factors = np.zeros((G, B, d, d))
    rows, columns = np.tril_indices(d)
    factors[:, :, rows, columns] = rest.reshape(G, B, -1)
    diagonal = np.arange(d)
    factors[:, :, diagonal, diagonal] = np.exp(factors[:, :, diagonal, diagonal])
    weights = np.exp(logits - logsumexp(logits))
    return Params(layout, weights, means, factors @ factors.swapaxes(2, 3))


def pack(params):
    factors = np.linalg.cholesky(params.covariances).copy()
    d = params.layout.block_size
    diagonal = np.arange(d)
    factors[:, :, diagonal, diagonal] = np.log(factors[:, :, diagonal, diagonal])
    rows, columns = np.tril_indices(d)
    logits = np.log(params.weights / params.weights[-1])[:-1]
    return np.concatenate([logits, params.means.ravel(), factors[:, :, rows, columns].ravel()])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("prior", ["flat", "proper", "empirical"])
@pytest.mark.parametrize("missing", [False, True])
def test_fixed_point_is_stationary(kind, prior, missing, data, holes):
    """The gradient of log-likelihood + log-prior, both by scipy, is 0 where EM ends."""
    X = data[::3].copy()
    if missing:
        X[::4] = holes[::12]
    model, _ = make(kind, prior)
    weight = np.random.default_rng(6).uniform(0.5, 2, len(X))
    if prior == "empirical":
        chosen = empirical_prior(
            model.layout, InMemory(X, weight), np.nanmean(X, axis=0), np.nanstd(X, axis=0)
        )
        model = replace(model, prior=chosen)
    start = Params(
        model.layout,
        np.full(K, 1 / K),
        data[[10, 80, 150]],
        np.broadcast_to(
            model.layout.to_blocks(
                {
                    "full": np.broadcast_to(np.cov(data.T), (K, D, D)),
                    "tied": np.cov(data.T),
                    "diag": np.ones((K, D)),
                    "spherical": np.ones(K),
                }[kind]
            ),
            (model.layout.n_groups, model.layout.n_blocks, *[model.layout.block_size] * 2),
        ),
    )
    run = em(model, Passes(model, InMemory(X, weight)).total, start, max_iter=4000, tol=1e-15)
    assert (np.diff(run.objectives) > -1e-11).all()
    params = run.state[0]

    def objective(theta):
        at = unpack(theta, params)
        log_lik = weight @ logsumexp(slow_log_joint(at, X), axis=1)
        return log_lik + (0 if prior == "flat" else slow_log_prior(at, model.prior))

    np.testing.assert_allclose(
        run.objectives[-1], objective(pack(params)) / weight.sum(), rtol=1e-9
    )
    theta = pack(params)
    gradient = np.array(
        [
            (objective(theta + step) - objective(theta - step)) / 2e-4
            for step in 1e-4 * np.eye(len(theta))
        ]
    )
    np.testing.assert_allclose(gradient, 0, atol=2e-3)


@pytest.mark.parametrize("kind", TYPES)
def test_m_step_is_the_formula_of_the_mode(kind, data):
    """With one component, the posterior is known: normal-inverse-Wishart, and its mode."""
    rng = np.random.default_rng(7)
    layout = Layout(kind, 1, D)
    d, B = layout.block_size, layout.n_blocks
    prior = Prior(1.0, 0.7, rng.normal(size=D), d + 1.5, np.stack([spd(rng, d)] * B)[None])
    model = Mixture(layout, prior, np.ones(D))
    start = Params(layout, np.ones(1), np.zeros((1, D)), np.stack([np.eye(d)] * B)[None])
    new = model.m_step(start, total(model, data, start))
    n, kappa, nu = len(data), 0.7, d + 1.5
    mean = (n * data.mean(0) + kappa * prior.mean) / (n + kappa)
    gap = data.mean(0) - prior.mean
    S = n * np.cov(data.T, bias=True) + n * kappa / (n + kappa) * np.outer(gap, gap)
    psi = prior.covariance[0]
    expected = {
        "full": lambda: (psi + S) / (nu + n + D + 2),
        "tied": lambda: (psi + S) / (nu + n + D + 2),
        "diag": lambda: (psi[:, 0, 0] + np.diag(S)) / (nu + n + 3),
        "spherical": lambda: (psi[:, 0, 0] + np.trace(S)) / (nu + (n + 1) * D + 2),
    }[kind]()
    np.testing.assert_allclose(new.means[0], mean, rtol=1e-11)
    np.testing.assert_allclose(new.covariances.ravel(), expected.ravel(), rtol=1e-11)


def test_weights_are_the_mode_of_the_dirichlet(data):
    model, params = make("full")
    stats = total(model, data, params)
    alpha, n = model.prior.concentration, len(data)
    expected = (stats.counts + alpha - 1) / (n + K * (alpha - 1))
    np.testing.assert_allclose(model.m_step(params, stats).weights, expected, rtol=1e-12)


def test_empirical_prior_counts_as_one_row_with_the_variances_of_the_data(data):
    for kind in TYPES:
        layout = Layout(kind, K, D)
        prior = empirical_prior(layout, InMemory(data), data.mean(0), data.std(0))
        variances = data.var(0) / K ** (2 / D)
        expected = {
            "full": np.diag(variances),
            "tied": np.diag(variances),
            "diag": variances,
            "spherical": variances.mean(),
        }[kind]
        np.testing.assert_allclose(prior.covariance.ravel(), np.ravel(expected), rtol=1e-9)
        np.testing.assert_allclose(prior.mean, data.mean(0), rtol=1e-9)
        assert prior.mean_precision == 0.01
        flat = {"full": -(D + 2), "tied": -(D + 1 + K), "diag": -3, "spherical": -(D + 2)}
        assert prior.degrees_of_freedom == flat[kind] + 1


def test_a_component_without_rows_collapses(data):
    model, params = make("full", "flat")
    far = replace(params, means=params.means + np.array([[0.0], [0.0], [1e6]]))
    with pytest.raises(CollapseError, match="lost all its rows"):
        model.m_step(far, total(model, data, far))


def test_a_component_on_one_point_collapses():
    model, params = make("full", "flat")
    X = np.concatenate([np.random.default_rng(8).normal(size=(50, D)), np.full((5, D), 40.0)])
    params = replace(params, means=np.array([np.zeros(D), np.ones(D), np.full(D, 40.0)]))
    with pytest.raises(CollapseError):
        model.m_step(params, total(model, X, params))


# -- Potts prior ----------------------------------------------------------------------------


@pytest.fixture
def ring():
    n = 7
    i = np.arange(n)
    graph = coo_array((np.ones(n), (i, (i + 1) % n)), shape=(n, n))
    rng = np.random.default_rng(10)
    return rng.normal(size=(n, D)), neighbors(graph, n)


def test_classes_are_independent_and_cover_all_rows(ring):
    _, graph = ring
    classes = independent_classes(graph)
    assert sorted(np.concatenate(classes)) == list(range(7))
    for rows in classes:
        assert graph[rows][:, rows].nnz == 0


def test_mean_field_bound_is_below_the_enumerated_sum(ring):
    """log sum_z prod p(x | z) prod exp(coupling [z_n = z_m]) over all 3^7 labelings."""
    X, graph = ring
    model, params = make("full")
    log_density = slow_log_joint(params, X) - np.log(params.weights)
    pairs = [(n, m) for n, m in zip(*graph.nonzero(), strict=True) if n < m]
    for coupling in (0.0, 0.3, 1.5):
        values = [
            log_density[np.arange(7), z].sum() + coupling * sum(z[n] == z[m] for n, m in pairs)
            for z in itertools.product(range(K), repeat=7)
        ]
        passes = PottsPasses(model, X, graph, coupling)
        bounds = [passes.total(params).log_lik for _ in range(30)]
        assert (np.diff(bounds) > -1e-10).all()
        assert bounds[-1] <= logsumexp(values) + 1e-10
        if coupling == 0:
            np.testing.assert_allclose(bounds[0], logsumexp(values), rtol=1e-12)


def test_mean_field_fixed_point_is_stationary(ring):
    X, graph = ring
    model, params = make("full")
    q = PottsPasses(model, X, graph, 0.8).posterior(params, None)
    field = slow_log_joint(params, X) - np.log(params.weights) + 0.8 * (graph @ q)
    expected = np.exp(field - logsumexp(field, axis=1, keepdims=True))
    np.testing.assert_allclose(q, expected, atol=1e-2)
    np.testing.assert_allclose(q.sum(1), 1)


@pytest.mark.parametrize("kind", TYPES)
def test_em_with_potts_prior_never_decreases(kind, data):
    n = len(data)
    i = np.arange(n - 1)
    graph = neighbors(coo_array((np.ones(n - 1), (i, i + 1)), shape=(n, n)), n)
    model, params = make(kind)
    model = PottsMixture(**vars(model))
    run = em(model, PottsPasses(model, data, graph, 1.0).total, params, max_iter=60)
    assert (np.diff(run.objectives) > -1e-11).all()
