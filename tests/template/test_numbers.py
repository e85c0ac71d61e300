"""Images at the ends of the range of numbers."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skem import ShiftedTemplateEM
from skem.datasets import make_shifted_templates


@pytest.fixture(scope="module")
def data():
    return make_shifted_templates(
        80, image_shape=(1, 30), template_width=6, noise_std=0.3, random_state=0
    )


@pytest.mark.parametrize("size", [1e12, 1e100, 1e154, 1e200, 1e300])
@pytest.mark.parametrize("absent", [False, True])
def test_images_far_away_have_the_limit(data, absent, size):
    """The shift whose template points most along the image has probability 1."""
    model = ShiftedTemplateEM(6, absent=absent, random_state=0).fit(data.X)
    X = data.X[:10] / np.abs(data.X[:10]).max()
    clean = [model.inverse_transform(row[None])[0] for row in np.eye(len(model.shift_prior_))]
    expected = (X @ np.transpose(clean)).argmax(1)
    posterior = model.predict_proba(size * X)
    np.testing.assert_allclose(posterior.max(1), 1)
    np.testing.assert_array_equal(posterior.argmax(1), expected)
    assert not np.isnan(model.log_joint(size * X)).any()
    holes = np.where(np.arange(X.shape[1]) % 7 == 0, np.nan, size * X)
    for rows in (size * X, holes):
        assert not np.isnan(model.score_samples(rows)).any()
        assert not np.isnan(model.score(rows))
        assert np.isfinite(model.predict_proba(rows)).all()
        assert np.isfinite(model.align(rows)).all()
        assert np.isfinite(model.impute(rows)).all()


@pytest.mark.parametrize("absent", [False, True])
def test_windows_of_the_largest_images_are_those_of_smaller_ones(data, absent):
    model = ShiftedTemplateEM(6, absent=absent, random_state=0).fit(data.X)
    X = data.X[:10] / np.abs(data.X[:10]).max()
    holes = np.where(np.arange(X.shape[1]) % 7 == 0, np.nan, X)
    for rows in (X, holes):
        expected = model.align(1e200 * rows) * 1e-200
        for size in (1e291, 1e308, np.finfo(float).max):
            np.testing.assert_allclose(model.align(size * rows) / size, expected, atol=1e-12)


def test_images_without_a_template_have_windows():
    """The probability of absence is 1: what is left is that of the nearest shift."""
    model = ShiftedTemplateEM(2, absent=True, random_state=0)
    model.fit(np.random.default_rng(0).normal(size=(30, 6)))
    model.template_, model.background_ = np.full((1, 2), 3.0), np.zeros((1, 6))
    for size in (1e3, 1e12, 1e200, 1e308):
        X = -size * np.array([[1, 1, 0.1, 0.2, 1, 1]])
        assert model.predict_proba(X)[0, -1] == 1
        np.testing.assert_allclose(model.align(X), X[:, 2:4], rtol=1e-6)


def test_a_noise_at_its_limit_is_told(data):
    """Huge pixels set the scale of the images; the noise of the others is small beside it."""
    X = np.hstack([data.X, np.full((len(data.X), 1), 1e9)])
    with pytest.warns(ConvergenceWarning, match="a few of their pixels are much larger"):
        model = ShiftedTemplateEM(6, random_state=0).fit(X)
    assert model.noise_std_ > 1.1 * 0.3  # that of the images
    one = ShiftedTemplateEM(6, random_state=0)
    with pytest.warns(ConvergenceWarning, match="too few"):
        one.fit(data.X[:1])


@pytest.mark.filterwarnings("ignore:noise_std_ is at its lower limit")
def test_noise_whose_square_underflows():
    model = ShiftedTemplateEM(max_iter=3, random_state=0)
    model.fit(np.array([[0.0], [1.0]]), sample_weight=[1e-320, 1])
    assert np.isfinite(model.predict_proba([[0.0], [1.0]])).all()
