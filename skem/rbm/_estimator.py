"""BernoulliRBMCD: a restricted Boltzmann machine with a normalized likelihood.

This file is the estimator. ``_model`` holds the conditionals, the free energy and log Z,
``_training`` contrastive divergence, and ``_kernel`` the compiled loops of training.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.neural_network import BernoulliRBM
from sklearn.utils import gen_batches

from skem._base.estimator import (
    Interval,
    ReconstructMixin,
    StrOptions,
    check_is_fitted,
    warn,
    with_callbacks,
)
from skem._base.export import as_fitted
from skem._base.input import check_codes, check_count
from skem._base.minibatch import new_seed
from skem._base.streams import blockwise, rowwise
from skem._rows.parts import working_dtype
from skem._threads import one_blas_thread
from skem._typing import Array
from skem.rbm._machine import N_FILL, ROWS, WEIGHTS, Machine, key_of
from skem.rbm._model import (
    LogPartition,
    ais_log_partition,
    draw,
    hidden_probabilities,
    log_partition,
    mean_field,
    pseudo_log_likelihood,
    visible_probabilities,
    walk,
)
from skem.rbm._observed import impute, observed_free_energy
from skem.rbm._rows import dense

MAX_REVERSE = 400  # largest number of rows to anneal from
MAX_ERROR = 0.5  # standard error of log Z from which its estimate is in doubt
N_BURN = 10  # Gibbs steps from given rows to samples of the model


def _warn_of_bad_mixing(found: LogPartition) -> None:
    if found.standard_error > MAX_ERROR:
        warn(
            f"log Z is {found.value:.4g} with a standard error of at least "
            f"{found.standard_error:.2g} nats: the chains that estimate it do not mix, and "
            "likelihoods are probably too high. Compare log_partition(X), which errs on the "
            "other side."
        )


class BernoulliRBMCD(ReconstructMixin, Machine):
    """A restricted Boltzmann machine of binary units, with a normalized likelihood.

    Each hidden unit is connected to each visible unit. Units of one layer are not connected:

    .. math::

        p(v, h) = \\exp(b^\\top v + c^\\top h + v^\\top W h) / Z,
        \\quad v \\in \\{0, 1\\}^D, \\; h \\in \\{0, 1\\}^H.

    The RBM is fitted by contrastive divergence [1]_. The defaults reach a higher
    likelihood sooner: persistent chains [2]_, the centered gradient [3]_, a step size that
    falls to 0, and averaged weights. By default, step size, number of passes and weight
    decay are computed from the rows.

    Parameters
    ----------
    n_components : int, default=256
        The number of hidden units H.
    learning_rate : "auto" or float, default="auto"
        The initial step size. "auto" is 120 / (variance * sqrt(H)), at most 0.4, with the
        variance of a row: the sum of m (1 - m) over features of mean m. It is smaller if few
        rows are fitted in the default number of passes. It is at most 0.002 for gray rows whose
        features vary less together than independent binary units would, because an RBM has
        nothing to learn from them. Without ``centered`` it is a quarter of that.
    batch_size : "auto" or int, default="auto"
        Number of rows in a minibatch. "auto" is the number of rows divided by 600, at least 10
        and at most 100. Small data need many small steps. There are as many persistent chains,
        but at least 50: fewer miss some of the states that the RBM makes probable.
    n_iter : "auto" or int, default="auto"
        Number of passes over the rows. "auto" is at least 10, and enough for 100 sqrt(n)
        updates for n rows, with at most 6000 updates.
    verbose : int, default=0
        1 prints a line after each pass, 10 after every tenth pass: the number of the pass, how
        many there are at most, and the pseudo-log-likelihood of some rows, or with
        ``early_stopping`` the validation score.
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
    weight_decay : "auto" or float, default="auto"
        Strength of weight decay: each update shrinks the weights by the share
        ``learning_rate * weight_decay``. With ``centered``, the biases compensate. "auto" is
        0.03 variance / n for n rows, between 0.0001 and 0.005; in ``partial_fit`` 0.0001.
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
    X must hold probabilities; values outside [0, 1] are clipped, with a warning, except for
    rounding. NaN marks a missing value. During training, missing values are drawn by Gibbs
    sampling, which takes one bit of memory for each value of X.

    Weights may be set by hand: with ``components_``, ``intercept_hidden_`` and
    ``intercept_visible_``, all methods work without a fit.

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

    _log_partition: dict[str, LogPartition]

    _parameter_constraints: dict[str, Any] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_iter": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
        "algorithm": [StrOptions({"pcd", "cd"})],
        "n_gibbs_steps": [Interval(Integral, 1, None, closed="left")],
        "centered": ["boolean"],
        "schedule": [StrOptions({"linear", "constant"})],
        "weight_decay": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
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
        n_iter: Literal["auto"] | int = "auto",
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
        algorithm: Literal["pcd", "cd"] = "pcd",
        n_gibbs_steps: int = 1,
        centered: bool = True,
        schedule: Literal["linear", "constant"] = "linear",
        weight_decay: Literal["auto"] | float = "auto",
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

    def to_sklearn(self) -> BernoulliRBM:
        """Return scikit-learn's fitted ``BernoulliRBM`` with the same weights.

        It is for tools that know scikit-learn's class only, such as converters to ONNX. Its
        ``transform`` returns the same probabilities for complete rows. It refuses missing
        values, and its ``score_samples`` is a pseudo-likelihood.

        Returns
        -------
        sklearn.neural_network.BernoulliRBM
            The fitted estimator; later changes of one do not change the other.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_digits
        >>> from skem import BernoulliRBMCD
        >>> X = (load_digits().data > 7).astype(float)
        >>> model = BernoulliRBMCD(n_components=8, n_iter=5, random_state=0).fit(X)
        >>> np.allclose(model.to_sklearn().transform(X), model.transform(X))
        True
        """
        params = self._params()
        n_features, n_components = params.weights.shape
        values = {
            "components_": params.weights.T.copy(),
            "intercept_hidden_": params.hidden.copy(),
            "intercept_visible_": params.visible.copy(),
            "n_features_in_": n_features,
        }
        parameters = {"n_components": n_components}
        return as_fitted(BernoulliRBM, self, parameters, values, ["h_samples_"])

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
        params = self._params()
        h = check_codes(X, len(params.hidden), "hidden unit")
        return visible_probabilities(params.astype(h.dtype), h)

    @rowwise
    def free_energy(self, X: ArrayLike) -> Array:
        """Return the free energy of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows; missing values are summed over, as the hidden units are.

        Returns
        -------
        ndarray of shape (n_samples,)
            The free energies F(v) = -log sum_h exp(b'v + c'h + v'W h), in nats. The sum also
            runs over the missing units of a row. It is exact if enumeration takes at most about
            0.02 seconds for a row, and otherwise estimated by annealed importance sampling with
            100 chains, whose random numbers are the same for all rows.
        """
        params = self._params().astype(float)
        mean = self._mean(params)
        out = np.concatenate(
            [
                observed_free_energy(params, v.astype(float, copy=False), mean)
                for v in self._blocks(X, fill=False)
            ]
        )
        unknown = np.isnan(out)
        if unknown.any():
            out[unknown] = -self.log_partition().value
        return out

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
        params, rng = self._params(), np.random.Generator(np.random.SFC64(0))
        mean: Array = np.clip(self._mean(params), 1e-3, 1 - 1e-3)
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
            # Copies of the estimator share the dict. The key changes with the weights.
            if not hasattr(self, "_log_partition"):
                self._log_partition = {}
            kept = self._log_partition
            key = key_of(params)
            if key not in kept:
                kept.clear()
                kept[key] = log_partition(params, base, rng)
                _warn_of_bad_mixing(kept[key])
        return kept[key]

    @rowwise
    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples,)
            The log-probabilities log p(v) = -F(v) - log Z of the observed values, in nats, with
            F from :meth:`free_energy` and log Z from :meth:`log_partition`. That of a row
            with nothing observed is 0.
        """
        return -self.free_energy(X) - self.log_partition().value

    @rowwise
    def pseudo_log_likelihood(self, X: ArrayLike) -> Array:
        """Return the pseudo-log-likelihood of each row, which needs no log Z.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows; their values are rounded to 0 and 1. Mean field fills missing values.

        Returns
        -------
        ndarray of shape (n_samples,)
            The sums over the observed features i of log p(v_i | all other features), in nats.
        """
        params = self._params().astype(float)
        mean = self._mean(params)
        out = []
        for v in self._blocks(X, fill=False):
            filled = np.rint(mean_field(params, v.astype(float), mean, N_FILL))
            out.append(pseudo_log_likelihood(params, filled, observed=~np.isnan(v)))
        return np.concatenate(out)

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
        params = self._params()
        check_count("n_samples", n_samples)
        check_count("n_steps", n_steps, minimum=0)
        rng = _generator(self._seed_of(random_state))
        mean = self._mean(params).astype(params.weights.dtype)
        start = draw(np.broadcast_to(mean, (int(n_samples), len(mean))), rng)
        return walk(params, start, n_steps, rng)

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

        The expectation is exact if few units are missing or hidden, so that enumeration of
        their states takes at most about 0.02 seconds for a row. Otherwise it is the average
        probability of the missing units over Gibbs chains that keep observed values fixed. The
        chains start from independent units with the means of mean field, are annealed to the
        RBM in the first half of the steps, and are averaged over the second half. Their
        random numbers depend on the seed and on the values of the row, not on other rows.

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
            The complete rows; observed values are returned as they are.
        """
        check_is_fitted(self, WEIGHTS)
        check_count("n_chains", n_chains)
        check_count("n_steps", n_steps)
        seed = new_seed(random_state)
        rows = self._check_rows(X, reset=False, clip=False).given
        dtype = working_dtype(rows)
        params = self._params().astype(dtype)
        mean = self._mean(params).astype(dtype)
        out = dense(rows, dtype).copy()
        incomplete = np.flatnonzero(np.isnan(out).any(1))
        for part in gen_batches(len(incomplete), ROWS) if len(incomplete) else ():
            index = incomplete[part]
            given = out[index]
            filled = impute(
                params, np.clip(given, 0, 1), mean, seed, n_chains=n_chains, n_steps=n_steps
            )
            out[index] = np.where(np.isnan(given), filled, given)
        return out


def _generator(random_state: Any) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(new_seed(random_state)))
