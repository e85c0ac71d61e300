"""What comes in: rows, their weights, and counts."""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite, check_array
from sklearn.utils.validation import _check_sample_weight, validate_data

from skem._rows import open_rows, to_memory
from skem._rows.parts import Checks, Rows, Weights
from skem._typing import AnyArray, Array, Indices

# If all weights are below this, their squares and products with residuals underflow.
MIN_WEIGHT = 1e-100
MAX_SUMMED_WEIGHT = 1e100  # EM multiplies weights with squares of values
MAX_COUNT = 10**15  # no memory holds more rows


def check_rows(
    estimator: Any,
    X: Any,
    sample_weight: Any = None,
    *,
    reset: bool,
    min_rows: int = 1,
    image_shape: Callable[[tuple[int, ...]], tuple[int, ...] | None] | None = None,
    random_order: bool = False,
    max_weight: float = np.inf,
    **options: Any,
) -> Rows:
    """Return X as checked rows with weights; NaN is allowed, infinity is not.

    Parameters
    ----------
    estimator : estimator
        The estimator that takes the rows.
    X : array-like, file, or dask collection
        The rows; with ``image_shape`` also a stack of images, which are flattened.
    sample_weight : array-like, file, dask collection or None, default=None
        The weights of the rows.
    reset : bool
        Whether X may have other features than in the last fit.
    min_rows : int, default=1
        The smallest number of rows.
    image_shape : callable, default=None
        Returns the shape that images must have, given the shape of a row of X. None refuses
        X of more than two dimensions.
    random_order : bool, default=False
        Whether rows are needed in random order, which a cluster does not have.
    max_weight : float, default=inf
        The largest value that a weight may have.
    **options : dict
        Passed to ``sklearn.utils.check_array`` for X in memory.

    Returns
    -------
    Rows
        The rows, wherever they are.
    """
    options = {"dtype": [np.float64, np.float32], "ensure_min_samples": min_rows, **options}
    options["ensure_all_finite"] = "allow-nan"

    @np.errstate(over="ignore", invalid="ignore")  # the check sums values of any size
    def check_whole(values: Any) -> Any:
        refuse_dates(values)
        try:
            if reset:
                return check_array(values, estimator=estimator, input_name="X", **options)
            return validate_data(estimator, values, reset=False, **options)
        except (TypeError, ValueError) as error:
            refuse_words(values, error)
            raise

    def check_outline(outline: Any) -> None:
        if not reset:
            validate_data(estimator, outline, reset=False, skip_check_array=True)

    check_part = partial(_check_part, type(estimator).__name__)
    rows = open_rows(X)
    if random_order:
        rows = rows.in_random_order(type(estimator).__name__)
    if image_shape is not None:
        _check_images(rows.row_shape, image_shape(rows.row_shape))
        _check_one_image(rows.shape, image_shape(rows.row_shape))
    checks = Checks(check_whole, check_outline, check_part)
    rows = rows.checked(checks, images=image_shape is not None)
    if len(rows) < min_rows or rows.shape[1] == 0:
        raise ValueError(
            f"X has shape {rows.shape}, but at least {min_rows} rows and a column are needed."
        )
    return check_weights(sample_weight, rows, max_weight)


