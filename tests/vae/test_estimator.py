"""VAEEstimator against closed forms and autograd, and as its users meet it."""

import copy
import math
import pickle
import tracemalloc

import numpy as np
import pytest
import skops.io
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn
from versions import needs_callbacks

from skem import VAEEstimator
from skem._network.layers import DoubleToGray
from skem._network.training import Adam, flatten
from skem.vae import _model as vae


@pytest.fixture(scope="module")
def digits():
    X = load_digits().data / 16
    return X[np.random.default_rng(0).permutation(len(X))]


@pytest.fixture(scope="module")
def fitted(digits):
    model = VAEEstimator(3, max_iter=12, image_shape=(8, 8), random_state=0)
    return model.fit(digits[:1500])


def network(kind="bernoulli", activation="gelu", sizes=(5, 4), n_features=6, image_shape=None):
    """Networks in float64: bernoulli, gaussian, or factors (Gaussian with a base)."""
    architecture = "dense" if image_shape is None else "conv"
    based = kind == "factors"
    columns = (0, n_features) if kind == "bernoulli" else (n_features, 0)
    design = vae.Design(
        n_features, 2, sizes, activation, architecture, image_shape, columns, based,
        None, None,
    )  # fmt: skip
    net = vae.build(design, 0, torch.device("cpu"))
    if based:
        random = torch.Generator().manual_seed(1)
        base = [torch.randn(values.shape, generator=random) for values in net.base]
        net.base = vae.Base(*base[:-1], base[-1].exp())
    net.convert(float)
    parameters = [*net.encoder.parameters(), *net.decoder.parameters(), net.log_variance]
    net.flat = flatten(parameters, torch.device("cpu"))
    return net


# -- the maths ---------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    ("activation", "image_shape"),
    [("relu", None), ("gelu", None), ("tanh", None), ("gelu", (9, 10)), ("relu", (8, 7, 3))],
)
@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "factors"])
def test_the_written_gradient_is_that_of_autograd(kind, activation, image_shape, missing):
    D = 6 if image_shape is None else math.prod(image_shape)
    net = network(kind, activation, n_features=D, image_shape=image_shape)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net.log_variance += 0.3 * (torch.arange(len(net.log_variance)) % 7) - 0.5
        net.encoder[-1].bias[3] = 20.0  # a log-variance beyond its limit
    x = torch.rand((7, D), generator=random, dtype=torch.float64)
    seen = (torch.rand((7, D), generator=random) < 0.6).double() if missing else None
    weight = torch.rand(7, generator=random, dtype=torch.float64)
    noise = torch.randn((7, 2), generator=random, dtype=torch.float64)
    assert net.manual_gradient
    written = vae.gradient(net, x, seen, weight, noise, 0.7)
    own = net.flat.gradient.clone()
    net.manual_gradient = False
    expected = vae.gradient(net, x, seen, weight, noise, 0.7)
    np.testing.assert_allclose(written[:2], expected[:2], rtol=1e-10)
    np.testing.assert_allclose(own, net.flat.gradient, rtol=1e-9, atol=1e-11)
    assert own.abs().max() > 1e-3
    if kind != "bernoulli":
        np.testing.assert_allclose(written.excess, expected.excess, rtol=1e-9)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "factors"])
