"""The frame of every fit: parameters, rows, callbacks, training, fitted attributes.

Every private name of scikit-learn is used in this folder only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from numpy.typing import ArrayLike
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils import Tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from skem._base.compat import CallbackSupportMixin, with_callbacks
from skem._base.places import put
from skem._base.streams import weighted_mean
from skem._loop import Run
from skem._rows import open_rows
from skem._rows.parts import Rows
from skem._warn import warn

__all__ = [
    "DocLinkMixin",
    "HasMethods",
    "Interval",
    "LatentEstimator",
    "ReconstructMixin",
    "StrOptions",
    "check_is_fitted",
    "check_names",
    "hooks",
    "keep_features",
    "warn",
    "warn_if_interrupted",
    "with_callbacks",
]


def keep_features(estimator: Any, X: Any) -> None:
    """Set ``n_features_in_`` and, where X has names, ``feature_names_in_``."""
    validate_data(estimator, open_rows(X).outline(), reset=True, skip_check_array=True)


def check_names(X: Any) -> None:
    """Refuse column names of mixed types."""
    keep_features(BaseEstimator(), X)


@dataclass
class Fitting:
    """What lives as long as a fit: what callbacks see of X, and what they ask to keep."""

    X: Any  # a frame as it was given, so that callbacks see names; else checked rows
    features: dict[str, Any]  # the attributes that describe the features
    best: Any = None  # a state to return to in the end


def fitting_of(estimator: Any, X: Any, rows: Rows, resume: bool) -> Fitting:
    """Return the frame of a fit to X, which is checked already."""
    probe = estimator
    if not resume:
        probe = BaseEstimator()
        keep_features(probe, X)
    names = getattr(probe, "feature_names_in_", None)
    features: dict[str, Any] = {"n_features_in_": rows.shape[1]}
    # None hides names from an earlier fit
    if names is not None or hasattr(estimator, "feature_names_in_"):
        features["feature_names_in_"] = names
    seen = put(rows.given, getattr(estimator, "_place", None)) if names is None else X
    return Fitting(seen, features)


def documentation() -> str:
    """Return the address of the documentation, or nothing if the package has none."""
    try:
        urls = metadata("scikit-em").get_all("Project-URL") or []
    except PackageNotFoundError:
        urls = []
    named = [url.split(", ", 1) for url in urls]
    return next((url.rstrip("/") for name, url in named if name == "Documentation"), "")


class DocLinkMixin:
    """The link in the HTML representation of an estimator, to its page."""

    _doc_link_module = "skem"

    @property
    def _doc_link_template(self) -> str:
        site = documentation()
        return f"{site}/generated/skem.{{estimator_name}}.html" if site else ""


class ReconstructMixin:
    """``reconstruct``, where ``inverse_transform`` takes what ``transform`` returns."""

    def reconstruct(self: Any, X: ArrayLike) -> Any:
        """Return the expected noise-free rows given X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            ``inverse_transform(transform(X))``.
        """
        return self.inverse_transform(self.transform(X))


class LatentEstimator(
    DocLinkMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    CallbackSupportMixin,
    DensityMixin,
    BaseEstimator,
):
    """The frame of every fit, and what all estimators share.

    A subclass calls ``_fit`` in its ``fit``, and has

    - ``_fitted_name``: an attribute that only a fit sets;
    - ``_check_rows(X, sample_weight=None, *, reset)``: X as checked rows with weights;
    - ``_train(rows, resume)``: trains, and returns what ``_keep`` takes; ``resume`` says
      whether training continues from the last fit;
    - ``_keep(trained)``: sets the fitted attributes, once nothing can fail;
    - ``score_samples(X)``.
    """

    warm_start = False  # for those without the parameter
    _fitting: Fitting  # only during a fit
    _allow_nan = True
    _score_compares = True  # whether a higher score means a better fit
    _fitted_name: str

    def _n_subtasks(self) -> int | None:
        """Return the number of iterations that callbacks may expect; None if unknown."""
        return None

    def _n_subtasks_of(self, rows: Any) -> int | None:
        """Return the number of iterations that callbacks may expect for these rows."""
        return self._n_subtasks()

    def _opened(self, X: Any, *, is_fit: bool = False) -> Any:
        """Return X in a form that ``open_rows`` takes, wherever it is."""
        return X

    def _is_fitted(self) -> bool:
        return hasattr(self, self._fitted_name)

    def _resumes(self) -> bool:
        return bool(self.warm_start) and self._is_fitted()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {**super().__getstate__()}  # it may be our own __dict__
        if self._is_fitted() and "_skl_callbacks" in state:  # held-out rows can be large
            state["_skl_callbacks"] = [
                c.without_rows() if hasattr(c, "without_rows") else c
                for c in state["_skl_callbacks"]
            ]
        return state

    def _seed_of(self, random_state: Any) -> Any:
        """Return the seed of a draw: by default that of the estimator."""
        return self.random_state if random_state is None else random_state

    def _check_parameters(self) -> None:
        self._validate_params()

    def _fit(self, X: Any, sample_weight: Any, **beside: Any) -> Any:
        """Validate, train, keep; return what was trained.

        ``beside`` are arguments of ``_train``, such as values that each row has beside X.
        """
        self._check_parameters()
        resume = self._resumes()
        rows = self._check_rows(X, sample_weight, reset=not resume)
        self._fitting = fitting_of(self, X, rows, resume)
        seen = self._fitting.X
        try:
            task = self._init_callback_context(max_subtasks=self._n_subtasks_of(rows))
            task.call_on_fit_task_begin(estimator=self, X=seen)
            trained = self._train(rows, resume, **beside)
            try:
                self._finish(trained, X, resume)
            except KeyboardInterrupt:  # what was trained is kept all the same
                self._finish(trained, X, resume)
                warn(f"{type(self).__name__} was interrupted after its last iteration.")
        finally:
            del self._fitting
        task.call_on_fit_task_end(estimator=self, X=seen, reconstruction_attributes={})
        return trained

    def _finish(self, trained: Any, X: Any, resume: bool) -> None:
        if not resume:
            keep_features(self, X)
        self._keep(trained)

    def _in_memory(self, X: Any) -> Any:
        """Return X as a checked array; row-wise methods get rows in memory only."""
        check_is_fitted(self)
        return self._check_rows(X, reset=False).given

    def score(
        self,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Return the mean log-likelihood of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; NaN marks a missing value.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            The (weighted) mean of ``score_samples(X)``, in nats per sample. A nat is the unit
            of natural logarithms, 1.44 bits.
        """
        return weighted_mean(self, "score_samples", X, sample_weight)[0]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._allow_nan
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def hooks(
    estimator: Any,
    interval: int,
    line: Callable[[Run], str],
    attributes: Callable[[Run], dict[str, Any]],
    stop: Callable[[Run], bool] = lambda run: False,
    *,
    keep: Callable[[Run], None],
    total: int | None = None,
) -> dict[str, Any]:
    """Return what the loop calls: callbacks, and a line printed each ``interval`` iterations.

    ``attributes`` returns the current fitted attributes, for callbacks that ask for them.
    ``keep`` is called after an iteration to which a callback wants to return in the end.
    ``total`` is printed as the largest number of iterations.
    """
    task: Any = None
    fitting: Fitting = estimator._fitting

    def on_begin() -> None:
        nonlocal task
        task = estimator._callback_fit_ctx.subcontext("iteration")
        task.call_on_fit_task_begin(estimator=estimator, X=fitting.X)

    def on_iter(run: Run) -> bool:
        own = stop(run)
        if interval and run.n_iter % interval == 0:
            number = f"{run.n_iter}" if total is None else f"{run.n_iter} of {total}"
            print(f"[{type(estimator).__name__}] iteration {number}: {line(run)}")
        asked: bool = task.call_on_fit_task_end(
            estimator=estimator,
            X=fitting.X,
            reconstruction_attributes=lambda: {
                **attributes(run),
                **fitting.features,
                "_fitting": None,
            },
        )
        if _is_best(estimator, task):
            keep(run)
        return own or asked

    return {"on_begin": on_begin, "on_iter": on_iter}


def _is_best(estimator: Any, task: Any) -> bool:
    """Return whether a callback wants the fit to return to the iteration that has ended."""
    callbacks = getattr(estimator, "_skl_callbacks", [])
    return any(c.is_best(task) for c in callbacks if hasattr(c, "is_best"))


def warn_if_interrupted(estimator: Any, run: Run) -> None:
    """Say that Ctrl-C ended the fit."""
    if run.interrupted:
        warn(
            f"{type(estimator).__name__} was interrupted after {run.n_iter} iterations and "
            "keeps what it had learned."
        )
