"""A likelihood for each column, against quadrature, autograd, and simulated tables."""

import pickle
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skem import VAEEstimator
from skem._network.training import flatten
from skem.vae import _model as vae

KINDS = {"gaussian": [0, 2], "bernoulli": [3], "categorical": [1, 4]}
SMALL = {"hidden_layer_sizes": (16,), "max_iter": 15, "random_state": 0}


def mixed(rng, n):
    """Two numbers, a column of 0 and 1, and columns of three and four categories."""
    z = rng.normal(size=(n, 1))
    slopes = np.array([-2.0, 0, 2]), np.array([3.0, 1, -1, -3])
    first, second = ((z * s + rng.gumbel(size=(n, len(s)))).argmax(1) for s in slopes)
    numbers = 10 + 5 * (z * [1, -0.5] + rng.normal(size=(n, 2)))
    binary = rng.random(n) < 1 / (1 + np.exp(-2 * z[:, 0]))
    return np.column_stack([numbers[:, 0], first, numbers[:, 1], binary, second])


@pytest.fixture(scope="module")
def fitted():
    X = mixed(np.random.default_rng(0), 600)
    return VAEEstimator(2, likelihood=KINDS, **SMALL).fit(X)


def log_densities(model, X, z):
    """log p(x_j | z) of every column, (n, n_codes, D), from the outputs of the decoder."""
    network, scaling = model._fitted(np.float64).network, model._scaling
    with torch.no_grad():
        output = vae.decode(network, torch.from_numpy(z)).numpy()
        s = network.log_variance.exp().numpy()
    found = np.zeros((len(X), len(z), 5))
    for i, j in enumerate((0, 2)):
        sd = np.sqrt(s[i]) * scaling["scale"][i]
        mean = output[:, i] * scaling["scale"][i] + scaling["offset"][i]
        gap = (X[:, j, None] - mean) / sd
        found[..., j] = -0.5 * gap**2 - np.log(sd * np.sqrt(2 * np.pi))
    p = 1 / (1 + np.exp(-output[:, 2]))
    found[..., 3] = np.log(np.where(X[:, 3, None] == 1, p, 1 - p))
    for j, start, end in ((1, 3, 6), (4, 6, 10)):
        log_p = log_softmax(output[:, start:end], axis=1)
        code = np.nan_to_num(X[:, j]).astype(int)
        found[..., j] = log_p[:, code].T
    return np.where(np.isnan(X)[:, None], 0, found)


def grid(d):
    axis = np.linspace(-6, 6, 1001 if d == 1 else 101)
    z = np.stack(np.meshgrid(*[axis] * d), -1).reshape(-1, d)
    return z, -0.5 * (z**2 + np.log(2 * np.pi)).sum(1) + d * np.log(axis[1] - axis[0])


@pytest.mark.parametrize("n_codes", [1, 2])
def test_scores_and_posteriors_are_those_of_quadrature(n_codes):
    rng = np.random.default_rng(0)
    model = VAEEstimator(n_codes, likelihood=KINDS, n_importance_samples=256, **SMALL)
    model.fit(mixed(rng, 600))
    X, (z, log_prior) = mixed(rng, 25), grid(n_codes)
    exact = np.logaddexp.reduce(log_densities(model, X, z).sum(2) + log_prior, axis=1)
    np.testing.assert_allclose(model.score_samples(X), exact, atol=0.03)
    holes = np.where(rng.random(X.shape) < 0.4, np.nan, X)
    holes[np.isnan(holes).all(1), 0] = 10.0
    log_joint = log_densities(model, holes, z).sum(2) + log_prior
    exact = np.logaddexp.reduce(log_joint, axis=1)
    found = model.score_samples(holes)
    np.testing.assert_allclose(found.mean(), exact.mean(), atol=0.02)
    np.testing.assert_allclose(found, exact, atol=0.2)
    # the posterior over each category of a row, by the sum over codes
    filled, share = model.impute(holes), np.exp(log_joint - exact[:, None])
    for j, n_categories in ((1, 3), (4, 4)):
        probabilities = []
        for code in range(n_categories):
            same = np.full(X.shape, np.nan)
            same[:, j] = code
            probabilities.append((share * np.exp(log_densities(model, same, z)[..., j])).sum(1))
        probabilities = np.array(probabilities)
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-3)
        missing = np.isnan(holes[:, j])
        chosen = probabilities[filled[:, j].astype(int), np.arange(25)]
        assert (chosen > probabilities.max(0) - 0.03)[missing].all()
        assert np.array_equal(filled[~missing, j], X[~missing, j])


