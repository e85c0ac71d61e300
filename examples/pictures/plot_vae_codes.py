"""
Draw digits from two numbers with a VAE
=======================================

A variational autoencoder (VAE) learns to draw images from a short code, and to find the code of
an image. With a code of two numbers, everything it can draw fits on one page. The data are
scikit-learn's 8x8 digits.
"""

# %%
# Digits between 0 and 1, and VAEs with codes of two and of eight numbers. The score is a bound
# in nats per image, which compares the two.

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

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
order = np.random.default_rng(0).permutation(len(X))
train, test = order[: -len(X) // 6], order[-len(X) // 6 :]

models = {
    d: VAEEstimator(d, likelihood="bernoulli", max_iter=60, random_state=0).fit(X[train])
    for d in (2, 8)
}
for d, model in models.items():
    print(f"{d} codes: at least {model.score(X[test]):.1f} nats per held-out image")

# %%
# The codes of held-out digits, and the digits that a grid of codes from -3 to 3 draws. Labels
# were not used in training.

shown = test[:2000]
EmbeddingDisplay.from_estimator(models[2], X[shown], y[shown])
LatentGridDisplay.from_estimator(models[2], n_codes=13)

# %%
# Held-out digits, redrawn from codes of two and of eight numbers.

fig, axes = plt.subplots(2, 1, figsize=(9, 4.6), layout="constrained")
for ax, (d, model) in zip(axes, models.items(), strict=True):
    ReconstructionDisplay.from_estimator(model, X[test[:12]], ax=ax)
    ax.set_title(f"{d} codes")

# %%
# Missing pixels (blue) are filled with their expectation.

missing = np.zeros((12, X.shape[1]), bool)
missing[:6, X.shape[1] // 2 :] = True
missing[6:] = np.random.default_rng(1).random((6, X.shape[1])) < 0.7
fig, ax = plt.subplots(figsize=(9, 3), layout="constrained")
ImputationDisplay.from_estimator(models[8], X[test[:12]], missing, ax=ax)

# %%
# A walk between the codes of the digits 0 to 9 and back.

stops = [test[y[test] == digit][0] for digit in range(10)]
walk = morph(models[8], X[stops], n_steps=12)
animation = walk.animate()
plt.show()
