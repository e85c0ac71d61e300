"""Columns of several likelihoods, and how rows of them become rows of the networks.

The networks see the Gaussian columns first, then the Bernoulli ones, then a column of 0 and 1
for each category. The user sees categories as codes 0, 1, 2, ... in one column.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from skem._base.input import in_unit_interval
from skem._network.scaling import Scaling, is_binary, penalties_of, scaling_of
from skem._rows.moments import Moments
from skem._rows.parts import LocalRows, Weights
from skem._typing import AnyArray, Array, Mask

KINDS = ("gaussian", "bernoulli", "categorical")
# Codes are below this number: each category is a column of the networks.
MAX_CATEGORIES = 1000


class Columns(NamedTuple):
    """The columns of the networks, in this order."""

    n_gaussian: int
    n_bernoulli: int
    n_categories: tuple[int, ...] = ()  # of each column of categories

    @property
    def all_bernoulli(self) -> bool:
        """Whether there are no other columns."""
        return self.n_bernoulli == sum(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """The number of Gaussian columns, of Bernoulli ones, and of those of each group."""
        return [self.n_gaussian, self.n_bernoulli, *self.n_categories]


@dataclass(frozen=True)
class Census:
    """The values that the columns of X hold, over all rows."""

    low: Array  # (D,); inf if nothing is observed
    high: Array
    has_half: Mask  # whether a value is no integer

    def __add__(self, other: "Census") -> "Census":
        return Census(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.has_half | other.has_half,
        )

    @property
    def is_binary(self) -> Mask:
        """Whether all values are 0 and 1, and both are there."""
        found: Mask = (self.low == 0) & (self.high == 1) & ~self.has_half
        return found


def census(rows: LocalRows) -> Census:
    """Return what the columns hold, from one pass."""
    return rows.fold(_census_of)


def _census_of(X: AnyArray, weight: Weights) -> Census:
    values = np.asarray(X, dtype=float)  # files may hold integers
    observed = ~np.isnan(values)
    low = values.min(0, initial=np.inf, where=observed)
    high = values.max(0, initial=-np.inf, where=observed)
    return Census(low, high, (observed & (values != np.rint(values))).any(0))


# -- one likelihood ---------------------------------------------------------------------------


def likelihood_of(rows: LocalRows, seen: Moments, images: bool) -> str:
    """Return the likelihood that suits all values: "bernoulli" or "gaussian"."""
    inside = in_unit_interval(seen.low, seen.high, rows.working_dtype)
    return "bernoulli" if inside and (images or is_binary(seen)) else "gaussian"


def check_unit_interval(likelihood: str, rows: LocalRows, seen: Moments) -> None:
    """Refuse values outside of 0 and 1 if the likelihood is "bernoulli"."""
    inside = in_unit_interval(seen.low, seen.high, rows.working_dtype)
    if likelihood == "bernoulli" and not inside:
        raise ValueError(
            f"likelihood='bernoulli' needs values between 0 and 1, but X has values from "
            f"{seen.low:.3g} to {seen.high:.3g}: scale X, for example with MinMaxScaler, "
            "or use likelihood='gaussian'."
        )


# -- what the user says ---------------------------------------------------------------------


def kinds_of(
    likelihood: str | Mapping[str, Any], names: AnyArray | None, n_features: int
) -> list[str]:
    """Return the kind of each column: one of ``KINDS``, or "" for a column not named."""
    if isinstance(likelihood, str):
        return [likelihood] * n_features
    unknown = [key for key in likelihood if key not in KINDS]
    if unknown:
        raise ValueError(
            f"likelihood has the key {unknown[0]!r}: its keys must be 'gaussian', 'bernoulli' "
            "and 'categorical', each with a list of columns."
        )
    kinds = [""] * n_features
    for kind, entries in likelihood.items():
        if isinstance(entries, str) or not np.iterable(entries):
            raise ValueError(
                f"likelihood[{kind!r}] must be a list of columns, but it is {entries!r}: pass "
                "names or indices in a list."
            )
        for entry in entries:
            j = _index_of(entry, kind, names, n_features)
            if kinds[j]:
                raise ValueError(
                    f"likelihood names column {entry!r} twice, as {kinds[j]!r} and as "
                    f"{kind!r}: name it once."
                )
            kinds[j] = kind
    return kinds


def with_categories(
    likelihood: str | Mapping[str, Any], is_category: Mask, names: AnyArray | None
) -> dict[str, list[int]]:
    """Return the indices of the columns of each kind, given those that hold categories."""
    own = {} if likelihood == "auto" else likelihood
    kinds = kinds_of(own, names, len(is_category))
    for j in np.flatnonzero(is_category):
        if isinstance(own, Mapping) and kinds[j] not in ("", "categorical"):
            label = labels_of(names, len(kinds))[j]
            raise ValueError(
                f"likelihood names column {label} under {kinds[j]!r}, but it holds categories: "
                "name it under 'categorical', or under nothing."
            )
        kinds[j] = "categorical"
    return {kind: [j for j, k in enumerate(kinds) if k == kind] for kind in KINDS}


def _index_of(entry: Any, kind: str, names: AnyArray | None, n_features: int) -> int:
    if isinstance(entry, str) and names is None:
        raise ValueError(
            f"likelihood[{kind!r}] has the name {entry!r}, but X has no column names: pass a "
            "data frame, or indices of columns."
        )
    if isinstance(entry, str) and names is not None and entry in names:
        return list(names).index(entry)
    is_index = isinstance(entry, Integral) and not isinstance(entry, bool | np.bool_)
    if is_index and -n_features <= entry < n_features:
        return int(entry) % n_features
    raise ValueError(
        f"likelihood[{kind!r}] has {entry!r}, which is no column of X: pass names of columns, "
        f"or indices from 0 to {n_features - 1}."
    )


def completed_kinds(kinds: list[str], seen: Census) -> list[str]:
    """Choose for columns not named: "bernoulli" if they hold 0 and 1 only, else "gaussian"."""
    return [
        kind or ("bernoulli" if binary else "gaussian")
        for kind, binary in zip(kinds, seen.is_binary, strict=True)
    ]


def check_values(kinds: list[str], seen: Census, labels: tuple[str, ...], dtype: Any) -> None:
    """Refuse values that do not suit the kind of their column."""
    for j, kind in enumerate(kinds):
        low, high = float(seen.low[j]), float(seen.high[j])
        if low > high:
            continue  # nothing is observed
        if kind == "bernoulli" and not in_unit_interval(low, high, dtype):
            raise ValueError(
                f"column {labels[j]} of X has values from {low:.3g} to {high:.3g}, but its "
                "likelihood is 'bernoulli', which needs values between 0 and 1: scale it, or "
                "name it under 'gaussian'."
            )
        if kind != "categorical":
            continue
        if seen.has_half[j] or low < 0 or high >= MAX_CATEGORIES:
            what = "values that are not integers" if seen.has_half[j] else "values"
            raise ValueError(
                f"column {labels[j]} of X has {what} from {low:.3g} to {high:.3g}, but its "
                f"likelihood is 'categorical', which needs codes 0, 1, 2, ... below "
                f"{MAX_CATEGORIES}: encode it, for example with OrdinalEncoder."
            )


def labels_of(names: AnyArray | None, n_features: int) -> tuple[str, ...]:
    """Return how messages call the columns: by name, or by index."""
    if names is None:
        return tuple(str(j) for j in range(n_features))
    return tuple(repr(str(name)) for name in names)


# -- rows of the networks -------------------------------------------------------------------


@dataclass(frozen=True)
class MixedScaling(Scaling):
    """Scaling of rows whose columns have several likelihoods.

    ``offset``, ``scale``, ``fill`` and ``observed`` are those of the columns of the networks.
    """

    places: tuple[tuple[int, ...], ...]  # the columns of X of each of ``KINDS``
    n_categories: tuple[int, ...]
    labels: tuple[str, ...]  # how messages call the columns of X

    @property
    def columns(self) -> Columns:
        """The columns of the networks."""
        return Columns(len(self.places[0]), len(self.places[1]), self.n_categories)

    @property
    def kinds(self) -> list[str]:
        """The kind of each column of X."""
        found = [""] * len(self.labels)
        for kind, places in zip(KINDS, self.places, strict=True):
            for j in places:
                found[j] = kind
        return found

    def check_same(self, kinds: list[str]) -> list[str]:
        """Return the kinds; refuse others than those of the first fit, "" for not named."""
        if any(kind not in ("", old) for kind, old in zip(kinds, self.kinds, strict=True)):
            raise ValueError(
                "the networks were built with other values of likelihood: restore the old "
                "values, or call fit with warm_start=False."
            )
        return self.kinds

    def encode(self, rows: Array) -> Array:
        """Return the columns of the networks (n, D), not scaled; missing values stay NaN."""
        gaussian, bernoulli, categorical = self.places
        if rows.dtype.kind != "f":
            rows = rows.astype(float)
        whole = [*gaussian, *bernoulli]
        out = np.zeros((len(rows), len(self.offset)), rows.dtype)
        out[:, : len(whole)] = rows[:, whole]
        codes = rows[:, list(categorical)]
        missing = np.isnan(codes)
        self.check_codes(rows)
        groups = out[:, len(whole) :]
        starts = np.cumsum([0, *self.n_categories])[:-1].astype(int)
        np.put_along_axis(groups, starts + np.where(missing, 0, codes).astype(int), 1, 1)
        groups[np.repeat(missing, self.n_categories, axis=1)] = np.nan
        return out

    def check_codes(self, rows: Array) -> None:
        """Refuse categories that fit has not seen."""
        codes = rows[:, list(self.places[2])]
        known = np.isnan(codes) | (
            (codes >= 0) & (codes < self.n_categories) & (codes == codes // 1)
        )
        if known.all():
            return
        i, j = np.argwhere(~known)[0]
        raise ValueError(
            f"column {self.labels[self.places[2][j]]} of X has the category {codes[i, j]:g}, "
            f"but fit has seen the codes 0 to {self.n_categories[j] - 1}: set it to NaN, or "
            "fit with rows that have it."
        )

    def of_tensor(self, rows: Any, dtype: Any, device: Any) -> Any:
        return self.apply(rows.cpu().numpy(), dtype, device)[0]

    def apply(self, rows: Array, dtype: Any, device: Any) -> tuple[Any, Any]:
        """Return scaled rows of the networks, and a 0/1 mask of the observed values."""
        x, seen = super().apply(self.encode(rows), dtype, device)
        x[:, len(self.places[0]) :].clamp_(0, 1)
        return x, seen

    def scaled(self, rows: Array) -> Array:
        """Return scaled rows of the networks; missing values stay NaN."""
        return super().scaled(self.encode(rows))

    def invert(self, rows: Array) -> Array:
        """Convert rows of the networks to the user's; categories become the most probable."""
        values = super().invert(rows)
        out = np.empty((len(rows), len(self.labels)), rows.dtype)
        gaussian, bernoulli, categorical = self.places
        n_whole = len(gaussian) + len(bernoulli)
        out[:, [*gaussian, *bernoulli]] = values[:, :n_whole]
        ends = n_whole + np.cumsum([0, *self.n_categories])
        for j, start, end in zip(categorical, ends[:-1], ends[1:], strict=True):
            out[:, j] = values[:, start:end].argmax(1)
        return out

    def outside(self, rows: Array) -> Array:
        """Return by how much values of Bernoulli columns lie outside of 0 and 1."""
        out, places = np.zeros_like(rows), list(self.places[1])
        out[:, places] = np.abs(rows[:, places] - np.clip(rows[:, places], 0, 1))
        return out

    def penalties(self, rows: Array) -> Array:
        """Return what the score of each row loses for values outside of 0 and 1."""
        return penalties_of(self.outside(rows))

    def log_volumes(self, rows: Array) -> Array:
        """Return the log-ratio of the densities for the observed values of each row."""
        places = list(self.places[0])
        return ~np.isnan(rows[:, places]) @ np.log(self.scale[: len(places)])


