"""
Find heartbeats in a noisy electrocardiogram
============================================

The electrodes of a moving patient pick up slow waves that are larger than the heartbeats. Such
noise is not white: neighboring samples are alike. ``noise="stationary"`` estimates its spectrum
together with the shape of the beat, which is added to the noise.
"""

# %%
# A simulated electrocardiogram. A beat is a sum of five waves, P, Q, R, S and T, as in the
# model of P. E. McSharry and others, IEEE Transactions on Biomedical Engineering 50, 2003. The
# wander of the baseline has a spectrum that falls with the square of the frequency. The record
# is cut into windows of 1.6 seconds, each with one beat at an unknown time.

import matplotlib.pyplot as plt
import numpy as np

from skem import ShiftedTemplateEM

rng = np.random.default_rng(0)
rate, n, length, width = 100, 300, 160, 64  # samples per second, windows, samples, samples

t = np.arange(width) / rate
waves = [  # amplitude, time, width
    (0.15, 0.12, 0.025), (-0.12, 0.225, 0.010), (1.0, 0.25, 0.011), (-0.2, 0.275, 0.010),
    (0.3, 0.46, 0.045),
]  # fmt: skip
beat = sum(a * np.exp(-((t - m) ** 2) / (2 * s**2)) for a, m, s in waves)

frequency = np.fft.rfftfreq(length, 1 / rate)
spectrum = 1 / np.maximum(frequency, 1) ** 2 + 0.001
white = np.fft.rfft(rng.normal(size=(n, length)))
wander = np.fft.irfft(white * np.sqrt(spectrum), n=length)
wander *= 0.6 / wander.std()
start = rng.integers(length - width + 1, size=n)
X = wander.copy()
for k in range(n):
    X[k, start[k] : start[k] + width] += rng.normal(1, 0.1) * beat

# %%
# Taken as white, the wander is what the template follows. The second model whitens it.

models = {
    "white": ShiftedTemplateEM(width, composition="add", random_state=0),
    "stationary": ShiftedTemplateEM(
        width, composition="add", noise="stationary", random_state=0, max_iter=300
    ),
}
for name, model in models.items():
    error = model.fit(X).predict(X) - start
    near = np.abs(error - np.median(error)) <= 2
    print(f"{name} noise: {100 * near.mean():.0f}% of the beats within 20 ms")

fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
axes[0].plot(np.arange(length) / rate, X[:6].T + 4 * np.arange(6), color="0.3", lw=0.8)
axes[0].set(title="windows of the record", xlabel="time (s)", yticks=[])
axes[1].plot(t, beat, color="0.7", lw=4, label="beat")
for name, model in models.items():
    axes[1].plot(t, model.template_[0], lw=1.2, label=f"{name} noise")
axes[1].set(title="templates", xlabel="time (s)", ylabel="voltage (mV)")
axes[1].legend(fontsize=8)
found = models["stationary"].noise_spectrum_
true = spectrum * wander.var() / np.mean(np.r_[spectrum, spectrum[1:-1]])
axes[2].loglog(frequency[1:], true[1:], color="0.7", lw=4, label="true")
axes[2].loglog(frequency[1:], found[1:], color="C1", lw=1.2, label="found")
axes[2].minorticks_off()
axes[2].set(title="spectrum of the noise", xlabel="frequency (Hz)", ylabel="variance (mV²)")
axes[2].legend(fontsize=8)
plt.show()
