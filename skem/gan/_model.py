"""The generative adversarial network: two networks, their losses and the gradients.

    x = G(z),  D(x) = sigmoid(d(x))
    d maximises     V = E_x log D(x) + E_z log(1 - D(G(z)))
    G minimises     -E_z log D(G(z))       (non-saturating)
                    or E_z log(1 - D(G(z))) (minimax)

For a given G the best d is log p(x) - log p_G(x). With ``spectral``, every weight W of d is
divided by its largest singular value, s = u' W v, so that d changes no faster than x does.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from skem._network.layers import (
    backward,
    convolutions,
    deconvolutions,
    dense,
    fill_uniform,
    forward,
)
from skem._network.training import Flat, flatten, generator

N_POWER = 10  # power iterations before the first step


@dataclass(frozen=True)
class Design:
    """What the networks look like."""

    n_features: int
    n_components: int
    hidden_layer_sizes: tuple[int, ...]
    activation: str
    architecture: str
    image_shape: tuple[int, ...] | None
    standardised: bool  # else between 0 and 1
    spectral: bool
    gain: float  # the largest singular value of the first weight, then; others have 1
    noise: str
    loss: str


@dataclass
class Networks:
    """Generator and discriminator.

    The discriminator computes with ``used``; what is learnt is ``free``, of which ``used``
    is a copy with normalised weights, or, without spectral normalisation, the same.
    """

    design: Design
    generator: nn.Sequential
    discriminator: nn.Sequential
    flat: Flat  # of the generator
    used: Flat
    free: Flat
    weights: list[tuple[Any, Any]]  # those that are normalised, as used and free
    plain: list[tuple[Any, Any]]  # the others
    left: list[Tensor]  # the singular vectors u of the weights
    right: list[Tensor]
    norms: Tensor  # the largest singular values of the free weights


def build(design: Design, seed: int, device: torch.device) -> Networks:
    """Networks with random weights."""
    D, d, hidden = design.n_features, design.n_components, list(design.hidden_layer_sizes)
    random = generator(seed, 1)
    if design.architecture == "dense":
        layers = dense([d, *hidden, D], design.activation)
        judge = dense([D, *hidden[::-1], 1], design.activation)
    else:
        height, width, *colours = design.image_shape or (1, D)
        shape = (colours[0] if colours else 1, height, width)
        layers = deconvolutions(d, shape, design.activation)
        judge = convolutions(shape, 1, design.activation)
    modules = [fill_uniform(module, random).to(device) for module in (layers, judge)]
    flat, used = (flatten(list(module.parameters()), device) for module in modules)
    free, weights, plain = used, [], []
    if design.spectral:
        copies = [nn.Parameter(p.detach().clone()) for p in judge.parameters()]
        free = flatten(copies, device)
        pairs = list(zip(judge.parameters(), copies, strict=True))
        weights = [pair for pair in pairs if pair[0].ndim > 1]
        plain = [pair for pair in pairs if pair[0].ndim == 1]
    shapes = [p.flatten(1).shape for p, _ in weights]
    left, right = (
        [torch.randn(s[i], generator=random, dtype=torch.float32).to(device) for s in shapes]
        for i in (0, 1)
    )
    norms = torch.ones(len(shapes), dtype=torch.float32)
    networks = Networks(
        design, layers, judge, flat, used, free, weights, plain, left, right, norms
    )
    for _ in range(N_POWER):
        normalise(networks)
    return networks


@torch.no_grad()
def normalise(networks: Networks) -> None:
    """Copy free to used weights, divided by their norms, after one power iteration."""
    for used, free in networks.plain:
        used.copy_(free)
    for i, (used, free) in enumerate(networks.weights):
        matrix, left, right = free.flatten(1), networks.left[i], networks.right[i]
        right.copy_(functional.normalize(matrix.T @ left, dim=0))
        image = matrix @ right
        norm = max(float(image.norm()), 1e-12)
        torch.div(image, norm, out=left)
        networks.norms[i] = norm
        torch.mul(free, _gain(networks, i) / norm, out=used)


def _gain(networks: Networks, i: int) -> float:
    """The largest singular value that weight i is to have."""
    return networks.design.gain if i == 0 else 1.0


def _pull_back(networks: Networks) -> None:
    """The gradient by the free weights from that by the used ones."""
    for used, free in networks.plain:
        free.grad.copy_(used.grad)
    vectors = zip(networks.left, networks.right, networks.norms.tolist(), strict=True)
    for i, (left, right, norm) in enumerate(vectors):
        used, free = networks.weights[i]
        along = float(torch.dot(used.grad.flatten(), used.flatten()))
        torch.addr(
            used.grad.flatten(1),
            left,
            right,
            beta=_gain(networks, i) / norm,
            alpha=-along / norm,
            out=free.grad.flatten(1),
        )


def draw(design: Design, n: int, random: torch.Generator) -> Tensor:
    """Codes, (n, d)."""
    shape = n, design.n_components
    if design.noise == "normal":
        return torch.randn(shape, generator=random, dtype=torch.float32)
    return torch.rand(shape, generator=random, dtype=torch.float32) * 2 - 1


def squashed(networks: Networks, output: Tensor) -> Tensor:
    """Rows from the last layer of the generator."""
    return output if networks.design.standardised else output.sigmoid()


def generated(networks: Networks, z: Tensor) -> Tensor:
    """Rows of codes, (n, D)."""
    return squashed(networks, networks.generator(z))


def judged(networks: Networks, x: Tensor) -> tuple[Tensor, Tensor]:
    """The last hidden layer of the discriminator, (n, H), and d(x), (n,)."""
    values = forward(list(networks.discriminator.children()), x)
    return values[-2].flatten(1), values[-1][:, 0]


def discriminator_loss(logits: Tensor, share: Tensor) -> Tensor:
    """-V: of the rows, which have shares, and as many generated ones after them."""
    n = len(share)
    loss: Tensor = (
        share @ functional.softplus(-logits[:n]) + functional.softplus(logits[n:]).mean()
    )
    return loss


def generator_loss(logits: Tensor, kind: str) -> Tensor:
    """What the generator minimises."""
    if kind == "minimax":
        return -functional.softplus(logits).mean()
    return functional.softplus(-logits).mean()


@torch.no_grad()
def discriminator_gradient(networks: Networks, x: Tensor, share: Tensor, fake: Tensor) -> float:
    """Set the gradient by the free weights; return the loss."""
    layers = list(networks.discriminator.children())
    values = forward(layers, torch.cat([x, fake]))
    logits, n = values[-1], len(x)
    grad = logits.sigmoid()
    grad[:n] = (grad[:n] - 1) * share[:, None]
    grad[n:] /= len(fake)
    backward(layers, values, grad, to_input=False)
    _pull_back(networks)
    return discriminator_loss(logits[:, 0], share).item()


@torch.no_grad()
def generator_gradient(networks: Networks, values: list[Tensor], fake: Tensor) -> float:
    """Set the gradient of the generator, whose layers gave ``values``; return the loss."""
    layers, judge = (
        list(module.children()) for module in (networks.generator, networks.discriminator)
    )
    judged_values = forward(judge, fake)
    logits = judged_values[-1]
    grad = logits.sigmoid() / len(fake)
    if networks.design.loss == "minimax":
        grad = -grad
    else:
        grad -= 1 / len(fake)
    grad = backward(judge, judged_values, grad, to_input=True, to_weights=False)
    if not networks.design.standardised:
        grad = torch.ops.aten.sigmoid_backward(grad, fake)
    backward(layers, values, grad, to_input=False)
    return generator_loss(logits[:, 0], networks.design.loss).item()


def state_of(networks: Networks) -> list[Tensor]:
    """All that training changes in the networks."""
    tensors: list[Tensor] = [networks.flat.values, networks.free.values]
    if networks.design.spectral:
        vectors = *networks.left, *networks.right
        tensors += [networks.used.values, networks.norms, *vectors]
    return tensors
