"""How a fit ended: which start held, which components collapsed, and what to say of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from skem._base.estimator import warn
from skem._loop import DivergenceError, Run
from skem._typing import Indices
from skem.mixture._params import CollapseError, Params
from skem.mixture._starts import Search

MAX_COLLAPSED = 3  # runs with a collapsed component, before the best of them is kept
REMEDY = "Use fewer components, prior='empirical', or a larger reg_covar."


@dataclass(frozen=True)
class Outcome:
    """The run of a fit, or None if none was finite, and how it came about."""

    run: Run | None
    collapsed: Indices  # components that collapsed in it
    n_replaced: int = 0  # starts that diverged before it
    before: Run | None = None  # what came before the first divergence

    def checked(self, *, is_given: bool) -> Run:
        """Return the run, with a warning if components collapsed or a start was replaced."""
        if self.run is None:
            return self._before_divergence()
        if self.n_replaced and is_given:
            warn(
                "EM lost a component from the given start (weights_init, means_init, "
                "precisions_init, or the last fit), and another start was used: check that "
                "each mean lies among the rows."
            )
        if len(self.collapsed):
            warn(
                f"components {self.collapsed.tolist()} collapsed onto too few rows for "
                f"their covariance: their smallest variance is that of reg_covar. {REMEDY}"
            )
        return self.run

    def _before_divergence(self) -> Run:
        """Return the run before the first divergence; raise an error if there is none."""
        if self.before is None or not self.before.objectives:
            raise ValueError(
                "the likelihood of X is not finite at any start: X has constant or collinear "
                "features, or its values are too large or too small. Raise reg_covar, use "
                "prior='empirical', or rescale X."
            )
        warn(
            "all starts collapsed: a component shrank onto a point or lost its rows. The "
            f"parameters before the first collapse are kept. {REMEDY}"
        )
        return replace(self.before, stopped=True)

    def rank(self) -> tuple[int, float]:
        """Return a key that sorts the best outcome first."""
        assert self.run is not None
        return len(self.collapsed), -self.run.objectives[-1]


def first_to_hold(
    search: Search,
    starts: Iterator[Params],
    run_em: Callable[[Params], Run],
    *,
    is_final: bool,
) -> Outcome:
    """Return the run from the first start that does not collapse.

    If all starts collapse, it is the run with the fewest collapsed components. With
    ``is_final``, the first finite run is taken as it is.
    """
    outcomes: list[Outcome] = []
    before: Run | None = None
    n_replaced = 0
    try:
        for params in starts:
            try:
                run = run_em(params)
            except DivergenceError as failure:
                n_replaced += 1
                if before is None or not before.objectives:
                    before = failure.run
                continue
            found = search.collapsed(*run.state)
            outcomes.append(Outcome(run, found, n_replaced))
            done = is_final or not len(found) or run.interrupted
            if done or len(outcomes) == MAX_COLLAPSED:
                break
    except CollapseError:
        pass  # this start itself is degenerate, and so are all others
    except KeyboardInterrupt:
        if not outcomes:
            raise
        outcomes = [replace(o, run=replace(o.run, interrupted=True)) for o in outcomes if o.run]
    nothing = Outcome(None, np.arange(0), n_replaced, before)
    return min(outcomes, key=Outcome.rank, default=nothing)
