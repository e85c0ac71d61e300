"""scikit-learn estimators for models with hidden variables."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skem.callbacks import EarlyStopping, History
    from skem.code_display import (
        EmbeddingDisplay,
        LatentGridDisplay,
        MorphDisplay,
        ReconstructionDisplay,
        morph,
    )
    from skem.display import ObjectiveDisplay, TemplateDisplay
    from skem.gan import GANEstimator
    from skem.image_display import ChainsDisplay, FiltersDisplay, ImputationDisplay
    from skem.impute import LatentImputer
    from skem.mixture import BayesianGMM_MAP
    from skem.mixture_display import MixtureDisplay, SegmentationDisplay
    from skem.rbm import BernoulliRBMCD
    from skem.template import ShiftedTemplateEM
    from skem.vae import VAEEstimator

__version__ = "0.1.0"

# Loaded when first asked for, so that `import skem` stays light.
_MODULE_OF = {
    "BayesianGMM_MAP": "skem.mixture",
    "BernoulliRBMCD": "skem.rbm",
    "ChainsDisplay": "skem.image_display",
    "EarlyStopping": "skem.callbacks",
    "EmbeddingDisplay": "skem.code_display",
    "FiltersDisplay": "skem.image_display",
    "GANEstimator": "skem.gan",
    "History": "skem.callbacks",
    "ImputationDisplay": "skem.image_display",
    "LatentGridDisplay": "skem.code_display",
    "LatentImputer": "skem.impute",
    "MixtureDisplay": "skem.mixture_display",
    "MorphDisplay": "skem.code_display",
    "ObjectiveDisplay": "skem.display",
    "ReconstructionDisplay": "skem.code_display",
    "SegmentationDisplay": "skem.mixture_display",
    "ShiftedTemplateEM": "skem.template",
    "TemplateDisplay": "skem.display",
    "VAEEstimator": "skem.vae",
    "morph": "skem.code_display",
}

__all__ = [
    "BayesianGMM_MAP",
    "BernoulliRBMCD",
    "ChainsDisplay",
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


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'skem' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
