"""What ShiftedTemplateEM promises of several templates and of its other variants."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skem import ShiftedTemplateEM

N_COLUMNS, WIDTH = 60, 16
N_SHIFTS = N_COLUMNS - WIDTH + 1
T = np.arange(WIDTH)
SPIKES = np.array(
    [
        np.exp(-((T - 6) ** 2) / 6) - 0.6 * np.exp(-((T - 11) ** 2) / 12),
        -np.exp(-((T - 8) ** 2) / 10),
        np.sin(2 * np.pi * T / 8) * np.hanning(WIDTH),
    ]
)
BACKGROUND = np.sin(np.arange(N_COLUMNS) / 5)


def simulate(
    n=300,
    n_templates=1,
    *,
    noise_std=0.2,
    composition="occlude",
    amplitude_std=0.0,
    cyclic=False,
    absent=0.0,
    seed=0,
):
    """Return rows, classes, shifts and amplitudes."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(n_templates, size=n)
    shifts = rng.integers(N_COLUMNS if cyclic else N_SHIFTS, size=n)
    amplitudes = rng.normal(1, amplitude_std, size=n)
    X = np.tile(BACKGROUND, (n, 1))
    gone = rng.uniform(size=n) < absent
    for k in np.flatnonzero(~gone):
        place = (shifts[k] + T) % N_COLUMNS
        shown = amplitudes[k] * SPIKES[classes[k]]
        X[k, place] = shown + (X[k, place] if composition == "add" else 0)
    X += rng.normal(scale=noise_std, size=X.shape)
    return X, np.where(gone, -1, classes), np.where(gone, -1, shifts), amplitudes


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def matching(found, truth):
    """Return which found template is which true one, and their correlations."""
    table = np.array([[correlation(a, b) for a in found] for b in truth])
    _, order = linear_sum_assignment(-table)
    return order, table[np.arange(len(truth)), order]


VARIANTS = {
    "classes": ({"n_templates": 3}, {"n_templates": 3}),
    "classes, absent": (
        {"n_templates": 2, "absent": 0.3},
        {"n_templates": 2, "absent": True},
    ),
    "free": ({"amplitude_std": 0.4}, {"amplitude": "free"}),
    "free, classes": (
        {"amplitude_std": 0.3, "n_templates": 2},
        {"amplitude": "free", "n_templates": 2},
    ),
    "add": ({"composition": "add"}, {"composition": "add"}),
    "add, free, classes": (
        {"composition": "add", "amplitude_std": 0.3, "n_templates": 2},
        {"composition": "add", "amplitude": "free", "n_templates": 2},
    ),
    "stationary": ({"composition": "add"}, {"composition": "add", "noise": "stationary"}),
    "cyclic": ({"cyclic": True}, {"cyclic": True}),
    "known": ({}, {"shift_prior": np.full(N_SHIFTS, 1 / N_SHIFTS)}),
}


@pytest.fixture(params=VARIANTS, scope="module")
def fitted(request):
    simulation, keywords = VARIANTS[request.param]
    data = simulate(**simulation)
    model = ShiftedTemplateEM(WIDTH, random_state=0, max_iter=300, **keywords)
    return data, model.fit(data[0])


