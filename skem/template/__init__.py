"""Templates at unknown shifts in noisy images."""

from skem.template._estimator import ShiftedTemplateEM

__all__ = ["ShiftedTemplateEM"]
