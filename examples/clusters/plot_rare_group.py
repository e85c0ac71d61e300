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

from skem import BayesianGMM_MAP

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
# The crosses are the means, and the ellipses are at two standard deviations.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), sharex=True, sharey=True)
circle = 2 * np.array([np.cos(t := np.linspace(0, 2 * np.pi, 100)), np.sin(t)])
for axis, (name, model) in zip(axes, models.items(), strict=True):
    axis.plot(*X[::10].T, ",", color="0.6")
    axis.plot(*X[X[:, 1] > 6].T, ".", color="tab:red", markersize=3)
    for mean, covariance in zip(model.means_, model.covariances_, strict=True):
        ellipse = mean[:, None] + np.linalg.cholesky(covariance) @ circle
        axis.plot(*ellipse, color="tab:blue")
        axis.plot(*mean, "x", color="tab:blue")
    axis.set_title(name)
figure.tight_layout()
plt.show()
