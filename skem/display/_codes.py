"""Pictures of the codes of autoencoders. matplotlib is imported when one is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skem.display._checks import (
    Display,
    check_has,
    class_masks,
    counted,
    name_of,
    shape_of,
    unwrapped,
)
from skem.display._images import GAP, ImageGrid, as_colors, as_images, gray_style
from skem.display._style import add_legend, changed, color_of, full_names, key, marker_of

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes

__all__ = [
    "EmbeddingDisplay",
    "LatentGridDisplay",
    "MorphDisplay",
    "ReconstructionDisplay",
    "morph",
]

MAX_CLASSES = 20  # a color scale shows more numbers than this


class LatentGridDisplay(ImageGrid):
    """A sheet of images, decoded from a square grid of codes.

    Parameters
    ----------
    decoded : ndarray of shape (n_codes, n_codes, n_features)
        The decoded rows. The second code varies along the first axis, from high to low.
    values : ndarray of shape (n_codes,)
        The values of both codes, from low to high.
    components : tuple of two int, default=(0, 1)
        The two components of the code that vary.
    image_shape : tuple of int, default=None
        Height and width in pixels, and channels of a color image; None means squares.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.

    See Also
    --------
    LatentGridDisplay.from_estimator : Plot a fitted estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import LatentGridDisplay, VAEEstimator
    >>> X = load_digits().data / 16
    >>> model = VAEEstimator(2, max_iter=5, random_state=0).fit(X)
    >>> display = LatentGridDisplay.from_estimator(model, n_codes=8)
    """

    def __init__(
        self,
        decoded: ArrayLike,
        values: ArrayLike,
        *,
        components: tuple[int, int] = (0, 1),
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.images = as_images(decoded, image_shape)
        self.values, self.components = np.asarray(values), components
        self.style = gray_style(self.images)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        n_codes: int = 21,
        limit: float = 3.0,
        components: tuple[int, int] = (0, 1),
        image_shape: tuple[int, ...] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot a fitted estimator.

        Parameters
        ----------
        estimator : VAEEstimator, or a transformer with ``inverse_transform``
            Fitted, with at least two codes.
        n_codes : int, default=21
            Number of images per row and per column.
        limit : float, default=3.0
            The two components vary between -limit and limit; the others are 0.
        components : tuple of two int, default=(0, 1)
            The two components of the code that vary, to the right and upwards.
        image_shape : tuple of int, default=None
            Height and width in pixels, and channels. None takes the shape of the estimator,
            or squares if it has none.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        LatentGridDisplay
            The display, drawn.
        """
        estimator = getattr(estimator, "best_estimator_", estimator)
        check_has(cls.__name__, estimator, "inverse_transform", "an estimator that decodes")
        n_components = len(estimator.get_feature_names_out())
        _check_components(cls.__name__, components, n_components)
        _check_count("n_codes", n_codes, 2)
        values = np.linspace(-limit, limit, n_codes)
        codes = np.zeros((n_codes, n_codes, n_components))
        codes[:, :, components[0]] = values
        codes[:, :, components[1]] = values[::-1, None]
        rows = np.asarray(estimator.inverse_transform(codes.reshape(-1, n_components)))
        display = cls(
            rows.reshape(n_codes, n_codes, -1),
            values,
            components=components,
            image_shape=shape_of(estimator, image_shape),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the sheet.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        LatentGridDisplay
            This display.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(7, 7), layout="constrained")
        super().plot(ax=ax, **kwargs)
        marks = np.unique(np.linspace(0, len(self.values) - 1, 5).round().astype(int))
        height, width = (size + GAP for size in self.images.shape[2:4])
        ax.set_facecolor("black")
        ax.set_xticks((marks + 0.5) * width, [f"{v:.2g}" for v in self.values[marks]])
        ax.set_yticks((marks + 0.5) * height, [f"{v:.2g}" for v in self.values[::-1][marks]])
        ax.set(xlabel=f"code {self.components[0]}", ylabel=f"code {self.components[1]}")
        return self


