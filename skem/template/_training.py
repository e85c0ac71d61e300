"""The course of a fit: a start, a schedule, shrinkage, EM, and moves."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skem._base.passes import Passes
from skem._loop import DivergenceError, Run, em
from skem._rows.parts import Rows
from skem._rows.sampling import representative_rows
from skem.template._classes import search_classes
from skem.template._given import given_params
from skem.template._model import Params, ShiftedTemplate, Smoothness
from skem.template._moves import follow_moves
from skem.template._starts import (
    follow_schedule,
    mean_params,
    prior_at,
    random_params,
    search,
    shrink_all,
)

# Number of EM iterations with an additive template before it is moved.
N_ITER_BRIEF = 15

# Runs EM to convergence: (model, passes, params, max_iter) -> run
RunEM = Callable[[ShiftedTemplate, Passes, Params, int], Run]


@dataclass(frozen=True)
class Training:
    """The options of a fit that concern its course, and what it starts from."""

    init: str
    n_init: int
    init_size: int
    shrinkage: str | None
    schedule: Sequence[tuple[int, int]]
    max_iter: int
    tol: float
    n_jobs: int | None
    given: dict[str, Any]  # starting values given by the user
    last: Params | None  # of the last fit, if this one continues it
    last_smoothness: Smoothness | None

    def run(
        self,
        model: ShiftedTemplate,
        rows: Rows,
        span: tuple[float, float],
        rng: np.random.RandomState,
        run_em: RunEM,
    ) -> tuple[ShiftedTemplate, Run]:
        """Find a start, shrink it, run EM, and move a template that is off its place.

        After Ctrl-C, the run so far is returned, or the best start so far, or the mean start.
        """
        kinds, run, params = self._kinds(), None, None

        def run_from(params: Params, max_iter: int) -> Run:
            return run_em(model, passes, params, max_iter)

        try:
            if kinds:
                sample = representative_rows(rows, self.init_size * model.n_templates, rng)
                several = model.n_templates > 1 and self.init == "auto"
                find = search_classes if several else search
                params, best, interrupted = find(model, sample, kinds, span, rng, self.n_jobs)
                del sample
                if interrupted:
                    raise KeyboardInterrupt
            passes = Passes(model, rows, self.n_jobs)
            if params is None:
                params, best = self._single_start(model, span, passes, rng), "given"
            params = follow_schedule(model, rows, params, self.schedule, self.n_jobs)
            if best == "shrunk" or self.shrinkage == "map":
                params, smoothness = self._shrink(model, passes, params)
                if self.shrinkage == "map":
                    model = replace(model, smoothness=smoothness)
            moves = bool(kinds) and self.init == "auto"
            early = model.additive and moves
            run = run_from(params, min(N_ITER_BRIEF, self.max_iter) if early else self.max_iter)
            # runs are kept one by one, so that Ctrl-C returns the last
            if early:
                for better in self._early_moves(model, passes, rows, run, run_from):
                    run = better
            if moves:
                anneal = self.shrinkage is not None
                for better in self._moves(model, passes, rows, run, run_from, anneal):
                    run = better
        except DivergenceError as error:
            raise ValueError(
                f"{error}: the given starting values are too far from X, or the values of X "
                "are too large. Change the starting values, or rescale X."
            ) from error
        except KeyboardInterrupt:
            if run is None:
                passes = Passes(model, rows, self.n_jobs)
                params = mean_params(model, passes) if params is None else params
                run = em(model, passes.total, params, max_iter=0)
            run = replace(run, interrupted=True)
        return model, run

    def _moves(
        self,
        model: ShiftedTemplate,
        passes: Passes,
        rows: Rows,
        run: Run,
        run_from: Callable[[Params, int], Run],
        anneal: bool,
    ) -> Iterator[Run]:
        """Yield the run after each move that raises the objective."""
        return follow_moves(
            model, passes, run, rows, self.tol, self.max_iter, run_from, anneal=anneal
        )

    def _early_moves(
        self,
        model: ShiftedTemplate,
        passes: Passes,
        rows: Rows,
        run: Run,
        run_from: Callable[[Params, int], Run],
    ) -> Iterator[Run]:
        """Yield the run after moves of an additive template, and then the whole run.

        EM shifts an added template that is off its place by itself, but this takes hundreds
        of iterations. Moves before EM has converged are much faster.
        """

        def briefly(params: Params, max_iter: int) -> Run:
            return run_from(params, min(max_iter, N_ITER_BRIEF))

        for better in self._moves(model, passes, rows, run, briefly, anneal=False):
            run = better
            yield run
        left = self.max_iter - run.n_iter
        if left > 0 and not (run.converged or run.stopped or run.interrupted):
            yield run.then(run_from(run.state[0], left))

    def _kinds(self) -> list[str]:
        """Return the kinds of starts to compare on a sample; none if there is only one."""
        if self.last is not None or self.given:
            return []
        if self.init == "auto":
            shrunk = [] if self.shrinkage is None else ["shrunk"]
            return ["mean", *shrunk, *["posterior", "window"] * self.n_init]
        if self.init == "random" and self.n_init > 1:
            return ["random"] * self.n_init
        return []

    def _single_start(
        self,
        model: ShiftedTemplate,
        span: tuple[float, float],
        passes: Passes,
        rng: np.random.RandomState,
    ) -> Params:
        """Return the last fit, or a random or mean start with the given values replaced."""
        if self.last is not None:
            params = self.last
        elif self.init == "random":
            params = random_params(model, *span, rng)
        else:
            params = mean_params(model, passes)
        return given_params(model, params, **self.given)

    def _shrink(
        self, model: ShiftedTemplate, passes: Passes, params: Params
    ) -> tuple[Params, Smoothness | None]:
        """Return shrunk parameters and their prior; a given start is not changed."""
        if self.last_smoothness is not None:
            return params, self.last_smoothness
        if self.last is not None or self.given:
            return params, prior_at(model, passes, params)
        return shrink_all(model, passes, params)