def test_the_importance_weighted_gradient_is_numerical(kind):
    """The bound is written out with scipy, row by row and draw by draw."""
    net, rng = network(kind), np.random.default_rng(0)
    x, seen = rng.random((4, 6)), 1.0 * (rng.random((4, 6)) < 0.6)
    weight, noise = rng.random(4), rng.normal(size=(3, 4, 2))
    arrays = [torch.from_numpy(a) for a in (x, seen, weight, noise)]

    @torch.no_grad()
    def loss():
        mean, log_variance = (v.numpy() for v in vae.encode(net, arrays[0]))
        log_weights = np.zeros((3, 4))
        for k in range(3):
            z = mean + np.exp(log_variance / 2) * noise[k]
            output = vae.decode(net, torch.from_numpy(z)).numpy()
            if kind == "bernoulli":
                each = x * output - np.logaddexp(0, output)
            else:
                each = norm.logpdf(x, output, np.exp(net.log_variance.numpy() / 2))
            prior, own = norm.logpdf(z), norm.logpdf(z, mean, np.exp(log_variance / 2))
            log_weights[k] = (seen * each).sum(1) + 0.7 * (prior - own).sum(1)
        return -weight @ (logsumexp(log_weights, axis=0) - np.log(3))

    terms = vae.gradient(net, *arrays, 0.7)
    assert terms.distortion + terms.rate == pytest.approx(loss(), rel=1e-9)
    own, values = net.flat.gradient.clone(), net.flat.values.detach()
    for i in rng.choice(len(values) - len(net.log_variance), 40, replace=False):
        step, both = 1e-5, []
        for sign in (1, -1):
            values[i] += sign * step
            both.append(loss())
            values[i] -= sign * step
        assert own[i].item() == pytest.approx((both[0] - both[1]) / (2 * step), abs=1e-6)
    if kind == "bernoulli":
        return
    # the noise variances are stationary where the bound is
    slopes = []
    for j in range(6):
        both = []
        for sign in (1, -1):
            net.log_variance.data[j] += sign * 1e-5
            both.append(loss())
            net.log_variance.data[j] -= sign * 1e-5
        slopes.append((both[0] - both[1]) / 2e-5)
    s = net.log_variance.detach().exp().numpy()
    np.testing.assert_allclose(terms.excess, -2 * s * slopes, atol=1e-6)


@pytest.mark.parametrize("missing", [False, True])
def test_noise_variances_move_to_where_the_bound_is_stationary(missing):
    net, random = network("factors"), torch.Generator().manual_seed(0)
    x = torch.randn((9, 6), generator=random, dtype=torch.float64)
    seen = (torch.rand((9, 6), generator=random) < 0.7).double() if missing else None
    weight = torch.rand(9, generator=random, dtype=torch.float64)
    noise = torch.randn((9, 2), generator=random, dtype=torch.float64)
    for _ in range(2000):
        vae.move_noise(net, vae.gradient(net, x, seen, weight, noise, 1.0).excess, 0.02)
    with torch.enable_grad():
        mean, log_variance = vae.encode(net, x)
        z = mean + (0.5 * log_variance).exp() * noise
        loss = -(weight * vae.log_likelihood(net, x, seen, vae.decode(net, z))).sum()
        (slope,) = torch.autograd.grad(loss, net.log_variance)
    np.testing.assert_allclose(slope, 0, atol=1e-8)


def test_the_grey_deconvolution_is_that_of_torch():
    ours = DoubleToGray(5, 1, 4, 2, 1, output_padding=(1, 0)).double()
    torchs = torch.nn.ConvTranspose2d(5, 1, 4, 2, 1, output_padding=(1, 0)).double()
    torchs.load_state_dict(ours.state_dict())
    x = torch.rand(3, 5, 4, 6, dtype=torch.float64)
    np.testing.assert_allclose(ours(x).detach(), torchs(x).detach(), atol=1e-12)


