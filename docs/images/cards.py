"""Draw the three pictures of the landing page: python docs/images/cards.py"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse
from sklearn.datasets import load_digits, load_iris

from skem import BayesianGMM_MAP, BernoulliRBMCD, ShiftedTemplateEM
from skem.datasets import load_hidden_face

FOLDER = Path(__file__).parent
SIZE, DPI = (4.8, 3.0), 100


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(FOLDER / f"card_{name}.png", dpi=DPI)
    plt.close(figure)


def pattern() -> None:
    """Draw two noisy photographs above the face that is found in all of them."""
    data = load_hidden_face(600, random_state=0)
    model = ShiftedTemplateEM(
        data.template_width, image_shape=data.image_shape, random_state=0
    ).fit(data.X)
    figure, axes = plt.subplots(1, 2, figsize=SIZE, layout="constrained", width_ratios=(2, 1))
    images = data.X[:2].reshape(2, *data.image_shape[:2])
    axes[0].imshow(np.vstack(images), cmap="gray")
    axes[0].set_title("two of 600 photographs", fontsize=9)
    axes[1].imshow(model.template_.reshape(data.image_shape[0], -1), cmap="gray")
    axes[1].set_title("what they hide", fontsize=9)
    for ax in axes:
        ax.set_axis_off()
    save(figure, "pattern")


def table() -> None:
    """Draw a mixture of irises, and the rows that it has completed."""
    X = load_iris().data[:, 2:]
    lost = np.random.default_rng(0).random(len(X)) < 0.2
    holes = X.copy()
    holes[lost, 1] = np.nan
    model = BayesianGMM_MAP(3, prior="empirical", random_state=0).fit(holes)
    filled, found = model.impute(holes), model.predict(holes)
    colors = mpl.color_sequences["petroff6"]
    figure, ax = plt.subplots(figsize=SIZE, layout="constrained")
    for k, color in enumerate(colors[:3]):
        values, axes = np.linalg.eigh(model.covariances_[k])
        angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
        ellipse = Ellipse(model.means_[k], *4 * np.sqrt(values[::-1]), angle=angle)
        ellipse.set(facecolor=color, alpha=0.2)
        ax.add_patch(ellipse)
        ax.plot(*X[(found == k) & ~lost].T, "o", ms=3, color=color)
        ax.plot(*filled[(found == k) & lost].T, "x", ms=6, color=color)
    ax.set(xlabel="petal length, cm", ylabel="petal width, cm")
    ax.set_title("x: width was missing", fontsize=9)
    save(figure, "table")


def digits() -> None:
    """Draw digits without their lower half, and completed."""
    X = (load_digits().data > 7).astype(float)
    rbm = BernoulliRBMCD(200, n_iter=100, random_state=0).fit(X[:1500])
    rows = X[1500:1505].copy()
    rows[:, 32:] = np.nan
    filled = rbm.impute(rows)
    figure, axes = plt.subplots(2, 5, figsize=SIZE, layout="constrained")
    colors = mpl.colormaps["gray"].with_extremes(bad="#3a9b97")
    for column, above, below in zip(axes.T, rows, filled, strict=True):
        column[0].imshow(above.reshape(8, 8), cmap=colors, vmin=0, vmax=1)
        column[1].imshow(below.reshape(8, 8), cmap=colors, vmin=0, vmax=1)
    for ax in axes.flat:
        ax.set_axis_off()
    figure.suptitle("digits without their lower half, and completed", fontsize=9)
    save(figure, "digits")


if __name__ == "__main__":
    pattern()
    table()
    digits()
