import math
from dataclasses import dataclass

import numpy as np
import pytest

from skem._loop import has_settled, iterate
from skem._stats import Additive


def halve(x):
    return x / 2, -abs(x / 2)


def test_stops_at_tolerance_and_counts_steps():
    run = iterate(halve, 8.0, max_iter=50, tol=0.3)
    # objectives -4, -2, -1, -0.5, -0.25: the last gain, 0.25, is the first under 0.3
    assert run.objectives == [-4, -2, -1, -0.5, -0.25]
    assert (run.n_iter, run.converged, run.state) == (5, True, 0.25)


def test_patience_counts_the_changes_to_come():
    """After changes g r^i, the sum of those to come is g r / (1 - r)."""
    for rate in (0.5, 0.9, 0.99):
        gains = 0.9e-3 * rate ** np.arange(3)
        objectives = [0.0, *np.cumsum(gains)]
        to_come = gains[-1] * rate / (1 - rate)
        assert has_settled(objectives[-3:], 1e-3, patient=True) == (to_come < 1e-2)
        assert has_settled(objectives[-3:], 1e-3, patient=False)
    assert not has_settled([0.0, 1e-5, 3e-5], 1e-3, patient=True)  # changes grow: a saddle
    assert has_settled([0.0, 1e-5, 1e-5], 1e-3, patient=True)
    assert not has_settled([0.0, 1e-5], 1e-3, patient=True)


def test_stops_at_max_iter_and_keeps_the_known_start():
    run = iterate(halve, 8.0, max_iter=2, start=-8.0)
    assert run.objectives == [-8, -4, -2]
    assert not run.converged


def test_callbacks_see_every_step_and_may_stop():
    events = []
    run = iterate(
        halve,
        8.0,
        max_iter=9,
        on_begin=lambda: events.append("begin"),
        on_iter=lambda run: events.append(run.n_iter) or run.n_iter == 3,
    )
    assert events == ["begin", 1, "begin", 2, "begin", 3]
    assert run.n_iter == 3
    assert run.stopped


def test_not_finite_is_an_error():
    with pytest.raises(FloatingPointError, match="nan at iteration 1"):
        iterate(lambda x: (x, math.nan), 1.0, max_iter=3)


def test_interrupt_keeps_the_last_state():
    def step(x):
        if x < 2:
            raise KeyboardInterrupt
        return halve(x)

    run = iterate(step, 8.0, max_iter=9)
    assert run.interrupted
    assert run.state == 1.0


def test_then_continues_a_run():
    first = iterate(halve, 8.0, max_iter=2, start=-8.0)
    second = iterate(halve, 1.0, max_iter=2, start=-1.0)
    assert first.then(second).objectives == [-8, -4, -2, -1, -0.5, -0.25]
    assert first.then(second).n_iter == 5
    worse_at_first = iterate(halve, 6.0, max_iter=3, start=-6.0)
    assert first.then(worse_at_first).objectives == [-8, -4, -2, -1.5, -0.75]


@dataclass(frozen=True)
class Sums(Additive):
    weight: float
    values: np.ndarray
    missing: None = None


def test_statistics_add_and_scale():
    total = Sums(1.0, np.array([1.0, 2.0])) + 2 * Sums(3.0, np.array([0.0, 1.0]))
    assert total.weight == 7.0
    np.testing.assert_array_equal(total.values, [1, 4])
    assert total.missing is None