def test_the_compiled_loops_do_what_torch_does():
    kernel = pytest.importorskip("skem._network.kernel")
    random = torch.Generator().manual_seed(0)
    logits = 30 * torch.randn((9, 21), generator=random)
    x, weight = torch.rand((9, 21), generator=random), torch.rand(9, generator=random)
    grad = torch.empty_like(logits)
    loss = kernel.bernoulli(x.numpy(), weight.numpy(), logits.numpy(), grad.numpy())
    exact = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.double(), x.double(), reduction="none"
    )
    assert loss == pytest.approx(float(weight.double() @ exact.sum(1)), rel=1e-5)
    expected = (logits.sigmoid() - x) * weight[:, None]
    np.testing.assert_allclose(grad, expected, atol=1e-6)
    one = torch.nn.Parameter(torch.ones(50))
    for betas in ((0.9, 0.999), (0.0, 0.99)):
        flats = [flatten([copy.deepcopy(one)], torch.device("cpu")) for _ in "ab"]
        adams = [Adam(flats[0], betas=betas), Adam(flats[1], None, kernel.adam, betas)]
        for i in range(5):
            grad = torch.randn(50, generator=random) * 10.0 ** (i - 2)
            for flat, adam in zip(flats, adams, strict=True):
                flat.gradient.copy_(grad)
                adam.step(0.01)
        np.testing.assert_allclose(*(flat.values.detach() for flat in flats), rtol=1e-5)
        for name, value in adams[0].state().items():
            np.testing.assert_allclose(adams[1].state()[name], value, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"architecture": "conv", "image_shape": (8, 8)}])
def test_products_in_half_precision_learn_as_well(options, digits, monkeypatch):
    monkeypatch.setattr("skem._network.estimator.MIN_FAST", 0)
    model = VAEEstimator(4, max_iter=4, random_state=0, **options)
    half = clone(model).set_params(precision="bfloat16")
    scores = [m.fit(digits[:1500]).score(digits[1500:]) for m in (model, half)]
    assert scores[1] == pytest.approx(scores[0], abs=0.5)
    assert half._weights[0].dtype == np.float32
    gaussian = clone(half).set_params(likelihood="gaussian").fit(5 * digits[:300])
    exact = clone(gaussian).set_params(precision="float32").fit(5 * digits[:300])
    assert gaussian.score(5 * digits) == pytest.approx(exact.score(5 * digits), rel=0.05)


def test_divergence_is_the_integral():
    mean, log_variance = torch.tensor([[[0.7]], [[-0.8]]], dtype=torch.float64)
    z = np.linspace(-12, 12, 200_001)
    q = np.exp(-0.5 * (z - 0.7) ** 2 / np.exp(-0.8)) / np.sqrt(2 * np.pi * np.exp(-0.8))
    log_ratio = -0.5 * (z - 0.7) ** 2 / np.exp(-0.8) + 0.4 + 0.5 * z**2
    expected = np.sum(q * log_ratio) * (z[1] - z[0])
    np.testing.assert_allclose(vae.divergence(mean, log_variance).item(), expected, rtol=1e-8)


def linear_gaussian(exact):
    """Probabilistic PCA as an autoencoder: its posterior, or a wider one; rows, log p."""
    rng = np.random.default_rng(0)
    W, s, shift = rng.normal(size=(5, 2)), rng.uniform(0.3, 1, size=5), rng.normal(size=5)
    covariance = W @ W.T + np.diag(s)
    X = rng.multivariate_normal(shift, covariance, size=40)
    posterior = np.linalg.inv(np.eye(2) + (W.T / s) @ W)
    # a rotation of the codes that makes their posterior covariance diagonal
    values, vectors = np.linalg.eigh(posterior)
    W, posterior = W @ vectors, np.diag(values)
    gain = posterior @ (W.T / s)
    net = network("gaussian", sizes=(), n_features=5)
    as_tensor = torch.from_numpy
    with torch.no_grad():
        net.encoder[0].weight[:2] = as_tensor(gain)
        net.encoder[0].bias[:2] = as_tensor(-gain @ shift)
        net.encoder[0].weight[2:] = 0
        net.encoder[0].bias[2:] = as_tensor(np.log(values)) + (0 if exact else 0.7)
        net.decoder[0].weight[:] = as_tensor(W)
        net.decoder[0].bias[:] = as_tensor(shift)
        net.log_variance[:] = as_tensor(np.log(s))
    return net, as_tensor(X), multivariate_normal(shift, covariance).logpdf(X)


