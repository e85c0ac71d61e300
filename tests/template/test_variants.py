"""Several templates, amplitudes, added templates, stationary noise and periodic images.

The reference is the density of each class and shift as a dense Gaussian.
"""

from dataclasses import replace

import numpy as np
import pytest
import reference
from scipy.optimize import approx_fprime
from scipy.special import logsumexp, softmax
from scipy.stats import beta, dirichlet

from skem._base.passes import Passes
from skem._loop import em
from skem._rows.parts import InMemory
from skem.template._model import Params, Smoothness, lower_bound
from skem.template._places import amplitudes
from skem.template._starts import model_of
from skem.template._windows import Windows

FREE, ADD = {"free_amplitude": True}, {"additive": True}
COLORED = {"additive": True, "stationary": True}
# image shape, window, cyclic, number of templates, options, share of missing pixels
CASES = {
    "classes": ((2, 7), (2, 3), False, 2, {}, 0),
    "classes, 2d, color": ((3, 5, 2), (2, 2), False, 2, {}, 0),
    "classes, absent, missing": ((1, 8), (1, 3), False, 2, {"absent": True}, 0.2),
    "classes, concentration": (
        (1, 8),
        (1, 3),
        False,
        3,
        {"absent": True, "concentration": 1.7},
        0,
    ),
    "known prior": ((1, 7), (1, 3), False, 2, {"known": True, "concentration": 1.7}, 0),
    "known prior, absent": ((1, 7), (1, 3), False, 1, {"known": True, "absent": True}, 0),
    "cyclic": ((2, 7), (2, 3), True, 1, {}, 0),
    "cyclic, whole": ((1, 6), (1, 6), True, 2, {}, 0),
    "cyclic, 2d, missing": ((4, 5), (2, 3), True, 1, {}, 0.2),
    "free": ((2, 7), (2, 3), False, 1, FREE, 0),
    "free, classes, absent": ((1, 8), (1, 3), False, 2, {**FREE, "absent": True}, 0),
    "free, missing": ((2, 6), (2, 3), False, 2, FREE, 0.2),
    "free, cyclic, color": ((1, 5, 2), (1, 2), True, 1, FREE, 0),
    "add": ((2, 7), (2, 3), False, 1, ADD, 0),
    "add, classes, absent": ((1, 8), (1, 3), False, 2, {**ADD, "absent": True}, 0),
    "add, 2d, color": ((4, 5, 2), (2, 2), False, 1, ADD, 0),
    "add, free, cyclic": ((1, 8), (1, 3), True, 2, {**ADD, **FREE}, 0),
    "colored": ((2, 7), (2, 3), False, 1, COLORED, 0),
    "colored, even, classes, free": ((1, 8), (1, 3), False, 2, {**COLORED, **FREE}, 0),
    "colored, 2d, cyclic": ((4, 5), (2, 2), True, 1, COLORED, 0),
    "colored, absent": ((1, 8), (1, 3), False, 1, {**COLORED, "absent": True}, 0),
    "hard": ((1, 8), (1, 3), False, 2, {**FREE, "hard": True}, 0),
}


