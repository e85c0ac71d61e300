"""The code of a row with missing values: expectations under its exact posterior.

    p(z | x_o)  is proportional to  p(z) p(x_o | z),  x_o the observed values

The encoder does not know this posterior. It is found in three steps. Draws of the prior, shared
by all rows, find codes that explain a row. Chains start there, or at the code that the encoder
gives the row with mean values in its gaps. They move by Metropolis steps [1]: fill the row with
what its code expects, and propose a code by the encoder. At last all expectations are
importance-weighted sums [2] over draws of a mixture: the prior, the encoder's proposals at the
ends of the chains, and a Gaussian with the moments of the chains.
Since the prior is in the mixture, no weight can become too large.

[1] P.-A. Mattei and J. Frellsen, "Leveraging the exact likelihood of deep latent variable
models", NeurIPS 2018. [2] P.-A. Mattei and J. Frellsen, "MIWAE", ICML 2019; E. Veach and L. J.
Guibas, "Optimally combining sampling techniques", SIGGRAPH 1995, for the mixture.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from skem.vae._model import (
    Network,
    as_expected,
    decode,
    encode,
    log_likelihood,
    log_softmax,
    noise_variance,
    normal,
)

N_POOL = 1024  # draws of the prior
N_CHAINS, N_BURN, N_KEPT = 8, 12, 12  # chains, their first steps, and the steps that count
N_OWN, N_MOMENTS = 8, 64  # draws of each encoder proposal, and of the Gaussian of the chains
WIDTHS = (1.0, 2.0)  # standard deviations of proposals, in those of the encoder, by turns
WIDEN = 1.5  # the variance of the Gaussian of the chains, in theirs
RIDGE = 1e-5  # share of the variance of all codes
N_POINTS = (1 + N_BURN + N_KEPT) * N_CHAINS + N_CHAINS * N_OWN + N_MOMENTS


class Pool(NamedTuple):
    """Draws of the prior, and the rows that they expect."""

    z: Tensor  # (P, d)
    output: Tensor  # (P, D), logits or means


class Completed(NamedTuple):
    """Expectations given the observed values of n rows."""

    rows: Tensor  # E[x | x_o], (n, D)
    codes: Tensor  # E[z | x_o], (n, d)
    log_evidence: Tensor  # estimates of log p(x_o), (n,)
    n_effective: Tensor  # effective number of weighted draws, (n,)


@torch.no_grad()
def pool_of(network: Network, points: Tensor) -> Pool:
    """Return the pool of these points of the unit cube, (P, d)."""
    z = normal(points)
    return Pool(z, decode(network, z))


@torch.no_grad()
def complete(
    network: Network, pool: Pool, x: Tensor, seen: Tensor, points: Tensor, shifts: Tensor
) -> Completed:
    """Return expectations given the observed values.

    Parameters
    ----------
    network : Network
        The networks.
    pool : Pool
        Draws of the prior.
    x, seen : Tensor of shape (n, D)
        The rows, and 1 where a value is observed.
    points : Tensor of shape (N_POINTS, d + 1)
        Points of the unit cube, which all rows share.
    shifts : Tensor of shape (n, d + 1)
        What is added to them for each row.

    Returns
    -------
    Completed
        The expectations.
    """
    pooled = pool_likelihood(network, pool, x, seen)  # (n, P)
    moves, own, other = _split(points, shifts)
    z, kept = _chains(network, pool, pooled, x, seen, moves)
    mean, log_variance = _proposals(network, x, seen, z)
    center, root = _moments(kept, (0.5 * log_variance).exp())
    near = (mean + (0.5 * log_variance).exp() * own.unflatten(0, (N_OWN, -1))).flatten(0, 1)
    wide = center + (other[..., None, :] @ root.mT)[..., 0, :]
    drawn = torch.cat([near, wide])  # (S, n, d)
    output = decode(network, drawn.flatten(0, 1)).unflatten(0, drawn.shape[:2])
    fit = log_likelihood(network, x, seen, output).T  # (n, S)
    mixture = _Mixture(mean, log_variance, center, root)
    log_weight = torch.cat(
        [
            pooled + log_prior(pool.z) - mixture.log_density(pool.z.expand(x.shape[0], -1, -1)),
            fit + log_prior(drawn).T - mixture.log_density(drawn.transpose(0, 1)),
        ],
        1,
    )
    log_evidence = log_weight.logsumexp(1) - math.log(log_weight.shape[1])
    log_evidence = torch.where(seen.any(1), log_evidence, 0)
    share = log_weight.softmax(1)
    n_effective = 1 / (share**2).sum(1)
    first, last = share.split([len(pool.z), len(drawn)], 1)
    rows = first @ as_expected(network, pool.output)
    rows += torch.einsum("ns,snd->nd", last, as_expected(network, output))
    codes = first @ pool.z + torch.einsum("ns,snd->nd", last, drawn)
    # Where few draws have all the weight, the chains know better.
    trust = (n_effective / (n_effective + N_CHAINS))[:, None]
    ends = as_expected(network, decode(network, kept.flatten(0, 1)))
    chain_rows = ends.unflatten(0, kept.shape[:2]).mean(0)
    rows = trust * rows + (1 - trust) * chain_rows
    codes = trust * codes + (1 - trust) * kept.mean(0)
    return Completed(rows, codes, log_evidence, n_effective)


def pool_likelihood(network: Network, pool: Pool, x: Tensor, seen: Tensor) -> Tensor:
    """Return log p(x_o | z) of every row and every code of the pool, (n, P)."""
    x, output = x * seen, pool.output
    G, B, sizes = network.columns
    end, total = G + B, torch.zeros((), dtype=x.dtype, device=x.device)
    if G:
        s = noise_variance(network)
        total = total + _gaussian_pool(x[:, :G], seen[:, :G], output[:, :G], s)
    if B:
        logits = output[:, G:end]
        total = total + x[:, G:end] @ logits.T - seen[:, G:end] @ functional.softplus(logits).T
    if sizes:
        total = total + x[:, end:] @ log_softmax(network, output).T
    return total


def _gaussian_pool(x: Tensor, seen: Tensor, output: Tensor, s: Tensor) -> Tensor:
    # In float64: the squares are large and nearly cancel.
    x, wide_seen, output, s = (v.double() for v in (x, seen, output, s))
    scaled = output / s
    squares = (x**2 / s).sum(1)[:, None] - 2 * x @ scaled.T + wide_seen @ (output * scaled).T
    return (-0.5 * (squares + (wide_seen @ (2 * math.pi * s).log())[:, None])).to(seen.dtype)


def log_prior(z: Tensor) -> Tensor:
    """Return log p(z)."""
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)


def _log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    each = (z - mean) ** 2 * (-log_variance).exp() + log_variance + math.log(2 * math.pi)
    return -0.5 * each.sum(-1)


def _split(points: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return points (steps, chains, n, d + 1), and normal numbers (., n, d) for two kinds."""
    n_moves = (1 + N_BURN + N_KEPT) * N_CHAINS
    each = (points[:, None] + shifts).remainder(1)
    moves, own, other = each.split([n_moves, N_CHAINS * N_OWN, N_MOMENTS])
    return moves.unflatten(0, (-1, N_CHAINS)), normal(own[..., :-1]), normal(other[..., :-1])


