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
from sklearn.model_selection import GridSearchCV, KFold

from skem import BayesianGMM_MAP, CriterionDisplay, MixtureDisplay

rng = np.random.default_rng(3)
X = np.concatenate(
    [
        rng.normal([0, 0], [1.4, 0.5], size=(150, 2)),
        rng.normal([0, 0], [0.5, 1.4], size=(150, 2)),
        rng.normal([7, 3], 0.7, size=(100, 2)),
        rng.normal([7, -3], 0.7, size=(100, 2)),
    ]
)
model = BayesianGMM_MAP(prior="empirical", n_init=3, random_state=0)

# %%
# :class:`~skem.CriterionDisplay` fits the mixture with one to eight components, and puts a star
# at the choice of each criterion. For the held-out likelihood it takes a fitted search. The
# rows are sorted by group, so that the folds must be shuffled: otherwise a fold holds out a
# group that the others do not show. Error bars are standard errors over five folds.

folds = KFold(5, shuffle=True, random_state=0)
search = GridSearchCV(model, {"n_components": range(1, 9)}, cv=folds).fit(X)

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
criteria = CriterionDisplay.from_estimator(model, X, param_range=range(1, 9), ax=left)
CriterionDisplay.from_search(search, ax=right)
assert criteria.chosen == {"bic": 4, "icl": 3}
plt.show()

# %%
# The cross needs two Gaussians, so that BIC chooses four components. The held-out likelihood
# hardly changes beyond four. ICL penalizes points that could be in either arm of the cross, and
# chooses three groups. The plane is dark where two components are nearly equally probable.

fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for ax, k in zip(axes, (4, 3), strict=True):
    fitted = criteria.estimators_[k - 1]
    MixtureDisplay.from_estimator(fitted, X, uncertainty=True, ax=ax)
    ax.set_title(f"{k} components")
plt.show()
