"""The steps of EM as public functions."""

import numpy as np
import pytest
import reference
from scipy.special import logsumexp, softmax

from skem import ShiftedTemplateEM
from skem.datasets import make_shifted_templates
from skem.template import TemplateParams, e_step, log_joint, lower_bound, m_step

SHAPES = {
    "columns": ((3, 7), (3, 3)),
    "2d": ((5, 6), (2, 3)),
    "color": ((3, 6, 3), (3, 2, 3)),
    "2d, color": ((4, 5, 2), (2, 2, 2)),
}


def problem(case, absent=False):
    shape, window = SHAPES[case]
    rng = np.random.default_rng(0)
    shifts = (shape[0] - window[0] + 1) * (shape[1] - window[1] + 1)
    prior = rng.dirichlet(np.ones(shifts + absent))
    params = TemplateParams(rng.normal(size=window), rng.normal(size=shape), 0.7, prior)
    return 3 + rng.normal(size=(5, *shape)), params


def full(image):
    return image if image.ndim == 3 else image[..., None]


def expected_joint(X, params):
    images = X if X.ndim == 4 else X[..., None]
    return reference.log_joint(
        images, full(params.template), full(params.background), *params[2:]
    )


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("case", SHAPES)
def test_steps_are_the_formulas(case, absent):
    X, params = problem(case, absent)
    X[0, 0, :2] = np.nan
    joint = expected_joint(X, params)
    np.testing.assert_allclose(log_joint(X, *params), joint, rtol=1e-10)
    q = e_step(X, *params)
    np.testing.assert_allclose(q, softmax(joint, axis=1), atol=1e-12)
    hard = e_step(X, *params, hard=True)
    np.testing.assert_array_equal(hard, np.eye(joint.shape[1])[joint.argmax(1)])
    np.testing.assert_allclose(lower_bound(X, q, *params), logsumexp(joint, axis=1).sum())
    q = np.random.default_rng(1).dirichlet(np.ones(joint.shape[1]), size=5)
    bound = (q * (joint - np.log(q))).sum()
    np.testing.assert_allclose(lower_bound(X, q, *params), bound)
    new = m_step(X, q, params.template, params.background)
    images = X if X.ndim == 4 else X[..., None]
    expected = reference.m_step(
        images, np.ones(5), q, full(params.template), full(params.background)
    )
    for found, other in zip(new, expected, strict=True):
        np.testing.assert_allclose(np.ravel(found), np.ravel(other), rtol=1e-9, atol=1e-10)
    assert new.template.shape == params.template.shape
    assert new.background.shape == params.background.shape


def test_check_values_of_the_exercise():
    """Images are on the last axis in the source."""
    X = np.arange(12.0).reshape(2, 3, 2).transpose(2, 0, 1)
    template, background = np.arange(2.0).reshape(2, 1), np.arange(6.0).reshape(2, 3)
    prior = np.array([1, 2, 3]) / 6
    q = np.arange(1, 7.0).reshape(3, 2)
    q = (q / q.sum(0)).T
    found = log_joint(X, template, background, 0.1, prior) - np.log(prior)
    expected = [
        [-3541.69812064, -4541.69812064, -6141.69812064],
        [-5541.69812064, -6741.69812064, -8541.69812064],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    bound = lower_bound(X, q, template, background, 0.1, prior)
    np.testing.assert_allclose(bound, -12761.1875, rtol=1e-9)
    posterior = e_step(X, template, background, 0.1, prior)
    np.testing.assert_allclose(posterior, [[1, 0, 0], [1, 0, 0]], atol=1e-12)
    new = m_step(X, q, template, background)
    np.testing.assert_allclose(new.template, [[3.27777778], [9.27777778]], rtol=1e-8)
    b = [[0.48387097, 2.5, 4.52941176], [6.48387097, 8.5, 10.52941176]]
    np.testing.assert_allclose(new.background, b, rtol=1e-8)
    np.testing.assert_allclose(new.noise_std, 0.94868, rtol=1e-5)
    np.testing.assert_allclose(new.shift_prior, [0.13888889, 0.33333333, 0.52777778], rtol=1e-7)


@pytest.mark.parametrize("concentration", [1.0, 1.1])
def test_steps_by_hand_are_the_fit(concentration):
    data = make_shifted_templates(
        80, image_shape=(4, 20), template_width=6, noise_std=1.0, random_state=0
    )
    X = data.X.reshape(-1, 4, 20)
    params = TemplateParams(X[0, :, 3:9], X.mean(0), 1.0, np.full(15, 1 / 15))
    model = ShiftedTemplateEM(
        6,
        template_init=params.template,
        background_init=params.background,
        noise_std_init=params.noise_std,
        shift_prior_init=params.shift_prior,
        shift_concentration_prior=concentration,
        max_iter=7,
        tol=0,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(X)
    for _ in range(7):
        params = m_step(
            X, e_step(X, *params), *params[:2], shift_concentration_prior=concentration
        )
    np.testing.assert_allclose(params.template, model.template_)
    np.testing.assert_allclose(params.background, model.background_)
    np.testing.assert_allclose(params.noise_std, model.noise_std_)
    np.testing.assert_allclose(params.shift_prior, model.shift_prior_)


def test_bad_arguments_are_named():
    X, params = problem("columns")
    F, B, s, a = params
    q = np.full((5, 5), 0.2)
    for arguments, message in (
        ((X[0], F, B, s, a), "X must be images"),
        ((X, F, B[:, :-1], s, a), "background"),
        ((X, F[0], B, s, a), "template must have the axes"),
        ((X, np.ones((3, 9)), B, s, a), "template_width=9"),
        ((X, F, B, s, a[:-1]), "5 shifts, but there are 4"),
        ((X, F, B, 0.0, a), "noise_std"),
        ((X, F, B, s, 2 * a), "shift_prior .* sum 2"),
        ((X, F, np.inf * B, s, a), "background has values"),
    ):
        with pytest.raises(ValueError, match=message):
            log_joint(*arguments)
        with pytest.raises(ValueError, match=message):
            e_step(*arguments)
    with pytest.raises(ValueError, match="posterior must have shape"):
        lower_bound(X, q[:, 1:], *params)
    with pytest.raises(ValueError, match="posterior must have a row"):
        m_step(X, 2 * q, F, B)
    with pytest.raises(ValueError, match="5 images, but posterior has 4"):
        m_step(X, q[:4], F, B)
    with pytest.raises(ValueError, match="at least 1"):
        m_step(X, q, F, B, shift_concentration_prior=0.5)