def scaling_from(state: dict[str, Any]) -> Scaling:
    """Return the scaling whose fields these are."""
    return (MixedScaling if "places" in state else Scaling)(**state)


def columns_of(scaling: Scaling) -> Columns:
    """Return the columns of the networks."""
    if isinstance(scaling, MixedScaling):
        return scaling.columns
    D = len(scaling.offset)
    return Columns(D, 0) if scaling.standardized else Columns(0, D)


def likelihood_name(scaling: Scaling) -> str | dict[str, list[int]]:
    """Return the likelihood of the features: one for all, or the columns of each kind."""
    if isinstance(scaling, MixedScaling):
        return {kind: list(own) for kind, own in zip(KINDS, scaling.places, strict=True)}
    return "gaussian" if scaling.standardized else "bernoulli"


def refuse_images(image_shape: object) -> None:
    """Raise an error: the columns of images are of one kind."""
    raise ValueError(
        f"a likelihood for each column does not suit images, but image_shape={image_shape!r}: "
        "set it to None, or give one likelihood."
    )


def scaling_of_columns(
    likelihood: str | Mapping[str, Any],
    rows: LocalRows,
    seen: Moments,
    names: AnyArray | None,
    old: Scaling | None,
) -> MixedScaling:
    """Return the scaling of rows whose columns have these likelihoods.

    ``seen`` are their moments, and ``names`` the names of their columns. If there is an ``old``
    one from the last fit, it stays, and the likelihoods must be the same.
    """
    D, dtype = rows.shape[1], rows.working_dtype
    labels, found = labels_of(names, D), census(rows)
    kinds = kinds_of(likelihood, names, D)
    if isinstance(old, MixedScaling):
        check_values(old.check_same(kinds), found, labels, dtype)
        return old
    kinds = completed_kinds(kinds, found)
    check_values(kinds, found, labels, dtype)
    return _new_scaling(rows, seen, kinds, labels, found.high)


