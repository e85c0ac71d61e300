"""
Choose the width of a template
==============================

The score of :class:`~skem.ShiftedTemplateEM` is a log-likelihood in nats per image. Therefore
scikit-learn's ``GridSearchCV`` can choose the size of the template by held-out images. The
Bayesian information criterion needs no held-out images.
"""

# %%
# Three hundred noisy images of 12 x 50 pixels hide a template that is 16 pixels wide.

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV

from skem import CriterionDisplay, ShiftedTemplateEM
from skem.datasets import make_shifted_templates

data = make_shifted_templates(
    300, image_shape=(12, 50), template_width=16, noise_std=1.0, random_state=1
)
widths = [10, 12, 14, 15, 16, 17, 18, 20, 22]

model = ShiftedTemplateEM(image_shape=data.image_shape, random_state=0)
search = GridSearchCV(model, {"template_width": widths}, cv=3).fit(data.X)
print("width by held-out likelihood:", search.best_params_["template_width"])

# %%
# A template that is too narrow misses part of the pattern. One that is too wide has pixels of
# pure noise, and it cannot reach patterns at the border of the image.

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
CriterionDisplay.from_search(search, ax=left)
display = CriterionDisplay.from_estimator(
    model, data.X, param_name="template_width", param_range=widths, criteria=["bic"], ax=right
)
print("width by BIC:", display.chosen["bic"])
for ax in (left, right):
    ax.axvline(16, color="gray", ls=":", label="true width")
    ax.legend()
plt.show()
