"""LatentImputer: fill missing values with a latent-variable model.

``_default`` chooses the model if none is given, ``_inner`` asks it to fill rows, and
``_tables`` turns tables of mixed types into numbers and back.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import (
    BaseEstimator,
    MetaEstimatorMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    clone,
)
from sklearn.impute import MissingIndicator
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import has_fit_parameter

from skem._base.estimator import DocLinkMixin, check_is_fitted, check_names, keep_features
from skem._base.input import check_rows, check_weights
from skem._base.streams import check_outline, rowwise
from skem._rows import open_rows
from skem._rows.arrays import in_numpy
from skem._rows.parts import Rows, working_dtype
from skem._typing import AnyArray, Array, Mask
from skem.impute._default import choose_mixture
from skem.impute._inner import (
    can_draw,
    check_model,
    core_of,
    draw,
    impute,
    suit_rows,
    takes_codes,
    takes_nan,
)
from skem.impute._tables import column_of, is_nan, table_of


def _safe_rows(value: Any, chosen: Mask) -> Any:
    """Return the chosen entries of a value for each row; pass other values through."""
    own = hasattr(value, "__len__") and len(value) == len(chosen)
    return np.asarray(value)[chosen] if own and not isinstance(value, str) else value


def _fitted(model: Any, rows: Rows, y: Any, routed: dict[str, Any]) -> Any:
    """Return the model, fitted to rows."""
    values = rows.given
    if isinstance(values, np.ndarray) and not takes_nan(model):
        complete: Mask = np.logical_not(np.isnan(values).any(1))
        if not complete.any():
            raise ValueError(
                f"no row of X is complete, and {type(model).__name__} does not accept "
                "NaN: use an estimator that does, for example BayesianGMM_MAP."
            )
        values, y = values[complete], _safe_rows(y, complete)
        routed = {name: _safe_rows(value, complete) for name, value in routed.items()}
    suit_rows(model, len(rows) if values is rows.given else len(values))
    if has_fit_parameter(model, "y"):
        routed = {"y": y, **routed}
    return model.fit(values, **routed)


def _model_scores(imputer: Any) -> bool:
    return hasattr(imputer._model(), "score")


def _model_scores_samples(imputer: Any) -> bool:
    return hasattr(imputer._model(), "score_samples")


class LatentImputer(
    DocLinkMixin, MetaEstimatorMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator
):
    """Fill missing values with their conditional expectation under a latent-variable model.

    The observed features o of a row predict its missing features m:

    .. math::

        \\hat x_m = \\mathbb E[x_m \\mid x_o]
        = \\mathbb E_{z \\mid x_o} \\, \\mathbb E[x_m \\mid x_o, z].

    The expectation is exact for mixtures and templates. The other models approximate it by
    Markov chains.

    A data frame may have columns of categories too: a missing category is filled with the most
    probable one given the rest of its row.

    Parameters
    ----------
    estimator : estimator, default=None
        The model: one with ``fit`` and ``impute``, such as ``BayesianGMM_MAP``,
        ``BernoulliRBMCD`` or ``VAEEstimator``; or a pipeline that ends in one, a search over
        one, or a ``FrozenEstimator``. Steps of a pipeline before the model need
        ``inverse_transform``. A model that accepts NaN is fitted to all rows. Other models
        are fitted to the complete rows. A mixture with more components than rows gets half as
        many as there are rows, with a warning. None chooses a ``BayesianGMM_MAP`` by the
        log-likelihood of held-out rows: with 1, 3, 8 or 20 components as far as each has
        enough rows, and with a prior that counts as one row or as one for each feature.
    categorical_features : "from_dtype", list or None, default="from_dtype"
        The columns that hold categories. "from_dtype": columns of a data frame that hold
        strings, booleans or categoricals, and no column of an array. A list gives names or
        indices of columns, or a boolean for each one; such columns may hold anything,
        including integers. Only the 20 most frequent categories of a column are filled in.
    missing_values : int, float or str, default=numpy.nan
        What marks a missing value in X. NaN, None and pandas' NA always do.
    keep_empty_features : bool, default=False
        Whether ``transform`` keeps features without any observed value in ``fit``, filled
        with 0. Otherwise it leaves them out.
    min_value : float or array-like of shape (n_features,), default=-inf
        The smallest value to fill in; entries of columns of categories are ignored.
    max_value : float or array-like of shape (n_features,), default=inf
        The largest value to fill in.
    sample_posterior : bool, default=False
        Whether to fill with draws from the conditional distribution instead of its mean,
        for multiple imputation. The model must be a Gaussian mixture.
    add_indicator : bool, default=False
        Whether ``transform`` appends a column for each feature with missing values in
        ``fit``, which tells where it was missing.
    random_state : int, RandomState or None, default=None
        Seed of the draws of ``sample_posterior``; an integer repeats them in each call.

    Attributes
    ----------
    estimator_ : estimator
        The fitted model. It sees columns of categories as columns of 0 and 1;
        ``VAEEstimator`` sees columns of codes instead.
    code_names_ : ndarray of shape (n_codes,)
        Names of the columns that the model sees, such as "color_red" for a category "red".
    indicator_ : sklearn.impute.MissingIndicator
        The indicator of missing values, if ``add_indicator=True``.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if X had names.

    Raises
    ------
    TypeError
        If the estimator has no method ``impute``, or a step before it cannot be inverted.
    ValueError
        If the estimator does not accept NaN and no row is complete, or a parameter does not
        fit X.

    See Also
    --------
    sklearn.impute.KNNImputer : Imputation with the mean of the nearest rows.
    sklearn.impute.IterativeImputer : Imputation with a regression for each feature.

    Notes
    -----
    ``score`` returns the score of the model on the observed values, in nats (units of natural
    logarithm) per row. ``GridSearchCV`` can use it to tune ``estimator__n_components``
    without labels.

    Examples
    --------
    >>> import numpy as np
    >>> from skem import BayesianGMM_MAP, LatentImputer
    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=200)
    >>> X = np.column_stack([a, 2 * a + 0.1 * rng.normal(size=200)])
    >>> X[0] = [1.0, np.nan]
    >>> imputer = LatentImputer(BayesianGMM_MAP(1)).fit(X)
    >>> float(imputer.transform(X)[0, 1].round(1))
    2.0
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        categorical_features: Literal["from_dtype"] | ArrayLike | None = "from_dtype",
        missing_values: Any = np.nan,
        keep_empty_features: bool = False,
        min_value: float | ArrayLike = -np.inf,
        max_value: float | ArrayLike = np.inf,
        sample_posterior: bool = False,
        add_indicator: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.categorical_features = categorical_features
        self.missing_values = missing_values
        self.keep_empty_features = keep_empty_features
        self.min_value = min_value
        self.max_value = max_value
        self.sample_posterior = sample_posterior
        self.add_indicator = add_indicator
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None, **params: Any) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        y : array-like, default=None
            Passed to the ``fit`` of the model, which may ignore it.
        **params : dict
            Arguments for the ``fit`` of the model, for example ``sample_weight``.

        Returns
        -------
        LatentImputer
            The fitted imputer.
        """
        X = in_numpy(X)
        if self.estimator is not None:
            check_model(self.estimator)
        check_names(X)
        as_codes = self.estimator is not None and takes_codes(self.estimator)
        table = table_of(X, self.categorical_features, self.missing_values, as_codes)
        rows, missing = self._encoded(X, table, reset=True)
        n_features = rows.shape[1] if table is None else len(table.columns)
        low, high = self._limits(n_features)
        empty = np.zeros(rows.shape[1], dtype=bool)
        if missing is not None:
            empty = np.isnan(rows.given).all(0)
            if empty.all():
                raise ValueError("X has no observed value: at least one is needed.")
        if empty.any():
            rows = open_rows(rows.given[:, ~empty])
        routed = self._routed("fit", params)
        if self.add_indicator and missing is None:
            raise ValueError(
                "add_indicator=True needs X in memory, but X is a file or a dask collection: "
                "set it to False, or give an array."
            )
        model = self._new_model(X, table, ~empty, routed, rows)
        model = _fitted(model, rows, y, routed)
        if self.sample_posterior:
            self._check_draws(model)
        if self.add_indicator and missing is not None:
            indicator = MissingIndicator(error_on_new=False)
            self.indicator_ = indicator.fit(np.where(missing, np.nan, 0.0))
        if table is not None:
            low, high = table.spread(low, -np.inf), table.spread(high, np.inf)
        self._table, self._empty, self._low, self._high = table, empty, low, high
        self.estimator_ = model
        keep_features(self, X)
        names = super().get_feature_names_out()
        codes = names if table is None else np.array(table.code_names(names), dtype=object)
        self.code_names_ = codes[~empty]
        return self

    def _new_model(
        self, X: Any, table: Any, kept: Mask, routed: dict[str, Any], rows: Rows
    ) -> Any:
        """Return the model to fit; ``kept`` are the columns that it will see."""
        if self.estimator is None:
            return choose_mixture(check_weights(routed.get("sample_weight"), rows))
        model = clone(self.estimator)
        if takes_codes(model):
            numeric = np.ones(len(kept), dtype=bool) if table is None else table.is_numeric
            outline = BaseEstimator()
            keep_features(outline, X)
            names = getattr(outline, "feature_names_in_", None)
            own = None if names is None else names[kept]
            core_of(model)[1]._describe_columns(~numeric[kept], own)
        return model

    @rowwise
    def transform(self, X: ArrayLike) -> Any:
        """Return X with missing values filled.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out), or data frame
            The complete rows; observed values are unchanged. A data frame with columns of
            categories becomes a data frame with the same types, in which columns of numbers
            hold floats.
        """
        out, missing = self._completed(X)
        if not self.add_indicator:
            return out
        flags = self.indicator_.transform(np.where(missing, np.nan, 0.0))
        return _with_flags(out, flags, self.get_feature_names_out())

    def impute(self, X: ArrayLike, return_std: bool = False) -> Any:
        """Return X with missing values filled, and how sure each of them is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        return_std : bool, default=False
            Whether to return the standard deviations too.

        Returns
        -------
        X : ndarray of shape (n_samples, n_kept_features), or data frame
            The complete rows, without indicators. A data frame becomes a data frame.
        std : ndarray of shape (n_samples, n_kept_features), or data frame
            The standard deviation of each missing number given the observed values, in the
            units of its column. For a missing category, the probability that another one is
            right. 0 for observed values, and NaN for features without any observed value in
            ``fit``. Only with ``return_std=True``.

        Raises
        ------
        TypeError
            If ``return_std=True`` and the model is no Gaussian mixture, or has steps before it.
        """
        check_is_fitted(self)
        if not return_std:
            return self._framed(X, self._imputed(X))
        steps, core = core_of(self.estimator_)
        if steps or not can_draw(core):
            kinds = [type(part).__name__ for part in [*steps, core]]
            raise TypeError(
                "return_std=True needs a Gaussian mixture such as BayesianGMM_MAP, without "
                f"steps before it, but the model is {' and '.join(kinds)}: leave "
                "estimator=None, or set another one."
            )
        return self._framed(X, self._imputed(X)), self._framed(X, self._deviations(X))

    @rowwise
    def encode(self, X: ArrayLike) -> Array:
        """Return X as the model sees it, for other methods of the model.

        ``imputer.estimator_.predict(imputer.encode(X))`` is an example. ``code_names_`` names
        the columns.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_codes)
            The rows as numbers, without features that had no observed value in ``fit``.
        """
        check_is_fitted(self)
        rows, _ = self._encoded(X, self._table, reset=False)
        found: Array = np.asarray(rows.given, working_dtype(rows.given))[:, ~self._empty]
        return found

    @rowwise
    def _imputed(self, X: Any) -> Any:
        return self._completed(X)[0]

    @rowwise
    def _deviations(self, X: Any) -> Any:
        """Return the standard deviations of the missing cells."""
        rows, missing = self._encoded(X, self._table, reset=False)
        values = np.asarray(rows.given, working_dtype(rows.given))
        own = values[:, ~self._empty]
        codes, std = np.zeros_like(values), np.full_like(values, np.nan)
        codes[:, ~self._empty], std[:, ~self._empty] = core_of(self.estimator_)[1].impute(
            own, return_std=True
        )
        if self._table is not None:
            std = self._table.decode_std(codes, std, missing)
        return self._kept(std)

    def _framed(self, X: Any, values: Any) -> Any:
        """Return values in a frame if X is one."""
        if not (hasattr(X, "columns") and isinstance(values, np.ndarray)):
            return values
        names = self.get_feature_names_out()[: values.shape[1]].tolist()
        if hasattr(X, "iloc"):
            return type(X)(values, index=X.index, columns=names)
        return type(X)(values, schema=names)

    def _completed(self, X: Any) -> tuple[Any, Any]:
        """Return X with missing values filled, and which cells were missing."""
        check_is_fitted(self)
        rows, missing = self._encoded(X, self._table, reset=False)
        out = self._filled(np.asarray(rows.given, working_dtype(rows.given)))
        if self._table is not None:
            out = self._table.decode(X, out, missing)
        return self._kept(out), missing

    def _kept(self, X: Any) -> Any:
        """Return X without the features that ``transform`` leaves out."""
        if self.keep_empty_features or not self._empty.any():
            return X
        return _columns(X, np.flatnonzero(~self._empty_features()))

    def _empty_features(self) -> Mask:
        """Return whether each feature of X had no observed value in fit."""
        if self._table is None:
            return self._empty
        starts = [place.start for place in self._table.of_codes]
        found: Mask = self._empty[starts]
        return found

    def _filled(self, values: Array) -> Array:
        """Return the codes (n, n_codes) without NaN."""
        own = values[:, ~self._empty]
        if self.sample_posterior:
            self._check_draws(self.estimator_)
            found = draw(self.estimator_, own, self.random_state)
        else:
            found = impute(self.estimator_, own)
        filled = np.zeros(values.shape, values.dtype)
        filled[:, ~self._empty] = found
        filled = np.clip(filled, self._low, self._high)
        complete: Array = np.where(np.isnan(values), filled, values)
        return complete.astype(values.dtype, copy=False)

    def inverse_transform(self, X: Any) -> Any:
        """Return rows as they were before ``transform``, with their values missing again.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features_out)
            What ``transform`` returns with ``add_indicator=True``.

        Returns
        -------
        ndarray of shape (n_samples, n_features), or data frame
            The rows; ``missing_values`` marks what was missing. A data frame becomes a data
            frame with the columns of ``fit``.

        Raises
        ------
        ValueError
            If ``add_indicator=False``: only the indicator tells what was missing.
        """
        check_is_fitted(self)
        if not self.add_indicator:
            raise ValueError(
                "inverse_transform needs add_indicator=True: only the indicator tells which "
                "values were missing."
            )
        X, kept = in_numpy(X), np.arange(self.n_features_in_)
        if not self.keep_empty_features:
            kept = kept[~self._empty_features()]
        flagged = self.indicator_.features_
        n_columns = len(X.columns) if hasattr(X, "columns") else np.shape(X)[1]
        if n_columns != len(kept) + len(flagged):
            raise ValueError(
                f"X has {n_columns} columns, but transform returns {len(kept)} features and "
                f"{len(flagged)} indicators: pass what transform returned."
            )
        is_polars = hasattr(X, "columns") and not hasattr(X, "iloc")
        missing = None if is_polars and is_nan(self.missing_values) else self.missing_values
        columns = [np.full(len(X), missing)] * self.n_features_in_
        for place, j in enumerate(kept):
            columns[j] = np.asarray(column_of(X, place))
        for place, j in enumerate(flagged, len(kept)):
            gaps = np.asarray(column_of(X, place), dtype=bool)
            columns[j] = np.where(gaps, missing, columns[j])
        if not hasattr(X, "columns"):
            return np.stack(columns, axis=1).astype(getattr(X, "dtype", None), copy=False)
        names = super().get_feature_names_out()
        if is_polars:
            return type(X)({name: c.tolist() for name, c in zip(names, columns, strict=True)})
        return type(X)(dict(zip(names, columns, strict=True)), index=X.index)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> AnyArray:
        """Return the names of the columns of ``transform``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            The names of the features; None takes those seen in fit, or x0, x1, ...

        Returns
        -------
        ndarray of str
            The names of the features that are kept, then those of the indicators.
        """
        check_is_fitted(self)
        names: AnyArray = super().get_feature_names_out(input_features)
        own = names if self.keep_empty_features else names[~self._empty_features()]
        if not self.add_indicator:
            return own
        return np.concatenate([own, self.indicator_.get_feature_names_out(names)])

    @available_if(_model_scores)
    def score(self, X: ArrayLike, y: object = None, **params: Any) -> float:
        """Return the score of the model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        y : None
            Ignored.
        **params : dict
            Arguments for the ``score`` of the model, for example ``sample_weight``.

        Returns
        -------
        float
            The mean log-likelihood of the observed values, or its bound, in nats per row.
        """
        check_is_fitted(self)
        rows, missing = self._encoded(in_numpy(X), self._table, reset=False)
        values = rows.given
        if missing is not None:
            values = values[:, ~self._empty]
        return float(self.estimator_.score(values, **self._routed("score", params)))

    @available_if(_model_scores_samples)
    @rowwise
    def score_samples(self, X: ArrayLike) -> Array:
        """Return the score of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples,)
            What ``score_samples`` of the model returns for the encoded rows: for a mixture, the
            log-density of the observed values, in nats. Densities of different columns cannot
            be compared: to rank rows with missing values, score what ``impute`` returns.
        """
        found: Array = self.estimator_.score_samples(self.encode(X))
        return found

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the routing of metadata to the model.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRouter
            The routing: ``fit`` calls the ``fit`` of the model, ``score`` its ``score``.
        """
        return MetadataRouter(owner=self).add(
            estimator=self._model(),
            method_mapping=MethodMapping()
            .add(caller="fit", callee="fit")
            .add(caller="score", callee="score"),
        )

    def _routed(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if not get_config()["enable_metadata_routing"]:
            return params
        routed = process_routing(self, method, **params)
        return dict(routed.estimator[method])

    def _model(self) -> Any:
        if self.estimator is not None:
            return self.estimator
        from skem.mixture import BayesianGMM_MAP

        return BayesianGMM_MAP()

    def _check_draws(self, model: Any) -> None:
        if not can_draw(model):
            raise TypeError(
                "sample_posterior=True needs a Gaussian mixture such as BayesianGMM_MAP, but "
                f"estimator is {type(model).__name__}: set it to False."
            )

    def _limits(self, n_features: int) -> tuple[Array, Array]:
        """Return the smallest and the largest value of each feature."""
        limits = []
        for name in ("min_value", "max_value"):
            value = np.asarray(getattr(self, name), dtype=float)
            if value.shape not in ((), (n_features,)) or np.isnan(value).any():
                raise ValueError(
                    f"{name} must be a number or hold one for each of the {n_features} "
                    f"features, but it is {getattr(self, name)!r}."
                )
            limits.append(np.broadcast_to(value, (n_features,)))
        if not (limits[0] < limits[1]).all():
            raise ValueError(
                f"min_value={self.min_value!r} must be below max_value={self.max_value!r}."
            )
        return limits[0], limits[1]

    def _encoded(self, X: Any, table: Any, *, reset: bool) -> tuple[Rows, Mask | None]:
        """Return X as checked rows of numbers, and its missing cells if it is in memory."""
        if table is None:
            rows = check_rows(self, X, reset=reset)
            # not of a file: its mask may be too large for memory
            mask = rows.choose(np.isnan, lambda lazy: lambda given: None)
            return rows, mask(rows.given)
        if not reset:
            check_outline(self, open_rows(X), np.shape(X))
        codes, missing = table.encode(X)
        return open_rows(codes), missing

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _columns(X: Any, index: Any) -> Any:
    """Return some of the columns of an array or a frame."""
    if hasattr(X, "iloc"):
        return X.iloc[:, index]
    return X[:, index.tolist()]


def _with_flags(X: Any, flags: Mask, names: AnyArray) -> Any:
    """Return an array or a frame with columns of booleans appended."""
    if not hasattr(X, "columns"):
        return np.hstack([X, flags.astype(X.dtype)])
    own = names[len(names) - flags.shape[1] :]
    if hasattr(X, "iloc"):
        return X.assign(**dict(zip(own, flags.T, strict=True)))
    return X.with_columns(
        **{name: type(X)({name: flag})[name] for name, flag in zip(own, flags.T, strict=True)}
    )
