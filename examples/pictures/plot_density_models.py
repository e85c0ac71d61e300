"""
Compare density models in nats
==============================

A mixture, a restricted Boltzmann machine (RBM) and a variational autoencoder (VAE) describe the
same rows in different ways. All of them score rows by a log-probability in nats. The higher the
score of held-out digits, the better the model predicts them.
"""

# %%
# Digits of 8x8 pixels, black or white, and a baseline: pixels that are independent.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skem import BayesianGMM_MAP, BernoulliRBMCD, VAEEstimator

rng = np.random.default_rng(0)
X = (load_digits().data > 7).astype(float)
X = X[rng.permutation(len(X))]
train, test = X[:1400], X[1400:]
p = (train.sum(0) + 1) / (len(train) + 2)
scores = {"independent pixels": (test * np.log(p) + (1 - test) * np.log(1 - p)).sum(1)}

# %%
# RBM and VAE are models of binary pixels. Each is tuned by its cross-validated score.

searches = {
    "RBM": GridSearchCV(
        BernoulliRBMCD(n_iter=50, random_state=0), {"n_components": [20, 100]}, cv=3
    ),
    "VAE": GridSearchCV(
        VAEEstimator(max_iter=40, random_state=0), {"n_components": [4, 16]}, cv=3
    ),
}
for name, search in searches.items():
    best = search.fit(train).best_estimator_
    if name == "VAE":
        best.set_params(n_importance_samples=200)  # a tighter bound than in the search
    scores[name] = best.score_samples(test)
    print(f"{name}: {search.best_params_}")

# %%
# A Gaussian mixture has a density, which cannot be compared with probabilities directly: it is
# unbounded at pixels that are always 0. With uniform noise u of width 1 added to the pixels,
# Jensen's inequality gives
#
# .. math::
#
#    \log P(x) \ge \mathbb E_u \log p(x + u),
#
# a bound in the same unit. Gaussians are a poor model of binary pixels. The bound loses about a
# sixth of a nat per pixel because uniform noise is not Gaussian, and more because the pixels of
# a component are either 0 or 1.

noise = rng.random(X.shape) - 0.5
search = GridSearchCV(
    BayesianGMM_MAP(prior="empirical", random_state=0),
    {"n_components": [10, 20], "covariance_type": ["full", "diag"]},
    cv=3,
).fit(train + noise[:1400])
print(f"mixture: {search.best_params_}")
scores["mixture"] = search.best_estimator_.score_samples(test + noise[1400:])

# %%
# The mean score of held-out digits. A difference of 3 nats means that a digit is e^3, about 20,
# times more probable.

scores = dict(sorted(scores.items(), key=lambda item: -item[1].mean()))
for name, values in scores.items():
    error = values.std() / np.sqrt(len(values))
    print(f"{name:18} {values.mean():7.2f} +- {error:.2f} nats per held-out digit")

fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
options = {"orientation": "horizontal", "tick_labels": list(scores), "whis": (5, 95)}
ax.boxplot(list(scores.values()), showfliers=False, **options)
ax.set(xlabel="log p of a held-out digit (nats)")
ax.invert_yaxis()
plt.show()
