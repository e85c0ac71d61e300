import matplotlib.pyplot as plt
import numpy as np
import pytest

from skem import ObjectiveDisplay, ShiftedTemplateEM, TemplateDisplay
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