def bound_of(net, x, draws):
    """The bound with these standard normal draws (M, S, d) for all rows."""
    return vae.bound(net, x, None, torch.special.ndtr(draws), torch.zeros(len(x), 2))


def normal(n, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 2)))


def test_the_bound_is_exact_where_the_posterior_is():
    net, x, exact = linear_gaussian(exact=True)
    for n in (3, 50):  # every importance weight is p(x)
        np.testing.assert_allclose(bound_of(net, x, normal(n)[None]), exact, rtol=1e-7)
    draws = normal(200_000)
    draws = (draws - draws.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(draws.T.cov())).T
    found = bound_of(net, x, draws[:2000, None])
    np.testing.assert_allclose(found, exact, atol=0.35)
    np.testing.assert_allclose(found.mean(), exact.mean(), atol=0.1)


def test_importance_weights_tighten_the_bound():
    net, x, exact = linear_gaussian(exact=False)
    means, draws = [], normal(4000)
    for n in (1, 2, 10, 50, 1000):
        means.append(float(bound_of(net, x, draws.view(-1, n, 2)).mean()))
    assert means == sorted(means)
    assert means[0] < exact.mean() - 0.1
    np.testing.assert_allclose(means[-1], exact.mean(), atol=0.05)
    gap = 0.5 * 2 * (np.exp(0.7) - 1 - 0.7)  # KL(q || posterior), two dimensions
    np.testing.assert_allclose(means[0], exact.mean() - gap, atol=0.1)


def test_learns_probabilistic_pca():
    """A linear network comes close to the best possible likelihood of its family."""
    rng = np.random.default_rng(0)
    W, s = rng.normal(size=(6, 2)), 0.5
    X = 3 + 10 * (rng.normal(size=(2000, 2)) @ W.T + s * rng.normal(size=(2000, 6)))
    X = X.astype(np.float32)
    model = VAEEstimator(2, hidden_layer_sizes=(), max_iter=60, random_state=0, kl_warmup=0)
    model.fit(X)
    covariance = 100 * (W @ W.T + s**2 * np.eye(6))
    truth = multivariate_normal(np.full(6, 3), covariance).logpdf(X).mean()
    assert truth - 0.15 < model.score(X) < truth + 0.05
    draws = model.sample(20_000, random_state=0)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1 * covariance.max())


# -- the estimator ---------------------------------------------------------------------------


def test_scores_do_not_depend_on_other_rows_or_calls(fitted, digits):
    X = digits[1500:1520]
    once = fitted.score_samples(X)
    np.testing.assert_array_equal(once, fitted.score_samples(X))
    np.testing.assert_allclose(once[::-1], fitted.score_samples(X[::-1]), rtol=1e-12)
    np.testing.assert_allclose(once[3:4], fitted.score_samples(X[3:4]), rtol=1e-12)
    single = fitted.score_samples(X.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, once, rtol=1e-4)


def test_learns_digits(fitted, digits):
    X = digits[1500:]
    mean = digits[:1500].mean(0).clip(1e-3, 1 - 1e-3)
    independent = (X * np.log(mean) + (1 - X) * np.log(1 - mean)).sum(1).mean()
    assert fitted.score(X) > independent + 2
    assert fitted.likelihood_ == "bernoulli"
    errors = [((X - guess) ** 2).mean() for guess in (fitted.reconstruct(X), mean)]
    assert errors[0] < 0.7 * errors[1]
    assert set(np.unique(fitted.sample(5, random_state=0))) == {0.0, 1.0}


