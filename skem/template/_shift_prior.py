"""The prior of the shifts, of the classes and of absence: its mode and its density.

The probabilities are those of a tree of choices: whether a template is present, which one, and
at which shift. Each choice has a symmetric Dirichlet prior of the same concentration, so that
many shifts make neither a template nor its absence rare. They are stored flat, in the order
(class, shift), with absence last.
"""

import numpy as np
from scipy.special import gammaln, xlogy

from skem._typing import Array


def uniform(n_templates: int, n_shifts: int, absent: bool, known: Array | None) -> Array:
    """Return equal probabilities of the classes; that of absence, if allowed, is 1/2.

    The shifts are equally probable too, unless their probabilities are ``known``.
    """
    shifts = np.full(n_shifts, 1 / n_shifts) if known is None else known
    present = np.tile(shifts / n_templates, n_templates)
    return np.append(present / 2, 0.5) if absent else present


def mode(
    counts: Array, n_templates: int, absent: bool, concentration: float, known: Array | None
) -> Array:
    """Return the probabilities at the mode of their posterior, given the expected counts."""
    extra = concentration - 1
    of_class = _of_class(counts, n_templates, absent)
    present = of_class + extra
    if n_templates > 1 or known is not None:
        if known is not None:
            present = np.tile(known, (n_templates, 1))
        else:
            present[present.sum(1) == 0] = 1.0  # the data do not determine these shifts
        classes = of_class.sum(1) + extra
        if not classes.any():
            classes = np.ones(n_templates)
        present = (classes / classes.sum() / present.sum(1))[:, None] * present
    present = present.ravel()
    if not absent:
        return present / present.sum()
    choice = np.array([of_class.sum(), counts[-1]]) + extra
    choice /= choice.sum()
    total = present.sum()
    if total > 0:
        present = choice[0] / total * present
    return np.append(present, choice[1])


def log_density(
    prior: Array, n_templates: int, absent: bool, concentration: float, known: Array | None
) -> float:
    """Return the log prior density of the probabilities, in nats; 0 if it is flat."""
    if concentration == 1:
        return 0.0
    log_prior = 0.0
    shifts = _of_class(prior, n_templates, absent)
    classes = shifts.sum(1)
    if absent:
        choice = np.array([classes.sum(), prior[-1]])
        log_prior += _log_dirichlet(choice, concentration)
    if n_templates > 1:
        log_prior += _log_dirichlet(classes / (classes.sum() or 1.0), concentration)
    if known is None:
        for one, total in zip(shifts, classes, strict=True):
            log_prior += _log_dirichlet(one / (total or 1.0), concentration)
    return log_prior


def _of_class(values: Array, n_templates: int, absent: bool) -> Array:
    """Return the entries (n_templates, n_shifts) of present templates."""
    return values[: len(values) - absent].reshape(n_templates, -1)


def _log_dirichlet(probabilities: Array, alpha: float) -> float:
    """Return the log-density of a symmetric Dirichlet distribution."""
    n = len(probabilities)
    constant = gammaln(n * alpha) - n * gammaln(alpha)
    return float(constant + xlogy(alpha - 1, probabilities).sum())
