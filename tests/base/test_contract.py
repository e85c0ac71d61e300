"""What every estimator promises, in one table."""

import pickle
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import skops.io
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import adjusted_rand_score, make_scorer
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from versions import has, needs_callbacks

import skem
from skem import (
    BayesianGMM_MAP,
    BernoulliRBMCD,
    EarlyStopping,
    GANEstimator,
    History,
    LatentImputer,
    ShiftedTemplateEM,
    VAEEstimator,
)
from skem._loop import Patience
from skem.datasets import make_shifted_templates

N, D = 90, 12
# The estimator, a parameter and values of it to search, and the verbs that it has besides
# fit, partial_fit, transform, inverse_transform, score_samples, score and sample.
HIDDEN = {"predict", "predict_proba"}
TABLE = {
    "template": (
        ShiftedTemplateEM(4, random_state=0),
        ("template_width", [3, 4]),
        {*HIDDEN, "reconstruct", "impute"},
    ),
    "two templates": (
        ShiftedTemplateEM(
            4,
            n_templates=2,
            absent=True,
            shrinkage=None,
            shift_concentration_prior=1.0,
            random_state=0,
        ),
        ("n_templates", [1, 2]),
        {*HIDDEN, "reconstruct", "impute"},
    ),
    "added template": (
        ShiftedTemplateEM(
            4,
            composition="add",
            amplitude="free",
            noise="stationary",
            shift_concentration_prior=1.0,
            random_state=0,
        ),
        ("amplitude", ["fixed", "free"]),
        {*HIDDEN, "reconstruct", "impute"},
    ),
    "mixture": (
        BayesianGMM_MAP(2, prior="empirical", random_state=0),
        ("n_components", [1, 2]),
        {*HIDDEN, "reconstruct", "impute"},
    ),
    "mixture of fixed weights": (
        BayesianGMM_MAP(
            2, prior="empirical", fixed=["weights"], weights_init=[0.3, 0.7], random_state=0
        ),
        ("covariance_type", ["full", "diag"]),
        {*HIDDEN, "reconstruct", "impute"},
    ),
    "mixture with a background": (
        BayesianGMM_MAP(
            2, prior="empirical", background=np.repeat([[-1.0], [2.0]], D, 1), random_state=0
        ),
        ("n_components", [1, 2]),
        {*HIDDEN, "reconstruct", "impute"},
    ),
    "mixture with a prior mean for each component": (
        BayesianGMM_MAP(
            2,
            prior="empirical",
            mean_prior=np.repeat([[0.3], [0.7]], D, 1),
            mean_precision_prior=5.0,
            random_state=0,
        ),
        ("covariance_type", ["full", "diag"]),
        {*HIDDEN, "reconstruct", "impute"},
    ),
    "rbm": (
        BernoulliRBMCD(5, n_iter=3, random_state=0),
        ("n_components", [2, 5]),
        {"reconstruct", "impute"},
    ),
    "vae": (
        VAEEstimator(
            2, hidden_layer_sizes=(8,), max_iter=3, early_stopping=False, random_state=0
        ),
        ("n_components", [1, 2]),
        {"reconstruct", "impute"},
    ),
    "gan": (
        GANEstimator(3, hidden_layer_sizes=(8,), max_iter=3, random_state=0),
        ("average", [0, 0.9]),
        set(),
    ),
}
MINIBATCHES = {"rbm", "vae", "gan"}
COMPLETE = {"gan", "added template"}  # take no missing values
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:the score of GANEstimator"
)


@pytest.fixture(name="X", scope="module")
def rows_of_all():
    """Rows between 0 and 1, that every estimator takes."""
    rows = make_shifted_templates(
        N, image_shape=(1, D), template_width=4, noise_std=0.3, random_state=0
    ).X
    return (rows - rows.min()) / (rows.max() - rows.min())


@pytest.fixture(scope="module")
def models(X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: clone(row[0]).fit(X) for name, row in TABLE.items()}


@pytest.fixture(params=TABLE)
def name(request):
    return request.param


def outputs(model, X):
    """What the deterministic verbs say of rows."""
    verbs = "transform", "score_samples", "predict", "predict_proba", "reconstruct", "impute"
    return {verb: getattr(model, verb)(X) for verb in verbs if hasattr(model, verb)}


