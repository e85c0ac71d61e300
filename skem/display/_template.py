"""Pictures of fitted templates. matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skem.display._checks import check_has, reshaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TemplateDisplay"]


class TemplateDisplay:
    """A fitted ``ShiftedTemplateEM``: template, background, and an image in which it is found.

    Parameters
    ----------
    template : ndarray of shape (height, width[, channels])
        The template.
    background : ndarray of shape (height, width[, channels])
        The background.
    background_seen : ndarray of bool, of the shape of ``background``
        False where the background is hidden in all images; these places are hatched.
    image : ndarray of the shape of ``background``, default=None
        One image.
    posterior : ndarray of shape (n_row_shifts, n_column_shifts), default=None
        The probabilities of the shifts of the template in the image.
    absent : float, default=0.0
        The probability that the template is absent from the image.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.

    See Also
    --------
    TemplateDisplay.from_estimator : Plot a fitted estimator.

    Examples
    --------
    >>> from skem import ShiftedTemplateEM, TemplateDisplay
    >>> from skem.datasets import make_shifted_templates
    >>> data = make_shifted_templates(50, random_state=0)
    >>> model = ShiftedTemplateEM(image_shape=data.image_shape).fit(data.X)
    >>> display = TemplateDisplay.from_estimator(model, data.X[0])
    """

    def __init__(
        self,
        template: NDArray[np.floating],
        background: NDArray[np.floating],
        background_seen: NDArray[np.bool_],
        *,
        image: NDArray[np.floating] | None = None,
        posterior: NDArray[np.floating] | None = None,
        absent: float = 0.0,
    ) -> None:
        self.template = template
        self.background = background
        self.background_seen = background_seen
        self.image = image
        self.posterior = posterior
        self.absent = absent

    @classmethod
    def from_estimator(
        cls, estimator: Any, image: ArrayLike | None = None, **kwargs: Any
    ) -> Self:
        """Plot a fitted estimator.

        Of several templates, the plot shows the most probable one in the image, or the one that
        most images have.

        Parameters
        ----------
        estimator : ShiftedTemplateEM
            Fitted.
        image : array-like of shape (n_features,) or of the shape of an image, default=None
            An image; the plot shows where the template is.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        TemplateDisplay
            The display, drawn.
        """
        check_has(cls.__name__, estimator, "shift_shape_", "a ShiftedTemplateEM")
        several = hasattr(estimator, "templates_")
        templates = estimator.templates_ if several else estimator.template_[None]
        shown = int(estimator.class_weights_.argmax()) if several else 0
        posterior, absent = None, 0.0
        if image is not None:
            image = reshaped("image", image, estimator.image_shape_)
            code = estimator.predict_proba(image.reshape(1, -1))[0]
            n_present = len(templates) * int(np.prod(estimator.shift_shape_))
            posteriors = code[:n_present].reshape(len(templates), *estimator.shift_shape_)
            shown = int(posteriors.sum((1, 2)).argmax())
            posterior, absent = posteriors[shown], float(code[n_present:].sum())
        display = cls(
            templates[shown],
            estimator.background_,
            estimator.background_seen_,
            image=image,
            posterior=posterior,
            absent=absent,
        )
        return display.plot(**kwargs)

    def plot(self, **kwargs: Any) -> Self:
        """Draw the panels in a new figure.

        Parameters
        ----------
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        TemplateDisplay
            This display.
        """
        import matplotlib.pyplot as plt

        with_image = self.image is not None
        figure, axes = plt.subplots(
            2 if with_image else 1,
            2,
            figsize=(8, 5 if with_image else 2.6),
            layout="constrained",
            squeeze=False,
            width_ratios=[self.template.shape[1], self.background.shape[1]]
            if not with_image
            else None,
        )
        options = self._image_options(kwargs)
        self._draw(axes[0, 0], self.template, "template", options)
        self._draw(axes[0, 1], self.background, "background", options)
        if not self.background_seen.all():
            self._hatch(axes[0, 1])
            axes[0, 1].set_title("background (hatched: never seen)")
        if self.image is not None and self.posterior is not None:
            self._draw(axes[1, 0], self.image, "image", {**options, "clim": None})
            self._mark(axes[1, 0], self.posterior)
            self._draw_posterior(axes[1, 1], self.posterior)
        self.axes_, self.figure_ = axes, figure
        return self

    def _image_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.template.ndim == 3:
            return kwargs
        both = np.concatenate([self.template.ravel(), self.background.ravel()])
        return {"cmap": "gray", "clim": (both.min(), both.max()), **kwargs}

    def _draw(
        self, ax: Axes, image: NDArray[np.floating], title: str, options: dict[str, Any]
    ) -> None:
        ax.set_title(title)
        if image.shape[0] == 1:
            ax.plot(np.arange(image.shape[1]), image[0])
            return
        if image.ndim == 3:
            low, high = self.background.min(), self.background.max()
            image = np.clip((image - low) / ((high - low) or 1.0), 0, 1)
        ax.imshow(image, **options)
        ax.set(xticks=[], yticks=[])

    def _hatch(self, ax: Axes) -> None:
        """Hatch the places where the background was never seen."""
        seen = self.background_seen.reshape(*self.background.shape[:2], -1)
        hidden: NDArray[np.bool_] = np.logical_not(np.asarray(seen.all(2)))
        if len(hidden) > 1 and hidden.shape[1] > 1:
            ax.contourf(hidden, levels=[0.5, 1.5], colors="none", hatches=["////"])
            return
        ax.fill_between(
            np.arange(hidden.shape[1]),
            0,
            1,
            where=hidden[0],
            transform=ax.get_xaxis_transform(),
            facecolor="none",
            edgecolor="gray",
            hatch="////",
        )

    def _mark(self, ax: Axes, posterior: NDArray[np.floating]) -> None:
        """Outline the most probable window."""
        height, width = self.template.shape[:2]
        if self.absent > posterior.max():
            ax.set_title(f"image (template absent: {self.absent:.2f})")
            return
        row, column = np.unravel_index(posterior.argmax(), posterior.shape)
        if height == 1:
            ax.axvspan(int(column), int(column) + width - 1, alpha=0.2, color="tab:orange")
            return
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * [width, height]
        x, y = (corners + np.array([column - 0.5, row - 0.5])).T
        ax.plot(x, y, color="tab:orange", lw=2)

    def _draw_posterior(self, ax: Axes, posterior: NDArray[np.floating]) -> None:
        ax.set_title("posterior of the shift")
        if posterior.shape[0] == 1:
            ax.bar(np.arange(posterior.size), posterior[0], width=1.0)
            ax.set(xlabel="left edge of the template (pixels)", ylabel="probability")
            ax.set_ylim(0, 1)
        else:
            picture = ax.imshow(posterior, vmin=0)
            ax.set(xlabel="left edge (pixels)", ylabel="top edge (pixels)")
            ax.figure.colorbar(picture, ax=ax, label="probability")
