import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skem import (
    BayesianGMM_MAP,
    BernoulliRBMCD,
    EarlyStopping,
    GANEstimator,
    History,
    ObjectiveDisplay,
    VAEEstimator,
)


def labels(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


@pytest.fixture(scope="module")
def digits():
    return (load_digits().data[:400] > 7).astype(float)


def test_lower_bounds():
    X = load_iris().data
    model = make_pipeline(StandardScaler(), BayesianGMM_MAP(2, random_state=0)).fit(X)
    _, ax = plt.subplots()
    display = ObjectiveDisplay.from_estimator(model, ax=ax, c="red", lw=3)
    assert display.ax_ is ax
    (line,) = display.lines_
    np.testing.assert_array_equal(line.get_ydata(), model[-1].lower_bounds_)
    np.testing.assert_array_equal(line.get_xdata(), np.arange(model[-1].n_iter_) + 1)
    assert line.get_color() == "red"
    assert ax.get_ylabel() == "objective (nats per sample)"
    assert labels(display) == ["BayesianGMM_MAP"]
    assert repr(display).startswith("ObjectiveDisplay(BayesianGMM_MAP; objective: ")


def test_training_and_validation_of_the_autoencoder(digits):
    model = VAEEstimator(2, max_iter=3, early_stopping=True, warm_start=True, random_state=0)
    model.fit(digits).fit(digits)
    display = ObjectiveDisplay.from_estimator(model)
    training, validation = display.lines_
    np.testing.assert_array_equal(training.get_ydata(), -np.array(model.loss_curve_))
    np.testing.assert_array_equal(validation.get_ydata(), model.validation_scores_)
    assert validation.get_xdata()[-1] == training.get_xdata()[-1] == len(model.loss_curve_)
    assert training.get_linestyle() != validation.get_linestyle()
    model = VAEEstimator(2, max_iter=3, early_stopping=False, random_state=0).fit(digits)
    assert labels(ObjectiveDisplay.from_estimator(model)) == ["VAEEstimator: training"]


def test_scores_in_other_units_are_left_out():
    X = load_iris().data
    options = {"max_iter": 12, "tol": 10.0, "early_stopping": True, "random_state": 0}
    model = MLPRegressor(**options).fit(X[:, :3], X[:, 3])
    assert model.validation_scores_
    assert list(ObjectiveDisplay.from_estimator(model).curves) == ["training"]


@pytest.mark.filterwarnings("ignore:mode collapse")
def test_losses_of_both_networks():
    X = load_iris().data
    model = GANEstimator(2, max_iter=3, hidden_layer_sizes=(8,), random_state=0).fit(X)
    display = ObjectiveDisplay.from_estimator(model)
    first, second = display.lines_
    np.testing.assert_array_equal(first.get_ydata(), model.discriminator_loss_curve_)
    np.testing.assert_array_equal(second.get_ydata(), model.generator_loss_curve_)
    assert display.ax_.get_ylabel() == "loss (nats per sample)"
    # cross-entropy of two fair guesses, one of a real row and one of a generated row
    np.testing.assert_allclose(display.ax_.lines[-1].get_ydata(), -2 * np.log(0.5))
    assert len(labels(display)) == 3


def test_validation_scores_of_the_rbm(digits):
    model = BernoulliRBMCD(4, n_iter=3, early_stopping=True, random_state=0).fit(digits)
    display = ObjectiveDisplay.from_estimator(model)
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), model.validation_scores_)
    assert display.ax_.get_ylabel() == "pseudo-log-likelihood (nats per sample)"
    model = BernoulliRBMCD(4, n_iter=3, random_state=0).fit(digits)
    with pytest.raises(TypeError, match=r"BernoulliRBMCD keeps no curve.*early_stopping=True"):
        ObjectiveDisplay.from_estimator(model)


def test_histories(digits):
    history = History(every=2)
    model = BernoulliRBMCD(4, n_iter=4, random_state=0).set_callbacks(history).fit(digits)
    display = ObjectiveDisplay.from_history(history)
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [2, 4])
    assert display.ax_.get_ylabel() == "score (nats per sample)"
    assert display.ax_.get_legend() is None
    model.fit(digits)
    display = ObjectiveDisplay.from_history(history)
    drawn = np.concatenate([line.get_ydata() for line in display.lines_])
    np.testing.assert_array_equal(drawn, [record["score"] for record in history.records])
    assert labels(display) == ["fit 0", "fit 1"]
    with pytest.raises(ValueError, match="EarlyStopping has no records: fit"):
        ObjectiveDisplay.from_history(EarlyStopping())
    with pytest.raises(TypeError, match=r"needs a History or .*BernoulliRBMCD"):
        ObjectiveDisplay.from_history(model)
