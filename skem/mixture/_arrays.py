"""The mixture where NumPy cannot read: the sums and the posterior on a device such as a GPU.

It computes the same sums as ``_sums.sums``, with functions of the array API only. The sums are
small and return to NumPy in float64, so that all else of a fit is the same. z has shape
(K, n, D) for blocks of n rows, so that memory does not grow with the rows.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from skem._base.em import FAR
from skem._rows.arrays import Place, Placed
from skem._typing import AnyArray, Array, Indices
from skem.mixture._sums import MAX_EXPANSION, Whitening

# Number of elements of z in a block: it fills a GPU, and takes 64 MB in float64.
BLOCK_SIZE = 2**23


class PlacedGroup:
    """Rows of a chunk on a device; no value is missing."""

    observed = place = None

    def __init__(self, rows: Placed, dtype: DTypeLike) -> None:
        self._on = rows.place
        self._values = rows.place.cast(rows.values, dtype)
        self._dtype = np.dtype(dtype)
        self._kept: tuple[Array, float, Any] | None = None

    def __len__(self) -> int:
        return int(self._values.shape[0])

    @property
    def values(self) -> AnyArray:
        """The rows, in NumPy."""
        return self._on.to_numpy(self._values)

    def index(self, n_rows: int) -> Indices:
        return np.arange(n_rows)

    def take(self, index: Indices) -> AnyArray:
        """Return rows at these indices, in NumPy."""
        return Placed(self._values, self._on).take(index)

    @np.errstate(over="ignore", invalid="ignore")  # array libraries may compute with NumPy
    def sums(
        self, whitening: Whitening, weight: Array, responsibilities: Array | None
    ) -> tuple[Any, ...]:
        """Return the same as ``_sums.sums``, in NumPy."""
        xp, (K, D) = self._on.xp, whitening.means.shape
        unit, w = self._weights(weight)
        given = None if responsibilities is None else self._put(responsibilities)
        total: Any = 0.0
        projection = _projection(whitening, self._on, self._dtype)
        for part, coordinates, log_joint in self._blocks(projection):
            if given is None:
                top = xp.max(log_joint, axis=0)
                r = xp.exp(log_joint - top)
                mass = xp.sum(r, axis=0)
                log_lik = xp.sum(w[part] * (top + xp.log(mass)))
                r = r * (w[part] / mass)
            else:
                log_lik, r = xp.zeros_like(w[0]), given[:, part] * w[part]
            found = (log_lik, xp.sum(r, axis=1), *projection.moments(coordinates, r))
            # one copy from the device instead of four
            flat = xp.concat([xp.reshape(values, (-1,)) for values in found])
            total = total + self._on.to_numpy(flat).astype(float)
        log_lik, counts, first, second = np.split(total * unit, np.cumsum([1, K, K * D]))
        shape = projection.shape_of_second
        moments = projection.of_whitened(counts, first.reshape(K, D), second.reshape(shape))
        return float(log_lik[0]), counts, *moments

    @np.errstate(over="ignore", invalid="ignore")
    def log_joint(self, whitening: Whitening, active: Indices, n_components: int) -> Any:
        """Return log p(x, k), (n, K), on the device; it is -inf where not active."""
        xp = self._on.xp
        projection = _projection(whitening, self._on, self._dtype)
        found = xp.concat([values for *_, values in self._blocks(projection)], axis=1)
        if len(active) < n_components:
            none = xp.full_like(found[:1, :], -math.inf)
            order = np.full(n_components, len(active))
            order[active] = np.arange(len(active))
            found = xp.take(xp.concat([found, none]), self._on.put(order), axis=0)
        return xp.matrix_transpose(found)

    def log_joint_in_numpy(
        self, whitening: Whitening, active: Indices, n_components: int
    ) -> Array:
        """Return log p(x, k), (n, K), in NumPy and float64."""
        found = self._on.to_numpy(self.log_joint(whitening, active, n_components))
        return found.astype(float, copy=False)

    def _blocks(self, projection: "_Projection") -> Iterator[tuple[slice, Any, Any]]:
        """Yield the place, the coordinates and log p(x, k), (K, n), of each block of n rows."""
        size = max(1, BLOCK_SIZE // max(1, projection.n_values))
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, *projection.log_joint(self._values[part, :])

    def _weights(self, weight: Array) -> tuple[float, Any]:
        """Return the largest weight, and the weights in that unit on the device.

        They are kept from pass to pass. float32 holds neither tiny nor huge weights.
        """
        if self._kept is None or self._kept[0] is not weight:
            unit = float(weight.max(initial=0)) if self._dtype == np.float32 else 1.0
            self._kept = weight, unit, self._put(weight / (unit or 1.0))
        return self._kept[1], self._kept[2]

    def _put(self, values: Array) -> Any:
        return self._on.put(values.astype(self._dtype))

    @np.errstate(over="ignore", invalid="ignore")
    def apply(self, function: Callable[..., Any], model: Any, params: Any) -> Any:
        """Return ``function(model, params, rows)``, on the device.

        Rows so far away that rounding hides the components are left to NumPy.
        """
        xp, layout = self._on.xp, model.layout
        log_joint = self.log_joint(params.whitening, params.active, layout.n_components)
        found = ON_DEVICE[function.__name__](xp, log_joint)
        near = xp.max(log_joint, axis=1) > -FAR
        if bool(xp.all(near)):
            return found
        index = np.flatnonzero(~self._on.to_numpy(near))
        others = function(model, params, model.rows(self.take(index), float))
        values = np.zeros(tuple(found.shape), others.dtype)
        values[index] = others
        mask = xp.reshape(near, (-1, *[1] * (found.ndim - 1)))
        return xp.where(mask, found, xp.astype(self._on.put(values), found.dtype))


# -- what verbs make of log p(x, k), (n, K) ----------------------------------------------------


def _log_density(xp: Any, log_joint: Any) -> Any:
    top = xp.max(log_joint, axis=1)
    return top + xp.log(xp.sum(xp.exp(log_joint - top[:, None]), axis=1))


def _posterior(xp: Any, log_joint: Any) -> Any:
    shares = xp.exp(log_joint - xp.max(log_joint, axis=1, keepdims=True))
    return shares / xp.sum(shares, axis=1, keepdims=True)


# by the names of the functions of rows in NumPy that they stand for
ON_DEVICE: dict[str, Callable[[Any, Any], Any]] = {
    "_log_joint": lambda xp, log_joint: log_joint,
    "_log_likelihood": _log_density,
    "_posterior": _posterior,
    "_most_probable": lambda xp, log_joint: xp.argmax(log_joint, axis=1),
    "log_certainty": lambda xp, values: xp.max(values, axis=1) - _log_density(xp, values),
}


# -- log p(x, k) and moments of blocks ---------------------------------------------------------


class _Projection:
    """Map from rows x (n, D) to log p(x, k), (K, n), and to moments, for one whitening."""

    def __init__(self, whitening: Whitening, place: Place) -> None:
        self.xp, self.n_values = place.xp, whitening.means.size
        self._center, self._factors = map(place.put, (whitening.center, whitening.factors))
        self._constants = place.put(whitening.constants[:, None])
        self._shifts = place.put(whitening.shifts[:, None])
        is_dense = whitening.factors.ndim == 3
        self.shape_of_second = (whitening.factors if is_dense else whitening.means).shape

    def log_joint(self, x: Any) -> tuple[Any, Any]:
        """Return the coordinates that ``moments`` takes, and log p(x, k)."""
        z = self._whitened(x - self._center)
        return z, self._constants - 0.5 * self.xp.sum(z * z, axis=2)

    def _whitened(self, x: Any) -> Any:
        raise NotImplementedError

    def moments(self, z: Any, r: Any) -> tuple[Any, Any]:
        """Return the first and the second moments of the coordinates under r (K, n)."""
        raise NotImplementedError

    def of_whitened(self, counts: Array, first: Array, second: Array) -> tuple[Array, Array]:
        """Return the moments of z, given those of the coordinates."""
        return first, second


class _Dense(_Projection):
    """Dense factors, one for each component or a shared one."""

    def _whitened(self, x: Any) -> Any:
        factors = self.xp.matrix_transpose(self._factors)
        return self.xp.matmul(x[None, :, :], factors) + self._shifts

    def moments(self, z: Any, r: Any) -> tuple[Any, Any]:
        xp = self.xp
        first = xp.matmul(r[:, None, :], z)[:, 0, :]
        second = xp.matmul(xp.matrix_transpose(z), r[:, :, None] * z)
        if self.shape_of_second[0] < first.shape[0]:
            second = xp.sum(second, axis=0)
        return first, second


class _Diagonal(_Projection):
    """Diagonal factors, with z computed elementwise."""

    def _whitened(self, x: Any) -> Any:
        return x[None, :, :] * self._factors[:, None, :] + self._shifts

    def moments(self, z: Any, r: Any) -> tuple[Any, Any]:
        xp, r = self.xp, r[:, None, :]
        return xp.matmul(r, z)[:, 0, :], xp.matmul(r, z * z)[:, 0, :]


class _Expanded(_Projection):
    """Diagonal factors with (x - mu)^2 expanded, see ``_sums.ExpandedSquares``."""

    def __init__(self, whitening: Whitening, place: Place) -> None:
        super().__init__(whitening, place)
        a, b = whitening.factors, whitening.shifts
        half = 0.5 * (b.astype(float) ** 2).sum(1)
        self._constants = place.put((whitening.constants - half).astype(a.dtype)[:, None])
        self._linear, self._square = place.put(a * b), place.put(0.5 * a * a)
        self._a, self._b = a.astype(float), b.astype(float)

    def log_joint(self, x: Any) -> tuple[Any, Any]:
        xp, x = self.xp, x - self._center
        columns = xp.matrix_transpose(x)
        out = xp.matmul(self._linear, columns) + xp.matmul(self._square, columns * columns)
        return x, self._constants - out

    def moments(self, z: Any, r: Any) -> tuple[Any, Any]:
        return self.xp.matmul(r, z), self.xp.matmul(r, z * z)

    def of_whitened(self, counts: Array, first: Array, second: Array) -> tuple[Array, Array]:
        a, b, n = self._a, self._b, counts[:, None]
        return a * first + n * b, a**2 * second + 2 * a * b * first + n * b**2


@lru_cache(maxsize=4)
def _projection(whitening: Whitening, place: Place, dtype: np.dtype) -> _Projection:
    """Return what all chunks share."""
    whitening = whitening.astype(dtype)
    if whitening.factors.ndim == 3:
        return _Dense(whitening, place)
    far = float((whitening.shifts.astype(float) ** 2).sum(1).max(initial=0))
    limit = MAX_EXPANSION if dtype == np.float64 else MAX_EXPANSION / 2**8
    return (_Diagonal if far > limit else _Expanded)(whitening, place)
