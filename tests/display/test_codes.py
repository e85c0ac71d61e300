import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skem import (
    EmbeddingDisplay,
    LatentGridDisplay,
    ReconstructionDisplay,
    VAEEstimator,
    morph,
)


@pytest.fixture(scope="module")
def autoencoder():
    X, y = load_digits(return_X_y=True)
    return VAEEstimator(3, max_iter=2, random_state=0).fit(X / 16), X / 16, y


def test_latent_grid(autoencoder):
    model, _, _ = autoencoder
    display = LatentGridDisplay.from_estimator(model, n_codes=5, limit=2, components=(2, 0))
    assert display.images.shape == (5, 5, 8, 8)
    top_right = model.inverse_transform([[2.0, 0, 2.0]])
    np.testing.assert_allclose(display.images[0, 4].ravel(), top_right[0], atol=1e-6)
    right_below = model.inverse_transform([[-2.0, 0, 2.0]])
    np.testing.assert_allclose(display.images[4, 4].ravel(), right_below[0], atol=1e-6)
    display.figure_.canvas.draw()
    assert display.ax_.get_xlabel() == "code 2"
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["2", "1", "0", "-1", "-2"]
    for wrong in ((0, 3), (1, 1)):
        with pytest.raises(ValueError, match="components must be"):
            LatentGridDisplay.from_estimator(model, components=wrong)
    for wrong in (1, 2.5):
        with pytest.raises(ValueError, match="n_codes must be"):
            LatentGridDisplay.from_estimator(model, n_codes=wrong)


def test_displays_of_searches_and_pipelines():
    X = np.random.default_rng(0).random((60, 12))
    model = VAEEstimator(2, max_iter=1, image_shape=(2, 6), random_state=0)
    pipeline = make_pipeline(MinMaxScaler(clip=True), model)
    search = GridSearchCV(pipeline, {"vaeestimator__n_components": [2]}, cv=2).fit(X)
    display = LatentGridDisplay.from_estimator(search, n_codes=3, cmap=plt.cm.viridis)
    assert display.images.shape == (3, 3, 2, 6)
    assert morph(search.best_estimator_, X[:2], 3).images.shape == (6, 2, 6)
    EmbeddingDisplay.from_estimator(search, X, X[:, :1], linewidth=1)


def test_reconstructions(autoencoder):
    model, X, _ = autoencoder
    display = ReconstructionDisplay.from_estimator(model, X[:4], image_shape=(4, 16))
    assert display.images.shape == (2, 4, 4, 16)
    np.testing.assert_array_equal(display.images[0].reshape(4, 64), X[:4])
    np.testing.assert_allclose(display.images[1].reshape(4, 64), model.reconstruct(X[:4]))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_in_color(channels):
    X = np.random.default_rng(0).random((30, 5, 4, channels))
    model = VAEEstimator(2, max_iter=1, image_shape=X.shape[1:], random_state=0).fit(X)
    display = ReconstructionDisplay.from_estimator(model, X[:3])
    display.figure_.canvas.draw()
    assert display.images.shape == (2, 3, 5, 4, channels)
    LatentGridDisplay.from_estimator(model, n_codes=3).figure_.canvas.draw()
    assert morph(model, X[:2], 3).images.shape == (6, 5, 4, channels)
    with pytest.raises(ValueError, match="image_shape"):
        ReconstructionDisplay.from_estimator(model, X[:3], image_shape=(2, 2))


