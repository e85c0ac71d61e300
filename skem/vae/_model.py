"""The variational autoencoder: networks, the bound, and its gradient.

    p(z) = N(0, I),  q(z|x) = N(mu(x), diag sigma^2(x))
    ELBO(x) = E_q log p(x|z) - KL,  KL = -1/2 sum (1 + log sigma^2 - mu^2 - sigma^2)
    log p(x|z) = sum_i x_i l_i - softplus(l_i)                              (Bernoulli)
               = -1/2 sum_i (x_i - m_i)^2 / s_i + log(2 pi s_i)             (Gaussian)
               = sum_c x_c l_c - log sum_c exp(l_c)                         (categories)

The decoder returns the logits l or the means m. A column of categories is a group of columns
x_c of the networks, which are 0 and 1. Columns of several kinds add up. The noise variances s
have a closed form given the rest: the mean squared residuals. Missing features are omitted from
the sums.

Networks with Gaussian features may stand on a factor analysis: its posterior and its mean are
added to what the networks return, which is in units of its standard deviations. Networks that
return 0 then are the factor analysis.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from skem._network import layers
from skem._network.layers import backward, fill_uniform, forward
from skem._network.training import Flat, Purpose, flatten, generator, module_of
from skem.vae._columns import Columns

# Log-variances of codes and of features are limited to plus or minus these numbers. Within
# these limits float32 resolves both terms of the bound.
LOG_VARIANCE_LIMIT, FEATURE_LIMIT = 16.0, 16.0
NORMAL_LIMIT = 1e-7  # float32 resolves 1 - 1e-7; normal draws are within 5.2


@dataclass(frozen=True)
class Design(layers.Design):
    """Architecture of the encoder and the decoder."""

    columns: Columns
    based: bool  # whether the networks stand on a factor analysis
    encoder: Callable[..., nn.Module] | None
    decoder: Callable[..., nn.Module] | None


class Base(NamedTuple):
    """The factor analysis on which networks stand."""

    to_code: Tensor  # (d, D); the mean of a code is to_code x + code_mean
    code_mean: Tensor  # (d,)
    code_log_variance: Tensor  # (d,)
    to_row: Tensor  # (D, d); the mean of a row is to_row z + row_mean
    row_mean: Tensor  # (D,)
    row_scale: Tensor  # (D,), the standard deviations of the noise


class Terms(NamedTuple):
    """Weighted sums over a minibatch."""

    distortion: float  # -log p(x|z)
    rate: float  # the KL divergence
    excess: Tensor | None  # squared residuals minus s, (G,); None without Gaussian columns


@dataclass
class Network:
    """Encoder and decoder, with all parameters in one vector."""

    encoder: nn.Module  # rows -> mu and log sigma^2, (n, 2 d)
    decoder: nn.Module  # codes -> logits or means, (n, D)
    log_variance: nn.Parameter  # log s of the Gaussian columns, (G,)
    columns: Columns
    flat: Flat
    manual_gradient: bool  # whether ``written_gradient`` supports all layers
    base: Base | None = None
    dtype: torch.dtype = torch.float32
    half: "Network | None" = None  # a copy in bfloat16 that computes the products
    compiled: Callable[..., float] | None = None  # the compiled loss of ``kernel``

    @property
    def numpy_dtype(self) -> np.dtype:
        """The dtype in which rows enter."""
        return np.dtype(np.float64 if self.dtype == torch.float64 else np.float32)

    def convert(self, dtype: Any) -> None:
        """Convert the networks for inference in another dtype; training is in float32."""
        self.dtype = torch.float64 if np.dtype(dtype) == np.float64 else torch.float32
        self.encoder.to(self.dtype)
        self.decoder.to(self.dtype)
        self.log_variance.data = self.log_variance.data.to(self.dtype)
        if self.base is not None:
            self.base = Base(*(values.to(self.dtype) for values in self.base))


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
    columns = Columns(*design.columns)
    log_variance = nn.Parameter(torch.zeros(columns.n_gaussian, dtype=torch.float32))
    parameters = [*encoder.parameters(), *decoder.parameters(), log_variance]
    flat = flatten(parameters, device)
    for module in (encoder, decoder):
        module.to(device).eval()
    own = design.encoder is None and design.decoder is None
    base = _empty_base(D, d, device) if design.based else None
    return Network(encoder, decoder, log_variance, columns, flat, own, base)


def _empty_base(D: int, d: int, device: torch.device) -> Base:
    shapes = (d, D), (d,), (d,), (D, d), (D,), (D,)
    return Base(*(torch.zeros(s, dtype=torch.float32, device=device) for s in shapes))


@torch.no_grad()
def stand_on(network: Network, base: Base) -> None:
    """Make the networks the factor analysis: their last layers return 0."""
    assert network.base is not None
    for own, values in zip(network.base, base, strict=True):
        own.copy_(values)
    for module in (network.encoder, network.decoder):
        *_, last = (layer for layer in module.modules() if hasattr(layer, "weight"))
        for values in last.parameters():
            values.zero_()
    network.log_variance.copy_(2 * base.row_scale[: network.columns.n_gaussian].log())


def in_half(network: Network) -> Network:
    """Return a copy in bfloat16; the noise variances are shared, not copied."""
    encoder = copy.deepcopy(network.encoder).to(torch.bfloat16)
    decoder = copy.deepcopy(network.decoder).to(torch.bfloat16)
    flat = flatten([*encoder.parameters(), *decoder.parameters()], network.flat.values.device)
    return replace(network, encoder=encoder, decoder=decoder, flat=flat, dtype=torch.bfloat16)


# -- the bound ------------------------------------------------------------------------------


def encode(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mu and log sigma^2, (n, d) each."""
    return _code(network, x, network.encoder(x.to(network.dtype)).to(x.dtype))[:2]


