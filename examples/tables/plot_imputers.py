"""
Compare imputers on a table of measurements
===========================================

:class:`skem.LatentImputer` turns any model with hidden variables into an imputer. The
likelihood of the observed cells tunes it, so that no cells need to be hidden. It also gives the
probability of missing cells, not only their expectation.

The data are 30 measurements of 569 tumors, with a fifth of the cells hidden.
"""

# %%
# The data: logarithms, standardized. Some rows are for training, some for a test.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from sklearn.datasets import load_breast_cancer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.model_selection import GridSearchCV

from skem import BayesianGMM_MAP, LatentImputer

rng = np.random.default_rng(0)
X = np.log(load_breast_cancer().data + 0.01)
X = (X - X.mean(0)) / X.std(0)
X = X[rng.permutation(len(X))]
hidden = rng.random(X.shape) < 0.2
seen = np.where(hidden, np.nan, X)
train, test = slice(0, 400), slice(400, None)

# %%
# The number of components and the shape of their covariances are chosen by the held-out
# log-likelihood of the observed cells.

search = GridSearchCV(
    LatentImputer(BayesianGMM_MAP(prior="empirical", random_state=0)),
    {
        "estimator__n_components": [1, 2, 4],
        "estimator__covariance_type": ["full", "tied"],
    },
    cv=3,
).fit(seen[train])
mixture = search.best_estimator_
print(search.best_params_)

# %%
# scikit-learn's imputers, fitted to the same rows.

imputers = {
    "mean": SimpleImputer().fit(seen[train]),
    "KNNImputer": KNNImputer().fit(seen[train]),
    "IterativeImputer": IterativeImputer(random_state=0).fit(seen[train]),
    "LatentImputer": mixture,
}

# %%
# Two measures on the hidden cells of the test rows: the root mean squared error, and the mean
# log-density of the true value given the observed cells of its row, in nats. The mixture has
# that density: log p(row) - log p(observed cells). The others get a normal density around the
# filled value. Its standard deviation is the best one for each feature, which favors them.

cells = hidden[test]
found = {}
for name, imputer in imputers.items():
    error = imputer.transform(seen[test]) - X[test]  # 0 where a cell was seen
    spread = np.sqrt((error**2).sum(0) / cells.sum(0))
    log_density = norm.logpdf(error, scale=spread)[cells].mean()
    found[name] = np.sqrt((error[cells] ** 2).mean()), log_density
model = mixture.estimator_
joint = model.score_samples(X[test]) - model.score_samples(seen[test])
found["LatentImputer"] = found["LatentImputer"][0], joint.sum() / cells.sum()
for name, (rmse, log_density) in found.items():
    print(f"{name:18} RMSE {rmse:.3f}, {log_density:+.3f} nats per hidden cell")

fig, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
labels = "RMSE (less is better)", "nats per hidden cell (more is better)"
for i, (ax, label) in enumerate(zip(axes, labels, strict=True)):
    ax.barh(list(found), [values[i] for values in found.values()])
    ax.set_xlabel(label)
    ax.invert_yaxis()
axes[1].set_yticklabels([])
plt.show()
