"""Base class of the estimators that train torch networks."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import gen_batches

from skem._base.estimator import warn
from skem._base.input import check_rows
from skem._base.minibatch import MinibatchEstimator
from skem._base.places import hosted, rows_of
from skem._compiled import has_numba
from skem._network.layers import Design
from skem._network.training import (
    Purpose,
    check_forks,
    choose_device,
    one_cycle,
    one_torch_thread,
)
from skem._rows.arrays import in_numpy
from skem._rows.moments import moments
from skem._rows.parts import LocalRows, Weights
from skem._typing import AnyArray, Indices

# numba, whose import takes about a second, is used if training reads at least this number of
# values.
MIN_FAST = 3e8
# Products of a layer for one minibatch from which several threads of torch are faster.
MIN_THREADS = 2e7
NAN_ROWS = 1000  # number of rows searched for NaN at a time
# Parameters of an estimator that have another name in its design.
PARAMETERS = {"columns": "likelihood", "spectral": "spectral_norm"}


def numba_pays(n_values: int) -> bool:
    """Return whether training reads enough values to justify the import of numba."""
    return n_values >= MIN_FAST and has_numba()


def _has_nan(rows: AnyArray, weight: Weights) -> bool:
    return any(np.isnan(rows[part]).any() for part in gen_batches(len(rows), NAN_ROWS))


def _warn_of_bytes(images: AnyArray) -> None:
    """Say what bytes are taken for, unless the first of them are 0 or 1."""
    if np.max(images[:NAN_ROWS]) > 1:
        warn(
            "X holds bytes, which are standardized like any other numbers: drawn images are "
            "not integers, and may lie outside of 0 and 255. Divide X by 255 for values "
            "between 0 and 1.",
            UserWarning,
        )


def _is_size(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) > 0


class NetworkEstimator(MinibatchEstimator):
    """Base class of the estimators that train torch networks.

    A subclass has the parameters ``n_components``, ``image_shape``, ``architecture``,
    ``hidden_layer_sizes``, ``activation``, ``batch_size``, ``max_iter``,
    ``learning_rate``, ``learning_rate_init``, ``device`` and ``warm_start``. It defines the
    methods of ``MinibatchEstimator`` and these:

    - ``_begin(rows, seen, seed, device, fast, resume)`` returns the training of new networks,
      given the moments ``seen`` of the rows. If ``fast``, loops are compiled. If ``resume``,
      the training has the scaling and the optimizer of the last fit.
    - ``_attributes(training, resume, scores)`` includes ``_weights``, ``t_`` and an empty
      ``_cache``.
    """

    _fitted_name = "_weights"
    # With max_iter="auto": the number of steps, and the limits of the number of passes.
    _auto_passes: ClassVar[tuple[int, int, int]]

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_fitted()

    def _check_parameters(self) -> None:
        if isinstance(self.learning_rate, Real):
            raise ValueError(
                f"learning_rate={self.learning_rate!r} must be 'one_cycle' or 'constant': the "
                f"step size is learning_rate_init={self.learning_rate!r}."
            )
        super()._check_parameters()

    def _opened(self, X: Any, *, is_fit: bool = False) -> Any:
        """Leave rows on their device for a fit; copy them to the CPU for other methods."""
        return rows_of(X) if is_fit else hosted(X)

    def _fit(self, X: Any, sample_weight: Any, **beside: Any) -> Any:
        return super()._fit(self._opened(X, is_fit=True), hosted(sample_weight), **beside)

    def _train(self, rows: LocalRows, resume: bool) -> Any:
        self._check_shapes(rows.shape[1])
        with self._threads(rows):
            return super()._train(rows, resume)

    def _train_once(self, rows: LocalRows, resume: bool) -> Any:
        self._check_shapes(rows.shape[1])
        with self._threads(rows):
            return super()._train_once(rows, resume)

    def _threads(self, rows: LocalRows) -> AbstractContextManager[None]:
        """Limit torch to one thread for small layers.

        Several threads share out each layer and wait for each other. On a busy machine they
        wait much longer than they compute.
        """
        check_forks()  # with the threads that other parts of a fit may use
        own_networks = any(getattr(self, name, None) for name in ("encoder", "decoder"))
        if self.architecture != "dense" or own_networks:
            return nullcontext()
        sizes = [rows.shape[1], *map(int, self.hidden_layer_sizes), int(self.n_components)]
        n_products = int(self._n_batch(len(rows))) * max(a * b for a, b in pairwise(sizes))
        return one_torch_thread if n_products < MIN_THREADS else nullcontext()

    def _start(
        self, rows: LocalRows, chosen: Indices, seed: int, resume: bool, n_passes: int | None
    ) -> Any:
        device = choose_device(self.device)
        fast = device.type == "cpu" and numba_pays(rows.size * (n_passes or 1))
        training = self._begin(rows, moments(rows), seed, device, fast, resume)
        if resume:
            training.restore(self._weights)
            training.n_steps = self.t_
        return training

    def _sizes(self, n_features: int) -> dict[str, Any]:
        """Return the sizes and layers that the designs of all networks contain."""
        return {
            "n_features": n_features,
            "n_components": int(self.n_components),
            "hidden_layer_sizes": tuple(int(size) for size in self.hidden_layer_sizes),
            "activation": self.activation,
            "architecture": self.architecture,
            "image_shape": self._shape_of_images(),
        }

    def _shape_of_images(self) -> tuple[int, ...] | None:
        """Return ``image_shape`` with integers that cannot overflow."""
        if self.image_shape is None:
            return None
        return tuple(int(s) if isinstance(s, Integral) else s for s in self.image_shape)

    def _check_same_design(self, design: Design, resume: bool, *free: str) -> None:
        """Raise an error if the last fit has other networks; ``free`` fields may differ."""
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
                f"the networks were built with other values of {', '.join(other)}: restore the "
                "old values, or call fit with warm_start=False."
            )

    def _max_passes(self, n_rows: int) -> int:
        if self.max_iter != "auto":
            return int(self.max_iter)
        n_steps, low, high = self._auto_passes
        n_batches = math.ceil(n_rows / self._n_batch(n_rows))
        return min(high, max(low, math.ceil(n_steps / n_batches)))

    def _rate(
        self, training: Any, n_rows: int, n_batches: int, i: int | None
    ) -> Callable[[int], float]:
        """Return the step size as a function of the number of steps so far.

        ``i`` is the number of the pass, ``n_rows`` the number of rows with a weight above 0,
        and ``n_batches`` that of minibatches in a pass.
        """
        peak = float(self.learning_rate_init)
        if i is None or self.learning_rate == "constant":
            return lambda step: peak
        cycle = one_cycle(peak, n_batches * self._max_passes(n_rows))
        first = training.n_steps - i * n_batches
        return lambda step: cycle(step - first)

    def _split_generator(self, seed: int) -> np.random.Generator:
        return np.random.default_rng([seed, Purpose.SUBSET])

    def _diverged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{error}: use a smaller learning_rate_init than {self.learning_rate_init!r}, or "
            "scale the features of X to similar ranges."
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
        shape = self._shape_of_images()
        X = in_numpy(X)
        given = tuple(getattr(X, "shape", ()))
        if len(given) == 4 and shape == (*given[2:], given[1]) != given[1:]:
            raise ValueError(
                f"X has shape {given}, with the channels of its images first, but image_shape="
                f"{shape!r} has them last: pass numpy.moveaxis(X, 1, -1)."
            )
        if reset and shape is not None and getattr(X, "dtype", None) == np.uint8:
            _warn_of_bytes(X)
        rows: Any = check_rows(
            self,
            X,
            sample_weight,
            reset=reset,
            image_shape=lambda row_shape: shape,
            random_order=True,
        )
        # files of integers need not be searched
        may_miss = rows.dtype.kind == "f" and not rows.is_complete
        if not self._allow_nan and may_miss and any(rows.collect(_has_nan)):
            raise ValueError(
                f"X contains NaN, which {type(self).__name__} does not accept: fill missing "
                "values first, for example with LatentImputer."
            )
        return rows

    def _check_shapes(self, n_features: int) -> None:
        """Raise an error for impossible sizes of layers or images."""
        sizes, shape = self.hidden_layer_sizes, self._shape_of_images()
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
                f"image_shape={shape!r} does not match the {n_features} features of X: pass "
                f"(height, width) or (height, width, channels) with {n_features} pixels."
            )
        if shape is not None and len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] > 4:
            raise ValueError(
                f"image_shape={shape!r} seems to have the channels first: pass (height, width, "
                "channels), and images with the channels last."
            )
        if self.architecture == "conv" and (shape is None or min(shape[:2]) < 4):
            raise ValueError(
                "architecture='conv' needs an image_shape of at least 4 x 4 pixels, but it is "
                f"{shape!r}: set image_shape, or use architecture='dense'."
            )