def test_finds_what_was_hidden(fitted):
    (X, classes, shifts, amplitudes), model = fitted
    several = model.n_templates > 1
    templates = model.templates_ if several else model.template_[None]
    order, correlations = matching(templates, SPIKES[: model.n_templates])
    assert correlations.min() > 0.97
    assert templates.shape == (model.n_templates, 1, WIDTH)
    placed = model.predict(X)
    truth = np.where(classes < 0, -1, order[classes])
    assert np.mean(model.predict_class(X) == truth) > 0.95
    assert np.mean(np.abs(placed - shifts) <= 1) > 0.95
    np.testing.assert_allclose(model.noise_std_, 0.2, rtol=0.05)
    if several:
        share = np.bincount(classes + 1, minlength=model.n_templates + 1)[1:] / len(X)
        np.testing.assert_allclose(model.class_weights_[order], share, atol=0.05)
    if model.amplitude == "free":
        shown = np.where(classes < 0, 0, amplitudes)
        least = (SPIKES[: model.n_templates] ** 2).sum(1).min()
        visible = amplitudes.std() / np.hypot(amplitudes.std(), 0.2 / np.sqrt(least))
        assert correlation(model.amplitudes(X), shown) > 0.95 * visible
        np.testing.assert_allclose(model.amplitude_std_, amplitudes.std(), rtol=0.3)
    if model.noise == "stationary":
        np.testing.assert_allclose(model.noise_spectrum_, 0.04, rtol=0.5)
        assert model.noise_spectrum_.shape == (N_COLUMNS // 2 + 1,)
    if model.shift_prior is not None:
        np.testing.assert_allclose(model.shift_prior_, model.shift_prior)


def test_verbs_agree(fitted):
    (X, *_), model = fitted
    n_shifts = np.prod(model.shift_shape_)
    n_categories = model.n_templates * n_shifts + model.absent
    posterior = model.transform(X)
    assert posterior.shape == (len(X), n_categories) == (300, len(model.shift_prior_))
    np.testing.assert_allclose(model.shift_prior_.sum(), 1)
    np.testing.assert_allclose(posterior.sum(1), 1)
    joint = model.log_joint(X)
    np.testing.assert_allclose(model.score_samples(X), logsumexp(joint, axis=1), rtol=1e-9)
    assert np.diff(model.lower_bounds_).min() > -1e-8
    classes, shifts = model.predict_class(X), model.predict(X)
    present = classes >= 0
    np.testing.assert_array_equal(shifts >= 0, present)
    flat = (classes * n_shifts + shifts)[present]
    sure = posterior[present].max(1) > 0.5
    np.testing.assert_array_equal(flat[sure], posterior[present].argmax(1)[sure])
    places = model.shifts(X)
    np.testing.assert_array_equal(places[present], shifts[present])
    assert np.isnan(places[~present]).all()
    moved = np.abs(model.shifts(X, subpixel=True) - places)[present]
    assert 0 < moved.max() <= 0.5
    clean = model.inverse_transform(np.eye(n_categories))
    if model.amplitude == "fixed":
        np.testing.assert_allclose(model.reconstruct(X), posterior @ clean, atol=1e-9)
    residual = X - model.reconstruct(X)
    np.testing.assert_allclose(residual.std(), model.noise_std_, rtol=0.1)
    np.testing.assert_allclose(model.impute(X), X)
    assert model.align(X).shape == (300, WIDTH)


def test_samples_have_the_moments_of_the_model(fitted):
    (X, *_), model = fitted
    drawn, places = model.sample(4000, random_state=0)
    if model.n_templates > 1:
        classes, shifts = places.T
    else:
        classes, shifts = np.where(places < 0, -1, 0), places
    n_shifts = np.prod(model.shift_shape_)
    flat = np.where(classes < 0, len(model.shift_prior_) - 1, classes * n_shifts + shifts)
    code = np.eye(len(model.shift_prior_))[flat]
    clean = model.inverse_transform(code)
    np.testing.assert_allclose(
        drawn.mean(0), model.inverse_transform(model.shift_prior_[None])[0], atol=0.1
    )
    if model.amplitude == "fixed":
        np.testing.assert_allclose((drawn - clean).std(), model.noise_std_, rtol=0.02)
    # the log-likelihood of drawn rows is that of the rows of the fit
    np.testing.assert_allclose(model.score(drawn), model.score(X), atol=3)


@pytest.mark.slow
def test_any_rows_are_fitted_alike(fitted, tmp_path):
    """Files, lazy arrays, weights, frames and float32."""
    da = pytest.importorskip("dask.array")
    (X, *_), model = fitted
    keywords = {**model.get_params(), "init_size": 1000}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        keywords["max_iter"] = 5
        whole = ShiftedTemplateEM(**keywords).fit(X)
        np.save(tmp_path / "X.npy", X)
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        lazy = da.from_array(X, chunks=(100, -1))
        for rows in (mapped, lazy):
            other = ShiftedTemplateEM(**keywords).fit(rows)
            np.testing.assert_allclose(other.score(X), whole.score(X), rtol=1e-6)
        np.testing.assert_allclose(whole.shifts(lazy, subpixel=True), whole.shifts(X, True))
        np.testing.assert_array_equal(whole.predict_class(mapped), whole.predict_class(X))
        frame = pd.DataFrame(X).add_prefix("t")
        single = ShiftedTemplateEM(**keywords).fit(frame.astype(np.float32))
        assert single.background_.dtype == np.float32
        assert single.transform(frame.astype(np.float32)).dtype == np.float32
        np.testing.assert_allclose(single.score(frame), whole.score(X), atol=0.05)
        counts = np.random.default_rng(0).integers(0, 3, len(X))
        weighted = ShiftedTemplateEM(**keywords).fit(X, sample_weight=counts)
        repeated = ShiftedTemplateEM(**keywords).fit(X.repeat(counts, axis=0))
        np.testing.assert_allclose(weighted.score(X), repeated.score(X), rtol=1e-6)


@pytest.mark.slow
def test_batches_and_warm_starts_go_on(fitted):
    (X, *_), model = fitted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        online = ShiftedTemplateEM(**model.get_params())
        for start in range(0, 300, 100):
            online.partial_fit(X[start : start + 100])
        assert online.score(X) > model.score(X) - 1
        again = ShiftedTemplateEM(**model.get_params()).fit(X)
        again.set_params(warm_start=True, max_iter=3).fit(X)
    assert again.lower_bound_ > model.lower_bound_ - 1e-6


# -- several templates ----------------------------------------------------------------


@pytest.mark.slow
def test_bic_and_a_search_find_the_number_of_templates():
    X, *_ = simulate(400, 2, noise_std=0.3)
    bic = [
        ShiftedTemplateEM(WIDTH, n_templates=c, random_state=0).fit(X).bic(X) for c in (1, 2, 3)
    ]
    assert np.argmin(bic) == 1
    model = ShiftedTemplateEM(WIDTH, random_state=0)
    search = GridSearchCV(model, {"n_templates": [1, 2, 3]}, cv=3).fit(X)
    assert search.best_params_ == {"n_templates": 2}


def test_free_parameters_of_several_templates():
    X, *_ = simulate(300, 2, amplitude_std=0.3)
    model = ShiftedTemplateEM(
        WIDTH, n_templates=2, amplitude="free", random_state=0, max_iter=200
    ).fit(X)
    n_free = 2 * WIDTH + model.background_seen_.sum() + 1 + 2 * N_SHIFTS - 1 + 2
    log_lik = model.score_samples(X).sum()
    np.testing.assert_allclose(model.bic(X), n_free * np.log(300) - 2 * log_lik)
    known = np.full(N_SHIFTS, 1 / N_SHIFTS)
    model.set_params(shift_prior=known).fit(X)
    n_free = 2 * WIDTH + model.background_seen_.sum() + 1 + 1 + 2
    log_lik = model.score_samples(X).sum()
    np.testing.assert_allclose(model.aic(X), 2 * n_free - 2 * log_lik)


def test_missing_pixels_with_several_templates():
    X, classes, shifts, _ = simulate(300, 2)
    X[np.random.default_rng(0).uniform(size=X.shape) < 0.3] = np.nan
    for keywords in ({}, {"amplitude": "free"}):
        model = ShiftedTemplateEM(
            WIDTH, n_templates=2, random_state=0, max_iter=300, **keywords
        )
        order, correlations = matching(model.fit(X).templates_, SPIKES[:2])
        assert correlations.min() > 0.97
        assert np.mean(model.predict_class(X) == order[classes]) > 0.95
        assert np.mean(np.abs(model.predict(X) - shifts) <= 1) > 0.95
        assert np.isfinite(model.impute(X)).all()
        assert np.isfinite(model.align(X)).all()


def test_starts_of_several_templates():
    X, *_ = simulate(200, 2)
    given = ShiftedTemplateEM(
        WIDTH, n_templates=2, template_init=SPIKES[:2, None], noise_std_init=0.2
    ).fit(X)
    assert matching(given.templates_, SPIKES[:2])[1].min() > 0.97
    random = ShiftedTemplateEM(WIDTH, n_templates=2, init="random", n_init=20, random_state=0)
    assert random.fit(X).templates_.shape == (2, 1, WIDTH)
    mapped = ShiftedTemplateEM(WIDTH, n_templates=2, shrinkage="map", random_state=0).fit(X)
    assert matching(mapped.templates_, SPIKES[:2])[1].min() > 0.97


def test_a_fit_of_another_number_of_templates_forgets_the_last():
    X, *_ = simulate(200, 2)
    model = ShiftedTemplateEM(WIDTH, n_templates=2, random_state=0).fit(X)
    assert not hasattr(model, "template_")
    model.set_params(n_templates=1, amplitude="free").fit(X)
    assert not hasattr(model, "templates_")
    assert not hasattr(model, "class_weights_")
    assert isinstance(model.amplitude_std_, float)


@pytest.mark.parametrize("call", [2, 90, 150])
def test_an_interrupt_at_any_time_leaves_several_templates(monkeypatch, call):
    from skem.template._model import ShiftedTemplate

    X, *_ = simulate(200, 3)
    original, calls = ShiftedTemplate.e_step, []

    def e_step(self, *args):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(ShiftedTemplate, "e_step", e_step)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model = ShiftedTemplateEM(WIDTH, n_templates=3, random_state=0).fit(X)
    assert model.templates_.shape == (3, 1, WIDTH)
    assert np.isfinite(model.score(X))


# -- amplitudes, places between pixels, noise ---------------------------------------------


def test_templates_of_both_signs():
    X, _, shifts, amplitudes = simulate(300, amplitude_std=0.2)
    flipped = np.random.default_rng(1).uniform(size=300) < 0.4
    for k in np.flatnonzero(flipped):
        place = shifts[k] + T
        X[k, place] -= 2 * amplitudes[k] * SPIKES[0]
    model = ShiftedTemplateEM(WIDTH, amplitude="free", random_state=0).fit(X)
    assert abs(correlation(model.template_, SPIKES[0])) > 0.97
    found = model.amplitudes(X) * np.sign(correlation(model.template_, SPIKES[0]))
    assert np.mean((found < 0) == flipped) > 0.97


def test_amplitudes_need_free_ones():
    X, *_ = simulate(50)
    with pytest.raises(ValueError, match="amplitude='free'"):
        ShiftedTemplateEM(WIDTH, random_state=0).fit(X).amplitudes(X)


@pytest.mark.parametrize("n_axes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_places_between_pixels(n_axes):
    """A blob at real-valued places: as near as the noise lets anyone see."""
    rng = np.random.default_rng(0)
    shape = (1, 60) if n_axes == 1 else (24, 26)
    corner = rng.uniform(2, [s - 15 for s in shape][-n_axes:], size=(300, n_axes))
    blob = np.ones((300, *shape))
    for axis in range(n_axes):
        u = np.arange(shape[axis - n_axes])
        own = np.exp(-((u - corner[:, axis, None] - 6) ** 2) / 8)
        blob *= own[:, None] if axis == n_axes - 1 else own[:, :, None]
    X = blob + rng.normal(scale=0.05, size=blob.shape)
    model = ShiftedTemplateEM(13, template_height=None if n_axes == 1 else 13, random_state=0)
    model.fit(X)

    def rms(places):
        error = places.reshape(300, n_axes) - corner
        return np.sqrt(np.mean((error - error.mean(0)) ** 2))

    assert model.shifts(X).shape == ((300,) if n_axes == 1 else (300, 2))
    assert rms(model.shifts(X, subpixel=True)) < 0.1 < 0.25 < rms(model.shifts(X))


def test_stationary_noise_is_whitened():
    """In 1/f noise, white noise is a poor model, and the spectrum is found."""
    rng = np.random.default_rng(0)
    frequency = np.maximum(np.fft.rfftfreq(128), 1 / 128)
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=(300, 128))) / frequency, n=128)
    noise /= noise.std()
    shifts = rng.integers(128 - WIDTH + 1, size=300)
    X = noise.copy()
    for k, d in enumerate(shifts):
        X[k, d : d + WIDTH] += SPIKES[0]
    scores, placed = {}, {}
    for kind in ("white", "stationary"):
        model = ShiftedTemplateEM(
            WIDTH, composition="add", noise=kind, random_state=0, max_iter=300
        ).fit(X)
        scores[kind] = model.score(X)
        error = model.predict(X) - shifts
        placed[kind] = np.mean(np.abs(error - np.median(error)) <= 1)
    assert scores["stationary"] > scores["white"] + 10
    # the matched filter with the true template and spectrum
    spectrum = (np.abs(np.fft.rfft(noise)) ** 2).mean(0)
    kernel = np.fft.rfft(SPIKES[0], n=128).conj() / spectrum
    match = np.fft.irfft(np.fft.rfft(X) * kernel, n=128)[:, : 128 - WIDTH + 1]
    best = np.mean(np.abs(match.argmax(1) - shifts) <= 1)
    assert placed["stationary"] > 0.95 * best
    assert placed["white"] < 0.5 * best
    slope = np.polyfit(np.log(frequency[1:]), np.log(model.noise_spectrum_[1:]), 1)[0]
    np.testing.assert_allclose(slope, -2, atol=0.2)


