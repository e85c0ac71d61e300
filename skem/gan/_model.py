"""The generative adversarial network: two networks, their losses and their gradients.

    x = G(z),  D(x) = sigmoid(d(x))
    d maximizes     V = E_x log D(x) + E_z log(1 - D(G(z)))
    G minimizes     -E_z log D(G(z))       (non-saturating)
                    or E_z log(1 - D(G(z))) (minimax)

For a given G the best d is log p(x) - log p_G(x). With ``spectral``, every weight W of d is
divided by its largest singular value, s = u' W v. The slope of d is then bounded.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from skem._network import layers
from skem._network.layers import backward, fill_uniform, forward
from skem._network.training import Flat, Purpose, flatten, generator

N_POWER = 10  # power iterations before the first step


@dataclass(frozen=True)
class Design(layers.Design):
    """Architecture of the generator and the discriminator."""

    standardized: bool  # whether rows are standardized; otherwise they are between 0 and 1
    spectral: bool
    gain: float  # with ``spectral``: largest singular value of the first weight; others have 1
    noise: str
    loss: str


@dataclass
class Networks:
    """Generator and discriminator.

    The discriminator computes with the parameters ``used``. Training updates the parameters
    ``free``. With spectral normalization, ``used`` is a copy of ``free`` with normalized
    weights. Without it, both are the same.
    """

    design: Design
    generator: nn.Sequential
    discriminator: nn.Sequential
    flat: Flat  # parameters of the generator
    used: Flat
    free: Flat
    weights: list[tuple[Any, Any]]  # normalized parameters, as pairs (used, free)
    plain: list[tuple[Any, Any]]  # the other parameters, as pairs (used, free)
    left: list[Tensor]  # the singular vectors u of the weights
    right: list[Tensor]
    norms: Tensor  # the largest singular values of the free weights


def build(design: Design, seed: int, device: torch.device) -> Networks:
    """Return networks with random weights."""
    hidden, random = design.hidden_layer_sizes, generator(seed, Purpose.WEIGHTS)
    maker, discriminator = (
        fill_uniform(module, random).to(device)
        for module in (design.to_rows(hidden), design.from_rows(hidden[::-1], 1))
    )
    flat, used = (
        flatten(list(module.parameters()), device) for module in (maker, discriminator)
    )
    free, weights, plain = used, [], []
    if design.spectral:
        copies = [nn.Parameter(p.detach().clone()) for p in discriminator.parameters()]
        free = flatten(copies, device)
        pairs = list(zip(discriminator.parameters(), copies, strict=True))
        weights = [pair for pair in pairs if pair[0].ndim > 1]
        plain = [pair for pair in pairs if pair[0].ndim == 1]
    shapes = [p.flatten(1).shape for p, _ in weights]
    left, right = (
        [torch.randn(s[i], generator=random, dtype=torch.float32).to(device) for s in shapes]
        for i in (0, 1)
    )
    norms = torch.ones(len(shapes), dtype=torch.float32)
    networks = Networks(
        design, maker, discriminator, flat, used, free, weights, plain, left, right, norms
    )
    for _ in range(N_POWER):
        normalize(networks)
    return networks


@torch.no_grad()
def normalize(networks: Networks) -> None:
    """Run one power iteration, then set the used weights to the normalized free weights."""
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
    """Return the target for the largest singular value of used weight i."""
    return networks.design.gain if i == 0 else 1.0


def _pull_back(networks: Networks) -> None:
    """Compute the gradient by the free weights from the gradient by the used weights."""
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
    """Draw noise, (n, d)."""
    shape = n, design.n_components
    if design.noise == "normal":
        return torch.randn(shape, generator=random, dtype=torch.float32)
    return torch.rand(shape, generator=random, dtype=torch.float32) * 2 - 1


def squashed(networks: Networks, output: Tensor) -> Tensor:
    """Return rows, given the output of the generator's last layer."""
    return output if networks.design.standardized else output.sigmoid()


def generated(networks: Networks, z: Tensor) -> Tensor:
    """Return the rows (n, D) that the generator makes from noise."""
    return squashed(networks, networks.generator(z))


def discriminated(networks: Networks, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last hidden layer of the discriminator, (n, H), and d(x), (n,)."""
    values = forward(list(networks.discriminator.children()), x)
    return values[-2].flatten(1), values[-1][:, 0]


def discriminator_loss(logits: Tensor, share: Tensor) -> Tensor:
    """Return -V for the logits of n rows with these shares, followed by n generated rows."""
    n = len(share)
    loss: Tensor = (
        share @ functional.softplus(-logits[:n]) + functional.softplus(logits[n:]).mean()
    )
    return loss


def generator_loss(logits: Tensor, kind: str) -> Tensor:
    """Return the loss of the generator."""
    if kind == "minimax":
        return -functional.softplus(logits).mean()
    return functional.softplus(-logits).mean()


@torch.no_grad()
def discriminator_gradient(networks: Networks, x: Tensor, share: Tensor, fake: Tensor) -> float:
    """Set the gradient by the free weights; return the loss."""
    discriminator = list(networks.discriminator.children())
    values = forward(discriminator, torch.cat([x, fake]))
    logits, n = values[-1], len(x)
    grad = logits.sigmoid()
    grad[:n] = (grad[:n] - 1) * share[:, None]
    grad[n:] /= len(fake)
    backward(discriminator, values, grad, to_input=False)
    _pull_back(networks)
    return discriminator_loss(logits[:, 0], share).item()


@torch.no_grad()
def generator_gradient(networks: Networks, values: list[Tensor], fake: Tensor) -> float:
    """Set the gradient of the generator; return the loss.

    ``values`` are the inputs and outputs of the generator's layers.
    """
    maker, discriminator = (
        list(module.children()) for module in (networks.generator, networks.discriminator)
    )
    outputs = forward(discriminator, fake)
    logits = outputs[-1]
    grad = logits.sigmoid() / len(fake)
    if networks.design.loss == "minimax":
        grad = -grad
    else:
        grad -= 1 / len(fake)
    grad = backward(discriminator, outputs, grad, to_input=True, to_weights=False)
    if not networks.design.standardized:
        grad = torch.ops.aten.sigmoid_backward(grad, fake)
    backward(maker, values, grad, to_input=False)
    return generator_loss(logits[:, 0], networks.design.loss).item()


def state_of(networks: Networks) -> list[Tensor]:
    """Return all tensors that change during training."""
    tensors: list[Tensor] = [networks.flat.values, networks.free.values]
    if networks.design.spectral:
        vectors = *networks.left, *networks.right
        tensors += [networks.used.values, networks.norms, *vectors]
    return tensors
