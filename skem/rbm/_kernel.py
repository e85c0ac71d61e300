"""The inner loops of contrastive divergence in numba.

In binary images, few pixels are set, and neighboring pixels are often set together. Products
with the visible units therefore add only the weight rows of the set pixels, eight at a time.
The sums of pairs of neighboring rows are stored, so that such a pair is a single addition.
Sigmoid, random numbers and draws are computed in one loop.
"""

from itertools import pairwise

import numpy as np
from numba import float32, int32, njit, uint32, uint64

from skem._threads import ThreadMap
from skem._typing import Array
from skem._vector_math import compiled, exp, philox
from skem.rbm._training import Options, State, Workspace

MIN_PART = 25  # smallest number of rows for which a separate thread is worthwhile
PAD = 4  # the length of a list is a multiple of this
UNIFORM = 2.0**-24  # converts 24 random bits to a number in [0, 1)


@njit(inline="always")
def _probability(x):
    e = exp(-abs(x))
    p = float32(1) / (float32(1) + e)
    return p if x >= 0 else e * p


@compiled
def sigmoid(x, bias):
    for n in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[n, j] = _probability(x[n, j] + bias[j])


@compiled
def draw(x, bias, out, seed, n_updates, step, first):
    """Write the sigmoid of x + bias to x, and units drawn with it to ``out``."""
    key, other_key = uint32(seed), uint32(uint64(seed) >> uint64(32))
    quarter = (x.shape[1] + 3) // 4
    words = np.empty((4, quarter), np.float32)
    uniform = words.reshape(4 * quarter)
    shift, unit = uint32(8), float32(UNIFORM)
    for n in range(x.shape[0]):
        row, a, b = uint32(first + n), uint32(step), uint32(n_updates)
        for j in range(quarter):
            w0, w1, w2, w3 = philox(uint32(j), row, a, b, key, other_key)
            words[0, j] = float32(int32(w0 >> shift)) * unit
            words[1, j] = float32(int32(w1 >> shift)) * unit
            words[2, j] = float32(int32(w2 >> shift)) * unit
            words[3, j] = float32(int32(w3 >> shift)) * unit
        for j in range(x.shape[1]):
            p = _probability(x[n, j] + bias[j])
            x[n, j] = p
            out[n, j] = float32(uniform[j] < p)


@compiled
def find_set(v, first, last, index, value, count):
    """List the nonzero columns of each row.

    A pair of neighboring columns with equal values has one entry: n_visible + its number.
    """
    n_visible = v.shape[1]
    for n in range(first, last):
        k = 0
        for i in range(n_visible):
            index[n, k] = i
            k += v[n, i] != 0
        q, end, k = 0, k, 0
        index[n, end] = -1
        while q < end:
            i = index[n, q]
            x = v[n, i]
            both = i % 2 == 0 and index[n, q + 1] == i + 1 and v[n, i + 1] == x
            index[n, k] = n_visible + i // 2 if both else i
            value[n, k] = x
            q += 1 + both
            k += 1
        while k % PAD:
            index[n, k], value[n, k] = 0, 0
            k += 1
        count[n] = k


@njit(inline="always")
def _add_rows(matrix, rows, values, at, start, end, out, o):
    """Add values[at] @ matrix[rows[at]] to out[o], over entries ``start`` to ``end``."""
    q = start
    while q + 2 * PAD <= end:
        r0, r1 = uint64(rows[at, q]), uint64(rows[at, q + 1])
        r2, r3 = uint64(rows[at, q + 2]), uint64(rows[at, q + 3])
        r4, r5 = uint64(rows[at, q + 4]), uint64(rows[at, q + 5])
        r6, r7 = uint64(rows[at, q + 6]), uint64(rows[at, q + 7])
        x0, x1, x2, x3 = values[at, q], values[at, q + 1], values[at, q + 2], values[at, q + 3]
        q += PAD
        x4, x5, x6, x7 = values[at, q], values[at, q + 1], values[at, q + 2], values[at, q + 3]
        q += PAD
        for j in range(matrix.shape[1]):
            low = x0 * matrix[r0, j] + x1 * matrix[r1, j]
            low += x2 * matrix[r2, j] + x3 * matrix[r3, j]
            high = x4 * matrix[r4, j] + x5 * matrix[r5, j]
            high += x6 * matrix[r6, j] + x7 * matrix[r7, j]
            out[o, j] += low + high
    if q < end:
        r0, r1 = uint64(rows[at, q]), uint64(rows[at, q + 1])
        r2, r3 = uint64(rows[at, q + 2]), uint64(rows[at, q + 3])
        x0, x1, x2, x3 = values[at, q], values[at, q + 1], values[at, q + 2], values[at, q + 3]
        for j in range(matrix.shape[1]):
            low = x0 * matrix[r0, j] + x1 * matrix[r1, j]
            out[o, j] += low + (x2 * matrix[r2, j] + x3 * matrix[r3, j])


