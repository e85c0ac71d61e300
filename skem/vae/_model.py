"""The variational autoencoder: networks, the bound, and its gradient.

    p(z) = N(0, I),  q(z|x) = N(mu(x), diag sigma^2(x))
    ELBO(x) = E_q log p(x|z) - KL,  KL = -1/2 sum (1 + log sigma^2 - mu^2 - sigma^2)
    log p(x|z) = sum_i x_i l_i - softplus(l_i)                              (Bernoulli)
               = -1/2 sum_i (x_i - m_i)^2 / s_i + log(2 pi s_i)             (Gaussian)

The decoder returns the logits l or the means m; the noise variances s are learned. Missing
features are omitted from the sums.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from skem._network import layers
from skem._network.layers import backward, fill_uniform, forward
from skem._network.training import Flat, Purpose, flatten, generator, module_of

# Log-variances of codes and of features are limited to plus or minus these numbers. Within
# these limits float32 resolves both terms of the bound.
LOG_VARIANCE_LIMIT, FEATURE_LIMIT = 12.0, 10.0


@dataclass(frozen=True)
class Design(layers.Design):
    """Architecture of the encoder and the decoder."""

    gaussian: bool
    encoder: Callable[..., nn.Module] | None
    decoder: Callable[..., nn.Module] | None


@dataclass
class Network:
    """Encoder and decoder, with all parameters in one vector."""

    encoder: nn.Module  # rows -> mu and log sigma^2, (n, 2 d)
    decoder: nn.Module  # codes -> logits or means, (n, D)
    log_variance: nn.Parameter  # log s, (D,) or, for Bernoulli, (0,)
    flat: Flat
    manual_gradient: bool  # whether ``written_gradient`` supports all layers
    dtype: torch.dtype = torch.float32
    half: "Network | None" = None  # a copy in bfloat16 that computes the products
    compiled: Callable[..., float] | None = None  # the compiled loss of ``kernel``

    def convert(self, dtype: Any) -> None:
        """Convert the networks for inference in another dtype; training is in float32."""
        self.dtype = torch.float64 if np.dtype(dtype) == np.float64 else torch.float32
        self.encoder.to(self.dtype)
        self.decoder.to(self.dtype)
        self.log_variance.data = self.log_variance.data.to(self.dtype)


def build(design: Design, seed: int, device: torch.device) -> Network:
    """Return networks with random weights."""
    D, d = design.n_features, design.n_components
    random, hidden = generator(seed, Purpose.WEIGHTS), design.hidden_layer_sizes
    encoder = design.encoder and module_of("encoder", design.encoder, seed, D, 2 * d)
    decoder = design.decoder and module_of("decoder", design.decoder, seed + 1, d, D)
    if encoder is None:
        encoder = fill_uniform(design.from_rows(hidden, 2 * d), random)
    if decoder is None:
        decoder = fill_uniform(design.to_rows(hidden[::-1]), random)
    log_variance = nn.Parameter(torch.zeros(D if design.gaussian else 0, dtype=torch.float32))
    parameters = [*encoder.parameters(), *decoder.parameters(), log_variance]
    flat = flatten(parameters, device)
    for module in (encoder, decoder):
        module.to(device).eval()
    own = design.encoder is None and design.decoder is None
    return Network(encoder, decoder, log_variance, flat, manual_gradient=own)


def in_half(network: Network) -> Network:
    """Return a copy in bfloat16; the noise variances are shared, not copied."""
    encoder = copy.deepcopy(network.encoder).to(torch.bfloat16)
    decoder = copy.deepcopy(network.decoder).to(torch.bfloat16)
    flat = flatten([*encoder.parameters(), *decoder.parameters()], network.flat.values.device)
    return replace(network, encoder=encoder, decoder=decoder, flat=flat, dtype=torch.bfloat16)


# -- the bound ------------------------------------------------------------------------------


def encode(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mu and log sigma^2, (n, d) each."""
    mean, log_variance = network.encoder(x.to(network.dtype)).to(x.dtype).chunk(2, dim=1)
    return mean, log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)


def decode(network: Network, z: Tensor) -> Tensor:
    """Return the logits or means, (n, D)."""
    output: Tensor = network.decoder(z.to(network.dtype)).to(z.dtype)
    return output


def expected(network: Network, z: Tensor) -> Tensor:
    """Return E[x | z], (n, D)."""
    return as_expected(network, decode(network, z))


def as_expected(network: Network, output: Tensor) -> Tensor:
    """Return E[x | z], given the output of the decoder."""
    return output if len(network.log_variance) else output.sigmoid()


