"""What ShiftedTemplateEM promises to its users."""

import warnings

import numpy as np
import pytest
import reference
from joblib import parallel_config
from scipy.special import logsumexp, softmax
from scipy.stats import beta, dirichlet
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from versions import needs_callbacks

from skem import ShiftedTemplateEM
from skem.datasets import load_hidden_face, make_shifted_templates

# keywords of make_shifted_templates, keywords of the estimator
KINDS = {
    "columns": ({"image_shape": (6, 24), "template_width": 8}, {}),
    "signal": ({"image_shape": (1, 40), "template_width": 12}, {}),
    "2d": (
        {"image_shape": (12, 14), "template_width": 6, "template_height": 5},
        {"template_height": 5},
    ),
    "color": ({"image_shape": (6, 20, 3), "template_width": 7}, {}),
    "2d, color, absent": (
        {
            "image_shape": (10, 12, 3),
            "template_width": 5,
            "template_height": 4,
            "absent": 0.5,
        },
        {"template_height": 4, "absent": True},
    ),
    "absent": (
        {"image_shape": (6, 24), "template_width": 8, "absent": 0.6},
        {"absent": True},
    ),
}


def simulate(kind, n=200, **more):
    simulation, keywords = KINDS[kind]
    data = make_shifted_templates(n, random_state=0, **simulation, **more)
    estimator = ShiftedTemplateEM(
        data.template_width, image_shape=data.image_shape, random_state=0, **keywords
    )
    return data, estimator


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def objective(model, X, weight=None):
    """The score plus the density of Dirichlet's and, with absent, the beta distribution."""
    weight = np.ones(len(X)) if weight is None else weight
    alpha = model.shift_concentration_prior
    present = model.shift_prior_[: np.prod(model.shift_shape_)]
    log_prior = 0.0
    if len(present) > 1:
        log_prior += dirichlet.logpdf(present / present.sum(), np.full(len(present), alpha))
    if model.absent:
        log_prior += beta.logpdf(model.shift_prior_[-1], alpha, alpha)
    return model.score(X, sample_weight=weight) + log_prior / weight.sum()


@pytest.fixture(params=KINDS, scope="module")
def fitted(request):
    data, estimator = simulate(request.param)
    return data, estimator.fit(data.X)


def expected_joint(data, model, X):
    full = (*data.image_shape, 1)[:3]
    template = model.template_.reshape(*model.template_.shape[:2], full[2])
    return reference.log_joint(
        X.reshape(-1, *full),
        template,
        model.background_.reshape(full),
        model.noise_std_,
        model.shift_prior_,
    )


# -- recovery -------------------------------------------------------------------------


def test_finds_what_was_hidden(fitted):
    data, model = fitted
    assert correlation(model.template_, data.template) > 0.98
    assert np.mean(model.predict(data.X) == data.shifts) > 0.97
    np.testing.assert_allclose(model.noise_std_, data.noise_std, rtol=0.05)
    assert model.template_.shape == data.template.shape
    assert model.background_.shape == model.background_seen_.shape == data.image_shape
    seen = model.background_seen_
    assert correlation(model.background_[seen], data.background[seen]) > 0.95


def test_history(fitted):
    data, model = fitted
    assert len(model.lower_bounds_) == model.n_iter_ >= 1
    assert model.converged_
    assert np.diff(model.lower_bounds_).min(initial=0) > -1e-8
    np.testing.assert_allclose(model.lower_bound_, objective(model, data.X), rtol=1e-9)


def test_concentration_one_is_maximum_likelihood():
    data, estimator = simulate("columns")
    model = estimator.set_params(shift_concentration_prior=1.0).fit(data.X)
    np.testing.assert_allclose(model.lower_bound_, model.score(data.X), rtol=1e-9)
    counts = model.predict_proba(data.X).mean(0)
    np.testing.assert_allclose(model.shift_prior_, counts, atol=1e-4)


@pytest.mark.parametrize("kind", ["columns", "signal"])
@pytest.mark.parametrize(
    "keywords",
    [
        {"init": "mean"},
        {"algorithm": "hard"},
        {"shrinkage": "map"},
        {"shrinkage": None},
        {"init": "random", "n_init": 8},
        {"shift_concentration_prior": 1.0},
    ],
    ids=str,
)
def test_other_ways_to_fit(kind, keywords):
    data, estimator = simulate(kind)
    model = estimator.set_params(**keywords).fit(data.X)
    assert correlation(model.template_, data.template) > 0.97
    assert np.diff(model.lower_bounds_).min(initial=0) > -1e-8


@pytest.mark.slow
def test_map_beats_maximum_likelihood_in_strong_noise():
    data = load_hidden_face(200, noise_std=800, clip=None)
    X = data.X.reshape(200, 100, 200)[:, ::4, ::2].reshape(200, -1)
    truth = data.template[::4, ::2]
    found = {
        shrinkage: ShiftedTemplateEM(
            37, image_shape=(25, 100), shrinkage=shrinkage, random_state=0
        ).fit(X)
        for shrinkage in ("start", "map")
    }
    ml, smooth = (correlation(found[key].template_[:, :36], truth[:, :36]) for key in found)
    assert smooth > ml
    assert np.diff(found["map"].lower_bounds_).min(initial=0) > -1e-8


