"""
Find a face hidden in noisy photographs
=======================================

A portrait is pasted at a random place into a thousand copies of a photograph, and noise
three times as strong as the contrast is added to each. No single picture shows anything.
:class:`~skem.ShiftedTemplateEM` finds the face, the photograph behind it, how strong the
noise is, and where the face is in each picture.
"""

# %%
# The data
# --------
# Matplotlib's portrait of Grace Hopper, 100 x 73 pixels, hides in scikit-learn's picture of
# a Chinese palace, 100 x 200. The noise has a standard deviation of 400 gray levels; then
# pixels are clipped to 0...255.

import time

import matplotlib.pyplot as plt
import numpy as np

from skem import ObjectiveDisplay, ShiftedTemplateEM, TemplateDisplay
from skem.datasets import load_hidden_face

data = load_hidden_face(1000, noise_std=400, random_state=0)
height, width = data.image_shape

# %%
# The fit
# -------
# All that it needs to know is the size of an image and the width of the face.

start = time.perf_counter()
model = ShiftedTemplateEM(73, image_shape=(height, width), random_state=0).fit(data.X)
seconds = time.perf_counter() - start

error = np.abs(model.predict(data.X) - data.shifts)
correlation = np.corrcoef(model.template_.ravel(), data.template.ravel())[0, 1]
print(f"fitted {len(data.X)} images of {height} x {width} in {seconds:.1f} s")
print(f"correlation of the found face with the hidden one: {correlation:.3f}")
print(f"place found within 2 pixels in {np.mean(error <= 2):.1%} of the images")
print(f"objective: {model.lower_bound_:.2f} nats per image")

# %%
# What it found
# -------------

fig, axes = plt.subplots(2, 3, figsize=(11, 5.2), layout="constrained")
for ax, image, title in zip(
    axes.flat,
    [
        data.X[0].reshape(height, width),
        data.X[1].reshape(height, width),
        data.X.mean(axis=0).reshape(height, width),
        model.template_,
        model.background_,
        model.reconstruct(data.X[:1]).reshape(height, width),
    ],
    [
        "one of 1000 images",
        "another",
        "their mean",
        "the face that was found",
        "the background that was found",
        "the first image, denoised",
    ],
    strict=True,
):
    ax.imshow(image, cmap="gray")
    ax.set_title(title)
    ax.axis("off")
fig.savefig("hidden_face.png", dpi=110)
print("saved hidden_face.png")

# %%
# One image, with the posterior distribution of the face's place in it:

display = TemplateDisplay.from_estimator(model, data.X[0])

# %%
# The search for a good start has left little for EM itself to do. From the plainest start, in
# which every place is equally probable, one sees the objective rise with every iteration:

mean_start = ShiftedTemplateEM(73, image_shape=(height, width), init="mean").fit(data.X)
display = ObjectiveDisplay.from_estimator(mean_start)
plt.show()
