import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skem import BayesianGMM_MAP, MixtureDisplay


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


@pytest.fixture(scope="module")
def irises():
    frame = load_iris(as_frame=True)
    holes = np.random.default_rng(0).random(frame.data.shape) < 0.1
    X = frame.data.mask(holes)
    return X, frame, BayesianGMM_MAP(3, prior="empirical", random_state=0).fit(X)


def points(ax):
    return {
        tuple(np.round(xy, 9)) for c in ax.collections for xy in np.asarray(c.get_offsets())
    }


def hollow(ax):
    chosen = [c for c in ax.collections if not len(c.get_facecolor())]
    return {tuple(np.round(xy, 9)) for c in chosen for xy in np.asarray(c.get_offsets())}


def test_names_and_missing_values(irises):
    X, _, model = irises
    names = ["petal width (cm)", "sepal length (cm)"]
    display = MixtureDisplay.from_estimator(model, X, features=names)
    ax = display.ax_
    assert [ax.get_xlabel(), ax.get_ylabel()] == names
    filled = model.impute(X)[:, [3, 0]]
    lost = np.isnan(X[names]).any(axis=1)
    assert points(ax) == {tuple(row) for row in filled.round(9)}, "all rows are shown"
    assert hollow(ax) == {tuple(row) for row in filled[lost].round(9)}
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(entries) == 4
    assert entries[-1] == "missing: conditional mean"
    assert entries[0] == f"0 ({model.weights_[0]:.0%})"
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2"]
    about = "150 rows, 3 components, 'petal width (cm)' and 'sepal length (cm)'"
    assert repr(display) == f"MixtureDisplay({about})"


@pytest.mark.parametrize(
    "features", [(0, 4), (0, 0), ("petal",), (), (0, -1), ("petal width (cm)", 3), (0.0, 1)]
)
def test_features_that_are_not_there(irises, features):
    X, _, model = irises
    with pytest.raises(ValueError, match="features must be different indices from 0 to 3"):
        MixtureDisplay.from_estimator(model, X, features=features)


def test_pair_plot(irises):
    X, _, model = irises
    display = MixtureDisplay.from_estimator(model, X)
    display.figure_.canvas.draw()
    assert display.axes_.shape == (4, 4)
    assert display.ax_ is None
    assert len(display.ellipses_) == 6 * 3 * 2
    assert display.axes_[3, 1].get_xlabel() == X.columns[1]
    assert display.axes_[3, 0].get_ylabel() == X.columns[3]
    filled = model.impute(X).round(9)
    assert points(display.axes_[2, 1]) == {tuple(row) for row in filled[:, [1, 2]]}
    assert display.axes_[1, 1].get_xlim() == display.axes_[3, 1].get_xlim()
    assert display.axes_[3, 0].get_ylim() == display.axes_[3, 2].get_ylim()
    with pytest.raises(ValueError, match="ax has room for two features, but 4 are shown"):
        display.plot(plt.gca())
    wide = np.random.default_rng(0).normal(size=(30, 9))
    six = MixtureDisplay.from_estimator(BayesianGMM_MAP(1).fit(wide), wide)
    assert six.axes_.shape == (6, 6)
    assert six.figure_.legends[0].get_texts()[-1].get_text() == "3 features not shown"


def test_marginal_densities(irises):
    X, _, model = irises
    display = MixtureDisplay.from_estimator(model, X, features=[2])
    total, *parts = display.ax_.lines
    x, y = total.get_data()
    each = [
        model.weights_[k] * norm(model.means_[k, 2], model.covariances_[k, 2, 2] ** 0.5).pdf(x)
        for k in range(3)
    ]
    np.testing.assert_allclose(y, np.sum(each, axis=0))
    for line, density in zip(parts, each, strict=True):
        np.testing.assert_allclose(line.get_ydata(), density)
    assert len({line.get_linestyle() for line in display.ax_.lines}) == 4
    bars = display.ax_.patches
    assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
    observed = X.iloc[:, 2].min()  # filled values are not counted
    assert min(bar.get_x() for bar in bars) == pytest.approx(observed)


@pytest.mark.parametrize("features", [(2, 3), (1, 2, 3)])
def test_uncertainty(irises, features):
    X, _, model = irises
    display = MixtureDisplay.from_estimator(model, X, features=features, uncertainty=True)
    display.figure_.canvas.draw()
    ax = display.axes_[-1, len(features) - 2 if len(features) > 2 else 0]
    (picture,) = ax.images
    left, right, bottom, top = picture.get_extent()
    for panel in display.axes_[np.tril_indices(len(display.axes_))]:
        for line in panel.lines:  # no ellipse is cut off
            for drawn, limits in zip(
                line.get_data(), (panel.get_xlim(), panel.get_ylim()), strict=True
            ):
                assert limits[0] <= min(drawn) <= max(drawn) <= limits[1]
    values = np.asarray(picture.get_array())
    grid = np.meshgrid(
        np.linspace(left, right, len(values)), np.linspace(bottom, top, len(values))
    )
    rows = np.stack(grid, axis=2)
    joint = [
        w * multivariate_normal(m[2:], S[2:, 2:]).pdf(rows)
        for w, m, S in zip(model.weights_, model.means_, model.covariances_, strict=True)
    ]
    seen = np.sum(joint, axis=0) > 1e-200
    expected = 1 - np.max(joint, axis=0)[seen] / np.sum(joint, axis=0)[seen]
    np.testing.assert_allclose(values[seen], expected, atol=1e-9)


