"""What is left behind by failures, by Ctrl-C, and by fits that overlap in threads."""

import inspect
import pickle
import sys
import time
import warnings
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

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
from skem._threads import ThreadMap, one_blas_thread
from skem.datasets import make_shifted_templates

pytestmark = pytest.mark.filterwarnings("ignore:mode collapse")

N, D = 90, 12
MODELS = {
    "template": ShiftedTemplateEM(4, random_state=0),
    "mixture": BayesianGMM_MAP(2, n_init=3, random_state=0),
    "rbm": BernoulliRBMCD(5, n_iter=3, early_stopping=True, random_state=0),
    "vae": VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=3, random_state=0),
    "gan": GANEstimator(3, hidden_layer_sizes=(8,), max_iter=3, random_state=0),
}
MINIBATCHES = ["rbm", "vae", "gan"]
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(name="X", scope="module")
def rows():
    data = make_shifted_templates(
        N, image_shape=(1, D), template_width=4, noise_std=0.3, random_state=0
    )
    low, high = data.X.min(), data.X.max()
    return (data.X - low) / (high - low)


# -- failures ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MODELS, "imputer"])
def test_names_of_mixed_types_are_refused_before_the_fit(name, X):
    frame = pd.DataFrame(X, columns=["a", *range(D - 1)])
    model = clone(MODELS.get(name, LatentImputer(BayesianGMM_MAP(2))))
    verbs = ("fit", "partial_fit") if name in MODELS else ("fit",)
    for verb in verbs:
        fresh = clone(model)
        before = set(vars(fresh))
        with pytest.raises(TypeError, match="string names"):
            getattr(fresh, verb)(frame)
        assert set(vars(fresh)) == before
    model.fit(X)
    before = dict(vars(model))
    with pytest.raises(TypeError, match="string names"):
        model.fit(frame)
    assert all(vars(model)[key] is before[key] for key in before)


@pytest.mark.parametrize("name", MINIBATCHES)
@pytest.mark.parametrize("fitted", [False, True])
def test_a_bad_block_of_dask_leaves_nothing_learned(name, fitted, X):
    da = pytest.importorskip("dask.array")
    bad = X.copy()
    bad[70, 3] = np.inf
    model = clone(MODELS[name])
    if fitted:
        model.fit(X)
    before = dict(vars(model))
    with pytest.raises(ValueError, match="infinity"):
        model.partial_fit(da.from_array(bad, chunks=(30, D)))
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[key] is before[key] for key in before)


# -- Ctrl-C --------------------------------------------------------------------------------


class InterruptAt:
    """Press Ctrl-C at the given call of a function of skem, counted from 1; count all calls."""

    def __init__(self, number=None):
        self.number, self.n_calls = number, 0

    def __call__(self, frame, event, argument):
        # Python ignores exceptions in generators that are closed
        if event != "call" or frame.f_code.co_flags & inspect.CO_GENERATOR:
            return
        if "/skem/" in frame.f_code.co_filename:
            self.n_calls += 1
            if self.n_calls == self.number:
                sys.setprofile(None)
                raise KeyboardInterrupt

    def __enter__(self):
        sys.setprofile(self)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)


@every_model
@pytest.mark.slow
def test_at_any_moment_a_fit_is_kept_or_nothing_has_changed(name, X):
    whole = clone(MODELS[name])
    if name == "vae":  # or most of its calls would be those of the search for a start
        whole.set_params(max_iter=20)
    # what is compiled or loaded at the first fit does not count
    clone(whole).fit(X)
    with InterruptAt() as counted:
        clone(whole).fit(X)
    n_kept = 0
    moments = np.unique(np.linspace(1, counted.n_calls, 24).astype(int))
    for moment in moments:
        model = clone(whole)
        before = dict(vars(model))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with InterruptAt(moment):
                    model.fit(X)
            except KeyboardInterrupt:
                assert vars(model) == before
                continue
        n_kept += 1
        assert np.isfinite(model.score(X))
        told = [w for w in caught if "was interrupted after" in str(w.message)]
        assert told or moment == counted.n_calls
    assert n_kept > len(moments) / 2


