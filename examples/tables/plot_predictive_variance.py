"""
Regression with a predictive variance
=====================================

A mixture of inputs and target is a regression with a predictive variance. ``impute`` with
``return_std=True`` predicts the target and its standard deviation. ``condition`` gives the
whole predictive density, and ``sample_conditional`` draws from it. Inputs may be missing.
"""

# %%
# The progression of diabetes of 442 patients after a year, from the body mass index, the blood
# pressure and a blood value. The mixture is compared with a regression whose errors have the
# same variance everywhere, by the log-density of the targets of held-out patients.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split

from skem import BayesianGMM_MAP

data = load_diabetes(scaled=False)
columns = [data.feature_names.index(name) for name in ("bmi", "bp", "s5")]
table = np.column_stack([data.data[:, columns], data.target])
train, test = train_test_split(table, random_state=0)
asked = test.copy()
asked[:, -1] = np.nan  # the target of the test patients is missing

mixture = BayesianGMM_MAP(2, prior="empirical", n_init=5, random_state=0).fit(train)
filled, std = mixture.impute(asked, return_std=True)
found = mixture.condition(asked)
spread = np.sqrt(found.covariances[:, 0, 0])
densities = norm(found.means[:, :, 0], spread).pdf(test[:, -1:])
by_mixture = np.log((found.weights * densities).sum(1))

line = LinearRegression().fit(train[:, :-1], train[:, -1])
residual = np.std(train[:, -1] - line.predict(train[:, :-1]))
by_line = norm(line.predict(test[:, :-1]), residual).logpdf(test[:, -1])
print(
    f"log-density of held-out targets: mixture {by_mixture.mean():.3f}, "
    f"linear {by_line.mean():.3f} nats"
)

# %%
# The predicted standard deviation differs between patients. About nine of ten targets are in
# the middle 90% of 1000 draws for the same patient.

draws = mixture.sample_conditional(asked, 1000, random_state=0)[:, :, -1]
low, high = np.quantile(draws, [0.05, 0.95], axis=0)
covered = np.mean((low <= test[:, -1]) & (test[:, -1] <= high))
print(f"predicted standard deviations from {std[:, -1].min():.0f} to {std[:, -1].max():.0f}")
print(f"{covered:.0%} of the targets lie in their interval of 90%")

# %%
# Without the blood pressure the predictions are wider. No model has to be fitted again.

without = asked.copy()
without[:, 1] = np.nan
wider = mixture.impute(without, return_std=True)[1][:, -1]
print(f"mean deviation {std[:, -1].mean():.1f}, without blood pressure {wider.mean():.1f}")

order = np.argsort(filled[:, -1])
fig, axis = plt.subplots(figsize=(7, 4), layout="constrained")
place = np.arange(len(order))
axis.fill_between(place, low[order], high[order], alpha=0.3, label="90% of the draws")
axis.plot(place, filled[order, -1], label="prediction")
axis.plot(place, test[order, -1], ".", color="black", label="held-out target")
axis.set(xlabel="patients, sorted by their prediction", ylabel="progression after a year")
axis.legend(loc="upper left")
plt.show()
