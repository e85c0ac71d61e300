"""Callbacks where scikit-learn has none, and fits kept under another version."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from versions import has

from skem import BayesianGMM_MAP, EarlyStopping, History
from skem._base import compat

X = load_iris().data


class Other:
    """A callback that is not of skem."""

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...
    def on_fit_task_end(self, estimator, context): ...


@pytest.mark.slow
@pytest.mark.skipif(not has("1.9"), reason="the other tests are the same then")
def test_the_stand_in_passes_these_tests():
    """What runs with old versions of scikit-learn is tested with new ones too."""
    code = f"""
import sklearn, pytest, sys
sklearn.__version__ = "1.8.7"
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", {__file__!r}]))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stdout
    assert "skipped" in out.stdout  # this test


def test_which_callbacks_are_taken():
    model = BayesianGMM_MAP(2, random_state=0)
    if has("1.9"):
        from sklearn.callback import CallbackSupportMixin

        assert compat.CallbackSupportMixin is CallbackSupportMixin
        model.set_callbacks(Other()).fit(X)
        return
    with pytest.raises(TypeError, match="or newer for other callbacks") as caught:
        model.set_callbacks(Other())
    assert "Other" in str(caught.value)


def test_history_follows_fits_and_searches():
    history = History(X[100:])
    model = BayesianGMM_MAP(2, random_state=0).set_callbacks(history).fit(X[:100])
    assert [r["iteration"] for r in history.records] == list(range(1, model.n_iter_ + 1))
    assert history.records[-1]["score"] == pytest.approx(model.score(X[100:]))
    search = GridSearchCV(model, {"n_components": [1, 2]}, cv=2).fit(X)
    assert {r["fit"] for r in history.records} == set(range(6))  # 2 x 2, the refit
    search.best_estimator_.set_callbacks()
    assert not hasattr(search.best_estimator_, "_skl_callbacks")
    n = len(history.records)
    clone(search.best_estimator_).fit(X)
    assert len(history.records) == n


def test_early_stopping_returns_to_the_best():
    scores = iter([1.0, 3.0, 2.0, 0.0, 0.0])
    kept = []

    def scoring(model, X):
        kept.append(model.means_.copy())
        return next(scores)

    stopping = EarlyStopping(scoring=scoring, n_no_change=2)
    model = BayesianGMM_MAP(3, tol=0, random_state=0).set_callbacks(stopping).fit(X)
    assert model.n_iter_ == 4
    np.testing.assert_array_equal(model.means_, kept[1])


def test_a_failed_fit_ends_its_records():
    history = History(X[:, :2])
    with pytest.raises(ValueError, match="expecting 4 features"):
        BayesianGMM_MAP(2).set_callbacks(history).fit(X)
    assert not history._fits
