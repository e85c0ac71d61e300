"""Images at the ends of the range of numbers."""

import numpy as np
import pytest

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
