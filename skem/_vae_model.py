"""The variational autoencoder: networks, the bound, and its gradient.

    p(z) = N(0, I),  q(z|x) = N(mu(x), diag sigma^2(x))
    ELBO(x) = E_q log p(x|z) - KL,  KL = -1/2 sum (1 + log sigma^2 - mu^2 - sigma^2)
    log p(x|z) = sum_i x_i l_i - softplus(l_i)                              (Bernoulli)
               = -1/2 sum_i (x_i - m_i)^2 / s_i + log(2 pi s_i)             (Gaussian)

The decoder returns the logits l or the means m; the noise variances s are learnt. Features
that are missing are left out of the sums.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from skem._torch import Flat, call_factory, fill_uniform, flatten, generator, new

LOG_VARIANCE_LIMIT = 12.0  # of the codes; those of the features are between -10 and 10
FEATURE_LIMIT = 10.0
CHANNELS, WIDTH = (32, 64), 256  # of the convolutional network
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
# The derivative of an activation, from that of its output, its input and its output.
BACKWARD: dict[type, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    nn.ReLU: lambda grad, x, y: torch.ops.aten.threshold_backward(grad, x, 0),
    nn.GELU: lambda grad, x, y: torch.ops.aten.gelu_backward(grad, x),
    nn.Tanh: lambda grad, x, y: torch.ops.aten.tanh_backward(grad, y),
}


@dataclass(frozen=True)
class Design:
    """What the networks look like."""

    n_features: int
    n_components: int
    hidden_layer_sizes: tuple[int, ...]
    activation: str
    architecture: str
    image_shape: tuple[int, ...] | None
    gaussian: bool
    encoder: Callable[..., nn.Module] | None
    decoder: Callable[..., nn.Module] | None


@dataclass
class Network:
    """Encoder and decoder, and all their parameters in one vector."""

    encoder: nn.Module  # rows -> mu and log sigma^2, (n, 2 d)
    decoder: nn.Module  # codes -> logits or means, (n, D)
    log_variance: nn.Parameter  # log s, (D,) or, for Bernoulli, (0,)
    flat: Flat
    by_hand: bool  # whether the gradient is that of ``dense_gradient``
    dtype: torch.dtype = torch.float32
    half: "Network | None" = None  # a copy in bfloat16, where products are computed
    compiled: Callable[..., float] | None = None  # that of ``_vae_kernel``

    def convert(self, dtype: Any) -> None:
        """For inference in another dtype; training is in float32."""
        self.dtype = torch.float64 if np.dtype(dtype) == np.float64 else torch.float32
        self.encoder.to(self.dtype)
        self.decoder.to(self.dtype)
        self.log_variance.data = self.log_variance.data.to(self.dtype)


def build(design: Design, seed: int, device: torch.device) -> Network:
    """Networks with random weights."""
    D, d = design.n_features, design.n_components
    random, dense = generator(seed, 1), design.architecture == "dense"
    encoder = design.encoder and call_factory(design.encoder, seed, D, 2 * d)
    decoder = design.decoder and call_factory(design.decoder, seed + 1, d, D)
    if encoder is None:
        layers = _dense(D, design, 2 * d) if dense else _convolutions(design, 2 * d)
        encoder = fill_uniform(layers, random)
    if decoder is None:
        layers = _dense(d, design, D, flip=True) if dense else _deconvolutions(design)
        decoder = fill_uniform(layers, random)
    log_variance = nn.Parameter(torch.zeros(D if design.gaussian else 0))
    parameters = [*encoder.parameters(), *decoder.parameters(), log_variance]
    flat = flatten(parameters, device)
    for module in (encoder, decoder):
        module.to(device)
    known = (nn.Linear, *BACKWARD)
    by_hand = all(
        isinstance(module, nn.Sequential) and all(type(layer) in known for layer in module)
        for module in (encoder, decoder)
    )
    return Network(encoder, decoder, log_variance, flat, by_hand)


def in_half(network: Network) -> Network:
    """A copy in bfloat16, but for the noise variances, which it shares."""
    encoder = copy.deepcopy(network.encoder).to(torch.bfloat16)
    decoder = copy.deepcopy(network.decoder).to(torch.bfloat16)
    flat = flatten([*encoder.parameters(), *decoder.parameters()], network.flat.values.device)
    return replace(network, encoder=encoder, decoder=decoder, flat=flat, dtype=torch.bfloat16)


def _dense(n_in: int, design: Design, n_out: int, flip: bool = False) -> nn.Sequential:
    sizes = design.hidden_layer_sizes[::-1] if flip else design.hidden_layer_sizes
    layers: list[nn.Module] = []
    for a, b in pairwise([n_in, *sizes]):
        layers += [new(nn.Linear, a, b), ACTIVATIONS[design.activation]()]
    return nn.Sequential(*layers, new(nn.Linear, [n_in, *sizes][-1], n_out))


def _channels_first(design: Design) -> tuple[int, int, int]:
    height, width, *colours = design.image_shape or (1, design.n_features)
    return (colours[0] if colours else 1, height, width)


class _ToImages(nn.Module):
    """Flat rows (n, height * width * channels) to (n, channels, height, width)."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        c, h, w = self.shape
        return x.reshape(-1, h, w, c).permute(0, 3, 1, 2)


