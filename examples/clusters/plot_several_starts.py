"""
Compare fits from several starts
================================

The likelihood of a mixture has many local maxima, and EM climbs to one near its start. With
``n_init`` starts, the best result is kept. On large data, starts are compared on a sample.
"""

# %%
# Nine clusters on a grid, and twenty fits from nine random rows each.

import matplotlib.pyplot as plt
import numpy as np

from skem import BayesianGMM_MAP, MixtureDisplay

rng = np.random.default_rng(0)
centers = np.array([[x, y] for x in range(3) for y in range(3)]) * 5.0
X = centers[rng.integers(9, size=900)] + rng.normal(size=(900, 2))

options = {"init_params": "random_from_data", "prior": "empirical", "max_iter": 500}
singles = [BayesianGMM_MAP(9, random_state=seed, **options).fit(X) for seed in range(20)]
bounds = np.array([model.lower_bound_ for model in singles])
best_of_many = BayesianGMM_MAP(9, n_init=50, random_state=0, **options).fit(X)
print(f"one start: {bounds.min():.3f} to {bounds.max():.3f} nats per row")
print(f"the best of fifty: {best_of_many.lower_bound_:.3f}")

# %%
# A poor maximum has two components in one cluster and one that covers two.

fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
axes[0].plot(np.sort(bounds), np.arange(1, 21), "o", label="one start")
axes[0].axvline(best_of_many.lower_bound_, color="tab:orange", label="best of fifty")
axes[0].set(xlabel="objective (nats per row)", ylabel="fits, sorted")
axes[0].locator_params(axis="x", nbins=4)
axes[0].legend()
for ax, model, title in (
    (axes[1], singles[bounds.argmin()], "the worst of 20"),
    (axes[2], best_of_many, "the best of fifty"),
):
    MixtureDisplay.from_estimator(model, X, ax=ax)
    ax.set_title(title)
plt.show()
