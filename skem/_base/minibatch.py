"""The frame of fits by minibatches: passes, validation rows, early stopping."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from sklearn.utils import check_random_state

from skem._base.estimator import (
    LatentEstimator,
    hooks,
    keep_features,
    warn,
    warn_if_interrupted,
)
from skem._base.input import largest_weight, split_rows
from skem._loop import DivergenceError, Patience, Run, iterate
from skem._rows.parts import LocalRows
from skem._typing import Indices

# Rows are ignored if their weight, relative to the largest, is below this: its square root
# would still be lost in the sums of float32.
MIN_RELATIVE_WEIGHT = 1e-30


class Training(Protocol):
    """What is trained: it changes in place."""

    seed: int

    @property
    def n_passes(self) -> int:
        """The number of passes of this fit."""

    def is_finite(self) -> bool:
        """Whether all parameters are finite."""

    def snapshot(self) -> Any:
        """Return a copy of the parameters that are kept in the end."""

    def restore(self, snapshot: Any) -> None:
        """Return to a snapshot."""


class MinibatchEstimator(LatentEstimator):
    """What estimators trained by minibatches share.

    A subclass has the parameters ``batch_size``, ``random_state`` and ``verbose``, and the
    methods

    - ``_check_rows(X, sample_weight=None, *, reset)``: rows that can be shuffled;
    - ``_start(rows, chosen, seed, resume, n_passes)``: a training of new parameters, or of
      copies of the fitted ones; ``n_passes`` is None in ``partial_fit``;
    - ``_pass(training, rows, chosen, i)``: trains for one pass over the chosen rows and
      returns the objective; i counts the passes, and is None in ``partial_fit``;
    - ``_split_generator(seed)``: the random numbers that choose validation rows;
    - ``_validation_score(training, rows, chosen)``: the score of validation rows;
    - ``_line(training, patience)``: what to print of the last pass;
    - ``_attributes(training, resume, scores)``: the fitted attributes as a dict, with the
      validation scores of this fit, if there can be any;
    - ``_diverged(error)``: the ValueError to raise if training diverged.
    """

    early_stopping: bool | str = False  # for those without the parameter

    def _stops_early(self, n_rows: int) -> bool:
        """Return whether rows are held out, and the best weights kept."""
        return bool(self.early_stopping)

    def _validation_share(self, n_rows: int) -> float:
        """Return the share of the rows to hold out."""
        return float(self.validation_fraction)

    def _ends(self, training: Any, n_rows: int) -> bool:
        """Return whether a fit without validation rows ends after this pass."""
        return False

    def _may_stop(self, training: Any, n_passes: int) -> bool:
        """Return whether scores that do not rise count, if there are ``n_passes`` at most."""
        return True

    def _keeps_start(self, training: Any, resume: bool) -> bool:
        """Return whether the weights before the first pass may be the best ones.

        The fit then does not end up worse.
        """
        return resume

    def _max_passes(self, n_rows: int) -> int:
        """Return the largest number of passes over rows with a weight above 0."""
        return int(self.max_iter)

    def _n_subtasks_of(self, rows: Any) -> int:
        return self._max_passes(rows.n_positive)

    def _first_seed(self, resume: bool) -> int:
        """Return the seed of the last fit or, if there was none, a new one."""
        kept = getattr(self, "_seed", None) if resume else None
        return new_seed(self.random_state) if kept is None else int(kept)

    def _split(self, rows: LocalRows, seed: int) -> tuple[Indices, Any, Patience | None]:
        """Return the rows to learn from, those held out, and the patience for their score."""
        if not self._stops_early(rows.n_positive):
            return np.flatnonzero(rows.weight), None, None
        weight = np.asarray(rows.weight)
        share = self._validation_share(len(weight))
        chosen, validation = split_rows(weight, share, self._split_generator(seed))
        patience = Patience(self.n_iter_no_change, self.tol)
        return chosen[weight[chosen] > 0], validation, patience

    def _train(self, rows: LocalRows, resume: bool) -> tuple[Any, bool, Run, Patience | None]:
        _warn_of_one_row(self, rows)
        rows, seed = relative(rows), self._first_seed(resume)
        max_passes = self._max_passes(rows.n_positive)
        chosen, validation, patience = self._split(rows, seed)
        training = self._start(rows, chosen, seed, resume, max_passes)

        def step(training: Training) -> tuple[Training, float]:
            return training, self._pass(training, rows, chosen, training.n_passes)

        def stop(run: Run) -> bool:
            if patience is None:
                return self._ends(training, rows.n_positive)
            score = self._validation_score(training, rows, validation)
            ends = patience.note(score, training.snapshot)
            if self._may_stop(training, max_passes):
                return ends
            patience.n_worse = 0
            return False

        best: Any = None  # what a callback asks to return to

        def keep(run: Run) -> None:
            nonlocal best
            best = training.snapshot()

        calls = hooks(
            self,
            int(self.verbose),
            lambda run: self._line(training, patience),
            lambda run: self._attributes(training, resume, _scores(patience)),
            stop,
            keep=keep,
            total=max_passes,
        )
        try:
            if patience is not None and self._keeps_start(training, resume):
                score = self._validation_score(training, rows, validation)
                patience.begin(score, training.snapshot())
            run = iterate(step, training, max_iter=max_passes, **calls)
        except KeyboardInterrupt:  # before the first pass
            run = Run(training, interrupted=True)
        except DivergenceError as error:
            raise self._diverged(error) from error
        if run.interrupted and not training.is_finite():
            raise self._diverged(FloatingPointError("weights became infinite"))
        best = patience.kept if best is None and patience is not None else best
        if best is not None:
            training.restore(best)
        return training, resume, run, patience

    def _keep(self, trained: tuple[Any, bool, Run, Patience | None]) -> None:
        training, resume, run, patience = trained
        self._set_attributes(training, resume, _scores(patience))
        warn_if_interrupted(self, run)

    def _set_attributes(self, training: Training, resume: bool, scores: list[float]) -> None:
        for name, value in self._attributes(training, resume, scores).items():
            setattr(self, name, value)

    def _partial_fit(self, X: Any, sample_weight: Any) -> None:
        """Train in one more pass over X."""
        self._check_parameters()
        resume = self._is_fitted()
        rows = relative(self._check_rows(X, sample_weight, reset=not resume))
        training = self._train_once(rows, resume)
        if not resume:
            keep_features(self, X)
        self._set_attributes(training, resume, [])

    def _train_once(self, rows: LocalRows, resume: bool) -> Any:
        """Return the training after one more pass over the rows."""
        chosen = np.flatnonzero(rows.weight)
        seed = self._first_seed(resume)
        training = self._start(rows, chosen, seed, resume, None)
        try:
            self._pass(training, rows, chosen, None)
        except FloatingPointError as error:
            raise self._diverged(error) from error
        return training


def new_seed(random_state: Any) -> int:
    """Draw the seed of private random numbers."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def _scores(patience: Patience | None) -> list[float]:
    """Return a copy of the validation scores; empty without early stopping."""
    return list(patience.scores) if patience else []


def _warn_of_one_row(estimator: object, rows: LocalRows) -> None:
    if rows.n_positive == 1:
        warn(
            f"X has a single row, which is all that {type(estimator).__name__} can learn: give "
            "more rows, or use partial_fit for a row at a time.",
            UserWarning,
        )


def relative(rows: LocalRows) -> LocalRows:
    """Return the rows with weights of at most 1: only their ratios matter."""
    if not rows.is_weighted:
        return rows.reweighted(np.ones(len(rows)))
    weight = np.asarray(rows.weight) / largest_weight(rows)
    weight[weight < MIN_RELATIVE_WEIGHT] = 0
    return rows.reweighted(weight)


def batches(
    rows: LocalRows, order: Indices, size: int, *, min_rows: int = 1
) -> Iterator[Indices]:
    """Yield minibatches of indices, sorted within; a smaller last one joins the one before."""
    order = rows.batch_order(order)
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] < min_rows:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield np.sort(order[start:end])
