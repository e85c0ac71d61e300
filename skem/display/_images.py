"""Pictures that are grids of images. matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skem.display._checks import Display, check_has, reshaped, shape_of, unwrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ChainsDisplay", "FiltersDisplay", "ImputationDisplay"]

CELL, GAP = 0.75, 1  # size of an image in inches, and pixels between images


class ImageGrid(Display):
    """Images in rows and columns; NaN is drawn in blue."""

    images: NDArray[np.floating]  # (n_rows, n_columns, height, width)
    row_names: Sequence[str] = ()
    column_names: Sequence[str] = ()
    title = ""
    style: dict[str, Any]

    def _about(self) -> str:
        n_rows, n_columns, height, width = self.images.shape[:4]
        return f"{n_rows} x {n_columns} images of {height} x {width} pixels"

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        self
            This display.
        """
        import matplotlib as mpl
        import matplotlib.pyplot as plt

        n_rows, n_columns, height, width = self.images.shape[:4]
        if ax is None:
            size = CELL * n_columns + 1.2, CELL * n_rows * height / width + 0.5
            _, ax = plt.subplots(figsize=size, layout="constrained")
        options = {**self.style, **kwargs}
        limits = options["vmin"], options["vmax"]
        if "norm" in kwargs:
            del options["vmin"], options["vmax"]
        colors = mpl.colormaps.get_cmap(options["cmap"]).with_extremes(bad="cornflowerblue")
        for row in range(n_rows):
            for column in range(n_columns):
                left, top = column * (width + GAP), row * (height + GAP)
                ax.imshow(
                    as_colors(self.images[row, column], *limits),
                    **{**options, "cmap": colors},
                    extent=(left, left + width, top + height, top),
                )
        ax.set(xlim=(-GAP, n_columns * (width + GAP)), ylim=(n_rows * (height + GAP), -GAP))
        ax.set_xticks((np.arange(n_columns) + 0.5) * (width + GAP), self._names("column"))
        ax.set_yticks((np.arange(n_rows) + 0.5) * (height + GAP), self._names("row"))
        ax.tick_params(length=0)
        ax.set(title=self.title, facecolor="0.8", aspect="equal")
        ax.spines[:].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _names(self, side: str) -> Sequence[str]:
        names = self.row_names if side == "row" else self.column_names
        return names or [""] * self.images.shape[side == "column"]


def as_images(rows: ArrayLike, image_shape: tuple[int, ...] | None) -> NDArray[np.floating]:
    """Return rows as images (n, height, width[, channels]); by default they are squares."""
    values = np.asarray(rows, dtype=float)
    side = math.isqrt(values.shape[-1])
    shape = (side, side) if image_shape is None else tuple(image_shape)
    if math.prod(shape) != values.shape[-1] or len(shape) not in (2, 3):
        raise ValueError(
            f"image_shape={image_shape!r} does not fit {values.shape[-1]} features: give the "
            "height and width of the images, and their channels if they have colors."
        )
    return values.reshape(*values.shape[:-1], *shape)


def gray_style(images: NDArray[np.floating]) -> dict[str, Any]:
    """Return options of ``imshow``: gray, from the smallest value to the largest."""
    return {"cmap": "gray", "vmin": np.nanmin(images), "vmax": np.nanmax(images)}


def as_colors(image: NDArray[np.floating], low: float, high: float) -> NDArray[np.floating]:
    """Return the image as ``imshow`` takes it; colors are scaled to 0...1."""
    if image.ndim == 2:
        return image
    shown = np.clip((image - low) / ((high - low) or 1.0), 0, 1)
    return shown[..., 0] * (high - low) + low if shown.shape[-1] == 1 else shown


