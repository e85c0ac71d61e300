"""Starts of EM for the mixture, found on a sample of the rows.

A start is the winner of a race: the clusters of k-means and several draws of k-means++ run a
few iterations of EM, and the best goes on. If the sample is not all rows, EM runs to its end
on the sample, and components move to rows that the sample did not show.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.utils import check_random_state

from skem._base.passes import Passes
from skem._loop import Run, em
from skem._rows.parts import InMemory, Rows
from skem._rows.sampling import representative_rows, rows_unlike
from skem._typing import Array, Indices, Mask
from skem.mixture._candidates import (
    DECIMALS,
    Batch,
    labels_from_rows,
    weight_of_a_row,
    whitened,
)
from skem.mixture._covariances import Layout
from skem.mixture._given import Given, start_at_means
from skem.mixture._model import Mixture, Stats
from skem.mixture._moves import moved, with_lowest
from skem.mixture._params import CollapseError, Params
from skem.mixture._wide import MIN_FEATURES, N_ITER, winners

# The sample has as many rows as the largest of these asks for: in total, per component, and
# values per parameter of a component. With fewer, components collapse on the sample.
SAMPLE_ROWS, SAMPLE_ROWS_PER_COMPONENT, VALUES_PER_PARAMETER = 5000, 50, 20
MIN_SHRINKAGE = 2  # a sample of more than half of the rows would save no time
# Largest number of rows added to the sample for a feature that is constant or missing in it.
MAX_EXTRA_ROWS = 50
MAX_TRIES = 10  # replacement starts after collapses, before the fit gives up
RACE_ROWS, MAX_RACE = 500, 2_000_000  # rows of a race at least, entries of its features at most
MIN_RACE = 2  # rows at least, per component and feature
# Entries times components up to which a race is long, and up to which it is not short.
MAX_LONG, MAX_MEDIUM = 100_000, 500_000
# With missing values, this number of finalists runs some iterations in the true model, on at
# least this number of rows.
N_FINALISTS, N_ITER_FINAL, FINAL_ROWS = 4, 10, 1000
AGREEMENT = 4  # decimals of the objective up to which candidates agree
MIN_SHARE = 1e-9  # rounding of a share of observed features


@dataclass(frozen=True)
class Plan:
    """How candidates race."""

    n_draws: int  # of k-means++, in each of two units
    stages: tuple[tuple[int, int], ...]  # iterations, and how many candidates stay
    is_wide: bool = False  # whether they race under diagonal covariances, see ``_wide``


LONG = Plan(8, ((4, 6), (8, 3), (25, 1)))
MEDIUM = Plan(8, ((4, 4), (6, 2), (10, 1)))
WIDE = replace(MEDIUM, is_wide=True)
SHORT = Plan(1, ((3, 2), (3, 1)))

logger = logging.getLogger("skem")


@dataclass(frozen=True, eq=False)
class Trial:
    """A start, and the result of EM on the sample from it."""

    n_collapsed: int
    objective: float
    start: Params
    end: Params

    def rank(self) -> tuple[int, float]:
        """Return a key that sorts the best trial first.

        Starts that reach the same mode differ by rounding only; the first of them is kept.
        """
        return self.n_collapsed, -round(self.objective, DECIMALS)


class SearchInterruptedError(KeyboardInterrupt):
    """Ctrl-C came during the trials of starts; ``best`` is the best end so far."""

    def __init__(self, best: Params) -> None:
        super().__init__()
        self.best = best


@dataclass(frozen=True)
class Sample:
    """Rows on which starts are compared."""

    rows: InMemory
    is_whole: bool  # whether the sample contains all rows


def sample_of(rows: Rows, layout: Layout, rng: np.random.RandomState) -> Sample:
    """Draw the sample on which starts are computed."""
    size = max(SAMPLE_ROWS, rows_per_component(layout) * layout.n_components)
    if rows.n_positive <= MIN_SHRINKAGE * size:
        return Sample(representative_rows(rows, rows.n_positive, rng), True)
    sample = representative_rows(rows, size, rng)
    return Sample(_varied(rows, sample), False)


def _varied(rows: Rows, sample: InMemory) -> InMemory:
    """Return the sample with additional rows in which its constant features vary."""
    values, weight = sample.values, np.asarray(sample.weight)
    constant = np.flatnonzero(~(np.fmax.reduce(values) > np.fmin.reduce(values)))
    for j in constant.tolist():
        more = rows_unlike(rows, j, values[0, j], MAX_EXTRA_ROWS)
        values = np.concatenate([values, more.values])
        weight = np.concatenate([weight, np.asarray(more.weight)])
    return InMemory(values, weight)


@dataclass(frozen=True)
class Search:
    """Where starts are looked for, and how EM runs on the sample."""

    model: Mixture
    passes: Passes  # over all rows
    sample: Sample
    init: str
    max_iter: int
    tol: float

    def collapsed(self, params: Params, stats: Stats, *, of_sample: bool = False) -> Indices:
        """Return the components that collapsed, see ``Mixture.collapsed``.

        Neither repeated rows nor a factor of the weights changes the answer.
        """
        unit = stats.weight / self.passes.rows.n_positive
        if of_sample or self.sample.is_whole:
            unit = weight_of_a_row(np.asarray(self.sample.rows.weight))
        return np.flatnonzero(self.model.collapsed(params, stats.counts / unit))

    # -- order of the starts -----------------------------------------------------------

    def starts(
        self, given: Given, rng: np.random.RandomState, n_init: int, n_jobs: int | None
    ) -> Iterator[Params]:
        """Yield starts in the order in which EM tries them.

        First comes the given start, or the starts found on the sample, best first.
        Replacements follow. EM uses the next start only if it collapses from the one before.
        """
        # replacements of one start are the next starts of more: these never end worse
        others = rng.randint(2**31 - 1, size=MAX_TRIES).tolist()
        if n_init > 1:
            others += check_random_state(others[-1]).randint(2**31 - 1, size=n_init).tolist()
        if given.is_complete:
            yield given.params(self.model.layout)
        elif given.means is not None:
            yield given.on(start_at_means(self.model, self.passes, given.means))
        else:
            seeds = [rng, *others[: n_init - 1]]
            if n_init > 1 or not self.sample.is_whole:
                yield from self._compared(given, seeds, n_jobs)
            else:
                yield from self.found(given, rng)
        if self.model.is_named and given.means is not None:
            return  # other means would be those of other components
        kept = given if self.model.fixed else Given()
        for seed in others[n_init - 1 :][:MAX_TRIES]:
            yield from islice(self.found(kept, seed), 1)

    def _compared(self, given: Given, seeds: list[Any], n_jobs: int | None) -> Iterator[Params]:
        """Yield the starts of the trials on the sample, best first."""
        parallel = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
        trials: list[Trial | None] = []
        try:
            for found in parallel(delayed(self.tried)(given, seed) for seed in seeds):
                trials.append(found)
        except KeyboardInterrupt as error:
            best = min((t for t in trials if t), key=Trial.rank, default=None)
            if best is None:
                raise
            raise SearchInterruptedError(best.end) from error
        ranked = sorted((t for t in trials if t), key=Trial.rank)
        logger.debug("starts: %s nats per row", [trial.objective for trial in ranked])
        if self.sample.is_whole:
            yield from (trial.start for trial in ranked)
            return
        finalists = dict.fromkeys(t for t in (*ranked[:1], trials[0]) if t)
        ends = [self.finished(trial.end) for trial in finalists]
        if len(ends) > 1:  # more starts never end worse: compare what EM on all rows makes
            ends.sort(key=lambda end: self._rank(self.em(self.passes, end).state[0]))
        yield from ends
        yield from (trial.end for trial in ranked[1:])

    def tried(self, given: Given, seed: Any) -> "Trial | None":
        """Run EM on the sample from the starts of a seed until one holds; None if none does."""
        kept: Trial | None = None
        for params in islice(self.found(given, seed), 2):
            try:
                run = self.em(Passes(self.model, self.sample.rows), params)
            except FloatingPointError:
                continue
            trial = self._trial(params, run)
            kept = trial if kept is None else min(kept, trial, key=Trial.rank)
            if not trial.n_collapsed:
                break
        return kept

    def em(self, passes: Any, params: Params) -> Run:
        """Run EM to its end."""
        options = {"max_iter": self.max_iter, "tol": self.tol, "patient": True}
        return em(self.model, passes.total, params, **options)

    def finished(self, params: Params) -> Params:
        """Return the parameters after moves to rows that no component explains.

        What comes out of the moves is compared, on all rows, with what went in.
        """
        layout, rows = self.model.layout, self.passes.rows
        size = max(len(self.sample.rows) // 5, 1)
        n_entries = (len(self.sample.rows) + size) * n_features_of(layout)
        too_long = n_entries > max(MAX_RACE, len(rows) * layout.n_features)
        may_be_off = self.model.prior.concentration < 1  # what is switched off stays off
        if layout.n_components < 2 or may_be_off or too_long or self.model.is_named:
            return params
        try:
            rows = with_lowest(self.model, self.passes, self.sample.rows, params, size)
            better = moved(self.model, rows, params)
            if better is None:
                return params
            better = self.em(Passes(self.model, rows), better).state[0]
            pairs = [(self._rank(candidate), candidate) for candidate in (params, better)]
        except FloatingPointError:
            return params
        return min(pairs, key=itemgetter(0))[1]

    def _rank(self, params: Params) -> tuple[int, float]:
        stats = self.passes.total(params)
        objective = (stats.log_lik + self.model.log_prior(params)) / stats.weight
        return len(self.collapsed(params, stats)), -objective

    # -- starts on the sample ----------------------------------------------------------

    def found(self, given: Given, seed: Any) -> Iterator[Params]:
        """Yield the start that wins the race of candidates, then the first candidate."""
        rng = check_random_state(seed)
        rows = self.sample.rows
        X, weight = rows.values.astype(float), np.asarray(rows.weight)
        missing = np.isnan(X)
        if missing.any():
            known = np.where(missing, 0, X)
            X = np.where(missing, weight @ known / (weight @ ~missing), X)
            kept = self._well_observed(missing)
            X, weight, missing = X[kept], weight[kept], missing[kept]
        few, plan = self._racing(X)
        batch = Batch(self.model, X[few], weight[few], missing[few])
        first = self._first_shares(batch, X, weight, few, rng)
        if plan:
            with suppress(FloatingPointError, np.linalg.LinAlgError):
                yield self._winner(given, batch, first, plan, rng)
        yield given.on(batch.params_of_shares(first))

    def _well_observed(self, missing: Mask) -> Indices:
        """Return the rows to start from: filled rows would form a cluster of their own.

        They are the rows in which at least an average share of the features is observed, if
        these are enough.
        """
        share = (~missing).mean(1)
        some = np.flatnonzero(share > 0)
        good = np.flatnonzero(share >= share[some].mean() * (1 - MIN_SHARE))
        layout = self.model.layout
        enough = min(len(some) // 2, rows_per_component(layout) * layout.n_components)
        return good if len(good) >= enough else some

    def _racing(self, X: Array) -> tuple[Indices, Plan | None]:
        """Return the rows of the race, and its plan: it must not take too long."""
        layout = self.model.layout
        n_rows = max(RACE_ROWS, rows_per_component(layout) * layout.n_components)
        few = np.arange(len(X))
        # with few rows, the candidate of highest likelihood is one that is about to collapse
        least = MIN_RACE * layout.n_components * (layout.block_size + 1)
        if layout.n_components == 1 or len(X) < least:
            return few, None
        n_entries = min(n_rows, len(X)) * n_features_of(layout)
        size = n_entries * layout.n_components
        if layout.dense and layout.n_features >= MIN_FEATURES and size > MAX_MEDIUM:
            return few, None if self.init == "random" else WIDE
        if n_entries > MAX_RACE:
            return few, None
        if len(X) > n_rows:
            few = np.linspace(0, len(X) - 1, n_rows).astype(int)
        if size <= MAX_LONG:
            return few, LONG
        return few, MEDIUM if size <= MAX_MEDIUM else SHORT

    def _winner(
        self,
        given: Given,
        batch: Batch,
        first: Array,
        plan: Plan,
        rng: np.random.RandomState,
    ) -> Params:
        """Return the winner of a race of the first candidate and of others."""
        if plan.is_wide:
            return self._wide_winner(given, batch, first, plan, rng)
        if self.init == "random":
            others = [_random_shares(batch, rng) for _ in range(2 * plan.n_draws)]
        else:
            units = batch.z, whitened(batch.z, batch.weight)
            layout, weight = self.model.layout, batch.weight
            draws = [labels_from_rows(z, weight, layout, plan.n_draws, rng) for z in units]
            others = [batch.shares_of_labels(labels) for labels in np.concatenate(draws)]
        sums = batch.sums_of(np.stack([first, *others]))
        if not batch.has_missing:
            return given.on(batch.params(batch.race(sums, plan.stages).sums[0]))
        # the race knew values that were filled in: its finalists meet again without these
        found = batch.race(sums, [(n_iter, max(n, N_FINALISTS)) for n_iter, n in plan.stages])
        starts = [given.on(batch.params(own, steady=True)) for own in found.sums]
        layout = self.model.layout
        n_rows = max(FINAL_ROWS, rows_per_component(layout) * layout.n_components)
        return self._best_of(given, starts, N_ITER_FINAL, n_rows)

    def _wide_winner(
        self,
        given: Given,
        batch: Batch,
        first: Array,
        plan: Plan,
        rng: np.random.RandomState,
    ) -> Params:
        """Return the best candidate after some iterations of EM in the true model."""
        shares = (first, *winners(batch, plan.stages, plan.n_draws, rng))
        starts = [given.on(batch.params_of_shares(values)) for values in shares]
        trials = [trial for start in starts if (trial := self._shortly(start, 0))]
        # candidates that agree are one
        trials = list({round(t.objective, AGREEMENT): t for t in reversed(trials)}.values())
        if len(trials) == 1:
            return trials[0].start
        return self._best_of(given, [trial.start for trial in trials], N_ITER)

    def _best_of(
        self, given: Given, starts: list[Params], n_iter: int, n_rows: int | None = None
    ) -> Params:
        """Return the start that is best after some iterations in the true model."""
        trials = [t for start in starts if (t := self._shortly(start, n_iter, n_rows))]
        if not trials:
            raise CollapseError("all candidates collapsed")
        best = min(trials, key=Trial.rank)
        return best.end if given.is_empty else best.start

    def _shortly(self, start: Params, n_iter: int, n_rows: int | None = None) -> Trial | None:
        """Run some iterations of EM on rows of the sample; None if EM fails."""
        rows = self.sample.rows
        if n_rows is not None and n_rows < len(rows):
            rows = rows.select(np.linspace(0, len(rows) - 1, n_rows).astype(int))
        passes = Passes(self.model, rows)
        try:
            run = em(self.model, passes.total, start, max_iter=n_iter)
        except FloatingPointError:
            return None
        return self._trial(start, run)

    def _trial(self, start: Params, run: Run) -> Trial:
        if run.interrupted:
            raise KeyboardInterrupt
        n_collapsed = len(self.collapsed(*run.state, of_sample=True))
        return Trial(n_collapsed, run.objectives[-1], start, run.state[0])

    def _first_shares(
        self,
        batch: Batch,
        X: Array,
        weight: Array,
        few: Indices,
        rng: np.random.RandomState,
    ) -> Array:
        """Return the weighted responsibilities (K, n) of the first candidate."""
        if self.init == "random":
            return _random_shares(batch, rng)
        # in standardized units, so that starts do not depend on those of the data
        labels = self._first_labels(X / batch.units, weight, rng)
        return batch.shares_of_labels(labels[few])

    def _first_labels(self, X: Array, weight: Array, rng: np.random.RandomState) -> Indices:
        """Return the component of each row in the first candidate."""
        K = self.model.layout.n_components
        if K == 1:
            return np.zeros(len(X), dtype=int)
        if len(X) <= K:
            return np.arange(len(X))
        if self.init == "kmeans":
            kmeans = KMeans(K, n_init=1, random_state=rng)
            equal = (weight == weight[0]).all()
            return kmeans.fit(X, sample_weight=None if equal else weight).labels_
        if self.init == "k-means++":
            centers, _ = kmeans_plusplus(X, K, sample_weight=weight, random_state=rng)
        else:
            centers = X[rng.choice(len(X), size=K, replace=False, p=weight / weight.sum())]
        return cdist(X, centers).argmin(1)


def _random_shares(batch: Batch, rng: np.random.RandomState) -> Array:
    """Return weighted responsibilities (K, n) that random directions define.

    Without directions the components would be almost equal, which is a saddle.
    """
    layout = batch.model.layout
    directions = rng.normal(size=(layout.n_features, layout.n_components))
    shares: Array = softmax(2 * batch.z @ directions, axis=1).T * batch.weight
    return shares


def n_features_of(layout: Layout) -> int:
    """Return the number of features of a row in a race."""
    D = layout.n_features
    return 1 + D + (D * (D + 1) // 2 if layout.dense else D)


def rows_per_component(layout: Layout) -> int:
    """Return the rows of a sample for each component: enough values for its parameters."""
    parameters = layout.n_parameters / layout.n_groups + layout.n_features
    return max(
        SAMPLE_ROWS_PER_COMPONENT, int(VALUES_PER_PARAMETER * parameters / layout.n_features)
    )
