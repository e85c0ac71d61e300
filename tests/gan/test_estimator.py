"""GANEstimator against autograd and closed forms, and as its users meet it."""

import copy
import math
import pickle
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import skem.gan._estimator
from skem import GANEstimator
from skem._network.layers import forward
from skem._network.scaling import scaling_of
from skem._network.training import epoch_batches, flatten
from skem._rows.moments import moments
from skem._rows.parts import InMemory
from skem.gan import _model as gan
from skem.gan._training import coverage, rows_to_compare

early = pytest.mark.filterwarnings("ignore:mode collapse")  # of fits that are cut short


@pytest.fixture(scope="module")
def digits():
    X = load_digits().data / 16
    return X[np.random.default_rng(0).permutation(len(X))].astype(np.float32)


@pytest.fixture(scope="module")
def fitted(digits):
    return GANEstimator(20, max_iter=200, random_state=0).fit(digits)


def networks(exact=True, **changes):
    design = {
        "n_features": 6, "n_components": 3, "hidden_layer_sizes": (5, 4),
        "activation": "gelu", "architecture": "dense", "image_shape": None,
        "standardized": True, "spectral": True, "gain": 1.7, "noise": "normal",
        "loss": "non_saturating",
    }  # fmt: skip
    design = gan.Design(**{**design, **changes})
    nets = gan.build(design, 0, torch.device("cpu"))
    # the same, in float64
    nets.generator.double(), nets.discriminator.double()
    device = torch.device("cpu")
    nets.flat = flatten(list(nets.generator.parameters()), device)
    copies = [torch.nn.Parameter(p.detach().double()) for p in nets.discriminator.parameters()]
    nets.used = nets.free = flatten(list(nets.discriminator.parameters()), device)
    nets.left, nets.right = ([u.double() for u in us] for us in (nets.left, nets.right))
    nets.norms = nets.norms.double()
    if design.spectral:
        nets.free = flatten(copies, device)
        pairs = list(zip(nets.discriminator.parameters(), copies, strict=True))
        nets.weights = [pair for pair in pairs if pair[0].ndim > 1]
        nets.plain = [pair for pair in pairs if pair[0].ndim == 1]
    if exact:
        nets.left = [torch.linalg.svd(w.detach().flatten(1))[0][:, 0] for _, w in nets.weights]
    else:
        for _ in range(200):
            gan.normalize(nets)
    gan.normalize(nets)
    return nets


# -- the maths --------------------------------------------------------------------------------


def test_all_parameters_of_the_discriminator_follow_the_free_ones():
    shape = {"hidden_layer_sizes": (5, 4), "activation": "gelu", "architecture": "dense"}
    rest = {"standardized": True, "spectral": True, "gain": 1.7, "noise": "normal"}
    design = gan.Design(6, 3, image_shape=None, loss="non_saturating", **shape, **rest)
    nets = gan.build(design, 0, torch.device("cpu"))
    free = [value for _, value in (*nets.weights, *nets.plain)]
    with torch.no_grad():
        for value in free:
            value.normal_(generator=torch.Generator().manual_seed(len(value)))
        for _ in range(300):
            gan.normalize(nets)
    found = list(nets.discriminator.parameters())
    assert len(found) == len(free) == 6
    biases = [value for value in free if value.ndim == 1]
    for used, own in zip([p for p in found if p.ndim == 1], biases, strict=True):
        np.testing.assert_array_equal(used.detach(), own.detach())
    for used, size in zip([p for p in found if p.ndim == 2], (1.7, 1, 1), strict=True):
        largest = np.linalg.svd(used.detach(), compute_uv=False)[0]
        assert largest == pytest.approx(size, rel=1e-4)


KINDS = [
    {},
    {"spectral": False},
    {"standardized": False},
    {"activation": "relu", "loss": "minimax"},
    {"activation": "tanh"},
    {"architecture": "conv", "image_shape": (8, 9), "n_features": 72},
    {"architecture": "conv", "image_shape": (4, 5, 3), "n_features": 60, "spectral": False},
]