def _code(network: Network, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mu, log sigma^2, and log sigma^2 without limits, given the encoder's output."""
    mean, raw = output.chunk(2, dim=1)
    base = network.base
    if base is not None:
        linear = torch.addmm(base.code_mean, x, base.to_code.T)
        mean = torch.addcmul(linear, mean, (0.5 * base.code_log_variance).exp())
        raw = raw + base.code_log_variance
    return mean, raw.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT), raw


def decode(network: Network, z: Tensor) -> Tensor:
    """Return the logits or means, (n, D)."""
    return _row(network, z, network.decoder(z.to(network.dtype)).to(z.dtype))


def _row(network: Network, z: Tensor, output: Tensor) -> Tensor:
    """Return the logits or means, (n, D), given the decoder's output."""
    base = network.base
    if base is None:
        return output
    return torch.addcmul(torch.addmm(base.row_mean, z, base.to_row.T), output, base.row_scale)


def expected(network: Network, z: Tensor) -> Tensor:
    """Return E[x | z], (n, D)."""
    return as_expected(network, decode(network, z))


def as_expected(network: Network, output: Tensor) -> Tensor:
    """Return E[x | z], given the output of the decoder, (..., D)."""
    columns, D = network.columns, output.shape[-1]
    if columns.n_gaussian == D:
        return output
    if columns.n_bernoulli == D:
        return output.sigmoid()
    mean, logits, *groups = output.split(columns.sizes, -1)
    return torch.cat([mean, logits.sigmoid(), *(group.softmax(-1) for group in groups)], -1)


def log_softmax(network: Network, output: Tensor) -> Tensor:
    """Return the log-probabilities of all categories, given the output of the decoder."""
    _, _, *groups = output.split(network.columns.sizes, -1)
    return torch.cat([group.log_softmax(-1) for group in groups], -1)


def log_terms(network: Network, x: Tensor, output: Tensor) -> Tensor:
    """Return the terms of log p(x|z), (..., D), given rows (n, D) and outputs (..., n, D)."""
    G, B, sizes = network.columns
    end, terms = G + B, []
    if G:
        log_s = network.log_variance.to(output.dtype).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
        squares = (x[..., :G] - output[..., :G]) ** 2
        terms.append(-0.5 * (squares / log_s.exp() + log_s + math.log(2 * math.pi)))
    if B:
        logits = output[..., G:end]
        target = x[..., G:end].expand_as(logits)
        each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        terms.append(-each)
    if sizes:
        terms.append(x[..., end:] * log_softmax(network, output))
    return terms[0] if len(terms) == 1 else torch.cat(terms, -1)