class Problem:
    """Random data, weights and parameters of a case, in both layouts."""

    def __init__(self, case, n=6, dtype=float):
        shape, window, self.cyclic, n_templates, options, missing = CASES[case]
        options = dict(options)
        rng = np.random.default_rng(0)
        self.full = (*shape, 1)[:3]
        self.additive = bool(options.get("additive"))
        level = 0 if self.additive else 3
        self.templates = level + rng.normal(size=(n_templates, *window, self.full[2]))
        self.background = 3 + rng.normal(size=self.full)
        windows = Windows(shape, window, self.cyclic)
        if options.pop("known", False):
            options["known_shifts"] = rng.dirichlet(np.full(windows.n_shifts, 5.0))
        shown, where = reference.patterns(self.templates, self.full, self.cyclic)
        chosen = rng.integers(len(shown), size=n)
        behind = self.background if self.additive else ~where[chosen] * self.background
        scale = rng.normal(1, 0.5, size=(n, 1, 1, 1)) if "free_amplitude" in options else 1
        images = behind + scale * shown[chosen] + rng.normal(scale=0.5, size=(n, *self.full))
        images[rng.uniform(size=images.shape) < missing] = np.nan
        self.X = images.reshape(n, -1).astype(dtype)
        self.images = self.X.astype(float).reshape(images.shape)
        self.weight = rng.uniform(0.5, 2, size=n)
        rows = InMemory(self.X, self.weight)
        self.model, _ = model_of(windows, rows, n_templates=n_templates, **options)
        self.passes = Passes(self.model, rows)
        model = self.model
        prior = rng.dirichlet(np.full(model.n_categories, 5.0))
        if model.known_shifts is not None:
            choices = rng.dirichlet(np.full(n_templates + model.absent, 5.0))
            present = np.outer(choices[:n_templates], model.known_shifts).ravel()
            prior = np.append(present, choices[n_templates:])
        spectrum = None
        if model.stationary:
            lines = rng.normal(
                size=windows.space
            )  # their spectrum has the symmetry of real noise
            spectrum = 0.3 + np.abs(windows.transform(lines)) ** 2 / lines.size
            spectrum /= windows.multiplicity @ spectrum / np.prod(windows.space)
        self.params = Params(
            model.of_template().to_centered(self.templates),
            model.to_centered(self.background),
            0.64,
            prior,
            rng.uniform(0.2, 0.6, size=n_templates) if model.free_amplitude else None,
            spectrum,
        )
        self.rows = model.rows(self.X, float)

    def log_joint(self, params):
        """log p(x, c, d) of the reference."""
        model, windows = self.model, self.model.windows
        power = np.full(len(windows.multiplicity), params.noise_var)
        if params.spectrum is not None:
            power = power * params.spectrum
        grid = power.reshape(*windows.space[:-1], -1)
        variance = params.amplitude_var
        return reference.variant_log_joint(
            self.images,
            model.of_template().to_image(params.template),
            model.to_image(params.background),
            reference.noise_covariance(grid, self.full, windows.n_axes),
            params.shift_prior,
            cyclic=self.cyclic,
            additive=self.additive,
            amplitude_var=np.zeros(len(params.template)) if variance is None else variance,
        )

    def objective(self, params, model=None):
        log_lik = self.weight @ logsumexp(self.log_joint(params), axis=1)
        return log_lik + (model or self.model).log_prior(params)


@pytest.fixture(params=CASES)
def problem(request):
    return Problem(request.param)


def test_log_joint_is_that_of_dense_gaussians(problem):
    found = problem.model.log_joint(problem.params, problem.rows)
    np.testing.assert_allclose(found, problem.log_joint(problem.params), rtol=1e-9, atol=1e-8)


def test_bound_is_that_of_the_density(problem):
    stats = problem.passes.total(problem.params)
    expected = problem.log_joint(problem.params)
    bound = logsumexp(expected, axis=1)
    if problem.model.hard:
        bound = lower_bound(expected, problem.model.posterior(expected))
    np.testing.assert_allclose(stats.log_lik, problem.weight @ bound, rtol=1e-9)


def test_objective_never_decreases(problem):
    run = em(problem.model, problem.passes.total, problem.params, max_iter=60)
    gains = np.diff(run.objectives)
    assert gains.min() > -1e-10 * abs(run.objectives[0])
    assert run.objectives[-1] > run.objectives[0]


def test_statistics_of_a_union_are_the_sum(problem):
    model, params = problem.model, problem.params
    parts = [slice(0, 2), slice(2, 3), slice(3, 6)]
    one_by_one = [
        model.e_step(params, model.rows(problem.X[p], float), problem.weight[p]) for p in parts
    ]
    total = one_by_one[0] + one_by_one[1] + one_by_one[2]
    whole = model.e_step(params, problem.rows, problem.weight)
    for name, value in vars(whole).items():
        if value is None:
            assert getattr(total, name) is None
            continue
        np.testing.assert_allclose(
            np.broadcast_to(getattr(total, name), np.shape(value)), value, atol=1e-9
        )


@pytest.mark.parametrize("case", ["classes", "free, missing", "add, free, cyclic", "colored"])
def test_float32_agrees_with_float64(case):
    exact, single = Problem(case), Problem(case, dtype=np.float32)
    a, b = exact.passes.total(exact.params), single.passes.total(exact.params)
    for name, value in vars(a).items():
        if value is not None:
            np.testing.assert_allclose(getattr(b, name), value, rtol=1e-4, atol=1e-3)