@pytest.mark.slow
def test_missing_values(digits):
    rng = np.random.default_rng(0)
    missing = rng.random(digits.shape) < 0.4
    X = np.where(missing, np.nan, digits)
    model = VAEEstimator(8, max_iter=40, likelihood="bernoulli", random_state=0)
    model.fit(X[:1500])
    filled = model.impute(X[1500:])
    holes = missing[1500:]
    np.testing.assert_array_equal(filled[~holes], digits[1500:][~holes])
    error = np.abs(filled - digits[1500:])[holes].mean()
    assert error < 0.75 * np.abs(digits[:1500].mean(0) - digits[1500:])[holes].mean()
    np.testing.assert_allclose(model.impute(X[1500:1501]), filled[:1], atol=1e-9)
    assert np.isfinite(model.transform(X[1500:])).all()
    # fewer pixels, each with its price
    assert model.score(X[1500:]) > model.score(digits[1500:])
    with pytest.raises(ValueError, match="without any observed value"):
        VAEEstimator().fit(np.where(np.arange(64) == 3, np.nan, digits))


@pytest.mark.slow
def test_densities_are_in_the_units_of_the_rows():
    X = load_iris().data
    options = {"max_iter": 40, "batch_size": 15, "random_state": 0}
    one = VAEEstimator(2, **options).fit(X)
    other = VAEEstimator(2, **options).fit(1000 * X + 5e4)
    np.testing.assert_allclose(
        one.score_samples(X) - other.score_samples(1000 * X + 5e4), 4 * np.log(1000), atol=0.05
    )
    assert one.likelihood_ == "gaussian"