def test_source_start_and_schedule_are_reproducible():
    data = load_hidden_face(60, noise_std=60)
    keywords = {
        "image_shape": data.image_shape,
        "init": "random",
        "n_init": 1,
        "subset_schedule": ((10, 5), (30, 1)),
        "max_iter": 1,
    }
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        a = ShiftedTemplateEM(73, random_state=3, **keywords).fit(data.X)
    with pytest.warns(ConvergenceWarning):
        b = ShiftedTemplateEM(73, random_state=3, **keywords).fit(data.X)
    np.testing.assert_array_equal(a.template_, b.template_)
    assert a.n_iter_ == 1


# -- verbs, against plain formulas ----------------------------------------------------


def test_verbs_are_the_formulas(fitted):
    data, model = fitted
    X = data.X[:5].copy()
    X[1, ::3] = np.nan
    X[2] = np.nan
    joint = expected_joint(data, model, X)
    posterior = softmax(joint, axis=1)
    np.testing.assert_allclose(model.log_joint(X), joint, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(
        model.score_samples(X), logsumexp(joint, axis=1), rtol=1e-9, atol=1e-7
    )
    np.testing.assert_allclose(model.predict_proba(X), posterior, atol=1e-7)
    np.testing.assert_allclose(model.transform(X), posterior, atol=1e-7)
    n_shifts = np.prod(model.shift_shape_)
    best = posterior.argmax(1)
    np.testing.assert_array_equal(model.predict(X), np.where(best == n_shifts, -1, best))
    full = (*data.image_shape, 1)[:3]
    template = model.template_.reshape(*model.template_.shape[:2], full[2])
    clean = reference.means(template, model.background_.reshape(full))
    if len(model.shift_prior_) > n_shifts:
        clean = np.concatenate([clean, model.background_.reshape(full)[None]])
    expected = posterior @ clean.reshape(len(clean), -1)
    np.testing.assert_allclose(model.reconstruct(X), expected, atol=1e-6)
    filled = np.where(np.isnan(X), expected, X)
    np.testing.assert_allclose(model.impute(X), filled, atol=1e-6)
    present = softmax(joint[:, :n_shifts], axis=1)
    h, w = template.shape[:2]
    aligned = np.zeros((len(X), *template.shape))
    for k, image in enumerate(X.reshape(-1, *full)):
        for d in range(n_shifts):
            row, column = np.unravel_index(d, model.shift_shape_)
            window = image[row : row + h, column : column + w]
            window = np.where(np.isnan(window), template, window)
            aligned[k] += present[k, d] * window
    np.testing.assert_allclose(model.align(X), aligned.reshape(len(X), -1), atol=1e-6)


def test_density_integrates_to_one():
    """Over the only pixel of an image."""
    model = ShiftedTemplateEM(1).fit([[0.0], [1.0], [3.0]])
    x = np.linspace(-30, 30, 20_001)[:, None]
    density = np.exp(model.score_samples(x))
    np.testing.assert_allclose(np.trapezoid(density, x[:, 0]), 1, rtol=1e-6)


def test_sample_has_the_moments_of_the_model(fitted):
    _, model = fitted
    X, shifts = model.sample(4000, random_state=0)
    again, _ = model.sample(4000, random_state=0)
    np.testing.assert_array_equal(X, again)
    assert not np.array_equal(model.sample(2)[0], model.sample(2, random_state=1)[0])
    mean = model.inverse_transform(model.shift_prior_[None])[0]
    np.testing.assert_allclose(X.mean(0), mean, atol=0.2)
    index = np.where(shifts == -1, np.prod(model.shift_shape_), shifts)
    share = np.bincount(index, minlength=len(model.shift_prior_)) / 4000
    np.testing.assert_allclose(share, model.shift_prior_, atol=0.04)
    residual = X - model.inverse_transform(np.eye(len(model.shift_prior_))[index])
    np.testing.assert_allclose(residual.std(), model.noise_std_, rtol=0.02)


def test_information_criteria():
    data, estimator = simulate("columns")
    model = estimator.fit(data.X)
    n_parameters = 6 * 8 + model.background_seen_.sum() + 1 + (17 - 1)
    log_lik = model.score_samples(data.X).sum()
    np.testing.assert_allclose(model.aic(data.X), 2 * n_parameters - 2 * log_lik)
    np.testing.assert_allclose(model.bic(data.X), n_parameters * np.log(200) - 2 * log_lik)


# -- input ----------------------------------------------------------------------------


def test_stacks_of_images_are_rows(fitted):
    data, model = fitted
    stack = data.X.reshape(-1, *data.image_shape)
    again = ShiftedTemplateEM(**model.get_params()).set_params(image_shape=None)
    if len(data.image_shape) == 2:
        again.fit(stack)
        np.testing.assert_array_equal(again.template_, model.template_)
    np.testing.assert_array_equal(model.predict(stack), model.predict(data.X))
    with pytest.raises(ValueError, match="X holds images of shape"):
        model.predict(stack[:, 1:])


@pytest.mark.parametrize("kind", ["columns", "2d", "color"])
def test_missing_pixels(kind):
    data, estimator = simulate(kind)
    X = data.X.copy()
    X[np.random.default_rng(0).uniform(size=X.shape) < 0.3] = np.nan
    model = estimator.fit(X)
    assert correlation(model.template_, data.template) > 0.97
    assert np.diff(model.lower_bounds_).min(initial=0) > -1e-8
    missing = np.isnan(X)
    filled = model.impute(X)
    np.testing.assert_array_equal(filled[~missing], X[~missing])
    error = (filled - data.X)[missing]
    assert error.std() < 1.1 * data.noise_std < 0.8 * data.X[missing].std()


def test_float32_stays_float32():
    data, estimator = simulate("columns")
    model = estimator.fit(data.X.astype(np.float32))
    double = ShiftedTemplateEM(**estimator.get_params()).fit(data.X)
    assert model.template_.dtype == model.background_.dtype == np.float32
    assert model.transform(data.X.astype(np.float32)).dtype == np.float32
    assert model.sample(3)[0].dtype == np.float32
    np.testing.assert_allclose(model.template_, double.template_, atol=1e-4)
    np.testing.assert_allclose(model.noise_std_, double.noise_std_, rtol=1e-5)


# at 1000, float32 rounds to 6e-5
@pytest.mark.parametrize(
    ("noise_std", "offset"), [(1.0, 0), (1e-2, 0), (1e-4, 0), (1.0, 1000), (1e-2, 1000)]
)
def test_float32_noise_is_right_down_to_the_rounding_of_the_data(noise_std, offset):
    data, estimator = simulate("columns", noise_std=noise_std)
    X = (data.X + offset).astype(np.float32)
    model = estimator.fit(X)
    double = ShiftedTemplateEM(**estimator.get_params()).fit(X.astype(float))
    np.testing.assert_allclose(model.noise_std_, double.noise_std_, rtol=1e-4)


def test_noise_free_images():
    data, estimator = simulate("columns", noise_std=0.0)
    with pytest.warns(ConvergenceWarning, match="noise_std_ is at its lower limit"):
        model = estimator.fit(data.X)
    np.testing.assert_allclose(model.template_, data.template, atol=1e-4)
    assert (model.predict(data.X) == data.shifts).all()


def test_memory_map_is_streamed_to_the_same_fit(tmp_path):
    data, estimator = simulate("columns")
    for dtype in (np.float64, np.float32, np.uint8):
        X = np.round(40 * data.X + 128).clip(0, 255).astype(dtype)
        np.save(tmp_path / "X.npy", X)
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        a = ShiftedTemplateEM(**estimator.get_params()).fit(X)
        b = ShiftedTemplateEM(**estimator.get_params()).fit(mapped)
        np.testing.assert_allclose(a.template_, b.template_, rtol=1e-10)
        np.testing.assert_allclose(a.score_samples(X), b.score_samples(mapped), rtol=1e-10)


def test_weights_are_repeats():
    data, estimator = simulate("columns", n=60)
    repeats = np.random.default_rng(0).integers(0, 4, size=60)
    weighted = ShiftedTemplateEM(**estimator.get_params())
    weighted.fit(data.X, sample_weight=repeats)
    repeated = estimator.fit(data.X.repeat(repeats, axis=0))
    np.testing.assert_allclose(weighted.template_, repeated.template_, rtol=1e-7)
    np.testing.assert_allclose(weighted.lower_bound_, repeated.lower_bound_)
    np.testing.assert_allclose(objective(weighted, data.X, repeats), weighted.lower_bound_)


@pytest.mark.slow
def test_threads_change_no_digit():
    data = load_hidden_face(300, noise_std=100)
    fits = [
        ShiftedTemplateEM(
            73, image_shape=data.image_shape, n_jobs=n, random_state=0, n_init=1
        ).fit(data.X)
        for n in (None, 2)
    ]
    np.testing.assert_array_equal(fits[0].template_, fits[1].template_)
    assert fits[0].lower_bounds_ == fits[1].lower_bounds_


# -- starts ---------------------------------------------------------------------------


def test_given_starts_are_used_as_they_are():
    data, estimator = simulate("columns")
    prior = np.linspace(1, 2, 17) / np.linspace(1, 2, 17).sum()
    estimator.set_params(
        template_init=data.template,
        background_init=data.background,
        noise_std_init=0.7,
        shift_prior_init=prior,
        max_iter=0,
    )
    model = estimator.fit(data.X)
    np.testing.assert_allclose(model.template_, data.template)
    np.testing.assert_allclose(model.background_, data.background)
    np.testing.assert_allclose(model.shift_prior_, prior)
    assert (model.noise_std_, model.n_iter_, model.lower_bounds_) == (0.7, 0, [])
    one = ShiftedTemplateEM(**{**estimator.get_params(), "max_iter": 50}).fit(data.X)
    assert one.lower_bound_ > model.lower_bound_


def test_a_given_prior_with_zeros_is_used_as_it_is():
    data, estimator = simulate("columns")
    estimator.set_params(shift_prior_init=np.eye(17)[3], max_iter=0)
    model = estimator.fit(data.X)
    np.testing.assert_array_equal(model.shift_prior_, np.eye(17)[3])
    assert model.lower_bound_ == -np.inf
    assert np.isfinite(model.score(data.X))
    assert estimator.set_params(max_iter=20).fit(data.X).shift_prior_.min() > 0


def test_windows_of_images_that_the_prior_calls_empty():
    data, estimator = simulate("absent")
    prior = np.eye(18)[17]
    estimator.set_params(shift_prior_init=prior, max_iter=0).fit(data.X)
    flat = ShiftedTemplateEM(**estimator.get_params())
    flat.set_params(shift_prior_init=np.full(18, 1 / 18), background_init=estimator.background_)
    flat.set_params(template_init=estimator.template_, noise_std_init=estimator.noise_std_)
    np.testing.assert_allclose(
        estimator.align(data.X), flat.fit(data.X).align(data.X), rtol=1e-6
    )


def test_warm_start_goes_on_from_the_last_fit():
    data, estimator = simulate("columns", noise_std=2.0)
    estimator.set_params(init="mean", warm_start=True, max_iter=3, tol=0)
    with pytest.warns(ConvergenceWarning):
        first = estimator.fit(data.X).lower_bound_
    with pytest.warns(ConvergenceWarning):
        second = estimator.fit(data.X).lower_bound_
    whole = ShiftedTemplateEM(**{**estimator.get_params(), "max_iter": 6, "warm_start": False})
    with pytest.warns(ConvergenceWarning):
        whole.fit(data.X)
    assert second > first
    np.testing.assert_allclose(whole.lower_bound_, second, rtol=1e-10)


def test_partial_fit_learns_from_batches():
    data, estimator = simulate("columns", n=600)
    estimator.partial_fit(data.X[:60])
    early = estimator.score(data.X[500:])
    for start in range(60, 500, 40):
        estimator.partial_fit(data.X[start : start + 40])
    assert estimator.score(data.X[500:]) > early
    assert correlation(estimator.template_, data.template) > 0.98


def test_failed_partial_fit_leaves_the_fit_alone(fitted):
    data, model = fitted
    before = {key: np.copy(value) for key, value in vars(model).items() if key[-1] == "_"}
    X = data.X[:4].copy()
    X[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        model.partial_fit(X)
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(data.X[:4, :-1])
    for key, value in before.items():
        np.testing.assert_array_equal(getattr(model, key), value)


def test_interrupted_fit_keeps_what_it_has(monkeypatch):
    from skem.template._model import ShiftedTemplate

    data, estimator = simulate("columns")
    original, calls = ShiftedTemplate.e_step, []

    def e_step(self, *args):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(ShiftedTemplate, "e_step", e_step)
    estimator.set_params(init="mean")
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 iterations"):
        model = estimator.fit(data.X)
    monkeypatch.undo()
    assert np.isfinite(model.score(data.X))


def test_interrupt_before_the_first_start_keeps_the_mean_start(monkeypatch):
    def search(*args):
        raise KeyboardInterrupt

    data, estimator = simulate("columns")
    monkeypatch.setattr("skem.template._training.search", search)
    with pytest.warns(ConvergenceWarning, match="interrupted after 0 iterations"):
        model = estimator.fit(data.X)
    monkeypatch.undo()
    mean = ShiftedTemplateEM(**estimator.get_params()).set_params(init="mean", max_iter=0)
    np.testing.assert_allclose(model.template_, mean.fit(data.X).template_)


@pytest.mark.parametrize("last", [3, 7])
def test_interrupted_search_keeps_the_best_start_so_far(monkeypatch, last):
    """Of six trials and three finals, the call after ``last`` is interrupted."""
    from skem.template import _starts

    data, estimator = simulate("columns", noise_std=2.0)
    original, found = _starts.run_em, []

    def run_em(model, passes, params, max_iter):
        if len(found) == last:
            raise KeyboardInterrupt
        found.append(original(model, passes, params, max_iter))
        return found[-1]

    monkeypatch.setattr(_starts, "run_em", run_em)
    with pytest.warns(ConvergenceWarning, match="interrupted after 0 iterations"):
        model = estimator.fit(data.X)
    best = max(found[-1:] if last > 6 else found, key=lambda start: start[0])[1]
    np.testing.assert_allclose(model.noise_std_, np.sqrt(best.noise_var))


# -- pixels that no image shows -------------------------------------------------------


def test_pixels_that_no_image_shows_are_not_seen():
    data, estimator = simulate("columns")
    X = data.X.reshape(-1, 6, 24).copy()
    X[:, 2, :3] = np.nan
    X[:, 5] = np.nan
    model = estimator.fit(X)
    dead = np.zeros((6, 24), bool)
    dead[2, :3] = dead[5] = True
    assert not model.background_seen_[dead].any()
    assert model.background_seen_[~dead].all()
    np.testing.assert_array_equal(model.template_seen_, np.arange(6)[:, None] + np.zeros(8) < 5)
    assert correlation(model.template_[:5], data.template[:5]) > 0.98
    assert np.isfinite(model.background_).all()
    assert np.isfinite(model.impute(X)).all()
    n_free = (~dead).sum() + 5 * 8 + 1 + 16
    bic = n_free * np.log(200) - 2 * model.score_samples(X).sum()
    np.testing.assert_allclose(model.bic(X), bic)


def test_unseen_pixels_do_not_change_the_fit_of_the_others():
    """A row without data is a row that is not there."""
    data, _ = simulate("columns")
    X = data.X.reshape(-1, 6, 24)
    padded = np.pad(X, [(0, 0), (0, 1), (0, 0)], constant_values=np.nan)
    keywords = {"init": "mean", "image_shape": None}
    a = ShiftedTemplateEM(8, **keywords).fit(X)
    b = ShiftedTemplateEM(8, **keywords).fit(padded)
    np.testing.assert_allclose(b.template_[:6], a.template_, rtol=1e-7)
    np.testing.assert_allclose(b.lower_bound_, a.lower_bound_, rtol=1e-9)


def test_a_border_of_nan_finds_events_that_the_edge_cuts():
    rng = np.random.RandomState(0)
    place, t = rng.randint(-12, 83, size=200), np.arange(30) - 15
    spike = np.exp(-(t**2) / 18) - 0.5 * np.exp(-((t - 6) ** 2) / 40)
    wide = np.zeros((200, 160))
    for row, d in zip(wide, place + 30, strict=True):
        row[d : d + 30] = spike
    X = wide[:, 30:130] + rng.normal(scale=0.15, size=(200, 100))
    X = np.pad(X, [(0, 0), (15, 15)], constant_values=np.nan)
    error = ShiftedTemplateEM(30, random_state=0).fit(X).predict(X) - 15 - place
    assert np.mean(np.abs(error - np.median(error)) <= 1) == 1


def test_a_pixel_that_the_first_batch_lacks_is_learned_later():
    data, estimator = simulate("columns")
    first = data.X[:100].copy()
    first[:, 0] = np.nan
    estimator.partial_fit(first)
    assert not estimator.background_seen_.flat[0]
    estimator.partial_fit(data.X[100:])
    assert estimator.background_seen_.flat[0]
    assert abs(estimator.background_.flat[0] - data.background.flat[0]) < 0.3


def test_data_without_any_value_are_refused():
    with pytest.raises(ValueError, match="no observed value"):
        ShiftedTemplateEM(4).fit(np.full((3, 8), np.nan))


# -- images along the last axis -------------------------------------------------------


def test_images_along_the_last_axis_are_noticed():
    data, _ = simulate("columns", n=60)
    stack = data.X.reshape(-1, 6, 24).transpose(1, 2, 0)
    with pytest.warns(UserWarning, match=r"X.transpose\(2, 0, 1\)"):
        ShiftedTemplateEM(8, init="mean").fit(stack)
    with pytest.raises(ValueError, match=r"X.transpose\(2, 0, 1\)"):
        ShiftedTemplateEM(8, image_shape=(6, 24)).fit(stack)
    ShiftedTemplateEM(8, image_shape=(24, 60), init="mean").fit(stack)  # says what it means


# -- templates that oscillate ---------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "n"),
    [(0, 100), (4, 100), *[pytest.param(s, 400, marks=pytest.mark.slow) for s in range(4)]],
)
def test_oscillating_templates_end_at_their_place(seed, n):
    """As high as EM from the truth; most rows of a poor fit are off by the same shift."""
    t = np.arange(100) - 50
    truth = np.sin(2 * np.pi * t / 12) * np.exp(-(t**2) / (2 * 15**2))
    truth = truth[None] / truth.std()
    background = np.zeros((1, 300))
    data = make_shifted_templates(
        n, template=truth, background=background, noise_std=0.5, random_state=seed
    )
    given = ShiftedTemplateEM(
        100, template_init=truth, background_init=background, noise_std_init=0.5
    ).fit(data.X)
    model = ShiftedTemplateEM(100, random_state=seed).fit(data.X)
    assert model.lower_bound_ > given.lower_bound_ - 0.01


# -- memory ---------------------------------------------------------------------------


def test_starts_take_little_memory():
    """A start holds a chunk of posteriors at a time, though there are 8 X of them."""
    import tracemalloc

    from skem._base.passes import Passes
    from skem._rows.parts import InMemory
    from skem.template._starts import dirichlet_params, model_of
    from skem.template._windows import Windows

    X = np.random.default_rng(0).normal(size=(600, 128 * 128)).astype(np.float32)
    model, _ = model_of(Windows((128, 128), (20, 20)), InMemory(X))
    passes = Passes(model, InMemory(X))
    tracemalloc.start()
    dirichlet_params(model, passes, np.random.RandomState(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * X.nbytes


# -- shifts that the training images lack ---------------------------------------------


def in_batches(model, X):
    for start in range(0, len(X), 16):
        model.partial_fit(X[start : start + 16])


def few_then_all(model, X):
    model.fit(X[:50]).set_params(warm_start=True).fit(X)


def few_first(model, X):
    model.set_params(init="mean", subset_schedule=((30, 5),)).fit(X)


@pytest.mark.parametrize("by_place", [False, True], ids=["mixed", "sorted"])
@pytest.mark.parametrize("how", [in_batches, few_then_all, few_first])
def test_new_shifts_are_placed_however_the_fit_went(how, by_place):
    data = make_shifted_templates(900, noise_std=1.0, random_state=3)
    X, shifts = data.X[:300], data.shifts[:300]
    if by_place:
        X = X[np.argsort(shifts, kind="stable")]
    model = ShiftedTemplateEM(20, image_shape=(20, 60), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        how(model, X)
    assert model.shift_prior_.min() > 0
    assert abs(model.noise_std_ - 1) < 0.02
    assert np.mean(model.predict(data.X[300:]) == data.shifts[300:]) > 0.99


def test_new_shifts_are_placed_in_two_dimensions():
    data = make_shifted_templates(
        600, image_shape=(30, 30), template_height=10, template_width=10, random_state=0
    )
    for n in (16, 100):
        model = ShiftedTemplateEM(10, template_height=10, image_shape=(30, 30), random_state=0)
        model.fit(data.X[:n])
        assert np.mean(model.predict(data.X[100:]) == data.shifts[100:]) > 0.95


def test_many_shifts_do_not_make_absent_templates_rare():
    """The prior counts absence against presence, not against each shift."""
    data = make_shifted_templates(
        100,
        image_shape=(30, 30),
        template_height=10,
        template_width=10,
        absent=0.6,
        random_state=0,
    )
    model = ShiftedTemplateEM(
        10, template_height=10, image_shape=(30, 30), absent=True, random_state=0
    ).fit(data.X)
    n_absent = np.sum(data.shifts == -1)
    np.testing.assert_allclose(model.shift_prior_[-1], (n_absent + 0.1) / 100.2, atol=0.01)


def test_verbose_prints_a_line_per_interval(capsys):
    data, estimator = simulate("columns")
    estimator.set_params(init="mean", verbose=1, verbose_interval=2).fit(data.X)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == estimator.n_iter_ // 2
    assert lines[0].startswith("[ShiftedTemplateEM] iteration 2: ")
    estimator.set_params(verbose=0).fit(data.X)
    assert capsys.readouterr().out == ""


# -- bad input ------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(8, 12))


@pytest.mark.parametrize(
    ("keywords", "data", "message"),
    [
        ({"template_width": 13}, X, r"template_width=13 .* \(1, 12\)"),
        ({"template_width": 5, "image_shape": (3, 4)}, X, "template_width=5"),
        ({"template_height": 4, "image_shape": (3, 4)}, X, "template_height=4"),
        ({"template_width": 0}, X, "template_width"),
        ({"template_width": 2.5}, X, "template_width"),
        ({"image_shape": (3, 5)}, X, r"image_shape=\(3, 5\) .* 15 .* 12"),
        ({"image_shape": (12,)}, X, "image_shape must be"),
        ({"image_shape": (3, -4)}, X, "image_shape must be"),
        ({"image_shape": "3x4"}, X, "image_shape"),
        ({"image_shape": (2, 6)}, X.reshape(8, 3, 4), r"\(3, 4\), but image_shape is"),
        ({"algorithm": "medium"}, X, "algorithm"),
        ({"init": "kmeans"}, X, "init"),
        ({"shrinkage": "some"}, X, "shrinkage"),
        ({"subset_schedule": ((0, 3),)}, X, "subset_schedule"),
        ({"subset_schedule": (3, 4)}, X, "subset_schedule"),
        ({"template_init": np.ones((2, 6))}, X, "template_init must have shape"),
        ({"background_init": np.full(12, np.nan)}, X, "background_init"),
        ({"noise_std_init": -1.0}, X, "noise_std_init"),
        ({"shift_prior_init": np.full(7, 0.5)}, X, "shift_prior_init .* sum is 3.5"),
        ({"shift_concentration_prior": 0.5}, X, "shift_concentration_prior"),
        ({"max_iter": -1}, X, "max_iter"),
        ({"tol": -1.0}, X, "tol"),
        ({}, np.where(X > 1, np.inf, X), "infinity"),
        ({"noise_std_init": 1e200}, X, "noise_std_init must be smaller"),
        ({}, np.full((3, 4), 1e300), "too large"),
        ({}, X[:0], "0 sample"),
        ({}, X.astype(complex), "[Cc]omplex"),
        ({}, [["a", "b"], ["c", "d"]], "cannot be converted to a number"),
    ],
)
def test_bad_input_is_named(keywords, data, message):
    estimator = ShiftedTemplateEM(**keywords)
    with pytest.raises(ValueError, match=message):
        estimator.fit(data)
    assert not hasattr(estimator, "template_")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-np.ones(8), "[Nn]egative"),
        (np.zeros(8), "zero"),
        (np.ones(7), "sample_weight"),
        (np.full(8, np.nan), "NaN"),
    ],
)
def test_bad_weights_are_named(weight, message):
    with pytest.raises(ValueError, match=message):
        ShiftedTemplateEM().fit(X, sample_weight=weight)


def test_bad_codes_and_counts_are_named():
    model = ShiftedTemplateEM(4).fit(X)
    with pytest.raises(ValueError, match=r"X has 3 columns, but 9 are needed"):
        model.inverse_transform(np.ones((2, 3)))
    with pytest.raises(ValueError, match="n_samples"):
        model.sample(0)
    with pytest.raises(NotFittedError):
        ShiftedTemplateEM().predict(X)


@pytest.mark.parametrize(
    "data",
    [
        X[:1],
        X[:, :1],
        np.ones((5, 6)),
        np.zeros((5, 6)),
        np.column_stack([X, np.ones(8)]),
        np.repeat(X[:1], 5, axis=0),
        1e-150 * X,
        1e100 * X,
        1e8 + X,
        np.where(X > 1, np.nan, X),
        np.column_stack([X, np.full(8, np.nan)]),
        np.vstack([X, np.full(12, np.nan)]),
    ],
    ids=[
        "one row",
        "one column",
        "ones",
        "zeros",
        "constant column",
        "equal rows",
        "tiny",
        "huge",
        "far",
        "missing",
        "missing column",
        "missing row",
    ],
)
@pytest.mark.parametrize("keywords", [{}, {"absent": True}, {"shrinkage": "map"}], ids=str)
def test_odd_data_give_finite_fits(data, keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = ShiftedTemplateEM(random_state=0, **keywords).fit(data)
    for value in (model.template_, model.background_, model.noise_std_):
        assert np.isfinite(value).all()
    assert np.isfinite(model.score_samples(data)).all()
    np.testing.assert_allclose(model.predict_proba(data).sum(1), 1)


# -- the real thing -------------------------------------------------------------------


@pytest.mark.slow
def test_the_hidden_face_is_found_in_a_thousand_noisy_images():
    data = load_hidden_face(1000, noise_std=400)
    model = ShiftedTemplateEM(73, image_shape=data.image_shape, random_state=0)
    model.fit(data.X)
    stack = data.X.reshape(-1, *data.image_shape)
    aligned = np.mean(
        [image[:, d : d + 73] for image, d in zip(stack, data.shifts, strict=True)], axis=0
    )
    best = correlation(aligned, data.template)
    assert correlation(model.template_, data.template) > 0.99 * best
    assert np.mean(np.abs(model.predict(data.X) - data.shifts) <= 1) > 0.99


# -- edges ----------------------------------------------------------------------------


def test_given_starts_survive_the_map_mode():
    data, estimator = simulate("columns")
    estimator.set_params(shrinkage="map", max_iter=0, template_init=np.full((6, 8), 50.0))
    np.testing.assert_allclose(estimator.fit(data.X).template_, 50)


def test_given_starts_come_before_a_warm_start():
    data, estimator = simulate("columns")
    estimator.fit(data.X).set_params(warm_start=True, noise_std_init=0.7, max_iter=0)
    template = estimator.template_
    estimator.fit(data.X)
    assert estimator.noise_std_ == 0.7
    np.testing.assert_allclose(estimator.template_, template)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"template_width": 5}, "template_width"), ({"absent": True}, "absent")],
)
def test_going_on_from_another_model_is_an_error(change, name):
    data, estimator = simulate("columns")
    estimator.fit(data.X).set_params(warm_start=True, **change)
    with pytest.raises(ValueError, match=name):
        estimator.fit(data.X)
    with pytest.raises(ValueError, match=name):
        estimator.partial_fit(data.X)


