"""Templates at unknown shifts in noisy images.

``ShiftedTemplateEM`` is the estimator. The functions are the steps of EM, one at a time.
"""

from skem.template._estimator import ShiftedTemplateEM
from skem.template._steps import TemplateParams, e_step, log_joint, lower_bound, m_step

__all__ = [
    "ShiftedTemplateEM",
    "TemplateParams",
    "e_step",
    "log_joint",
    "lower_bound",
    "m_step",
]