def test_probabilities_of_missing_categories_are_those_of_quadrature(fitted):
    """p(category | observed) is a ratio of two scores of rows with holes."""
    X, (z, log_prior) = mixed(np.random.default_rng(1), 30), grid(2)
    X[:, [2, 3]] = np.nan
    without = X.copy()
    without[:, 4] = np.nan
    exact = [
        np.logaddexp.reduce(log_densities(fitted, x, z).sum(2) + log_prior, axis=1)
        for x in (X, without)
    ]
    found = fitted.score_samples(X) - fitted.score_samples(without)
    np.testing.assert_allclose(np.exp(found), np.exp(exact[0] - exact[1]), atol=0.03)


def network(columns, based):
    design = vae.Design(
        sum(columns.sizes), 2, (5, 4), "gelu", "dense", None, columns, based, None, None
    )
    net = vae.build(design, 0, torch.device("cpu"))
    if based:
        random = torch.Generator().manual_seed(1)
        base = [torch.randn(values.shape, generator=random) for values in net.base]
        net.base = vae.Base(*base[:-1], base[-1].exp())
    net.convert(float)
    parameters = [*net.encoder.parameters(), *net.decoder.parameters(), net.log_variance]
    net.flat = flatten(parameters, torch.device("cpu"))
    return net


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("sizes", [(2, 1, (3, 4)), (0, 2, (3,)), (3, 0, (2,)), (0, 0, (1, 5))])
def test_the_written_gradient_is_that_of_autograd(sizes, missing):
    columns = vae.Columns(*sizes)
    net, rng = network(columns, sizes[0] > 0), np.random.default_rng(0)
    groups = [np.eye(k)[rng.integers(k, size=7)] for k in columns.n_categories]
    numbers = rng.normal(size=(7, sizes[0])), 1.0 * (rng.random((7, sizes[1])) < 0.5)
    x = torch.from_numpy(np.hstack([*numbers, *groups]))
    seen = None
    if missing:
        each = rng.random((7, sizes[0] + sizes[1] + len(groups))) < 0.6
        counts = [1] * (sizes[0] + sizes[1]) + list(columns.n_categories)
        seen = torch.from_numpy(1.0 * np.repeat(each, counts, axis=1))
    weight, noise = torch.from_numpy(rng.random(7)), torch.from_numpy(rng.normal(size=(7, 2)))
    with torch.no_grad():
        net.log_variance += 0.5 * torch.arange(len(net.log_variance))
    written = vae.gradient(net, x, seen, weight, noise, 0.7)
    own = net.flat.gradient.clone()
    net.manual_gradient = False
    expected = vae.gradient(net, x, seen, weight, noise, 0.7)
    np.testing.assert_allclose(written[:2], expected[:2], rtol=1e-10)
    np.testing.assert_allclose(own, net.flat.gradient, rtol=1e-9, atol=1e-11)
    assert own.abs().max() > 1e-3
    if sizes[0]:
        np.testing.assert_allclose(written.excess, expected.excess, rtol=1e-9)


def test_the_distortion_is_minus_the_log_likelihood(fitted):
    """Of rows at one code, with numbers written out by hand."""
    network = fitted._fitted(np.float64).network
    output = torch.tensor([[0.5, -1.0, 0.3, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0]]).double()
    x = torch.tensor([[1.0, 0.0, 1.0, 0, 1, 0, 0, 0, 0, 1]]).double()
    s = network.log_variance.detach().exp().numpy()
    normal = -0.5 * (np.array([0.25, 1.0]) / s + np.log(2 * np.pi * s)).sum()
    categories = 2 - np.log(np.exp([1, 2, 3]).sum()) + 1 - np.log(3 + np.e)
    exact = normal - np.log1p(np.exp(-0.3)) + categories
    found = vae.log_likelihood(network, x, None, output).item()
    assert found == pytest.approx(exact, rel=1e-6)


def test_samples_have_the_frequencies_of_the_model(fitted):
    draws = fitted.sample(40_000, random_state=0)
    assert draws.shape == (40_000, 5)
    z = np.random.default_rng(1).normal(size=(40_000, 2))
    with torch.no_grad():
        network = fitted._fitted(np.float64).network
        p = vae.expected(network, torch.from_numpy(z)).numpy().mean(0)
    for j, start, end in ((1, 3, 6), (4, 6, 10)):
        share = np.bincount(draws[:, j].astype(int), minlength=end - start) / len(draws)
        np.testing.assert_allclose(share, p[start:end], atol=0.012)
    assert set(draws[:, 3]) == {0, 1}
    assert draws[:, 3].mean() == pytest.approx(p[2], abs=0.012)