def log_likelihood(network: Network, x: Tensor, seen: Tensor | None, output: Tensor) -> Tensor:
    """Return log p(x|z), (..., n), given the outputs of the decoder, (..., n, D)."""
    each = log_terms(network, x, output)
    return (each if seen is None else each * seen).sum(-1)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(q(z|x) || p(z)), (n,)."""
    return -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)


def log_ratio(draw: Tensor, z: Tensor, log_variance: Tensor) -> Tensor:
    """Return log p(z) / q(z|x) of z = mu + sigma draw, (n,) or (S, n)."""
    return 0.5 * (draw**2 - z**2 + log_variance).sum(-1)


def gradient(
    network: Network,
    x: Tensor,
    seen: Tensor | None,
    weight: Tensor,
    noise: Tensor,
    beta: float,
) -> Terms:
    """Set the gradient of sum weight (-log p(x|z) + beta KL); return the sums of both terms.

    The noise variances have no gradient: ``move_noise`` takes them to their best values. Noise
    (n, d) gives the ELBO; noise (S, n, d) the importance-weighted bound of S draws.
    """
    half = network.half
    if half is not None:
        n = len(half.flat.values)  # the noise variances come last and are not in ``half``
        half.flat.values.detach().copy_(network.flat.values.detach()[:n])
        terms = gradient(half, x, seen, weight, noise, beta)
        network.flat.gradient[:n].copy_(half.flat.gradient)
        return terms
    if noise.ndim == 3:
        return importance_gradient(network, x, seen, weight, noise, beta)
    if network.manual_gradient:
        return written_gradient(network, x, seen, weight, noise, beta)
    network.flat.gradient.zero_()
    with torch.enable_grad():
        mean, log_variance = encode(network, x)
        z = mean + (0.5 * log_variance).exp() * noise
        output = decode(network, z)
        distortion = -(weight * log_likelihood(network, x, seen, output)).sum()
        rate = (weight * divergence(mean, log_variance)).sum()
        (distortion + beta * rate).backward()
    excess = None
    if len(network.log_variance):
        assert network.log_variance.grad is not None
        network.log_variance.grad.zero_()
        excess = _excess(network, (output.detach() - x) ** 2, seen, weight)
    return Terms(distortion.item(), rate.item(), excess)


def importance_gradient(
    network: Network,
    x: Tensor,
    seen: Tensor | None,
    weight: Tensor,
    noise: Tensor,
    beta: float,
) -> Terms:
    """Set the gradient of minus the importance-weighted bound, for noise (S, n, d).

    The rate is still the KL divergence, and the distortion is the rest of the bound.
    """
    network.flat.gradient.zero_()
    with torch.enable_grad():
        mean, log_variance = encode(network, x)
        z = mean + (0.5 * log_variance).exp() * noise
        output = decode(network, z.flatten(0, 1)).unflatten(0, z.shape[:2])
        log_weight = log_likelihood(network, x, seen, output)
        log_weight = log_weight + beta * log_ratio(noise, z, log_variance)
        each = log_weight.logsumexp(0) - math.log(len(noise))
        loss = -(weight * each).sum()
        loss.backward()
    with torch.no_grad():
        rate, excess = (weight * divergence(mean, log_variance)).sum().item(), None
        if network.columns.n_gaussian:
            assert network.log_variance.grad is not None
            network.log_variance.grad.zero_()
            share = log_weight.softmax(0)[..., None]
            squares = (share * (output - x) ** 2).sum(0)
            excess = _excess(network, squares, seen, weight)
    return Terms(loss.item() - rate, rate, excess)


@torch.no_grad()
def written_gradient(
    network: Network,
    x: Tensor,
    seen: Tensor | None,
    weight: Tensor,
    noise: Tensor,
    beta: float,
) -> Terms:
    """Compute the same as ``gradient`` with explicit formulas, without a graph."""
    encoder, decoder = list(network.encoder.children()), list(network.decoder.children())
    inner, base = forward(encoder, x.to(network.dtype)), network.base
    mean, log_variance, raw = _code(network, x, inner[-1].to(x.dtype))
    scale = (0.5 * log_variance).exp()
    z = torch.addcmul(mean, scale, noise)
    outer = forward(decoder, z.to(network.dtype))
    output = _row(network, z, outer[-1].to(x.dtype))
    distortion, grad, excess = _output_gradient(network, x, seen, weight, output)
    own = grad if base is None else grad * base.row_scale
    d_z = backward(decoder, outer, own.to(network.dtype), to_input=True).to(x.dtype)
    if base is not None:
        d_z = torch.addmm(d_z, grad, base.to_row)
    variance, share = scale * scale, beta * weight[:, None]
    d_mean = torch.addcmul(d_z, share, mean)
    if base is not None:
        d_mean *= (0.5 * base.code_log_variance).exp()
    d_log_variance = 0.5 * (d_z * noise * scale + share * (variance - 1))
    d_log_variance *= raw.abs() <= LOG_VARIANCE_LIMIT
    d_code = torch.cat([d_mean, d_log_variance], 1).to(network.dtype)
    backward(encoder, inner, d_code, to_input=False)
    each = torch.addcmul(variance, mean, mean).sub_(log_variance).sum(1).sub_(mean.shape[1])
    return Terms(distortion, 0.5 * (weight @ each).item(), excess)


def _output_gradient(
    network: Network, x: Tensor, seen: Tensor | None, weight: Tensor, output: Tensor
) -> tuple[float, Tensor, Tensor | None]:
    """Return -log p(x|z), its gradient by the decoder's output, and the excess of residuals."""
    G, D = network.columns.n_gaussian, output.shape[1]
    bernoulli = network.columns.n_bernoulli == D
    if bernoulli and seen is None and network.compiled is not None:
        grad = torch.empty_like(output)
        arrays = (t.numpy() for t in (x, weight, output, grad))
        return network.compiled(*arrays), grad, None
    distortion = -(weight @ log_likelihood(network, x, seen, output)).item()
    grad, excess = as_expected(network, output) - x, None
    if G:
        excess = _excess(network, grad**2, seen, weight)
        grad[:, :G] *= 1 / noise_variance(network)
    grad.mul_(weight[:, None])
    return distortion, grad if seen is None else grad.mul_(seen), excess