@compiled
def hidden_inputs(first, last, index, value, count, rows, h):
    """Compute h = v W from the lists of nonzero columns."""
    for n in range(first, last):
        for j in range(rows.shape[1]):
            h[n, j] = float32(0)
        _add_rows(rows, index, value, n, 0, count[n], h, n)


@compiled
def by_column(weight, index, value, count, n_lists):
    """Return the start of each column's list, the rows in it, and their weighted values."""
    sizes = np.zeros(n_lists + 1, np.int64)
    for n in range(len(weight)):
        for q in range(count[n]):
            sizes[index[n, q] + 1] += value[n, q] != 0
    for i in range(1, n_lists + 1):
        sizes[i] = sizes[i - 1] + (sizes[i] + PAD - 1) // PAD * PAD
    ends = sizes[:-1].copy()
    rows = np.zeros((1, sizes[-1]), np.int32)
    values = np.zeros((1, sizes[-1]), np.float32)
    for n in range(len(weight)):
        for q in range(count[n]):
            if value[n, q] != 0:
                at = ends[index[n, q]]
                rows[0, at] = n
                values[0, at] = weight[n] * value[n, q]
                ends[index[n, q]] = at + 1
    return sizes, rows, values


@compiled
def ascend(lists, v, h, W, rate, keep, first, last):
    """Add the gradient for some pairs of pixels; the last two rows of v and h are dense."""
    starts, rows, values = lists
    n, n_visible, n_hidden = len(v), v.shape[1], W.shape[1]
    g = np.empty((2, n_hidden), np.float32)
    for p in range(first, last):
        for j in range(n_hidden):
            g[0, j] = 0
        both = n_visible + p
        if 2 * p + 1 < n_visible:
            _add_rows(h, rows, values, 0, starts[both], starts[both + 1], g, 0)
        for i in range(2 * p, min(2 * p + 2, n_visible)):
            x, y = v[n - 2, i], v[n - 1, i]
            for j in range(n_hidden):
                g[1, j] = g[0, j] + x * h[n - 2, j] + y * h[n - 1, j]
            _add_rows(h, rows, values, 0, starts[i], starts[i + 1], g, 1)
            for j in range(n_hidden):
                W[i, j] = keep * W[i, j] + rate * g[1, j]
        if 2 * p + 1 < n_visible:
            for j in range(n_hidden):
                W[both, j] = W[2 * p, j] + W[2 * p + 1, j]


class KernelWorkspace(Workspace):
    """Compiled workspace; ``sparse`` skips visible units that are 0."""

    def __init__(
        self,
        state: State,
        n_rows: int,
        options: Options,
        seed: int,
        *,
        sparse: bool,
        n_threads: int,
    ) -> None:
        super().__init__(state, n_rows, options, seed)
        self._seed, self._sparse = np.uint64(seed), sparse
        n, m = n_rows, len(self.chains)
        if n_threads > 1 and min(n, m) >= 2 * MIN_PART:
            self.parts = [
                (slice(0, n // 2), slice(0, m // 2)),
                (slice(n // 2, n), slice(m // 2, m)),
            ]
            self.map = ThreadMap(n_threads)
        n_visible = self.v.shape[1]
        shape = n + m, n_visible + PAD
        self._index, self._value = np.empty(shape, np.int32), np.empty(shape, np.float32)
        self._count = np.empty(n + m, np.int64)
        n_pairs = (n_visible + 1) // 2
        edges = np.linspace(0, n_pairs, len(self.parts) + 1).astype(int).tolist()
        self._spans = list(pairwise(edges))
        self._rows, even = state.rows, n_visible // 2 * 2
        np.add(state.rows[:even:2], state.rows[1:even:2], out=state.rows[n_visible:])

    def hidden_inputs(self, rows: slice) -> None:
        if not self._sparse:
            super().hidden_inputs(rows)
            return
        span, lists = (rows.start, rows.stop), (self._index, self._value, self._count)
        find_set(self.v, *span, *lists)
        hidden_inputs(*span, *lists, self._rows, self.h)

    def sigmoid(self, x: Array, bias: Array) -> None:
        sigmoid(x, bias)

    def draw(self, x: Array, bias: Array, out: Array, key: tuple[int, int, int]) -> None:
        draw(x, bias, out, self._seed, *key)

    def ascend(self, weight: Array, rate: float) -> None:
        if not self._sparse:
            super().ascend(weight, rate)
            return
        lists = by_column(weight[:-2], self._index, self._value, self._count, len(self._rows))
        steps = np.float32(rate), np.float32(1 - rate * self.options.decay)

        def of_pairs(span: tuple[int, int]) -> None:
            ascend(lists, self.v, self.h, self._rows, *steps, *span)

        list(self.map(of_pairs, self._spans))
