import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skem import BayesianGMM_MAP, CriterionDisplay

X = load_iris().data
MIXTURE = BayesianGMM_MAP(prior="empirical", random_state=0)
FOLDS = KFold(3, shuffle=True, random_state=0)


def stars(display):
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in display.ax_.lines
        if line.get_marker() == "*"
    ]


def test_information_criteria():
    display = CriterionDisplay.from_estimator(MIXTURE, X, param_range=np.arange(1, 4))
    models = [clone(MIXTURE).set_params(n_components=k).fit(X) for k in (1, 2, 3)]
    for line, name in zip(display.lines_, ("bic", "icl"), strict=True):
        expected = [getattr(model, name)(X) for model in models]
        np.testing.assert_allclose(line.get_ydata(), expected)
        best = int(np.argmin(expected))
        assert display.chosen[name] == best + 1
        assert (best + 1, pytest.approx(expected[best])) in stars(display)
    assert [model.n_components for model in display.estimators_] == [1, 2, 3]
    assert not hasattr(MIXTURE, "means_")
    first, second = display.lines_
    assert first.get_marker() != second.get_marker()
    assert first.get_linestyle() != second.get_linestyle()
    chosen = f"bic chooses {display.chosen['bic']}, icl chooses {display.chosen['icl']}"
    assert repr(display) == f"CriterionDisplay(3 values of n_components: {chosen})"


def test_criteria_of_a_pipeline_are_those_of_what_it_passes_on():
    model = make_pipeline(StandardScaler(), GaussianMixture(random_state=0))
    kinds = ["full", "diag"]
    display = CriterionDisplay.from_estimator(
        model, X, param_name="covariance_type", param_range=kinds, criteria=["bic"]
    )
    scaled = StandardScaler().fit_transform(X)
    expected = [
        GaussianMixture(1, covariance_type=kind).fit(scaled).bic(scaled) for kind in kinds
    ]
    np.testing.assert_allclose(display.criteria["bic"], expected)
    assert [text.get_text() for text in display.ax_.get_xticklabels()] == kinds


def test_held_out_scores():
    grid = {"n_components": [3, 1, 2], "covariance_type": ["full", "diag"]}
    search = GridSearchCV(MIXTURE, grid, cv=FOLDS).fit(X)
    display = CriterionDisplay.from_search(search, param_name="n_components", ls="-.")
    assert display.values == [1, 2, 3]
    scores = {}
    for i, params in enumerate(search.cv_results_["params"]):
        own = [search.cv_results_[f"split{j}_test_score"][i] for j in range(3)]
        error = np.sqrt(np.var(own, ddof=1) / 3)
        scores.setdefault(params["n_components"], []).append((np.mean(own), error))
    best = np.array([max(scores[k]) for k in (1, 2, 3)])
    np.testing.assert_allclose(display.criteria["held-out score"], best[:, 0])
    np.testing.assert_allclose(display.errors["held-out score"], best[:, 1])
    at = search.best_params_["n_components"]
    assert stars(display) == [(at, pytest.approx(search.best_score_))]
    assert display.ax_.get_ylabel() == "held-out score (nats per row)"
    assert display.lines_[0].get_linestyle() == "-."
    with pytest.raises(ValueError, match=r"one of .*'covariance_type', 'n_components'.* None"):
        CriterionDisplay.from_search(search)


def test_scales_and_failed_fits():
    grid = [{"reg_covar": [1e-6, 1e-4, 1e-3]}, {"n_components": [2]}]
    search = GridSearchCV(MIXTURE, grid, cv=FOLDS).fit(X)
    search.cv_results_["mean_test_score"][1] = np.nan
    display = CriterionDisplay.from_search(search, param_name="reg_covar")
    assert display.values == [1e-6, 1e-4, 1e-3]
    assert np.isnan(display.criteria["held-out score"][1])
    assert display.ax_.get_xscale() == "log"
    display.figure_.canvas.draw()


def test_metrics_and_pipelines():
    def total(model, X, y=None):
        return model.score(X) * len(X)

    def negative(model, X, y=None):
        return -total(model, X)

    pipe = make_pipeline(StandardScaler(), MIXTURE)
    grid = {"bayesiangmm_map__n_components": [1, 2]}
    metrics = {"total": total, "negative": negative}
    search = GridSearchCV(pipe, grid, scoring=metrics, refit="negative", cv=FOLDS).fit(X)
    display = CriterionDisplay.from_search(search)
    expected = search.cv_results_["mean_test_negative"]
    np.testing.assert_array_equal(display.criteria["negative"], expected)
    assert display.ax_.get_xlabel() == "n_components"
    assert display.ax_.get_ylabel() == "negative"
    several = GridSearchCV(pipe, grid, scoring=metrics, refit=False, cv=FOLDS).fit(X)
    with pytest.raises(ValueError, match="several metrics"):
        CriterionDisplay.from_search(several)
    single = GridSearchCV(pipe, grid, refit=False, cv=FOLDS).fit(X)
    assert "nats" in CriterionDisplay.from_search(single).ax_.get_ylabel()


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(TypeError, match=r"needs an estimator .*'bic'.* given PCA"):
        CriterionDisplay.from_estimator(PCA(), X)
    with pytest.raises(TypeError, match="GaussianMixture, which has no icl"):
        CriterionDisplay.from_estimator(GaussianMixture(), X)
    with pytest.raises(ValueError, match="parameter of BayesianGMM_MAP, but it is 'n'"):
        CriterionDisplay.from_estimator(MIXTURE, X, param_name="n")
    with pytest.raises(ValueError, match="param_range must hold"):
        CriterionDisplay.from_estimator(MIXTURE, X, param_range=[])
    search = GridSearchCV(MIXTURE, {"n_components": [1]}, cv=FOLDS)
    with pytest.raises(NotFittedError):
        CriterionDisplay.from_search(search)
    with pytest.raises(TypeError, match="from_search"):
        CriterionDisplay.from_estimator(search.fit(X), X)
    with pytest.raises(TypeError, match="given BayesianGMM_MAP, which has no cv_results_"):
        CriterionDisplay.from_search(clone(MIXTURE).fit(X))
