"""Parameters that stay as given, and a prior mean for each component."""

import pickle

import dask.array as da
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal
from sklearn.feature_extraction.image import grid_to_graph

from skem import BayesianGMM_MAP

TYPES = ["full", "tied", "diag", "spherical"]
K, D = 3, 2
MEANS = np.array([[0.0, 0.0], [4.0, 1.0], [-3.0, 5.0]])
WEIGHTS = np.array([0.5, 0.2, 0.3])
SHAPES = {"full": (K, D, D), "tied": (D, D), "diag": (K, D), "spherical": (K,)}


def precisions(kind):
    dense = kind in ("full", "tied")
    return np.broadcast_to(np.eye(D) if dense else 1.0, SHAPES[kind]).copy()


@pytest.fixture(name="X", scope="module")
def rows_of_three():
    rng = np.random.default_rng(0)
    rows = MEANS[rng.choice(K, 200, p=[0.2, 0.5, 0.3])] + 1.3 * rng.normal(size=(200, D))
    rows = rows @ np.array([[1, 0.4], [0, 0.8]])
    rows[::9, 1] = np.nan
    return rows


def given(kind, **options):
    return BayesianGMM_MAP(
        K,
        covariance_type=kind,
        weights_init=WEIGHTS,
        means_init=MEANS,
        precisions_init=precisions(kind),
        **{"tol": 1e-11, "max_iter": 5000, **options},
    )


def plain_objective(model, X, weights, means, covariances, mean_prior, kappa):
    """The log-likelihood plus the log prior of the means, written out."""
    out = 0.0
    matrices = []
    for k in range(K):
        own = covariances if model.covariance_type == "tied" else covariances[k]
        dense = model.covariance_type in ("full", "tied")
        matrices.append(own if dense else np.diag(np.broadcast_to(own, D)))
    for missing in np.unique(np.isnan(X), axis=0):
        o, rows = ~missing, X[(np.isnan(X) == missing).all(1)]
        densities = [
            w * multivariate_normal(m[o], c[np.ix_(o, o)]).pdf(rows[:, o])
            for w, m, c in zip(weights, means, matrices, strict=True)
        ]
        out += np.log(np.sum(densities, axis=0)).sum()
    if kappa:
        # flat degrees of freedom cancel the determinant that the prior of a mean brings
        for k in range(K):
            gap = means[k] - mean_prior[k]
            out -= kappa / 2 * gap @ np.linalg.solve(matrices[k], gap)
    return out


CASES = {
    "weights": ["weights"],
    "means": ["means"],
    "covariances": ["covariances"],
    "two": ("means", "covariances"),
    "a mean": {"means": [True, False, False]},
    "a weight": {"weights": [False, True, False]},
    "a component": {name: [False, False, True] for name in ("weights", "means", "covariances")},
}


@pytest.mark.parametrize("kappa", [0.0, 5.0])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("case", CASES)
def test_the_rest_is_stationary(case, kind, kappa, X):
    """Fixed values stay; the objective has no slope in the others."""
    fixed, names = CASES[case], ("weights", "means", "covariances")
    if kind == "tied" and case == "a component":
        with pytest.raises(ValueError, match="one matrix for all"):
            given(kind, fixed=fixed).fit(X)
        return
    prior = MEANS + 0.5
    model = given(
        kind, fixed=fixed, reg_covar=0, mean_precision_prior=kappa, mean_prior=prior
    ).fit(X)
    start = {"weights": WEIGHTS, "means": MEANS, "covariances": precisions(kind)}
    masks = dict(fixed) if isinstance(fixed, dict) else dict.fromkeys(fixed, [True] * K)
    for name, mask in masks.items():
        value = getattr(model, f"{name}_")
        if kind == "tied" and name == "covariances":
            np.testing.assert_allclose(value, start[name], rtol=1e-12)
            continue
        np.testing.assert_allclose(value[mask], start[name][mask], rtol=1e-12)
    is_fixed = {name: np.array(masks.get(name, [False] * K)) for name in names}
    assert model.weights_.sum() == pytest.approx(1)

    def of_changes(change):
        free = ~is_fixed["weights"]
        weights = model.weights_ * np.exp(np.where(free, change[:K], 0))
        if free.any():
            weights[free] *= model.weights_[free].sum() / weights[free].sum()
        moves = change[K : K + K * D].reshape(K, D)
        means = model.means_ + np.where(is_fixed["means"][:, None], 0, moves)
        factor = np.exp(np.where(is_fixed["covariances"], 0, change[-K:]))
        if kind == "tied":
            covariances = model.covariances_ * factor[0]
        else:
            covariances = (model.covariances_.T * factor).T
        return plain_objective(model, X, weights, means, covariances, prior, kappa)

    gradient = approx_fprime(np.zeros(K + K * D + K), of_changes, 1e-6)
    np.testing.assert_allclose(gradient, 0, atol=0.02)
    assert np.all(np.diff(model.lower_bounds_) > -1e-10)


