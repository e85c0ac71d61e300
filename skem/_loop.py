"""The loop that trains every model, and nothing else.

A training is ``state, objective = step(state)`` repeated. One EM iteration is a step;
so is one epoch of minibatches. The objective is maximised, in nats per sample.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass
class Run:
    """What a training left behind.

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
        """This run, continued by a later one as soon as that is better."""
        better = [value for value in later.objectives if value > self.objectives[-1]]
        return replace(
            later,
            objectives=self.objectives + better,
            n_iter=self.n_iter + len(better),
        )


class DivergenceError(FloatingPointError):
    """A step failed numerically; ``run`` is all that came before."""

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
        Where to start.
    max_iter : int
        The largest number of steps.
    tol : float, default=None
        Stop when a step changes the objective by less than this; None runs all steps.
    delay : int, default=0
        Steps that are still taken after such a change.
    start : float, default=-inf
        The objective of ``state``, where it is known.
    on_begin : callable, default=None
        Called before each step.
    on_iter : callable, default=None
        Called with the :class:`Run` after each step; a true answer stops the loop.

    Returns
    -------
    Run
        The last state and its history. Ctrl-C ends the loop and keeps them.

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
            last = run.objectives[: len(run.objectives) - delay][-2:]
            run.converged = tol is not None and len(last) == 2 and abs(last[1] - last[0]) < tol
            run.stopped = bool(on_iter is not None and on_iter(run))
            if run.stopped or run.converged:
                break
    except KeyboardInterrupt:
        run.interrupted = True
    return run


def em(model: Any, total: Callable[[Any], Any], params: Any, **options: Any) -> Run:
    """Run EM from ``params``: the state is (params, their statistics).

    An M step is followed by the E step of the new parameters, so that the objective
    that is recorded, returned and compared belongs to the parameters that are kept.
    ``total`` maps parameters to the statistics of all rows, wherever the rows live.
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
