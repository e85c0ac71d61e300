"""
Fit a mixture of two clusters
=============================

A mixture of two Gaussians with conjugate priors is fitted to two overlapping clusters of 200
points each. Every iteration of EM raises the log-density of data and parameters together.
"""

# %%
# The priors are weak but not flat: a mean at 0 that counts as one point, and an
# inverse-Wishart for the covariances.

import matplotlib.pyplot as plt
import numpy as np

from skem import BayesianGMM_MAP, MixtureDisplay, ObjectiveDisplay

rng = np.random.default_rng(0)
X = np.concatenate([rng.normal(5, 1, size=(200, 2)), rng.normal(8, 1, size=(200, 2))])

model = BayesianGMM_MAP(
    n_components=2,
    weight_concentration_prior=1,
    mean_prior=[0, 0],
    mean_precision_prior=1,
    degrees_of_freedom_prior=3,
    covariance_prior=np.eye(2),
    init_params="random",
    max_iter=300,
    tol=1e-8,
    random_state=0,
).fit(X)
print("means:", model.means_.round(2).tolist())
print("weights:", model.weights_.round(3).tolist())

# %%
# The ellipses are at 1 and 2 standard deviations. With random responsibilities, both components
# start in the middle. The objective is flat until they separate.

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
MixtureDisplay.from_estimator(model, X, ax=left)
ObjectiveDisplay.from_estimator(model, ax=right)
plt.show()
