"""
Classify with a few labels
==========================

``resp_prior`` passes what is known about the component of each row to ``fit``: labels, or prior
probabilities. The rows without labels show where the classes lie, and a few labels name them.
"""

# %%
# The digits, in the first 20 principal components. All images are fitted, and some of each
# class have a label. A logistic regression learns from the labels alone, label spreading from
# both.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading

from skem import BayesianGMM_MAP

images, y = load_digits(return_X_y=True)
X = PCA(20, random_state=0).fit_transform(images)
rng = np.random.default_rng(0)
counts = [1, 2, 5, 10, 30]
correct = {"mixture": [], "label spreading": [], "labels alone": []}
for n_labels in counts:
    known = np.zeros(len(X), dtype=bool)
    for digit in range(10):
        known[rng.choice(np.flatnonzero(y == digit), n_labels, replace=False)] = True
    # a row of ones says nothing, a row of 0 with a single 1 is a label
    resp_prior = np.where(known[:, None], np.eye(10)[y], 1.0)
    mixture = BayesianGMM_MAP(10, prior="empirical", random_state=0)
    mixture.fit(X, resp_prior=resp_prior)
    spreading = LabelSpreading("knn", n_neighbors=20).fit(X, np.where(known, y, -1))
    alone = LogisticRegression(max_iter=1000).fit(X[known], y[known])
    for name, model in zip(correct, (mixture, spreading, alone), strict=True):
        correct[name].append(np.mean(model.predict(X[~known]) == y[~known]))
for name, shares in correct.items():
    print(f"{name}: " + ", ".join(f"{share:.0%}" for share in shares))

# %%
# One label per digit is not enough to name all groups of images. With two labels per digit, the
# mixture classifies nine of ten images correctly. Its components keep the order of the columns
# of ``resp_prior``, so that ``predict`` returns digits.

fig, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for name, shares in correct.items():
    axis.semilogx(counts, shares, "o-", label=name)
axis.set_xticks(counts, counts)
axis.set(xlabel="labels for each digit", ylabel="accuracy on images without a label")
axis.legend()
plt.show()
