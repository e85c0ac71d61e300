"""
Separate the spikes of two neurons
==================================

An electrode records the spikes of two neurons. Their shapes differ, and their amplitudes vary
from spike to spike. With ``n_templates=2`` and ``amplitude="free"``,
:class:`~skem.ShiftedTemplateEM` finds both shapes. For each window of the recording it tells
which neuron has spiked, when, and how strongly.
"""

# %%
# Four hundred windows of 80 samples, each with one spike at an unknown time. One in three
# spikes is from the second neuron. Times are not multiples of the sampling step.

import matplotlib.pyplot as plt
import numpy as np

from skem import ShiftedTemplateEM

rng = np.random.default_rng(0)
n, length, width = 400, 80, 24


def shape(neuron, t):
    """Voltage of a spike t samples after its beginning."""
    if neuron == 0:
        return 0.7 * np.exp(-((t - 12) ** 2) / 30) - np.exp(-((t - 8) ** 2) / 5)
    return 0.4 * np.exp(-((t - 17) ** 2) / 20) - 0.9 * np.exp(-((t - 10) ** 2) / 14)


neuron = (rng.uniform(size=n) < 1 / 3).astype(int)
time = rng.uniform(2, length - width - 2, size=n)
amplitude = rng.normal(1, 0.2, size=n)
X = rng.normal(scale=0.15, size=(n, length))
for k in range(n):
    X[k] += amplitude[k] * shape(neuron[k], np.arange(length) - time[k])

# %%
# One template would be a blend of both neurons.

blend = ShiftedTemplateEM(width, amplitude="free", random_state=0).fit(X)
model = ShiftedTemplateEM(width, n_templates=2, amplitude="free", random_state=0).fit(X)
bic = [blend.bic(X), model.bic(X)]
print(f"BIC of one template {bic[0]:.0f}, of two {bic[1]:.0f}")

found = model.predict_class(X)
if np.mean(found == neuron) < 0.5:  # templates come in any order
    found = 1 - found
print(f"right neuron: {np.mean(found == neuron):.3f}")

# %%
# The corner of a template is arbitrary, so times are found up to a constant for each neuron.
# The places between samples are found from the likelihoods of neighboring shifts.

error = model.shifts(X, subpixel=True) - time
coarse = model.shifts(X) - time
for c in (0, 1):
    error[neuron == c] -= np.median(error[neuron == c])
    coarse[neuron == c] -= np.median(coarse[neuron == c])
for name, e in (("whole samples", coarse), ("between samples", error)):
    print(f"median error of the times, {name}: {np.median(np.abs(e)):.2f} samples")

fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
axes[0].plot(X[:12].T + 1.5 * np.arange(12), color="0.3", lw=0.8)
axes[0].set(title="windows of the recording", xlabel="sample", yticks=[])
for c, template in enumerate(model.templates_[:, 0]):
    label = f"{100 * model.class_weights_[c]:.0f}% of the spikes"
    axes[1].plot(template, color=f"C{c}", label=label)
axes[1].plot(blend.template_[0], color="0.6", ls=":", label="one template")
axes[1].set(title="templates", xlabel="sample", ylabel="voltage")
axes[1].legend(fontsize=8)
for c in (0, 1):
    own = model.predict_class(X) == c
    axes[2].plot(amplitude[own], model.amplitudes(X[own]), ".", color=f"C{c}", ms=4)
axes[2].axline((1, 1), slope=1, color="0.6", lw=1)
axes[2].set(title="amplitudes", xlabel="true", ylabel="found")
plt.show()
