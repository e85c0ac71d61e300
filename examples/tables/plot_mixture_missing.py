"""
Fit a mixture to a table with missing values
============================================

A mixture of all features gives the distribution of any of them given the others. Rows with NaN
are fitted by their observed values, and ``impute`` fills them with conditional means. A
regression is then an imputation of the target.
"""

# %%
# Measurements of 150 irises. A third of all values is removed, and then filled.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris
from sklearn.impute import KNNImputer, SimpleImputer

from skem import BayesianGMM_MAP, MixtureDisplay

rng = np.random.default_rng(0)
complete = load_iris(as_frame=True).data
missing = rng.random(complete.shape) < 1 / 3
X = complete.mask(missing)

model = BayesianGMM_MAP(3, prior="empirical", n_init=10, random_state=0).fit(X)
filled = {
    "mean": SimpleImputer().fit_transform(X),
    "10 neighbors": KNNImputer(n_neighbors=10).fit_transform(X),
    "mixture": model.impute(X),
}
for name, values in filled.items():
    error = np.sqrt(np.mean((values - complete.to_numpy())[missing] ** 2))
    print(f"{name}: root mean square error {error:.3f} cm")

# %%
# Every row is drawn: rows that lack one of the two values are hollow, at the mean of what is
# missing given what is observed.

pair = ["petal length (cm)", "sepal width (cm)"]
MixtureDisplay.from_estimator(model, X, features=pair)
plt.show()

# %%
# Regression: the second column given the first, of a mixture fitted to both. The conditional
# mean is an imputation. The conditional density is the ratio p(x, y) / p(x). ``score_samples``
# gives both: the score of a row with NaN is that of its observed values.

x = rng.uniform(-3, 3, size=1500)
y = np.where(rng.random(1500) < 0.5, np.sin(x), np.sin(x) + 1.5 + 0.5 * x)
y = y + 0.15 * rng.normal(size=1500)
pairs = BayesianGMM_MAP(14, prior="empirical", n_init=5, random_state=0, max_iter=500)
pairs.fit(np.column_stack([x, y]))

xs, ys = np.linspace(-3, 3, 121), np.linspace(-2, 5, 141)
without_y = np.column_stack([xs, np.full(len(xs), np.nan)])
mean = pairs.impute(without_y)[:, 1]
grid = np.stack(np.meshgrid(xs, ys), axis=2).reshape(-1, 2)
joint = pairs.score_samples(grid).reshape(len(ys), len(xs))
conditional = np.exp(joint - pairs.score_samples(without_y))

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
names = list(filled)
errors = [np.abs(filled[name] - complete.to_numpy())[missing] for name in names]
left.boxplot(errors, tick_labels=names, showfliers=False)
left.set_ylabel("absolute error of filled values (cm)")
picture = right.imshow(
    conditional, origin="lower", aspect="auto", extent=(-3, 3, -2, 5), cmap="Blues"
)
fig.colorbar(picture, ax=right, label="p(y | x)")
right.plot(x, y, ".", ms=2, color="gray", alpha=0.5)
right.plot(xs, mean, color="tab:orange", label="E[y | x]")
right.set(xlabel="x", ylabel="y", xlim=(-3, 3), ylim=(-2, 5))
right.legend(loc="upper left")
plt.show()