class ReconstructionDisplay(ImageGrid):
    """Images, with their reconstructions below.

    Parameters
    ----------
    original : ndarray of shape (n_images, n_features)
        The images.
    reconstructed : ndarray of shape (n_images, n_features)
        The redrawn images.
    image_shape : tuple of int, default=None
        Height and width in pixels, and channels of a color image; None means squares.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.

    See Also
    --------
    ReconstructionDisplay.from_estimator : Plot a fitted estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import ReconstructionDisplay, VAEEstimator
    >>> X = load_digits().data / 16
    >>> model = VAEEstimator(8, max_iter=5, random_state=0).fit(X)
    >>> display = ReconstructionDisplay.from_estimator(model, X[:10])
    """

    row_names = ("original", "redrawn")

    def __init__(
        self,
        original: ArrayLike,
        reconstructed: ArrayLike,
        *,
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.images = np.stack([as_images(x, image_shape) for x in (original, reconstructed)])
        self.style = gray_style(self.images)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        image_shape: tuple[int, ...] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot a fitted estimator.

        Parameters
        ----------
        estimator : estimator with ``reconstruct``, or a pipeline or search that ends in one
            Fitted. The picture of a pipeline shows X as its last step gets it.
        X : array-like of shape (n_images, n_features)
            The images.
        image_shape : tuple of int, default=None
            Height and width in pixels, and channels. None takes the shape of the estimator,
            or squares if it has none.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        ReconstructionDisplay
            The display, drawn.
        """
        inner = unwrapped(estimator)
        kinds = "an estimator with reconstruct"
        check_has(cls.__name__, inner.model, "reconstruct", kinds)
        shape = shape_of(estimator, image_shape)
        rows = inner.transform(X)
        redrawn = np.asarray(inner.model.reconstruct(rows))
        original = np.asarray(rows, dtype=float).reshape(redrawn.shape)
        return cls(original, redrawn, image_shape=shape).plot(ax=ax, **kwargs)


class EmbeddingDisplay(Display):
    """Codes as points, with a color and a marker for each label.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, 2)
        The two components of each code.
    labels : array-like of shape (n_samples,), default=None
        The class, or a number, of each row.
    names : tuple of two str, default=("code 0", "code 1")
        The labels of the two axes.
    label_name : str, default=None
        Title of the legend.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.

    See Also
    --------
    EmbeddingDisplay.from_estimator : Plot the codes of some rows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import EmbeddingDisplay, VAEEstimator
    >>> X, y = load_digits(return_X_y=True)
    >>> model = VAEEstimator(2, max_iter=5, random_state=0).fit(X / 16)
    >>> display = EmbeddingDisplay.from_estimator(model, X / 16, y)
    """

    def __init__(
        self,
        codes: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        names: tuple[str, str] = ("code 0", "code 1"),
        label_name: str | None = None,
    ) -> None:
        self.codes = np.asarray(codes)
        self.labels = None if labels is None else column_or_1d(labels)
        check_consistent_length(self.codes, self.labels)
        self.names = names
        self.label_name = label_name

    def _about(self) -> str:
        parts = [counted(len(self.codes), "row"), f"{self.names[0]!r} and {self.names[1]!r}"]
        if self.labels is not None:
            parts.append(counted(len(np.unique(self.labels)), "label"))
        return ", ".join(parts)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        components: tuple[int, int] = (0, 1),
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot the codes of some rows.

        Parameters
        ----------
        estimator : VAEEstimator, or another transformer
            Fitted, with at least two codes.
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,), default=None
            The class, or a number, of each row.
        components : tuple of two int, default=(0, 1)
            The two components of the code to draw, to the right and upwards.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.scatter``.

        Returns
        -------
        EmbeddingDisplay
            The display, drawn.
        """
        check_has(cls.__name__, estimator, "transform", "an estimator with transform")
        codes = np.asarray(estimator.transform(X))
        _check_components(cls.__name__, components, codes.shape[1])
        first, second = components
        names = f"code {first}", f"code {second}"
        display = cls(codes[:, [first, second]], y, names=names, label_name=name_of(y))
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.scatter``.

        Returns
        -------
        EmbeddingDisplay
            This display.
        """
        import matplotlib.pyplot as plt

        is_own = ax is None
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 5.4), layout="constrained")
        options = {"s": 12, "alpha": 0.7, "linewidth": 0, **full_names(kwargs, "scatter")}
        x, y = self.codes.T
        if self.labels is None:
            ax.scatter(x, y, **{"color": color_of(0), **options})
        elif self.labels.dtype.kind in "buif" and len(np.unique(self.labels)) > MAX_CLASSES:
            options.pop("color", None)  # the labels are the colors
            points = ax.scatter(x, y, c=self.labels, **options)
            ax.figure.colorbar(points, ax=ax, label=self.label_name)
        else:
            keys = []
            for i, (label, own) in enumerate(class_masks(self.labels, MAX_CLASSES).items()):
                style = changed({"color": color_of(i), "marker": marker_of(i)}, options)
                ax.scatter(x[own], y[own], **{**style, **options})
                keys.append(key(label, **style))
            add_legend(ax, keys, outside=is_own, n_points=len(x), title=self.label_name)
        ax.set(xlabel=self.names[0], ylabel=self.names[1])
        self.ax_, self.figure_ = ax, ax.figure
        return self


@dataclass(frozen=True, eq=False, repr=False)
class MorphDisplay(Display):
    """A walk through codes, and the image at each step.

    Parameters
    ----------
    codes : ndarray of shape (n_frames, n_components)
        The codes.
    images : ndarray of shape (n_frames, height, width[, channels])
        The decoded images.

    See Also
    --------
    morph : Walk between the codes of some rows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import VAEEstimator, morph
    >>> X = load_digits().data / 16
    >>> model = VAEEstimator(2, max_iter=5, random_state=0).fit(X)
    >>> morph(model, X[:3], n_steps=10).images.shape
    (30, 8, 8)
    """

    codes: NDArray[np.floating]
    images: NDArray[np.floating]

    def _about(self) -> str:
        height, width = self.images.shape[1:3]
        return f"{len(self.images)} frames of {height} x {width} pixels"

    def animate(
        self, *, interval: float = 60.0, ax: Axes | None = None, **kwargs: Any
    ) -> FuncAnimation:
        """Return the walk as an animation.

        Parameters
        ----------
        interval : float, default=60.0
            Milliseconds per frame.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        matplotlib.animation.FuncAnimation
            Its method ``save("morph.gif")`` writes a GIF (with pillow), and
            ``to_html5_video()`` or ``to_jshtml()`` show it in a notebook.
        """
        import matplotlib.pyplot as plt
        from matplotlib.animation import FuncAnimation

        if ax is None:
            _, ax = plt.subplots(figsize=(2.4, 2.4), layout="constrained")
        ax.set_axis_off()
        style = gray_style(self.images)
        limits = style["vmin"], style["vmax"]
        picture = ax.imshow(as_colors(self.images[0], *limits), **{**style, **kwargs})

        def draw(i: int) -> tuple[Any]:
            picture.set_data(as_colors(self.images[i], *limits))
            return (picture,)

        frames = len(self.images)
        figure: Any = ax.figure
        return FuncAnimation(figure, draw, frames, interval=interval, blit=True)


def morph(
    estimator: Any,
    X: ArrayLike,
    n_steps: int = 20,
    *,
    image_shape: tuple[int, ...] | None = None,
) -> MorphDisplay:
    """Walk in straight lines through the codes of some images, and back to the first.

    Parameters
    ----------
    estimator : VAEEstimator, or a transformer with ``inverse_transform``
        Fitted.
    X : array-like of shape (n_images, n_features)
        At least two images, in the order of the walk.
    n_steps : int, default=20
        Number of frames from one image to the next.
    image_shape : tuple of int, default=None
        Height and width in pixels, and channels. None takes the shape of the estimator, or
        squares if it has none.

    Returns
    -------
    MorphDisplay
        The codes and the ``n_images * n_steps`` frames, with a method ``animate``.

    Raises
    ------
    ValueError
        If there are fewer than two images, or no steps.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import VAEEstimator, morph
    >>> X = load_digits().data / 16
    >>> model = VAEEstimator(2, max_iter=5, random_state=0).fit(X)
    >>> walk = morph(model, X[:3], n_steps=10)
    >>> walk.codes.shape
    (30, 2)
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    check_has("morph", estimator, "inverse_transform", "an estimator that decodes")
    _check_count("n_steps", n_steps, 1)
    stops = np.asarray(estimator.transform(X))
    if len(stops) < 2:
        raise ValueError("X must hold at least two images to walk between, but it has 1.")
    share = np.arange(n_steps)[:, None] / n_steps
    legs = zip(stops, np.roll(stops, -1, axis=0), strict=True)
    codes = np.concatenate([(1 - share) * here + share * there for here, there in legs])
    rows = np.asarray(estimator.inverse_transform(codes))
    return MorphDisplay(codes, as_images(rows, shape_of(estimator, image_shape)))


def _check_components(name: str, components: tuple[int, int], n_components: int) -> None:
    """Raise ValueError unless components are two different indices of a code."""
    if n_components < 2:
        raise ValueError(f"{name} needs n_components >= 2, but the model has {n_components}.")
    if len(set(components)) != 2 or not all(0 <= c < n_components for c in components):
        raise ValueError(
            f"components must be two different integers from 0 to {n_components - 1}, but it "
            f"is {components!r}."
        )


def _check_count(name: str, value: Any, minimum: int) -> None:
    """Raise ValueError unless the value is an integer of at least ``minimum``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
        raise ValueError(
            f"{name} must be an integer of at least {minimum}, but it is {value!r}."
        )
