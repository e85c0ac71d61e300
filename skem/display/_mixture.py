"""Pictures of fitted mixtures. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skem.display._checks import (
    Display,
    Unwrapped,
    as_floats,
    check_has,
    class_masks,
    counted,
    name_of,
    unwrapped,
)
from skem.display._style import (
    COLORS,
    LINES,
    MAX_ENTRIES,
    MAX_INSIDE,
    add_legend,
    changed,
    color_of,
    full_names,
    key,
    marker_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MixtureDisplay"]

MAX_FEATURES = 6  # panels of more features would be too small to read
PANEL = 2.2  # size of a panel in inches
N_GRID = 150  # points along each axis of a map of uncertainty
N_BINS = 30  # of a histogram


class Group(NamedTuple):
    """Rows that are drawn alike."""

    label: str
    rows: NDArray[np.bool_]
    color: str
    marker: str
    component: int | None = None


class MixtureDisplay(Display):
    """Rows and components of a mixture in the plane of two features, or of each pair of more.

    Each component has its number at its mean, and two ellipses around it, at 1 and 2 standard
    deviations. Their points have a Mahalanobis distance of 1 and 2 from the mean, under the
    covariance of the two features. Components of weight 0 are left out. With more than two
    features, the panels on the diagonal are histograms of each feature, with the density of
    the mixture and its parts.

    Rows with missing values are hollow, and drawn at their conditional mean given what is
    observed. Rows of a background are crosses.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows, of the features that are shown, without NaN.
    components : ndarray of shape (n_samples,)
        The component of each row; -1 is the background.
    means : ndarray of shape (n_components, n_features)
        The means.
    covariances : ndarray of shape (n_components, n_features, n_features)
        The covariances.
    weights : ndarray of shape (n_components,)
        The weights.
    missing : ndarray of bool of shape (n_samples, n_features), default=None
        The values of X that were missing, and are conditional means.
    labels : array-like of shape (n_samples,), default=None
        Labels by which rows are colored; None takes their components.
    label_name : str, default=None
        Title of the legend of labels.
    feature_names : sequence of str, default=None
        Names of the features; None means "feature 0", "feature 1", ...
    n_left_out : int, default=0
        Number of features that are not shown because they are too many; the legend tells it.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes or None
        The axes of the last plot, if it has one panel.
    axes_ : ndarray of matplotlib.axes.Axes
        The panels of the last plot: of shape (1, 1) for two features, otherwise
        (n_features, n_features), with empty panels above the diagonal.
    figure_ : matplotlib.figure.Figure
        Its figure.
    ellipses_ : list of matplotlib.lines.Line2D
        The ellipses, two for each component that has a weight, panel by panel.

    See Also
    --------
    MixtureDisplay.from_estimator : Plot a fitted estimator.
    CriterionDisplay : Choose the number of components.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skem import BayesianGMM_MAP, MixtureDisplay
    >>> X = load_iris(as_frame=True).data
    >>> model = BayesianGMM_MAP(3, random_state=0).fit(X)
    >>> display = MixtureDisplay.from_estimator(model, X)
    >>> pair = ["petal length (cm)", "petal width (cm)"]
    >>> MixtureDisplay.from_estimator(model, X, features=pair)
    MixtureDisplay(150 rows, 3 components, 'petal length (cm)' and 'petal width (cm)')
    """

    def __init__(
        self,
        X: NDArray[np.floating],
        components: NDArray[np.integer],
        means: NDArray[np.floating],
        covariances: NDArray[np.floating],
        weights: NDArray[np.floating],
        *,
        missing: NDArray[np.bool_] | None = None,
        labels: ArrayLike | None = None,
        label_name: str | None = None,
        feature_names: Sequence[str] | None = None,
        n_left_out: int = 0,
    ) -> None:
        self.X = X
        self.components = components
        self.means = means
        self.covariances = covariances
        self.weights = weights
        self.missing = np.zeros(X.shape, bool) if missing is None else missing
        self.labels = None if labels is None else column_or_1d(labels)
        check_consistent_length(self.X, self.labels)
        self.label_name = label_name
        self.n_left_out = n_left_out
        names = [f"feature {j}" for j in range(X.shape[1])]
        self.feature_names = list(names if feature_names is None else feature_names)

    def _about(self) -> str:
        n_components = int((self.weights > 0).sum())
        names = " and ".join(repr(name.replace("\n", " ")) for name in self.feature_names)
        if len(self.feature_names) > 2:
            names = f"{len(self.feature_names)} features"
        parts = counted(len(self.X), "row"), counted(n_components, "component"), names
        return ", ".join(parts)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        features: Sequence[int | str] | None = None,
        uncertainty: bool = False,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot a fitted estimator.

        Parameters
        ----------
        estimator : BayesianGMM_MAP, or a pipeline, a search or a LatentImputer over one
            Fitted. The picture of a pipeline shows X as its last step gets it. That of an
            imputer has the features ``code_names_``, such as "color_red" for a category.
        X : array-like of shape (n_samples, n_features)
            The rows to show. NaN marks a missing value.
        y : array-like of shape (n_samples,), default=None
            Labels by which rows are colored; None takes their components.
        features : sequence of int or str, default=None
            The features to show, by index or by name; the others are integrated out. Two
            give one panel, to the right and upwards; more give a panel for each pair. None
            takes all features, of an imputer those that are numbers, or the first six if
            there are more.
        uncertainty : bool, default=False
            Whether to shade the plane by 1 - max_k P(k | x), the probability that a row there
            belongs to another component than the most probable one. A background is left out.
        ax : matplotlib.axes.Axes, default=None
            The axes to draw a single panel in; None makes a new figure.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.scatter``.

        Returns
        -------
        MixtureDisplay
            The display, drawn.
        """
        inner = unwrapped(estimator)
        model = inner.model
        check_has(cls.__name__, model, "means_", "a mixture such as BayesianGMM_MAP")
        check_has(cls.__name__, model, "covariances_", "a mixture such as BayesianGMM_MAP")
        rows, missing, components = _completed(inner, X)
        names = inner.names(X)
        K, D = model.means_.shape
        names = [f"feature {j}" for j in range(D)] if names is None else names
        own = inner.numbers(names)[:MAX_FEATURES] if features is None else features
        chosen = _indices(own, names)
        display = cls(
            rows[:, chosen],
            components,
            model.means_[:, chosen],
            _matrices(model)[np.ix_(range(K), chosen, chosen)],
            model.weights_,
            missing=missing[:, chosen],
            labels=y,
            label_name=name_of(y),
            feature_names=[inner.label(names[j], X) for j in chosen],
            n_left_out=D - len(chosen) if features is None else 0,
        )
        return display.plot(ax=ax, uncertainty=uncertainty, **kwargs)

    def plot(self, ax: Axes | None = None, *, uncertainty: bool = False, **kwargs: Any) -> Self:
        """Draw points and ellipses.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw a single panel in; None makes a new figure.
        uncertainty : bool, default=False
            Whether to shade the plane by the probability that a row there belongs to another
            component than the most probable one.
        **kwargs : dict
            Passed to ``matplotlib.axes.Axes.scatter``.

        Returns
        -------
        MixtureDisplay
            This display.
        """
        import matplotlib.pyplot as plt

        n = self.X.shape[1]
        single = n <= 2
        if ax is not None and not single:
            raise ValueError(
                f"ax has room for two features, but {n} are shown: choose two with features, "
                "or leave ax out."
            )
        is_own = ax is None
        side = 1 if single else n
        if ax is None:
            size = (5.6, 4.2) if single else (PANEL * n, PANEL * n)
            figure, axes = plt.subplots(
                side, side, figsize=size, sharex="col", squeeze=False, layout="constrained"
            )
        else:
            figure, axes = ax.figure, np.array([[ax]])
        self.ellipses_: list[Any] = []
        options = full_names(kwargs, "scatter")
        planes = self._draw_panels(axes, options)
        # shaded when all is drawn, and the limits are known
        maps = [self._shade(*plane) for plane in planes] if uncertainty else []
        self._add_keys(axes, figure, is_own, options)
        if maps:
            place: dict[str, Any] = {"ax": axes[0, 0]}
            if is_own:  # below, since the legend is on the right
                place = {"ax": axes, "location": "bottom", "shrink": 0.5, "aspect": 40}
            figure.colorbar(maps[-1], label="1 - max P(component)", **place)
        self.axes_, self.figure_ = axes, figure
        self.ax_ = axes[0, 0] if single else None
        return self

    def _draw_panels(
        self, axes: NDArray[Any], options: dict[str, Any]
    ) -> list[tuple[Axes, NDArray[np.integer]]]:
        """Draw all panels, and return those of two features, with these."""
        n, planes = self.X.shape[1], []
        if n == 2:
            planes.append((axes[0, 0], np.array([0, 1])))
        for i in range(n if n != 2 else 0):
            for j in range(n):
                ax = axes[i, j]
                if j > i:
                    ax.set_axis_off()
                elif i == j:
                    self._draw_density(ax, i)
                else:
                    planes.append((ax, np.array([j, i])))
                    if j:
                        ax.sharey(axes[i, 0])
        for ax, pair in planes:
            self._draw_plane(ax, pair, options)
        if n != 2:
            for ax in axes.flat:
                ax.label_outer()
            axes[0, 0].set_ylabel("density")
        return planes

    def _draw_plane(self, ax: Axes, pair: NDArray[np.integer], options: dict[str, Any]) -> None:
        """Draw the panel of two features."""
        from matplotlib.patheffects import withStroke

        filled = self.missing[:, pair].any(1)
        style = {"s": 18, "alpha": 0.6, "linewidth": 0, **options}
        hollow = {**style, "facecolor": "none", "linewidth": 0.9, "alpha": 0.9}
        for group in self._groups():
            for rows, how in ((group.rows & ~filled, style), (group.rows & filled, hollow)):
                if not rows.any():
                    continue
                colors: dict[str, Any] = {"color": group.color}
                if how is hollow:
                    colors = {"edgecolor": group.color}
                elif group.marker == "x":
                    how = {**how, "linewidth": 1, "alpha": 0.9}
                x, y = self.X[rows][:, pair].T
                ax.scatter(x, y, **{"marker": group.marker, **colors, **how})
        for k in self._used():
            color = "0.3" if self.labels is not None else color_of(k)
            mean, covariance = self.means[k, pair], self.covariances[k][pair[:, None], pair]
            for radius, line in ((1, "-"), (2, "--")):
                points = _ellipse(mean, covariance, radius)
                (ellipse,) = ax.plot(*points, line, color=color, lw=1.5, zorder=2)
                ellipse.set_path_effects([withStroke(linewidth=3, foreground="white")])
                self.ellipses_.append(ellipse)
            style = {"ha": "center", "va": "center", "weight": "bold", "clip_on": True}
            text = ax.text(mean[0], mean[1], str(k), zorder=4, **style)
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        ax.set(xlabel=self.feature_names[pair[0]], ylabel=self.feature_names[pair[1]])

    def _shade(self, ax: Axes, pair: NDArray[np.integer]) -> Any:
        """Shade a plane by 1 - max_k P(k | x)."""
        limits = (*ax.get_xlim(), *ax.get_ylim())
        ax.autoscale(enable=False)  # or the picture would widen them
        grid = np.meshgrid(np.linspace(*limits[:2], N_GRID), np.linspace(*limits[2:], N_GRID))
        used = self._used()
        wrong = _doubt(
            np.stack(grid, axis=2).reshape(-1, 2),
            self.means[used][:, pair],
            self.covariances[used][:, pair[:, None], pair],
            self.weights[used],
        )
        return ax.imshow(
            wrong.reshape(N_GRID, N_GRID),
            extent=limits,
            origin="lower",
            aspect="auto",
            cmap="Greys",
            vmin=0,
            vmax=max(1 - 1 / len(used), 0.5),
            alpha=0.7,
            zorder=0,
        )

    def _draw_density(self, ax: Axes, j: int) -> None:
        """Draw the histogram of a feature, and the density of the mixture and its parts."""
        values = self.X[~self.missing[:, j], j]
        deviations = np.sqrt(self.covariances[:, j, j])
        used = self._used()
        if len(values):
            ax.hist(values, bins=N_BINS, density=True, color="0.85")
        ends = self.means[used, j] + 2 * deviations[used] * np.array([[-1], [1]])
        all_of_it = np.concatenate([ends.ravel(), values])
        x = np.linspace(all_of_it.min(), all_of_it.max(), 400)
        with np.errstate(divide="ignore", invalid="ignore"):
            squares = ((x[:, None] - self.means[:, j]) / deviations) ** 2
            parts = self.weights * np.exp(-squares / 2) / (np.sqrt(2 * np.pi) * deviations)
        ax.plot(x, parts[:, used].sum(1), color="0.4", lw=1.2)
        for k in used:
            color = "0.3" if self.labels is not None else color_of(k)
            ax.plot(x, parts[:, k], _line_of(k), color=color, lw=1.5)
        ax.set(xlabel=self.feature_names[j], ylabel="density", yticks=[])

    def _used(self) -> list[int]:
        """Return the components that have a weight."""
        return [int(k) for k in np.flatnonzero(self.weights > 0)]

    def _groups(self) -> Iterator[Group]:
        """Yield the rows of each label or component, with their style."""
        if self.labels is not None:
            masks = class_masks(self.labels, 2 * len(COLORS))
            for i, (label, rows) in enumerate(masks.items()):
                yield Group(label, rows, color_of(i), marker_of(i))
            return
        for k in self._used():
            label = f"{k} ({_percent(self.weights[k])})"
            yield Group(label, self.components == k, color_of(k), marker_of(k), k)
        if (self.components < 0).any():
            yield Group("background", self.components < 0, "black", "x")

    def _add_keys(
        self, axes: NDArray[Any], figure: Any, is_own: bool, options: dict[str, Any]
    ) -> None:
        """Add the legend: groups of rows, and hollow points."""
        keys, n = [], self.X.shape[1]
        title = "component (weight)" if self.labels is None else self.label_name
        for group in self._groups():
            style = changed({"color": group.color, "marker": group.marker}, options)
            if n != 2 and group.component is not None:
                style["ls"] = _line_of(group.component)
            keys.append(key(group.label, **style))
        if self.labels is None and len(keys) > (MAX_ENTRIES if is_own else MAX_INSIDE):
            keys = []  # the numbers at the means are enough
        if n > 1 and self.missing.any():
            keys.append(key("missing: conditional mean", marker="o", mfc="none", mec="0.3"))
        if self.n_left_out:
            keys.append(key(f"{counted(self.n_left_out, 'feature')} not shown"))
        if not keys:
            return
        if n <= 2:
            many = len(self.X)
            add_legend(axes[0, 0], keys, outside=is_own, n_points=many, title=title)
        else:
            figure.legend(handles=keys, loc="upper right", title=title)


