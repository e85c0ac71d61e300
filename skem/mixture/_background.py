"""A background for outliers, beside the Gaussian components.

    p(x) = pi_0 q(x) + (1 - pi_0) sum_k pi_k N(x | mu_k, Sigma_k)

The density q stays as it is given: see ``_densities``. The M step of the Gaussians stays as it
is, and pi_0 is the share of rows in the background.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.special import logsumexp, softmax
from sklearn.neighbors import NearestNeighbors

from skem._base.em import FARTHEST
from skem._base.passes import Passes
from skem._base.places import hosted
from skem._rows.parts import InMemory
from skem._typing import AnyArray, Array, Indices
from skem.mixture._densities import Box, Density, FittedDensity
from skem.mixture._given import Given
from skem.mixture._missing import Groups, values_of
from skem.mixture._model import Mixture, Stats
from skem.mixture._params import CollapseError, Params
from skem.mixture._starts import Sample, Search, SearchInterruptedError

START = 0.05  # share of the background that EM starts from
# Shares of isolated rows that starts leave out, and which neighbor says how isolated a row is.
TRIMMED, NEIGHBOR = (0.0, 0.1, 0.3), 5


@dataclass(frozen=True)
class BackgroundMixture(Mixture):
    """Mixture with a background; its log p(x, k) has one more column."""

    density: Density = field(kw_only=True)

    @property
    def is_named(self) -> bool:
        """Whether moves to rows of low density are left out: the background has these."""
        return True

    def dtype_for(self, params: Params, dtype: DTypeLike) -> np.dtype:
        return np.dtype(float)

    def log_joint(self, params: Params, groups: Groups) -> Array:
        """Return log p(x, k), (n, K + 1), the background last.

        A box is taken to go on outside, so that rows far away belong to the background.
        """
        log_joint = super().log_joint(params, groups)
        share = START if params.background is None else params.background
        X = values_of(groups, len(log_joint), self.layout.n_features)
        with np.errstate(divide="ignore"):
            of_background = np.log(share) + self.density.log_density(X)
            return np.column_stack([log_joint + np.log1p(-share), of_background])

    def log_density(self, params: Params, groups: Groups) -> Array:
        """Return log p(x), to which the background adds nothing outside of its box."""
        log_joint = self.log_joint(params, groups)
        X = values_of(groups, len(log_joint), self.layout.n_features)
        log_joint[self.density.excludes(X), -1] = -np.inf
        found: Array = logsumexp(log_joint, axis=1)
        return np.where(found <= FARTHEST, -np.inf, found)

    def e_step(
        self,
        params: Params,
        groups: Groups,
        weight: Array,
        responsibilities: Array | None = None,
    ) -> Stats:
        """Return the expected sums of a chunk; the counts are those of the Gaussians."""
        if responsibilities is not None:
            return super().e_step(params, groups, weight, responsibilities)
        log_joint = self.log_joint(params, groups)
        log_lik = logsumexp(log_joint, axis=1)
        r = np.exp(log_joint - log_lik[:, None])[:, :-1]
        stats = super().e_step(params, groups, weight, r)
        return replace(stats, weight=float(weight.sum()), log_lik=float(weight @ log_lik))

    def m_step(self, params: Params, stats: Stats) -> Params:
        if not stats.counts.any():
            raise CollapseError("the background has taken all rows")
        new = super().m_step(params, stats)
        share = min(max(1 - float(stats.counts.sum()) / stats.weight, 0.0), 1.0)
        return replace(new, background=share)

    def impute(self, params: Params, groups: Groups) -> Array:
        """Return the filled rows."""
        posterior = softmax(self.log_joint(params, groups), axis=1)
        X = values_of(groups, len(posterior), self.layout.n_features)
        filled = self._filled(params, groups, posterior[:, params.active])
        if not np.isnan(X).any():
            return X
        return np.where(np.isnan(X), filled + posterior[:, -1:] * self.density.filled(X), X)

    def sample(
        self, params: Params, n_samples: int, rng: np.random.RandomState
    ) -> tuple[Array, Indices]:
        """Draw rows; the component of the background is -1."""
        X, components = super().sample(params, n_samples, rng)
        outlying = rng.random_sample(n_samples) < (params.background or 0)
        X[outlying] = self.density.sample(n_samples, rng)[outlying]
        return X, np.where(outlying, -1, components)


def shown_background(mixture: Mixture, params: Params) -> dict[str, Any]:
    """Return the fitted attributes of the background; its share is 0 where there is none."""
    if not isinstance(mixture, BackgroundMixture):
        return {"background_weight_": 0.0, "_background": None}
    share = START if params.background is None else params.background
    return {"background_weight_": share, "_background": mixture.density.shown}


def density_of_fit(estimator: Any) -> Density | None:
    """Return the density that a fitted mixture has kept, or None."""
    kept = hosted(getattr(estimator, "_background", None))
    if kept is None:
        return None
    return FittedDensity(kept) if hasattr(kept, "score_samples") else Box(kept)


def refuse_others(estimator: Any, resp_prior: Any) -> None:
    """Refuse what cannot be combined with a background."""
    for name, value in (("connectivity", estimator.connectivity), ("resp_prior", resp_prior)):
        if estimator.background is not None and value is not None:
            raise ValueError(
                f"background cannot be combined with {name}, which knows the Gaussian "
                "components only: omit one of them."
            )


def trimmed_starts(
    search: Search, given: Given, rng: np.random.RandomState, n_init: int
) -> Iterator[Params]:
    """Yield starts, best first: races on the sample without its most isolated rows.

    Outliers would otherwise draw a component to them. EM on the whole sample compares.
    """
    rows = search.sample.rows
    order, passes = _by_isolation(rows.values), Passes(search.model, rows)
    ends: list[tuple[int, float, int, Params]] = []
    seeds = rng.randint(2**31 - 1, size=n_init).tolist()
    for seed in seeds:
        for share in TRIMMED:
            part = replace(search, sample=Sample(_without(rows, order, share), False))
            with suppress(FloatingPointError, np.linalg.LinAlgError):
                start = next(islice(part.found(given, seed), 1))
                run = search.em(passes, start)
                n_collapsed = len(search.collapsed(*run.state, of_sample=True))
                ends.append((n_collapsed, -run.objectives[-1], len(ends), run.state[0]))
                if run.interrupted:
                    raise SearchInterruptedError(run.state[0])
    if not ends:
        raise CollapseError("all starts collapsed")
    yield from (params for *_, params in sorted(ends, key=lambda end: end[:3]))


def core_of(rows: InMemory) -> InMemory:
    """Return the rows without isolated ones, which would inflate variances."""
    return _without(rows, _by_isolation(rows.values), max(TRIMMED))


def _without(rows: InMemory, order: Indices, share: float) -> InMemory:
    kept = np.sort(order[: max(len(order) - int(share * len(order)), 1)])
    return rows.select(kept)


def _by_isolation(X: AnyArray) -> Indices:
    """Return the rows in the order of the distance to their neighbors."""
    low, middle, high = np.nanquantile(X, [0.25, 0.5, 0.75], axis=0)
    units = np.where(high > low, high - low, 1.0)
    z = np.nan_to_num((np.asarray(X, float) - middle) / units)
    n_neighbors = min(NEIGHBOR + 1, len(z))
    distances = NearestNeighbors(n_neighbors=n_neighbors).fit(z).kneighbors(z)[0]
    return np.argsort(distances[:, -1], kind="stable")