def check_codes(X: Any, n_columns: int, unit: str) -> Array:
    """Return codes (n, n_columns), from which a model makes rows.

    ``unit`` is the name of what a column stands for.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the check sums values of any size
        codes: Array = check_array(X, dtype=[np.float64, np.float32], input_name="X")
    check_width(codes.shape, n_columns, unit)
    return codes


def check_width(shape: tuple[int, ...], n_columns: int, unit: str) -> None:
    """Refuse codes that do not have ``n_columns`` columns, each for a ``unit``."""
    if shape[1:] != (n_columns,):
        raise ValueError(
            f"X has {shape[1]} columns, but {n_columns} are needed: pass one column for "
            f"each {unit}."
        )


def _columns_of(X: Any) -> Iterator[tuple[Any, AnyArray]]:
    """Yield the names and the values of the columns, as NumPy sees them."""
    if hasattr(X, "columns"):
        yield from ((name, np.asarray(X[name])) for name in X.columns)
    elif np.ndim(X) == 2 and not issparse(X):
        yield from enumerate(np.asarray(X).T)


def refuse_dates(X: Any) -> None:
    """Refuse dates and times, which NumPy would turn into nanoseconds or days."""
    kinds = X.dtypes if hasattr(X, "columns") else [getattr(X, "dtype", None)]
    if not any(
        str(kind).lower().startswith(("date", "timedelta", "duration")) for kind in kinds
    ):
        return
    for name, values in _columns_of(X):
        if values.dtype.kind in "mM":
            raise ValueError(
                f"column {name!r} of X holds dates or times, such as {values[0]}, which cannot "
                "be converted to numbers without a unit: pass numbers, such as the days since "
                "the first date, or use skrub's DatetimeEncoder or TableVectorizer."
            )


def refuse_words(X: Any, error: Exception) -> None:
    """Name the first column with a string that is no number, if there is one."""
    for name, values in _columns_of(X):
        for value in values if values.dtype.kind in "OUST" else ():
            if isinstance(value, str) and not _is_number(value):
                raise ValueError(
                    f"column {name!r} of X holds {str(value)!r}, which cannot be converted to "
                    "a number: encode the column, with scikit-learn's OneHotEncoder or skrub's "
                    "TableVectorizer, or leave it out. If it marks missing values, replace it "
                    "by NaN."
                ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_part(name: str, rows: AnyArray) -> int:
    if not rows.dtype.isnative:  # of which scikit-learn 1.6 checks nothing
        rows = rows.astype(rows.dtype.newbyteorder("="))
    assert_all_finite(rows, allow_nan=True, estimator_name=name, input_name="X")
    return len(rows)


def _check_images(row_shape: tuple[int, ...], image_shape: tuple[int, ...] | None) -> None:
    """Refuse images of another shape; a channel of size 1 may be left out."""
    if len(row_shape) in (2, 3) and image_shape not in (row_shape, (*row_shape, 1)):
        raise ValueError(
            f"X holds images of shape {row_shape}, but image_shape is {image_shape!r}: "
            f"set image_shape={row_shape!r}, or give other images."
        )


def _check_one_image(shape: tuple[int, ...], image_shape: tuple[int, ...] | None) -> None:
    """Say how one image becomes a row."""
    if image_shape is not None and shape == image_shape and shape[1:] != (prod(shape),):
        raise ValueError(
            f"X has the shape {shape} of a single image: pass X.reshape(1, -1), whose row is "
            "the image."
        )


def check_weights(sample_weight: Any, rows: Rows, largest: float = np.inf) -> Rows:
    """Return the rows with weights, which are float64, not negative and not all zero."""
    if sample_weight is None:
        return rows

    def check(weight: Any, rows: Rows) -> Array:
        # only the number of rows counts; scikit-learn's dispatch of arrays knows no ``Rows``
        outline = np.broadcast_to(0.0, (len(rows), 1))
        found: Array = _check_sample_weight(
            to_memory(weight), outline, dtype=np.float64, ensure_non_negative=True
        )
        return found

    weighted = rows.weighted(sample_weight, check)
    low, high = np.transpose(weighted.collect_weights(_range))
    if not (low.min() >= 0 and high.max() < np.inf):
        raise ValueError(
            "sample_weight must hold finite weights of at least 0, but its values are "
            f"between {low.min():g} and {high.max():g}."
        )
    if not high.any():
        raise ValueError("sample_weight must have values above 0, but all of them are zero.")
    if high.max() < MIN_WEIGHT:
        raise ValueError(
            f"sample_weight must have values above {MIN_WEIGHT:g}, but its largest is "
            f"{high.max():g}: rescale it."
        )
    if high.max() > largest:
        raise ValueError(
            f"sample_weight must have values below {largest:g}, but its largest is "
            f"{high.max():g}: rescale it."
        )
    return weighted


def _range(weight: Weights) -> tuple[float, float]:
    values = np.asarray(weight)
    return float(values.min()), float(values.max())


def in_unit_interval(low: float, high: float, dtype: DTypeLike) -> bool:
    """Return whether values lie in [0, 1] up to rounding.

    ``MinMaxScaler`` returns values such as 1.0000000000000002. The tolerance is the root of the
    spacing of the dtype at 1: 1.5e-8 for float64, 3.5e-4 for float32.
    """
    tolerance = float(np.finfo(dtype).eps) ** 0.5
    return -tolerance <= low and high <= 1 + tolerance


def largest_weight(rows: Rows) -> float:
    """Return the largest weight; 1 without weights."""
    if not rows.is_weighted:
        return 1.0
    return max(high for _, high in rows.collect_weights(_range))


def check_count(name: str, value: Any, minimum: int = 1) -> None:
    """Refuse what is not a whole number, or too small."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
        raise ValueError(
            f"{name} must be an integer of at least {minimum}, but it is {value!r}."
        )
    if int(value) > MAX_COUNT:
        raise ValueError(f"{name} must be at most {MAX_COUNT:.0e}, but it is {value!r}.")


def split_rows(
    weight: Array, fraction: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Return the indices of the rows to learn from, and of the validation rows."""
    order = rng.permutation(len(weight))
    n_validation = round(fraction * len(order))
    validation, own = np.sort(order[:n_validation]), np.sort(order[n_validation:])
    if not (weight[validation].any() and weight[own].any()):
        raise ValueError(
            f"validation_fraction={fraction!r} of {len(order)} rows leaves none on one side, "
            "or none with a sample_weight above 0: change it, or set early_stopping=False."
        )
    return own, validation
