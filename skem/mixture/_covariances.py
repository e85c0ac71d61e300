"""One representation for the four covariance types: groups of diagonal blocks.

The components of a group share one covariance matrix. This matrix is block-diagonal, and a
row contributes m observations to each block. All covariances are one array (G, B, d, d):

    type       groups G   blocks B   block size d   m   components in a group c
    full       K          1          D              1   1
    tied       1          1          D              1   K
    diag       K          D          1              1   1
    spherical  K          1          1              D   1
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg.lapack import dtrtri

from skem._typing import Array

# Compiling is worthwhile if a pass in NumPy takes more than about this many nanoseconds.
MIN_FAST_TIME = 2e7
# Largest number of features for which the compiled loop is faster than NumPy: with full
# covariances, and with the other types.
MAX_FAST_FULL, MAX_FAST_OTHER = 128, 4


@dataclass(frozen=True)
class Layout:
    """Sizes of the covariances of one type, as blocks and as public attributes."""

    covariance_type: str
    n_components: int
    n_features: int

    @property
    def dense(self) -> bool:
        """Whether the blocks have shape (D, D) and not (1, 1)."""
        return self.covariance_type in ("full", "tied")

    @property
    def n_groups(self) -> int:
        return 1 if self.covariance_type == "tied" else self.n_components

    @property
    def n_blocks(self) -> int:
        return self.n_features if self.covariance_type == "diag" else 1

    @property
    def block_size(self) -> int:
        return self.n_features if self.dense else 1

    @property
    def n_repeats(self) -> int:
        """Number of observations that a row contributes to a block (m)."""
        return self.n_features if self.covariance_type == "spherical" else 1

    @property
    def group_size(self) -> int:
        """Number of components that share a covariance (c)."""
        return self.n_components if self.covariance_type == "tied" else 1

    @property
    def flat_degrees_of_freedom(self) -> int:
        """Degrees of freedom at which the prior of the covariance has no effect."""
        return -(self.n_repeats * self.group_size + self.block_size + 1)

    @property
    def n_parameters(self) -> int:
        d = self.block_size
        return self.n_groups * self.n_blocks * d * (d + 1) // 2

    @property
    def public_shape(self) -> tuple[int, ...]:
        K, D = self.n_components, self.n_features
        shapes = {"full": (K, D, D), "tied": (D, D), "diag": (K, D), "spherical": (K,)}
        return shapes[self.covariance_type]

    @property
    def prior_shape(self) -> tuple[int, ...]:
        """The public shape of the scale matrix of the prior."""
        return self.public_shape[0 if self.covariance_type == "tied" else 1 :]

    def to_blocks(self, covariances: ArrayLike) -> Array:
        """Return blocks: (G, B, d, d) for covariances, (1, B, d, d) for a prior's scale."""
        d = self.block_size
        return np.asarray(covariances, dtype=float).reshape(-1, self.n_blocks, d, d)

    def to_public(self, blocks: Array) -> Array:
        return blocks.reshape(self.public_shape)

    def pool(self, scatter: Array) -> Array:
        """Return the scatter of each block, given the scatter (K, D, D) or (K, D)."""
        if self.covariance_type == "tied":
            scatter = scatter.sum(0)
        if self.covariance_type == "spherical":
            scatter = scatter.sum(1)
        return self.to_blocks(scatter)

    def of_groups(self, blocks: Array) -> Array:
        """Return blocks (G, B, d, d) as dense matrices (G, D, D) or diagonals (G, D)."""
        G, D = len(blocks), self.n_features
        if self.dense:
            return blocks.reshape(G, D, D)
        return np.broadcast_to(blocks.reshape(G, self.n_blocks), (G, D))

    def log_det(self, cholesky: Array) -> Array:
        """Return log |Sigma_k| of each component, (K,)."""
        diagonal = np.einsum("gbii->gbi", cholesky)
        log_det = 2 * self.n_repeats * np.log(diagonal).sum((1, 2))
        return np.broadcast_to(log_det, (self.n_components,))


def inverse_cholesky(cholesky: Array) -> Array:
    """Return the inverses of the lower triangular blocks."""
    if cholesky.shape[-1] < 2:
        return 1 / cholesky
    out = np.empty_like(cholesky)
    for index in np.ndindex(cholesky.shape[:-2]):
        out[index] = dtrtri(cholesky[index], lower=1)[0]
    return out


def fast_pays(layout: Layout, n_rows: int) -> bool:
    """Return whether a pass over the rows is long enough to justify compiling its loop."""
    K, D = layout.n_components, layout.n_features
    limit = MAX_FAST_FULL if layout.covariance_type == "full" else MAX_FAST_OTHER
    return limit >= D and n_rows * K * D * (2 + D / 16) >= MIN_FAST_TIME