class FiltersDisplay(ImageGrid):
    """The weights of hidden units, as images.

    Parameters
    ----------
    filters : ndarray of shape (n_filters, n_features)
        A row for each hidden unit.
    image_shape : tuple of two int, default=None
        Height and width in pixels; None means squares.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.

    See Also
    --------
    FiltersDisplay.from_estimator : Plot a fitted estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import BernoulliRBMCD, FiltersDisplay
    >>> X = (load_digits().data > 7).astype(float)
    >>> model = BernoulliRBMCD(16, random_state=0).fit(X)
    >>> display = FiltersDisplay.from_estimator(model)
    """

    title = "weights of hidden units"

    def __init__(
        self, filters: ArrayLike, *, image_shape: tuple[int, int] | None = None
    ) -> None:
        images = as_images(filters, image_shape)
        n_columns = math.ceil(math.sqrt(len(images)))
        grid = np.zeros((-(-len(images) // n_columns) * n_columns, *images.shape[1:]))
        grid[: len(images)] = images
        self.images = grid.reshape(-1, n_columns, *images.shape[1:])
        limit = float(np.abs(images).max()) or 1.0
        self.style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        n_filters: int = 64,
        image_shape: tuple[int, int] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot a fitted estimator.

        Parameters
        ----------
        estimator : BernoulliRBMCD, or a pipeline or search that ends in one
            Fitted.
        n_filters : int, default=64
            The largest number of filters; those with the largest weights are drawn.
        image_shape : tuple of two int, default=None
            Height and width in pixels; None means squares.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        FiltersDisplay
            The display, drawn.
        """
        model = unwrapped(estimator).model
        check_has(cls.__name__, model, "components_", "a BernoulliRBMCD")
        strength = (model.components_**2).sum(1)
        chosen = np.sort(np.argsort(-strength, kind="stable")[:n_filters])
        display = cls(model.components_[chosen], image_shape=image_shape)
        return display.plot(ax=ax, **kwargs)


class ChainsDisplay(ImageGrid):
    """Gibbs chains: one row for each chain, one column for each number of steps.

    Parameters
    ----------
    states : ndarray of shape (n_chains, n_times, n_features)
        The visible units.
    n_steps : sequence of int
        The numbers of Gibbs steps before each state.
    image_shape : tuple of two int, default=None
        Height and width in pixels; None means squares.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.

    See Also
    --------
    ChainsDisplay.from_estimator : Plot a fitted estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skem import BernoulliRBMCD, ChainsDisplay
    >>> X = (load_digits().data > 7).astype(float)
    >>> model = BernoulliRBMCD(16, random_state=0).fit(X)
    >>> display = ChainsDisplay.from_estimator(model, X[:4], random_state=0)
    """

    title = "Gibbs steps"

    def __init__(
        self,
        states: ArrayLike,
        n_steps: Sequence[int],
        *,
        image_shape: tuple[int, int] | None = None,
    ) -> None:
        self.images = as_images(states, image_shape)
        self.column_names = [str(n) for n in n_steps]
        self.style = {"cmap": "gray", "vmin": 0, "vmax": 1}

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        n_steps: Sequence[int] = (0, 1, 3, 10, 30, 100, 300, 1000),
        random_state: int | np.random.RandomState | None = None,
        image_shape: tuple[int, int] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Run chains from given rows.

        Parameters
        ----------
        estimator : BernoulliRBMCD, or a pipeline or search that ends in one
            Fitted.
        X : array-like of shape (n_chains, n_features)
            The rows that the chains start from.
        n_steps : sequence of int, default=(0, 1, 3, 10, 30, 100, 300, 1000)
            The numbers of steps after which chains are drawn, in increasing order.
        random_state : int, RandomState or None, default=None
            Seed of the chains.
        image_shape : tuple of two int, default=None
            Height and width in pixels; None means squares.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        ChainsDisplay
            The display, drawn.
        """
        from sklearn.utils import check_random_state

        inner = unwrapped(estimator)
        check_has(cls.__name__, inner.model, "gibbs", "a BernoulliRBMCD")
        if list(n_steps) != sorted(n_steps) or not len(n_steps) or n_steps[0] < 0:
            raise ValueError(
                f"n_steps must hold increasing numbers of at least 0, but it is {n_steps!r}."
            )
        rng = check_random_state(random_state)
        states, now, v = [], 0, np.asarray(inner.transform(X), dtype=float)
        for n in n_steps:
            v = inner.model.gibbs(v, n - now, rng) if n > now else v
            now = n
            states.append(v)
        display = cls(np.stack(states, axis=1), n_steps, image_shape=image_shape)
        return display.plot(ax=ax, **kwargs)


class ImputationDisplay(ImageGrid):
    """Images with missing pixels, the completed images, and the true ones if they are known.

    Parameters
    ----------
    seen : ndarray of shape (n_images, n_features)
        The images with NaN where pixels are missing.
    completed : ndarray of shape (n_images, n_features)
        The same images, filled.
    true : ndarray of shape (n_images, n_features), default=None
        The complete images, if they are known. The gray values range from the smallest to the
        largest one of these, otherwise of the seen ones.
    image_shape : tuple of two int, default=None
        Height and width in pixels; None means squares.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Its figure.

    See Also
    --------
    ImputationDisplay.from_estimator : Hide pixels, and let an estimator fill them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skem import BernoulliRBMCD, ImputationDisplay
    >>> X = (load_digits().data > 7).astype(float)
    >>> model = BernoulliRBMCD(16, random_state=0).fit(X[:1500])
    >>> missing = np.random.default_rng(0).random((6, 64)) < 0.5
    >>> display = ImputationDisplay.from_estimator(model, X[1500:1506], missing)
    """

    def __init__(
        self,
        seen: ArrayLike,
        completed: ArrayLike,
        true: ArrayLike | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
        shown = (seen, completed) if true is None else (seen, completed, true)
        self.images = np.stack([as_images(x, image_shape) for x in shown])
        self.row_names = ("seen", "completed", "true")[: len(shown)]
        self.style = gray_style(self.images[0 if true is None else 2])

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        missing: ArrayLike | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Let an estimator fill missing pixels, or pixels that are hidden from it.

        Parameters
        ----------
        estimator : estimator with ``impute``, or an imputer with ``transform``
            Fitted. It may end a pipeline or a search. The picture of a pipeline shows X as
            its last step gets it.
        X : array-like of shape (n_images, n_features)
            The images; NaN marks a missing pixel.
        missing : array-like of bool of shape (n_images, n_features), default=None
            The pixels to hide; X should then be complete. None fills those that are missing.
        image_shape : tuple of int, default=None
            Height and width in pixels, and channels. None takes the shape of the estimator,
            or squares if it has none.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.imshow``.

        Returns
        -------
        ImputationDisplay
            The display, drawn.
        """
        kinds = "an estimator with impute, or an imputer"
        inner = unwrapped(estimator)
        check_has(cls.__name__, inner.model, "transform", kinds)
        images = np.asarray(inner.transform(X), dtype=float)
        hidden = False if missing is None else reshaped("missing", missing, images.shape)
        seen = np.where(hidden, np.nan, images)
        fill = getattr(inner.model, "impute", inner.model.transform)
        true, shape = None if missing is None else images, shape_of(estimator, image_shape)
        display = cls(seen, np.asarray(fill(seen)), true, image_shape=shape)
        return display.plot(ax=ax, **kwargs)