def test_pipelines_and_searches(irises):
    X, _, _ = irises
    mixture = BayesianGMM_MAP(2, prior="empirical", random_state=0)
    grid = {"bayesiangmm_map__n_components": [2]}
    search = GridSearchCV(make_pipeline(StandardScaler(), mixture), grid, cv=2).fit(X)
    display = MixtureDisplay.from_estimator(search, X, features=["petal width (cm)", 0])
    inner = search.best_estimator_[-1]
    scaled = search.best_estimator_[0].transform(X)
    filled = inner.impute(scaled)[:, [3, 0]]
    assert points(display.ax_) == {tuple(row) for row in filled.round(9)}
    np.testing.assert_array_equal(display.means, inner.means_[:, [3, 0]])
    assert display.ax_.get_xlabel() == "petal width (cm)\n(transformed)"
    unnamed = make_pipeline(StandardScaler(), mixture).fit(X.to_numpy())
    names = MixtureDisplay.from_estimator(unnamed, X.to_numpy()).feature_names
    assert names == [f"feature {j}" for j in range(4)]


def test_labels(irises):
    X, frame, model = irises
    y = pd.Series(frame.target_names[frame.target], name="species")
    display = MixtureDisplay.from_estimator(model, X, y, features=(0, 1))
    legend = display.ax_.get_legend()
    entries = [text.get_text() for text in legend.get_texts()]
    assert entries[:3] == list(frame.target_names)
    assert legend.get_title().get_text() == "species"
    assert len({line.get_marker() for line in legend.get_lines()[:3]}) == 3
    with pytest.raises(ValueError, match="y may have 20 different labels, but it has 150"):
        MixtureDisplay.from_estimator(model, X, [f"row {i}" for i in range(150)])
    with pytest.raises(ValueError, match="inconsistent"):
        MixtureDisplay.from_estimator(model, X, y[:5])


def test_long_legends_leave_the_picture_free():
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = GaussianMixture(6, random_state=0).fit(X)
    assert len(MixtureDisplay.from_estimator(model, X).ax_.get_legend().get_texts()) == 6
    _, ax = plt.subplots(layout="constrained")
    assert MixtureDisplay.from_estimator(model, X, ax=ax).ax_.get_legend() is None
    assert [text.get_text() for text in ax.texts] == list("012345")
    y = np.arange(60) % 7
    display = MixtureDisplay.from_estimator(model, X, y, ax=ax)
    ax.figure.canvas.draw()
    legend = display.ax_.get_legend()
    assert len(legend.get_texts()) == 7
    many = MixtureDisplay.from_estimator(model, X, np.arange(60) % 20, marker="o")
    shown = many.ax_.get_legend().get_lines()
    assert len(shown) == 20
    assert {line.get_marker() for line in shown} == {"o"}
    assert legend.get_window_extent().x0 >= ax.get_window_extent().x1


def test_background_and_unused_components():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(200, 2)), rng.uniform(-20, 20, size=(20, 2))])
    model = BayesianGMM_MAP(1, background="uniform", random_state=0).fit(X)
    _, ax = plt.subplots()
    display = MixtureDisplay.from_estimator(model, X, ax=ax, uncertainty=True)
    assert display.ax_ is ax
    outside = model.predict(X) == -1
    assert outside.any()
    assert points(ax) == {tuple(row) for row in X.round(9)}
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries[-1] == "background"
    assert repr(display).startswith("MixtureDisplay(220 rows, 1 component, ")
    for options in ({"c": "red"}, {"color": "red", "linewidths": 1, "marker": "."}):
        drawn = display.plot(**options).ax_.collections[0]
        np.testing.assert_allclose(drawn.get_facecolor()[0, :3], [1, 0, 0])
    display.weights = np.zeros(1)
    assert len(display.plot().ellipses_) == 0


def test_rows_of_other_kinds(irises):
    X, _, _ = irises
    values = X.to_numpy()
    model = BayesianGMM_MAP(2, prior="empirical", random_state=0).fit(values)
    expected = MixtureDisplay.from_estimator(model, values)
    others = [
        np.ma.masked_invalid(values),
        values.tolist(),
        X.convert_dtypes(),
        values.astype(np.float32),
    ]
    for other in others:
        display = MixtureDisplay.from_estimator(model, other)
        np.testing.assert_allclose(display.X, expected.X, rtol=1e-5)
        np.testing.assert_array_equal(display.missing, expected.missing)
    complete = values[~np.isnan(values).any(1)]
    reference = GaussianMixture(2, random_state=0).fit(complete)
    assert MixtureDisplay.from_estimator(reference, complete[:1]).axes_.shape == (4, 4)


def test_labels_may_be_missing():
    X = np.random.default_rng(0).normal(size=(10, 2))
    model = BayesianGMM_MAP(1).fit(X)
    for y in (["a", None] * 5, np.array(["a", np.nan] * 5, dtype=object)):
        display = MixtureDisplay.from_estimator(model, X, y=y)
        legend = display.figure_.legends or [display.ax_.get_legend()]
        assert "missing" in [text.get_text() for text in legend[0].get_texts()]
