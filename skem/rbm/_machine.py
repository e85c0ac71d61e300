"""How the estimator of the RBM trains, and what it keeps of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from hashlib import blake2b
from typing import Any

import numpy as np
from sklearn.utils import Tags, gen_batches

from skem._base.estimator import check_is_fitted, warn
from skem._base.input import check_rows, in_unit_interval
from skem._base.minibatch import MinibatchEstimator
from skem._compiled import has_numba
from skem._loop import Patience
from skem._rows.parts import LocalRows, working_dtype
from skem._threads import own_threads
from skem._typing import Array, Indices
from skem.rbm._defaults import batch_size, n_chains, n_passes, plan
from skem.rbm._model import Params, hidden_probabilities, mean_field
from skem.rbm._rows import dense, density, mean_of, span
from skem.rbm._training import (
    VALIDATION_ROWS,
    Holes,
    Options,
    Purpose,
    State,
    Training,
    Workspace,
    compiled_workspaces,
    epoch,
    generator,
    initial_state,
    random_chains,
    resumed_state,
    validation_score,
)

ROWS = 2000  # rows per block: processing all rows at once would take too much memory
# Compiled loops are used if a fit needs more multiplications than MIN_FAST. They skip visible
# units that are 0 if the density is at most MAX_DENSITY and there are at least MIN_SPARSE
# hidden units.
MIN_FAST, MAX_DENSITY, MIN_SPARSE = 1e11, 0.25, 128
UNCENTERED_STEP = 0.25  # step size without centering, which bears smaller ones, by that with it
N_FILL = 20  # mean-field steps that fill missing values, and that find means of given weights
WEIGHTS = ["components_", "intercept_hidden_", "intercept_visible_"]


class Machine(MinibatchEstimator):
    """The training of ``BernoulliRBMCD``, and access to its fitted or hand-set weights."""

    _fitted_name = "components_"

    # -- training -------------------------------------------------------------------------

    def _max_passes(self, n_rows: int) -> int:
        if self.n_iter == "auto":
            return n_passes(n_rows, self._batch_size(n_rows))
        return int(self.n_iter)

    def _split_generator(self, seed: int) -> np.random.Generator:
        return generator(Purpose.VALIDATION, seed)

    def _start(
        self, rows: LocalRows, chosen: Indices, seed: int, resume: bool, passes: int | None
    ) -> Training:
        size = self._batch_size(len(chosen))
        if resume:
            state, dtype = self._resumed_state(size), working_dtype(self.components_)
            planned = plan(state.visible_mean, int(self.n_components))
        else:
            mean = mean_of(rows)
            planned = plan(
                mean,
                int(self.n_components),
                None if passes is None else rows,
                (passes or 1) * -(-len(chosen) // size),
                is_paced=self.n_iter == "auto",
            )
            state = initial_state(
                mean,
                int(self.n_components),
                n_chains(size),
                seed,
                planned.scale,
                planned.hidden_mean,
            )
            dtype = rows.working_dtype
        decay = planned.decay if self.weight_decay == "auto" else float(self.weight_decay)
        step = planned.step if self.centered else planned.step * UNCENTERED_STEP
        workspace = self._workspaces(state, rows, seed, passes or 1, decay)
        holes = Holes(rows.shape, seed)
        n_before = getattr(self, "n_iter_", 0) if resume else 0
        training = Training(state, seed, dtype, workspace, step, holes, n_before=n_before)
        if self.verbose:
            some = chosen[:: -(-len(chosen) // VALIDATION_ROWS)]
            training.watch = partial(validation_score, rows=rows, chosen=some)
        return training

    def _batch_size(self, n_rows: int) -> int:
        return batch_size(n_rows) if self.batch_size == "auto" else int(self.batch_size)

    def _workspaces(
        self, state: State, rows: LocalRows, seed: int, passes: int, decay: float
    ) -> Callable[[int], Workspace]:
        """Return a function from batch size to workspace; large fits use compiled ones."""
        options = Options(
            self.algorithm == "pcd", int(self.n_gibbs_steps), self.centered, decay
        )
        n_products = 2 * options.n_gibbs_steps + 3
        work = passes * rows.shape[0] * state.params.weights.size * n_products
        if work < MIN_FAST or not has_numba():
            return cache(lambda n_rows: Workspace(state, n_rows, options, seed))
        sparse = self.n_components >= MIN_SPARSE and density(rows) <= MAX_DENSITY
        return compiled_workspaces(state, options, seed, sparse, own_threads(self.n_jobs))

    def _pass(
        self, training: Training, rows: LocalRows, chosen: Indices, i: int | None
    ) -> float:
        first = training.step if self.learning_rate == "auto" else float(self.learning_rate)
        size = self._batch_size(len(chosen))
        n_updates = self._max_passes(rows.n_positive) * -(-len(chosen) // size)
        falls = i is not None and self.schedule == "linear"

        def rate(step: int) -> float:
            return first * (1 - step / n_updates) if falls else first

        epoch(training, rows, chosen, size, rate)
        return 0.0  # computing the likelihood would take longer than the pass

    def _validation_score(self, training: Training, rows: LocalRows, chosen: Indices) -> float:
        return validation_score(training, rows, chosen)

    def _line(self, training: Training, patience: Patience | None) -> str:
        if patience is not None:
            return f"validation score {patience.scores[-1]:.3f} nats per sample"
        score = training.watch(training) if training.watch else np.nan
        return f"pseudo-log-likelihood {score:.3f} nats per sample"

    def _diverged(self, error: Exception) -> ValueError:
        return ValueError(
            f"learning_rate={self.learning_rate!r} or weight_decay={self.weight_decay!r} "
            f"is too large: {error}. Use a smaller value."
        )

    def _attributes(
        self, training: Training, resume: bool, scores: list[float]
    ) -> dict[str, Any]:
        state, dtype = training.state, training.dtype
        average = state.average.astype(dtype)
        return {
            "components_": np.ascontiguousarray(average.weights.T),
            "intercept_hidden_": average.hidden,
            "intercept_visible_": average.visible,
            "h_samples_": state.chains.astype(dtype),
            "n_iter_": training.n_before + training.n_passes,
            "validation_scores_": scores,
            "_seed": training.seed,
            "_last": vars(state.params),
            "_key_of_last": key_of(average),
            "_visible_mean": state.visible_mean,
            "_hidden_mean": state.hidden_mean,
            "_n_updates": state.n_updates,
            "_log_partition": {},
        }

    def _resumed_state(self, size: int) -> State:
        """Return a copy of the state of training, or a new one for weights set by hand."""
        own = self._params()
        n_hidden = len(own.hidden)
        if self.n_components != n_hidden:
            raise ValueError(
                f"n_components={self.n_components}, but the fitted RBM has "
                f"{n_hidden} hidden units: restore n_components, or call fit to "
                "start from scratch."
            )
        average = own.astype(np.float32)
        mean = self._mean(own).astype(np.float32)
        if getattr(self, "_key_of_last", None) == key_of(own):
            others = self.h_samples_.astype(np.float32), mean, self._hidden_mean
            last = Params(**self._last)
            return resumed_state(last, average, *others, n_updates=self._n_updates)
        hidden = hidden_probabilities(average, mean[None])[0]
        chains = random_chains(n_chains(size), hidden, 0)
        return resumed_state(average, average, chains, mean, hidden)

    # -- weights --------------------------------------------------------------------------

    def _params(self) -> Params:
        """Return the fitted weights, or those that were set by hand."""
        check_is_fitted(self, WEIGHTS)
        W, hidden, visible = (np.asarray(getattr(self, name)) for name in WEIGHTS)
        if W.ndim != 2 or (hidden.shape, visible.shape) != (W.shape[:1], W.shape[1:]):
            raise ValueError(
                "components_, intercept_hidden_ and intercept_visible_ have the shapes "
                f"{W.shape}, {hidden.shape} and {visible.shape}, but they need "
                "(n_components, n_features), (n_components,) and (n_features,)."
            )
        return Params(W.T, visible, hidden).astype(working_dtype(W))

    def _mean(self, params: Params) -> Array:
        """Return the means of the training data, or of mean field if there are none."""
        n_visible = len(params.visible)
        kept: Array | None = getattr(self, "_visible_mean", None)
        if kept is not None and len(kept) == n_visible:
            return kept
        unknown = np.full((1, n_visible), np.nan, params.weights.dtype)
        return mean_field(params, unknown, np.full(n_visible, 0.5), N_FILL)[0]

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    # -- input ----------------------------------------------------------------------------

    def _check_rows(
        self, X: Any, sample_weight: Any = None, *, reset: bool, clip: bool = True
    ) -> LocalRows:
        rows: Any = check_rows(
            self, X, sample_weight, reset=reset, random_order=True, accept_sparse="csr"
        )
        if not reset and rows.shape[1] != np.shape(self.components_)[-1]:
            raise ValueError(
                f"X has {rows.shape[1]} features, but components_ has "
                f"{np.shape(self.components_)[-1]} columns: they must be equal."
            )
        low, high = span(rows)
        if low >= 0 and high <= 1:
            return rows
        if not in_unit_interval(low, high, rows.working_dtype):
            warn(
                f"X has values between {low:.3g} and {high:.3g}; values outside [0, 1] are "
                "clipped. Scale X to [0, 1], for example with MinMaxScaler.",
                UserWarning,
            )
        return rows.clip(0, 1) if clip else rows

    def _in_memory(self, X: Any) -> Any:
        check_is_fitted(self, WEIGHTS)
        return self._check_rows(X, reset=False).given

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _blocks(self, X: Any, *, fill: bool = True) -> Iterator[Array]:
        """Yield dense blocks of rows in the dtype of X; mean field fills missing values."""
        rows = self._in_memory(X)
        dtype = working_dtype(rows)
        params = self._params().astype(dtype)
        mean = self._mean(params).astype(dtype)
        for part in gen_batches(rows.shape[0], ROWS):
            v = dense(rows[part], dtype)
            yield mean_field(params, v, mean, N_FILL) if fill else v


def key_of(params: Params) -> str:
    """Return a digest of the weights, which changes when they are set by hand."""
    digest = blake2b(digest_size=16)
    for value in vars(params).values():
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
