"""Arrays of other libraries, such as tensors of torch.

NumPy reads arrays in the memory of the CPU where they are. ``Elsewhere`` holds rows that are
on another device, such as a GPU, and stay there.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from skem._rows.parts import (
    Checks,
    Function,
    KeptInMemory,
    LocalRows,
    Map,
    Ones,
    Weights,
    chunks,
)
from skem._typing import AnyArray, Indices

Result = TypeVar("Result")


def in_numpy(values: Any) -> Any:
    """Return an array of another library as one of NumPy that shares its memory.

    Other values are returned as they are.

    Raises
    ------
    ValueError
        If NumPy cannot read it, for example because it is on a GPU.
    """
    foreign = hasattr(values, "__dlpack__") and hasattr(values, "shape")
    if isinstance(values, np.ndarray) or not foreign:
        return values
    try:
        return np.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise _unreadable(values, error) from error


def _unreadable(values: Any, error: object) -> ValueError:
    kind = type(values)
    return ValueError(
        f"NumPy cannot read the {kind.__module__}.{kind.__qualname__} that was given: "
        f"{error}. Give dense numbers in the memory of the CPU, X.detach().cpu() for a "
        "tensor X of torch."
    )


@dataclass(frozen=True, eq=False)
class Place:
    """A library of arrays, and one of its devices."""

    xp: Any  # the functions of the library, as the array API names them
    device: Any
    is_host: bool  # whether the device is the memory of the CPU
    has_float64: bool
    to_numpy: Callable[[Any], AnyArray]  # copies from any device

    def put(self, values: AnyArray) -> Any:
        """Return an array of NumPy in this place; float32 where there is no float64."""
        if values.dtype == np.float64 and not self.has_float64:
            values = values.astype(np.float32)
        return self.xp.asarray(np.ascontiguousarray(values), device=self.device)

    def cast(self, values: Any, dtype: DTypeLike) -> Any:
        """Return an array of this place in float32 or float64; no copy if it has the dtype."""
        return self.xp.astype(values, getattr(self.xp, np.dtype(dtype).name), copy=False)

    def dtype_of(self, values: Any) -> np.dtype:
        """Return NumPy's name of a floating-point dtype; float64 for all that is no float32."""
        return np.dtype(np.float32 if values.dtype == self.xp.float32 else np.float64)


class Placed:
    """An array in its place; it can be cut like one of NumPy."""

    def __init__(self, values: Any, place: Place) -> None:
        self.values, self.place = values, place
        self.shape = tuple(values.shape)
        self.dtype = place.dtype_of(values)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, part: slice) -> "Placed":
        return Placed(self.values[part, ...], self.place)

    def batch(self, index: Indices) -> Any:
        """Return rows at these indices, in their place."""
        return self.place.xp.take(self.values, self.place.put(np.asarray(index)), axis=0)

    def take(self, index: Indices) -> AnyArray:
        """Return rows at these indices, in NumPy."""
        return self.place.to_numpy(self.batch(index))


class Elsewhere(LocalRows):
    """Rows on a device whose memory NumPy cannot read.

    Passes of a model run on the device. All else reads the rows part by part, like a file.
    Weights are in the memory of the CPU.
    """

    is_complete = True

    def __init__(self, values: Any, place: Place, weight: Weights | None = None) -> None:
        self.values, self.place = values, place
        self.weight = Ones(values.shape[0]) if weight is None else weight
        self.is_weighted = not isinstance(self.weight, Ones)
        self._row_shape = tuple(values.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self._row_shape

    # -- coming in ------------------------------------------------------------------------

    @property
    def given(self) -> Any:
        return self.values

    @property
    def array(self) -> Placed:
        return Placed(self.values, self.place)

    def outline(self) -> Any:
        return np.empty((0, math.prod(self.row_shape)))

    def checked(self, checks: Checks, *, images: bool) -> "Elsewhere":
        place, xp, values = self.place, self.place.xp, self.values
        if images and len(self.shape) > 2:
            values = xp.reshape(values, (len(self), -1))
        if len(values.shape) != 2:
            raise ValueError(
                f"X has shape {self.shape}, but a row for each sample and a column for each "
                "feature are needed: reshape X."
            )
        checks.outline(self.outline())
        try:
            if values.dtype not in (xp.float32, xp.float64):
                widest = np.float64 if place.has_float64 else np.float32
                values = place.cast(values, widest)
            n_missing = int(xp.sum(xp.astype(xp.isnan(values), xp.int64)))
            n_infinite = int(xp.sum(xp.astype(xp.isinf(values), xp.int64)))
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise _unreadable(self.values, error) from error
        if n_infinite:
            raise ValueError("Input X contains infinity or a value too large.")
        if n_missing:
            self.refuse("NaN in X")
        rows = Elsewhere(values, place, self.weight)
        rows._row_shape = self._row_shape
        return rows

    def weighted(self, sample_weight: Any, check: Callable[..., Any]) -> "Elsewhere":
        return self.reweighted(check(sample_weight, self))

    def refuse(self, name: str) -> None:
        raise ValueError(
            f"{name} cannot be used with rows on the device {self.place.device}: give rows in "
            "the memory of the CPU, X.cpu() for a tensor X of torch."
        )

    def in_memory(self, reason: str) -> Any:
        self.refuse(reason)

    # -- parts, in NumPy ------------------------------------------------------------------

    def parts(self) -> list[Any]:
        return chunks(len(self), max(1, self.shape[1]))

    def read(self, part: slice) -> AnyArray:
        return self.place.to_numpy(self.values[part, ...])

    @property
    def lengths(self) -> list[int]:
        return [part.stop - part.start for part in self.parts()]

    def keep(self, prepare: Callable[..., Any]) -> KeptInMemory:
        return KeptInMemory(prepare(self.array, self.weight))

    def fold_in_place(self, function: Callable[..., Result], run: Map = map) -> Result:
        return function(self.array, self.weight)

    def threads(self, n_jobs: int | None) -> tuple[int | None, int | None]:
        return 1, 1

    def choose(self, whole: Function, of_part: Callable[[bool], Function]) -> Function:
        return whole

    def apply(self, function: Function) -> Any:
        return function(self)

    # -- some of the rows -----------------------------------------------------------------

    def __getitem__(self, key: Any) -> AnyArray:
        return self.read(key) if isinstance(key, slice) else self.array.take(key)

    def take(self, index: Indices) -> AnyArray:
        return self.array.take(index)

    def batch(self, index: Indices) -> Any:
        return self.array.batch(index)

    def one_by_one(self, sample_weight: Any, weigh: Any) -> Iterator[tuple[Any, Any]]:
        yield self, sample_weight

    def gather(self, columns: Indices, function: Callable[..., Result]) -> Result:
        some = self.place.xp.take(self.values, self.place.put(columns), axis=1)
        return function(self.place.to_numpy(some), self.weight)

    def select(self, index: Indices | slice) -> "Elsewhere":
        if isinstance(index, slice):
            values = self.values[index, ...]
        else:
            values = self.place.xp.take(self.values, self.place.put(index), axis=0)
        return Elsewhere(values, self.place, self.weight[index])

    def clip(self, low: float, high: float) -> "Elsewhere":
        values = self.place.xp.clip(self.values, low, high)
        return Elsewhere(values, self.place, self.weight)

    def batch_order(self, order: Indices) -> Indices:
        return order