# -- periodic images, known priors --------------------------------------------------------


def plain_rotations(X, template, noise_std):
    """EM for rotated copies with known noise and equal probabilities of the rotations."""
    for _ in range(1000):
        match = np.array([(np.roll(template, d) * X).sum(1) for d in range(X.shape[1])]).T
        q = softmax(match / noise_std**2, axis=1)
        moved = [q[:, d] @ np.roll(X, -d, axis=1) for d in range(X.shape[1])]
        new = np.sum(moved, axis=0) / len(X)
        if np.abs(new - template).max() < 1e-5:
            break
        template = new
    return template


@pytest.mark.slow
@pytest.mark.parametrize("noise_std", [0.3, 1.0, 1.5])
def test_multireference_alignment_is_as_good_as_plain_em(noise_std):
    """EM from the truth, which no user has, is the measure."""
    errors = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = np.convolve(rng.normal(size=48), np.hanning(9), "valid")
        truth = (truth - truth.mean()) / truth.std()
        X = np.array([np.roll(truth, d) for d in rng.integers(40, size=1000)])
        X += rng.normal(scale=noise_std, size=X.shape)
        model = ShiftedTemplateEM(
            40, cyclic=True, shift_prior=np.full(40, 1 / 40), random_state=seed
        ).fit(X)

        def error(found, truth=truth):
            return min(np.linalg.norm(np.roll(found, d) - truth) for d in range(40))

        plain = plain_rotations(X, truth, noise_std)
        errors.append((error(model.template_[0]), error(plain)))
    ours, theirs = np.mean(errors, axis=0)
    assert ours < 1.1 * theirs


