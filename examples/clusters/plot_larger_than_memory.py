"""
Segment a film that is larger than memory
=========================================

Each pass of EM reads a memory-mapped file part by part, so that the file never has to fit in
memory. In this example a camera pans over a photograph. The pixels of all noisy frames are
segmented together.
"""

# %%
# The film is written frame by frame. A film of hours would be written in the same way.

import tempfile
import tracemalloc
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from skem import BayesianGMM_MAP

photograph = load_sample_image("china.jpg").astype(np.float32) / 255
height, width, n_frames = 200, 320, 80
rng = np.random.default_rng(0)
folder = tempfile.TemporaryDirectory()
film = np.memmap(
    Path(folder.name) / "film.f32", np.float32, "w+", shape=(n_frames, height, width, 3)
)
for i, frame in enumerate(film):
    top, left = 2 * i, 4 * i
    frame[:] = photograph[top : top + height, left : left + width]
    frame += rng.normal(scale=0.04, size=frame.shape)
X = film.reshape(-1, 3)
print(f"{len(X):,} pixels, {X.nbytes / 1e6:.0f} MB")

# %%
# A memory map is fitted like an array. Fits of more and more frames show how much memory they
# need, without the part of the file that is being read, which is at most 32 MB.

sizes, peaks = [], []
for n in (5, 10, 20, 40, 80):
    part = film[:n].reshape(-1, 3)
    model = BayesianGMM_MAP(6, prior="empirical", tol=1e-4, random_state=0).fit(part)
    tracemalloc.start()
    model.fit(part)
    peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
    tracemalloc.stop()
    sizes.append(part.nbytes / 1e6)
    print(f"{sizes[-1]:.0f} MB: {model.n_iter_} iterations, {peaks[-1]:.0f} MB")

# %%
# Each component is drawn in its mean color.

shown = [0, 40, 79]
fig, axes = plt.subplots(2, 3, figsize=(9, 4), layout="constrained")
for (above, below), i in zip(axes.T, shown, strict=True):
    segments = model.predict(film[i].reshape(-1, 3)).reshape(height, width)
    above.imshow(film[i].clip(0, 1))
    below.imshow(model.means_[segments].clip(0, 1))
    above.set_title(f"frame {i}")
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%

fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
ax.plot(sizes, sizes, "k:", label="the file")
ax.plot(sizes, peaks, "o-", label="memory of the fit")
ax.set(xlabel="file, MB", ylabel="MB", ylim=(0, None))
ax.legend()
plt.show()

folder.cleanup()