def test_a_failed_fit_leaves_the_last_one_alone():
    data, estimator = simulate("columns")
    before = estimator.fit(data.X).predict(data.X)
    with pytest.raises(ValueError, match="image_shape"):
        estimator.set_params(image_shape=(6, 20)).fit(data.X[:, :100])
    np.testing.assert_array_equal(estimator.predict(data.X), before)


def test_a_pixel_that_few_images_show():
    data, estimator = simulate("columns", n=1000)
    X = data.X.copy()
    X[3:, 0] = np.nan
    assert correlation(estimator.fit(X).template_, data.template) > 0.98


@pytest.mark.parametrize("max_iter", [0, 3, 5, 30])
def test_objective_is_that_of_the_parameters_that_are_kept(max_iter):
    for seed in range(6):
        data = make_shifted_templates(
            60, image_shape=(1, 40), template_width=10, noise_std=2.5, random_state=seed
        )
        model = ShiftedTemplateEM(10, max_iter=max_iter, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(data.X)
        np.testing.assert_allclose(model.lower_bound_, objective(model, data.X), rtol=1e-9)
        assert len(model.lower_bounds_) == model.n_iter_ <= max_iter


@needs_callbacks
def test_a_callback_that_stops_is_obeyed():
    class Stop:
        def setup(self, estimator, context):
            pass

        teardown = on_fit_task_begin = setup

        def on_fit_task_end(self, estimator, context):
            return True

    for seed in range(10):
        data = make_shifted_templates(
            60, image_shape=(1, 40), template_width=10, noise_std=0.2, random_state=seed
        )
        model = ShiftedTemplateEM(10, random_state=seed).set_callbacks(Stop())
        assert model.fit(data.X).n_iter_ == 1


@pytest.mark.parametrize("call", [1, 2, 40, 80, 110, 125])
def test_an_interrupt_at_any_time_leaves_a_fit(monkeypatch, call):
    from skem.template._model import ShiftedTemplate

    data, estimator = simulate("columns", n=300, noise_std=3.0)
    original, calls = ShiftedTemplate.e_step, []

    def e_step(self, *args):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(ShiftedTemplate, "e_step", e_step)
    estimator.set_params(subset_schedule=((100, 3),), tol=0, max_iter=40)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model = estimator.fit(data.X)
    assert len(calls) <= call + 3
    np.testing.assert_allclose(model.lower_bound_, objective(model, data.X), rtol=1e-9)


def test_starts_may_run_in_other_processes():
    data, estimator = simulate("columns")
    here = ShiftedTemplateEM(**estimator.get_params()).fit(data.X)
    with parallel_config(backend="loky", n_jobs=2):
        there = estimator.fit(data.X)
    np.testing.assert_array_equal(here.template_, there.template_)
    assert here.lower_bounds_ == there.lower_bounds_


def test_threads_give_blas_its_threads_back():
    from threadpoolctl import threadpool_info

    def n_threads():
        return [pool["num_threads"] for pool in threadpool_info()]

    data, estimator = simulate("columns")
    before = n_threads()
    estimator.set_params(n_jobs=2).fit(data.X)
    assert n_threads() == before


def test_partial_fit_refuses_what_it_cannot_hold():
    data, estimator = simulate("columns")
    noise_std = estimator.fit(data.X).noise_std_
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match="not finite"),
    ):
        estimator.partial_fit(1e200 * data.X)
    assert estimator.noise_std_ == noise_std


