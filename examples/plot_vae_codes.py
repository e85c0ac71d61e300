"""
Two numbers that redraw a digit
===============================

A variational autoencoder learns to draw images from a few numbers, and to read those numbers
off an image. With two of them, all that it can draw fits on one sheet.

Runs on the 8x8 digits of scikit-learn. For MNIST, give the folder of its four idx files:
``python plot_vae_codes.py --mnist DIR``; two minutes.
"""

# %%
# The data, between 0 and 1, and an autoencoder with two codes and one with eight. On gray
# values the bound is no log-likelihood of digits that are black and white, but it tells the
# two apart: per image, in nats.

import argparse
import gzip
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skem import (
    EmbeddingDisplay,
    ImputationDisplay,
    LatentGridDisplay,
    ReconstructionDisplay,
    VAEEstimator,
    morph,
)

parser = argparse.ArgumentParser()
parser.add_argument("--mnist", help="folder of train-images-idx3-ubyte.gz and the others")
folder = parser.parse_args().mnist


def idx_file(name, offset):
    with gzip.open(Path(folder) / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


if folder:
    X = idx_file("train-images-idx3-ubyte.gz", 16).reshape(-1, 784).astype(np.float32) / 255
    y = idx_file("train-labels-idx1-ubyte.gz", 8)
    max_iter = 20
else:
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    max_iter = 60
order = np.random.default_rng(0).permutation(len(X))
train, test = order[: -len(X) // 6], order[-len(X) // 6 :]

models = {
    d: VAEEstimator(d, likelihood="bernoulli", max_iter=max_iter, random_state=0).fit(X[train])
    for d in (2, 8)
}
for d, model in models.items():
    print(f"{d} codes: at least {model.score(X[test]):.1f} nats per held-out image")

# %%
# Where held-out digits lie, and what the square of codes from -3 to 3 draws. No label was used
# in training.

shown = test[:2000]
EmbeddingDisplay.from_estimator(models[2], X[shown], y[shown])
LatentGridDisplay.from_estimator(models[2], n_codes=21 if folder else 13)

# %%
# Held-out digits, redrawn from two numbers and from eight.

fig, axes = plt.subplots(2, 1, figsize=(9, 4.6), layout="constrained")
for ax, (d, model) in zip(axes, models.items(), strict=True):
    ReconstructionDisplay.from_estimator(model, X[test[:12]], ax=ax)
    ax.set_title(f"{d} codes")

# %%
# Missing pixels (blue) are filled with what is expected of them.

missing = np.zeros((12, X.shape[1]), bool)
missing[:6, X.shape[1] // 2 :] = True
missing[6:] = np.random.default_rng(1).random((6, X.shape[1])) < 0.7
fig, ax = plt.subplots(figsize=(9, 3), layout="constrained")
ImputationDisplay.from_estimator(models[8], X[test[:12]], missing, ax=ax)

# %%
# A walk between the codes of a 0, 1, ..., 9 and back.

stops = [test[y[test] == digit][0] for digit in range(10)]
walk = morph(models[8], X[stops], n_steps=12)
animation = walk.animate()
if folder:
    animation.save("morph.gif", writer="pillow")
plt.show()