def normalized(nets, free):
    """The discriminator's weights as used, by singular values that torch differentiates."""
    parts, start = [], 0
    first = True
    for p in nets.discriminator.parameters():
        part = free[start : start + p.numel()].view(p.shape)
        start += p.numel()
        if p.ndim > 1 and nets.design.spectral:
            norm = torch.linalg.matrix_norm(part.reshape(len(part), -1), 2)
            part = part / norm * (nets.design.gain if first else 1.0)
            first = False
        parts.append(part)
    return parts


def logits_of(nets, parts, x):
    names = [name for name, _ in nets.discriminator.named_parameters()]
    parameters = dict(zip(names, parts, strict=True))
    return torch.func.functional_call(nets.discriminator, parameters, (x,))[:, 0]


@pytest.mark.parametrize("changes", KINDS)
def test_the_gradient_of_the_discriminator_is_that_of_autograd(changes):
    nets = networks(**changes)
    random = torch.Generator().manual_seed(0)
    D = nets.design.n_features
    x, fake = (torch.rand((7, D), generator=random, dtype=torch.float64) for _ in "ab")
    share = torch.rand(7, generator=random, dtype=torch.float64)
    loss = gan.discriminator_gradient(nets, x, share, fake)
    free = nets.free.values.detach().clone().requires_grad_()
    parts = normalized(nets, free)
    real = torch.log(torch.sigmoid(logits_of(nets, parts, x)))
    generated = torch.log(1 - torch.sigmoid(logits_of(nets, parts, fake)))
    expected = -(share @ real) - generated.mean()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    expected.backward()
    np.testing.assert_allclose(nets.free.gradient, free.grad, rtol=1e-6, atol=1e-9)
    assert free.grad.abs().max() > 1e-3


