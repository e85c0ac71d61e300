"""Fitted models kept under one set of versions and read under another.

Run ``python tests/kept.py write FOLDER`` with the one, and ``python tests/kept.py read FOLDER``
with the other.
"""

import pickle
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import skops.io
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

import skem
from skem.datasets import make_shifted_templates

IRIS = load_iris().data / 8
IMAGES = make_shifted_templates(80, image_shape=(4, 12), template_width=4, random_state=0).X
MODELS = {
    "mixture": (skem.BayesianGMM_MAP(2, random_state=0), IRIS),
    "rbm": (skem.BernoulliRBMCD(3, n_iter=3, random_state=0), (IRIS > 0.4).astype(float)),
    "template": (skem.ShiftedTemplateEM(4, image_shape=(4, 12), random_state=0), IMAGES),
    "vae": (skem.VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=3, random_state=0), IRIS),
    "gan": (skem.GANEstimator(2, hidden_layer_sizes=(8,), max_iter=3, random_state=0), IRIS),
    "imputer": (skem.LatentImputer(skem.BayesianGMM_MAP(2, random_state=0)), IRIS),
}


def write(folder):
    """Fit all models and keep them as pickle, joblib and skops, with what they return."""
    for name, (model, X) in MODELS.items():
        has_callbacks = hasattr(model, "set_callbacks")
        if has_callbacks:
            model.set_callbacks(skem.History())
        model.fit(X)
        np.save(folder / f"{name}.npy", model.transform(X))
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(model))
        joblib.dump(model, folder / f"{name}.joblib")
        if has_callbacks:  # so that skops need not trust their types
            model.set_callbacks()
        skops.io.dump(model, folder / f"{name}.skops")


def read(folder):
    """Read all models, compare what they return, and go on with them."""
    for name, (_, X) in MODELS.items():
        file = folder / f"{name}.skops"
        trusted = skops.io.get_untrusted_types(file=file)
        assert all(kind.startswith("skem.") for kind in trusted), trusted
        for model in (
            pickle.loads((folder / f"{name}.pickle").read_bytes()),
            joblib.load(folder / f"{name}.joblib"),
            skops.io.load(file, trusted=trusted),
        ):
            # to the rounding of other versions of BLAS and torch
            np.testing.assert_allclose(
                model.transform(X), np.load(folder / f"{name}.npy"), rtol=1e-5, atol=1e-6
            )
            if hasattr(model, "partial_fit"):
                model.partial_fit(X)
            model.fit(X)


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)  # the fits are short
    task, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    {"write": write, "read": read}[task](folder)
    print(task, *(f"{name} {version(name)}" for name in ("scikit-learn", "numpy", "skops")))
