import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skem import ShiftedTemplateEM, TemplateDisplay
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
    is_signal = data.image_shape[0] == 1
    assert display.axes_.shape == ((4, 1) if is_signal else (2, 2))
    total = display.posterior.sum() + display.absent
    np.testing.assert_allclose(total, 1)
    display.figure_.canvas.draw()
    titles = [ax.get_title() for ax in display.axes_.flat]
    assert titles[0] == "template"
    assert ("never seen" in titles[1]) == (not model.background_seen_.all())
    assert ("absent" in titles[2]) == (data.shifts[0] == -1)
    shape = TemplateDisplay.from_estimator(model).axes_.shape
    assert shape == ((2, 1) if is_signal else (1, 2))


def signals():
    """Noisy signals of 60 samples with a peak somewhere, and where it begins."""
    rng = np.random.default_rng(0)
    X = 0.1 * rng.normal(size=(80, 60))
    starts = rng.integers(0, 60 - 12, 80)
    for row, start in zip(X, starts, strict=True):
        row[start : start + 12] += 2 * np.hanning(12)
    return X, starts


def test_signals_are_curves_that_line_up():
    X, _ = signals()
    model = ShiftedTemplateEM(12, random_state=0).fit(X)
    display = TemplateDisplay.from_estimator(model, X[0])
    display.figure_.canvas.draw()
    template, background, signal, posterior = display.axes_[:, 0]
    start = int(model.predict(X[:1])[0])
    np.testing.assert_allclose(template.lines[0].get_ydata(), model.template_.ravel())
    np.testing.assert_allclose(signal.lines[0].get_ydata(), X[0])
    np.testing.assert_array_equal(signal.lines[1].get_xdata(), start + np.arange(12))
    assert f"sample {start}" in signal.get_title()
    assert signal.get_xlabel() == "sample"
    assert background.get_xlim() == signal.get_xlim() == posterior.get_xlim()
    assert posterior.collections, "the posterior is an area"
    peak = posterior.lines[-1].get_xdata()
    np.testing.assert_array_equal(peak, [start])
    assert repr(display).startswith("TemplateDisplay(template 1 x 12, background 1 x 60, templ")
    assert f"sample {start}" in repr(display)
    words = [ax.get_title() + ax.get_xlabel() for ax in display.axes_.flat]
    assert not [text for text in words if "image" in text or "pixel" in text]


def test_signals_with_channels_and_of_pipelines():
    X, _ = signals()
    both = np.stack([X, -X], axis=2).reshape(80, 120)
    model = ShiftedTemplateEM(12, image_shape=(1, 60, 2), random_state=0).fit(both)
    display = TemplateDisplay.from_estimator(model, both[0])
    assert len(display.axes_[1, 0].lines) == 2
    display.figure_.canvas.draw()
    double = FunctionTransformer(lambda X: 2 * X)
    pipe = make_pipeline(double, ShiftedTemplateEM(12, random_state=0)).fit(X)
    display = TemplateDisplay.from_estimator(pipe, X[0])
    np.testing.assert_allclose(display.image.ravel(), 2 * X[0])


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
    drawn = [ax.images[0].get_array() for ax in display.axes_[0]]
    for picture, expected in zip(
        drawn, [*model.templates_[[most, 1 - most]], model.background_], strict=True
    ):
        np.testing.assert_array_equal(picture, expected)
    weights = model.class_weights_
    titles = [ax.get_title() for ax in display.axes_[0]]
    assert titles[:2] == [f"template {c} ({weights[c]:.0%})" for c in (most, 1 - most)]
    # signals: curves in one panel
    signals = X.reshape(-1, 6, 20)[:, 0]
    model = ShiftedTemplateEM(6, n_templates=2, random_state=0).fit(signals)
    panel = TemplateDisplay.from_estimator(model).axes_[0, 0]
    curves = sorted(line.get_ydata().tolist() for line in panel.lines)
    assert curves == sorted(model.templates_[:, 0].tolist())
    assert len(panel.get_legend().get_texts()) == 2


def test_the_template_of_an_image_has_its_amplitude():
    data = make_shifted_templates(80, random_state=0)
    scale = np.random.default_rng(0).choice([0.5, 1.5], size=80)
    clean = data.X - data.background.ravel()
    model = ShiftedTemplateEM(
        data.template_width, image_shape=data.image_shape, amplitude="free", random_state=0
    ).fit(data.background.ravel() + scale[:, None] * clean)
    image = data.background.ravel() + scale[0] * clean[0]
    display = TemplateDisplay.from_estimator(model, image)
    amplitude = model.amplitudes(image[None])[0]
    np.testing.assert_allclose(display.template, amplitude * model.template_)
    assert display.axes_[0, 0].get_title() == f"template x {amplitude:.2f}"
