"""
Generate digits with a GAN
==========================

A generative adversarial network (GAN) trains a generator of rows against a discriminator, which
tries to tell generated rows from real ones. The example compares the defaults with the settings
of most tutorials on scikit-learn's 8x8 digits.
"""

# %%
# Both are trained for the same number of steps. The second has no spectral normalization, no
# average of the weights, and the usual settings of Adam.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skem import GANEstimator

X = (load_digits().data / 16).astype(np.float32)

usual = {
    "activation": "relu",
    "noise": "uniform",
    "spectral_norm": False,
    "average": 0,
    "learning_rate_init": 1e-3,
    "beta_1": 0.9,
    "beta_2": 0.999,
}
warnings.simplefilter("ignore", ConvergenceWarning)  # the usual settings may collapse
models = {
    "defaults": GANEstimator(max_iter=300, random_state=0).fit(X),
    "usual settings": GANEstimator(max_iter=300, random_state=0, **usual).fit(X),
}

# %%
# Real digits, and digits that the two generators draw.


def sheet(rows):
    rows = np.pad(rows.reshape(2, 15, 8, 8), [(0, 0), (0, 0), (0, 1), (0, 1)])
    return rows.transpose(0, 2, 1, 3).reshape(18, 135)[:-1, :-1]


fig, axes = plt.subplots(3, 1, figsize=(9, 4.8), layout="constrained")
drawn = {name: model.sample(1797, random_state=0) for name, model in models.items()}
for ax, (name, rows) in zip(axes, {"real digits": X, **drawn}.items(), strict=True):
    ax.imshow(sheet(rows[:30]), cmap="gray")
    ax.set_title(name)
    ax.set_axis_off()

# %%
# ``coverage_`` is the share of real digits with a generated digit in their neighborhood. A
# nearest-neighbor classifier measures how easily generated digits are recognized: its accuracy
# is 0.5 if they look real.

folds = StratifiedKFold(3, shuffle=True, random_state=0)
for name, model in models.items():
    both = np.vstack([X, drawn[name]])
    real = np.repeat([1, 0], len(X))
    found_out = cross_val_score(KNeighborsClassifier(1), both, real, cv=folds).mean()
    print(f"{name}: coverage {model.coverage_:.2f}, recognized {found_out:.2f}")

# %%
# Losses in nats. Where the discriminator cannot tell rows apart its loss is 2 log 2.

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
for ax, (name, model) in zip(axes, models.items(), strict=True):
    ax.plot(model.discriminator_loss_curve_, label="discriminator")
    ax.plot(model.generator_loss_curve_, label="generator")
    ax.axhline(2 * np.log(2), color="0.6", lw=1, ls="--", label="2 log 2")
    ax.set(title=name, xlabel="pass", yscale="log")
axes[0].set_ylabel("loss (nats)")
axes[1].legend()
plt.show()
