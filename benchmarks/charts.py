"""Draw the charts of the benchmark page from its tables.

``python benchmarks/charts.py`` reads the tables in ``docs/benchmarks`` and saves a chart for
each comparison in ``docs/images``. The other programs write the tables.
"""

import re
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

DOCS = Path(__file__).parent.parent / "docs"
OURS, OTHERS, THIRD = "#0072b2", "#999999", "#e69f00"  # told apart by the color-blind


def tables(name):
    """Return the tables of a file as lists of rows of cells; the first row is the header."""
    text = (DOCS / "benchmarks" / f"{name}.md").read_text()
    blocks = re.findall(r"(?:^\|.*\|\n?)+", text, re.M)
    cells = [
        [[c.strip() for c in line.strip("|").split("|")] for line in block.strip().split("\n")]
        for block in blocks
    ]
    return [[rows[0], *rows[2:]] for rows in cells]


def number(cell):
    """Return the first number of a cell; NaN if there is none."""
    found = re.search(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", cell)
    return float(found[0]) if found else np.nan


def column(rows, name):
    """Return the cells of a column."""
    j = rows[0].index(name)
    return [row[j] for row in rows[1:]]


def numbers(rows, name):
    return np.array([number(cell) for cell in column(rows, name)])


def bars(labels, values, xlabel, log=False):
    """Draw a bar for each label; those of skem have a color of their own."""
    fig, ax = plt.subplots(figsize=(7, 0.7 + 0.32 * len(labels)), layout="constrained")
    colors = [OURS if label.startswith("skem") else OTHERS for label in labels]
    drawn = ax.barh(labels, values, color=colors, log=log)
    ax.bar_label(drawn, [f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in values], padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.2)
    ax.set(xlabel=xlabel)
    return fig


def pairs(ours, theirs, labels):
    """Draw a point for each data set: ours over theirs, and the line where they are equal."""
    fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
    ax.scatter(theirs, ours, 22, OURS)
    both = np.concatenate([ours, theirs])
    ends = [np.nanmin(both), np.nanmax(both)]
    ax.plot(ends, ends, "--", color="0.5", label="equal")
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.legend()
    return fig


def one_thread(rows):
    return [rows[0]] + [row for row in rows[1:] if row[rows[0].index("threads")] == "1"]


def bench_template():
    rows = one_thread(tables("template")[0])
    return bars(column(rows, "variant"), numbers(rows, "ms"), "ms per EM iteration", log=True)


def bench_template_recovery():
    rows = tables("template_recovery")[0]
    labels = ("correlation if all places were known", "correlation of the found template")
    return pairs(numbers(rows, "found"), numbers(rows, "aligned"), labels)


def bench_template_oscillating():
    rows = tables("template_oscillating")[0]
    kinds = dict.fromkeys(column(rows, "template"))
    wins = [[0, 0] for _ in kinds]
    for kind, cell in zip(column(rows, "template"), column(rows, "wins"), strict=True):
        own = wins[list(kinds).index(kind)]
        own[0], own[1] = (
            own[0] + int(cell.split("/")[0]),
            own[1] + int(cell.split("/")[1]),
        )
    shares = [100 * a / b for a, b in wins]
    return bars([f"skem, {kind}" for kind in kinds], shares, "% of fits that reach the optimum")


def bench_template_new_shifts():
    rows = tables("template_new_shifts")[0]
    values = rows[0][6:]
    shares = np.array([numbers(rows, value) for value in values])
    fig, ax = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
    ax.plot(values, shares, color=OURS, alpha=0.2)
    ax.plot(values, np.median(shares, axis=1), "o-", color=OURS, label="median")
    ax.set(xlabel="shift_concentration_prior", ylabel="new images placed exactly")
    ax.legend()
    return fig


def bench_template_classes():
    rows = tables("template_classes")[0]
    cases = dict.fromkeys(zip(column(rows, "data"), column(rows, "noise"), strict=True))
    ratios = {f"{data}, noise {noise}": [] for data, noise in cases}
    columns = (column(rows, name) for name in ("data", "noise", "least ratio to the oracle"))
    for data, noise, ratio in zip(*columns, strict=True):
        ratios[f"{data}, noise {noise}"].append(number(ratio))
    fig, ax = plt.subplots(figsize=(7, 0.7 + 0.32 * len(ratios)), layout="constrained")
    for i, own in enumerate(ratios.values()):
        ax.plot(own, [i] * len(own), "o", color=OURS, alpha=0.5, clip_on=False)
    ax.axvline(0.95, color="0.5", ls="--", label="found")
    ax.set_yticks(range(len(ratios)), ratios)
    ax.invert_yaxis()
    ax.set(xlabel="worst template of five fits, relative to known classes and places")
    ax.legend(loc="center left")
    return fig


def two_bars(labels, sides, xlabel):
    """Draw two bars for each label; a dict names the sides. A line marks equal speeds."""
    fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for offset, color, (name, values) in zip(
        (-0.2, 0.2), (OURS, THIRD), sides.items(), strict=True
    ):
        drawn = ax.barh(np.arange(len(labels)) + offset, values, 0.4, color=color, label=name)
        ax.bar_label(drawn, padding=3)
    ax.set_yticks(range(len(labels)), labels)
    ax.axvline(1, color="k", lw=1)
    ax.invert_yaxis()
    ax.set(xlabel=xlabel)
    ax.legend()
    return fig


def bench_arrays():
    rows = tables("arrays")[0]
    dtypes, ratios = np.array(column(rows, "dtype")), numbers(rows, "ratio")
    cases = zip(column(rows, "rows"), column(rows, "type"), strict=True)
    labels = dict.fromkeys(f"{case.split(', ')[0]}, {kind}" for case, kind in cases)
    sides = {dtype: ratios[dtypes == dtype] for dtype in ("float64", "float32")}
    return two_bars(labels, sides, "fit of a tensor: times as fast as scikit-learn, one thread")


def bench_mixture():
    rows = one_thread(tables("mixture")[0])
    rows = [rows[0]] + [row for row in rows[1:] if row[1] == "float64"]
    labels = ["\n".join(case.split(": ")) for case in column(rows, "case")]
    j = rows[0].index("NumPy")
    places = {"skem, NumPy": j + 1, "skem, numba": j + 3}
    sides = {name: [number(row[k]) for row in rows[1:]] for name, k in places.items()}
    return two_bars(labels, sides, "times as fast as scikit-learn, one thread")


def bench_outcomes():
    rows = tables("outcomes")[0]
    rows = [rows[0]] + [
        r for r in rows[1:] if r[0] in ("tables", "photographs", "groups", "rare")
    ]
    kinds = column(rows, "data")
    y = np.arange(len(kinds))
    fig, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
    ax.barh(y, numbers(rows, "higher"), color=OURS, label="skem is higher")
    lower = numbers(rows, "lower, theirs proper")
    ax.barh(y, -lower, color=OTHERS, label="scikit-learn is higher, without its collapses")
    ax.axvline(0, color="k", lw=1)
    ax.set_yticks(y, kinds)
    ax.set(xlabel="% of fits whose objective differs by more than 0.05 nats per row")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=2)
    return fig