def groups(rng, n):
    """Categories that depend on a hidden group, and numbers that tell it."""
    group = rng.integers(4, size=n)
    numbers = np.array([[0, 0], [0, 5], [5, 0], [5, 5]])[group] + rng.normal(size=(n, 2))
    odds = np.array([[8, 1, 1], [1, 8, 1], [1, 1, 8], [4, 4, 2]]) / 10
    pair = [(rng.random((n, 1)) > odds[group].cumsum(1)).sum(1) for _ in "ab"]
    return np.column_stack([numbers, *pair]).astype(float)


def test_imputed_categories_beat_the_most_frequent_one():
    rng = np.random.default_rng(0)
    X, test = groups(rng, 1000), groups(rng, 1000)
    model = VAEEstimator(4, likelihood={"categorical": [2, 3]}, **SMALL)
    model.fit(np.where(rng.random(X.shape) < 0.2, np.nan, X))
    missing = rng.random(test.shape) < 0.2
    filled = model.impute(np.where(missing, np.nan, test))
    for j in (2, 3):
        own = missing[:, j]
        right = (filled == test)[own, j].mean()
        frequent = (test[own, j] == np.bincount(X[:, j].astype(int)).argmax()).mean()
        assert right > frequent + 0.15  # all but the numbers are known to give .70
    assert model.reconstruct(test)[:, 2:].max() == 2


def categories_of_groups(rng, n, odds):
    """Columns of categories, independent given one of three groups, and their log density."""
    group = rng.integers(3, size=n)
    X = np.column_stack([(rng.random((n, 1)) > p[group].cumsum(1)).sum(1) for p in odds])
    each = sum(np.log(p[:, X[:, j]]) for j, p in enumerate(odds))  # (groups, n)
    return 1.0 * X, np.logaddexp.reduce(each - np.log(3), axis=0)


