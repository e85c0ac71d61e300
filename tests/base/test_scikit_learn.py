"""scikit-learn's own checks, and what its users do with an estimator."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from versions import has, needs_callbacks

from skem import (
    BayesianGMM_MAP,
    BernoulliRBMCD,
    GANEstimator,
    LatentImputer,
    ShiftedTemplateEM,
    VAEEstimator,
)
from skem.datasets import make_shifted_templates


def expected_failures(estimator):
    """Minibatches of repeated rows are other minibatches than those of weighted rows."""
    minibatches = {
        BernoulliRBMCD: ("dense", "sparse"),
        GANEstimator: ("dense",),
        VAEEstimator: ("dense",),
    }
    kinds = minibatches.get(type(estimator), ())
    reason = "repeated rows make other minibatches"
    expected = {f"check_sample_weight_equivalence_on_{kind}_data": reason for kind in kinds}
    # a check that runs with SCIPY_ARRAY_API=1 only
    if isinstance(estimator, GANEstimator):
        reason = "inverse_transform takes noise, and transform returns features of rows"
        expected["check_array_api_input"] = reason
    if isinstance(estimator, LatentImputer):
        expected["check_array_api_input"] = "inverse_transform needs the indicator"
    return expected


@parametrize_with_checks(
    [
        ShiftedTemplateEM(),
        ShiftedTemplateEM(template_width=1, algorithm="hard"),
        ShiftedTemplateEM(absent=True, init="mean"),
        ShiftedTemplateEM(init="random", shift_concentration_prior=1.5),
        ShiftedTemplateEM(shrinkage="map"),
        ShiftedTemplateEM(n_templates=2, cyclic=True),
        ShiftedTemplateEM(composition="add", amplitude="free", noise="stationary"),
        BayesianGMM_MAP(),
        BayesianGMM_MAP(2, covariance_type="tied", init_params="k-means++"),
        BayesianGMM_MAP(2, covariance_type="diag", prior="empirical", n_init=2),
        BayesianGMM_MAP(2, covariance_type="spherical", init_params="random"),
        BayesianGMM_MAP(3, init_params="random_from_data", weight_concentration_prior=0.5),
        BernoulliRBMCD(4, n_iter=2),
        BernoulliRBMCD(4, n_iter=2, algorithm="cd", n_gibbs_steps=2, batch_size=7),
        VAEEstimator(max_iter=5, hidden_layer_sizes=(16,)),
        VAEEstimator(max_iter=2, hidden_layer_sizes=(8,), likelihood="gaussian"),
        GANEstimator(max_iter=5, hidden_layer_sizes=(16,)),
        GANEstimator(max_iter=2, spectral_norm=False, average=0, loss="minimax"),
        LatentImputer(),
        LatentImputer(VAEEstimator(max_iter=2, hidden_layer_sizes=(8,))),
    ],
    expected_failed_checks=expected_failures,
    **({"xfail_strict": True} if has("1.8") else {}),
)
def test_sklearn_check(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks send data that do not converge
        check(estimator)


@pytest.fixture(scope="module")
def data():
    return make_shifted_templates(150, image_shape=(6, 24), template_width=8, random_state=0)


@pytest.fixture(scope="module")
def fitted(data):
    return ShiftedTemplateEM(8, image_shape=(6, 24), random_state=0).fit(data.X)


@pytest.mark.slow
def test_grid_search_finds_the_true_width(data):
    search = GridSearchCV(
        ShiftedTemplateEM(image_shape=(6, 24), random_state=0),
        {"template_width": [5, 6, 7, 8, 9, 10, 12]},
        cv=3,
        n_jobs=2,
    ).fit(data.X)
    assert search.best_params_ == {"template_width": 8}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_pipelines_before_and_after(data):
    before = make_pipeline(
        FunctionTransformer(lambda X: 2 * X),
        ShiftedTemplateEM(8, image_shape=(6, 24), random_state=0),
    )
    assert (before.fit(data.X).predict(data.X) == data.shifts).mean() > 0.95
    after = make_pipeline(
        ShiftedTemplateEM(8, image_shape=(6, 24), random_state=0),
        PCA(3),
        LogisticRegression(),
    )
    assert after.fit(data.X, data.shifts > 8).score(data.X, data.shifts > 8) > 0.7


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_set_output(data, fitted, container):
    estimator = clone(fitted).fit(data.X).set_output(transform=container)
    out = estimator.transform(data.X)
    assert isinstance(out, {"pandas": pd.DataFrame, "polars": pl.DataFrame}[container])
    assert list(out.columns)[:2] == ["shiftedtemplateem0", "shiftedtemplateem1"]
    np.testing.assert_allclose(np.asarray(out), fitted.transform(data.X))


def test_feature_names_are_kept_and_checked(data):
    frame = pd.DataFrame(data.X).add_prefix("pixel")
    estimator = ShiftedTemplateEM(8, image_shape=(6, 24), random_state=0).fit(frame)
    assert estimator.feature_names_in_[0] == "pixel0"
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame.rename(columns={"pixel0": "other"}))


@pytest.fixture(scope="module")
def mixture(data):
    X = data.X[:, :6].copy()
    X[::3, 2] = np.nan
    return BayesianGMM_MAP(2, prior="empirical", random_state=0).fit(X)


def test_mixture_pickles_and_skops_keep_every_digit(data, mixture):
    dumped = skops.io.dumps(mixture)
    unknown = skops.io.get_untrusted_types(data=dumped)
    assert unknown == ["skem.mixture._estimator.BayesianGMM_MAP"]
    for copy in (
        pickle.loads(pickle.dumps(mixture)),
        skops.io.loads(dumped, trusted=unknown),
    ):
        X = data.X[:, :6]
        np.testing.assert_array_equal(copy.score_samples(X), mixture.score_samples(X))
        copy.partial_fit(X[:20])
    assert ("means_" if has("1.9") else "BayesianGMM_MAP") in mixture._repr_html_()


def test_mixture_in_a_search_and_a_pipeline():
    X, y = load_iris(return_X_y=True)
    grid = {"n_components": range(1, 5), "covariance_type": ["full", "diag"]}
    model = BayesianGMM_MAP(prior="empirical", n_init=3, random_state=0)
    search = GridSearchCV(model, grid, cv=5, n_jobs=2).fit(
        X[np.random.default_rng(0).permutation(150)]
    )
    scores = search.cv_results_["mean_test_score"].reshape(2, 4)
    assert (scores[:, 1:].min(1) > scores[:, 0] + 0.5).all()  # one component does not do
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    pipeline = make_pipeline(StandardScaler(), search.best_estimator_, LogisticRegression())
    assert pipeline.fit(X, y).score(X, y) > 0.6
    names = pipeline[:-1].get_feature_names_out()
    assert names[0] == "bayesiangmm_map0"


@needs_callbacks
def test_mixture_callbacks(data, capsys):
    from sklearn.callback import ProgressBar

    recorder = Recorder()
    model = BayesianGMM_MAP(2, tol=0, random_state=0).set_callbacks(recorder)
    model.fit(data.X[:, :4])
    assert model.n_iter_ == 3
    np.testing.assert_allclose(recorder.scores, model.lower_bounds_, rtol=1e-9)
    model = BayesianGMM_MAP(2, random_state=0).set_callbacks(ProgressBar())
    model.fit(data.X[:, :4])
    assert "BayesianGMM_MAP" in capsys.readouterr().out


def test_pickle_and_skops_keep_every_digit(data, fitted):
    copies = [pickle.loads(pickle.dumps(fitted))]
    dumped = skops.io.dumps(fitted)
    unknown = skops.io.get_untrusted_types(data=dumped)
    assert unknown == ["skem.template._estimator.ShiftedTemplateEM"]
    copies.append(skops.io.loads(dumped, trusted=unknown))
    for copy in copies:
        np.testing.assert_array_equal(copy.score_samples(data.X), fitted.score_samples(data.X))
        copy.partial_fit(data.X[:20])


def test_clone_forgets_the_fit(fitted):
    assert not hasattr(clone(fitted), "template_")


def test_sample_weight_is_routed_through_a_search(data):
    import sklearn

    weight = np.ones(150)
    weight[:10] = 0
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = ShiftedTemplateEM(image_shape=(6, 24), init="mean")
        estimator.set_fit_request(sample_weight=True)
        estimator.set_score_request(sample_weight=True)
        search = GridSearchCV(estimator, {"template_width": [4, 8]}, cv=2)
        search.fit(data.X, sample_weight=weight)
    assert search.best_params_ == {"template_width": 8}


class Recorder:
    """A callback that notes what it is told, and stops at the third iteration."""

    def __init__(self):
        self.begun, self.scores = [], []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context.task_name)

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        if context.task_name == "iteration":
            self.scores.append(fitted_estimator.score(X))
        return len(self.scores) == 3


@needs_callbacks
def test_callbacks_follow_the_fit_and_stop_it(data):
    recorder = Recorder()
    # without a prior, the objective is the score
    estimator = ShiftedTemplateEM(
        8, image_shape=(6, 24), init="mean", tol=0, shift_concentration_prior=1
    )
    estimator.set_callbacks(recorder).fit(data.X)
    assert estimator.n_iter_ == 3
    assert recorder.begun == ["fit", "iteration", "iteration", "iteration"]
    np.testing.assert_allclose(recorder.scores, estimator.lower_bounds_, rtol=1e-9)


@needs_callbacks
def test_progress_bar(data, capsys):
    from sklearn.callback import ProgressBar

    estimator = ShiftedTemplateEM(8, image_shape=(6, 24), init="mean")
    estimator.set_callbacks(ProgressBar()).fit(data.X)
    assert "ShiftedTemplateEM" in capsys.readouterr().out


def test_html_repr_of_a_fitted_estimator(fitted):
    assert ("template_" if has("1.9") else "ShiftedTemplateEM") in fitted._repr_html_()


# -- what cannot be a number ----------------------------------------------------------------


def frame_with(column):
    return pd.DataFrame({"a": np.arange(30.0), "b": column, "c": np.arange(30.0) ** 2})


WORDS = ["red", "blue"] * 15
HOLES = [1.5, "n/a", *range(28)]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (WORDS, "column 'b' of X holds 'red'.*OneHotEncoder or skrub's TableVectorizer"),
        (pd.Categorical(WORDS), "column 'b' of X holds 'red'"),
        (HOLES, "column 'b' of X holds 'n/a'.*replace it by NaN"),
        (
            pd.date_range("2020-01-01", periods=30),
            "'b' of X holds dates.*2020-01-01.*days since",
        ),
        (pd.to_timedelta(np.arange(30), unit="D"), "column 'b' of X holds dates or times"),
    ],
)
@pytest.mark.parametrize("model", [BayesianGMM_MAP(1), BernoulliRBMCD(2, n_iter=1)], ids=str)
def test_columns_that_hold_no_numbers_are_named(model, column, message):
    frame = frame_with(column)
    for X in (frame, *([pl.from_pandas(frame)] if column is not HOLES else [])):
        with pytest.raises(ValueError, match=message):
            clone(model).fit(X)
    fitted = clone(model).fit(frame_with(900 * np.linspace(0, 1, 30) ** 3) / 900)
    with pytest.raises(ValueError, match=message):
        fitted.transform(frame)


def test_arrays_that_hold_no_numbers():
    model = BayesianGMM_MAP(1)
    with pytest.raises(ValueError, match="column 1 of X holds 'red'"):
        model.fit(frame_with(WORDS).to_numpy())
    with pytest.raises(ValueError, match="column 0 of X holds dates"):
        model.fit(np.array([["2020-01-01"]] * 5, dtype="M8[D]"))
    with pytest.raises(ValueError, match="column 0 of X holds dates"):
        model.fit(pd.DataFrame({"day": pd.date_range("2020-01-01", periods=30)}).to_numpy())
    model.fit([["1.5", "2"], ["3", "5"], ["4", "1"]])  # NumPy converts these


def test_frames_of_dask_that_hold_no_numbers():
    dd = pytest.importorskip("dask.dataframe")
    X = dd.from_pandas(frame_with(WORDS), npartitions=2)
    with pytest.raises(ValueError, match="column 'b' of X has the type"):
        BayesianGMM_MAP(1).fit(X)


def test_one_image_is_no_table():
    model = ShiftedTemplateEM(2, image_shape=(4, 3), random_state=0)
    model.fit(np.random.default_rng(0).random((20, 12)))
    for verb in (model.predict, model.fit):
        with pytest.raises(
            ValueError, match=r"\(4, 3\) of a single image: pass X.reshape\(1, -1\)"
        ):
            verb(np.ones((4, 3)))


def test_names_of_other_packages_are_explained():
    X = np.random.default_rng(0).random((30, 4))
    with pytest.raises(ValueError, match=r"the step size is learning_rate_init=0\.001"):
        VAEEstimator(2, learning_rate=0.001).fit(X)
    for model in (VAEEstimator(2, device="gpu"), GANEstimator(2, device="GPU")):
        with pytest.raises(ValueError, match="Is 'cuda' meant"):
            model.fit(X)