def test_verbs_and_shapes(name, models, X):
    model, verbs = models[name], TABLE[name][2]
    found = outputs(model, X)
    assert set(found) == verbs | {"transform", "score_samples"}
    code = found["transform"]
    assert code.shape == (N, len(model.get_feature_names_out()))
    assert found["score_samples"].shape == (N,)
    assert model.score(X) == pytest.approx(found["score_samples"].mean())
    assert isinstance(model.score(X), float)
    for verb in {"reconstruct", "impute"} & verbs:
        assert found[verb].shape == (N, D)
    if "predict" in verbs:
        most_probable = found["predict_proba"].argmax(1)
        if "background" in name:
            most_probable[most_probable == model.n_components] = -1
        if name != "two templates":  # whose categories are (template, shift) and absence
            np.testing.assert_array_equal(found["predict"], most_probable)
        np.testing.assert_allclose(found["predict_proba"].sum(1), 1)
    drawn = model.sample(7, random_state=0)
    rows = drawn[0] if isinstance(drawn, tuple) else drawn
    assert rows.shape == (7, D)
    n_codes = 3 if name == "gan" else code.shape[1]
    z = np.random.default_rng(0).random((5, n_codes))
    assert model.inverse_transform(z).shape == (5, D)
    if "reconstruct" in verbs and name != "added template":  # the code lacks its amplitude
        np.testing.assert_allclose(model.inverse_transform(code), found["reconstruct"])


def test_verbs_are_deterministic_and_row_by_row(name, models, X):
    once, order = outputs(models[name], X), np.random.default_rng(0).permutation(N)
    again, moved = outputs(models[name], X), outputs(models[name], X[order])
    single = outputs(models[name], X[4:5])
    for verb, values in once.items():
        np.testing.assert_array_equal(again[verb], values)
        np.testing.assert_allclose(moved[verb], values[order], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(single[verb], values[4:5], rtol=1e-9, atol=1e-12)


def test_dtypes(name, models, X):
    single = outputs(models[name], X.astype(np.float32))
    for verb, values in outputs(models[name], X).items():
        if values.dtype.kind != "f":
            continue
        assert values.dtype == np.float64
        if verb != "score_samples" or name not in MINIBATCHES:
            assert single[verb].dtype == np.float32
        np.testing.assert_allclose(single[verb], values, rtol=2e-3, atol=2e-3)


def test_draws_repeat_with_a_seed_only(name, models):
    def draw(seed):
        drawn = models[name].sample(20, random_state=seed)
        return drawn[0] if isinstance(drawn, tuple) else drawn

    np.testing.assert_array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))
    np.testing.assert_array_equal(draw(None), draw(models[name].random_state))
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match="n_samples"):
            models[name].sample(wrong)


def test_fits_repeat_with_a_seed(name, models, X):
    again = outputs(clone(models[name]).fit(X), X)
    for verb, values in outputs(models[name], X).items():
        np.testing.assert_array_equal(again[verb], values)


def test_pickle_skops_and_clone(name, models, X):
    model = models[name]
    dumped = skops.io.dumps(model)
    unknown = skops.io.get_untrusted_types(data=dumped)
    assert all(kind.startswith("skem.") for kind in unknown)
    copies = [pickle.loads(pickle.dumps(model)), skops.io.loads(dumped, trusted=unknown)]
    on = pickle.loads(pickle.dumps(model)).partial_fit(X)
    for other in copies:
        for verb, values in outputs(model, X).items():
            np.testing.assert_array_equal(outputs(other, X)[verb], values)
        other.partial_fit(X)
        np.testing.assert_array_equal(other.transform(X), on.transform(X))
    with pytest.raises(NotFittedError):
        clone(model).score(X)


def test_weights(name, X):
    """Rows of weight 0 are not there; with EM, weights are repeats."""
    counts = np.random.default_rng(0).integers(0, 3, N)
    model = TABLE[name][0]
    one = clone(model).fit(X, sample_weight=counts)
    # against a prior, larger weights count for more
    flat = {"prior": "flat", "mean_prior": None, "mean_precision_prior": None}
    flat = flat if "prior" in model.get_params() else {}
    fits = [
        clone(model).set_params(**flat).fit(X, sample_weight=c * counts) for c in (1, 1000.0)
    ]
    np.testing.assert_allclose(*(m.transform(X) for m in fits), rtol=1e-3, atol=1e-4)
    weighted = one.score(X, sample_weight=counts)
    assert weighted == pytest.approx(one.score(np.repeat(X, counts, axis=0)))
    if name not in MINIBATCHES:
        repeated = clone(model).fit(np.repeat(X, counts, axis=0))
        np.testing.assert_allclose(one.score_samples(X), repeated.score_samples(X), rtol=1e-6)


