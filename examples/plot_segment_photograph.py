"""
Segmenting a photograph, with and without its neighbors
========================================================

A mixture over the colors of pixels cuts a photograph into regions, but sees each pixel alone:
where noise or texture mix the colors, its regions have holes. A Potts prior on neighboring
pixels, one sparse matrix and one number, says that neighbors tend to belong together.
"""

# %%
# The flower that ships with scikit-learn, at a quarter of its size, with noise added. A matrix
# of bytes would be fitted on its different colors only; with neighbors each pixel counts.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import grid_to_graph

from skem import BayesianGMM_MAP, SegmentationDisplay

rng = np.random.default_rng(0)
image = load_sample_image("flower.jpg")[::4, ::4] / 255
image = np.clip(image + 0.15 * rng.normal(size=image.shape), 0, 1)
height, width, _ = image.shape
X = image.reshape(-1, 3)

alone = BayesianGMM_MAP(2, prior="empirical", random_state=0).fit(X)
display = SegmentationDisplay.from_estimator(alone, image)
display.figure_.suptitle("each pixel alone")
plt.show()

# %%
# With ``connectivity`` the objective is a bound that the mean-field E step and the M step raise
# in turn.

together = BayesianGMM_MAP(
    2,
    prior="empirical",
    connectivity=grid_to_graph(height, width),
    coupling=1.5,
    random_state=0,
).fit(X)
display = SegmentationDisplay.from_estimator(together, image)
display.figure_.suptitle("with the spatial prior")
plt.show()

# %%
# How many pairs of neighbors are in different segments:

for name, model in (("alone", alone), ("together", together)):
    segments = model.predict(X).reshape(height, width)
    cuts = (np.diff(segments, axis=0) != 0).sum() + (np.diff(segments, axis=1) != 0).sum()
    print(f"{name}: {cuts}")
