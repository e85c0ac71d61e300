"""Two compiled loops of a training step that are not matrix products."""

import numpy as np
from numba import float32

from skem._vector_math import compiled, exp, log


@compiled
def bernoulli(x, weight, logits, grad):
    """Write the gradient of -sum weight log p(x|z) by the logits to ``grad``.

    Return the sum.
    """
    one, total = float32(1), 0.0
    for n in range(x.shape[0]):
        share, row = weight[n], float32(0)
        for i in range(x.shape[1]):
            logit = logits[n, i]
            e = exp(-abs(logit))
            p = one / (one + e)
            row += max(logit, float32(0)) - x[n, i] * logit + log(one + e)
            grad[n, i] = share * ((p if logit >= 0 else e * p) - x[n, i])
        total += share * row
    return total


@compiled
def adam(values, gradient, mean, square, rate, n, beta_1, beta_2):
    """Take step n of Adam."""
    keep_mean, keep_square = float32(beta_1), float32(beta_2)
    new_mean, new_square = float32(1 - beta_1), float32(1 - beta_2)
    length = float32(rate / (1 - beta_1**n))
    scale, floor = float32(1 / np.sqrt(1 - beta_2**n)), float32(1e-8)
    for i in range(len(values)):
        g = gradient[i]
        m = keep_mean * mean[i] + new_mean * g
        s = keep_square * square[i] + new_square * g * g
        mean[i], square[i] = m, s
        values[i] -= length * m / (np.sqrt(s) * scale + floor)
