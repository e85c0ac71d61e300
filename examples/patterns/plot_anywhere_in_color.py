"""
Find a pattern in color images with missing pixels
==================================================

If the template of :class:`~skem.ShiftedTemplateEM` is lower than the image, it moves along both
axes. Images may have channels, pixels may be missing, and the template may be absent from some
images. This example combines all of these.
"""

# %%
# Part of scikit-learn's picture of a flower is hidden at random places in noisy copies of its
# picture of a Chinese palace. Six images of ten contain it. A third of all pixels are missing.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

from skem import ShiftedTemplateEM, TemplateDisplay
from skem.datasets import make_shifted_templates

china, flower = (picture / 255 for picture in load_sample_images().images)
background = china[20:404:12, 40:616:12]
template = flower[100:292:12, 250:442:12]
data = make_shifted_templates(
    300, template=template, background=background, noise_std=0.4, absent=0.4, random_state=0
)
rng = np.random.default_rng(0)
X = np.where(rng.uniform(size=data.X.shape) < 1 / 3, np.nan, data.X)

# %%
# Missing pixels are marginalized, not guessed. ``predict`` gives -1 where it finds no template.

model = ShiftedTemplateEM(
    16, template_height=16, image_shape=background.shape, absent=True, random_state=0
).fit(X)
shifts = model.predict(X)
print(f"presence found in {np.mean((shifts < 0) == (data.shifts < 0)):.1%} of the images")
present = data.shifts >= 0
print(f"place found in {np.mean(shifts[present] == data.shifts[present]):.1%} of those")

# %%
# ``impute`` fills missing pixels with their conditional expectation.

filled = model.impute(X)
missing = np.isnan(X)
error = np.sqrt(np.mean((filled - data.X)[missing] ** 2))
print(f"error of the imputed pixels {error:.3f}, of which noise {data.noise_std}")

fig, axes = plt.subplots(2, 3, figsize=(9, 4.2), layout="constrained")
k = int(np.flatnonzero(present)[0])
for ax, image, title in zip(
    axes.flat,
    [X[k], filled[k], model.reconstruct(X[[k]])[0], X[k + 1], filled[k + 1]],
    ["an image", "imputed", "expected without noise", "another", "imputed"],
    strict=False,
):
    ax.imshow(np.nan_to_num(image, nan=0.5).reshape(background.shape).clip(0, 1))
    ax.set_title(title)
axes[1, 2].imshow(model.template_.clip(0, 1))
axes[1, 2].set_title("the template that was found")
for ax in axes.flat:
    ax.axis("off")

# %%
# The display also shows the posterior distribution over both coordinates.

display = TemplateDisplay.from_estimator(model, X[k])
plt.show()
