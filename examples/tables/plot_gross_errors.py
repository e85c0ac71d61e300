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

from skem import BayesianGMM_MAP, MixtureDisplay

rng = np.random.default_rng(0)
data = load_wine(as_frame=True)
X = data.data[["alcohol", "flavanoids", "color_intensity", "proline"]]
grower = data.target
cells = (rng.random((len(X), 1)) < 1 / 8) & (rng.random(X.shape) < 0.5)
X = X.mask(cells, X * 10 ** rng.choice([-1.0, 1.0], size=X.shape))
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
# to check first. In the picture, rows in the background are crosses. Some rows with errors are
# outside of it.

doubt = models["with background"].predict_proba(X)[:, -1]
worst = np.argsort(-doubt)[:5]
print("rows to look at first:", worst, "with errors:", wrong[worst])

fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharex=True, sharey=True)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    MixtureDisplay.from_estimator(model, X, features=["flavanoids", "color_intensity"], ax=ax)
    ax.set(title=name, xlim=(-3, 8), ylim=(-10, 35))
plt.show()