def test_the_unit_of_weights_does_not_matter_without_a_prior():
    data, estimator = simulate("columns")
    estimator.set_params(shift_concentration_prior=1.0)
    one = ShiftedTemplateEM(**estimator.get_params()).fit(data.X)
    tiny = estimator.fit(data.X, sample_weight=np.full(200, 1e-9))
    np.testing.assert_allclose(tiny.noise_std_, one.noise_std_, rtol=1e-9)
    np.testing.assert_allclose(tiny.template_, one.template_, rtol=1e-7)


def test_float32_in_float32_out():
    import pandas as pd

    data, estimator = simulate("columns")
    X = data.X.astype(np.float32)
    estimator.fit(X)
    for verb in ("transform", "predict_proba", "reconstruct", "align", "impute"):
        assert getattr(estimator, verb)(X).dtype == np.float32
    assert estimator.fit(pd.DataFrame(X)).transform(pd.DataFrame(X)).dtype == np.float32
    assert estimator.score_samples(pd.DataFrame(X)).dtype == np.float32


def test_nested_lists_are_stacks():
    data, estimator = simulate("columns")
    stack = data.X.reshape(-1, 6, 24)
    estimator.set_params(image_shape=None).fit(stack.tolist())
    assert estimator.image_shape_ == (6, 24)
    np.testing.assert_array_equal(estimator.predict(stack.tolist()), estimator.predict(data.X))
    assert estimator.n_features_in_ == 144