def bench_starts_missing():
    rows = tables("starts_missing")[0]
    names = np.array(column(rows, "table"))
    shares, loss = np.array(column(rows, "missing")), numbers(rows, "loss of one start")
    labels = list(dict.fromkeys(names))
    fig, ax = plt.subplots(figsize=(7, 0.7 + 0.28 * len(labels)), layout="constrained")
    for share, color, marker in zip(dict.fromkeys(shares), (OURS, THIRD), "os", strict=True):
        own = shares == share
        y = [labels.index(name) for name in names[own]]
        ax.plot(loss[own], y, marker, color=color, label=f"{share} missing")
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set(xlabel="nats per row that one start loses against the best of ten")
    ax.legend()
    return fig


def bench_prior():
    rows = tables("prior")[0]
    x = numbers(rows, "rows per feature and component")
    gain = numbers(rows, "without correlations") - numbers(rows, "flat")
    fig, ax = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
    ax.scatter(x * 1.03 ** np.resize([-2, -1, 0, 1, 2], len(x)), gain, 18, OURS, alpha=0.6)
    ax.axhline(0, color="0.5", ls="--")
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=0.01)
    ticks = sorted(set(x))
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(-0.03, None)
    ax.set(
        xlabel="rows for each feature and component",
        ylabel="gain of the empirical prior (nats)",
    )
    return fig