def log_likelihood(network: Network, x: Tensor, seen: Tensor | None, output: Tensor) -> Tensor:
    """Return log p(x|z), (n,), given the output of the decoder."""
    if len(network.log_variance):
        log_s = network.log_variance.to(output.dtype).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
        each = -0.5 * ((x - output) ** 2 / log_s.exp() + log_s + math.log(2 * math.pi))
    else:
        each = -functional.binary_cross_entropy_with_logits(output, x, reduction="none")
    return (each if seen is None else each * seen).sum(1)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(q(z|x) || p(z)), (n,)."""
    return -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)


def log_ratio(draw: Tensor, z: Tensor, log_variance: Tensor) -> Tensor:
    """Return log p(z) / q(z|x) of z = mu + sigma draw, (n,)."""
    return 0.5 * (draw**2 - z**2 + log_variance).sum(1)


def gradient(
    network: Network,
    x: Tensor,
    seen: Tensor | None,
    weight: Tensor,
    noise: Tensor,
    beta: float,
) -> tuple[float, float]:
    """Set the gradient of sum weight (-log p(x|z) + beta KL); return the sums of both terms."""
    half = network.half
    if half is not None:
        n = len(half.flat.values)  # the noise variances come last and are not in ``half``
        half.flat.values.detach().copy_(network.flat.values.detach()[:n])
        terms = gradient(half, x, seen, weight, noise, beta)
        network.flat.gradient[:n].copy_(half.flat.gradient)
        return terms
    if network.manual_gradient:
        return written_gradient(network, x, seen, weight, noise, beta)
    network.flat.gradient.zero_()
    with torch.enable_grad():
        mean, log_variance = encode(network, x)
        z = mean + (0.5 * log_variance).exp() * noise
        distortion = -(weight * log_likelihood(network, x, seen, decode(network, z))).sum()
        rate = (weight * divergence(mean, log_variance)).sum()
        (distortion + beta * rate).backward()
    return distortion.item(), rate.item()


@torch.no_grad()
def written_gradient(
    network: Network,
    x: Tensor,
    seen: Tensor | None,
    weight: Tensor,
    noise: Tensor,
    beta: float,
) -> tuple[float, float]:
    """Compute the same as ``gradient`` with explicit formulas, without a graph."""
    encoder, decoder = list(network.encoder.children()), list(network.decoder.children())
    inner = forward(encoder, x.to(network.dtype))
    mean, raw = inner[-1].to(x.dtype).chunk(2, dim=1)
    log_variance = raw.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
    scale = (0.5 * log_variance).exp_()
    outer = forward(decoder, torch.addcmul(mean, scale, noise).to(network.dtype))
    distortion, grad = _output_gradient(network, x, seen, weight, outer[-1].to(x.dtype))
    grad = backward(decoder, outer, grad.to(network.dtype), to_input=True).to(x.dtype)
    variance, share = scale * scale, beta * weight[:, None]
    d_mean = torch.addcmul(grad, share, mean)
    d_log_variance = 0.5 * (grad * noise * scale + share * (variance - 1))
    d_log_variance *= raw.abs() <= LOG_VARIANCE_LIMIT
    d_code = torch.cat([d_mean, d_log_variance], 1).to(network.dtype)
    backward(encoder, inner, d_code, to_input=False)
    each = torch.addcmul(variance, mean, mean).sub_(log_variance).sum(1).sub_(mean.shape[1])
    return distortion, 0.5 * (weight @ each).item()


def _output_gradient(
    network: Network, x: Tensor, seen: Tensor | None, weight: Tensor, output: Tensor
) -> tuple[float, Tensor]:
    """Return the negative log-likelihood and its gradient by the decoder's output.

    The gradient by the noise variances is written to their ``grad``.
    """
    bernoulli = not len(network.log_variance)
    if bernoulli and seen is None and network.compiled is not None:
        grad = torch.empty_like(output)
        arrays = (t.numpy() for t in (x, weight, output, grad))
        return network.compiled(*arrays), grad
    distortion = -(weight @ log_likelihood(network, x, seen, output)).item()
    weight = weight[:, None]
    if bernoulli:
        grad = output.sigmoid().sub_(x).mul_(weight)
        return distortion, grad if seen is None else grad.mul_(seen)
    raw = network.log_variance.detach()
    precision = torch.exp(-raw.clamp(-FEATURE_LIMIT, FEATURE_LIMIT))
    grad = (output - x).mul_(precision)
    own = 0.5 * weight * (1 - grad * (output - x))
    grad *= weight
    if seen is not None:
        grad, own = grad * seen, own * seen
    inside = raw.abs() <= FEATURE_LIMIT
    assert network.log_variance.grad is not None
    network.log_variance.grad.copy_(own.sum(0) * inside)
    return distortion, grad


@torch.no_grad()
def bound(network: Network, x: Tensor, seen: Tensor | None, noise: Tensor) -> Tensor:
    """Return a lower bound of log p of the observed values, (n,).

    It is the mean over M sets of S draws. All rows use the same ``noise`` (M, S, d). The bound
    is the ELBO if S is 1, and the importance-weighted bound otherwise.
    """
    mean, log_variance = encode(network, x)
    scale, n_draws = (0.5 * log_variance).exp(), noise.shape[1]
    total = torch.zeros_like(mean[:, 0])
    for draws in noise:
        terms = []
        for draw in draws:
            z = mean + scale * draw
            term = log_likelihood(network, x, seen, decode(network, z))
            terms.append(term if n_draws == 1 else term + log_ratio(draw, z, log_variance))
        total += torch.stack(terms).logsumexp(0) - math.log(n_draws)
    total /= len(noise)
    return total - divergence(mean, log_variance) if n_draws == 1 else total
