"""
Adapt a mixture to a few rows
=============================

A few words are not enough to fit a mixture to a new speaker. Speaker recognition [1]_ therefore
fits one background model to many speakers and adapts its means to each new one. ``mean_prior``
has a row for each component, and ``fixed`` keeps the weights and the covariances.

.. [1] D. A. Reynolds, T. F. Quatieri and R. B. Dunn, "Speaker verification using adapted
   Gaussian mixture models", Digital Signal Processing 10, 2000.
"""

# %%
# Simulated speakers: all share 16 sounds in 8 features, and each speaker shifts every sound a
# little.

import matplotlib.pyplot as plt
import numpy as np

from skem import BayesianGMM_MAP

rng = np.random.default_rng(0)
n_sounds, n_features, n_speakers = 16, 8, 20
sounds = 3 * rng.normal(size=(n_sounds, n_features))
voices = 0.6 * rng.normal(size=(n_speakers, n_sounds, n_features))


def speech(voice, n_rows):
    which = rng.integers(n_sounds, size=n_rows)
    return (sounds + voice)[which] + rng.normal(size=(n_rows, n_features))


others = 0.6 * rng.normal(size=(60, n_sounds, n_features))
background = BayesianGMM_MAP(n_sounds, prior="empirical", random_state=0)
background.fit(np.concatenate([speech(voice, 100) for voice in others]))

# %%
# Each mean becomes (16 mu_k + N_k m_k) / (16 + N_k), with the N_k rows of the component and
# their average m_k. The original recipe takes one iteration; here EM converges. For comparison,
# a mixture of 4 components with the empirical prior is fitted to the same rows alone.

adapted = BayesianGMM_MAP(
    n_sounds,
    weights_init=background.weights_,
    precisions_init=background.precisions_,
    fixed=["weights", "covariances"],
    mean_prior=background.means_,
    mean_precision_prior=16,
    tol=1e-4,
)
alone = BayesianGMM_MAP(4, prior="empirical", random_state=0)
counts = [15, 30, 60, 120, 250]
correct = {"adapted": [], "alone": []}
tests = [speech(voice, 30) for voice in voices]
for n_rows in counts:
    rows = [speech(voice, n_rows) for voice in voices]
    for name, model in (("adapted", adapted), ("alone", alone)):
        scores = []
        for own in rows:
            model.fit(own)
            scores.append([model.score(test) for test in tests])
        correct[name].append(np.mean(np.argmax(scores, axis=0) == np.arange(n_speakers)))
for name, shares in correct.items():
    print(f"{name}: " + ", ".join(f"{share:.0%}" for share in shares))

# %%
# A test of 30 rows goes to the speaker whose model gives it the highest likelihood.

fig, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for name, shares in correct.items():
    axis.semilogx(counts, shares, "o-", label=name)
axis.set_xticks(counts, counts)
axis.minorticks_off()
axis.set(xlabel="rows of each speaker", ylabel="speakers recognized")
axis.legend()
plt.show()
