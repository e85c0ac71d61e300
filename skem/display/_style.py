"""Colors, markers and lines, which differ in gray too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# M. A. Petroff, "Accessible color sequences for data visualization", arXiv:2107.02270, 2021
COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MARKERS = "os^Dv*<P>X"
LINES = ("-", "--", ":", "-.")
MAX_ENTRIES = 12  # a legend of more entries is too long
MAX_INSIDE = 5  # and of more than these covers the picture, if it is inside
MANY_POINTS = 5000  # from here on, finding a free place for a legend takes long


def color_of(i: int) -> str:
    """Return the color of class i."""
    return COLORS[i % len(COLORS)]


def marker_of(i: int) -> str:
    """Return the marker of class i; classes with the same color have different ones."""
    return MARKERS[(i + i // len(COLORS)) % len(MARKERS)]


def full_names(kwargs: Mapping[str, Any], artist: str) -> dict[str, Any]:
    """Return the options of ``scatter`` or ``plot`` with linewidth for lw, and so on."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.collections import PathCollection
    from matplotlib.lines import Line2D

    kind = {"scatter": PathCollection, "plot": Line2D}[artist]
    options = dict(normalize_kwargs(dict(kwargs), kind))
    if "c" in options:  # which scatter does not take beside color
        options["color"] = options.pop("c")
    return options


def changed(style: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a style with the options that are given for the same properties."""
    return {name: options.get(name, value) for name, value in style.items()}


def key(label: str, **style: Any) -> Any:
    """Return a legend entry: a marker of a readable size."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **{"ls": "", "markersize": 6, "label": label, **style})


def add_legend(
    ax: Axes, keys: list[Any], *, outside: bool, n_points: int, title: str | None = None
) -> None:
    """Add a legend beside the axes, or a short one inside, where there is room."""
    options: dict[str, Any] = {"handles": keys, "fontsize": "small", "title": title}
    if outside or len(keys) > MAX_INSIDE:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), **options)
    else:
        ax.legend(loc="best" if n_points < MANY_POINTS else "upper right", **options)
