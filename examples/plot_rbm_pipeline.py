"""
Features for a classifier, tuned in a pipeline
==============================================

The probabilities of the hidden units are features. The machine and the classifier after it
are tuned together by ``GridSearchCV``, for this estimator and for scikit-learn's.
"""

# %%
# Digits moved by up to a pixel in all directions: a linear classifier alone has a hard time.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skem import BernoulliRBMCD

images, y = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
moved = np.stack(
    [
        np.roll(image, rng.integers(-1, 2, size=2), axis=(0, 1)).ravel()
        for image in images.reshape(-1, 8, 8)
    ]
)
X_train, X_test, y_train, y_test = train_test_split(moved, y, test_size=0.4, random_state=0)

# %%
# The same grid for both; scikit-learn's also gets the step sizes and batches to choose from
# that it needs.

classifier = LogisticRegression(max_iter=2000)
searches = {
    "skem": GridSearchCV(
        make_pipeline(MinMaxScaler(), BernoulliRBMCD(n_iter=40, random_state=0), classifier),
        {"bernoullirbmcd__n_components": [50, 200], "logisticregression__C": [1, 10]},
        cv=3,
    ),
    "scikit-learn": GridSearchCV(
        make_pipeline(MinMaxScaler(), BernoulliRBM(n_iter=40, random_state=0), classifier),
        {
            "bernoullirbm__n_components": [50, 200],
            "bernoullirbm__learning_rate": [0.01, 0.1],
            "logisticregression__C": [1, 10],
        },
        cv=3,
    ),
}
accuracy = {"pixels": [classifier.fit(X_train, y_train).score(X_test, y_test)]}
for name, search in searches.items():
    start = time.perf_counter()
    search.fit(X_train, y_train)
    accuracy[name] = [search.score(X_test, y_test)]
    print(f"{name}: {search.best_params_}, {time.perf_counter() - start:.0f} s")
    machine = search.best_estimator_[1]
    scaled = search.best_estimator_[0].transform(X_test)
    if hasattr(machine, "log_partition"):
        print(f"  {machine.score(scaled):.1f} nats per held-out image")

# %%
# Accuracy on held-out digits.

for name, (value,) in accuracy.items():
    print(f"{name:14} {value:.3f}")
fig, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
bars = ax.barh(list(accuracy), [value for (value,) in accuracy.values()])
ax.bar_label(bars, fmt="%.3f", padding=3)
ax.set(xlim=(0.7, 1), xlabel="accuracy on held-out digits")
ax.invert_yaxis()
plt.show()
