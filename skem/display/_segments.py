"""Pictures of segmented images. matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skem.display._checks import Display, check_has, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SegmentationDisplay"]


class SegmentationDisplay(Display):
    """An image, its segments in their mean colors, and their boundaries.

    Parameters
    ----------
    image : ndarray of shape (height, width[, channels])
        The image: gray, or with three channels.
    segments : ndarray of int, of shape (height, width)
        The component of each pixel.
    uncertainty : ndarray of shape (height, width), default=None
        The probability that each pixel belongs to another component than its own.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes, of shape (3,), or (4,) with ``uncertainty``
        The panels of the last plot.
    figure_ : matplotlib.figure.Figure
        Their figure.

    See Also
    --------
    SegmentationDisplay.from_estimator : Segment an image with a fitted estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_image
    >>> from skem import BayesianGMM_MAP, SegmentationDisplay
    >>> image = load_sample_image("flower.jpg")[::8, ::8]
    >>> model = BayesianGMM_MAP(3, random_state=0).fit(image.reshape(-1, 3))
    >>> display = SegmentationDisplay.from_estimator(model, image)
    """

    def __init__(
        self,
        image: NDArray[Any],
        segments: NDArray[np.integer],
        *,
        uncertainty: NDArray[np.floating] | None = None,
    ) -> None:
        self.image = image
        self.segments = segments
        self.uncertainty = uncertainty

    def _about(self) -> str:
        height, width = self.segments.shape
        segments = counted(len(np.unique(self.segments)), "segment")
        return f"{height} x {width} pixels, {segments}"

    @classmethod
    def from_estimator(
        cls, estimator: Any, image: ArrayLike, *, uncertainty: bool = False, **kwargs: Any
    ) -> Self:
        """Segment an image by the most probable component of each pixel.

        Parameters
        ----------
        estimator : BayesianGMM_MAP, or a pipeline or search that ends in one
            Fitted to pixels, one in each row.
        image : array-like of shape (height, width[, channels])
            The image.
        uncertainty : bool, default=False
            Whether to add a map of 1 - max_k P(k | pixel), the probability that a pixel
            belongs to another segment.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        SegmentationDisplay
            The display, drawn.
        """
        check_has(cls.__name__, estimator, "predict", "a mixture such as BayesianGMM_MAP")
        image = np.asarray(image)
        if image.ndim not in (2, 3):
            raise ValueError(
                "image must have the shape (height, width) or (height, width, channels), but "
                f"its shape is {image.shape}."
            )
        height, width = image.shape[:2]
        n_channels = image[0, 0].size
        n_features = getattr(estimator, "n_features_in_", n_channels)
        if n_features != n_channels:
            raise ValueError(
                f"the pixels of image have {n_channels} channels, but the mixture was fitted "
                f"to rows of {n_features} features: fit it to image.reshape(-1, {n_channels})."
            )
        pixels = image.reshape(height * width, -1)
        segments = np.asarray(estimator.predict(pixels)).reshape(height, width)
        doubt = None
        if uncertainty:
            check_has(cls.__name__, estimator, "predict_proba", "a mixture with predict_proba")
            doubt = 1 - np.asarray(estimator.predict_proba(pixels)).max(1)
            doubt = doubt.reshape(height, width)
        return cls(image, segments, uncertainty=doubt).plot(**kwargs)

    def plot(self, **kwargs: Any) -> Self:
        """Draw the panels in a new figure.

        Parameters
        ----------
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``, except for the map of uncertainty.

        Returns
        -------
        SegmentationDisplay
            This display.
        """
        import matplotlib.pyplot as plt

        height, width = self.segments.shape
        n_panels = 3 if self.uncertainty is None else 4
        size = 3.4 * n_panels, 0.6 + 3.3 * height / width
        figure, axes = plt.subplots(1, n_panels, figsize=size, layout="constrained")
        image = self._shown(self.image)
        means = np.zeros_like(image)
        for k in np.unique(self.segments):
            means[self.segments == k] = image[self.segments == k].mean(0)
        panels = {"image": image, "components": means, "boundaries": image}
        for ax, (title, picture) in zip(axes[:3], panels.items(), strict=True):
            ax.imshow(picture, **{"cmap": "gray", "vmin": 0, "vmax": 1, **kwargs})
            ax.set(title=title, xticks=[], yticks=[])
        self._outline(axes[2])
        if self.uncertainty is not None:
            picture = axes[3].imshow(self.uncertainty, cmap="magma", vmin=0)
            axes[3].set(title="uncertainty", xticks=[], yticks=[])
            figure.colorbar(picture, ax=axes[3], label="1 - max P(segment)", shrink=0.9)
        self.axes_, self.figure_ = axes, figure
        return self

    def _shown(self, image: NDArray[Any]) -> NDArray[np.floating]:
        """Return the image as floats between 0 and 1; values of uint8 are divided by 255."""
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[:, :, 0]
        if image.ndim == 3 and image.shape[2] != 3:
            image = image.mean(2)
        if image.dtype == np.uint8:
            return image / 255
        image = image.astype(float)
        low, high = float(np.nanmin(image)), float(np.nanmax(image))
        if low < 0 or high > 1:
            image = (image - low) / ((high - low) or 1.0)
        return np.nan_to_num(image)

    def _outline(self, ax: Axes) -> None:
        """Draw lines between pixels of different segments."""
        from matplotlib.collections import LineCollection

        rows, columns = np.nonzero(np.diff(self.segments, axis=1))
        upright = np.stack([[columns + 0.5, rows - 0.5], [columns + 0.5, rows + 0.5]])
        rows, columns = np.nonzero(np.diff(self.segments, axis=0))
        level = np.stack([[columns - 0.5, rows + 0.5], [columns + 0.5, rows + 0.5]])
        lines = np.concatenate([upright, level], axis=2).transpose(2, 0, 1)
        ax.add_collection(LineCollection(list(lines), colors="yellow", linewidths=0.8))