def _percent(share: float) -> str:
    """Return a share as a percentage; small ones keep a digit."""
    return f"{share:.0%}" if share >= 0.01 else f"{100 * share:.1g}%"


def _line_of(k: int) -> str:
    """Return the line of the density of component k; the solid one is that of the sum."""
    return LINES[1:][(k + k // len(COLORS)) % (len(LINES) - 1)]


def _indices(features: Sequence[int | str], names: list[str]) -> list[int]:
    """Return the indices of features that are given by index or by name."""
    given = [features] if isinstance(features, str) else list(features)
    chosen = [names.index(j) if j in names else j for j in given]
    known = [isinstance(j, int | np.integer) and 0 <= j < len(names) for j in chosen]
    if not chosen or not all(known) or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"features must be different indices from 0 to {len(names) - 1}, or names among "
            f"{names}, but it is {features!r}."
        )
    return [int(j) for j in chosen]


def _completed(
    inner: Unwrapped, X: Any
) -> tuple[NDArray[np.floating], NDArray[np.bool_], NDArray[np.integer]]:
    """Return rows with conditional means for what is missing, the holes, and components."""
    X = inner.transform(X)
    values = as_floats(X)
    if not hasattr(inner.model, "feature_names_in_"):
        X = values
    components = np.asarray(inner.model.predict(X))
    missing = np.isnan(values)
    if missing.any():
        values = np.where(missing, np.asarray(inner.model.impute(X)), values)
    return values, missing, components


def _matrices(model: Any) -> NDArray[np.floating]:
    """Return the covariances as matrices (n_components, n_features, n_features)."""
    K, D = model.means_.shape
    own = np.asarray(model.covariances_)
    if model.covariance_type in ("full", "tied"):
        return np.broadcast_to(own, (K, D, D))
    return np.broadcast_to(own.reshape(K, -1), (K, D))[:, :, None] * np.eye(D)


def _ellipse(
    mean: NDArray[np.floating], covariance: NDArray[np.floating], radius: float
) -> NDArray[np.floating]:
    """Return points (2, n) at a Mahalanobis distance of ``radius`` from the mean."""
    values, vectors = np.linalg.eigh(covariance)
    angles = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    root = vectors * np.sqrt(np.maximum(values, 0))
    return mean[:, None] + radius * root @ circle


def _doubt(
    X: NDArray[np.floating],
    means: NDArray[np.floating],
    covariances: NDArray[np.floating],
    weights: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Return 1 - max_k P(k | x) at the rows of X."""
    from scipy.special import softmax

    log_joint = np.empty((len(X), len(means)))
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        factor = np.linalg.cholesky(covariance)
        scaled = np.linalg.solve(factor, (X - mean).T)
        log_joint[:, k] = np.log(weights[k]) - np.log(np.diag(factor)).sum()
        log_joint[:, k] -= (scaled**2).sum(0) / 2
    result: NDArray[np.floating] = 1 - softmax(log_joint, axis=1).max(1)
    return result
