"""
Tune RBM features in a pipeline
===============================

The probabilities of the hidden units are features for a classifier. ``GridSearchCV`` tunes the
RBM and the classifier together, for skem's RBM and for scikit-learn's.
"""

# %%
# Each digit is used as it is, and shifted by a pixel in four directions. Shifts are hard for a
# linear classifier. All copies of a digit stay on the same side of every split.

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import shift
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, train_test_split
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline

from skem import BernoulliRBMCD

images, labels = load_digits().images / 16, load_digits().target
MOVES = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]


def moved(chosen):
    copies = [shift(images[chosen], (0, *move), order=0) for move in MOVES]
    return np.concatenate(copies).reshape(-1, 64), np.tile(labels[chosen], len(MOVES))


train, test = train_test_split(np.arange(len(labels)), test_size=0.3, random_state=0)
(X_train, y_train), (X_test, y_test) = moved(train), moved(test)
groups = np.tile(train, len(MOVES))

# %%
# One grid for each. The RBM of the highest likelihood need not have the most useful features,
# so that ``centered`` is tuned too. scikit-learn's RBM needs a tuned learning rate.

warnings.simplefilter("ignore", ConvergenceWarning)  # the classifier is good enough early
classifier = LogisticRegression(C=100, max_iter=200)
machines = {
    "skem": (
        BernoulliRBMCD(100, n_iter=20, random_state=0),
        {"bernoullirbmcd__centered": [True, False]},
    ),
    "scikit-learn": (
        BernoulliRBM(100, n_iter=20, random_state=0),
        {"bernoullirbm__learning_rate": [0.01, 0.1]},
    ),
}
accuracy = {"pixels": classifier.fit(X_train, y_train).score(X_test, y_test)}
for name, (machine, grid) in machines.items():
    search = GridSearchCV(make_pipeline(machine, classifier), grid, cv=GroupKFold(3))
    start = time.perf_counter()
    search.fit(X_train, y_train, groups=groups)
    accuracy[name] = search.score(X_test, y_test)
    print(f"{name}: {search.best_params_}, {time.perf_counter() - start:.0f} s")

# %%
# Accuracy on held-out digits.

for name, value in accuracy.items():
    print(f"{name:14} {value:.3f}")
fig, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
bars = ax.barh(list(accuracy), list(accuracy.values()))
ax.bar_label(bars, fmt="%.3f", padding=3)
ax.set(xlim=(0.7, 1), xlabel="accuracy on held-out digits")
ax.invert_yaxis()
plt.show()
