import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skem import BayesianGMM_MAP, SegmentationDisplay


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30), (20, 30, 1), (20, 30, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_segmentation(shape, dtype):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 40, shape)
    image[5:12, 10:20] += 150
    image = image.astype(dtype)
    model = BayesianGMM_MAP(2, random_state=0).fit(image.reshape(600, -1))
    display = SegmentationDisplay.from_estimator(model, image)
    display.figure_.canvas.draw()
    assert len(np.unique(display.segments[5:12, 10:20])) == 1
    # the outline of the block: its perimeter in pixels
    assert len(display.axes_[2].collections[0].get_segments()) == 2 * (7 + 10)
    with pytest.raises(ValueError, match="image must have the shape"):
        SegmentationDisplay.from_estimator(model, np.ones(5))


def test_uncertainty_of_pixels():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(12, 9, 3))
    image[4:8] += 2
    mixture = BayesianGMM_MAP(2, random_state=0)
    model = make_pipeline(StandardScaler(), mixture).fit(image.reshape(-1, 3))
    display = SegmentationDisplay.from_estimator(model, image, uncertainty=True)
    display.figure_.canvas.draw()
    proba = model.predict_proba(image.reshape(-1, 3))
    picture = display.axes_[3].images[0].get_array()
    np.testing.assert_allclose(picture.ravel(), 1 - proba.max(1), atol=1e-12)
    assert len(SegmentationDisplay.from_estimator(model, image).axes_) == 3
    assert repr(display) == "SegmentationDisplay(12 x 9 pixels, 2 segments)"
