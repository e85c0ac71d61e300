"""LatentImputer: fill missing values with a latent-variable model."""

from __future__ import annotations

from typing import Any, Self

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
from sklearn.utils import Tags, get_tags
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.metaestimators import available_if

from skem._base.estimator import DocLinkMixin, check_is_fitted, keep_features
from skem._base.input import check_rows
from skem._base.streams import rowwise
from skem._rows.parts import Rows, working_dtype
from skem._typing import Array, Mask


def _safe_rows(value: Any, chosen: Mask) -> Any:
    """Return the chosen entries of a value for each row; pass other values through."""
    own = hasattr(value, "__len__") and len(value) == len(chosen)
    return np.asarray(value)[chosen] if own and not isinstance(value, str) else value


def _model_scores(imputer: Any) -> bool:
    return hasattr(imputer._model(), "score")


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

    Parameters
    ----------
    estimator : estimator with ``fit`` and ``impute``, default=None
        The model, such as ``BayesianGMM_MAP``, ``BernoulliRBMCD`` or ``VAEEstimator``. None
        means ``BayesianGMM_MAP(5, prior="empirical", random_state=0)``; pass this estimator
        explicitly to tune its parameters. A model that accepts NaN is fitted to all rows.
        Other models are fitted to the complete rows.

    Attributes
    ----------
    estimator_ : estimator
        The fitted model.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if X had names.

    Raises
    ------
    TypeError
        If the estimator has no method ``impute``.
    ValueError
        If the estimator does not accept NaN and no row is complete.

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

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def fit(self, X: ArrayLike, y: object = None, **params: Any) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        y : None
            Ignored.
        **params : dict
            Arguments for the ``fit`` of the model, for example ``sample_weight``.

        Returns
        -------
        LatentImputer
            The fitted imputer.
        """
        estimator = clone(self._model())
        if not hasattr(estimator, "impute"):
            raise TypeError(
                f"estimator must have a method impute, but {type(estimator).__name__} has "
                "none: use for example BayesianGMM_MAP, BernoulliRBMCD or VAEEstimator."
            )
        rows = self._check_rows(X, reset=True)
        routed = self._routed("fit", params)
        values = rows.given
        if not get_tags(estimator).input_tags.allow_nan and isinstance(values, np.ndarray):
            complete: Mask = np.logical_not(np.isnan(values).any(1))
            if not complete.any():
                raise ValueError(
                    f"no row of X is complete, and {type(estimator).__name__} does not accept "
                    "NaN: use an estimator that does, for example BayesianGMM_MAP."
                )
            values = values[complete]
            routed = {name: _safe_rows(value, complete) for name, value in routed.items()}
        self.estimator_ = estimator.fit(values, **routed)
        keep_features(self, X)
        return self

    @rowwise
    def transform(self, X: ArrayLike) -> Array:
        """Return X with missing values filled.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The complete rows; observed values are unchanged.
        """
        check_is_fitted(self)
        rows = self._check_rows(X, reset=False).given
        filled = np.asarray(self.estimator_.impute(rows), working_dtype(rows))
        return np.where(np.isnan(rows), filled, rows)

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
        rows = self._check_rows(X, reset=False).given
        return float(self.estimator_.score(rows, **self._routed("score", params)))

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
        from skem.mixture._estimator import BayesianGMM_MAP

        return BayesianGMM_MAP(5, prior="empirical", random_state=0)

    def _check_rows(self, X: Any, *, reset: bool) -> Rows:
        return check_rows(self, X, reset=reset)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
