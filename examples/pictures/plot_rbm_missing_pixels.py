"""
Complete digits with an RBM
===========================

A restricted Boltzmann machine (RBM) learns which pixels occur together. Gibbs chains that keep
the observed pixels of an image estimate the probability of each missing pixel. The data are
scikit-learn's 8x8 digits.
"""

# %%
# Binary digits, 1 where there is ink, and RBMs of three sizes.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.impute import KNNImputer

from skem import BernoulliRBMCD, ChainsDisplay, FiltersDisplay, ImputationDisplay

X = (load_digits().data > 7).astype(np.float32)
X = X[np.random.default_rng(0).permutation(len(X))]
train, test = X[:1500], X[1500:]

machines = {
    n_hidden: BernoulliRBMCD(n_hidden, n_iter=100, random_state=0).fit(train)
    for n_hidden in (20, 100, 500)
}
for n_hidden, machine in machines.items():
    log_z = machine.log_partition()
    print(
        f"{n_hidden} hidden units: {machine.score(test):.1f} nats per held-out image, "
        f"log Z {log_z.method}, standard error {log_z.standard_error:.2f}"
    )

# %%
# 20, 50 and 80% of the pixels are hidden, or the lower half of the image. How many of the
# hidden pixels are wrong, if the more probable value is taken?

rng = np.random.default_rng(1)
cases = {f"{share:.0%}": rng.random(test.shape) < share for share in (0.2, 0.5, 0.8)}
lower = np.arange(test.shape[1]) >= test.shape[1] // 2
cases["lower half"] = np.broadcast_to(lower, test.shape)

neighbors = KNNImputer(n_neighbors=5).fit(train[:2000])
methods = {
    "mean image": lambda v: np.broadcast_to(train.mean(0), v.shape),
    "5 neighbors": neighbors.transform,
    **{f"{n} hidden": machine.impute for n, machine in machines.items()},
}
wrong = {
    name: [
        100 * ((fill(np.where(missing, np.nan, test)) > 0.5) != test)[missing].mean()
        for missing in cases.values()
    ]
    for name, fill in methods.items()
}
print(f"{'wrong pixels in %':16}", *(f"{name:>11}" for name in cases))
for name, values in wrong.items():
    print(f"{name:16}", *(f"{value:11.1f}" for value in values))

# %%
# Digits completed by the largest RBM. From top to bottom: observed (missing pixels in blue),
# completed, true. The completed pixels are probabilities, so that gray means uncertain.

fig, axes = plt.subplots(2, 2, figsize=(12, 4.6), layout="constrained")
for ax, (name, missing) in zip(axes.flat, cases.items(), strict=True):
    ImputationDisplay.from_estimator(machines[500], test[:10], missing[:10], ax=ax)
    ax.set_title(f"missing: {name}")

# %%
# The weights of 20 hidden units. They show strokes, and places without ink.

fig, ax = plt.subplots(figsize=(5, 4.4), layout="constrained")
FiltersDisplay.from_estimator(machines[20], ax=ax)

# %%
# Free Gibbs chains that start from test images. They remain digits, and turn into others over
# time.

fig, ax = plt.subplots(figsize=(7, 5), layout="constrained")
ChainsDisplay.from_estimator(machines[500], test[:6], random_state=0, ax=ax)
plt.show()
