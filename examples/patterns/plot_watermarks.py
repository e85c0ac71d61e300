"""
Find watermarks in photographs
==============================

One of two faint logos is stamped somewhere on each photograph. To the logo, the photograph is
noise, with little power at high frequencies. :class:`~skem.ShiftedTemplateEM` with added
templates in stationary noise finds both.
"""

# %%
# Square parts of the two photographs of scikit-learn, in gray. Their mean is subtracted, so
# that the background is flat.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

from skem import ShiftedTemplateEM

rng = np.random.default_rng(0)
n, size, width = 120, 36, 12
photographs = [image.mean(2) for image in load_sample_images().images]


def part():
    """Return a part of a photograph, at half its size."""
    photograph = photographs[rng.integers(2)]
    row, column = (rng.integers(length - 2 * size) for length in photograph.shape)
    found = photograph[row : row + 2 * size, column : column + 2 * size]
    return found.reshape(size, 2, size, 2).mean((1, 3))


v, u = np.mgrid[:width, :width] - (width - 1) / 2
ring = (np.abs(np.hypot(u, v) - 4.3) < 1.2).astype(float)
cross = ((np.abs(u) < 1.2) | (np.abs(v) < 1.2)) & (np.hypot(u, v) < 5.6)
logos = 40 * np.array([ring, cross.astype(float)])

images = np.array([part() for _ in range(n)])
images -= images.mean((1, 2), keepdims=True)
which = rng.integers(2, size=n)
corner = rng.integers(size - width + 1, size=(n, 2))
for image, logo, (row, column) in zip(images, logos[which], corner, strict=True):
    image[row : row + width, column : column + width] += logo

# %%
# The logos move along both axes, and ``predict_class`` says which one a photograph has.

model = ShiftedTemplateEM(
    width,
    template_height=width,
    n_templates=2,
    composition="add",
    noise="stationary",
    random_state=0,
).fit(images)
which_found = model.predict_class(images)
order = [0, 1] if np.mean(which_found == which) > 0.5 else [1, 0]
print(f"right logo: {np.mean(np.array(order)[which_found] == which):.2f}")

# the corner of a template is arbitrary: compare places within each logo
places = model.shifts(images)
error = places - corner
for c in (0, 1):
    error[which_found == c] -= np.median(error[which_found == c], axis=0)
print(f"right place, within a pixel: {np.mean(np.abs(error).max(1) <= 1):.2f}")

fig, axes = plt.subplots(2, 4, figsize=(9, 4.6), layout="constrained")
for ax, image, (row, column) in zip(axes[:, :3].ravel(), images, places, strict=False):
    ax.imshow(image, cmap="gray")
    ax.add_patch(
        plt.Rectangle((column - 0.5, row - 0.5), width, width, fill=False, ec="tab:orange")
    )
for ax, template in zip(axes[:, 3], model.templates_[order], strict=True):
    ax.imshow(template, cmap="gray")
    ax.set_title("found logo")
for ax in axes.ravel():
    ax.set(xticks=[], yticks=[])
plt.show()
