"""The loop that trains every model, and the rules that stop it.

A training is ``state, objective = step(state)`` repeated. One EM iteration is a step; so is one
pass over minibatches. The objective is maximized, in nats per sample: a nat is the unit of
natural logarithms, 1.44 bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol


class Maximizable(Protocol):
    """A model whose mode EM finds."""

    def m_step(self, params: Any, stats: Any) -> Any:
        """Return the parameters at the mode given the statistics."""

    def log_prior(self, params: Any) -> float:
        """Return the log prior density of the parameters."""


@dataclass
class Run:
    """The state and the history of a training.

    Attributes
    ----------
    state : object
        The last state whose objective was finite.
    objectives : list of float
        The objective after each step; when ``start`` was given it comes first.
    n_iter : int
        The number of steps taken.
    converged : bool
        Whether the last change was below ``tol``.
    stopped : bool
        Whether ``on_iter`` stopped the loop.
    interrupted : bool
        Whether the user stopped the loop with Ctrl-C.
    """

    state: Any
    objectives: list[float] = field(default_factory=list)
    n_iter: int = 0
    converged: bool = False
    stopped: bool = False
    interrupted: bool = False

    def then(self, later: "Run") -> "Run":
        """Append a later run; of its objectives, those above the last one here are kept."""
        better = [value for value in later.objectives if value > self.objectives[-1]]
        return replace(
            later,
            objectives=self.objectives + better,
            n_iter=self.n_iter + len(better),
        )


@dataclass
class Patience:
    """Early stopping: ask for a stop when a score no longer rises.

    Attributes
    ----------
    n_no_change : int
        The number of scores without a rise after which to stop.
    tol : float
        The smallest rise that counts.
    scores : list of float
        All scores.
    best : float or None
        The highest score.
    kept : object
        The snapshot that was taken with it.
    """

    n_no_change: int
    tol: float
    scores: list[float] = field(default_factory=list)
    best: float | None = None
    kept: Any = None
    risen: float = -math.inf  # the last score that rose by more than tol
    n_worse: int = 0

    def begin(self, score: float, snapshot: Any) -> None:
        """Set the score to beat, and what is kept if no score beats it."""
        self.kept = snapshot
        if not math.isnan(score):
            self.best, self.risen = score, score

    def note(self, score: float, snapshot: Callable[[], Any] = lambda: None) -> bool:
        """Record a score, with a snapshot if it is the best; return whether to stop.

        NaN never counts as a rise. Before the first number there is nothing to compare, so
        NaN does not count against the patience either.
        """
        self.scores.append(score)
        if math.isnan(score) and self.best is None:
            return False
        self.n_worse += 1
        if self.best is None or score > self.risen + self.tol:
            self.risen, self.n_worse = score, 0
        if self.best is None or score > self.best:
            self.best, self.kept = score, snapshot()
        return self.n_worse >= self.n_no_change


class DivergenceError(FloatingPointError):
    """A step failed numerically; ``run`` holds what came before."""

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


def iterate(
    step: Callable[[Any], tuple[Any, float]],
    state: Any,
    *,
    max_iter: int,
    tol: float | None = None,
    delay: int = 0,
    patient: bool = False,
    start: float = -math.inf,
    on_begin: Callable[[], object] | None = None,
    on_iter: Callable[[Run], bool | None] | None = None,
) -> Run:
    """Repeat ``step`` until the objective changes by less than ``tol``, or something says stop.

    Parameters
    ----------
    step : callable
        Maps a state to the next state and its objective.
    state : object
        The state to start from.
    max_iter : int
        The largest number of steps.
    tol : float, default=None
        Stop when a step changes the objective by less than this; None runs all steps.
    delay : int, default=0
        The number of steps to take after such a change.
    patient : bool, default=False
        Whether to go on while the changes shrink slowly, see :func:`has_settled`.
    start : float, default=-inf
        The objective of ``state``, if it is known.
    on_begin : callable, default=None
        Called before each step.
    on_iter : callable, default=None
        Called with the :class:`Run` after each step. If it returns true, the loop stops.

    Returns
    -------
    Run
        The last state and the history. Ctrl-C ends the loop and keeps both.

    Raises
    ------
    DivergenceError
        If a step raises FloatingPointError or an objective is not finite.
    """
    run = Run(state, [start] if math.isfinite(start) else [])
    try:
        while run.n_iter < max_iter:
            if on_begin is not None:
                on_begin()
            try:
                new_state, objective = step(run.state)
            except FloatingPointError as error:
                raise DivergenceError(f"{error} at iteration {run.n_iter + 1}", run) from error
            if not math.isfinite(objective):
                message = f"the objective is {objective} at iteration {run.n_iter + 1}"
                raise DivergenceError(message, run)
            run.state = new_state
            run.objectives.append(objective)
            run.n_iter += 1
            last = run.objectives[: len(run.objectives) - delay]
            run.converged = tol is not None and has_settled(last[-3:], tol, patient)
            run.stopped = bool(on_iter is not None and on_iter(run))
            if run.stopped or run.converged:
                break
    except KeyboardInterrupt:
        run.interrupted = True
    return run


def has_settled(objectives: list[float], tol: float, patient: bool) -> bool:
    """Return whether the last change of the objective was below ``tol``.

    If ``patient``, the changes to come must be small too. Changes of EM shrink at a rate
    r < 1 in the long run, so that a change g is followed by g r / (1 - r) in total (Aitken's
    extrapolation). This sum must be below 10 ``tol``. While the changes grow, EM is leaving a
    saddle, and goes on.
    """
    if len(objectives) < 2 + patient:
        return False
    gain = objectives[-1] - objectives[-2]
    if abs(gain) >= tol:
        return False
    before = objectives[-2] - objectives[-3] if patient else 0.0
    if not patient or gain <= 0 or before <= 0:
        return True
    return bool(gain < before and gain * gain < 10 * tol * (before - gain))


def em(model: Maximizable, total: Callable[[Any], Any], params: Any, **options: Any) -> Run:
    """Run EM from ``params``; the state is (params, their statistics).

    The E step follows the M step, so that each recorded objective belongs to the parameters
    of the same state. ``total`` maps parameters to the statistics of all rows.
    """

    def objective(params: Any, stats: Any) -> float:
        return float((stats.log_lik + model.log_prior(params)) / stats.weight)

    def step(state: tuple[Any, Any]) -> tuple[tuple[Any, Any], float]:
        params = model.m_step(*state)
        stats = total(params)
        return (params, stats), objective(params, stats)

    stats = total(params)
    start = objective(params, stats)
    return iterate(step, (params, stats), start=start, **options)
