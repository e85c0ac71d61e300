"""Pictures of fitted templates. matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skem.display._checks import Display, check_has, reshaped, unwrapped
from skem.display._style import LINES, color_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TemplateDisplay"]


class TemplateDisplay(Display):
    """A fitted ``ShiftedTemplateEM``: template, background, and an image in which it is found.

    Images of height 1 are signals, drawn as curves one below the other. The places of the
    signal line up with those of the background and of the posterior.

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
    others : dict, default=None
        Other templates with their titles; they are drawn beside the template if there is no
        image.
    title : str, default="template"
        Title of the template.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes
        The panels of the last plot, in rows; one in each row for signals.
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
        others: dict[str, NDArray[np.floating]] | None = None,
        title: str = "template",
    ) -> None:
        self.template = template
        self.background = background
        self.background_seen = background_seen
        self.image = image
        self.posterior = posterior
        self.absent = absent
        self.others = others or {}
        self.title = title

    def _about(self) -> str:
        shapes = [" x ".join(map(str, a.shape)) for a in (self.template, self.background)]
        found = "" if self.posterior is None else f", {self._found()}"
        return f"template {shapes[0]}, background {shapes[1]}{found}"

    def _found(self) -> str:
        """Return where the template is, in words."""
        assert self.posterior is not None
        if self.absent > self.posterior.max():
            return f"template absent: {self.absent:.2f}"
        row, column = np.unravel_index(self.posterior.argmax(), self.posterior.shape)
        place = f"sample {column}" if self._is_signal() else f"row {row}, column {column}"
        return f"template at {place}: {self.posterior.max():.2f}"

    def _is_signal(self) -> bool:
        return self.background.shape[0] == 1 and self.background.shape[1] > 1

    @classmethod
    def from_estimator(
        cls, estimator: Any, image: ArrayLike | None = None, **kwargs: Any
    ) -> Self:
        """Plot a fitted estimator.

        A template with a free amplitude has that of the image. Of several templates, the plot
        shows the most probable one in the image. Without an
        image it shows all of them, the most frequent one first.

        Parameters
        ----------
        estimator : ShiftedTemplateEM, or a pipeline or search that ends in one
            Fitted. The picture of a pipeline shows the image as its last step gets it.
        image : array-like of shape (n_features,) or of the shape of an image, default=None
            An image; the plot shows where the template is.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``, or ``plot`` for signals.

        Returns
        -------
        TemplateDisplay
            The display, drawn.
        """
        inner = unwrapped(estimator)
        estimator = inner.model
        check_has(cls.__name__, estimator, "shift_shape_", "a ShiftedTemplateEM")
        several = hasattr(estimator, "templates_")
        templates = estimator.templates_ if several else estimator.template_[None]
        shown = int(estimator.class_weights_.argmax()) if several else 0
        posterior, absent = None, 0.0
        if image is not None:
            row = reshaped("image", image, estimator.image_shape_).reshape(1, -1)
            row = np.asarray(inner.transform(row), dtype=float)
            image = row.reshape(estimator.image_shape_)
            code = estimator.predict_proba(row)[0]
            n_present = len(templates) * int(np.prod(estimator.shift_shape_))
            posteriors = code[:n_present].reshape(len(templates), *estimator.shift_shape_)
            shown = int(posteriors.sum((1, 2)).argmax())
            posterior, absent = posteriors[shown], float(code[n_present:].sum())
        template = templates[shown]
        titles: list[str] = ["template"]
        rest: list[int] = []
        if several:
            weights = np.asarray(estimator.class_weights_)
            titles = [f"template {c} ({weight:.0%})" for c, weight in enumerate(weights)]
            rest = [] if image is not None else np.argsort(-weights)[1:].tolist()
        title = titles[shown]
        if image is not None and estimator.amplitude == "free":
            amplitude = float(estimator.amplitudes(row)[0])
            template, title = amplitude * template, f"{title} x {amplitude:.2f}"
        display = cls(
            template,
            estimator.background_,
            estimator.background_seen_,
            image=image,
            posterior=posterior,
            absent=absent,
            others={titles[c]: templates[c] for c in rest},
            title=title,
        )
        return display.plot(**kwargs)

    def plot(self, **kwargs: Any) -> Self:
        """Draw the panels in a new figure.

        Parameters
        ----------
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``, or ``plot`` for signals.

        Returns
        -------
        TemplateDisplay
            This display.
        """
        import matplotlib.pyplot as plt

        if self._is_signal():
            return self._plot_signals(kwargs)
        with_image = self.image is not None
        shown = self._shown()
        widths = [image.shape[1] for image in (*shown.values(), self.background)]
        figure, axes = plt.subplots(
            2 if with_image else 1,
            len(widths),
            figsize=(8, 5 if with_image else 2.6),
            layout="constrained",
            squeeze=False,
            width_ratios=None if with_image else widths,
        )
        options = self._image_options(kwargs)
        for ax, (title, template) in zip(axes[0], shown.items(), strict=False):
            self._draw(ax, template, title, options)
        self._draw(axes[0, -1], self.background, "background", options)
        hidden = self._hidden()
        if hidden.any():
            if min(hidden.shape) > 1:  # the least that matplotlib draws contours of
                axes[0, -1].contourf(hidden, levels=[0.5, 1.5], colors="none", hatches=["////"])
            axes[0, -1].set_title("background (hatched: never seen)")
        if self.image is not None and self.posterior is not None:
            self._draw(axes[1, 0], self.image, "image", {**options, "clim": None})
            self._mark(axes[1, 0], self.posterior)
            self._draw_posterior(axes[1, 1], self.posterior)
        self.axes_, self.figure_ = axes, figure
        return self

    def _shown(self) -> dict[str, NDArray[np.floating]]:
        """Return the templates to draw, with their titles."""
        own = {self.title: self.template}
        return own if self.image is not None else {**own, **self.others}

    def _image_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.template.ndim == 3:
            return kwargs
        every = [image.ravel() for image in (*self._shown().values(), self.background)]
        values = np.concatenate(every)
        return {"cmap": "gray", "clim": (values.min(), values.max()), **kwargs}

    def _draw(
        self, ax: Axes, image: NDArray[np.floating], title: str, options: dict[str, Any]
    ) -> None:
        ax.set_title(title)
        if image.ndim == 3:
            low, high = self.background.min(), self.background.max()
            image = np.clip((image - low) / ((high - low) or 1.0), 0, 1)
        ax.imshow(image, **options)
        ax.set(xticks=[], yticks=[])

    def _hidden(self) -> NDArray[np.bool_]:
        """Return the places where the background was never seen, (height, width)."""
        seen = np.asarray(self.background_seen).reshape(*self.background.shape[:2], -1)
        hidden: NDArray[np.bool_] = np.logical_not(seen.all(2))
        return hidden

    def _mark(self, ax: Axes, posterior: NDArray[np.floating]) -> None:
        """Outline the most probable window."""
        height, width = self.template.shape[:2]
        if self.absent > posterior.max():
            ax.set_title(f"image ({self._found()})")
            return
        row, column = np.unravel_index(posterior.argmax(), posterior.shape)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * [width, height]
        x, y = (corners + np.array([column - 0.5, row - 0.5])).T
        ax.plot(x, y, color="white", lw=4)
        ax.plot(x, y, color=color_of(2), lw=2)

    def _draw_posterior(self, ax: Axes, posterior: NDArray[np.floating]) -> None:
        ax.set_title(self._posterior_title())
        if posterior.shape[0] == 1:
            self._draw_area(ax, posterior[0])
            ax.set_xlabel("left edge of the template (pixels)")
        else:
            picture = ax.imshow(posterior, vmin=0)
            ax.set(xlabel="left edge (pixels)", ylabel="top edge (pixels)")
            ax.figure.colorbar(picture, ax=ax, label="probability")

    def _posterior_title(self) -> str:
        absent = f" (absent: {self.absent:.2f})" if self.absent else ""
        return f"posterior of the shift{absent}"

    def _draw_area(self, ax: Axes, posterior: NDArray[np.floating]) -> None:
        """Draw probabilities as an area, with a point at the largest."""
        places = np.arange(len(posterior))
        color = color_of(2)
        ax.fill_between(places, posterior, step="mid", color=color, alpha=0.4, linewidth=0)
        ax.step(places, posterior, where="mid", color=color, lw=1)
        ax.plot(posterior.argmax(), posterior.max(), "o", color=color, ms=6)
        ax.set(ylabel="probability", ylim=(0, 1.08))

    def _plot_signals(self, kwargs: dict[str, Any]) -> Self:
        """Draw template, background, signal and posterior as curves, one below the other."""
        import matplotlib.pyplot as plt

        n_rows = 2 if self.image is None else 4
        figure, grid = plt.subplots(
            n_rows, 1, figsize=(8, 1.8 * n_rows), squeeze=False, layout="constrained"
        )
        axes = grid[:, 0]
        options = {"color": color_of(0), "lw": 1.2, **kwargs}
        if self.background.ndim == 3 and "color" not in kwargs:
            del options["color"]  # a color for each channel
        self._draw_templates(axes[0], options)
        self._draw_signal(axes[1], self.background, "background", options)
        hidden = self._hidden()[0]
        if hidden.any():
            axes[1].set_title("background (hatched: never seen)")
            axes[1].fill_between(
                np.arange(len(hidden)),
                0,
                1,
                where=hidden,
                step="mid",
                transform=axes[1].get_xaxis_transform(),
                facecolor="none",
                edgecolor="gray",
                hatch="////",
            )
        if self.image is not None and self.posterior is not None:
            self._draw_signal(axes[2], self.image, f"signal ({self._found()})", options)
            self._mark_signal(axes[2], self.posterior[0])
            self._draw_area(axes[3], self.posterior[0])
            axes[3].set(title=self._posterior_title(), xlabel="start of the template (sample)")
            for ax in axes[2:]:
                ax.sharex(axes[1])
        self.axes_, self.figure_ = grid, figure
        return self

    def _draw_templates(self, ax: Axes, options: dict[str, Any]) -> None:
        shown = self._shown()
        if len(shown) == 1:
            self._draw_signal(ax, self.template, self.title, options)
            return
        for i, (title, template) in enumerate(shown.items()):
            own = {**options, "color": color_of(i), "ls": LINES[i % len(LINES)]}
            self._draw_signal(ax, template, "templates", own)
            ax.lines[-1].set_label(title)
        ax.legend(fontsize="small")

    def _draw_signal(
        self, ax: Axes, signal: NDArray[np.floating], title: str, options: dict[str, Any]
    ) -> None:
        ax.plot(np.arange(signal.shape[1]), signal[0], **options)
        ax.set(title=title, xlabel="sample", ylabel="value")
        ax.margins(x=0.01)

    def _mark_signal(self, ax: Axes, posterior: NDArray[np.floating]) -> None:
        """Shade the most probable window, and draw the template there."""
        if self.absent > posterior.max():
            return
        start, width = int(posterior.argmax()), self.template.shape[1]
        ax.axvspan(start - 0.5, start + width - 0.5, alpha=0.15, color=color_of(2))
        places = start + np.arange(width)
        lines = ax.plot(places, self.template[0], color=color_of(2), lw=2)
        lines[0].set_label("template")
        ax.legend(loc="upper right", fontsize="small")