def _new_scaling(
    rows: LocalRows,
    seen: Moments,
    kinds: list[str],
    labels: tuple[str, ...],
    high: Array,
) -> MixedScaling:
    """Return the scaling of rows with columns of these kinds and these largest values."""
    own = scaling_of(seen, float(np.sum(rows.weight)), True)
    places = tuple(tuple(j for j, k in enumerate(kinds) if k == kind) for kind in KINDS)
    gaussian, bernoulli, categorical = map(list, places)
    sizes = tuple(int(high[j]) + 1 for j in categorical)
    n_groups = len(bernoulli) + sum(sizes)
    shares = [seen.mean[bernoulli]]
    if categorical:
        counts = rows.fold(lambda X, weight: _counts(X, weight, categorical, sizes))
        shares.append(counts / np.repeat(seen.weight[categorical], sizes))
    observed = own.observed[[*gaussian, *bernoulli]]
    return MixedScaling(
        standardized=True,
        offset=np.r_[own.offset[gaussian], np.zeros(n_groups)],
        scale=np.r_[own.scale[gaussian], np.ones(n_groups)],
        fill=np.r_[np.zeros(len(gaussian)), np.concatenate(shares)],
        observed=np.r_[observed, np.repeat(own.observed[categorical], sizes)],
        places=places,
        n_categories=sizes,
        labels=labels,
    )


def _counts(X: AnyArray, weight: Weights, places: list[int], sizes: tuple[int, ...]) -> Array:
    """Return the total weight of each category of all columns of categories."""
    found, weight = [], np.asarray(weight)
    for j, size in zip(places, sizes, strict=True):
        codes = np.asarray(X[:, j], dtype=float)
        own = ~np.isnan(codes)
        found.append(np.bincount(codes[own].astype(int), weight[own], size))
    return np.concatenate(found)


def log_odds(scaling: Scaling, columns: Columns) -> Array:
    """Return logits with which every row has the mean probabilities of the rows of fit.

    They are those of the columns of the networks that are not Gaussian.
    """
    smallest = 1e-3  # so that what no row has can still be learned
    share = scaling.fill[columns.n_gaussian :].clip(smallest, 1 - smallest)
    logits = np.log(share)
    logits[: columns.n_bernoulli] -= np.log1p(-share[: columns.n_bernoulli])
    return logits
