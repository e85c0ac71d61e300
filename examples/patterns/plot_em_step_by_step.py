"""
EM step by step: find a hidden face
===================================

In a well-known exercise, a face is pasted at an unknown column of a background in many noisy
images. The student writes the E step, the M step and the lower bound. The functions of
:mod:`skem.template` are these steps. This example checks them on small numbers, combines them
to EM, and compares the result with hard EM and with the estimator.
"""

# %%
# Small numbers to check
# ----------------------
# Two images of 2 x 3 pixels and a template of one column. The exercise has the images on the
# last axis; here they come first.

import time

import matplotlib.pyplot as plt
import numpy as np

from skem import ShiftedTemplateEM
from skem.datasets import load_hidden_face
from skem.template import TemplateParams, e_step, log_joint, lower_bound, m_step

X = np.arange(12.0).reshape(2, 3, 2).transpose(2, 0, 1)
params = TemplateParams(
    template=np.arange(2.0).reshape(2, 1),
    background=np.arange(6.0).reshape(2, 3),
    noise_std=0.1,
    shift_prior=np.array([1, 2, 3]) / 6,
)
q = np.arange(1.0, 7).reshape(3, 2)
q = (q / q.sum(axis=0)).T

print("log p(x | d):\n", log_joint(X, *params) - np.log(params.shift_prior))
print("lower bound at q:", round(lower_bound(X, q, *params), 4))
print("posterior:\n", e_step(X, *params).round(12))
new = m_step(X, q, params.template, params.background)
print("face:\n", new.template, "\nbackground:\n", new.background)
print("noise:", round(new.noise_std, 5), " shifts:", new.shift_prior.round(8))

# %%
# EM by hand
# ----------
# EM alternates the two steps. A growing schedule begins with few images: five iterations on 50,
# then one each on 100, 300 and all 500. The start is random.

data = load_hidden_face(500, noise_std=400, dtype=float, random_state=0)
images = data.X.reshape(-1, 100, 200)
schedule = [50] * 5 + [100, 300, 500]


def by_hand(hard: bool) -> TemplateParams:
    """EM from random pixels, with the growing schedule."""
    rng = np.random.default_rng(0)
    start = TemplateParams(
        rng.uniform(0, 255, size=(100, 73)),
        rng.uniform(0, 255, size=(100, 200)),
        float(images.std()),
        np.full(128, 1 / 128),
    )
    params = start
    for n in schedule:
        some = images[:n]
        q = e_step(some, *params, hard=hard)
        # shifts that these images lack stay possible
        params = m_step(some, q, *params[:2], shift_concentration_prior=1.1)
    return params


# %%
# Soft and hard EM
# ----------------
# Hard EM assigns each image to its most probable column. It saves little time, since both steps
# still read all pixels, and its face is a little worse. After the few iterations of the
# schedule one recognizes the face. The estimator iterates until it converges, from a start in
# which all columns are equally probable. Its face is sharper, and it takes less time, since it
# computes the Fourier transform of the images only once.


def quality(template: np.ndarray) -> float:
    """Largest correlation with the hidden face over common offsets of up to 40 columns."""
    best = -1.0
    for offset in range(-40, 41):
        a = template[:, max(offset, 0) : 73 + min(offset, 0)]
        b = data.template[:, max(-offset, 0) : 73 + min(-offset, 0)]
        best = max(best, float(np.corrcoef(a.ravel(), b.ravel())[0, 1]))
    return best


faces = {}
for name, hard in (("soft EM, growing schedule", False), ("hard EM, growing schedule", True)):
    begin = time.process_time()
    found = by_hand(hard)
    faces[name] = found.template, time.process_time() - begin
for algorithm in ("soft", "hard"):
    begin = time.process_time()
    model = ShiftedTemplateEM(
        73, image_shape=(100, 200), algorithm=algorithm, init="mean", random_state=0
    ).fit(images)
    faces[f"{algorithm} EM, the estimator"] = model.template_, time.process_time() - begin

fig, axes = plt.subplots(1, 5, figsize=(13, 4), layout="constrained")
for ax, (name, (face, seconds)) in zip(axes, faces.items(), strict=False):
    ax.imshow(face, cmap="gray")
    ax.set_title(f"{name}\n{seconds:.1f} s, correlation {quality(face):.3f}", fontsize=8)
    print(f"{name}: {seconds:.1f} s, correlation {quality(face):.3f}")
axes[-1].imshow(data.template, cmap="gray")
axes[-1].set_title("hidden", fontsize=8)
for ax in axes:
    ax.axis("off")

# %%
# The same numbers come from a fitted estimator: ``log_joint(X)`` is log p(x, d) in a row for
# each image, and ``predict_proba(X)`` is the E step.

joint = model.log_joint(images[:3])
print("most probable columns:", joint.argmax(axis=1), model.predict(images[:3]))
plt.show()