def test_all_fixed_is_the_given_mixture(X):
    model = given("full", fixed=["weights", "means", "covariances"]).fit(X)
    np.testing.assert_allclose(model.means_, MEANS, rtol=1e-12)
    np.testing.assert_allclose(model.weights_, WEIGHTS, rtol=1e-12)
    assert model._n_parameters() == 0


@pytest.mark.parametrize(
    ("fixed", "count"),
    [(None, 17), (["weights"], 15), (["means"], 11), ({"weights": [True, False, False]}, 16),
     ({"covariances": [True, True, False]}, 11)],
)  # fmt: skip
def test_fixed_parameters_are_not_counted(fixed, count, X):
    assert given("full", fixed=fixed, max_iter=3, tol=100).fit(X)._n_parameters() == count


def test_weights_alone_are_fixed_from_any_start(X):
    model = BayesianGMM_MAP(
        K, weights_init=np.full(K, 1 / K), fixed=["weights"], random_state=0, n_init=3
    )
    np.testing.assert_allclose(model.fit(X).weights_, 1 / K)


def test_one_mean_prior_for_each_component(X):
    """The mode of each mean, with given covariances and all rows labelled."""
    labels = np.random.default_rng(1).integers(K, size=len(X))
    model = given(
        "full", fixed=["weights", "covariances"], mean_prior=MEANS, mean_precision_prior=7.0
    )
    whole = np.where(np.isnan(X), 0, X)
    model.fit(whole, resp_prior=np.eye(K)[labels])
    for k in range(K):
        own = whole[labels == k]
        expected = (7 * MEANS[k] + own.sum(0)) / (7 + len(own))
        np.testing.assert_allclose(model.means_[k], expected)


def test_mean_priors_are_where_em_starts(X):
    model = BayesianGMM_MAP(K, mean_prior=MEANS[::-1], mean_precision_prior=50.0)
    model.fit(X)
    distances = np.linalg.norm(model.means_[:, None] - MEANS[::-1], axis=2)
    np.testing.assert_array_equal(distances.argmin(1), np.arange(K))


def test_fewer_rows_than_components_adapt_them():
    model = BayesianGMM_MAP(
        K,
        weights_init=WEIGHTS,
        precisions_init=precisions("full"),
        fixed=["weights", "covariances"],
        mean_prior=MEANS,
        mean_precision_prior=4.0,
    )
    model.fit(MEANS[:2] + 0.1)  # rows that belong to one component each, almost
    np.testing.assert_allclose(model.means_[:2], MEANS[:2] + 0.1 / 5, atol=0.01)
    np.testing.assert_allclose(model.means_[2], MEANS[2], atol=0.01)


def test_online_em_and_warm_starts_leave_them_too(X):
    model = given("full", fixed={"means": [True, False, False]}, max_iter=20, tol=0.1).fit(X)
    again = pickle.loads(pickle.dumps(model)).partial_fit(X[:50] + 1)
    np.testing.assert_allclose(again.means_[0], MEANS[0], rtol=1e-12)
    assert (again.means_[1:] != model.means_[1:]).all()
    kept = model.means_.copy()
    model.set_params(warm_start=True, means_init=None, fixed=["means"]).fit(X + 1)
    np.testing.assert_allclose(model.means_, kept, rtol=1e-12)


def test_wherever_rows_live(X, tmp_path):
    np.save(tmp_path / "X.npy", X)
    options = {"fixed": ["means"], "max_iter": 20, "tol": 1e-4}
    weight = np.arange(len(X)) % 3
    model = given("full", **options).fit(X, sample_weight=weight)
    rows = np.repeat(X, weight, axis=0)
    others = [given("full", **options).fit(rows)]
    for other in (np.load(tmp_path / "X.npy", mmap_mode="r"), da.from_array(X, (60, D))):
        others.append(given("full", **options).fit(other, sample_weight=weight))
    for other in others:
        np.testing.assert_allclose(other.covariances_, model.covariances_, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": ["variances"]}, "fixed must name"),
        ({"fixed": {"means": [True, False]}}, "3 booleans"),
        ({"fixed": {"means": [1, 0, 1]}}, "3 booleans"),
        ({"fixed": ["means"], "means_init": None}, "means_init is None"),
        ({"fixed": ["covariances"], "precisions_init": None}, "precisions_init is None"),
        ({"fixed": {"weights": [True] * 2 + [False]}, "weights_init": [0.5, 0.5, 0]}, "sum to"),
        ({"mean_prior": np.zeros((2, D))}, "mean_prior"),
        ({"fixed": "means"}, "fixed"),
    ],
)
def test_what_cannot_be_fixed(options, message, X):
    with pytest.raises(ValueError, match=message):
        given("full").set_params(**options).fit(X)


def test_weights_cannot_be_fixed_next_to_a_graph():
    rows = np.random.default_rng(0).normal(size=(20, 1))
    model = BayesianGMM_MAP(
        2, connectivity=grid_to_graph(4, 5), fixed=["weights"], weights_init=[0.5, 0.5]
    )
    with pytest.raises(ValueError, match="connectivity"):
        model.fit(rows)
