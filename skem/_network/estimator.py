"""The frame of fits of torch networks."""

import math
from importlib.util import find_spec
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from skem._base.input import check_rows, check_stack
from skem._base.minibatch import MinibatchEstimator
from skem._network.layers import Design
from skem._network.scaling import Scaling
from skem._network.training import Purpose, choose_device
from skem._rows.moments import Moments, moments
from skem._rows.parts import LocalRows, Weights
from skem._typing import AnyArray, Indices

# Values read in training from which numba is worth its import, of about a second.
MIN_FAST = 3e8
NAN_ROWS = 1000  # rows that are searched for NaN at a time
# Parameters that a design holds under another name.
PARAMETERS = {"gaussian": "likelihood", "spectral": "spectral_norm"}


def numba_pays(n_values: int) -> bool:
    """Whether training reads enough values to be worth the import of numba."""
    return n_values >= MIN_FAST and find_spec("numba") is not None


def _has_nan(rows: AnyArray, weight: Weights) -> bool:
    return any(np.isnan(rows[part]).any() for part in gen_batches(len(rows), NAN_ROWS))


def _is_size(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) > 0


class NetworkEstimator(MinibatchEstimator):
    """What estimators of networks share.

    A subclass has the parameters ``n_components``, ``image_shape``, ``architecture``,
    ``hidden_layer_sizes``, ``activation``, ``batch_size``, ``max_iter``,
    ``learning_rate_init``, ``device`` and ``warm_start``, and besides the methods of
    ``MinibatchEstimator``

    - ``_plan(rows, seen, resume)``: the design of the networks and the scaling of rows;
    - ``_build(design, scaling, seed, device, fast, rows)``: a training of new networks, with
      the optimizer of the fit before if ``resume``;
    - ``_attributes(training, resume)``, with ``_weights``, ``t_`` and an empty ``_cache``.
    """

    _fitted_name = "_weights"

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_fitted()

    def _start(
        self, rows: LocalRows, chosen: Indices, seed: int, resume: bool, n_passes: int | None
    ) -> Any:
        self._check_shapes(rows.shape[1])
        design, scaling = self._plan(rows, moments(rows), resume)
        device = choose_device(self.device)
        fast = device.type == "cpu" and numba_pays(rows.size * (n_passes or 1))
        training = self._build(design, scaling, seed, device, fast, rows, resume)
        if resume:
            training.restore(self._weights)
            training.n_steps = self.t_
        return training

    def _plan(self, rows: LocalRows, seen: Moments, resume: bool) -> tuple[Design, Scaling]:
        raise NotImplementedError

    def _build(self, *args: Any) -> Any:
        raise NotImplementedError

    def _sizes(self, n_features: int) -> dict[str, Any]:
        """Return what every design says."""
        return {
            "n_features": n_features,
            "n_components": int(self.n_components),
            "hidden_layer_sizes": tuple(int(size) for size in self.hidden_layer_sizes),
            "activation": self.activation,
            "architecture": self.architecture,
            "image_shape": None if self.image_shape is None else tuple(self.image_shape),
        }

    def _check_same_design(self, design: Design, resume: bool, *free: str) -> None:
        """Refuse to continue a fit of other networks; the free fields may differ."""
        if not resume:
            return
        old = self._design
        other = [
            PARAMETERS.get(name, name)
            for name in old
            if name not in free and vars(design)[name] != old[name]
        ]
        if other:
            raise ValueError(
                f"the networks were built with other values of {', '.join(other)}: set them "
                "back, or call fit with warm_start=False."
            )

    def _split_generator(self, seed: int) -> np.random.Generator:
        return np.random.default_rng([seed, Purpose.SUBSET])

    def _diverged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{error}: lower learning_rate_init={self.learning_rate_init!r}, or bring the "
            "features of X to similar scales."
        )

    def _n_batch(self, n_rows: int) -> int:
        """Return the number of rows of a minibatch."""
        if self.batch_size == "auto":
            return min(128, max(16, n_rows // 100))
        return min(self.batch_size, n_rows)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "_cache": {}} if "_cache" in state else state

    # -- input ----------------------------------------------------------------------------

    def _check_rows(self, X: Any, sample_weight: Any = None, *, reset: bool) -> LocalRows:
        check_stack(X, None if self.image_shape is None else tuple(self.image_shape))
        rows: Any = check_rows(
            self, X, sample_weight, reset=reset, images=True, random_order=True
        )
        may_miss = rows.dtype.kind == "f"  # a file of integers need not be read
        if not self._allow_nan and may_miss and any(rows.collect(_has_nan)):
            raise ValueError(
                f"X contains NaN, which {type(self).__name__} does not take: fill it first, by "
                "LatentImputer for example."
            )
        return rows

    def _check_shapes(self, n_features: int) -> None:
        """Refuse impossible sizes of layers and images."""
        sizes, shape = self.hidden_layer_sizes, self.image_shape
        if not all(_is_size(size) for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes must hold positive integers, but it is {sizes!r}."
            )
        if shape is not None and (
            len(shape) not in (2, 3)
            or not all(_is_size(size) for size in shape)
            or math.prod(shape) != n_features
        ):
            raise ValueError(
                f"image_shape={shape!r} does not fit the {n_features} features of X: give "
                "(height, width) or (height, width, channels)."
            )
        if self.architecture == "conv" and (shape is None or min(shape[:2]) < 4):
            raise ValueError(
                "architecture='conv' needs image_shape of at least 4 x 4 pixels, but it is "
                f"{shape!r}."
            )
