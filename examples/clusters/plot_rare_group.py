"""
Find 50 rare rows among 100,000
===============================

A small group of rows lies beside two large ones. A sample of the rows hardly contains it, and
k-means splits a large group instead. ``BayesianGMM_MAP`` searches for rows that no component
explains before it ends a fit.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.mixture import GaussianMixture

from skem import BayesianGMM_MAP, MixtureDisplay

rng = np.random.default_rng(0)
n_rows, n_rare = 100_000, 50
X = rng.normal(size=(n_rows, 2)) + [6, 0] * rng.integers(2, size=(n_rows, 1))
X[:n_rare] = [3, 8] + 0.5 * rng.normal(size=(n_rare, 2))
rng.shuffle(X)

# %%
# Both fits have three components, one start, and the same seed.

models = {
    "GaussianMixture": GaussianMixture(3, random_state=0).fit(X),
    "BayesianGMM_MAP": BayesianGMM_MAP(3, random_state=0).fit(X),
}
for name, model in models.items():
    print(f"{name}: {model.score(X):.4f} nats per row, weights {model.weights_.round(4)}")
assert models["BayesianGMM_MAP"].score(X) > models["GaussianMixture"].score(X)

# %%
# One of ten rows, and all rare ones. The ellipses are at one and two standard deviations. The
# component of 0.05% has found the rare rows.

shown = np.concatenate([X[::10], X[X[:, 1] > 6]])
figure, axes = plt.subplots(
    1, 2, figsize=(10, 4.5), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    MixtureDisplay.from_estimator(model, shown, s=3, ax=ax)
    ax.set_title(name)
plt.show()
