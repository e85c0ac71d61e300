"""Pictures of fitted mixtures. matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skem.display._checks import check_has

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MixtureDisplay", "SegmentationDisplay"]

N_COLORS = 10  # the length of matplotlib's color cycle


class MixtureDisplay:
    """Rows and components of a mixture in the plane of two features.

    Each component has two ellipses around its mean, at 1 and 2 standard deviations. Their
    points have a Mahalanobis distance of 1 and 2 from the mean, under the covariance of the
    two features. Components of weight 0 are left out.

    Parameters
    ----------
    X : ndarray of shape (n_samples, 2)
        The rows.
    components : ndarray of shape (n_samples,)
        The component of each row.
    means : ndarray of shape (n_components, 2)
        The means.
    covariances : ndarray of shape (n_components, 2, 2)
        The covariances.
    weights : ndarray of shape (n_components,)
        The weights.
    feature_names : sequence of two str, default=("feature 0", "feature 1")
        Labels of the axes.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.
    ellipses_ : list of matplotlib.lines.Line2D
        The ellipses, two for each component that has a weight.

    See Also
    --------
    MixtureDisplay.from_estimator : Plot a fitted estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skem import BayesianGMM_MAP, MixtureDisplay
    >>> X = load_iris().data
    >>> model = BayesianGMM_MAP(3, random_state=0).fit(X)
    >>> display = MixtureDisplay.from_estimator(model, X, features=(2, 3))
    """

    def __init__(
        self,
        X: NDArray[np.floating],
        components: NDArray[np.integer],
        means: NDArray[np.floating],
        covariances: NDArray[np.floating],
        weights: NDArray[np.floating],
        *,
        feature_names: tuple[str, str] = ("feature 0", "feature 1"),
    ) -> None:
        self.X = X
        self.components = components
        self.means = means
        self.covariances = covariances
        self.weights = weights
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        features: tuple[int, int] = (0, 1),
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot a fitted estimator.

        Parameters
        ----------
        estimator : BayesianGMM_MAP
            Fitted.
        X : array-like of shape (n_samples, n_features)
            The rows to show.
        features : tuple of two int, default=(0, 1)
            The features to show; the others are integrated out.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.scatter``.

        Returns
        -------
        MixtureDisplay
            The display, drawn.
        """
        check_has(cls.__name__, estimator, "means_", "a mixture such as BayesianGMM_MAP")
        K, D = estimator.means_.shape
        pair = list(features)
        if len(pair) != 2 or not all(0 <= j < D for j in pair):
            raise ValueError(
                f"features must be the indices of two of the {D} features, but it is "
                f"{features!r}."
            )
        own = estimator.covariances_
        if estimator.covariance_type in ("full", "tied"):
            matrices = np.broadcast_to(own, (K, D, D))
        else:
            variances = np.broadcast_to(own.reshape(K, -1), (K, D))
            matrices = variances[:, :, None] * np.eye(D)
        names = getattr(estimator, "feature_names_in_", [f"feature {j}" for j in range(D)])
        display = cls(
            np.asarray(X, dtype=float)[:, pair],
            estimator.predict(X),
            estimator.means_[:, pair],
            matrices[np.ix_(range(K), pair, pair)],
            estimator.weights_,
            feature_names=(str(names[pair[0]]), str(names[pair[1]])),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw points and ellipses.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.scatter``.

        Returns
        -------
        MixtureDisplay
            This display.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        options = {"s": 8, "alpha": 0.5, "linewidths": 0, **kwargs}
        self.ellipses_: list[Any] = []
        for k in np.flatnonzero(self.weights > 0):
            own, color = self.X[self.components == k], f"C{k % N_COLORS}"
            ax.scatter(own[:, 0], own[:, 1], **{"color": color, **options})
            ax.plot(*self.means[k], marker="+", color="black", ms=8, zorder=3)
            for radius, style in ((1, "-"), (2, "--")):
                x, y = _ellipse(self.means[k], self.covariances[k], radius)
                self.ellipses_ += ax.plot(x, y, style, color=color, lw=1.5, zorder=2)
        ax.set(xlabel=self.feature_names[0], ylabel=self.feature_names[1])
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _ellipse(
    mean: NDArray[np.floating], covariance: NDArray[np.floating], radius: float
) -> NDArray[np.floating]:
    """Return points (2, n) at a Mahalanobis distance of ``radius`` from the mean."""
    values, vectors = np.linalg.eigh(covariance)
    angles = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    root = vectors * np.sqrt(np.maximum(values, 0))
    return mean[:, None] + radius * root @ circle


class SegmentationDisplay:
    """An image, its segments in their mean colors, and their boundaries.

    Parameters
    ----------
    image : ndarray of shape (height, width[, channels])
        The image: gray, or with three channels.
    segments : ndarray of int, of shape (height, width)
        The component of each pixel.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes, of shape (3,)
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

    def __init__(self, image: NDArray[Any], segments: NDArray[np.integer]) -> None:
        self.image = image
        self.segments = segments

    @classmethod
    def from_estimator(cls, estimator: Any, image: ArrayLike, **kwargs: Any) -> Self:
        """Segment an image by the most probable component of each pixel.

        Parameters
        ----------
        estimator : BayesianGMM_MAP
            Fitted to pixels, one in each row.
        image : array-like of shape (height, width[, channels])
            The image.
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
        segments = estimator.predict(image.reshape(height * width, -1))
        return cls(image, segments.reshape(height, width)).plot(**kwargs)

    def plot(self, **kwargs: Any) -> Self:
        """Draw the three panels in a new figure.

        Parameters
        ----------
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        SegmentationDisplay
            This display.
        """
        import matplotlib.pyplot as plt

        height, width = self.segments.shape
        figure, axes = plt.subplots(
            1, 3, figsize=(10, 0.6 + 3.3 * height / width), layout="constrained"
        )
        image = self._shown(self.image)
        means = np.zeros_like(image)
        for k in np.unique(self.segments):
            means[self.segments == k] = image[self.segments == k].mean(0)
        panels = {"image": image, "components": means, "boundaries": image}
        for ax, (title, picture) in zip(axes, panels.items(), strict=True):
            ax.imshow(picture, **{"cmap": "gray", "vmin": 0, "vmax": 1, **kwargs})
            ax.set(title=title, xticks=[], yticks=[])
        self._outline(axes[2])
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
