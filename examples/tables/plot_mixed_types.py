"""
Fill a table of numbers and categories
======================================

:class:`skem.LatentImputer` fills missing measurements of simulated penguins from their species,
and missing species from the measurements. With a :class:`skem.VAEEstimator` inside, each column
has the likelihood of its type.
"""

# %%
# A data frame with two measurements, a column of strings and one of booleans. A fifth of all
# cells is lost.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer

from skem import LatentImputer, VAEEstimator

rng = np.random.default_rng(0)
n = 400
group = rng.integers(3, size=n)
complete = pd.DataFrame(
    {
        "bill": np.array([39, 49, 47])[group] + 2.5 * rng.normal(size=n),
        "depth": np.array([18.5, 18.5, 15])[group] + rng.normal(size=n),
        "species": np.array(["north", "west", "east"])[group],
        "diver": np.where(group == 2, rng.random(n) < 0.9, rng.random(n) < 0.2),
    }
)
lost = rng.random(complete.shape) < 0.2
table = complete.astype({"diver": "boolean"}).mask(lost)
print(table.head())

# %%
# The imputer recognizes the two columns of categories by their types. The filled table has the
# same types.

imputer = LatentImputer().fit(table)
filled = imputer.transform(table)
print(filled.head())
print(imputer.estimator_)

# %%
# How often the filled categories are right, beside the most frequent value; and the error of
# the measurements beside the mean.

frequent = SimpleImputer(strategy="most_frequent").set_output(transform="pandas")
texts = table.astype(object).where(table.notna(), np.nan)
others = frequent.fit_transform(texts)
for name in ("species", "diver"):
    cells = lost[:, complete.columns.get_loc(name)]
    right = (filled[name] == complete[name])[cells].mean()
    print(f"{name:8} {right:.2f} right, {(others[name] == complete[name])[cells].mean():.2f}")
for name in ("bill", "depth"):
    cells = lost[:, complete.columns.get_loc(name)]
    errors = [
        values[cells] - complete[name][cells]
        for values in (filled[name], table[name].mean() + 0 * complete[name])
    ]
    print("{:8} error {:.2f}, {:.2f}".format(name, *(np.sqrt((e**2).mean()) for e in errors)))

# %%
# How sure the imputer is: ``std`` holds the standard deviation of each missing measurement and,
# for a missing category, the probability that another one is right. Most wrong species
# are among those in doubt.

filled, std = imputer.impute(table, return_std=True)
right = (filled["species"] == complete["species"])[lost[:, 2]]
in_doubt = std["species"][lost[:, 2]] > 0.1
print(
    f"{(~right).sum()} of {len(right)} species are wrong, expected {std['species'].sum():.1f}"
)
print(f"{(~right)[in_doubt].sum()} of them are among the {in_doubt.sum()} in doubt")
assert (~right)[in_doubt].sum() > 0.6 * (~right).sum()

# %%
# A variational autoencoder in place of the mixture models categories as categories: a column of
# strings gets a probability for each of them. It can draw whole rows too, with codes of
# categories.

autoencoder = VAEEstimator(4, hidden_layer_sizes=(32,), random_state=0)
imputer = LatentImputer(autoencoder).fit(table)
by_codes = imputer.transform(table)
print("columns:", imputer.estimator_.likelihood_)
for name in ("species", "diver"):
    cells = lost[:, complete.columns.get_loc(name)]
    print(f"{name:8} {(by_codes[name] == complete[name])[cells].mean():.2f} right")
print(imputer.estimator_.sample(3, random_state=0).round(1))

# %%
# Rows whose species was lost, in the color of the one that was filled in. Crosses are wrong.

cells = lost[:, 2]
right = (filled["species"] == complete["species"]).to_numpy()
fig, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
for name, color in zip(("north", "west", "east"), ("C0", "C1", "C2"), strict=True):
    own = (filled["species"] == name).to_numpy()
    ax.scatter(filled["bill"][own & ~cells], filled["depth"][own & ~cells], 6, color, alpha=0.3)
    for correct, marker in ((True, "o"), (False, "x")):
        some = own & cells & (right == correct)
        label = name if correct else None
        ax.scatter(
            filled["bill"][some], filled["depth"][some], 40, color, marker=marker, label=label
        )
ax.set(xlabel="bill, mm", ylabel="depth, mm")
ax.legend(title="filled species")
plt.show()