BAD = {
    "infinite": (lambda X: np.where(np.arange(D) == 2, np.inf, X), {}, "inf"),
    "one-dimensional": (lambda X: X[0], {}, "2D|dim"),
    "empty": (lambda X: X[:0], {}, "0 sample"),
    "words": (lambda X: X.astype(str) + "a", {}, "could not convert|numeric|convert"),
    "negative weights": (lambda X: X, {"sample_weight": -np.ones(N)}, "sample_weight|egative"),
    "weights of zero": (lambda X: X, {"sample_weight": np.zeros(N)}, "sample_weight|zero"),
    "weights for other rows": (lambda X: X, {"sample_weight": np.ones(3)}, "sample_weight"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_changes_nothing(name, kind, models, X):
    change, keywords, message = BAD[kind]
    model = pickle.loads(pickle.dumps(models[name]))
    before = outputs(model, X)
    for verb in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(model, verb)(change(X), **keywords)
        fresh = clone(model)
        with pytest.raises(ValueError, match=message):
            getattr(fresh, verb)(change(X), **keywords)
        assert not [key for key in vars(fresh) if key.endswith("_") and key[0] != "_"]
    for verb, values in outputs(model, X).items():
        np.testing.assert_array_equal(values, before[verb])


def test_columns_must_match(name, models, X):
    for verb in outputs(models[name], X):
        with pytest.raises(ValueError, match=f"expecting {D} features"):
            getattr(models[name], verb)(X[:, :5])
    with pytest.raises(ValueError, match="features"):
        pickle.loads(pickle.dumps(models[name])).partial_fit(X[:, :5])


def test_missing_values(name, X):
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    model = clone(TABLE[name][0])
    if name in COMPLETE:
        with pytest.raises(ValueError, match="LatentImputer"):
            model.fit(holes)
        return
    model.fit(holes)
    filled = model.impute(holes)
    seen = ~np.isnan(holes)
    np.testing.assert_array_equal(filled[seen], holes[seen])
    assert np.isfinite(filled).all()
    assert np.isfinite(model.score_samples(holes)).all()
    np.testing.assert_array_equal(model.impute(X), X)


def test_warm_start_goes_on(name, X):
    model = clone(TABLE[name][0])
    if name == "rbm":  # scikit-learn's has none either: partial_fit goes on
        assert "warm_start" not in model.get_params()
        return
    model.set_params(warm_start=True).fit(X)
    before = model.score(X)
    model.fit(X)
    if name != "gan":  # whose score is not what is maximized
        assert model.score(X) > before - 1e-6


def test_an_interrupted_fit_keeps_what_it_has(name, X):
    class Interrupt(History):
        def _stops(self, record, fit):
            if record["iteration"] == 2:
                raise KeyboardInterrupt
            return False

    model = clone(TABLE[name][0])
    if "tol" in model.get_params() and name not in MINIBATCHES:
        model.set_params(tol=0)
    with pytest.warns(ConvergenceWarning, match="interrupted after [12] iterations"):
        model.set_callbacks(Interrupt()).fit(X)
    assert np.isfinite(model.score(X))


def test_callbacks(name, X):
    history = History(X[:30])
    model = clone(TABLE[name][0]).set_callbacks(history).fit(X[30:])
    assert [r["iteration"] for r in history.records] == list(range(1, len(history.records) + 1))
    assert history.records[-1]["score"] == pytest.approx(model.score(X[:30]), abs=1e-6)
    stopping = EarlyStopping(X[:30], n_no_change=1, tol=1e9)
    model = clone(TABLE[name][0]).set_callbacks(stopping).fit(X[30:])
    assert model.n_iter_ == len(stopping.records) == 2
    with pytest.raises(ValueError, match=f"expecting {D} features"):
        clone(TABLE[name][0]).set_callbacks(History(X[:, :3])).fit(X)
    with pytest.raises(ValueError, match="every"):
        History(every=0)


@needs_callbacks
def test_progress_bar_of_a_search(name, X, capsys):
    from sklearn.callback import ProgressBar

    search = GridSearchCV(clone(TABLE[name][0]), dict([TABLE[name][1]]), cv=2)
    search.set_callbacks(ProgressBar()).fit(X)
    shown = capsys.readouterr().out
    assert "GridSearchCV" in shown
    assert type(TABLE[name][0]).__name__ in shown


def test_verbose_is_a_line_for_an_iteration(name, X, capsys):
    model = clone(TABLE[name][0]).set_params(verbose=1)
    if "verbose_interval" in model.get_params():
        model.set_params(verbose_interval=1)
    model.fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert re.match(rf"\[{type(model).__name__}\] iteration 1( of \d+)?: ", lines[0])
    clone(model).set_params(verbose=0).fit(X)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("search", [GridSearchCV, HalvingGridSearchCV])
def test_searches_by_nats(name, search, X):
    parameter, values = TABLE[name][1]
    found = search(clone(TABLE[name][0]), {parameter: values}, cv=2).fit(X)
    assert found.best_params_[parameter] in values
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


def test_frames_and_names(name, models, X):
    frame = pd.DataFrame(X).add_prefix("pixel")
    model = clone(TABLE[name][0]).fit(frame)
    assert list(model.feature_names_in_) == list(frame.columns)
    prefix = type(model).__name__.lower()
    for container, kind in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
        out = clone(TABLE[name][0]).set_output(transform=container).fit(frame).transform(frame)
        assert isinstance(out, kind)
        assert next(iter(out.columns)) == f"{prefix}0"
        np.testing.assert_allclose(np.asarray(out), models[name].transform(X))
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame.rename(columns={"pixel0": "other"}))
    shown = "n_features_in_" if has("1.9") else type(model).__name__
    assert shown in model._repr_html_()


def test_the_html_links_to_the_documentation(name, models, monkeypatch):
    monkeypatch.setattr(
        "skem._base.estimator.documentation", lambda: "https://example.org/skem"
    )
    kind = type(models[name]).__name__
    page = f"https://example.org/skem/generated/skem.{kind}.html"
    for model in (models[name], LatentImputer()):
        expected = page.replace(kind, type(model).__name__)
        assert f'href="{expected}"' in model._repr_html_()
    monkeypatch.undo()
    assert "example.org" not in models[name]._repr_html_()


def test_masked_values_are_missing_ones(name, X):
    masked = np.ma.masked_array(X, np.random.default_rng(0).random(X.shape) < 0.1)
    if name in COMPLETE:
        with pytest.raises(ValueError, match="X contains NaN"):
            clone(TABLE[name][0]).fit(masked)
        return
    fits = [clone(TABLE[name][0]).fit(data) for data in (masked, masked.filled(np.nan))]
    np.testing.assert_array_equal(*(fit.transform(masked) for fit in fits))


@pytest.mark.skipif(not has("1.8"), reason="weights of a search need 1.8 in a pipeline")
def test_weights_are_routed(name, X):
    weight = np.ones(N)
    with sklearn.config_context(enable_metadata_routing=True):
        model = clone(TABLE[name][0]).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(), model)
        parameter, values = TABLE[name][1]
        grid = {f"{pipeline.steps[1][0]}__{parameter}": values}
        search = GridSearchCV(pipeline, grid, cv=2).fit(X, sample_weight=weight)
    assert np.isfinite(search.best_score_)


