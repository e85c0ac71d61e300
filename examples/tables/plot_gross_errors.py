"""
Cluster a table with gross errors
=================================

A wrong unit or a misplaced decimal point can put a value anywhere. A Gaussian component that
must explain such rows grows until it covers other groups. With ``background="uniform"``, a
uniform density explains these rows instead, and ``predict`` returns -1 for them.
"""

# %%
# Four chemical measurements of 178 wines from three growers. About one row in eight has errors:
# the decimal point of some of its values is in the wrong place.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.metrics import adjusted_rand_score

from skem import BayesianGMM_MAP

rng = np.random.default_rng(0)
data = load_wine()
columns = ["alcohol", "flavanoids", "color_intensity", "proline"]
X = data.data[:, [data.feature_names.index(name) for name in columns]]
grower = data.target
cells = (rng.random((len(X), 1)) < 1 / 8) & (rng.random(X.shape) < 0.5)
X = np.where(cells, X * 10 ** rng.choice([-1.0, 1.0], size=X.shape), X)
wrong = cells.any(axis=1)

models = {
    "without background": BayesianGMM_MAP(3, n_init=5, random_state=0),
    "with background": BayesianGMM_MAP(3, n_init=5, background="uniform", random_state=0),
}
for name, model in models.items():
    found = model.fit_predict(X)
    agreement = adjusted_rand_score(grower[~wrong], found[~wrong])
    print(
        f"{name}: agreement with the growers {agreement:.2f}, {model.score(X):.2f} nats per row"
    )

outlying = models["with background"].predict(X) == -1
print(
    f"{outlying[wrong].sum()} of {wrong.sum()} rows with errors are in the background, "
    f"and {outlying[~wrong].sum()} others"
)

# %%
# The last column of ``predict_proba`` is the probability of the background. It tells which rows
# to check first.

doubt = models["with background"].predict_proba(X)[:, -1]
worst = np.argsort(-doubt)[:5]
print("rows to look at first:", worst, "with errors:", wrong[worst])

fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharex=True, sharey=True)
circle = 2 * np.array([np.cos(t := np.linspace(0, 2 * np.pi, 100)), np.sin(t)])
for axis, (name, model) in zip(axes, models.items(), strict=True):
    labels = model.predict(X)
    for k in range(3):
        points = axis.plot(*X[labels == k][:, [1, 2]].T, ".")
        factor = np.linalg.cholesky(model.covariances_[k][np.ix_([1, 2], [1, 2])])
        ellipse = model.means_[k][[1, 2], None] + factor @ circle
        axis.plot(*ellipse, color=points[0].get_color())
    axis.plot(*X[labels == -1][:, [1, 2]].T, "x", color="black")
    axis.set(title=name, xlabel="flavanoids")
axes[0].set_ylabel("color intensity")
plt.show()