class _ToRows(nn.Module):
    """The way back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(len(x), -1)


def _convolutions(design: Design, n_out: int) -> nn.Sequential:
    shape = _channels_first(design)
    activation, (a, b) = ACTIVATIONS[design.activation], CHANNELS
    size = b * (shape[1] // 4) * (shape[2] // 4)
    return nn.Sequential(
        _ToImages(shape),
        new(nn.Conv2d, shape[0], a, 4, 2, 1),
        activation(),
        new(nn.Conv2d, a, b, 4, 2, 1),
        activation(),
        _ToRows(),
        new(nn.Linear, size, WIDTH),
        activation(),
        new(nn.Linear, WIDTH, n_out),
    )


def _deconvolutions(design: Design) -> nn.Sequential:
    c, h, w = _channels_first(design)
    activation, (a, b) = ACTIVATIONS[design.activation], CHANNELS
    quarter = b, h // 4, w // 4
    odd = (h // 2 % 2, w // 2 % 2), (h % 2, w % 2)
    return nn.Sequential(
        new(nn.Linear, design.n_components, WIDTH),
        activation(),
        new(nn.Linear, WIDTH, b * quarter[1] * quarter[2]),
        activation(),
        _ToImages(quarter),
        new(nn.ConvTranspose2d, b, a, 4, 2, 1, output_padding=odd[0]),
        activation(),
        new(nn.ConvTranspose2d, a, c, 4, 2, 1, output_padding=odd[1]),
        _ToRows(),
    )


# -- the bound ------------------------------------------------------------------------------


def encode(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """mu and log sigma^2, (n, d) each."""
    mean, log_variance = network.encoder(x.to(network.dtype)).to(x.dtype).chunk(2, dim=1)
    return mean, log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)


def decode(network: Network, z: Tensor) -> Tensor:
    """Logits or means, (n, D)."""
    output: Tensor = network.decoder(z.to(network.dtype)).to(z.dtype)
    return output


def expected(network: Network, z: Tensor) -> Tensor:
    """E[x | z], (n, D)."""
    output = decode(network, z)
    return output if len(network.log_variance) else output.sigmoid()


def log_likelihood(network: Network, x: Tensor, seen: Tensor | None, output: Tensor) -> Tensor:
    """log p(x|z) from the decoder's output, (n,)."""
    if len(network.log_variance):
        log_s = network.log_variance.to(output.dtype).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
        each = -0.5 * ((x - output) ** 2 / log_s.exp() + log_s + math.log(2 * math.pi))
    else:
        each = -functional.binary_cross_entropy_with_logits(output, x, reduction="none")
    return (each if seen is None else each * seen).sum(1)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || p(z)), (n,)."""
    return -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)


def gradient(
    network: Network,
    x: Tensor,
    seen: Tensor | None,
    weight: Tensor,
    noise: Tensor,
    beta: float,
) -> tuple[float, float]:
    """Set the gradient of sum weight (-log p(x|z) + beta KL); the sums of the two terms."""
    half = network.half
    if half is not None:
        n = len(half.flat.values)  # the noise variances are after them
        half.flat.values.detach().copy_(network.flat.values.detach()[:n])
        terms = gradient(half, x, seen, weight, noise, beta)
        network.flat.gradient[:n].copy_(half.flat.gradient)
        return terms
    if network.by_hand:
        return dense_gradient(network, x, seen, weight, noise, beta)
    network.flat.gradient.zero_()
    if network.log_variance.grad is not None:  # in half precision it is not of that vector
        network.log_variance.grad.zero_()
    with torch.enable_grad():
        mean, log_variance = encode(network, x)
        z = mean + (0.5 * log_variance).exp() * noise
        distortion = -(weight * log_likelihood(network, x, seen, decode(network, z))).sum()
        rate = (weight * divergence(mean, log_variance)).sum()
        (distortion + beta * rate).backward()
    return distortion.item(), rate.item()


@torch.no_grad()
def dense_gradient(
    network: Network,
    x: Tensor,
    seen: Tensor | None,
    weight: Tensor,
    noise: Tensor,
    beta: float,
) -> tuple[float, float]:
    """The same for dense networks, written out: no graph is built, and nothing is kept."""
    encoder, decoder = list(network.encoder.children()), list(network.decoder.children())
    inner = _forward(encoder, x.to(network.dtype))
    mean, raw = inner[-1].to(x.dtype).chunk(2, dim=1)
    log_variance = raw.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
    scale = (0.5 * log_variance).exp_()
    outer = _forward(decoder, torch.addcmul(mean, scale, noise).to(network.dtype))
    distortion, grad = _output_gradient(network, x, seen, weight, outer[-1].to(x.dtype))
    grad = _backward(decoder, outer, grad.to(network.dtype), to_input=True).to(x.dtype)
    variance, share = scale * scale, beta * weight[:, None]
    d_mean = torch.addcmul(grad, share, mean)
    d_log_variance = 0.5 * (grad * noise * scale + share * (variance - 1))
    d_log_variance *= raw.abs() <= LOG_VARIANCE_LIMIT
    d_code = torch.cat([d_mean, d_log_variance], 1).to(network.dtype)
    _backward(encoder, inner, d_code, to_input=False)
    return distortion, (weight @ divergence(mean, log_variance)).item()


def _output_gradient(
    network: Network, x: Tensor, seen: Tensor | None, weight: Tensor, output: Tensor
) -> tuple[float, Tensor]:
    """Minus the log-likelihood, and its gradient; that of noise variances is set."""
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


def _forward(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    """The input of every layer, and the output of the last."""
    values = [x]
    for layer in layers:
        values.append(layer(values[-1]))
    return values


def _backward(layers: list[Any], values: list[Tensor], grad: Tensor, to_input: bool) -> Tensor:
    """Set the gradients of the layers; that of the input, if it is wanted."""
    for i in range(len(layers) - 1, -1, -1):
        layer, x, y = layers[i], values[i], values[i + 1]
        if not isinstance(layer, nn.Linear):
            grad = BACKWARD[type(layer)](grad, x, y)
            continue
        torch.mm(grad.T, x, out=layer.weight.grad)
        torch.sum(grad, 0, out=layer.bias.grad)
        if i or to_input:
            grad = grad @ layer.weight
    return grad


@torch.no_grad()
def bound(network: Network, x: Tensor, seen: Tensor | None, noise: Tensor, n: int) -> Tensor:
    """A lower bound of log p of what is seen, (n,): the ELBO if n is 1, else IWAE's.

    The same draws ``noise`` (S, d) serve every row.
    """
    mean, log_variance = encode(network, x)
    scale = (0.5 * log_variance).exp()
    total = None
    for draw in noise:
        z = mean + scale * draw
        term = log_likelihood(network, x, seen, decode(network, z))
        if n > 1:
            term = term + 0.5 * (draw**2 - z**2 + log_variance).sum(1)
            total = term if total is None else torch.logaddexp(total, term)
        else:
            total = term if total is None else total + term
    assert total is not None
    if n > 1:
        return total - math.log(len(noise))
    return total / len(noise) - divergence(mean, log_variance)
