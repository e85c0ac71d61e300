import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.impute import KNNImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, MinMaxScaler

from skem import BernoulliRBMCD, ChainsDisplay, FiltersDisplay, ImputationDisplay, VAEEstimator


@pytest.fixture(scope="module")
def machine():
    X = (load_digits().data > 7).astype(float)
    return BernoulliRBMCD(6, n_iter=2, random_state=0).fit(X), X


def test_filters(machine):
    model, _ = machine
    display = FiltersDisplay.from_estimator(model, image_shape=(4, 16))
    assert display.images.shape == (2, 3, 4, 16)
    np.testing.assert_array_equal(display.images[1, 2].ravel(), model.components_[5])
    strongest = (model.components_**2).sum(1).argmax()
    one = FiltersDisplay.from_estimator(model, n_filters=1)
    np.testing.assert_array_equal(one.images.ravel(), model.components_[strongest])
    one.figure_.canvas.draw()
    with pytest.raises(ValueError, match="image_shape"):
        FiltersDisplay.from_estimator(model, image_shape=(5, 5))


def test_chains(machine):
    model, X = machine
    _, ax = plt.subplots()
    display = ChainsDisplay.from_estimator(
        model, X[:3], n_steps=(0, 2, 5), random_state=0, ax=ax, cmap="viridis"
    )
    assert display.ax_ is ax
    np.testing.assert_array_equal(display.images[:, 0].reshape(3, 64), X[:3])
    rng = np.random.RandomState(0)
    after = model.gibbs(model.gibbs(X[:3], 2, rng), 3, rng)
    np.testing.assert_array_equal(display.images[:, 2].reshape(3, 64), after)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "2", "5"]
    with pytest.raises(ValueError, match="n_steps"):
        ChainsDisplay.from_estimator(model, X[:3], n_steps=(5, 2))


def test_imputation(machine):
    model, X = machine
    missing = np.random.default_rng(0).random((4, 64)) < 0.5
    display = ImputationDisplay.from_estimator(model, X[:4], missing)
    seen, completed, true = display.images.reshape(3, 4, 64)
    np.testing.assert_array_equal(np.isnan(seen), missing)
    np.testing.assert_array_equal(completed[~missing], X[:4][~missing])
    np.testing.assert_array_equal(true, X[:4])
    assert ((completed[missing] > 0) & (completed[missing] < 1)).all()
    # images with holes, without the truth
    own = ImputationDisplay.from_estimator(model, np.where(missing, np.nan, X[:4]))
    np.testing.assert_array_equal(own.images, display.images[:2])
    assert [text.get_text() for text in own.ax_.get_yticklabels()] == ["seen", "completed"]
    imputer = KNNImputer().fit(X[10:60])
    assert ImputationDisplay.from_estimator(imputer, X[:4], missing).images.shape[0] == 3


def test_pipelines_show_what_the_machine_gets(machine):
    X = load_digits().data
    model = make_pipeline(Binarizer(threshold=7), BernoulliRBMCD(6, n_iter=2, random_state=0))
    model.fit(X)
    assert FiltersDisplay.from_estimator(model).images.shape == (2, 3, 8, 8)
    chains = ChainsDisplay.from_estimator(model, X[:3], n_steps=(0, 1))
    np.testing.assert_array_equal(chains.images[:, 0].reshape(3, 64), X[:3] > 7)
    assert repr(chains) == "ChainsDisplay(3 x 2 images of 8 x 8 pixels)"
    missing = np.random.default_rng(0).random((4, 64)) < 0.5
    shown = ImputationDisplay.from_estimator(model, X[:4], missing)
    np.testing.assert_array_equal(shown.images[2].reshape(4, 64), X[:4] > 7)
    imputer = make_pipeline(MinMaxScaler(), KNNImputer()).fit(X[:60])
    scaled = MinMaxScaler().fit(X[:60]).transform(X[:4])
    shown = ImputationDisplay.from_estimator(imputer, X[:4], missing)
    np.testing.assert_allclose(shown.images[2].reshape(4, 64), scaled)


def test_imputations_take_the_shape_of_the_estimator():
    X = np.random.default_rng(0).random((30, 12))
    model = VAEEstimator(2, max_iter=1, image_shape=(2, 6), random_state=0).fit(X)
    missing = np.zeros((4, 12), bool)
    missing[:, 0] = True
    assert ImputationDisplay.from_estimator(model, X[:4], missing).images.shape == (3, 4, 2, 6)
