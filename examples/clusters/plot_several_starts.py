"""
Compare fits from several starts
================================

The likelihood of a mixture has many local maxima, and EM climbs to one near its start. With
``n_init`` starts, the best result is kept. On large data, starts are compared on a sample.
"""

# %%
# Twenty-five clusters at random places, and twelve fits with other seeds. A single start is
# already the winner of a race of candidates.

import matplotlib.pyplot as plt
import numpy as np

from skem import BayesianGMM_MAP, MixtureDisplay

rng = np.random.default_rng(0)
centers = rng.uniform(0, 20, size=(25, 2))
X = centers[rng.integers(25, size=1000)] + rng.normal(size=(1000, 2))

options = {"prior": "empirical", "max_iter": 500}
singles = [BayesianGMM_MAP(25, random_state=seed, **options).fit(X) for seed in range(12)]
bounds = np.array([model.lower_bound_ for model in singles])
best_of_many = BayesianGMM_MAP(25, n_init=20, random_state=0, **options).fit(X)
print(f"one start: {bounds.min():.3f} to {bounds.max():.3f} nats per row")
print(f"the best of twenty: {best_of_many.lower_bound_:.3f}")
assert best_of_many.lower_bound_ > np.median(bounds)

# %%
# The worst and the best fit differ in a few components where clusters overlap.

fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
axes[0].plot(np.sort(bounds), np.arange(1, 13), "o", label="one start")
axes[0].axvline(best_of_many.lower_bound_, color="tab:orange", label="best of twenty")
axes[0].set(xlabel="objective (nats per row)", ylabel="fits, sorted")
axes[0].locator_params(axis="x", nbins=4)
axes[0].legend()
for ax, model, title in (
    (axes[1], singles[bounds.argmin()], "the worst of 12"),
    (axes[2], best_of_many, "the best of twenty"),
):
    MixtureDisplay.from_estimator(model, X, ax=ax)
    ax.set_title(title)
plt.show()
