"""scikit-learn glue that the estimators of torch networks share. torch is imported late."""

import math
from importlib.util import find_spec
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import Tags, check_array, gen_batches

from skem._base.estimator import (
    MeanScoreMixin,
    check_weights,
    hooks,
    validate_data,
    warn_if_interrupted,
)
from skem._base.streams import as_given, check_streamed, is_streamed, outline, refuse_dask
from skem._loop import DivergenceError, Run, iterate
from skem._rows.parts import collect

Array = NDArray[np.floating]

MIN_SHARE = 1e-30  # of the largest weight, below which a row is not there
MIN_FAST = 3e8  # values read in training, from which numba is worth its import


def numba_pays(n_values: int) -> bool:
    """Whether so many values, read in training, are worth the import of numba."""
    return n_values >= MIN_FAST and find_spec("numba") is not None


def _any_nan(rows: Any) -> bool:
    return rows.dtype.kind == "f" and any(collect(_has_nan, rows))


def _has_nan(rows: Any) -> bool:
    rows = np.asarray(rows)
    return any(np.isnan(rows[part]).any() for part in gen_batches(len(rows), 1000))


def _is_size(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) > 0


class NetworkEstimator(
    MeanScoreMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    CallbackSupportMixin,
    DensityMixin,
    BaseEstimator,
):
    """What estimators of networks trained by minibatches have in common.

    A subclass has the parameters ``image_shape``, ``architecture``, ``hidden_layer_sizes``,
    ``batch_size``, ``max_iter``, ``learning_rate_init``, ``device``, ``warm_start`` and
    ``verbose``, says in ``_allow_nan`` whether NaN is allowed, and has the methods

    - ``_start(rows, weight, going_on, n_passes)``: what is trained: a training;
    - ``_step(training, rows, weight, chosen, i)``: pass i over the chosen rows, or that of
      ``partial_fit`` if i is None; returns an objective;
    - ``_line(training)``: what to print of the last pass;
    - ``_attributes(training, going_on)``: the fitted attributes as a dict, ``_weights`` and an
      empty ``_cache`` among them.
    """

    _allow_nan = True

    # -- fitting --------------------------------------------------------------------------

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None) -> tuple[Any, Run]:
        """All passes over X; inside of ``with_callbacks``."""
        self._validate_params()
        going_on = self.warm_start and self.__sklearn_is_fitted__()
        rows, weight, training = self._begin(X, sample_weight, going_on, self.max_iter)
        root = self._init_callback_context(max_subtasks=self.max_iter)
        root.call_on_fit_task_begin(estimator=self, X=as_given(rows))
        run = self._run(training, rows, weight, going_on)
        self._keep(training, X, going_on)
        root.call_on_fit_task_end(
            estimator=self, X=as_given(rows), reconstruction_attributes={}
        )
        return training, run

    def _partial_fit(self, X: ArrayLike, sample_weight: ArrayLike | None) -> None:
        """One more pass over X."""
        self._validate_params()
        going_on = self.__sklearn_is_fitted__()
        rows, weight, training = self._begin(X, sample_weight, going_on, 1)
        try:
            self._step(training, rows, weight, np.flatnonzero(weight), None)
        except FloatingPointError as error:
            raise self._diverged(error) from error
        self._keep(training, X, going_on)

    def _begin(
        self, X: ArrayLike, sample_weight: ArrayLike | None, going_on: bool, n_passes: int
    ) -> tuple[Array, Array, Any]:
        if find_spec("torch") is None:
            raise ImportError(f"{type(self).__name__} needs torch: pip install 'skem[torch]'.")
        rows = self._check_rows(X, reset=not going_on)
        weight: Array = check_weights(sample_weight, rows)
        weight = weight / weight.max()
        weight[weight < MIN_SHARE] = 0
        self._check_shapes(rows.shape[1])
        return rows, weight, self._start(rows, weight, going_on, n_passes)

    def _run(self, training: Any, rows: Array, weight: Array, going_on: bool) -> Run:
        """Passes until ``max_iter`` or until ``_follow`` or a callback says stop."""
        chosen = self._set_aside(training, rows, weight, going_on)

        def step(training: Any) -> tuple[Any, float]:
            i = training.n_passes
            return training, self._step(training, rows, weight, chosen, i)

        calls = hooks(
            self,
            rows,
            int(self.verbose),
            lambda run: self._line(training),
            lambda run: self._attributes(training, going_on),
            lambda run: self._follow(training, rows, weight),
        )
        try:
            run = iterate(step, training, max_iter=self.max_iter, **calls)
        except DivergenceError as error:
            raise self._diverged(error) from error
        if run.interrupted and not training.is_finite():
            raise self._diverged(FloatingPointError("weights became infinite"))
        warn_if_interrupted(self, run, stacklevel=6)
        return run

    def _set_aside(
        self, training: Any, rows: Array, weight: Array, going_on: bool
    ) -> NDArray[np.intp]:
        """The indices of rows to learn from; others may be kept for ``_follow``."""
        return np.flatnonzero(weight)

    def _follow(self, training: Any, rows: Array, weight: Array) -> bool:
        """Whether to stop after a pass."""
        return False

    def _diverged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{error}: lower learning_rate_init={self.learning_rate_init!r}, or bring the "
            "features of X to similar scales."
        )

    def _keep(self, training: Any, X: Any, going_on: bool) -> None:
        """Set the fitted attributes, once nothing can fail any more."""
        attributes = self._attributes(training, going_on)
        if not going_on:
            X = np.asarray(X) if isinstance(X, list | tuple) else X
            validate_data(self, outline(X), reset=True, skip_check_array=True)
        for name, value in attributes.items():
            setattr(self, name, value)

    def _n_batch(self, n_rows: int) -> int:
        """Rows of a minibatch."""
        if self.batch_size == "auto":
            return min(128, max(16, n_rows // 100))
        return min(self.batch_size, n_rows)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "_cache": {}} if "_cache" in state else state

    # -- input ----------------------------------------------------------------------------

    def _check_rows(self, X: Any, *, reset: bool) -> Any:
        """X as rows, with stacks of images flattened."""
        refuse_dask(self, X)
        if isinstance(X, list | tuple):
            X = np.asarray(X)
        shape = tuple(getattr(X, "shape", ()))
        if len(shape) in (3, 4):
            own = () if self.image_shape is None else tuple(self.image_shape)
            if own not in (shape[1:], (*shape[1:], 1)):
                raise ValueError(
                    f"X holds images of shape {shape[1:]}, but image_shape is "
                    f"{self.image_shape!r}: set image_shape={shape[1:]!r}."
                )
        if is_streamed(X):
            return self._complete(check_streamed(self, X, reset=reset, images=True))
        options: dict[str, Any] = {
            "dtype": [np.float64, np.float32],
            "ensure_all_finite": "allow-nan",
        }
        if len(shape) in (3, 4):
            X = X.reshape(shape[0], math.prod(shape[1:]))
        if reset:
            rows = check_array(X, estimator=self, input_name="X", **options)
        else:
            rows = validate_data(self, X, reset=False, **options)
        return self._complete(rows)

    def _complete(self, rows: Any) -> Any:
        """The rows, unless NaN is among them and may not be."""
        if not self._allow_nan and _any_nan(rows):
            raise ValueError(
                f"X contains NaN, which {type(self).__name__} does not take: fill it first, by "
                "LatentImputer for example."
            )
        return rows

    def _check_shapes(self, n_features: int) -> None:
        """Refuse sizes of layers and images that cannot be."""
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

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_weights")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._allow_nan
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
