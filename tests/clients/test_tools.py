"""Our estimators in the tools of other packages, and in scikit-learn's less common ones."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, learning_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skem import BayesianGMM_MAP, BernoulliRBMCD, LatentImputer

pytestmark = pytest.mark.clients
X, y = load_iris(return_X_y=True)
ORDER = np.random.default_rng(0).permutation(150)
X, y = X[ORDER], y[ORDER]


def mixture(n_components=3):
    return BayesianGMM_MAP(n_components, prior="empirical", random_state=0)


@pytest.fixture
def pipeline():
    """Rows are told apart by the components that they probably come from."""
    return make_pipeline(StandardScaler(), mixture(), LogisticRegression())


# -- scikit-learn -----------------------------------------------------------------------------


def test_halving_search():
    search = HalvingGridSearchCV(mixture(), {"n_components": [1, 2, 3]}, random_state=0, cv=3)
    assert search.fit(X).best_estimator_.n_components > 1


def test_calibrated_classifier(pipeline):
    model = CalibratedClassifierCV(pipeline, cv=3).fit(X, y)
    assert model.score(X, y) > 0.85


def test_learning_curve():
    _, train, test = learning_curve(mixture(1), X, None, cv=3, train_sizes=[0.2, 0.6, 1.0])
    assert np.isfinite(train).all()
    assert (np.diff(test.mean(1)) > 0).all()  # more rows describe others better


def test_metadata_routing_through_pipeline_search_and_imputer():
    weight = np.where(np.arange(150) < 75, 1.0, 0.0)
    holes = X.copy()
    holes[::5, 1] = np.nan
    with sklearn.config_context(enable_metadata_routing=True):
        inner = mixture(1).set_fit_request(sample_weight=True)
        classifier = LogisticRegression().set_fit_request(sample_weight=False)
        model = make_pipeline(LatentImputer(inner), classifier)
        grid = {"latentimputer__estimator__covariance_type": ["full"]}
        scoring = get_scorer("accuracy").set_score_request(sample_weight=True)
        search = GridSearchCV(model, grid, scoring=scoring, cv=[(range(100), range(100))])
        search.fit(holes, y, sample_weight=weight)
    # rows of weight 0 do not count
    fitted = search.best_estimator_[0].estimator_
    expected = mixture(1).fit(holes[:75])
    np.testing.assert_allclose(fitted.means_, expected.means_, atol=1e-3)


# -- other packages ---------------------------------------------------------------------------


def test_imbalanced_learn():
    make_pipeline = pytest.importorskip("imblearn.pipeline").make_pipeline
    from imblearn.under_sampling import RandomUnderSampler

    sampler = RandomUnderSampler(random_state=0)
    model = make_pipeline(sampler, mixture(), LogisticRegression())
    search = GridSearchCV(model, {"bayesiangmm_map__n_components": [2, 3]}, cv=3)
    assert search.fit(X[20:], y[20:]).best_score_ > 0.8


def test_mlxtend():
    selection = pytest.importorskip("mlxtend.feature_selection")
    model = selection.SequentialFeatureSelector(
        mixture(), k_features=2, scoring="adjusted_rand_score", cv=2
    ).fit(X, y)
    assert model.k_score_ > 0.6
    from mlxtend.classifier import StackingCVClassifier

    pipelines = [make_pipeline(mixture(k), LogisticRegression()) for k in (2, 3)]
    stack = StackingCVClassifier(pipelines, LogisticRegression(), cv=3, random_state=0)
    assert stack.fit(X, y).score(X, y) > 0.8


def test_optuna():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        n_components = trial.suggest_int("n_components", 1, 5)
        model = clone(mixture(n_components)).fit(X[:100])
        return model.score(X[100:])

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(objective, n_trials=8)
    assert study.best_params["n_components"] > 1


@pytest.mark.filterwarnings("default")
def test_mlflow(tmp_path, pipeline):
    pytest.importorskip("mlflow.sklearn")
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    mlflow.create_experiment("skem", artifact_location=(tmp_path / "models").as_uri())
    mlflow.set_experiment("skem")
    trusted = ["skem.mixture._estimator.BayesianGMM_MAP"]
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            pipeline.fit(X, y),
            name="model",
            serialization_format="skops",
            skops_trusted_types=trusted,
        )
    again = mlflow.sklearn.load_model(info.model_uri)
    np.testing.assert_array_equal(again.predict_proba(X), pipeline.predict_proba(X))


@pytest.mark.filterwarnings("default")
def test_shap(pipeline):
    shap = pytest.importorskip("shap")
    model = mixture().fit(X)
    explainer = shap.Explainer(model.predict_proba, X[:50], seed=0)
    found = explainer(X[:5])
    # the contributions of the features add up to the probabilities
    total = found.base_values + found.values.sum(1)
    np.testing.assert_allclose(total, model.predict_proba(X[:5]), atol=1e-6)


@pytest.mark.filterwarnings("default")
def test_skrub():
    skrub = pytest.importorskip("skrub")
    frame = pd.DataFrame(X, columns=list("abcd")).assign(kind=np.array(list("uvw"))[y])
    frame.loc[::7, "a"] = np.nan
    model = make_pipeline(skrub.TableVectorizer(), LatentImputer(mixture(1)), mixture())
    labels = model.fit(frame).predict(frame)
    assert sklearn.metrics.adjusted_rand_score(y, labels) > 0.8


@pytest.mark.filterwarnings("default")
def test_yellowbrick():
    selection = pytest.importorskip("yellowbrick.model_selection")
    curve = selection.ValidationCurve(
        mixture(), param_name="n_components", param_range=np.arange(1, 5), cv=3
    ).fit(X)
    assert curve.test_scores_mean_.argmax() > 0
    curve.finalize()


def test_names_of_steps_and_columns():
    """What the page on migration says of names."""
    pixels = (X.mean(0) < X).astype(float)
    model = make_pipeline(StandardScaler(), mixture())
    assert "bayesiangmm_map__n_components" in model.get_params()
    rbm = BernoulliRBMCD(2, n_iter=1, random_state=0).fit(pixels)
    assert list(rbm.get_feature_names_out()) == ["bernoullirbmcd0", "bernoullirbmcd1"]
