import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.impute import KNNImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skem import (
    BayesianGMM_MAP,
    BernoulliRBMCD,
    ChainsDisplay,
    EmbeddingDisplay,
    FiltersDisplay,
    ImputationDisplay,
    LatentGridDisplay,
    MixtureDisplay,
    ObjectiveDisplay,
    ReconstructionDisplay,
    SegmentationDisplay,
    ShiftedTemplateEM,
    TemplateDisplay,
    VAEEstimator,
    morph,
)
from skem.datasets import make_shifted_templates


def fit(**keywords):
    data = make_shifted_templates(80, random_state=0, **keywords)
    model = ShiftedTemplateEM(
        data.template_width,
        template_height=data.template_height,
        image_shape=data.image_shape,
        absent="absent" in keywords,
        random_state=0,
    )
    return data, model.fit(data.X)


def test_objective():
    _, model = fit()
    _, ax = plt.subplots()
    display = ObjectiveDisplay.from_estimator(model, ax=ax, color="red")
    assert display.ax_ is ax
    np.testing.assert_array_equal(display.line_.get_ydata(), model.lower_bounds_)
    assert display.line_.get_color() == "red"
    assert ax.get_ylabel() == "objective (nats per sample)"


def test_objective_of_losses(autoencoder, machine):
    model, _, _ = autoencoder
    display = ObjectiveDisplay.from_estimator(model)
    np.testing.assert_array_equal(display.line_.get_ydata(), -np.array(model.loss_curve_))
    with pytest.raises(TypeError, match="BernoulliRBMCD has neither"):
        ObjectiveDisplay.from_estimator(machine[0])


@pytest.mark.parametrize(
    "keywords",
    [
        {"image_shape": (10, 30), "template_width": 9},
        {"image_shape": (1, 40), "template_width": 9},
        {"image_shape": (12, 12, 3), "template_width": 5, "template_height": 4},
        {"image_shape": (10, 30), "template_width": 9, "absent": 0.7},
        {"image_shape": (10, 12), "template_width": 9},
        {"image_shape": (1, 40), "template_width": 30},
        {"image_shape": (6, 1), "template_width": 1},
    ],
)
def test_template(keywords):
    data, model = fit(**keywords)
    display = TemplateDisplay.from_estimator(model, data.X[0])
    assert display.axes_.shape == (2, 2)
    total = display.posterior.sum() + display.absent
    np.testing.assert_allclose(total, 1)
    display.figure_.canvas.draw()
    titles = [ax.get_title() for ax in display.axes_.flat]
    assert titles[0] == "template"
    assert ("never seen" in titles[1]) == (not model.background_seen_.all())
    assert ("absent" in titles[2]) == (data.shifts[0] == -1)
    assert TemplateDisplay.from_estimator(model).axes_.shape == (1, 2)


def test_template_display_shows_the_template_of_the_image():
    data = make_shifted_templates(
        60, image_shape=(6, 20), template_width=6, noise_std=0.3, random_state=0
    )
    other = make_shifted_templates(
        60,
        background=data.background,
        template=-data.template,
        noise_std=0.3,
        random_state=1,
    )
    X = np.concatenate([data.X, other.X[:30]])
    model = ShiftedTemplateEM(6, image_shape=(6, 20), n_templates=2, random_state=0).fit(X)
    for image in (X[0], X[-1]):
        display = TemplateDisplay.from_estimator(model, image)
        shown = model.predict_class(image[None])[0]
        np.testing.assert_array_equal(display.template, model.templates_[shown])
        place = np.unravel_index(display.posterior.argmax(), model.shift_shape_)
        assert np.ravel_multi_index(place, model.shift_shape_) == model.predict(image[None])[0]
    most = model.class_weights_.argmax()
    display = TemplateDisplay.from_estimator(model)
    np.testing.assert_array_equal(display.template, model.templates_[most])


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixture_ellipses_are_at_1_and_2_standard_deviations(kind):
    rng = np.random.default_rng(0)
    mix = np.array([[1.0, 0.99, 0], [0, 1e-3, 0], [0, 0, 1e4]])
    X = np.concatenate([rng.normal(size=(200, 3)) @ mix, 5 + rng.normal(size=(200, 3)) @ mix])
    model = BayesianGMM_MAP(2, covariance_type=kind, random_state=0).fit(X)
    for pair in ((0, 1), (2, 0)):
        display = MixtureDisplay.from_estimator(model, X, features=pair)
        assert len(display.ellipses_) == 4
        for i, line in enumerate(display.ellipses_):
            gaps = np.stack(line.get_data()) - display.means[i // 2][:, None]
            square = (gaps * np.linalg.solve(display.covariances[i // 2], gaps)).sum(0)
            np.testing.assert_allclose(np.sqrt(square), [1, 2][i % 2], rtol=1e-6)
        assert display.ax_.get_xlabel() == f"feature {pair[0]}"
    with pytest.raises(ValueError, match="features must be"):
        MixtureDisplay.from_estimator(model, X, features=(0, 3))


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
    imputer = KNNImputer().fit(X[10:60])
    assert ImputationDisplay.from_estimator(imputer, X[:4], missing).images.shape[0] == 3


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
    with pytest.raises(ValueError, match="not numbers may have 20"):
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