def test_the_table_is_of_all_estimators():
    tested = {type(row[0]) for row in TABLE.values()} | {LatentImputer}
    public = {getattr(skem, name) for name in skem.__all__}
    assert tested == {thing for thing in public if hasattr(thing, "get_params")}


@pytest.mark.parametrize(
    ("model", "X"),
    [
        (BayesianGMM_MAP(2, max_iter=1, tol=0), np.random.default_rng(0).normal(size=(50, 2))),
        (BernoulliRBMCD(2, n_iter=1), np.full((20, 3), 2.0)),
    ],
    ids=["mixture", "rbm"],
)
def test_warnings_name_the_line_of_the_caller(model, X):
    """Through scikit-learn's wrappers of fit and transform."""
    for call in (model.fit, model.fit_transform):
        with pytest.warns(UserWarning, match="converge|clipped") as record:
            call(X)
        assert record[0].filename == __file__


def test_patience_counts_scores_without_a_rise():
    patience = Patience(n_no_change=2, tol=0.1)
    stops = [patience.note(score, lambda score=score: score) for score in (1, 2, 2.05, 1.9)]
    assert stops == [False, False, False, True]
    assert (patience.best, patience.kept) == (2.05, 2.05)  # smaller rises are kept, not counted


@pytest.mark.parametrize(
    "model",
    [
        BernoulliRBMCD(2, n_iter=3, early_stopping=True, random_state=0),
        VAEEstimator(1, hidden_layer_sizes=(4,), max_iter=3, early_stopping=True),
    ],
    ids=["rbm", "vae"],
)
def test_callbacks_see_the_validation_scores_so_far(model):
    seen = []
    history = History(scoring=lambda fitted, X: seen.append(fitted.validation_scores_) or 0)
    X = np.random.default_rng(0).random((60, 5))
    model.set_callbacks(history).fit(X)
    assert [len(scores) for scores in seen] == [1, 2, 3]
    assert seen[-1] == model.validation_scores_


# -- callbacks --------------------------------------------------------------------------------