def test_reproducible_without_the_global_generator(digits):
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    models = [VAEEstimator(2, max_iter=2, random_state=7).fit(digits[:300]) for _ in range(2)]
    np.testing.assert_array_equal(models[0].transform(digits), models[1].transform(digits))
    assert torch.equal(before[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def test_pickles_go_on_alike(digits):
    model = VAEEstimator(2, max_iter=1, random_state=0).fit(digits[:300])
    dumped = skops.io.dumps(model)
    unknown = skops.io.get_untrusted_types(data=dumped)
    copies = [pickle.loads(pickle.dumps(model)), skops.io.loads(dumped, trusted=unknown)]
    model.partial_fit(digits[:300])
    for other in copies:
        other.partial_fit(digits[:300])
        np.testing.assert_array_equal(other.transform(digits), model.transform(digits))
        assert other.t_ == model.t_


def test_warm_start_goes_on(digits):
    model = VAEEstimator(
        2, max_iter=3, warm_start=True, random_state=0, kl_warmup=0, early_stopping=False
    )
    losses = [model.fit(digits[:500]).loss_ for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]
    assert model.n_iter_ == 9
    with pytest.raises(ValueError, match="warm_start=False"):
        model.set_params(n_components=4).fit(digits[:500])


def test_early_stopping_restores_the_best(digits):
    model = VAEEstimator(
        8, max_iter=200, early_stopping=True, n_iter_no_change=3, random_state=0, batch_size=20
    ).fit(digits[:200])
    assert model.n_iter_ < 200
    best, *later = model.validation_scores_[-4:]
    assert max(later) <= best + model.tol
    with pytest.raises(ValueError, match="validation_fraction"):
        VAEEstimator(early_stopping=True).fit(digits[:3])


def test_an_interrupted_fit_keeps_what_it_has(digits, monkeypatch):
    passes = iter(range(2))
    original = VAEEstimator._pass

    def stop(self, *args):
        if next(passes, None) is None:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(VAEEstimator, "_pass", stop)
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 iterations"):
        model = VAEEstimator(2, random_state=0).fit(digits[:300])
    assert model.n_iter_ == 2


def test_sample_weights_are_repeats_in_expectation(digits):
    """A row of weight 0 is not there; weights only count relative to each other."""
    X, weight = digits[:400], np.repeat([1.0, 0.0], 200)
    options = {"max_iter": 30, "random_state": 0, "batch_size": 20}
    one = VAEEstimator(2, **options).fit(X, sample_weight=weight)
    scaled = VAEEstimator(2, **options).fit(X, sample_weight=4 * weight)
    np.testing.assert_allclose(one.transform(X), scaled.transform(X), atol=1e-5)
    assert one.score(X[:200]) > one.score(X[200:]) + 0.5


def test_files_are_read_batch_by_batch(digits, tmp_path):
    data = np.memmap(tmp_path / "x", np.float32, "w+", shape=digits.shape)
    data[:] = digits
    read = np.memmap(tmp_path / "x", np.float32, "r", shape=digits.shape)
    one = VAEEstimator(2, max_iter=2, random_state=0).fit(read)
    two = VAEEstimator(2, max_iter=2, random_state=0).fit(np.array(read))
    np.testing.assert_array_equal(one.transform(read[:9]), two.transform(read[:9]))


@pytest.mark.parametrize("shape", [(8, 8), (16, 4), (5, 7), (6, 5, 3)])
def test_convolutions(shape):
    rng = np.random.default_rng(0)
    X = rng.random((60, *shape)).astype(np.float32)
    model = VAEEstimator(2, architecture="conv", image_shape=shape, max_iter=2, random_state=0)
    model.fit(X)
    flat = X.reshape(60, -1)
    assert model.reconstruct(flat).shape == flat.shape
    assert np.isfinite(model.score(X))


def test_custom_networks(digits):
    def encoder(n_in, n_out):
        return nn.Sequential(nn.Linear(n_in, 16), nn.SiLU(), nn.Linear(16, n_out))

    before = torch.random.get_rng_state()
    options = {"max_iter": 3, "random_state": 0, "encoder": encoder}
    one, two = (VAEEstimator(2, **options).fit(digits[:300]) for _ in range(2))
    np.testing.assert_array_equal(one.transform(digits), two.transform(digits))
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.loss_curve_[-1] < one.loss_curve_[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*values outside of 0 and 1:UserWarning")
def test_in_a_search_after_a_scaler():
    X = load_digits().data[:200]
    pipeline = make_pipeline(
        MinMaxScaler(), VAEEstimator(max_iter=3, likelihood="bernoulli", random_state=0)
    )
    grid = {"vaeestimator__n_components": [1, 6]}
    scores = [
        GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs).fit(X).cv_results_["mean_test_score"]
        for n_jobs in (1, 2)
    ]
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(*scores, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": "bernoulli"}, "MinMaxScaler"),
        ({"n_components": 0}, "n_components"),
        ({"hidden_layer_sizes": (4, 0)}, "hidden_layer_sizes"),
        ({"image_shape": (3, 3)}, "image_shape"),
        ({"architecture": "conv"}, "image_shape"),
        ({"device": "cuda:7"}, "device"),
        ({"device": "abacus"}, "device"),
        ({"beta": -1}, "beta"),
        ({"learning_rate_init": 1e30}, "learning_rate_init"),
    ],
)
def test_wrong_parameters_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        VAEEstimator(**options).fit(load_iris().data)


def test_wrong_codes_are_refused(fitted):
    with pytest.raises(ValueError, match="but 3 are needed"):
        fitted.inverse_transform(np.ones((2, 5)))
    with pytest.raises(ValueError, match="n_samples must be"):
        fitted.sample(0)


# -- what a review found -------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(16)])
def test_layers_that_differ_in_training(layer, digits):
    def encoder(n_in, n_out):
        return nn.Sequential(nn.Linear(n_in, 16), copy.deepcopy(layer), nn.Linear(16, n_out))

    before = torch.random.get_rng_state()
    model = VAEEstimator(2, max_iter=2, random_state=0, encoder=encoder)
    one, two = (clone(model).fit(digits[:300]) for _ in range(2))
    np.testing.assert_array_equal(one.transform(digits), two.transform(digits))
    np.testing.assert_allclose(one.transform(digits[:1]), one.transform(digits)[:1])
    assert torch.equal(before, torch.random.get_rng_state())
    if isinstance(layer, nn.BatchNorm1d):
        assert (one._weights[1] != 0).all()  # the running mean of the training batches


@pytest.mark.parametrize(("scale", "offset"), [(1000.0, 1.7e9), (1e40, 0.0), (1e-60, 0.0)])
def test_far_from_1_is_as_good(scale, offset):
    X = np.random.default_rng(0).normal(size=(1000, 2))
    options = {"max_iter": 20, "random_state": 0, "hidden_layer_sizes": (8,)}
    near = VAEEstimator(1, **options).fit(X)
    far = VAEEstimator(1, **options).fit(scale * X + offset)
    score = far.score(scale * X + offset) + 2 * np.log(scale)
    assert score == pytest.approx(near.score(X), abs=0.02)
    assert far.loss_ - 2 * np.log(scale) == pytest.approx(near.loss_, abs=0.02)


def test_the_loss_is_of_what_is_seen():
    rng = np.random.default_rng(0)
    X = 1000 * rng.normal(size=(1000, 4))
    X[rng.random(X.shape) < 0.5] = np.nan
    model = VAEEstimator(1, max_iter=20, random_state=0, hidden_layer_sizes=(8,)).fit(X)
    assert model.loss_ == pytest.approx(-model.score(X), abs=0.1)


def test_few_importance_samples_still_tighten(fitted, digits):
    model = copy.deepcopy(fitted)
    X = digits[1500:]
    scores = [model.set_params(n_importance_samples=n).score(X) for n in (1, 2, 8, 64)]
    assert scores == sorted(scores)
    with pytest.raises(ValueError, match="n_importance_samples"):
        model.set_params(n_importance_samples=0).score(X)


def test_what_the_networks_were_built_for_stays(digits):
    model = VAEEstimator(max_iter=1, likelihood="bernoulli", random_state=0).fit(digits)
    with pytest.raises(ValueError, match="values between 0 and 1"):
        model.partial_fit(255 * digits)
    with pytest.raises(ValueError, match="likelihood"):
        model.set_params(likelihood="gaussian").partial_fit(digits)
    before = model.transform(digits)
    with pytest.raises(ValueError, match="without any observed value"):
        model.fit(np.where(np.arange(10) == 3, np.nan, digits[:, :10]))
    np.testing.assert_array_equal(model.transform(digits), before)
    assert not hasattr(clone(model), "n_features_in_")


def test_warm_start_with_early_stopping_never_loses(digits):
    options = {"early_stopping": True, "warm_start": True, "random_state": 0, "max_iter": 15}
    model = VAEEstimator(4, **options).fit(digits[:600])
    before = model.score(digits[:600])
    model.set_params(learning_rate_init=0.5, max_iter=2).fit(digits[:600])
    assert model.score(digits[:600]) > before - 0.5


def test_stacks_of_images(digits):
    stack = digits.reshape(-1, 8, 8)
    model = VAEEstimator(2, max_iter=1, image_shape=(8, 8), random_state=0).fit(stack)
    np.testing.assert_array_equal(model.transform(stack), model.transform(digits))
    for wrong in (digits.reshape(-1, 4, 16), digits.reshape(-1, 4, 4, 4)):
        with pytest.raises(ValueError, match="image_shape"):
            model.transform(wrong)
    with pytest.raises(ValueError, match="set image_shape"):
        VAEEstimator().fit(stack)
    with pytest.raises(ValueError, match="0 sample"):
        model.fit(stack[:0])


def test_files_of_integers_are_not_copied(tmp_path):
    data = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(400_000, 100))
    data[:] = np.random.default_rng(0).integers(0, 2, size=data.shape, dtype=np.uint8)
    model = VAEEstimator(
        1, max_iter=1, hidden_layer_sizes=(2,), batch_size=2000, early_stopping=True
    )
    tracemalloc.start()
    model.fit(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * data.nbytes
    assert model.likelihood_ == "bernoulli"
    ints = np.array(data[:50])
    np.testing.assert_allclose(model.transform(ints), model.transform(data[:50]), atol=1e-6)


def test_weights_of_any_size_and_of_zero(digits):
    weight = np.full(300, 1e307)
    model = VAEEstimator(2, max_iter=1, random_state=0).fit(digits[:300], sample_weight=weight)
    assert np.isfinite(model.score(digits[:300], sample_weight=10 * weight))
    X = np.vstack([digits[:300], np.full((1, 64), 5.0)])
    model.fit(X, sample_weight=np.r_[weight, 0])
    assert model._scaling["offset"].max() < 1  # the row of weight 0 is not there


def test_the_default_dtype_of_torch_does_not_matter(digits):
    torch.set_default_dtype(torch.float64)
    try:
        one = VAEEstimator(2, max_iter=1, random_state=0).fit(digits[:300])
    finally:
        torch.set_default_dtype(torch.float32)
    two = VAEEstimator(2, max_iter=1, random_state=0).fit(digits[:300])
    np.testing.assert_array_equal(one.transform(digits), two.transform(digits))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": lambda i, o: nn.Linear(i, 2)}, "encoder"),
        ({"decoder": nn.Linear(10, 64)}, "decoder must be a function"),
        ({"image_shape": (1, 8, 8)}, "channels first"),
        ({"decoder": lambda i, o: nn.Linear(i, 1)}, "decoder"),
        ({"encoder": lambda i, o: 3}, "encoder must return"),
        ({"encoder": nn.Linear, "precision": "bfloat16"}, "precision"),
        ({"image_shape": (-8, -8)}, "image_shape"),
        ({"hidden_layer_sizes": (2.7,)}, "hidden_layer_sizes"),
        ({"device": "meta"}, "device"),
    ],
)
def test_more_wrong_parameters_are_named(options, message, digits):
    with pytest.raises(ValueError, match=message):
        VAEEstimator(**options).fit(digits)