def _proposals(network: Network, x: Tensor, seen: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance of the encoder for rows filled given codes (k, n, d)."""
    filled = as_expected(network, decode(network, z.flatten(0, 1)))
    filled = torch.where(seen > 0, x, filled.unflatten(0, z.shape[:2]))
    mean, log_variance = encode(network, filled.flatten(0, 1))
    return mean.unflatten(0, z.shape[:2]), log_variance.unflatten(0, z.shape[:2])


def _chains(
    network: Network, pool: Pool, pooled: Tensor, x: Tensor, seen: Tensor, moves: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the last codes of the chains, (k, n, d), and all that count, (k * kept, n, d).

    A step is a Metropolis step. The first steps accept each move to a higher density too, so
    that a chain which starts far away finds its way.
    """
    z = _starts(network, pool, pooled, x, seen, moves[0])
    output = decode(network, z.flatten(0, 1)).unflatten(0, z.shape[:2])
    target = log_likelihood(network, x, seen, output) + log_prior(z)
    mean, log_variance = _proposals(network, x, seen, z)
    kept = []
    for i, move in enumerate(moves[1:]):
        widen = 2 * math.log(WIDTHS[i % len(WIDTHS)])
        spread = log_variance + widen
        new = mean + (0.5 * spread).exp() * normal(move[..., :-1])
        output = decode(network, new.flatten(0, 1)).unflatten(0, z.shape[:2])
        new_target = log_likelihood(network, x, seen, output) + log_prior(new)
        filled = torch.where(seen > 0, x, as_expected(network, output))
        new_mean, new_log_variance = (
            part.unflatten(0, z.shape[:2]) for part in encode(network, filled.flatten(0, 1))
        )
        forth = _log_normal(new, mean, spread)
        back = _log_normal(z, new_mean, new_log_variance + widen)
        accept = move[..., -1].log() < new_target - target + back - forth
        if i < N_BURN:
            accept |= new_target > target
        target = torch.where(accept, new_target, target)
        accept = accept[..., None]
        z, mean = torch.where(accept, new, z), torch.where(accept, new_mean, mean)
        log_variance = torch.where(accept, new_log_variance, log_variance)
        if i >= N_BURN:
            kept.append(z)
    return z, torch.cat(kept)


def _starts(
    network: Network, pool: Pool, pooled: Tensor, x: Tensor, seen: Tensor, move: Tensor
) -> Tensor:
    """Return the codes at which the chains start, (k, n, d).

    Half of the chains start at draws of the prior that explain the row. With many codes, few
    draws do. The others start at what the encoder makes of the row and mean values.
    """
    half = N_CHAINS // 2
    strata = (torch.arange(half, device=x.device)[:, None] + move[:half, :, -1]) / half
    edges = pooled.softmax(1).cumsum(1)  # (n, P)
    drawn = torch.searchsorted(edges, (strata.T * edges[:, -1:]).contiguous())
    explaining = pool.z[drawn.clamp_(max=len(pool.z) - 1)].transpose(0, 1)
    filled = torch.where(seen > 0, x, as_expected(network, pool.output).mean(0))
    mean, log_variance = encode(network, filled)
    coded = mean + (0.5 * log_variance).exp() * normal(move[half:, :, :-1])
    return torch.cat([explaining, coded])


def _moments(kept: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (n, d) of codes and a factor of their widened covariance, (n, d, d).

    The variance of the encoder's proposals is added: chains that did not move have none. A
    small share of the total variance is added as well, so that rounding leaves it positive.
    """
    center = kept.mean(0)
    gap = (kept - center).transpose(0, 1)  # (n, k, d)
    own = (scale**2).mean(0) + RIDGE * (gap**2).mean(1).sum(-1, keepdim=True)
    covariance = gap.mT @ gap / len(kept) + torch.diag_embed(own)
    return center, torch.linalg.cholesky(WIDEN * covariance)


class _Mixture(NamedTuple):
    """The density from which draws come: the prior, the encoder's, the Gaussian's."""

    mean: Tensor  # (k, n, d)
    log_variance: Tensor
    center: Tensor  # (n, d)
    root: Tensor  # (n, d, d)

    def log_density(self, z: Tensor) -> Tensor:
        """Return the log density at codes (n, S, d), as (n, S)."""
        wide = _Mixture(*(values.double() for values in self))
        return wide._log_density(z.double()).to(z.dtype)

    def _log_density(self, z: Tensor) -> Tensor:
        n_all = N_POOL + N_CHAINS * N_OWN + N_MOMENTS
        gap = torch.linalg.solve_triangular(
            self.root, (z - self.center[:, None]).mT, upper=False
        )
        log_det = self.root.diagonal(dim1=1, dim2=2).log().sum(1)[:, None]
        wide = -0.5 * (gap**2 + math.log(2 * math.pi)).sum(1) - log_det
        terms = [log_prior(z) + math.log(N_POOL / n_all), wide + math.log(N_MOMENTS / n_all)]
        precision = (-self.log_variance).exp().permute(1, 2, 0)  # (n, d, k)
        moved = self.mean.permute(1, 2, 0) * precision
        squares = z**2 @ precision - 2 * z @ moved  # (n, S, k)
        constant = (moved**2 / precision).sum(1) + self.log_variance.sum(2).T
        own = -0.5 * (squares + (constant + z.shape[2] * math.log(2 * math.pi))[:, None])
        terms.append(own.logsumexp(2) + math.log(N_OWN / n_all))
        return torch.stack(terms).logsumexp(0)
