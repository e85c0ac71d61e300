"""scikit-learn estimators for models with hidden variables."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from skem.callbacks import EarlyStopping, History
    from skem.display import (
        ChainsDisplay,
        CriterionDisplay,
        EmbeddingDisplay,
        FiltersDisplay,
        ImputationDisplay,
        LatentGridDisplay,
        MixtureDisplay,
        MorphDisplay,
        ObjectiveDisplay,
        ReconstructionDisplay,
        SegmentationDisplay,
        TemplateDisplay,
        morph,
    )
    from skem.gan import GANEstimator
    from skem.impute import LatentImputer
    from skem.mixture import BayesianGMM_MAP
    from skem.rbm import BernoulliRBMCD
    from skem.template import ShiftedTemplateEM
    from skem.vae import VAEEstimator

__version__ = "0.1.0"

# Loaded on first use, so that `import skem` stays light.
_MODULE_OF = {
    "BayesianGMM_MAP": "mixture",
    "BernoulliRBMCD": "rbm",
    "ChainsDisplay": "display",
    "CriterionDisplay": "display",
    "EarlyStopping": "callbacks",
    "EmbeddingDisplay": "display",
    "FiltersDisplay": "display",
    "GANEstimator": "gan",
    "History": "callbacks",
    "ImputationDisplay": "display",
    "LatentGridDisplay": "display",
    "LatentImputer": "impute",
    "MixtureDisplay": "display",
    "MorphDisplay": "display",
    "ObjectiveDisplay": "display",
    "ReconstructionDisplay": "display",
    "SegmentationDisplay": "display",
    "ShiftedTemplateEM": "template",
    "TemplateDisplay": "display",
    "VAEEstimator": "vae",
    "morph": "display",
}
_SUBMODULES = ["callbacks", "datasets", "display", "gan", "impute", "mixture", "rbm"]
_SUBMODULES += ["template", "vae"]

__all__ = [
    "BayesianGMM_MAP",
    "BernoulliRBMCD",
    "ChainsDisplay",
    "CriterionDisplay",
    "EarlyStopping",
    "EmbeddingDisplay",
    "FiltersDisplay",
    "GANEstimator",
    "History",
    "ImputationDisplay",
    "LatentGridDisplay",
    "LatentImputer",
    "MixtureDisplay",
    "MorphDisplay",
    "ObjectiveDisplay",
    "ReconstructionDisplay",
    "SegmentationDisplay",
    "ShiftedTemplateEM",
    "TemplateDisplay",
    "VAEEstimator",
    "morph",
]


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return _import_module(f"skem.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'skem' has no attribute {name!r}")
    return getattr(_import_module(f"skem.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES, "__version__"])
