"""Callbacks for fits without y; scikit-learn's ``ScoringMonitor`` needs y."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from skem._base.input import check_count
from skem._loop import Patience

__all__ = ["EarlyStopping", "History"]


class History:
    """Record the score of an estimator after each iteration of its fit.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features), default=None
        Rows to score, for example held-out rows. None scores the rows of the fit.
    scoring : callable, default=None
        ``scoring(estimator, X)`` returns a number. None is the estimator's ``score``, in nats
        (units of natural logarithm) per sample. ``GANEstimator`` needs a scoring: its own
        score does not compare generators.
    every : int, default=1
        Number of iterations between scores. A score takes a pass over the rows.

    Attributes
    ----------
    records : list of dict
        One entry for each score: ``"fit"`` (the number of the fit), ``"iteration"`` (from 1),
        ``"seconds"`` (since the fit began), and ``"score"``. ``pandas.DataFrame(records)``
        makes a table of them.

    See Also
    --------
    EarlyStopping : Stop when the score no longer rises.

    Notes
    -----
    If a search fits in other processes, the records stay there: use ``n_jobs=1`` to see
    them. Callbacks are pickled with their estimator; ``set_callbacks()`` removes them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skem import BayesianGMM_MAP, History
    >>> X = load_iris().data
    >>> history = History(X[100:])
    >>> model = BayesianGMM_MAP(2, random_state=0).set_callbacks(history).fit(X[:100])
    >>> history.records[0]["iteration"], len(history.records) == model.n_iter_
    (1, True)
    """

    def __init__(
        self,
        X: ArrayLike | None = None,
        *,
        scoring: Callable[[Any, Any], float] | None = None,
        every: int = 1,
    ) -> None:
        check_count("every", every)
        self.X, self.scoring, self.every = X, scoring, every
        self.records: list[dict[str, Any]] = []
        self._began: dict[Any, tuple[int, float]] = {}
        self._n_fits = 0

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin the records of a fit.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        context : sklearn.callback.CallbackContext
            The fit.
        """
        self._began[context.root_uuid] = self._n_fits, time.perf_counter()
        self._n_fits += 1

    def teardown(self, estimator: Any, context: Any) -> None:
        """End the records of a fit.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        context : sklearn.callback.CallbackContext
            The fit.
        """
        self._began.pop(context.root_uuid, None)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        context : sklearn.callback.CallbackContext
            The iteration.
        """

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, X: Any = None, fitted_estimator: Any = None
    ) -> bool:
        """Score the estimator after an iteration.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        context : sklearn.callback.CallbackContext
            The iteration.
        X : array-like
            The rows of the fit.
        fitted_estimator : callable or estimator
            The estimator as it is after the iteration.

        Returns
        -------
        bool
            Whether to stop.
        """
        iteration = context.task_id + 1 if context.task_name == "iteration" else 0
        if iteration == 0 or iteration % self.every:
            return False
        rows = X if self.X is None else self.X
        scored = self.scoring or (lambda fitted, rows: fitted.score(rows))
        fit, began = self._began[context.root_uuid]
        record = {
            "fit": fit,
            "iteration": iteration,
            "seconds": time.perf_counter() - began,
            "score": float(scored(fitted_estimator, rows)),
        }
        self.records.append(record)
        return self._stops(record)

    def _stops(self, record: dict[str, Any]) -> bool:
        """Return whether the fit stops after this record."""
        return False


class EarlyStopping(History):
    """Stop a fit when the score of held-out rows no longer rises.

    The fit keeps the last parameters. The parameter ``early_stopping``, if the estimator has
    it, also returns to the best ones.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features), default=None
        Held-out rows. None scores the rows of the fit.
    scoring : callable, default=None
        ``scoring(estimator, X)`` returns a number. None is the estimator's ``score``, in nats
        (units of natural logarithm) per sample.
    every : int, default=1
        Number of iterations between scores.
    n_no_change : int, default=5
        The number of scores without a rise after which to stop.
    tol : float, default=1e-3
        The smallest rise that counts.

    Attributes
    ----------
    records : list of dict
        As in :class:`History`.

    See Also
    --------
    History : Record scores and go on.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import BernoulliRBMCD, EarlyStopping
    >>> X = (load_digits().data > 7).astype(float)
    >>> stopping = EarlyStopping(X[1500:], n_no_change=2, every=5)
    >>> model = BernoulliRBMCD(10, n_iter=500, random_state=0).set_callbacks(stopping)
    >>> model.fit(X[:1500]).n_iter_ < 500
    True
    """

    def __init__(
        self,
        X: ArrayLike | None = None,
        *,
        scoring: Callable[[Any, Any], float] | None = None,
        every: int = 1,
        n_no_change: int = 5,
        tol: float = 1e-3,
    ) -> None:
        super().__init__(X, scoring=scoring, every=every)
        check_count("n_no_change", n_no_change)
        self.n_no_change, self.tol = n_no_change, tol

    def _stops(self, record: dict[str, Any]) -> bool:
        # rebuilt from the records, so that fits that run at the same time stay apart
        patience = Patience(self.n_no_change, self.tol)
        scores = [r["score"] for r in self.records if r["fit"] == record["fit"]]
        return [patience.note(score) for score in scores][-1]
