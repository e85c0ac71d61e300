"""The shift move: leave a local optimum in which the template is off its place.

In such an optimum the background fills the border that the template misses. No single image
gains by moving, but moving all images by the same shift m would raise the objective. The
right m is the one after which an EM iteration gets highest: images at the border, which could
not follow the others before, then find their places. This is computed for near moves, and for
the far moves that explain most after the M step alone. With the posteriors moved by m, template
and background explain these sums of squares:

    sum_u A[u]^2 / n[u], u in the window at m,   A: sum of all aligned images
    sum_p B_m[p]^2 / n_m[p],                     B_m: sum of the uncovered parts of images

Both are computed for all m in one pass; A extends beyond the window on both sides.
"""

from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.special import logsumexp

from skem._base.passes import Passes
from skem._loop import Run, em
from skem._rows.parts import Rows as AllRows
from skem._rows.parts import chunks, working_dtype
from skem._typing import AnyArray, Array
from skem.template._model import Params, Rows, ShiftedTemplate, Stats
from skem.template._starts import lose_no_shift, shrink
from skem.template._windows import Windows

# The largest move in pixels, with one axis of movement and with two.
REACH, REACH_2D = 256, 8
# Number of pixels in the sample that ranks the moves, and number of EM iterations of a trial.
SAMPLE_SIZE, N_ITER_TRY = 1_500_000, 5
# Sizes of near moves, number of far moves that are ranked with them, and of moves tried.
STEPS, N_FAR, N_MOVES = (1, 2, 3, 4, 6, 8, 12, 16, 24), 2, 1
# Number of images whose spectra are in memory at a time.
BLOCK = 16
# Largest number of successive moves. Each costs a short run, and more did not help in trials.
MAX_MOVES = 4
# Inverse temperatures and number of EM iterations when a fit is annealed again.
REANNEALING, N_ITER_ANNEALED = tuple(np.geomspace(0.1, 1, 8)), 15
# A pixel whose weight, in images, is at most this counts as not seen.
MIN_SEEN = 1e-2


def follow_moves(
    model: ShiftedTemplate,
    passes: Passes,
    run: Run,
    rows: AllRows,
    tol: float,
    max_iter: int,
    run_from: Callable[[Params, int], Run],
    *,
    anneal: bool,
) -> Iterator[Run]:
    """Yield the run, continued after each move that raises the objective.

    With ``anneal``, annealing is tried once when no shift of all images helps.
    """
    annealed = not anneal
    for _ in range(MAX_MOVES):
        left = max_iter - run.n_iter - N_ITER_TRY
        if run.stopped or run.interrupted or left < 0:
            break
        trial = try_moves(model, passes, run, rows, tol)
        if trial is None and not annealed:
            annealed = True
            trial = try_annealing(model, passes, run, tol, N_ITER_TRY + left)
        if trial is None:
            break
        run = run.then(trial)
        run = run.then(run_from(trial.state[0], max_iter - run.n_iter))
        yield run


def try_annealing(
    model: ShiftedTemplate, passes: Passes, run: Run, tol: float, max_iter: int
) -> Run | None:
    """Return a run from the annealed and shrunk fit, or None if it does not gain ``tol``.

    It frees single images that match their own noise in the template.
    """
    start, _ = shrink(model, passes, run.state[0], REANNEALING)
    trial = em(model, passes.total, start, max_iter=min(max_iter, N_ITER_ANNEALED), tol=tol)
    if trial.interrupted:
        raise KeyboardInterrupt
    return trial if trial.objectives[-1] > run.objectives[-1] + tol else None


