"""
Choose the number of components
===============================

Three criteria answer the question. The Bayesian information criterion (BIC) counts the
Gaussians that the density needs. The integrated completed likelihood (ICL) counts groups that
can be told apart. The held-out likelihood measures how well new rows are predicted.
"""

# %%
# Four groups of points, two of which cross and overlap almost entirely.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV

from skem import BayesianGMM_MAP, MixtureDisplay

rng = np.random.default_rng(3)
X = np.concatenate(
    [
        rng.normal([0, 0], [1.4, 0.5], size=(150, 2)),
        rng.normal([0, 0], [0.5, 1.4], size=(150, 2)),
        rng.normal([7, 3], 0.7, size=(100, 2)),
        rng.normal([7, -3], 0.7, size=(100, 2)),
    ]
)
numbers = list(range(1, 9))
options = {"prior": "empirical", "n_init": 3, "random_state": 0}
models = [BayesianGMM_MAP(k, **options).fit(X) for k in numbers]
bic = np.array([model.bic(X) for model in models])
icl = np.array([model.icl(X) for model in models])
search = GridSearchCV(BayesianGMM_MAP(**options), {"n_components": numbers}, cv=5)
search.fit(rng.permutation(X))
held_out = search.cv_results_["mean_test_score"]
print("BIC:", numbers[bic.argmin()], " ICL:", numbers[icl.argmin()])
print("held-out likelihood:", search.best_params_["n_components"])
assert numbers[bic.argmin()] == 4
assert numbers[icl.argmin()] == 3

# %%
# The cross needs two Gaussians, so that BIC chooses four components. The held-out likelihood
# hardly changes beyond four. ICL penalizes points that could be in either arm of the cross, and
# chooses three groups.

fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
axes[0].plot(numbers, bic / len(X), "o-", label="BIC")
axes[0].plot(numbers, icl / len(X), "s--", label="ICL")
axes[0].set(xlabel="n_components", ylabel="criterion / n (nats, lower is better)")
axes[0].legend()
axes[1].plot(numbers, held_out, "o-", color="tab:green")
axes[1].set(xlabel="n_components", ylabel="held-out score (nats per row)")
MixtureDisplay.from_estimator(models[bic.argmin()], X, ax=axes[2])
axes[2].set_title(f"{numbers[bic.argmin()]} components")
plt.show()
