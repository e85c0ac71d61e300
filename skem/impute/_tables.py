"""Tables of mixed types as numbers, and back.

A column of two categories becomes a column of 0 and 1; one of more becomes a column for each
of its most frequent categories. A model that knows categories gets one column of codes 0, 1, 2,
... instead. The model predicts their expectation, which is the posterior
probability of a category as far as the model can tell, and the most probable one is filled in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import check_array

from skem._rows import open_rows
from skem._typing import AnyArray, Array, Mask
from skem._warn import warn

# Categories of a column that have a code; rarer ones are never filled in.
MAX_CATEGORIES = 20
OF_POLARS = {"Boolean", "Categorical", "Enum", "Object", "String"}


@dataclass(frozen=True)
class Column:
    """A column as it was in fit; its categories are None if it holds numbers."""

    dtype: Any = None
    categories: tuple[Any, ...] | None = None  # the most frequent first
    has_rare: bool = False  # whether there are rarer ones, without a code
    as_codes: bool = False  # whether categories are 0, 1, 2, ... in one column

    @property
    def n_codes(self) -> int:
        if self.categories is None or self.as_codes:
            return 1
        if len(self.categories) <= 2 and not self.has_rare:
            return 1
        return len(self.categories)

    def encode(self, values: AnyArray, missing: Mask) -> Array:
        """Return the codes (n, n_codes) of categories; NaN for what was not seen in fit.

        Rare categories are 0 in all columns or, in a column of codes, NaN.
        """
        assert self.categories is not None
        number = {category: i for i, category in enumerate(self.categories)}
        unknown = -2 if self.has_rare else -1
        index = np.array(
            [
                -1 if gap else number.get(v, unknown)
                for v, gap in zip(values, missing, strict=True)
            ],
            dtype=int,
        )
        if self.as_codes:
            return np.where(index < 0, np.nan, index)[:, None]
        first = 1 if self.n_codes == 1 else 0
        codes = 1.0 * (index[:, None] == np.arange(first, first + self.n_codes))
        codes[index == -1] = np.nan
        return codes

    def decode(self, codes: Array) -> AnyArray:
        """Return the most probable category of each row of expected codes."""
        assert self.categories is not None
        if self.as_codes:
            index = codes[:, 0].astype(int)
        elif self.n_codes == 1:
            index = (codes[:, 0] > 0.5).astype(int) * (len(self.categories) > 1)
        else:
            index = codes.argmax(1)
        out = np.empty(len(self.categories), dtype=object)
        out[:] = self.categories
        found: AnyArray = out[index]
        return found

    def doubt(self, codes: Array) -> Array:
        """Return the probability that another category than the decoded one is right."""
        share = np.clip(codes, 0, 1)
        if self.n_codes == 1:
            found: Array = np.minimum(share[:, 0], 1 - share[:, 0])
            return found
        total = np.maximum(share.sum(1), np.finfo(float).tiny)
        return 1 - share.max(1) / total

    def code_names(self, name: str) -> list[str]:
        """Return names of the codes of a column of this name."""
        if self.categories is None or self.as_codes:
            return [name]
        named = self.categories[-1:] if self.n_codes == 1 else self.categories
        return [f"{name}_{category}" for category in named]


@dataclass(frozen=True)
class Table:
    """How the columns of X become numbers."""

    columns: tuple[Column, ...]
    missing_values: Any

    @property
    def of_codes(self) -> list[slice]:
        """The codes of each column."""
        ends = np.cumsum([column.n_codes for column in self.columns])
        return [slice(b - c.n_codes, b) for b, c in zip(ends, self.columns, strict=True)]

    @property
    def is_numeric(self) -> Mask:
        """Whether each column holds numbers."""
        return np.array([column.categories is None for column in self.columns])

    def code_names(self, names: AnyArray) -> list[str]:
        """Return a name for each code, given those of the columns."""
        pairs = zip(self.columns, names, strict=True)
        return [own for column, name in pairs for own in column.code_names(str(name))]

    def spread(self, values: Array, other: float) -> Array:
        """Return a number for each code: that of its column of numbers, or ``other``."""
        counts = [column.n_codes for column in self.columns]
        found: Array = np.repeat(np.where(self.is_numeric, values, other), counts)
        return found

    def encode(self, X: Any) -> tuple[Array, Mask]:
        """Return X as numbers (n, n_codes), and which cells of X are missing (n, D)."""
        codes, gaps = [], []
        numbers = iter(self._numbers(X).T)
        for j, column in enumerate(self.columns):
            if column.categories is None:
                value = next(numbers)[:, None]
                gaps.append(np.isnan(value[:, 0]))
            else:
                objects, missing = objects_of(column_of(X, j), self.missing_values)
                value = column.encode(objects, missing)
                gaps.append(missing)
            codes.append(value)
        return np.concatenate(codes, axis=1), np.stack(gaps, axis=1)

    def _numbers(self, X: Any) -> Array:
        index = np.flatnonzero(self.is_numeric)
        if not len(index):
            return np.empty((len(X), 0))
        with np.errstate(over="ignore", invalid="ignore"):  # the check sums values of any size
            values = check_array(
                columns_of(X, index),
                dtype=[np.float64, np.float32],
                ensure_all_finite="allow-nan",
                input_name="X",
            )
        if not is_nan(self.missing_values):
            values = np.where(values == self.missing_values, np.nan, values)
        found: Array = values
        return found

    def decode(self, X: Any, codes: Array, missing: Any) -> Any:
        """Return X with its missing cells filled from codes, in a container like X."""
        filled = []
        for j, (column, place) in enumerate(zip(self.columns, self.of_codes, strict=True)):
            if column.categories is None:
                filled.append(codes[:, place.start])
                continue
            objects, _ = objects_of(column_of(X, j), self.missing_values)
            gaps = missing[:, j]
            objects[gaps] = column.decode(codes[gaps, place])
            filled.append(objects)
        if hasattr(X, "columns"):
            return frame_like(X, filled, self.columns)
        dtype = codes.dtype if is_number_array(X) else object
        out = np.empty((len(codes), len(filled)), dtype=dtype)
        for j, values in enumerate(filled):
            out[:, j] = values
        return out

    def decode_std(self, codes: Array, std: Array, missing: Any) -> Array:
        """Return the standard deviations of the cells, (n, D).

        ``codes`` are the filled ones. The cell of a missing category holds the probability that
        another one is right.
        """
        found = np.zeros((len(codes), len(self.columns)), codes.dtype)
        for j, (column, place) in enumerate(zip(self.columns, self.of_codes, strict=True)):
            gaps = missing[:, j]
            is_number = column.categories is None
            own = std[:, place.start] if is_number else column.doubt(codes[:, place])
            found[gaps, j] = own[gaps]
        return found


def _refuse_dates(X: Any, places: set[int]) -> None:
    """Raise an error for columns of dates and times that are not taken for categories."""
    if not hasattr(X, "iloc"):
        return
    for j, dtype in enumerate(X.dtypes):
        if j not in places and getattr(dtype, "kind", "") in "mM":
            raise ValueError(
                f"column {X.columns[j]!r} of X holds dates or times ({dtype}): turn them into "
                "numbers, such as days since a start, or drop the column."
            )


def is_number_array(X: Any) -> bool:
    return getattr(getattr(X, "dtype", None), "kind", "O") in "fiub"


def table_of(X: Any, chosen: Any, missing_values: Any, as_codes: bool) -> Table | None:
    """Return how X becomes numbers; None if it holds numbers, and NaN where one is missing.

    ``chosen`` is "from_dtype", None, or a list of the columns that hold categories. If
    ``as_codes``, each of them becomes one column of codes.
    """
    own = chosen is None or (isinstance(chosen, str) and chosen == "from_dtype")
    needs_memory = not own or not is_nan(missing_values)

    def elsewhere(lazy: bool) -> Any:
        if needs_memory:
            raise ValueError(
                "categorical_features and missing_values need X in memory, but X is a file or "
                "a dask collection: give an array or a data frame."
            )
        return lambda X: None

    def whole(X: Any) -> Table | None:
        if hasattr(X, "columns"):
            n_features = len(X.columns)
        elif needs_memory:
            n_features = np.shape(X)[1] if np.ndim(X) == 2 else 0
        else:
            return None
        places = set(places_of(X, chosen, n_features, missing_values))
        _refuse_dates(X, places)
        if not places and is_nan(missing_values):
            return None
        columns = [
            learn_column(column_of(X, j), missing_values, j, as_codes)
            if j in places
            else Column()
            for j in range(n_features)
        ]
        return Table(tuple(columns), missing_values)

    found: Table | None = open_rows(X).choose(whole, elsewhere)(X)
    return found


def places_of(X: Any, chosen: Any, n_features: int, missing_values: Any) -> Sequence[int]:
    """Return the indices of the columns that hold categories."""
    if chosen is None:
        return []
    if isinstance(chosen, str):
        if chosen != "from_dtype":
            raise ValueError(
                'categorical_features must be "from_dtype", None, or a list of columns, but '
                f"it is {chosen!r}."
            )
        if not hasattr(X, "columns"):
            return []
        found = range(n_features)
        return [j for j in found if holds_categories(column_of(X, j), missing_values)]
    wanted = np.asarray(chosen)
    if wanted.dtype.kind == "b" and wanted.shape == (n_features,):
        return np.flatnonzero(wanted).tolist()
    if wanted.dtype.kind in "UO" and hasattr(X, "columns"):
        names = list(X.columns)
        if not set(wanted.tolist()) - set(names):
            return [names.index(name) for name in wanted.tolist()]
    elif wanted.dtype.kind in "iu" and ((wanted >= -n_features) & (wanted < n_features)).all():
        return (wanted % n_features).tolist()
    elif not wanted.size:
        return []
    raise ValueError(
        f"categorical_features must name columns of X by name, index or a mask of {n_features} "
        f"booleans, but it is {chosen!r}."
    )


def holds_categories(series: Any, missing_values: Any) -> bool:
    """Return whether the type of a column of a frame is that of categories."""
    kind = getattr(series.dtype, "kind", None)
    if kind is None:
        return str(series.dtype).partition("(")[0] in OF_POLARS
    if kind != "O" or hasattr(series.dtype, "categories"):
        return bool(kind == "b" or kind == "O")
    objects, missing = objects_of(series, missing_values)
    return any(not isinstance(v, Real) or isinstance(v, bool) for v in objects[~missing])


def learn_column(series: Any, missing_values: Any, j: int, as_codes: bool) -> Column:
    """Return a column of categories."""
    objects, missing = objects_of(series, missing_values)
    try:
        counts = Counter(objects[~missing].tolist())
    except TypeError as error:
        raise ValueError(
            f"column {j} of X must hold categories that can be hashed, such as strings, but "
            f"{error}."
        ) from error
    if not counts:
        raise ValueError(f"column {j} of X has no observed category: drop it.")
    if len(counts) > max(MAX_CATEGORIES, sum(counts.values()) / 2):
        name = getattr(series, "name", j)
        warn(
            f"column {name!r} of X has {len(counts)} categories in {sum(counts.values())} "
            "rows: drop it if it only identifies rows.",
            UserWarning,
        )
    ordered = sorted(counts, key=lambda value: (-counts[value], str(value)))
    rare = len(ordered) > MAX_CATEGORIES
    return Column(series.dtype, tuple(ordered[:MAX_CATEGORIES]), rare, as_codes)


# -- columns of arrays and frames -------------------------------------------------------------


def column_of(X: Any, j: int) -> Any:
    if hasattr(X, "iloc"):
        return X.iloc[:, j]
    return X[X.columns[j]] if hasattr(X, "columns") else np.asarray(X, dtype=object)[:, j]


def columns_of(X: Any, index: Any) -> Any:
    if hasattr(X, "iloc"):
        return X.iloc[:, index]
    if hasattr(X, "columns"):
        return X[:, index.tolist()]
    values = X if hasattr(X, "dtype") else np.asarray(X, dtype=object)
    return values[:, index]


def is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def objects_of(series: Any, missing_values: Any) -> tuple[AnyArray, Mask]:
    """Return the values of a column as objects, and which of them are missing."""
    out = np.empty(len(series), dtype=object)
    out[:] = series.tolist() if hasattr(series, "tolist") else series.to_list()
    given = not is_nan(missing_values)
    gaps = [
        value is None
        or is_nan(value)
        or type(value).__name__ in ("NAType", "NaTType")
        or (given and value == missing_values)
        for value in out
    ]
    return out, np.array(gaps, dtype=bool)


def frame_like(X: Any, filled: list[AnyArray], columns: tuple[Column, ...]) -> Any:
    """Return a frame of the library of X, with these values and the types of its columns."""
    if not hasattr(X, "iloc"):  # polars
        series = []
        for name, values, column in zip(X.columns, filled, columns, strict=True):
            own = X[name]
            if column.categories is None:
                series.append(type(own)(name, values))
                continue
            dtype = column.dtype if own.null_count() == len(own) else own.dtype
            series.append(type(own)(name, values.tolist(), dtype=dtype))
        return type(X)(series)
    out = X.copy()
    for j, (values, column) in enumerate(zip(filled, columns, strict=True)):
        own = X.iloc[:, j]
        if column.categories is None:
            out.isetitem(j, type(own)(values, index=own.index, dtype=values.dtype))
        else:
            out.isetitem(j, _categories_like(own, values, column.dtype))
    return out


def _categories_like(own: Any, values: AnyArray, of_fit: Any) -> Any:
    """Return a column of pandas with the type of ``own``, or that of the fit.

    A column without any observed value, such as that of a single row, may have any type.
    """
    kinds = [of_fit, own.dtype]
    if own.notna().any() and not hasattr(own.dtype, "categories"):
        kinds.reverse()
    for dtype in kinds:
        known = getattr(dtype, "categories", None)
        if known is not None and not set(values.tolist()) <= set(known):
            continue
        try:
            return type(own)(values, index=own.index, dtype=dtype)
        except (TypeError, ValueError):  # the type cannot hold these categories
            continue
    return type(own)(values, index=own.index, dtype=object)