def try_moves(
    model: ShiftedTemplate, passes: Passes, run: Run, rows: AllRows, tol: float
) -> Run | None:
    """Return a short run from the first move that gains more than ``tol`` nats per image.

    Return None if there is no such move.
    """
    step = max(1, model.n_templates * rows.size // SAMPLE_SIZE)
    for of_class, move in best_moves(model, run.state[0], *rows.every(step)):
        start = moved(model, passes, run.state[0], move, of_class)
        trial = em(model, passes.total, start, max_iter=N_ITER_TRY)
        if trial.interrupted:
            raise KeyboardInterrupt
        if trial.objectives[-1] > run.objectives[-1] + tol:
            return trial
    return None


def best_moves(
    model: ShiftedTemplate, params: Params, X: AnyArray, weight: Array
) -> list[tuple[int, tuple[int, ...]]]:
    """Return the classes and moves after which one iteration of EM on the sample gets highest.

    If the template is as large as a periodic image, moves change nothing.
    """
    windows = model.windows
    if not weight.any() or (windows.cyclic and windows.window == windows.space):
        return []
    parts = [
        (model.rows(X[part], working_dtype(X)), weight[part])
        for part in chunks(len(X), model.row_size)
    ]
    posteriors = [model.posterior(model.log_joint(params, rows)) for rows, _ in parts]

    def objective(move: tuple[int, tuple[int, ...]]) -> float:
        stats = reduce(
            add,
            (
                model.given_posterior(*part, move_posterior(model, posterior, move[1], move[0]))
                for part, posterior in zip(parts, posteriors, strict=True)
            ),
        )
        new = model.m_step(params, lose_no_shift(stats))
        log_lik = sum(
            float(w @ logsumexp(model.log_joint(new, rows), axis=1)) for rows, w in parts
        )
        return log_lik + model.log_prior(new)

    moves = {
        (c, move)
        for c in range(model.n_templates)
        for move in (
            *near_moves(windows),
            *far_moves(model, params, X, weight, [model.present(q)[:, c] for q in posteriors]),
        )
    }
    return sorted(moves, key=objective, reverse=True)[:N_MOVES]


def near_moves(windows: Windows) -> list[tuple[int, ...]]:
    """Return moves along each axis, in steps that grow with the distance."""
    moves = []
    for axis, n_shifts in enumerate(windows.shifts):
        for step in STEPS:
            if step < n_shifts:
                move = np.zeros(len(windows.shifts), int)
                move[axis] = step
                moves += [tuple(map(int, move)), tuple(map(int, -move))]
    return moves


def far_moves(
    model: ShiftedTemplate,
    params: Params,
    X: AnyArray,
    weight: Array,
    posteriors: list[Array],
) -> list[tuple[int, ...]]:
    """Return the moves of one class whose M steps explain the sample best.

    ``posteriors`` are those of the class, (k, *N). Images at the border, missing pixels, and
    what other templates cover are not treated exactly.
    """
    windows, dtype = model.windows, working_dtype(X)
    if windows.cyclic:
        return []
    weight = weight / weight.mean()
    present = np.concatenate(posteriors) * windows.broadcast(weight)
    lines = model.centered(X, dtype, bool(np.isnan(X).any()))
    if model.additive:
        lines = lines - params.background.astype(dtype)
    limit = REACH if len(windows.space) == 1 else REACH_2D
    reach = tuple(min(limit, n - 1) for n in windows.shifts)
    center = [slice(n - 1 - r, n + r) for n, r in zip(windows.shifts, reach, strict=True)]
    explained = _by_template(windows, lines, present.astype(dtype))[tuple(center)]
    if not model.additive:
        explained = explained + _by_background(windows, lines, weight, present, reach)
    explained[reach] = -np.inf  # no move
    best = np.argsort(explained, axis=None)[: -N_FAR - 1 : -1]
    moves = np.stack(np.unravel_index(best, explained.shape), axis=1) - reach
    return [tuple(map(int, move)) for move in moves if any(move)]


def _by_template(windows: Windows, lines: Array, present: Array) -> Array:
    """Return the sum of squares that the template explains after each move.

    The result has 2N - 1 entries along each axis.
    """
    axes = windows.axes
    wide = [s + n - 1 for s, n in zip(windows.space, windows.shifts, strict=True)]
    size = [next_fast_len(length, real=True) for length in wide]
    total: Any = 0
    aligned: list[Any] = [0] * lines.shape[1]
    for start in range(0, len(lines), BLOCK):  # the spectra are several times as large
        block = slice(start, start + BLOCK)
        weights = rfftn(present[block], s=size, axes=axes).conj()
        total += weights.sum(0)
        for r in range(lines.shape[1]):
            aligned[r] += (weights * rfftn(lines[block, r], s=size, axes=axes)).sum(0)
    everywhere = np.ones((1, *windows.space), present.dtype)
    den = irfftn(total * rfftn(everywhere, s=size, axes=axes), s=size, axes=axes)[0]
    value = np.zeros(size)
    for spectrum in aligned:
        num = irfftn(spectrum, s=size, axes=axes)
        value += np.divide(num**2, den, out=np.zeros(size), where=den > MIN_SEEN)
    order = [np.arange(-n + 1, s) for n, s in zip(windows.shifts, windows.space, strict=True)]
    return windows.sums(value[np.ix_(*order)])


def _by_background(
    windows: Windows, lines: Array, weight: Array, present: Array, reach: tuple[int, ...]
) -> Array:
    """Return the sum of squares that the background explains after each move.

    The result has 2 reach + 1 entries along each axis. It is computed row by row of the
    image; for a vertical move, the coverage comes from another row. In a row, the sums for
    all horizontal moves are diagonals of one matrix product over images.
    """
    k, width = len(lines), windows.space[-1]
    covered = np.empty((k, *windows.space), lines.dtype)
    for start in range(0, k, BLOCK):
        block = slice(start, start + BLOCK)
        covered[block] = windows.coverage(present[block])
    covered = covered.reshape(k, -1, width)
    n_rows = covered.shape[1]
    rows = lines.reshape(k, -1, width)
    total = np.einsum("k,krj->rj", weight, rows)
    nowhere = np.zeros((k, width), lines.dtype)
    sideways = np.arange(-reach[-1], reach[-1] + 1)[:, None]
    down = range(-reach[0], reach[0] + 1) if len(reach) == 2 else (0,)
    out = np.zeros((len(down), len(sideways)))
    for i, step in enumerate(down):
        for r in range(rows.shape[1]):
            above = r % n_rows - step
            cover = covered[:, above] if 0 <= above < n_rows else nowhere
            for start in range(0, width, REACH):
                place = np.arange(start, min(start + REACH, width))
                low = max(0, start - reach[-1])
                high = min(width, place[-1] + 1 + reach[-1])
                part = cover[:, low:high]
                hidden = np.zeros((part.shape[1] + 1, len(place)))
                hidden[:-1] = part.T @ rows[:, r, place]
                count = np.append(part.sum(0, dtype=float), 0.0)
                source = place - sideways
                inside = (source >= 0) & (source < width)
                source = np.where(inside, source - low, -1)
                num = total[r, place] - hidden[source, place - start]
                den = weight.sum() - count[source]
                out[i] += np.divide(
                    num**2, den, out=np.zeros(num.shape), where=den > MIN_SEEN
                ).sum(1)
    return out if len(reach) == 2 else out[0]


def moved(
    model: ShiftedTemplate,
    passes: Passes,
    params: Params,
    move: tuple[int, ...],
    of_class: int = 0,
) -> Params:
    """Move the posteriors of one class of ``params`` and return the M step.

    Probability that would leave the range of shifts is assigned to the border of the range.
    """

    def statistics(rows: Rows, weight: Array) -> Stats:
        posterior = model.posterior(model.log_joint(params, rows))
        posterior = move_posterior(model, posterior, move, of_class)
        return model.given_posterior(rows, weight, posterior)

    return model.m_step(params, lose_no_shift(passes.fold(statistics, params)))


def move_posterior(
    model: ShiftedTemplate, posterior: Array, move: tuple[int, ...], of_class: int
) -> Array:
    """Move one class of posteriors (k, n_categories).

    What would leave the range of shifts stays at its border, unless the image is periodic.
    """
    every = model.present(posterior).copy()
    present = every[:, of_class]
    for axis, step in enumerate(move, start=1):
        if model.windows.cyclic:
            present = np.roll(present, step, axis)
            continue
        source = np.moveaxis(present, axis, 0)
        if step < 0:
            source = source[::-1]
        kept = len(source) - abs(step)
        target = np.zeros_like(source)
        target[abs(step) :] = source[:kept]
        target[-1] += source[kept:].sum(0)
        present = np.moveaxis(target[::-1] if step < 0 else target, 0, axis)
    every[:, of_class] = present
    rest = posterior[:, model.n_present :]
    return np.concatenate([every.reshape(len(every), -1), rest], axis=1)