@pytest.mark.parametrize("changes", KINDS)
def test_the_gradient_of_the_generator_is_that_of_autograd(changes):
    nets = networks(**changes)
    z = torch.randn((7, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        values = forward(list(nets.generator.children()), z)
        fake = gan.squashed(nets, values[-1])
    loss = gan.generator_gradient(nets, values, fake)
    own = nets.flat.gradient.clone()
    nets.flat.gradient.zero_()
    D = torch.sigmoid(nets.discriminator(gan.generated(nets, z)))
    minimax = nets.design.loss == "minimax"
    expected = torch.log(1 - D).mean() if minimax else -torch.log(D).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    expected.backward()
    np.testing.assert_allclose(own, nets.flat.gradient, rtol=1e-8, atol=1e-11)
    assert own.abs().max() > 1e-4


def test_power_iterations_find_the_largest_singular_value():
    nets = networks(exact=False)
    used = [w.detach().flatten(1) for w, _ in nets.weights]
    norms = [torch.linalg.matrix_norm(w, 2).item() for w in used]
    np.testing.assert_allclose(norms, [1.7, 1.0, 1.0], rtol=1e-9)


def test_the_discriminator_finds_the_log_density_ratio():
    """For a generator that stays, d goes to log p(x) - log p_G(x): here of two normals."""
    rng = np.random.default_rng(0)
    X = rng.normal(1.0, 1.0, size=(20_000, 1)).astype(np.float32)
    model = GANEstimator(
        1, hidden_layer_sizes=(16,), activation="tanh", spectral_norm=False, max_iter=1
    )
    training = model._start(InMemory(X), np.arange(len(X)), 0, False, 1)
    nets, scaling = training.networks, training.scaling
    torch_random = torch.Generator().manual_seed(0)
    for i in range(1500):
        x, _ = scaling.apply(X[rng.integers(len(X), size=512)], np.float32, "cpu")
        fake = torch.randn((512, 1), generator=torch_random) - 0.5
        gan.discriminator_gradient(nets, x, torch.full((512,), 1 / 512), fake)
        training.adams[0].step(0.01 * (1 - i / 1500))
        gan.normalize(nets)
    grid = torch.linspace(-1.5, 1.5, 7)[:, None]
    with torch.no_grad():
        found = gan.discriminated(nets, grid)[1]
    exact = grid[:, 0] * 0.5 + 0.125  # log N(x|0, 1) - log N(x|-1/2, 1)
    np.testing.assert_allclose(found, exact, atol=0.15)


# -- the estimator -----------------------------------------------------------------------------


@pytest.mark.slow
def test_draws_digits(fitted, digits):
    assert fitted.coverage_ > 0.6
    X = fitted.sample(3000, random_state=0)
    assert X.shape == (3000, 64)
    assert ((X >= 0) & (X <= 1)).all()
    y = load_digits().target[np.random.default_rng(0).permutation(len(digits))]
    classifier = LogisticRegression(max_iter=1000).fit(digits, y)
    shares = np.bincount(classifier.predict(X), minlength=10) / len(X)
    assert (shares > 0.02).all()
    assert np.abs(X.mean(0) - digits.mean(0)).max() < 0.12


def test_a_classifier_can_hardly_tell(fitted, digits):
    both = np.vstack([digits, fitted.sample(len(digits), random_state=0)])
    real = np.repeat([1, 0], len(digits))
    noise = np.vstack([digits, np.random.default_rng(0).random(digits.shape)])
    easy, hard = (
        cross_val_score(LogisticRegression(max_iter=1000), rows, real, cv=3).mean()
        for rows in (noise, both)
    )
    assert easy > 0.95
    assert hard < 0.8


def test_draws_in_the_units_of_the_rows():
    X = 100 + 1000 * make_moons(1000, noise=0.1, random_state=0)[0]
    model = GANEstimator(2, max_iter=200, random_state=0).fit(X)
    drawn = model.sample(2000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), X.mean(0), atol=0.25 * X.std())
    np.testing.assert_allclose(drawn.std(0), X.std(0), rtol=0.3)
    assert model.coverage_ > 0.5


@early
def test_collapse_is_told(digits):
    usual = {
        "activation": "relu", "spectral_norm": False, "average": 0, "noise": "uniform",
        "learning_rate_init": 1e-3, "beta_1": 0.9, "beta_2": 0.999,
    }  # fmt: skip
    with pytest.warns(ConvergenceWarning, match="mode collapse"):
        model = GANEstimator(max_iter=10, random_state=0, **usual).fit(digits)
    assert model.coverage_ < 0.1


def test_coverage_by_the_definition():
    """A row counts if a draw is no farther than its fifth nearest other row."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 2))
    model = GANEstimator(2, hidden_layer_sizes=(8,), max_iter=3, random_state=0)
    training = model._start(InMemory(X), np.arange(150), 0, False, 1)
    found = []
    for spread in (0.1, 0.5, 2.0):
        own, drawn = training.compared.numpy(), []

        def generated(networks, z, spread=spread, drawn=drawn):
            drawn.append(spread * z)
            return drawn[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("skem.gan._training.generated", generated)
            found.append(coverage(training))
        fake, hits = drawn[0].numpy(), 0
        for i, row in enumerate(own):
            others = np.delete(own, i, axis=0)
            reach = np.sort(np.linalg.norm(others - row, axis=1))[4]
            hits += np.linalg.norm(fake - row, axis=1).min() <= reach
        assert found[-1] == pytest.approx(hits / 150)
    assert len(set(found)) == 3


@early
def test_weights_enter_the_loss():
    rng = np.random.default_rng(0)
    X, weight = rng.random((60, 3)), np.repeat([1.0, 1e-3], 30)
    rows, share = InMemory(X).reweighted(weight), np.zeros(60)
    scaling = scaling_of(moments(rows), weight.sum(), False)
    trained = SimpleNamespace(scaling=scaling)
    device, random = torch.device("cpu"), torch.Generator().manual_seed(0)
    for batch in epoch_batches(trained, rows, np.arange(60), 16, random, device):
        place = [int(np.flatnonzero(np.isclose(X, x, atol=1e-6).all(1))[0]) for x in batch.x]
        share[place] = batch.share.numpy() * batch.n_rows
        assert batch.total_share == pytest.approx(float(batch.share.sum()))
    np.testing.assert_allclose(share, weight / weight.mean(), rtol=1e-5)
    options = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0}
    model = GANEstimator(2, spectral_norm=False, **options)  # whose scale depends on weights
    one, other = clone(model).fit(X), clone(model).fit(X, sample_weight=weight)
    losses = one.discriminator_loss_curve_, other.discriminator_loss_curve_
    assert abs(losses[0][0] - losses[1][0]) > 1e-5


def test_coverage_is_that_of_neighbors():
    """Draws of a generator that gives one point cover the rows whose neighbors are far."""
    rng = np.random.default_rng(0)
    X = np.r_[rng.random((50, 2)) * 0.1, [[0.95, 0.95]]]
    model = GANEstimator(2, max_iter=1, random_state=0)
    training = model._start(InMemory(X), np.arange(51), 0, False, 1)
    with torch.no_grad():
        training.average.zero_()  # sigmoid(0) = 1/2 whatever the noise
    points = training.compared.numpy()
    gaps = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)[:, 5]
    expected = np.mean(np.linalg.norm(points - 0.5, axis=1) <= gaps)
    assert coverage(training) == pytest.approx(expected) == pytest.approx(1 / 51)
    training.compared = training.compared.repeat(10, 1)  # repeated rows are as near as before
    assert coverage(training) == pytest.approx(1 / 51)
    weighted = rows_to_compare(InMemory(X, np.r_[np.ones(50), 50]), training.scaling, 0)
    assert 0.2 < (weighted[:, 0] > 0.9).float().mean() < 0.8


@early
def test_verbs(fitted, digits):
    features = fitted.transform(digits[:9])
    assert features.shape == (9, 128) == (9, len(fitted.get_feature_names_out()))
    np.testing.assert_allclose(fitted.transform(digits[3:4]), features[3:4], atol=1e-5)
    scores = fitted.score_samples(digits[:9])
    np.testing.assert_allclose(scores, fitted.score_samples(digits[:9][::-1])[::-1], atol=1e-5)
    assert fitted.score(digits[:9]) == pytest.approx(scores.mean())
    z = np.random.default_rng(0).normal(size=(4, 20))
    assert fitted.inverse_transform(z).shape == (4, 64)
    assert not np.array_equal(fitted.sample(2), fitted.sample(2, 3))
    np.testing.assert_array_equal(fitted.sample(2, random_state=3), fitted.sample(2, 3))
    for dtype in (np.float32, np.float64):
        assert fitted.transform(digits[:3].astype(dtype)).dtype == dtype
        assert fitted.score_samples(digits[:3].astype(dtype)).dtype == dtype
    uneven = GANEstimator(2, hidden_layer_sizes=(5, 7), max_iter=1, random_state=0).fit(digits)
    assert uneven.transform(digits[:2]).shape == (2, 5)
    none = GANEstimator(2, hidden_layer_sizes=(), max_iter=1, random_state=0).fit(digits)
    np.testing.assert_allclose(none.transform(digits[:2]), digits[:2])


@early
@pytest.mark.parametrize("shape", [(8, 8), (16, 4), (4, 4, 4)])
def test_convolutions(shape, digits):
    stack = digits.reshape(-1, *shape)
    model = GANEstimator(
        5, architecture="conv", image_shape=shape, max_iter=2, random_state=0
    ).fit(stack)
    assert model.sample(2, random_state=0).shape == (2, 64)
    assert model.transform(stack[:3]).shape == (3, 256)
    np.testing.assert_array_equal(model.transform(stack[:3]), model.transform(digits[:3]))


@early
def test_reproducible_without_the_global_generator(digits):
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    one, two = (GANEstimator(5, max_iter=2, random_state=7).fit(digits) for _ in "ab")
    np.testing.assert_array_equal(one.sample(3, 0), two.sample(3, 0))
    assert torch.equal(before[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


@early
def test_pickles_go_on_alike(digits):
    model = GANEstimator(5, max_iter=2, random_state=0).fit(digits)
    dumped = skops.io.dumps(model)
    unknown = skops.io.get_untrusted_types(data=dumped)
    assert unknown == ["skem.gan._estimator.GANEstimator"]
    copies = [pickle.loads(pickle.dumps(model)), skops.io.loads(dumped, trusted=unknown)]
    model.partial_fit(digits)
    for other in copies:
        other.partial_fit(digits)
        np.testing.assert_array_equal(other.sample(3, 0), model.sample(3, 0))
        np.testing.assert_array_equal(other.score_samples(digits), model.score_samples(digits))
        assert other.t_ == model.t_


@early
def test_warm_start_goes_on(digits):
    model = GANEstimator(5, max_iter=3, warm_start=True, random_state=0).fit(digits)
    before = copy.deepcopy(model)
    model.set_params(loss="minimax", learning_rate_init=1e-3).fit(digits)
    assert model.n_iter_ == len(model.generator_loss_curve_) == 6
    assert model.generator_loss_curve_[:3] == before.generator_loss_curve_
    with pytest.raises(ValueError, match="warm_start=False"):
        model.set_params(n_components=4).fit(digits)


@early
def test_an_interrupted_fit_keeps_what_it_has(digits, monkeypatch):
    passes, original = iter(range(2)), GANEstimator._pass

    def stop(self, *args):
        if next(passes, None) is None:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(GANEstimator, "_pass", stop)
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 iterations"):
        model = GANEstimator(5, random_state=0).fit(digits)
    assert model.n_iter_ == 2


@early
def test_weights_count(digits):
    """Rows of weight 0 are not there, and weights only count relative to each other."""
    dark, light = digits[:400] * 0.1, 0.5 + digits[:400] * 0.1
    X, weight = np.vstack([dark, light]), np.repeat([0.0, 3.0], 400)
    options = {"max_iter": 100, "random_state": 0, "n_components": 5}
    one = GANEstimator(**options).fit(X, sample_weight=weight)
    np.testing.assert_allclose(one.sample(500, 0).mean(), light.mean(), atol=0.05)
    other = GANEstimator(**options).fit(X, sample_weight=7 * weight)
    np.testing.assert_allclose(one.sample(5, 0), other.sample(5, 0), atol=1e-4)


@early
def test_files_are_read_batch_by_batch(digits, tmp_path):
    data = np.memmap(tmp_path / "x", np.float32, "w+", shape=digits.shape)
    data[:] = digits
    read = np.memmap(tmp_path / "x", np.float32, "r", shape=digits.shape)
    one = GANEstimator(5, max_iter=2, random_state=0).fit(read)
    two = GANEstimator(5, max_iter=2, random_state=0).fit(digits)
    np.testing.assert_array_equal(one.sample(3, 0), two.sample(3, 0))


@early
@pytest.mark.slow
def test_in_pipelines_and_searches(digits):
    y = load_digits().target[np.random.default_rng(0).permutation(len(digits))]
    pipeline = make_pipeline(
        MinMaxScaler(clip=True),
        GANEstimator(5, max_iter=30, random_state=0),
        LogisticRegression(),
    )
    assert pipeline.fit(digits[:1000], y[:1000]).score(digits[1000:], y[1000:]) > 0.7

    def likeness(estimator, X, y=None):  # how hard it is to tell rows from drawn ones
        both = np.vstack([X, estimator.sample(len(X), random_state=0)])
        real = np.repeat([1, 0], len(X))
        return -cross_val_score(LogisticRegression(max_iter=500), both, real, cv=3).mean()

    search = GridSearchCV(
        GANEstimator(5, random_state=0), {"max_iter": [1, 60]}, scoring=likeness, cv=2
    ).fit(digits[:800])
    assert search.best_params_ == {"max_iter": 60}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components"),
        ({"hidden_layer_sizes": (4, 0)}, "hidden_layer_sizes"),
        ({"image_shape": (3, 3)}, "image_shape"),
        ({"architecture": "conv"}, "image_shape"),
        ({"device": "abacus"}, "device"),
        ({"average": 1.0}, "average"),
        ({"loss": "hinge"}, "loss"),
        ({"learning_rate_init": 1e38, "spectral_norm": False}, "learning_rate_init"),
    ],
)
def test_wrong_parameters_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GANEstimator(**options).fit(load_iris().data)


def test_wrong_rows_are_refused(fitted, digits):
    with pytest.raises(ValueError, match="but 20 are needed: pass one column for each noise"):
        fitted.inverse_transform(np.ones((2, 5)))
    holes = np.where(np.arange(64) == 3, np.nan, digits[:5])
    for verb in (fitted.transform, clone(fitted).fit):
        with pytest.raises(ValueError, match="X contains NaN"):
            verb(holes)
    with pytest.warns(UserWarning, match="a single row"):
        assert math.isnan(GANEstimator(2, max_iter=1).fit(digits[:1]).coverage_)


# -- what a review found -------------------------------------------------------------------


@early
@pytest.mark.parametrize("spectral", [True, False])
def test_passes_of_partial_fit_are_those_of_fit(spectral, digits):
    options = {"max_iter": 3, "learning_rate": "constant", "random_state": 0}
    model = GANEstimator(5, spectral_norm=spectral, **options)
    one, two = clone(model).fit(digits), clone(model)
    for _ in range(3):
        two = pickle.loads(pickle.dumps(two.partial_fit(digits)))
    np.testing.assert_array_equal(one.sample(5, 0), two.sample(5, 0))
    np.testing.assert_array_equal(one.score_samples(digits), two.score_samples(digits))
    assert one.discriminator_loss_curve_ == two.discriminator_loss_curve_


@early
def test_as_many_steps_for_few_rows(monkeypatch):
    monkeypatch.setattr(GANEstimator, "_auto_passes", (60, 5, 40))
    X = np.random.default_rng(0).normal(size=(1000, 2))
    for n, n_iter in ((100, 40), (300, 20), (1000, 8)):  # 1, 3 and 8 batches of 128
        model = GANEstimator(2, hidden_layer_sizes=(2,), random_state=0).fit(X[:n])
        assert model.n_iter_ == n_iter
    assert GANEstimator._auto_passes[0] == 60


@early
def test_the_step_rises_and_falls_to_0(digits, monkeypatch):
    epoch, rates = skem.gan._estimator.epoch, []

    def noted(training, rows, chosen, size, rate, average):
        rates.append(rate(training.n_steps))
        epoch(training, rows, chosen, size, rate, average)

    monkeypatch.setattr(skem.gan._estimator, "epoch", noted)
    options = {"learning_rate_init": 0.01, "max_iter": 20, "random_state": 0}
    model = GANEstimator(2, **options).fit(digits[:128])  # a step for each pass
    share = (np.arange(2, 20) - 2) / 18
    falls = 0.005 * (1 + np.cos(np.pi * share))
    np.testing.assert_allclose(rates, [0.005, 0.01, *falls])
    rates.clear()
    model.partial_fit(digits[:128])
    GANEstimator(2, learning_rate="constant", **options).fit(digits[:128])
    assert rates == [0.01] * 21


@pytest.mark.slow
def test_learns_from_a_stream():
    rng = np.random.default_rng(0)
    model = GANEstimator(4, hidden_layer_sizes=(32,), random_state=0)
    for _ in range(600):
        model.partial_fit(rng.normal([3, -2], 0.5, size=(128, 2)))
    np.testing.assert_allclose(model.sample(2000, 0).mean(0), [3, -2], atol=0.2)
    assert model.coverage_ > 0.8


@early
def test_rows_of_weight_0_are_not_there(digits):
    X, weight = np.vstack([digits[:200], digits]), np.r_[np.ones(200), np.zeros(len(digits))]
    options = {"max_iter": 5, "random_state": 0, "batch_size": 16, "n_components": 5}
    one = GANEstimator(**options).fit(X, sample_weight=weight)
    two = GANEstimator(**options).fit(digits[:200])
    np.testing.assert_allclose(one.score_samples(digits), two.score_samples(digits), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.1, 1e-4])
def test_a_narrow_range_within_0_and_1(spread):
    X = 0.5 + spread * np.random.default_rng(0).standard_normal((1000, 4)).clip(-4, 4)
    model = GANEstimator(10, max_iter=200, random_state=0).fit(X)
    np.testing.assert_allclose(model.sample(2000, 0).std(0), spread, rtol=0.4)


@early
def test_other_ways_to_give_rows(digits):
    options = {"max_iter": 1, "random_state": 0, "n_components": 3}
    images = digits[:40].reshape(-1, 8, 8)
    model = GANEstimator(image_shape=np.array([8, 8]), **options).fit(images.tolist())
    assert model.n_features_in_ == 64
    assert model.transform(images).shape == (40, 128)
    torch.set_default_dtype(torch.float64)
    try:
        one = GANEstimator(**options).fit(digits)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(
        one.sample(3, 0), GANEstimator(**options).fit(digits).sample(3, 0)
    )
    with pytest.raises(ValueError, match="built for values between 0 and 1"):
        one.partial_fit(255 * digits)
    tiny = np.r_[1, np.full(39, 1e-320)]
    assert np.isfinite(clone(one).fit(digits[:40], sample_weight=tiny).score(digits))


@early
def test_files_of_integers_are_not_copied(tmp_path):
    data = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(400_000, 100))
    data[:] = np.random.default_rng(0).integers(0, 2, size=data.shape, dtype=np.uint8)
    model = GANEstimator(2, max_iter=1, hidden_layer_sizes=(2,), batch_size=4000)
    tracemalloc.start()
    model.fit(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * data.nbytes


@early
def test_rounding_is_no_matter_and_clips_are_told(digits):
    X = digits[:60].astype(float)
    X[0, 20], X[1, 20] = 1.0000000000000002, -1e-17
    model = GANEstimator(3, max_iter=1, random_state=0).fit(X).partial_fit(X)
    assert ((model.sample(5, 0) >= 0) & (model.sample(5, 0) <= 1)).all()
    model.score_samples(X)
    with pytest.warns(UserWarning, match="outside of 0 and 1"):
        model.score_samples(3 * X)
    with pytest.raises(ValueError, match="moveaxis"):
        GANEstimator(image_shape=(4, 4, 3)).fit(np.zeros((5, 3, 4, 4)))


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_samples_come_from_the_noise(noise):
    """Codes are standard normal, or uniform between -1 and 1."""
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = GANEstimator(2, hidden_layer_sizes=(4,), noise=noise, max_iter=2, random_state=0)
    codes = []
    model.fit(X).inverse_transform = lambda z: codes.append(z)
    model.sample(5000, random_state=0)
    second = {"normal": 1, "uniform": 1 / 3}[noise]
    assert (codes[0] ** 2).mean() == pytest.approx(second, rel=0.05)
    assert codes[0].mean() == pytest.approx(0, abs=0.03)
    if noise == "uniform":
        assert np.abs(codes[0]).max() <= 1


@pytest.mark.parametrize(("noise", "second"), [("normal", 1), ("uniform", 1 / 3)])
def test_training_draws_the_same_noise(noise, second):
    design = networks(n_components=4, noise=noise).design
    z = gan.draw(design, 5000, torch.Generator().manual_seed(0))
    assert z.shape == (5000, 4)
    assert float((z**2).mean()) == pytest.approx(second, rel=0.05)
    assert noise == "normal" or float(z.abs().max()) <= 1