def bench_scale():
    rows = tables("scale")[0]
    x = numbers(rows, "rows")
    fig, axes = plt.subplots(1, 2, figsize=(7.5, 3), layout="constrained")
    for ax, ours, theirs, label in (
        (axes[0], "fit of 3 iterations, s", "scikit-learn, s", "seconds for 3 iterations"),
        (axes[1], "peak, MB", "its peak, MB", "memory beyond the imports, MB"),
    ):
        ax.loglog(x, numbers(rows, ours), "o-", color=OURS, label="skem, from the file")
        ax.loglog(x, numbers(rows, theirs), "s--", color=OTHERS, label="scikit-learn")
        ax.set(xlabel="rows", ylabel=label)
    axes[0].legend()
    return fig


def bench_rbm():
    rows = tables("rbm")[0]
    seconds = numbers(rows, "PCD-1, batches of 100")
    known = np.isfinite(seconds)
    labels = [label for label, k in zip(column(rows, ""), known, strict=True) if k]
    return bars(labels, seconds[known], "seconds for a pass over 60,000 rows, one thread")


def bench_rbm_quality():
    rows = tables("rbm_quality")[0]
    labels = [
        cell if cell.startswith(("scikit-learn", "the source")) else f"skem, {cell}"
        for cell in column(rows, "RBM")
    ]
    labels = [re.sub(r", \{.*", ", tuned", label) for label in labels]
    labels = [label.replace("the source's", "the usual") for label in labels]
    labels = [
        f"{label} ({i})" if labels.count(label) > 1 else label for i, label in enumerate(labels)
    ]
    values = -numbers(rows, "exact or forward AIS")
    return bars(labels, values, "minus nats per held-out image")


def first_two(rows, ours, theirs):
    keep = [
        [number(a), number(b)]
        for a, b in zip(column(rows, ours), column(rows, theirs), strict=True)
    ]
    return np.array(keep).T


def bench_defaults_rbm():
    rows = tables("defaults_rbm")[0]
    ours, theirs = first_two(rows, "default", "scikit-learn")
    size = numbers(rows, "features")
    labels = ("scikit-learn, nats per feature", "skem, nats per feature")
    return pairs(ours / size, theirs / size, labels)


def bench_defaults_vae():
    rows = tables("defaults_vae")[0]
    ours, theirs = first_two(rows, "VAE", "FactorAnalysis")
    size = numbers(rows, "features")
    labels = ("factor analysis, nats per feature", "VAEEstimator, nats per feature")
    return pairs(ours / size, theirs / size, labels)


def bench_defaults_gan():
    rows = tables("defaults_gan")[0]
    fig = pairs(
        numbers(rows, "GAN"),
        numbers(rows, "training rows"),
        ("distance of training rows", "distance of rows drawn by GANEstimator"),
    )
    fig.axes[0].set(xscale="log", yscale="log")
    return fig


def bench_imputers():
    rows = tables("defaults_impute")[0]
    ratio = numbers(rows, "to the better peer")
    order = np.argsort(ratio)
    names = np.array(column(rows, "table"))[order]
    fig, ax = plt.subplots(figsize=(6.5, 0.6 + 0.19 * len(names)), layout="constrained")
    ax.barh(names, ratio[order], color=OURS)
    ax.axvline(1, color="k", lw=1)
    ax.invert_yaxis()
    ax.tick_params("y", labelsize=8)
    ax.set(
        xlabel="error of LatentImputer / error of the better of KNNImputer, IterativeImputer"
    )
    return fig


def bench_vae():
    rows = tables("vae")[0]
    return bars(
        column(rows, ""), numbers(rows, "µs per row"), "µs per row, dense, batches of 64"
    )


def bench_vae_quality():
    rows = tables("vae_quality")[0]
    names = [
        name.replace("the source's recipe", "the usual recipe") for name in column(rows, "")
    ]
    labels = [name if name.startswith("the usual") else f"skem, {name}" for name in names]
    return bars(labels, numbers(rows, "IWAE-100"), "minus nats per held-out image")


def bench_gan():
    rows = tables("gan")[1]
    return bars(
        column(rows, ""), numbers(rows, "Fréchet"), "Fréchet distance; smaller is better", True
    )


CHARTS = [value for name, value in list(globals().items()) if name.startswith("bench_")]


def draw(folder):
    """Save all charts in a folder."""
    from PIL import Image

    for chart in CHARTS:
        path = Path(folder) / f"{chart.__name__}.png"
        fig = chart()
        fig.savefig(path, dpi=100)
        plt.close(fig)
        with Image.open(path) as image:
            few = image.convert("RGB").quantize(64)
        few.save(path, optimize=True)


if __name__ == "__main__":
    mpl.use("Agg")
    draw(sys.argv[1] if len(sys.argv) > 1 else DOCS / "images")