def test_wrong_shapes_of_given_starts_are_errors():
    data, estimator = simulate("columns")
    with pytest.raises(ValueError, match=r"template_init must have shape \(6, 8\)"):
        estimator.set_params(template_init=data.template.T).fit(data.X)
    with pytest.raises(ValueError, match="template_init must be an array of numbers"):
        estimator.set_params(template_init=[["a"]]).fit(data.X)
    with pytest.raises(ValueError, match=r"template_init .* smaller than 2e\+123"):
        estimator.set_params(template_init=np.full((6, 8), 1e200)).fit(data.X)
    with pytest.raises(ValueError, match="n_samples"):
        estimator.set_params(template_init=None).fit(data.X).sample(2.5)
    with pytest.raises(ValueError, match="too large"):
        estimator.fit((1e18 * data.X).astype(np.float32))


def test_a_pixel_that_one_image_shows_is_seen():
    data = make_shifted_templates(
        300, image_shape=(1, 30), template_width=6, noise_std=0.1, random_state=0
    )
    X = data.X.copy()
    X[1:, 0] = np.nan
    model = ShiftedTemplateEM(6, random_state=0).fit(X)
    assert model.background_seen_.all()
    place = int(model.predict(X[:1])[0])
    if place > 0:  # the background is then in front of nothing at the first pixel
        assert model.background_[0, 0] == pytest.approx(X[0, 0])


def test_map_smooths_from_given_values_too():
    data = make_shifted_templates(
        60, image_shape=(12, 30), template_width=12, noise_std=3.0, random_state=0
    )
    roughness = {}
    for shrinkage in ("map", None):
        model = ShiftedTemplateEM(
            12,
            image_shape=data.image_shape,
            shrinkage=shrinkage,
            template_init=data.template,
            background_init=data.background,
            random_state=0,
        ).fit(data.X)
        roughness[shrinkage] = np.square(np.diff(model.template_, 2, axis=1)).mean()
    assert roughness["map"] < 0.5 * roughness[None]