def noise_variance(network: Network) -> Tensor:
    """Return the noise variances s of Gaussian features, (G,)."""
    return network.log_variance.detach().clamp(-FEATURE_LIMIT, FEATURE_LIMIT).exp()


def _excess(network: Network, squares: Tensor, seen: Tensor | None, weight: Tensor) -> Tensor:
    """Return the weighted sum of squared residuals (n, D) minus noise variances, (G,)."""
    G = network.columns.n_gaussian
    excess = squares[:, :G] - noise_variance(network)
    return weight @ (excess if seen is None else excess * seen[:, :G])


@torch.no_grad()
def move_noise(network: Network, excess: Tensor, rate: float) -> None:
    """Move the noise variances towards the mean squared residuals, which maximize the bound."""
    moved = noise_variance(network).add_(excess, alpha=rate)
    limits = math.exp(-FEATURE_LIMIT), math.exp(FEATURE_LIMIT)
    network.log_variance.copy_(moved.clamp_(*limits).log_())


@torch.no_grad()
def bound(
    network: Network, x: Tensor, seen: Tensor | None, points: Tensor, shifts: Tensor
) -> Tensor:
    """Return a lower bound of log p of the observed values, (n,).

    It is the mean over M sets of S draws. The draws of a row come from the ``points`` (M, S, d)
    of the unit cube, which all rows share, moved by the shift of the row (n, d). The bound is
    the importance-weighted bound or, if S is 1, the ELBO. Each of its points then gives two
    draws, of opposite sign.
    """
    mean, log_variance = encode(network, x)
    scale, n_draws = (0.5 * log_variance).exp(), points.shape[1]
    total = torch.zeros_like(mean[:, 0])

    def log_joint(draw: Tensor) -> Tensor:
        z = mean + scale * draw
        term = log_likelihood(network, x, seen, decode(network, z))
        return term if n_draws == 1 else term + log_ratio(draw, z, log_variance)

    for some in points:
        draws = [normal(point + shifts) for point in some]
        if n_draws == 1:
            total += 0.5 * (log_joint(draws[0]) + log_joint(-draws[0]))
        else:
            total += torch.stack([log_joint(draw) for draw in draws]).logsumexp(0)
            total -= math.log(n_draws)
    total /= len(points)
    return total - divergence(mean, log_variance) if n_draws == 1 else total


def normal(points: Tensor) -> Tensor:
    """Return standard normal numbers, given points of the unit cube that wrap around."""
    inside = points.remainder(1).clamp(NORMAL_LIMIT, 1 - NORMAL_LIMIT)
    return torch.special.ndtri(inside)