@every_model
def test_what_was_trained_is_kept_by_a_late_interrupt(name, X, monkeypatch):
    expected = clone(MODELS[name]).fit(X)
    model = clone(MODELS[name])
    original, calls = type(model)._attributes, []

    def interrupted(self, *args, **options):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    monkeypatch.setattr(type(model), "_attributes", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted after its last iteration"):
        model.fit(X)
    np.testing.assert_array_equal(model.transform(X), expected.transform(X))


def test_before_the_first_pass_the_start_is_kept(X, monkeypatch):
    """The autoencoder starts from a factor analysis, which is finished by then."""

    def interrupted(*args):
        raise KeyboardInterrupt

    model = clone(MODELS["vae"]).set_params(likelihood="gaussian")
    score = clone(model).fit(X).validation_scores_[0]
    monkeypatch.setattr(VAEEstimator, "_validation_score", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted after 0 iterations"):
        model.fit(X)
    assert model.n_iter_ == 0
    assert model.score(X) > score - 1


def test_the_best_trial_is_kept(X, monkeypatch):
    from skem.mixture._starts import Search

    original, found = Search.tried, []

    def interrupted(self, *args):
        if len(found) == 2:
            raise KeyboardInterrupt
        found.append(original(self, *args))
        return found[-1]

    monkeypatch.setattr(Search, "tried", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted after 0 iterations"):
        model = BayesianGMM_MAP(3, n_init=4, random_state=0).fit(X)
    best = max(trial.objective for trial in found)
    assert model.lower_bound_ == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_where_warnings_are_errors_an_interrupted_fit_is_kept(name, X):
    with InterruptAt() as counted:
        clone(MODELS[name]).fit(X)
    model = clone(MODELS[name])
    interrupt = InterruptAt(int(0.7 * counted.n_calls))
    # warnings are errors in these tests
    with interrupt, pytest.raises(ConvergenceWarning, match="interrupted"):
        model.fit(X)
    assert np.isfinite(model.score(X))


@pytest.mark.parametrize("name", ["template", "mixture"])
def test_filters_of_warnings_come_back_after_parallel_starts(name, X, monkeypatch):
    """Filters belong to the process: threads that set them must not end in another order."""
    module = {"template": "skem.template._starts", "mixture": "skem.mixture._starts"}[name]
    em, n_calls = sys.modules[module].em, []

    def interrupted(*args, **options):
        n_calls.append(1)
        if len(n_calls) == 3:
            raise KeyboardInterrupt
        time.sleep(0.02 * (len(n_calls) % 3))
        return em(*args, **options)

    before = list(warnings.filters)
    for interrupts in (False, True):
        n_calls[:] = [] if interrupts else [1] * 10
        monkeypatch.setattr(f"{module}.em", interrupted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clone(MODELS[name]).set_params(n_jobs=4).fit(X)
        monkeypatch.undo()
        time.sleep(0.5)  # threads that were left alone end
        assert list(warnings.filters) == before


# -- threads -------------------------------------------------------------------------------


def blas_threads():
    """The numbers as this thread sees them: in some builds each thread has its own."""
    return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]


def fit_between(model, X, found):
    before = blas_threads()
    model.fit(X)
    found.append((before, blas_threads()))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("main", range(4))
def test_overlapping_fits_leave_the_threads_of_blas_alone(X, main):
    """Fits of different lengths; that of the main thread ends first, last, or in between."""
    models = [BayesianGMM_MAP(3, n_init=n, tol=0, max_iter=20 * n) for n in (1, 4)]
    models += [ShiftedTemplateEM(4, n_jobs=2), BernoulliRBMCD(5, n_iter=30)]
    within = []
    models[main].set_callbacks(
        History(scoring=lambda *args: within.extend(blas_threads()) or 0)
    )
    with threadpool_limits(limits=2, user_api="blas"):
        before, found = blas_threads(), []
        if not before or set(before) != {2}:
            pytest.skip("BLAS has no two threads here")
        others = models[:main] + models[main + 1 :]
        threads = [Thread(target=fit_between, args=(model, X, found)) for model in others]
        for thread in threads:
            thread.start()
        fit_between(models[main], X, found)
        for thread in threads:
            thread.join()
        assert blas_threads() == before
    assert len(found) == 4
    assert 1 in within  # there was something to undo


def test_each_thread_of_a_fit_has_one_blas_thread():
    with threadpool_limits(limits=2, user_api="blas"), one_blas_thread():
        seen = list(ThreadMap(2)(lambda i: blas_threads(), range(4)))
        assert {number for numbers in seen for number in numbers} <= {1}


@pytest.mark.parametrize("name", ["vae", "gan"])
@pytest.mark.parametrize(("width", "expected"), [(8, 1), (2000, 2)])
def test_small_networks_use_one_thread_of_torch(name, width, expected, X):
    within = []
    watch = History(scoring=lambda *args: within.append(torch.get_num_threads()) or 0)
    model = clone(MODELS[name]).set_params(hidden_layer_sizes=(width, width), max_iter=1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model.set_callbacks(watch).fit(X)
        assert within == [expected]
        assert torch.get_num_threads() == 2
        model.partial_fit(X)
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="hidden_layer_sizes"):
            model.set_params(hidden_layer_sizes=(8, -1)).fit(X)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# -- counts, weights and callbacks ----------------------------------------------------------

COUNTS = {
    "template": {"max_iter": 120, "n_init": 3, "init_size": 100, "template_width": 4},
    "mixture": {"n_components": 3, "n_init": 2, "max_iter": 120},
    "rbm": {"n_components": 100, "n_gibbs_steps": 2, "n_iter": 3, "batch_size": 50},
    "vae": {"n_components": 2, "max_iter": 3, "batch_size": 50, "n_importance_samples": 100},
    "gan": {"n_components": 2, "max_iter": 3, "batch_size": 50},
}


@every_model
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_counts_of_small_types_do_not_overflow(name, kind, X):
    model = clone(MODELS[name]).set_params(**COUNTS[name])
    small = {key: kind(value) for key, value in COUNTS[name].items()}
    other = clone(model).set_params(**small)
    if name in ("template", "vae", "gan"):
        other.set_params(image_shape=(kind(1), kind(D)))
        model.set_params(image_shape=(1, D))
    np.testing.assert_array_equal(model.fit(X).transform(X), other.fit(X).transform(X))
    assert model.score(X) == other.score(X)


@every_model
def test_too_many_draws_are_refused(name, X):
    model = clone(MODELS[name]).fit(X)
    with pytest.raises(ValueError, match=r"n_samples must be at most 1e\+15"):
        model.sample(10**30)


@every_model
def test_the_lower_limit_of_weights(name, X):
    """A factor of all weights changes nothing, until their squares underflow."""
    weight, model = 1.0 + np.arange(N) % 3, clone(MODELS[name])
    if name == "template":  # whose prior counts images
        model.set_params(shift_concentration_prior=1)
    expected = clone(model).fit(X, sample_weight=weight)
    model.fit(X, sample_weight=1e-100 * weight)
    np.testing.assert_allclose(model.transform(X), expected.transform(X), atol=1e-6)
    for verb in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"must have values above 1e-100.*rescale it"):
            verb(X, sample_weight=3e-101 * weight)


@pytest.mark.parametrize("name", MINIBATCHES)
def test_rows_of_a_vanishing_share_are_left_out(name, X):
    """The square root of a relative weight below 1e-30 is lost in the sums of float32."""

    def fitted(small):
        weight = np.ones(N)
        weight[::5] = small
        model = clone(MODELS[name])
        if name == "vae":  # it would stay at its start
            model.set_params(early_stopping=False)
        return model.fit(X, sample_weight=weight).transform(X)

    np.testing.assert_allclose(fitted(0.9e-30), fitted(0), atol=1e-12)
    assert not np.allclose(fitted(1.1e-30), fitted(0))  # they take part in minibatches


def test_complex_weights_are_refused(X):
    da = pytest.importorskip("dask.array")
    rows = da.from_array(X, chunks=(30, D))
    for weight in (np.ones(N) * 1j, da.ones(N, chunks=30) * 1j, [1 + 1j] * N):
        for x in (X, rows):
            with pytest.raises((ValueError, TypeError), match=r"[Cc]omplex"):
                BayesianGMM_MAP(2).fit(x, sample_weight=weight)


class Broken(History):
    def _stops(self, record, fit):
        raise FloatingPointError("in the callback")


@every_model
def test_errors_of_callbacks_come_through(name, X):
    with pytest.raises(FloatingPointError, match=r"^in the callback$"):
        clone(MODELS[name]).set_callbacks(Broken()).fit(X)


@every_model
def test_a_pickle_does_not_carry_the_rows_of_callbacks(name, X):
    rows = np.tile(X, (100, 1))
    model = clone(MODELS[name]).set_callbacks(History(rows, every=1000))
    assert pickle.loads(pickle.dumps(model))._skl_callbacks[0].X.shape == rows.shape
    model.fit(X)
    history = History(X[:20])
    dumped = pickle.dumps(clone(model).set_callbacks(history).fit(X))
    assert len(pickle.dumps(model)) < len(dumped) + 10_000
    loaded = pickle.loads(dumped)
    assert loaded._skl_callbacks[0].records == history.records
    assert history.X is not None
    loaded.transform(X)
    with pytest.raises(ValueError, match="leaves out the rows to score"):
        loaded.fit(X)
    loaded.set_callbacks(History(X[:20])).fit(X)
    unharmed = clone(model).set_callbacks(History()).fit(X)  # scores the rows of the fit
    pickle.loads(pickle.dumps(unharmed)).fit(X)


# -- what must not pass in silence ----------------------------------------------------------


def coverage_of(model, X):
    return model.coverage_


def test_a_search_by_the_score_of_generators_is_told(X):
    model, grid = clone(MODELS["gan"]), {"average": [0, 0.9]}
    with pytest.warns(UserWarning, match="does not compare generators: give the search"):
        GridSearchCV(model, grid, cv=2).fit(X)
    with pytest.warns(UserWarning, match="does not compare generators"):
        cross_val_score(make_pipeline(StandardScaler(), model), X, cv=2)
    GridSearchCV(model, grid, cv=2, scoring=coverage_of).fit(X)
    model.fit(X).score(X)
    make_pipeline(StandardScaler(), model).fit(X).score(X)
    with pytest.warns(UserWarning, match="this callback stops by it: give a scoring"):
        clone(model).set_callbacks(EarlyStopping()).fit(X)
    clone(model).set_callbacks(EarlyStopping(scoring=coverage_of)).fit(X)
    clone(model).set_callbacks(History()).fit(X)


@pytest.mark.parametrize("name", ["template", *MINIBATCHES])
def test_fits_of_one_row_are_told(name, X):
    model = clone(MODELS[name])
    if name == "rbm":
        model.set_params(early_stopping=False)
    with pytest.warns(UserWarning, match="a single row|too few"):
        model.fit(X[:1])
    weight = np.zeros(N)
    weight[3] = 2
    with pytest.warns(UserWarning, match="a single row|too few"):
        model.fit(X, sample_weight=weight)
    if name != "template":
        model.partial_fit(X[:1])  # rows may come one by one


def test_components_for_single_rows_are_told(X):
    for K in (46, 80):
        with pytest.warns(UserWarning, match=f"n_components={K} is more than half of the 90"):
            BayesianGMM_MAP(K, prior="empirical", random_state=0).fit(X)
    BayesianGMM_MAP(3, prior="empirical", random_state=0).fit(X[::15])
    BayesianGMM_MAP(1, prior="empirical").fit(X[:2])