def free_parameters(params, model):
    """The parameters as one vector, and the function that goes back."""
    free = params.shift_prior > 1e-6
    power = np.array([params.noise_var])
    if params.spectrum is not None:
        power = params.noise_var * params.spectrum
    values = [params.template.ravel(), params.background.ravel(), np.log(power)]
    if params.amplitude_var is not None:
        values.append(np.log(params.amplitude_var))
    if model.known_shifts is None:
        values.append(np.log(params.shift_prior[free]))
    ends = np.cumsum([len(v) for v in values])[:-1]

    def back(theta):
        template, background, log_power, *rest = np.split(theta, ends)
        new = replace(
            params,
            template=template.reshape(params.template.shape),
            background=background.reshape(params.background.shape),
            noise_var=np.exp(log_power[0]),
        )
        if params.spectrum is not None:
            new = replace(new, noise_var=1.0, spectrum=np.exp(log_power))
        if params.amplitude_var is not None:
            new = replace(new, amplitude_var=np.exp(rest[0]))
        if model.known_shifts is None:
            prior = params.shift_prior.copy()
            prior[free] = softmax(rest[-1]) * prior[free].sum()
            new = replace(new, shift_prior=prior)
        return new

    return np.concatenate(values), back


# A smoothness prior with free amplitudes is refused.
SMOOTH = (
    "classes, 2d, color",
    "classes, absent, missing",
    "cyclic",
    "add, 2d, color",
    "colored",
)
SLOW = ("colored, even, classes, free", "add, free, cyclic", "classes, 2d, color")


@pytest.mark.parametrize(
    ("case", "smooth"),
    [
        pytest.param(case, smooth, marks=[pytest.mark.slow] if case in SLOW else [])
        for case in CASES
        for smooth in (False, True)
        if case != "hard" and (case in SMOOTH or not smooth)
    ],
)
def test_gradient_vanishes_at_the_fixed_point(case, smooth):
    problem = Problem(case, n=12)
    model = problem.model
    if smooth:
        rng = np.random.default_rng(1)
        shapes = [(model.n_templates, *model.windows.window_shape, problem.full[2])]
        template, background = (
            rng.uniform(0.05, 2, size=shape) for shape in (*shapes, problem.full)
        )
        model = replace(
            model, smoothness=Smoothness(template, None if model.additive else background)
        )
    passes = Passes(model, InMemory(problem.X, problem.weight))
    run = em(model, passes.total, problem.params, max_iter=3000, tol=1e-14)
    params = run.state[0]
    theta, back = free_parameters(params, model)
    gradient = approx_fprime(theta, lambda t: problem.objective(back(t), model), 1e-6)
    np.testing.assert_allclose(gradient, 0, atol=5e-3)


@pytest.mark.parametrize("case", [c for c in CASES if "free" in c])
def test_amplitudes_are_posterior_means(case):
    """Against a sum over a fine grid of amplitudes."""
    problem = Problem(case)
    params, model = problem.params, problem.model
    grid = np.linspace(-5, 7, 601)
    mass, moment = 0.0, 0.0
    for g in grid:
        scaled = replace(
            params,
            template=model.of_template().to_centered(g * problem.templates),
            amplitude_var=np.zeros(model.n_templates),
        )
        joint = model.log_joint(scaled, problem.rows)[:, : model.n_present]
        std = np.sqrt(params.amplitude_var).repeat(model.windows.n_shifts)
        density = np.exp(joint - ((g - 1) / std) ** 2 / 2 + 20) / std
        mass, moment = mass + density.sum(1), moment + g * density.sum(1)
    np.testing.assert_allclose(
        amplitudes(model, params, problem.rows), moment / mass, rtol=1e-5
    )


def test_prior_density_is_a_tree_of_dirichlet_distributions():
    problem = Problem("classes, concentration")
    model, prior = problem.model, problem.params.shift_prior
    shifts = prior[:-1].reshape(3, -1)
    classes = shifts.sum(1)
    expected = beta.logpdf(prior[-1], 1.7, 1.7)
    expected += dirichlet.logpdf(classes / classes.sum(), np.full(3, 1.7))
    for one in shifts:
        expected += dirichlet.logpdf(one / one.sum(), np.full(len(one), 1.7))
    np.testing.assert_allclose(model.log_prior(problem.params), expected)


def test_a_known_prior_has_no_density():
    problem = Problem("known prior")
    choice = problem.params.shift_prior.reshape(2, -1).sum(1)
    expected = dirichlet.logpdf(choice, np.full(2, 1.7))
    np.testing.assert_allclose(problem.model.log_prior(problem.params), expected)