def scores_of(*scores):
    """A scoring that returns these numbers, one after the other."""
    left = list(scores)
    return lambda fitted, X: left.pop(0)


def test_callbacks_know_the_names_of_features(name, X):
    frame = pd.DataFrame(X, columns=[f"pixel{i}" for i in range(D)])
    model, history = clone(TABLE[name][0]), History()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.set_callbacks(history).fit(frame)
        model.fit(frame.rename(columns=str.upper))  # names of the last fit are gone
        assert history.records[-1]["score"] == pytest.approx(
            model.score(frame.rename(columns=str.upper)), abs=1e-6
        )
        model.fit(X)
    assert not hasattr(model, "feature_names_in_")
    assert not hasattr(model, "_fitting")
    reverse = History(frame[frame.columns[::-1]])
    with pytest.raises(ValueError, match="feature names should match"):
        model.set_callbacks(reverse).fit(frame)
    assert not hasattr(model, "_fitting")
    model.set_callbacks(History(frame)).fit(frame)


def test_early_stopping_returns_to_the_best(name, X):
    """Scored by a made-up score that falls after the second iteration."""
    model, kept = clone(TABLE[name][0]), {}
    if "tol" in model.get_params() and name not in MINIBATCHES:
        model.set_params(tol=0)

    def scoring(fitted, X):
        kept[len(kept)] = fitted.transform(X)
        return (1.0, 2.0, 1.5)[len(kept) - 1]

    stopping = EarlyStopping(scoring=scoring, n_no_change=1)
    model.set_callbacks(stopping).fit(X)
    assert model.n_iter_ == len(stopping.records) == 3
    found = model.transform(X)
    to_best, to_last = (np.abs(found - kept[i]).max() for i in (1, 2))
    assert to_best < 1e-3 * to_last
    if name not in MINIBATCHES:
        assert model.lower_bound_ == model.lower_bounds_[1]


def test_the_best_is_kept_in_the_end_too(X):
    """Without a stop; scores between which no score is taken do not matter."""
    kept = []

    def scoring(fitted, X, y):
        kept.append(fitted.components_.copy())
        return (5.0, 1.0, 2.0)[len(kept) - 1]

    model = BernoulliRBMCD(2, n_iter=6, random_state=0)
    model.set_callbacks(EarlyStopping(scoring=scoring, every=2)).fit(X)
    assert model.n_iter_ == 6
    np.testing.assert_array_equal(model.components_, kept[0])


def test_nan_is_no_rise(X):
    stopping = EarlyStopping(
        scoring=scores_of(np.nan, np.nan, 1, 2, np.nan, 3, np.nan, 0), n_no_change=2
    )
    BernoulliRBMCD(2, n_iter=9, random_state=0).set_callbacks(stopping).fit(X)
    assert len(stopping.records) == 8
    patience = Patience(n_no_change=1, tol=0)
    assert [patience.note(s) for s in (np.nan, 1, np.nan)] == [False, False, True]
    assert patience.best == 1
    resumed = Patience(n_no_change=2, tol=0)
    resumed.begin(np.nan, "before")
    assert not resumed.note(1, lambda: "after")
    assert resumed.kept == "after"


def test_scorings_of_scikit_learn(X):
    y = (X[:, 0] > np.median(X[:, 0])).astype(int)
    model = BayesianGMM_MAP(2, prior="empirical", random_state=0)
    history = History(X, y, scoring="adjusted_rand_score")
    model.set_callbacks(history).fit(X)
    expected = adjusted_rand_score(y, model.predict(X))
    assert history.records[-1]["score"] == pytest.approx(expected)
    theirs = History(X, y, scoring=make_scorer(adjusted_rand_score))
    model.set_callbacks(theirs).fit(X)
    assert theirs.records[-1]["score"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="give X and y"):
        model.set_callbacks(History(X, scoring="adjusted_rand_score")).fit(X)
    with pytest.raises(ValueError, match="nonsense"):
        History(scoring="nonsense")
    with pytest.raises(TypeError, match="scoring"):
        EarlyStopping(scoring=3)


def test_fits_of_a_search_are_told_apart(X):
    stopping = EarlyStopping(X, n_no_change=1, tol=1e9)
    model = BernoulliRBMCD(2, n_iter=5, random_state=0).set_callbacks(stopping)
    search = GridSearchCV(model, {"n_components": [2, 3]}, cv=2)
    if has("1.9"):  # then the fits of the search share their root
        from sklearn.callback import ProgressBar

        search.set_callbacks(ProgressBar())
    search.fit(X)
    fits = [record["fit"] for record in stopping.records]
    assert fits == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]  # two folds of two candidates, and the refit