def test_embedding(autoencoder):
    model, X, y = autoencoder
    codes = model.transform(X)
    display = EmbeddingDisplay.from_estimator(model, X, y, components=(1, 2))
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == list("0123456789")
    drawn = np.asarray(display.ax_.collections[3].get_offsets())
    np.testing.assert_array_equal(drawn, codes[y == 3][:, 1:])
    assert display.ax_.get_ylabel() == "code 2"
    scale = EmbeddingDisplay.from_estimator(model, X, X.sum(1)).ax_.collections[0]
    np.testing.assert_allclose(scale.get_array(), X.sum(1))
    plain = EmbeddingDisplay.from_estimator(model, X, s=1)
    assert len(plain.ax_.collections) == 1
    with pytest.raises(ValueError, match="components must be"):
        EmbeddingDisplay.from_estimator(model, X, components=(0, 3))
    with pytest.raises(ValueError, match="y may have 20 different labels"):
        EmbeddingDisplay.from_estimator(model, X, [f"row {i}" for i in range(len(X))])
    with pytest.raises(ValueError, match="inconsistent"):
        EmbeddingDisplay.from_estimator(model, X, y[:5])


def test_morph(autoencoder, tmp_path):
    model, X, _ = autoencoder
    walk = morph(model, X[:3], n_steps=4)
    assert walk.images.shape == (12, 8, 8)
    codes = model.transform(X[:3])
    np.testing.assert_allclose(walk.codes[[0, 4, 8]], codes)
    np.testing.assert_allclose(walk.codes[11], 0.25 * codes[2] + 0.75 * codes[0], rtol=1e-5)
    np.testing.assert_allclose(walk.images[4].ravel(), model.reconstruct(X[1:2])[0], atol=1e-6)
    walk.animate(interval=100).save(tmp_path / "walk.gif", writer="pillow")
    with Image.open(tmp_path / "walk.gif") as file:
        assert file.n_frames >= 10  # equal neighbors are merged
    wrong = ((X[:1], 4, "two images"), (X[:2], 0, "n_steps"), (X[:2], 2.5, "n_steps"))
    for rows, n_steps, message in wrong:
        with pytest.raises(ValueError, match=message):
            morph(model, rows, n_steps)


def test_counts_and_components_are_checked():
    X = np.random.default_rng(0).random((40, 9))
    codes = PCA(2).fit(X)
    with pytest.raises(ValueError, match="n_codes must be an integer"):
        LatentGridDisplay.from_estimator(codes, n_codes=True)
    with pytest.raises(ValueError, match="EmbeddingDisplay needs n_components >= 2"):
        EmbeddingDisplay.from_estimator(PCA(1).fit(X), X)


def test_labels_differ_in_gray():
    rng = np.random.default_rng(0)
    y = pd.Series(np.arange(60) % 20, name="group")
    display = EmbeddingDisplay(rng.random((60, 2)), y, label_name=y.name).plot(lw=0.5)
    legend = display.ax_.get_legend()
    assert legend.get_title().get_text() == "group"
    styles = {(line.get_color(), line.get_marker()) for line in legend.get_lines()}
    assert len(styles) == 20
    assert len({line.get_marker() for line in legend.get_lines()[:10]}) == 10
    assert repr(display) == "EmbeddingDisplay(60 rows, 'code 0' and 'code 1', 20 labels)"


def test_names_of_labels_and_scales(autoencoder):
    model, X, y = autoencoder
    display = EmbeddingDisplay.from_estimator(model, X, pd.Series(y, name="digit"))
    assert display.ax_.get_legend().get_title().get_text() == "digit"
    _, ax = plt.subplots()
    EmbeddingDisplay.from_estimator(model, X, pd.Series(X.sum(1), name="ink"), ax=ax)
    assert "ink" in {other.get_ylabel() for other in ax.figure.axes}


def test_reconstructions_of_a_pipeline():
    X = np.random.default_rng(0).random((60, 9)) * 7
    vae = VAEEstimator(2, max_iter=1, random_state=0)
    model = make_pipeline(MinMaxScaler(clip=True), vae).fit(X)
    display = ReconstructionDisplay.from_estimator(model, X[:4])
    scaled = model[:-1].transform(X[:4])
    np.testing.assert_allclose(display.images[0].reshape(4, 9), scaled)
    redrawn = model[-1].reconstruct(scaled)
    np.testing.assert_allclose(display.images[1].reshape(4, 9), redrawn)
    assert repr(morph(vae, scaled, 3)) == "MorphDisplay(12 frames of 3 x 3 pixels)"