def test_a_known_prior_goes_with_the_search():
    """In a flat background, the prior tells where templates are, and the search finds them."""
    rng = np.random.default_rng(0)
    prior = np.exp(-((np.arange(N_SHIFTS) - 22) ** 2) / 50)
    prior /= prior.sum()
    shifts = rng.choice(N_SHIFTS, p=prior, size=150)
    X = rng.normal(scale=0.3, size=(150, N_COLUMNS))
    for row, d in zip(X, shifts, strict=True):
        row[d : d + WIDTH] += SPIKES[0]
    model = ShiftedTemplateEM(WIDTH, shift_prior=prior, random_state=0).fit(X)
    assert np.mean(np.abs(model.predict(X) - shifts) <= 1) > 0.9
    np.testing.assert_allclose(model.shift_prior_, prior)


# -- what is refused ------------------------------------------------------------------

ROWS = np.random.default_rng(0).normal(size=(20, 12))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"noise": "stationary"}, "noise='stationary' needs composition='add'"),
        ({"n_templates": 21}, "n_templates=21 needs as many images, but X has n_samples=20"),
        ({"n_templates": 0}, "n_templates"),
        ({"n_templates": 2, "init": "mean"}, "init='mean' would start all 2"),
        ({"n_templates": 2, "noise_std_init": 1.0}, "noise_std_init would start all 2"),
        ({"n_templates": 2, "template_init": np.ones((1, 6))}, r"shape \(2, 1, 6\)|\(2, 6\)"),
        ({"amplitude": "free", "shrinkage": "map"}, "shrinkage='map' has no mode"),
        ({"shift_prior": np.full(7, 0.5)}, "shift_prior must be prob.* sum is 3.5"),
        ({"shift_prior": np.full(3, 1 / 3)}, r"shift_prior must have shape \(7,\)"),
        (
            {"shift_prior": np.full(7, 1 / 7), "shift_prior_init": np.full(7, 1 / 7)},
            "both given",
        ),
        ({"composition": "under"}, "composition"),
        ({"amplitude": "wide"}, "amplitude"),
        ({"noise": "pink"}, "noise"),
        ({"cyclic": "yes"}, "cyclic"),
    ],
)
def test_combinations_without_meaning_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        ShiftedTemplateEM(**keywords).fit(ROWS)


def test_an_added_template_needs_complete_images():
    X = ROWS.copy()
    model = ShiftedTemplateEM(composition="add", max_iter=300, random_state=0).fit(X)
    X[0, 0] = np.nan
    for verb in (model.fit, model.predict, model.partial_fit, model.score):
        with pytest.raises(ValueError, match=r"NaN|missing"):
            verb(X)


@pytest.mark.parametrize(
    "change",
    [
        {"n_templates": 2},
        {"composition": "add"},
        {"amplitude": "free"},
        {"cyclic": True},
    ],
    ids=str,
)
def test_going_on_from_another_variant_is_an_error(change):
    model = ShiftedTemplateEM(random_state=0).fit(ROWS)
    model.set_params(warm_start=True, **change)
    for verb in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=next(iter(change))):
            verb(ROWS)