@needs_callbacks
def test_callbacks_follow_the_fit(digits):
    history = []

    class Note:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
            if context.task_name == "iteration":
                history.append(fitted_estimator.score(X))
            return len(history) == 3

    model = VAEEstimator(2, max_iter=8, early_stopping=False, random_state=0)
    model.set_callbacks(Note())
    model.fit(digits[:300])
    assert model.n_iter_ == len(history) == 3
    assert history[-1] == pytest.approx(model.score(digits[:300]))


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.3, [0.5, 1, 1.5, 2, 2, 2, 2, 2, 2, 2]), (0, [2] * 10), (1, np.arange(1, 11) / 5.5)],
)
def test_the_weight_of_the_divergence_rises_during_the_warmup(share, expected, monkeypatch):
    """With 3 of 10 passes, it takes 3 steps of a quarter, and is whole from the fourth on."""
    from skem.vae import _estimator as module

    used, original = [], module.epoch

    def epoch(*args):
        used.append(args[-1])
        original(*args)

    monkeypatch.setattr(module, "epoch", epoch)
    X = (np.random.default_rng(0).random((40, 6)) < 0.5) * 1.0
    options = {"hidden_layer_sizes": (4,), "max_iter": 10, "early_stopping": False}
    model = VAEEstimator(2, beta=2.0, kl_warmup=share, random_state=0, **options).fit(X)
    assert model.likelihood_ == "bernoulli"
    np.testing.assert_allclose(used, expected)
    model.partial_fit(X)
    assert used[-1] == 2


def test_rows_beyond_float32_have_codes():
    rng = np.random.default_rng(0)
    model = VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=2, random_state=0)
    model.fit(rng.normal(size=(50, 3)))
    for dtype, size in ((np.float32, 3e38), (float, 1e300)):
        far = size * np.ones((2, 3), dtype)
        assert np.isfinite(model.transform(far)).all()
        assert (model.score_samples(far) < -1e20).all()
        far[:, 0] = np.nan
        assert np.isfinite(model.transform(far)).all()
