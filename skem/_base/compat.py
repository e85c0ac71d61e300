"""What differs between the versions of scikit-learn: callbacks came with 1.9.

With older versions, this file stands in for ``sklearn.callback``. It serves the callbacks of
skem, which ask nothing more of a version.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import wraps
from typing import Any, Self

import sklearn
from sklearn.utils.fixes import parse_version

__all__ = ["CallbackSupportMixin", "OwnCallback", "check_same_namespace", "with_callbacks"]

FIRST_WITH_CALLBACKS = "1.9"


class OwnCallback:
    """A callback of skem, which works with every version of scikit-learn."""


@dataclass(eq=False)  # each is a key of its own
class _Context:
    """A fit or, below it, an iteration, as callbacks see it."""

    task_name: str
    callbacks: list[Any]
    task_id: int = 0
    parent: _Context | None = None
    n_subtasks: int = 0

    def subcontext(self, task_name: str) -> _Context:
        self.n_subtasks += 1
        return _Context(task_name, self.callbacks, self.n_subtasks - 1, self)

    def call_on_fit_task_begin(self, *, estimator: Any, X: Any) -> None:
        for callback in self.callbacks:
            callback.on_fit_task_begin(estimator, self)

    def call_on_fit_task_end(
        self, *, estimator: Any, X: Any, reconstruction_attributes: Any
    ) -> bool:
        """Call the callbacks with a fitted copy of the estimator; return whether to stop."""
        if not self.callbacks:
            return False
        fitted, attributes = copy(estimator), reconstruction_attributes
        vars(fitted).update(attributes() if callable(attributes) else attributes)
        asked = [
            c.on_fit_task_end(estimator, self, X=X, fitted_estimator=fitted)
            for c in self.callbacks
        ]
        return any(asked)


class _OwnCallbackSupportMixin:
    """``set_callbacks`` for the callbacks of skem."""

    def set_callbacks(self, *callbacks: Any) -> Self:
        """Set the callbacks of the next fits; without any, remove them.

        Parameters
        ----------
        *callbacks : History or EarlyStopping
            The callbacks. Those of other packages need scikit-learn 1.9 or newer.

        Returns
        -------
        estimator
            The estimator itself.

        Raises
        ------
        TypeError
            For anything but callbacks of skem.
        """
        for callback in callbacks:
            if not isinstance(callback, OwnCallback):
                raise TypeError(
                    f"set_callbacks got {callback!r}, but with scikit-learn "
                    f"{sklearn.__version__} it takes only History() and EarlyStopping() of "
                    f"skem. Install scikit-learn {FIRST_WITH_CALLBACKS} or newer for other "
                    "callbacks, or set verbose=1 to follow the fit."
                )
        if callbacks:
            self._skl_callbacks = list(callbacks)
        else:
            vars(self).pop("_skl_callbacks", None)
        return self

    def __sklearn_clone__(self) -> Any:
        clone = super().__sklearn_clone__()  # type: ignore[misc]
        if hasattr(self, "_skl_callbacks"):  # searches fit clones
            clone._skl_callbacks = self._skl_callbacks
        return clone

    def _init_callback_context(self, max_subtasks: int | None = 0) -> _Context:
        self._callback_fit_ctx = _Context("fit", getattr(self, "_skl_callbacks", []))
        for callback in self._callback_fit_ctx.callbacks:
            callback.setup(self, self._callback_fit_ctx)
        return self._callback_fit_ctx


def _with_own_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
    """Tell the callbacks when a fit ends, however it ends."""

    @wraps(method)
    def managed(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        finally:
            context = vars(self).pop("_callback_fit_ctx", None)
            for callback in [] if context is None else context.callbacks:
                callback.teardown(self, context)

    return managed


if parse_version(sklearn.__version__) >= parse_version(f"{FIRST_WITH_CALLBACKS}.dev0"):
    from sklearn.callback import CallbackSupportMixin, with_callbacks
else:
    CallbackSupportMixin, with_callbacks = _OwnCallbackSupportMixin, _with_own_callbacks

try:
    from sklearn.utils._array_api import check_same_namespace
except ImportError:  # older versions do not compare the places of X in fit and predict

    def check_same_namespace(X: Any, estimator: Any, *, attribute: str, method: str) -> None:
        """Accept X wherever it is."""
