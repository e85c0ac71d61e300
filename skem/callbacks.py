"""Callbacks for fits without y; scikit-learn's ``ScoringMonitor`` needs y."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike
from sklearn.metrics import get_scorer

from skem._base.compat import OwnCallback
from skem._base.input import check_count
from skem._loop import Patience
from skem._warn import warn

__all__ = ["EarlyStopping", "History"]

Scorer = Callable[..., float]  # (estimator, X, y)


def scorer_of(scoring: str | Callable[..., float] | None) -> Scorer:
    """Return a function of an estimator, X and y."""
    if scoring is None:
        return lambda fitted, X, y: fitted.score(X) if y is None else fitted.score(X, y)
    if isinstance(scoring, str):
        return _named_scorer(scoring)
    if not callable(scoring):
        raise TypeError(
            "scoring must be a callable, the name of a scorer of scikit-learn, or None, but it "
            f"is {scoring!r}."
        )
    given: Any = scoring
    try:
        inspect.signature(given).bind(None, None, None)
    except TypeError:  # it takes an estimator and X only
        return lambda fitted, X, y: given(fitted, X)
    except ValueError:  # it does not tell its signature
        pass
    return lambda fitted, X, y: given(fitted, X, y)


def _named_scorer(name: str) -> Scorer:
    scorer = get_scorer(name)

    def score(fitted: Any, X: Any, y: Any) -> float:
        if y is None:
            raise ValueError(f"scoring={name!r} compares with y: give X and y to the callback.")
        return float(scorer(fitted, X, y))

    return score


@dataclass
class _Fit:
    """A fit that goes on: its number, when it began, and how its scores rise."""

    number: int
    began: float
    is_best: bool = False  # whether the last iteration has the best score
    patience: Patience | None = None


class History(OwnCallback):
    """Record the score of an estimator after each iteration of its fit.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features), default=None
        Rows to score, for example held-out rows. None scores the rows of the fit. If both
        have feature names, the names must match.
    y : array-like of shape (n_samples,), default=None
        Labels of the rows in X, for a ``scoring`` that compares with them.
    scoring : str or callable, default=None
        A callable ``scoring(estimator, X, y)`` or ``scoring(estimator, X)`` returns a number;
        so do the scorers of scikit-learn, which may be given by name. None is the
        estimator's ``score``, in nats (units of natural logarithm) per sample.
        ``GANEstimator`` needs a scoring: its own score does not compare generators.
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
    them. Callbacks are pickled with their estimator; ``set_callbacks()`` removes them. The
    pickle of a fitted estimator has the records, but not X and y.

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
        y: ArrayLike | None = None,
        *,
        scoring: str | Callable[..., float] | None = None,
        every: int = 1,
    ) -> None:
        check_count("every", every)
        scorer_of(scoring)  # refuse a wrong one now, not in the middle of a fit
        self.X, self.y, self.scoring, self.every = X, y, scoring, every
        self.records: list[dict[str, Any]] = []
        self._has_lost_rows = False
        # fits that run at the same time stay apart; those in a search share their root
        self._fits: dict[Any, _Fit] = {}
        self._n_fits = 0

    def without_rows(self) -> History:
        """Return a copy for the pickle of a fitted estimator: without X and y.

        Returns
        -------
        History
            The copy, which has the records, and refuses another fit if there was an X.
        """
        new = copy(self)
        new.X = new.y = None
        new._has_lost_rows = self._has_lost_rows or self.X is not None
        return new

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin the records of a fit.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        context : sklearn.callback.CallbackContext
            The fit.

        Raises
        ------
        ValueError
            If the callback comes from the pickle of a fitted estimator, which has no X.
        """
        if self._has_lost_rows:
            raise ValueError(
                f"{type(self).__name__} comes from the pickle of a fitted estimator, which "
                "leaves out the rows to score: give them again, with set_callbacks("
                f"{type(self).__name__}(X)), or call set_callbacks() to go without."
            )
        self._fits[context] = _Fit(self._n_fits, time.perf_counter())
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
        self._fits.pop(context, None)

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
        self,
        estimator: Any,
        context: Any,
        *,
        X: Any = None,
        y: Any = None,
        fitted_estimator: Any = None,
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
        y : array-like
            The labels of the fit, if it has any.
        fitted_estimator : callable or estimator
            The estimator as it is after the iteration.

        Returns
        -------
        bool
            Whether to stop.
        """
        if context.task_name != "iteration":
            return False
        iteration, fit = context.task_id + 1, self._fits[context.parent]
        fit.is_best = False
        if iteration % self.every:
            return False
        rows = (X, y) if self.X is None else (self.X, self.y)
        record = {
            "fit": fit.number,
            "iteration": iteration,
            "seconds": time.perf_counter() - fit.began,
            "score": float(scorer_of(self.scoring)(fitted_estimator, *rows)),
        }
        self.records.append(record)
        return self._stops(record, fit)

    def _stops(self, record: dict[str, Any], fit: _Fit) -> bool:
        """Return whether the fit stops after this record."""
        return False


