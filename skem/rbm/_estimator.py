"""BernoulliRBMCD: a restricted Boltzmann machine with a normalized likelihood.

This file is the estimator. ``_model`` holds the conditionals, the free energy and log Z,
``_training`` contrastive divergence, and ``_kernel`` the compiled loops of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Tags, check_array, gen_batches

from skem._base.estimator import (
    Interval,
    ReconstructMixin,
    StrOptions,
    check_is_fitted,
    warn,
    with_callbacks,
)
from skem._base.input import check_count, check_rows
from skem._base.minibatch import MinibatchEstimator, new_seed
from skem._base.streams import blockwise, rowwise
from skem._loop import Patience
from skem._rows.parts import LocalRows, working_dtype
from skem._threads import one_blas_thread, own_threads
from skem._typing import Array, Indices
from skem.rbm._model import (
    LogPartition,
    Params,
    ais_log_partition,
    draw,
    free_energy,
    hidden_probabilities,
    impute,
    log_partition,
    pseudo_log_likelihood,
    visible_probabilities,
    walk,
)
from skem.rbm._rows import dense, density, filled, mean_of, span
from skem.rbm._training import (
    Options,
    Purpose,
    State,
    Training,
    Workspace,
    compiled_workspaces,
    epoch,
    generator,
    initial_state,
    resumed_state,
    validation_score,
)

# Machines with at most this number of hidden units stay stable at four times the step size.
FEW_HIDDEN = 32
ROWS = 2000  # rows per block: processing all rows at once would take too much memory
# Compiled loops are used if a fit needs more multiplications than MIN_FAST. They skip visible
# units that are 0 if the density is at most MAX_DENSITY and there are at least MIN_SPARSE
# hidden units.
MIN_FAST, MAX_DENSITY, MIN_SPARSE = 1e11, 0.25, 128
MAX_REVERSE = 400  # largest number of rows to anneal from
N_BURN = 10  # Gibbs steps from given rows to samples of the model
N_FILL = 20  # mean-field steps that fill missing values for transform


class BernoulliRBMCD(ReconstructMixin, MinibatchEstimator):
    """A restricted Boltzmann machine of binary units, with a normalized likelihood.

    Each hidden unit is connected to each visible unit. Units of one layer are not connected:

    .. math::

        p(v, h) = \\exp(b^\\top v + c^\\top h + v^\\top W h) / Z,
        \\quad v \\in \\{0, 1\\}^D, \\; h \\in \\{0, 1\\}^H.

    The machine is fitted by contrastive divergence [1]_. The defaults reach a higher
    likelihood sooner: persistent chains [2]_, the centered gradient [3]_, a step size that
    falls to 0, and averaged weights.

    Parameters
    ----------
    n_components : int, default=256
        The number of hidden units H.
    learning_rate : "auto" or float, default="auto"
        The initial step size. "auto" is 0.4 for up to 32 hidden units and 0.1 for more.
    batch_size : "auto" or int, default="auto"
        Number of rows in a minibatch, and number of persistent chains. "auto" is the number
        of rows divided by 600, at least 10 and at most 100. Small data need many small steps.
    n_iter : int, default=10
        Number of passes over the rows.
    verbose : int, default=0
        1 prints a line after each pass, 10 after every tenth pass.
    random_state : int, RandomState or None, default=None
        Seed of the initial weights, the order of the rows and the states of the units.
    algorithm : {"pcd", "cd"}, default="pcd"
        Whether Gibbs chains continue from update to update ("pcd"), or start from the data
        in each update ("cd").
    n_gibbs_steps : int, default=1
        Number k of Gibbs steps in an update of CD-k or PCD-k.
    centered : bool, default=True
        Whether the gradient is centered at the means of the units.
    schedule : {"linear", "constant"}, default="linear"
        The step size during ``fit``: "linear" falls to 0, "constant" does not change.
        ``partial_fit`` always uses a constant step size.
    weight_decay : float, default=0.0
        Strength of weight decay: each update shrinks the weights by the share
        ``learning_rate * weight_decay``.
    early_stopping : bool, default=False
        Whether ``fit`` holds out validation rows and scores their pseudo-log-likelihood after
        each pass. It stops when the score no longer rises, and restores the best weights.
    validation_fraction : float, default=0.1
        The share of the rows that ``early_stopping`` holds out.
    n_iter_no_change : int, default=5
        Number of passes without a rise of at least ``tol`` after which ``fit`` stops.
    tol : float, default=0.01
        The smallest rise of the validation score that counts, in nats (units of natural
        logarithm) per row.
    n_jobs : int or None, default=None
        Number of threads; at most 2 are used. A second thread helps with batches of 50 rows
        or more, and needs the extra ``fast``. None means 1, except inside a
        ``joblib.parallel_config``.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        The weights W'. The weights and the biases are averages over the last updates.
    intercept_hidden_ : ndarray of shape (n_components,)
        The biases c of the hidden units.
    intercept_visible_ : ndarray of shape (n_features,)
        The biases b of the visible units.
    h_samples_ : ndarray of shape (n_chains, n_components)
        The states of the hidden units in the persistent chains.
    n_iter_ : int
        Number of passes over the rows.
    validation_scores_ : list of float
        With ``early_stopping``, an estimate of the mean pseudo-log-likelihood of the
        validation rows after each pass, in nats. Otherwise the list is empty.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if X had names.

    Raises
    ------
    ValueError
        If the data or the parameters are inconsistent; the message names them.

    See Also
    --------
    sklearn.neural_network.BernoulliRBM : RBM fitted by one-step persistent CD.

    Notes
    -----
    X must hold probabilities; values outside [0, 1] are clipped, with a warning. NaN marks a
    missing value. During training, the machine fills missing values by mean field.

    References
    ----------
    .. [1] G. E. Hinton, "Training products of experts by minimizing contrastive
       divergence", Neural Computation 14, 2002.
    .. [2] T. Tieleman, "Training restricted Boltzmann machines using approximations to the
       likelihood gradient", ICML 2008.
    .. [3] J. Melchior, A. Fischer and L. Wiskott, "How to center deep Boltzmann machines",
       Journal of Machine Learning Research 17, 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import BernoulliRBMCD
    >>> X = (load_digits().data > 7).astype(float)
    >>> model = BernoulliRBMCD(n_components=16, n_iter=20, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 16)
    >>> model.log_partition().method
    'exact'
    >>> model.score(X) > -20  # nats per row; independent pixels have about -25
    True
    """

    _fitted_name = "components_"
    _log_partition: dict[str, LogPartition]

    _parameter_constraints: dict[str, Any] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
        "algorithm": [StrOptions({"pcd", "cd"})],
        "n_gibbs_steps": [Interval(Integral, 1, None, closed="left")],
        "centered": ["boolean"],
        "schedule": [StrOptions({"linear", "constant"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        n_components: int = 256,
        *,
        learning_rate: Literal["auto"] | float = "auto",
        batch_size: Literal["auto"] | int = "auto",
        n_iter: int = 10,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
        algorithm: Literal["pcd", "cd"] = "pcd",
        n_gibbs_steps: int = 1,
        centered: bool = True,
        schedule: Literal["linear", "constant"] = "linear",
        weight_decay: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        tol: float = 0.01,
        n_jobs: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.verbose = verbose
        self.random_state = random_state
        self.algorithm = algorithm
        self.n_gibbs_steps = n_gibbs_steps
        self.centered = centered
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.n_jobs = n_jobs

    # -- fitting --------------------------------------------------------------------------

    @with_callbacks
    def fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the weights and the biases.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows, with values between 0 and 1; NaN marks a missing value. Memory maps, zarr
            and HDF5 are read batch by batch.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        BernoulliRBMCD
            The fitted estimator.
        """
        with one_blas_thread():
            self._fit(X, sample_weight)
        return self

    @blockwise
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Continue training with one pass over these rows, at a constant step size.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows. The blocks of a dask array or data frame are used in their order, one at
            a time.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        BernoulliRBMCD
            The updated estimator.
        """
        with one_blas_thread():
            self._partial_fit(X, sample_weight)
        return self

    def _max_passes(self, n_rows: int) -> int:
        return int(self.n_iter)

    def _split_generator(self, seed: int) -> np.random.Generator:
        return generator(Purpose.VALIDATION, seed)

    def _start(
        self, rows: LocalRows, chosen: Indices, seed: int, resume: bool, n_passes: int | None
    ) -> Training:
        n_chains = self._batch_size(len(chosen))
        if resume:
            state, dtype = self._resumed_state(), working_dtype(self.components_)
        else:
            # partial_fit keeps the full number of chains: later batches may have more rows
            if n_passes is not None:
                n_chains = min(n_chains, len(chosen))
            state = initial_state(mean_of(rows), self.n_components, n_chains, seed)
            dtype = rows.working_dtype
        workspace = self._workspaces(state, rows, seed, n_passes or 1)
        return Training(state, seed, dtype, workspace, self.n_iter_ if resume else 0)

    def _batch_size(self, n_rows: int) -> int:
        if self.batch_size == "auto":
            return min(100, max(10, n_rows // 600))
        return int(self.batch_size)

    def _workspaces(
        self, state: State, rows: LocalRows, seed: int, n_iter: int
    ) -> Callable[[int], Workspace]:
        """Return a function from batch size to workspace; large fits use compiled ones."""
        options = Options(
            self.algorithm == "pcd", self.n_gibbs_steps, self.centered, self.weight_decay
        )
        n_products = 2 * self.n_gibbs_steps + 3
        work = n_iter * rows.shape[0] * state.params.weights.size * n_products
        if work < MIN_FAST or find_spec("numba") is None:
            return cache(lambda n_rows: Workspace(state, n_rows, options, seed))
        sparse = self.n_components >= MIN_SPARSE and density(rows) <= MAX_DENSITY
        return compiled_workspaces(state, options, seed, sparse, own_threads(self.n_jobs))

    def _pass(
        self, training: Training, rows: LocalRows, chosen: Indices, i: int | None
    ) -> float:
        auto = 0.4 if self.n_components <= FEW_HIDDEN else 0.1
        first = auto if self.learning_rate == "auto" else float(self.learning_rate)
        size = self._batch_size(len(chosen))
        n_updates = self.n_iter * -(-len(chosen) // size)
        falls = i is not None and self.schedule == "linear"

        def rate(step: int) -> float:
            return first * (1 - step / n_updates) if falls else first

        epoch(training, rows, chosen, size, rate)
        return 0.0  # computing the likelihood would take longer than the pass

    def _validation_score(self, training: Training, rows: LocalRows, chosen: Indices) -> float:
        return validation_score(training, rows, chosen)

    def _line(self, training: Training, patience: Patience | None) -> str:
        if patience is None:
            return f"{training.state.n_updates} updates"
        return f"validation score {patience.scores[-1]:.3f} nats per sample"

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
            "_visible_mean": state.visible_mean,
            "_hidden_mean": state.hidden_mean,
            "_n_updates": state.n_updates,
            "_log_partition": {},
        }

    def _resumed_state(self) -> State:
        """Return a copy of the state of training."""
        if self.n_components != len(self.components_):
            raise ValueError(
                f"n_components={self.n_components}, but the fitted machine has "
                f"{len(self.components_)} hidden units: restore n_components, or call fit to "
                "start from scratch."
            )
        others = self.h_samples_.astype(np.float32), self._visible_mean, self._hidden_mean
        average = self._params().astype(np.float32)
        return resumed_state(Params(**self._last), average, *others, n_updates=self._n_updates)

    # -- input ----------------------------------------------------------------------------

    def _check_rows(
        self, X: Any, sample_weight: Any = None, *, reset: bool, quiet: bool = False
    ) -> LocalRows:
        rows: Any = check_rows(
            self, X, sample_weight, reset=reset, random_order=True, accept_sparse="csr"
        )
        low, high = span(rows)
        inside = low >= 0 and high <= 1
        if not (inside or quiet):
            warn(
                f"X has values between {low:.3g} and {high:.3g}; values outside [0, 1] are "
                "clipped. Scale X to [0, 1], for example with MinMaxScaler.",
                UserWarning,
            )
        return rows if inside else rows.clip(0, 1)

    def _in_memory(self, X: Any) -> Any:
        check_is_fitted(self)
        return self._check_rows(X, reset=False, quiet=True).given

    def _params(self) -> Params:
        return Params(self.components_.T, self.intercept_visible_, self.intercept_hidden_)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _blocks(self, X: ArrayLike) -> Iterator[Array]:
        """Yield blocks of complete rows, in the dtype of X."""
        rows = self._in_memory(X)
        dtype = working_dtype(rows)
        params = self._params().astype(dtype)
        mean = self._visible_mean.astype(dtype)
        for part in gen_batches(rows.shape[0], ROWS):
            yield filled(dense(rows[part], dtype), params, mean, N_FILL)

    # -- verbs ----------------------------------------------------------------------------

    @rowwise
    def transform(self, X: ArrayLike) -> Array:
        """Return the probabilities of the hidden units.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows; missing values are filled by mean field first.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            The probabilities P(h = 1 | v).
        """
        return np.concatenate(
            [hidden_probabilities(self._params().astype(v.dtype), v) for v in self._blocks(X)]
        )

    @rowwise
    def inverse_transform(self, X: ArrayLike) -> Array:
        """Return the probabilities of the visible units given the hidden ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            States or probabilities of the hidden units.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The probabilities P(v = 1 | h).
        """
        check_is_fitted(self)
        h = check_array(X, dtype=[np.float64, np.float32])
        if h.shape[1] != len(self.components_):
            raise ValueError(
                f"X has shape {h.shape}, but the model has {len(self.components_)} hidden "
                "units: pass one column for each hidden unit."
            )
        return visible_probabilities(self._params().astype(h.dtype), h)

    @rowwise
    def free_energy(self, X: ArrayLike) -> Array:
        """Return the free energy of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows; missing values are filled by mean field first.

        Returns
        -------
        ndarray of shape (n_samples,)
            The free energies F(v) = -log sum_h exp(b'v + c'h + v'W h), in nats.
        """
        check_is_fitted(self)
        params = self._params().astype(float)
        return np.concatenate(
            [free_energy(params, v.astype(float, copy=False)) for v in self._blocks(X)]
        )

    def log_partition(self, X: ArrayLike | None = None) -> LogPartition:
        """Return the log-partition function log Z, which normalizes the likelihood.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), default=None
            Rows for reverse annealing, such as training rows. They should resemble samples of
            the model. Reverse annealing tends to overestimate log Z; the default annealing
            tends to underestimate it.

        Returns
        -------
        LogPartition
            The ``value`` in nats, its ``standard_error`` and the ``method``. The method is
            "exact" if the smaller layer has at most 20 units, which allows enumeration of
            its states. Otherwise it is "ais": annealed importance sampling with 400 chains
            over 1000 temperatures. If X is given, it is "reverse ais".
        """
        check_is_fitted(self)
        params, rng = self._params(), np.random.Generator(np.random.SFC64(0))
        mean: Array = np.clip(self._visible_mean, 1e-3, 1 - 1e-3)
        base = np.log(mean / (1 - mean))
        with one_blas_thread():
            if X is not None:
                start = self.gibbs(X, N_BURN, 0)
                start = start[:: -(-len(start) // MAX_REVERSE)]
                if len(start) < 2:
                    raise ValueError(
                        "X has one row, but a standard error needs at least two: pass more "
                        "rows, hundreds if possible."
                    )
                return ais_log_partition(params, base, rng, start=start)
            kept = self._log_partition  # copies of the estimator share it
            if "value" not in kept:
                kept["value"] = log_partition(params, base, rng)
        return kept["value"]

    @rowwise
    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows; missing values are filled by mean field first.

        Returns
        -------
        ndarray of shape (n_samples,)
            The log-probabilities log p(v) = -F(v) - log Z, in nats, with log Z from
            :meth:`log_partition`.
        """
        return -self.free_energy(X) - self.log_partition().value

    @rowwise
    def pseudo_log_likelihood(self, X: ArrayLike) -> Array:
        """Return the pseudo-log-likelihood of each row, which needs no log Z.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows; their values are rounded to 0 and 1.

        Returns
        -------
        ndarray of shape (n_samples,)
            The sums over the features i of log p(v_i | all other features), in nats.
        """
        check_is_fitted(self)
        params = self._params().astype(float)
        return np.concatenate(
            [pseudo_log_likelihood(params, np.rint(v).astype(float)) for v in self._blocks(X)]
        )

    def gibbs(
        self,
        X: ArrayLike,
        n_steps: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> Array:
        """Run Gibbs chains from the rows of X and return the final rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows from which the chains start.
        n_steps : int, default=1
            Number of Gibbs steps. Each step draws the hidden and then the visible units.
        random_state : int, RandomState or None, default=None
            Seed of this call; None gives new draws at each call.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The visible units, 0 or 1.
        """
        check_count("n_steps", n_steps, minimum=0)
        rng = _generator(random_state)
        return np.concatenate(
            [walk(self._params().astype(v.dtype), v, n_steps, rng) for v in self._blocks(X)]
        )

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
        *,
        n_steps: int = 1000,
    ) -> Array:
        """Draw rows from the model, with a separate Gibbs chain for each row.

        Parameters
        ----------
        n_samples : int, default=1
            The number of rows to draw.
        random_state : int, RandomState or None, default=None
            Seed of this call; None means that of the estimator.
        n_steps : int, default=1000
            Number of Gibbs steps of each chain. Chains start from independent units with the
            means of the training data.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The visible units, 0 or 1.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        rng = _generator(self._seed_of(random_state))
        mean = self._visible_mean.astype(self.components_.dtype)
        start = draw(np.broadcast_to(mean, (int(n_samples), len(mean))), rng)
        check_count("n_steps", n_steps, minimum=0)
        return walk(self._params(), start, n_steps, rng)

    @rowwise
    def impute(
        self,
        X: ArrayLike,
        *,
        n_chains: int = 5,
        n_steps: int = 100,
        random_state: int | np.random.RandomState | None = 0,
    ) -> Array:
        """Return X with missing values replaced by their conditional expectation.

        Gibbs chains start from the means of the training data and keep observed values fixed.
        The expectation is the average probability of the visible units over the second half
        of the steps and over all chains. For files and dask collections, the random numbers
        start again from the seed in each part or block.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        n_chains : int, default=5
            Number of chains for each row.
        n_steps : int, default=100
            Number of Gibbs steps of each chain.
        random_state : int, RandomState or None, default=0
            Seed of the chains.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The complete rows.
        """
        check_is_fitted(self)
        check_count("n_chains", n_chains)
        check_count("n_steps", n_steps)
        rows, rng = self._in_memory(X), _generator(random_state)
        dtype = working_dtype(rows)
        params, mean = self._params().astype(dtype), self._visible_mean.astype(dtype)
        out = dense(rows, dtype).copy()
        incomplete = np.flatnonzero(np.isnan(out).any(1))
        for part in gen_batches(len(incomplete), ROWS) if len(incomplete) else ():
            some = incomplete[part]
            out[some] = impute(params, out[some], mean, rng, n_chains=n_chains, n_steps=n_steps)
        return out


def _generator(random_state: Any) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(new_seed(random_state)))
