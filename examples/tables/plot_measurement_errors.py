"""
Remove known measurement errors
===============================

Faint stars, small samples and cheap instruments are measured with errors, whose covariance is
known for each row. A mixture of the measured rows is wider than the truth.
``measurement_covariance`` passes the errors to ``fit``, which then describes the true rows.
"""

# %%
# Points on a thin ring. One in a hundred is measured well. The others have large errors, which
# differ from row to row.

import matplotlib.pyplot as plt
import numpy as np

from skem import BayesianGMM_MAP

rng = np.random.default_rng(0)
n = 3000
angle = rng.uniform(0, 2 * np.pi, size=n)
truth = np.column_stack([np.cos(angle), np.sin(angle)]) + 0.03 * rng.normal(size=(n, 2))
variances = np.where(rng.random((n, 1)) < 0.01, 0.001, rng.uniform(0.01, 0.15, size=(n, 2)))
X = truth + np.sqrt(variances) * rng.normal(size=(n, 2))

measured = BayesianGMM_MAP(10, random_state=0).fit(X)
deconvolved = BayesianGMM_MAP(10, tol=1e-4, max_iter=500, random_state=0)
deconvolved.fit(X, measurement_covariance=variances)

# %%
# Neither fit has seen the true rows. The fit that knows the errors gives them a higher score.

for name, model in (("measured", measured), ("deconvolved", deconvolved)):
    print(f"{name}: {model.score(truth):.3f} nats per true row")
score = deconvolved.score_samples(X, measurement_covariance=variances).mean()
print(f"measured rows given their errors: {score:.3f} nats per row")

fig, axes = plt.subplots(
    1, 4, figsize=(13, 3.4), layout="constrained", sharex=True, sharey=True
)
drawn = [
    ("measured rows", X),
    ("true rows", truth),
    ("drawn, errors ignored", measured.sample(n, random_state=0)[0]),
    ("drawn, errors taken off", deconvolved.sample(n, random_state=0)[0]),
]
for axis, (name, rows) in zip(axes, drawn, strict=True):
    axis.plot(*rows.T, ".", ms=2)
    axis.set(title=name, aspect="equal", xlim=(-2, 2), ylim=(-2, 2))
plt.show()