class EarlyStopping(History):
    """Stop a fit when the score of held-out rows no longer rises.

    At its end, the fit returns to the parameters with the best score, whether it was stopped
    or not. ``n_iter_`` and the other histories of the fit count all iterations.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features), default=None
        Held-out rows. None scores the rows of the fit. If both have feature names, the names
        must match.
    y : array-like of shape (n_samples,), default=None
        Labels of the rows in X, for a ``scoring`` that compares with them.
    scoring : str or callable, default=None
        A callable ``scoring(estimator, X, y)`` or ``scoring(estimator, X)`` returns a number;
        so do the scorers of scikit-learn, which may be given by name. Greater is better.
        None is the estimator's ``score``, in nats (units of natural logarithm) per sample.
    every : int, default=1
        Number of iterations between scores.
    n_no_change : int, default=5
        The number of scores without a rise after which to stop. NaN is no rise; before the
        first number it is not counted.
    tol : float, default=1e-3
        The smallest rise that counts. Smaller rises add up.

    Attributes
    ----------
    records : list of dict
        As in :class:`History`.

    See Also
    --------
    History : Record scores and go on.

    Notes
    -----
    A step size that falls over the planned iterations, such as the one-cycle schedule of
    ``BernoulliRBMCD``, brings much of the gain near the end. A stop before that keeps a model
    that the full fit would have passed: choose a constant step size, or fewer iterations
    rather than an early stop.

    Estimators of other packages are stopped too, but they keep their last parameters.

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
        y: ArrayLike | None = None,
        *,
        scoring: str | Callable[..., float] | None = None,
        every: int = 1,
        n_no_change: int = 5,
        tol: float = 1e-3,
    ) -> None:
        super().__init__(X, y, scoring=scoring, every=every)
        check_count("n_no_change", n_no_change)
        self.n_no_change, self.tol = n_no_change, tol

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin the records of a fit.

        Parameters
        ----------
        estimator : estimator
            The estimator that is fitted.
        context : sklearn.callback.CallbackContext
            The fit.

        Raises
        ------
        ValueError
            If the callback comes from the pickle of a fitted estimator, which has no X.

        Warns
        -----
        UserWarning
            If ``scoring`` is None and the estimator's score does not compare fits.
        """
        super().setup(estimator, context)
        if self.scoring is None and not getattr(estimator, "_score_compares", True):
            warn(
                f"the score of {type(estimator).__name__} does not compare fits, and this "
                "callback stops by it: give a scoring.",
                UserWarning,
            )

    def is_best(self, context: Any) -> bool:
        """Return whether an iteration has the best score of its fit so far.

        Parameters
        ----------
        context : sklearn.callback.CallbackContext
            The iteration that has just ended.

        Returns
        -------
        bool
            Whether the fit returns to this iteration, if none is better.
        """
        return self._fits[context.parent].is_best

    def _stops(self, record: dict[str, Any], fit: _Fit) -> bool:
        if fit.patience is None:
            fit.patience = Patience(self.n_no_change, self.tol)
        before = fit.patience.best
        stop = fit.patience.note(record["score"])
        fit.is_best = fit.patience.best != before
        return stop
