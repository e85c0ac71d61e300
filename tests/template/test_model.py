"""The E and M steps against the published check values and a plain reference."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from scipy.optimize import approx_fprime
from scipy.special import logsumexp
from scipy.stats import beta, dirichlet

from skem._base.passes import Passes
from skem._loop import em
from skem._rows.parts import InMemory
from skem.datasets import make_shifted_templates
from skem.template._model import (
    Params,
    ShiftedTemplate,
    Smoothness,
    lower_bound,
)
from skem.template._moves import (
    _by_background,
    _by_template,
    follow_moves,
    moved,
)
from skem.template._starts import model_of, search
from skem.template._windows import Windows

# image shape, window shape, options, share of missing pixels
CASES = {
    "columns": ((3, 7), (3, 3), {}, 0.0),
    "narrow": ((1, 8), (1, 1), {}, 0.0),
    "full": ((2, 5), (2, 5), {}, 0.0),
    "color": ((3, 6, 3), (3, 2), {}, 0.0),
    "2d": ((5, 6), (2, 3), {}, 0.0),
    "2d, color": ((4, 5, 2), (2, 2), {}, 0.0),
    "absent": ((3, 7), (3, 3), {"absent": True}, 0.0),
    "2d, absent": ((4, 5), (2, 3), {"absent": True}, 0.0),
    "missing": ((3, 7), (3, 3), {}, 0.2),
    "2d, color, absent, missing": ((4, 5, 2), (2, 3), {"absent": True}, 0.2),
    "hard": ((3, 7), (3, 3), {"hard": True}, 0.0),
    "concentration": ((3, 7), (3, 3), {"concentration": 1.7}, 0.0),
    "absent, concentration": ((3, 7), (3, 3), {"absent": True, "concentration": 1.7}, 0.0),
}


class Problem:
    """Random data, weights and parameters of a case, in both layouts."""

    def __init__(self, case, dtype=np.float64, n=6, seed=0):
        shape, window, options, missing = CASES[case]
        rng = np.random.default_rng(seed)
        full = (*shape, 1)[:3]
        self.template = 3 + rng.normal(size=(*window, full[2]))
        self.background = 3 + rng.normal(size=full)
        windows = Windows(shape, window)
        clean = reference.means(self.template, self.background)
        self.images = clean[rng.integers(len(clean), size=n)]
        self.images = self.images + rng.normal(scale=0.5, size=self.images.shape)
        self.images[rng.uniform(size=self.images.shape) < missing] = np.nan
        self.X = self.images.reshape(n, -1).astype(dtype)
        self.weight = rng.uniform(0.5, 2, size=n)
        self.model, _ = model_of(windows, InMemory(self.X, self.weight), **options)
        self.noise_std = 0.8
        self.prior = rng.dirichlet(np.full(self.model.n_categories, 5.0))
        self.params = self.centered(self.template, self.background)
        self.passes = Passes(self.model, InMemory(self.X, self.weight))

    def centered(self, template, background) -> Params:
        to = self.model.to_centered
        return Params(to(template)[None], to(background), self.noise_std**2, self.prior)

    def user(self, params: Params):
        to = self.model.to_image
        return (
            to(params.template[0]),
            to(params.background),
            np.sqrt(params.noise_var),
            params.shift_prior,
        )

    def log_posterior_density(self, params: Params, model: ShiftedTemplate) -> float:
        joint = reference.log_joint(self.images, *self.user(params))
        return float(self.weight @ logsumexp(joint, axis=1)) + model.log_prior(params)


def numbers(stats):
    """Return the statistics that the model has."""
    return {name: value for name, value in vars(stats).items() if value is not None}


@pytest.fixture(params=CASES)
def problem(request):
    return Problem(request.param)


def test_published_check_values():
    X = np.arange(12.0).reshape(2, 3, 2)
    model = ShiftedTemplate(Windows((2, 3), (2, 1)), np.array([3.0, 4.0]), 1.0)
    params = Params(
        np.arange(2.0).reshape(1, 2, 1) - [[3], [4]],
        np.arange(6.0).reshape(2, 3) - [[3], [4]],
        0.01,
        np.array([1, 2, 3]) / 6,
    )
    posterior = np.arange(1, 7.0).reshape(3, 2)
    posterior = (posterior / posterior.sum(0)).T
    rows = model.rows(X.transpose(2, 0, 1).reshape(2, 6), float)
    joint = model.log_joint(params, rows)
    expected = [
        [-3541.69812064, -4541.69812064, -6141.69812064],
        [-5541.69812064, -6741.69812064, -8541.69812064],
    ]
    np.testing.assert_allclose(joint - np.log(params.shift_prior), expected, rtol=1e-11)
    bound = lower_bound(joint, posterior).sum()
    np.testing.assert_allclose(bound, -12761.1875, rtol=1e-9)
    np.testing.assert_allclose(model.posterior(joint), [[1, 0, 0], [1, 0, 0]], atol=1e-12)
    new = model.m_step(params, model.given_posterior(rows, np.ones(2), posterior))
    template = new.template[0] + model.center[:, None]
    background = new.background + model.center[:, None]
    np.testing.assert_allclose(template, [[3.27777778], [9.27777778]], rtol=1e-8)
    np.testing.assert_allclose(
        background,
        [[0.48387097, 2.5, 4.52941176], [6.48387097, 8.5, 10.52941176]],
        rtol=1e-8,
    )
    np.testing.assert_allclose(np.sqrt(new.noise_var), 0.94868, rtol=1e-5)
    np.testing.assert_allclose(new.shift_prior, [0.13888889, 0.33333333, 0.52777778], rtol=1e-7)


def test_log_joint_is_that_of_the_formula(problem):
    rows = problem.model.rows(problem.X, float)
    found = problem.model.log_joint(problem.params, rows)
    expected = reference.log_joint(problem.images, *problem.user(problem.params))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-9)


def test_m_step_is_that_of_the_formula(problem):
    model = replace(problem.model, concentration=1.0)
    rows = model.rows(problem.X, float)
    posterior = model.posterior(model.log_joint(problem.params, rows))
    stats = model.given_posterior(rows, problem.weight, posterior)
    found = problem.user(model.m_step(problem.params, stats))
    start = problem.template, problem.background
    expected = reference.m_step(problem.images, problem.weight, posterior, *start)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_statistics_of_a_union_are_the_sum(problem):
    model, params = problem.model, problem.params
    parts = [slice(0, 2), slice(2, 3), slice(3, 6)]
    one_by_one = [
        model.e_step(params, model.rows(problem.X[p], float), problem.weight[p]) for p in parts
    ]
    total = one_by_one[0] + one_by_one[1] + one_by_one[2]
    whole = model.e_step(params, model.rows(problem.X, float), problem.weight)
    for name, value in numbers(whole).items():
        np.testing.assert_allclose(
            np.broadcast_to(getattr(total, name), np.shape(value)),
            value,
            rtol=1e-10,
            atol=1e-10,
            err_msg=name,
        )


def test_weights_are_repeats(problem):
    model, params = problem.model, problem.params
    repeats = np.array([1, 3, 0, 2, 1, 1])
    X = problem.X.repeat(repeats, axis=0)
    repeated = model.e_step(params, model.rows(X, float), np.ones(len(X)))
    weighted = model.e_step(params, model.rows(problem.X, float), repeats.astype(float))
    for name, value in numbers(repeated).items():
        other = getattr(weighted, name)
        np.testing.assert_allclose(value, other, rtol=1e-9, atol=1e-9, err_msg=name)


def test_objective_never_decreases(problem):
    run = em(problem.model, problem.passes.total, problem.params, max_iter=60)
    gains = np.diff(run.objectives)
    assert gains.min() > -1e-10 * abs(run.objectives[0])
    assert run.objectives[-1] > run.objectives[0]


def smoothness_for(problem, rng):
    shapes = [(*problem.model.windows.window_shape, 1), problem.model.windows.full_shape]
    channels = problem.model.windows.full_shape[2]
    shapes[0] = (*problem.model.windows.window_shape, channels)
    return Smoothness(*(rng.uniform(0.05, 2, size=shape) for shape in shapes))


@pytest.mark.parametrize("smooth", [False, True], ids=["flat", "smooth"])
@pytest.mark.parametrize("case", [c for c in CASES if c != "hard"])
def test_gradient_vanishes_at_the_fixed_point(case, smooth):
    problem = Problem(case, n=9)
    model = problem.model
    if smooth:
        model = replace(model, smoothness=smoothness_for(problem, np.random.default_rng(1)))
    run = em(model, problem.passes.total, problem.params, max_iter=20_000, tol=1e-15)
    passes = Passes(model, InMemory(problem.X, problem.weight))
    run = em(model, passes.total, run.state[0], max_iter=20_000, tol=1e-15)
    params = run.state[0]
    free = params.shift_prior > 1e-6

    def density(theta):
        template, background, rest = np.split(
            theta, np.cumsum([params.template.size, params.background.size])
        )
        prior = params.shift_prior.copy()
        prior[free] = np.exp(rest[1:]) / np.exp(rest[1:]).sum() * prior[free].sum()
        moved_params = Params(
            template.reshape(params.template.shape),
            background.reshape(params.background.shape),
            np.exp(rest[0]),
            prior,
        )
        return problem.log_posterior_density(moved_params, model)

    theta = np.concatenate(
        [
            params.template.ravel(),
            params.background.ravel(),
            [np.log(params.noise_var)],
            np.log(params.shift_prior[free]),
        ]
    )
    gradient = approx_fprime(theta, density, 1e-6)
    seen = np.ones(len(theta), bool)
    if not smooth:
        stats = run.state[1]
        for den, offset, lines in (
            (stats.template_den, 0, params.template),
            (stats.background_den, params.template.size, params.background),
        ):
            seen_lines = np.broadcast_to(den > 1e-6, lines.shape).ravel()
            seen[offset : offset + lines.size] = seen_lines
    # the M step weighs data of about 9 * 20 pixels; forward differences are good to 1e-4
    np.testing.assert_allclose(gradient[seen], 0, atol=5e-3)
    off = density(theta + 0.05 * np.sign(np.sin(np.arange(len(theta)))))
    assert off < density(theta) - 0.05


def test_dirichlet_prior_is_normalized():
    problem = Problem("concentration")
    expected = dirichlet.logpdf(problem.prior, np.full(len(problem.prior), 1.7))
    np.testing.assert_allclose(problem.model.log_prior(problem.params), expected)


def test_prior_of_absence_is_normalized():
    """Absence is one choice; the shift, if present, is another."""
    problem = Problem("absent, concentration")
    present, absent = problem.prior[:-1], problem.prior[-1]
    expected = dirichlet.logpdf(present / present.sum(), np.full(len(present), 1.7))
    expected += beta.logpdf(absent, 1.7, 1.7)
    np.testing.assert_allclose(problem.model.log_prior(problem.params), expected)


def test_smoothness_prior_is_normalized():
    """In one pixel of template and background the prior is two normal densities."""
    windows = Windows((1, 1), (1, 1))
    smoothness = Smoothness(np.full((1, 1, 1), 0.7), np.full((1, 1, 1), 2.0))
    model = ShiftedTemplate(windows, np.zeros(1), 1.0, smoothness=smoothness)
    params = Params(np.full((1, 1, 1), 0.3), np.full((1, 1), -1.1), 1.0, np.ones(1))
    expected = -0.5 * (np.log(2 * np.pi * 0.7) + 0.09 / 0.7)
    expected += -0.5 * (np.log(2 * np.pi * 2.0) + 1.21 / 2.0)
    np.testing.assert_allclose(model.log_prior(params), expected)


@pytest.mark.parametrize("case", ["columns", "2d, color", "missing", "absent"])
def test_float32_agrees_with_float64(case):
    exact, single = Problem(case), Problem(case, dtype=np.float32)
    a = exact.passes.total(exact.params)
    b = single.passes.total(single.params)
    assert b.background_num.dtype == np.float64
    for name, value in numbers(a).items():
        np.testing.assert_allclose(getattr(b, name), value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_float32_with_little_noise_computes_in_float64():
    problem = Problem("columns", dtype=np.float32)
    quiet = replace(problem.params, noise_var=1e-5 * problem.model.mean_square)
    assert problem.model.dtype_for(problem.params, np.float32) == np.float32
    assert problem.model.dtype_for(quiet, np.float32) == np.float64
    exact = problem.model.e_step(
        quiet, problem.model.rows(problem.X, np.float64), problem.weight
    )
    np.testing.assert_allclose(problem.passes.total(quiet).log_lik, exact.log_lik, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "window", "step"),
    [((6, 40), (6, 12), (4,)), ((20, 24), (8, 8), (3, -2))],
    ids=["columns", "2d"],
)
def test_shift_move_undoes_a_common_shift(shape, window, step):
    data = make_shifted_templates(
        200,
        image_shape=shape,
        template_height=window[0],
        template_width=window[1],
        random_state=0,
    )
    weight = np.ones(200)
    model, _ = model_of(Windows(shape, window), InMemory(data.X, weight))
    passes = Passes(model, InMemory(data.X, weight))
    truth = Params(
        model.to_centered(data.template[None, ..., None]),
        model.to_centered(data.background[..., None]),
        0.25,
        np.full(model.n_categories, 1 / model.n_categories),
    )
    best = em(model, passes.total, truth, max_iter=100, tol=1e-6)
    off = moved(model, passes, best.state[0], step)
    stuck = em(model, passes.total, off, max_iter=0)
    assert stuck.objectives[-1] < best.objectives[-1] - 1

    def run_from(params, max_iter):
        return em(model, passes.total, params, max_iter=max_iter, tol=1e-6)

    rows = InMemory(data.X, weight)
    moves = follow_moves(model, passes, stuck, rows, 1e-4, 200, run_from, anneal=False)
    *_, freed = moves
    np.testing.assert_allclose(freed.objectives[-1], best.objectives[-1], atol=1e-2)


def test_moves_are_ranked_by_the_sum_of_squares_they_leave():
    """Against the M step done for each move, where no window leaves the image."""
    for shape, window in (((3, 30), (3, 6)), ((9, 13), (4, 5))):
        windows = Windows(shape, window)
        rng = np.random.default_rng(0)
        X = rng.normal(size=(30, shape[0] * shape[1]))
        model, _ = model_of(windows, InMemory(X))
        present = np.zeros((30, *windows.shifts))
        middle = tuple(n // 2 for n in windows.shifts)
        for k in range(30):
            jitter = rng.integers(-1, 2, size=len(middle))
            present[(k, *(m + j for m, j in zip(middle, jitter, strict=True)))] = 1
        lines = model.centered(X, float, missing=False)
        reach = tuple(min(2, m - 2) for m in middle)
        found = _by_background(windows, lines, np.ones(30), present, reach)
        by_template = _by_template(windows, lines, present)
        for index in np.ndindex(found.shape):
            move = [i - r for i, r in zip(index, reach, strict=True)]
            q = np.roll(present, move, axis=tuple(range(1, present.ndim)))
            stats = model.given_posterior(model.rows(X, float), np.ones(30), q.reshape(30, -1))
            explained = (stats.template_num**2 / stats.template_den).sum()
            den = np.broadcast_to(stats.background_den, stats.background_num.shape)
            num = stats.background_num
            explained += (num[den > 1e-2] ** 2 / den[den > 1e-2]).sum()
            place = tuple(n - 1 + m for n, m in zip(windows.shifts, move, strict=True))
            total = found[index] + by_template[place]
            np.testing.assert_allclose(total, explained, rtol=1e-9)


def test_no_start_rules_out_a_shift():
    """Images beyond the sample may have shifts that no image of the sample has."""
    data = make_shifted_templates(20, image_shape=(4, 60), template_width=6, random_state=0)
    sample = InMemory(data.X)
    model, span = model_of(Windows((4, 60), (4, 6)), sample)
    rng = np.random.RandomState(0)
    for kind in ("mean", "shrunk", "posterior", "window", "random"):
        params, found, interrupted = search(model, sample, [kind], span, rng, None)
        assert (found, interrupted) == (kind, False)
        assert params.shift_prior.min() > 1e-3
        np.testing.assert_allclose(params.shift_prior.sum(), 1)