@pytest.mark.parametrize("n", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_table_of_categories_only(n):
    rng = np.random.default_rng(0)
    odds = [0.1 / k + 0.9 * rng.dirichlet(np.full(k, 0.3), size=3) for k in (2, 3, 3, 4, 5, 6)]
    X, _ = categories_of_groups(rng, n, odds)
    test, log_density = categories_of_groups(rng, 1000, odds)
    kinds = {"categorical": range(6)}
    options = {"hidden_layer_sizes": (32,), "n_importance_samples": 64, "random_state": 0}
    model = VAEEstimator(4, likelihood=kinds, **options).fit(X)
    shares = [(np.bincount(X[:, j].astype(int)) + 0.5) / n for j in range(6)]
    apart = sum(np.log(p[test[:, j].astype(int)]).mean() for j, p in enumerate(shares))
    gain = model.score(test) - apart
    assert gain > (0.5 if n == 300 else 0.75) * (log_density.mean() - apart)
    assert model.score(test) < log_density.mean() + 0.1


def test_frames_copies_and_files(tmp_path):
    X = mixed(np.random.default_rng(0), 300)
    names = ["age", "job", "income", "member", "town"]
    frame = pd.DataFrame(X, columns=names)
    kinds = {"categorical": ["job", "town"], "gaussian": ["age"]}
    model = clone(VAEEstimator(2, likelihood=kinds, **SMALL)).fit(frame)
    assert model.get_params()["likelihood"] == kinds
    # columns not named: 0 and 1 are Bernoulli, other numbers Gaussian
    assert model.likelihood_ == KINDS
    by_index = VAEEstimator(2, likelihood=KINDS, **SMALL).fit(X)
    np.testing.assert_allclose(by_index.transform(X), model.transform(frame), atol=1e-12)
    np.save(tmp_path / "X.npy", X)
    mapped = clone(by_index).fit(np.load(tmp_path / "X.npy", mmap_mode="r"))
    np.testing.assert_allclose(mapped.transform(X), by_index.transform(X), atol=1e-6)
    whole = np.clip(np.rint(X), 0, 255).astype(np.uint8)
    np.save(tmp_path / "bytes.npy", whole)
    mapped = clone(by_index).fit(np.load(tmp_path / "bytes.npy", mmap_mode="r"))
    in_memory = clone(by_index).fit(whole)
    np.testing.assert_allclose(mapped.transform(whole), in_memory.transform(whole), atol=1e-6)
    trusted = skops.io.get_untrusted_types(data=skops.io.dumps(by_index))
    copies = [
        pickle.loads(pickle.dumps(by_index)),
        skops.io.loads(skops.io.dumps(by_index), trusted=trusted),
    ]
    expected = by_index.partial_fit(X).score_samples(X)
    for copy in copies:
        np.testing.assert_array_equal(copy.partial_fit(X).score_samples(X), expected)
    by_index.set_params(warm_start=True, max_iter=2).fit(X)
    assert by_index.n_iter_ > model.n_iter_
    search = GridSearchCV(clone(by_index), {"n_components": [1, 2]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    single = np.float32(X)
    assert by_index.impute(single).dtype == np.float32


def test_new_categories_and_other_likelihoods_are_refused():
    X = mixed(np.random.default_rng(0), 100)
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = VAEEstimator(2, likelihood={"categorical": ["b", "e"]}, **SMALL).fit(frame)
    new = frame.copy()
    new.loc[3, "e"] = 9
    for verb in (model.score_samples, model.transform, model.impute, model.partial_fit):
        with pytest.raises(ValueError, match="column 'e' of X has the category 9"):
            verb(new)
    far = frame.copy()
    far.loc[3, "d"] = 7
    with pytest.raises(ValueError, match="column 'd' of X has values from 0 to 7"):
        model.partial_fit(far)
    with pytest.warns(UserWarning, match="outside of 0 and 1"):
        assert model.score_samples(far)[3] < model.score_samples(frame)[3] - 100
    with pytest.raises(ValueError, match="other values of likelihood"):
        model.set_params(likelihood="gaussian").partial_fit(frame)
    with pytest.raises(ValueError, match="other values of likelihood"):
        model.set_params(likelihood={"gaussian": ["d"]}).partial_fit(frame)
    model.set_params(likelihood="auto").partial_fit(frame)


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ({"poisson": [0]}, "the key 'poisson'"),
        ({"gaussian": 0}, "must be a list of columns"),
        ({"gaussian": "age"}, "must be a list of columns"),
        ({"gaussian": ["age"]}, "X has no column names"),
        ({"gaussian": [5]}, "indices from 0 to 4"),
        ({"gaussian": [True]}, "indices from 0 to 4"),
        ({"gaussian": [0], "categorical": [1, 0]}, "column 0 twice"),
        ({"gaussian": [4, -1]}, "column -1 twice"),
        ({"bernoulli": [0]}, "column 0 of X has values from .* 'bernoulli'"),
        ({"categorical": [0]}, "column 0 of X has values that are not integers"),
        ({"categorical": [2]}, "OrdinalEncoder"),
        ("categorical", "likelihood"),
    ],
)
def test_wrong_likelihoods_are_named(likelihood, message):
    X = mixed(np.random.default_rng(0), 50)
    with pytest.raises(ValueError, match=message):
        VAEEstimator(likelihood=likelihood).fit(X)


def test_negative_codes_images_and_unseen_columns_are_refused():
    X = mixed(np.random.default_rng(0), 50)
    model = VAEEstimator(likelihood={"categorical": [1]})
    X[0, 1] = -1
    with pytest.raises(ValueError, match=r"column 1 of X has values from -1 to 2"):
        model.fit(X)
    X[0, 1] = 1e9
    with pytest.raises(ValueError, match="below 1000"):
        model.fit(X)
    X[:, 1] = np.nan
    with pytest.raises(ValueError, match="without any observed value"):
        model.fit(X)
    with pytest.raises(ValueError, match="does not suit images"):
        VAEEstimator(likelihood={}, image_shape=(1, 5)).fit(np.nan_to_num(X))


def test_weights_are_repeats_of_categories():
    X = mixed(np.random.default_rng(0), 60)
    weight = np.r_[np.zeros(20), np.ones(40)]
    options = {"likelihood": KINDS, **SMALL, "max_iter": 1, "early_stopping": False}
    one = VAEEstimator(2, **options).fit(X, sample_weight=weight)
    two = VAEEstimator(2, **options).fit(X[20:])
    for name in ("fill", "offset", "scale"):
        np.testing.assert_allclose(one._scaling[name], two._scaling[name], rtol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_rows_and_constant_columns(n):
    X = mixed(np.random.default_rng(0), 5)[:n]
    X[:, 1] = 0
    X[:, 2] = 7.0
    expected = pytest.warns(UserWarning, match="single row") if n == 1 else nullcontext()
    with expected:
        model = VAEEstimator(likelihood={"categorical": [1, 4]}, **SMALL).fit(X)
    assert np.isfinite(model.score(X))
    assert (model.sample(50)[:, 1] == 0).all()
    np.testing.assert_allclose(model.sample(50)[:, 2], 7, atol=0.01)
    assert np.isfinite(model.impute(np.full((1, 5), np.nan))).all()
