import numpy as np
import pytest
from sklearn.decomposition import PCA

from skem import (
    BayesianGMM_MAP,
    ChainsDisplay,
    FiltersDisplay,
    ImputationDisplay,
    MixtureDisplay,
    ReconstructionDisplay,
    SegmentationDisplay,
    ShiftedTemplateEM,
    TemplateDisplay,
)


@pytest.mark.parametrize(
    ("display", "model", "needed"),
    [
        (TemplateDisplay, BayesianGMM_MAP(1), "a ShiftedTemplateEM"),
        (MixtureDisplay, PCA(2), "a mixture such as BayesianGMM_MAP"),
        (SegmentationDisplay, PCA(2), "a mixture such as BayesianGMM_MAP"),
        (FiltersDisplay, BayesianGMM_MAP(1), "a BernoulliRBMCD"),
        (ChainsDisplay, BayesianGMM_MAP(1), "a BernoulliRBMCD"),
        (ReconstructionDisplay, PCA(2), "an estimator with reconstruct"),
    ],
)
def test_the_wrong_estimator_is_named(display, model, needed):
    X = np.random.default_rng(0).random((40, 9))
    rows = () if display in (TemplateDisplay, FiltersDisplay) else (X,)
    message = f"{display.__name__} needs {needed}, but it was given {type(model).__name__}"
    with pytest.raises(TypeError, match=message):
        display.from_estimator(model.fit(X), *rows)


def test_images_and_masks_of_the_wrong_shape():
    X = np.random.default_rng(0).random((40, 9))
    template = ShiftedTemplateEM(2, image_shape=(3, 3), random_state=0).fit(X)
    with pytest.raises(
        ValueError, match=r"image must have the shape \(3, 3\), but .* \(4, 2\)"
    ):
        TemplateDisplay.from_estimator(template, np.ones((4, 2)))
    mixture = BayesianGMM_MAP(1).fit(X)
    with pytest.raises(ValueError, match=r"missing must have the shape \(40, 9\)"):
        ImputationDisplay.from_estimator(mixture, X, np.ones((40, 8), bool))
    with pytest.raises(ValueError, match=r"have 3 channels, but .* rows of 9 features"):
        SegmentationDisplay.from_estimator(mixture, np.ones((5, 4, 3)))
