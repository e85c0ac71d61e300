import numpy as np
import pytest

from skem.datasets import load_hidden_face, make_shifted_templates


def test_images_are_background_template_and_noise():
    data = make_shifted_templates(
        500, image_shape=(5, 9, 3), template_width=4, template_height=2, random_state=0
    )
    residual = data.X.reshape(500, 5, 9, 3) - data.background
    for image, shift in zip(residual, data.shifts, strict=True):
        row, column = divmod(shift, 6)
        place = np.s_[row : row + 2, column : column + 4]
        image[place] += data.background[place] - data.template
    np.testing.assert_allclose(residual.std(), 0.5, rtol=0.02)
    np.testing.assert_allclose(residual.mean(), 0, atol=0.01)
    assert set(data.shifts) == set(range(4 * 6))


def test_prior_absence_clipping_and_seed():
    prior = np.array([0.7, 0, 0.3])
    keywords = {
        "image_shape": (2, 4),
        "template_width": 2,
        "shift_prior": prior,
        "absent": 0.5,
        "clip": (-0.1, 0.2),
        "dtype": np.float32,
        "random_state": 1,
    }
    data = make_shifted_templates(2000, **keywords)
    share = np.bincount(data.shifts + 1, minlength=4) / 2000
    np.testing.assert_allclose(share, [0.5, 0.35, 0, 0.15], atol=0.04)
    assert data.X.dtype == np.float32
    assert data.X.min() == np.float32(-0.1)
    assert data.X.max() == np.float32(0.2)
    np.testing.assert_array_equal(data.X, make_shifted_templates(2000, **keywords).X)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"template_width": 61}, "does not fit"),
        ({"template": np.ones((2, 2, 3))}, "does not fit"),
        ({"shift_prior": [0.5, 0.5]}, "shift_prior must be 41"),
        ({"absent": 2.0}, "absent"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"dtype": np.uint8}, "clip"),
    ],
)
def test_bad_input_is_named(keywords, message):
    with pytest.raises(ValueError, match=message):
        make_shifted_templates(3, **keywords)


def test_hidden_face():
    data = load_hidden_face(50, noise_std=0)
    assert data.X.shape == (50, 100 * 200)
    assert data.template.shape == (100, 73)
    assert 0 <= data.X.min() < 30 < 220 < data.X.max() <= 255
    first = data.X[0].reshape(100, 200)
    d = data.shifts[0]
    np.testing.assert_array_equal(first[:, d : d + 73], data.template.astype(np.float32))
    noisy = load_hidden_face(20, noise_std=400).X
    assert np.mean((noisy == 0) | (noisy == 255)) > 0.7
