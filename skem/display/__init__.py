"""Pictures of fitted estimators."""

import skem.display._required  # noqa: F401
from skem.display._codes import (
    EmbeddingDisplay,
    LatentGridDisplay,
    MorphDisplay,
    ReconstructionDisplay,
    morph,
)
from skem.display._criterion import CriterionDisplay
from skem.display._images import ChainsDisplay, FiltersDisplay, ImputationDisplay
from skem.display._mixture import MixtureDisplay
from skem.display._objective import ObjectiveDisplay
from skem.display._segments import SegmentationDisplay
from skem.display._template import TemplateDisplay

__all__ = [
    "ChainsDisplay",
    "CriterionDisplay",
    "EmbeddingDisplay",
    "FiltersDisplay",
    "ImputationDisplay",
    "LatentGridDisplay",
    "MixtureDisplay",
    "MorphDisplay",
    "ObjectiveDisplay",
    "ReconstructionDisplay",
    "SegmentationDisplay",
    "TemplateDisplay",
    "morph",
]
