"""Training of the generative adversarial network, and the coverage of the data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.metrics.pairwise import euclidean_distances
from torch import Tensor

from skem._network.layers import forward
from skem._network.scaling import Scaling
from skem._network.training import (
    Adam,
    Purpose,
    Trained,
    epoch_batches,
    fill,
    generator,
)
from skem._rows.parts import LocalRows
from skem._typing import Array, Indices
from skem.gan._model import (
    Design,
    Networks,
    build,
    discriminated,
    discriminator_gradient,
    draw,
    generated,
    generator_gradient,
    normalize,
    squashed,
    state_of,
)

# Number of rows and of neighbors in the measure of coverage of Naeem et al. (2020).
N_COMPARED, N_NEAREST = 1000, 5


@dataclass
class Training(Trained):
    """Networks, their optimizers, and the history of the current fit."""

    networks: Networks
    average: Tensor  # running average of the generator's parameters
    adams: tuple[Adam, Adam]  # for the discriminator and for the generator
    compared: Tensor  # rows on which coverage is measured
    n_steps: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)

    @property
    def n_passes(self) -> int:
        return len(self.losses)

    def tensors(self) -> list[Tensor]:
        """Return the averaged generator, both networks, and the singular vectors."""
        return [self.average, *state_of(self.networks)]


def start(
    design: Design,
    scaling: Scaling,
    seed: int,
    device: torch.device,
    rows: LocalRows,
    *,
    betas: tuple[float, float],
    fast: bool,
    states: tuple[Any, Any],
) -> Training:
    """Return networks with random weights, and their optimizers.

    If ``fast``, the optimizers are compiled.
    """
    networks, step = build(design, seed, device), None
    if fast:
        from skem._network import kernel  # numba takes time to import

        step = kernel.adam
    adams = (
        Adam(networks.free, states[0], step, betas),
        Adam(networks.flat, states[1], step, betas),
    )
    average = networks.flat.values.detach().clone()
    compared = rows_to_compare(rows, scaling, seed)
    return Training(scaling, seed, networks, average, adams, compared)


def epoch(
    training: Training,
    rows: LocalRows,
    chosen: Indices,
    batch_size: int,
    rate: Callable[[int], float],
    decay: float,
) -> None:
    """Take one step of discriminator and generator for each shuffled minibatch.

    ``rate`` is a function of the number of steps so far.
    """
    networks, device = training.networks, training.average.device
    adam_d, adam_g = training.adams
    random = generator(training.seed, Purpose.PASS, training.n_steps)
    totals, layers = np.zeros(2), list(networks.generator.children())
    for batch in epoch_batches(training, rows, chosen, batch_size, random, device):
        z = draw(networks.design, batch.n_rows, random).to(device)
        with torch.no_grad():
            values = forward(layers, z)
            fake = squashed(networks, values[-1])
        loss_d = discriminator_gradient(networks, batch.x, batch.share, fake)
        adam_d.step(rate(training.n_steps))
        normalize(networks)
        loss_g = generator_gradient(networks, values, fake)
        adam_g.step(rate(training.n_steps))
        training.n_steps += 1
        # at the beginning, a smaller decay removes the initial weights from the average
        keep = min(decay, (1 + training.n_steps) / (10 + training.n_steps))
        with torch.no_grad():
            training.average.lerp_(networks.flat.values, 1 - keep)
        totals += batch.n_rows * np.array([loss_d, loss_g])
    mean = totals / len(chosen)
    if not np.isfinite(mean).all() or not training.is_finite():
        raise FloatingPointError(f"the losses became {mean[0]} and {mean[1]}")
    training.losses.append((float(mean[0]), float(mean[1])))


def rows_to_compare(rows: LocalRows, scaling: Scaling, seed: int) -> Tensor:
    """Draw at most 1000 rows, in proportion to their weights."""
    weight, rng = np.asarray(rows.weight), np.random.default_rng([seed, Purpose.SUBSET])
    chosen = np.flatnonzero(weight)
    if (weight[chosen] != weight[chosen[0]]).any():
        chosen = rng.choice(len(rows), min(N_COMPARED, len(chosen)), p=weight / weight.sum())
    elif len(chosen) > N_COMPARED:
        chosen = rng.choice(chosen, N_COMPARED, replace=False)
    return scaling.apply(np.asarray(rows[np.sort(chosen)]), np.float32, "cpu")[0]


@torch.no_grad()
def coverage(training: Training) -> float:
    """Return the share of rows that have a generated row nearby.

    Nearby means no farther than the fifth nearest other row.
    """
    networks = training.networks
    keep = networks.flat.values.detach().clone()
    networks.flat.values.copy_(training.average)
    random = generator(training.seed, Purpose.NOISE)
    z = draw(networks.design, len(training.compared), random).to(training.average.device)
    fake = generated(networks, z).cpu().numpy().astype(float)
    networks.flat.values.copy_(keep)
    all_rows = training.compared.numpy().astype(float)
    rows, counts = np.unique(all_rows, axis=0, return_counts=True)
    if len(rows) < 2:
        return float("nan")
    nearest = min(N_NEAREST, len(rows) - 1)  # 0 is the row itself
    own = np.partition(euclidean_distances(rows, rows), nearest, axis=1)[:, nearest]
    hits = euclidean_distances(rows, fake).min(1) <= own
    return float(counts @ hits / counts.sum())


def fitted(
    design: Design, seed: int, device: torch.device, weights: list[Array], dtype: Any
) -> Networks:
    """Return trained networks in this dtype, with the averaged generator."""
    networks = build(design, seed, device)
    average, last, *others = weights
    fill(state_of(networks), [last, *others])
    fill([networks.flat.values], [average])
    kind = torch.float64 if np.dtype(dtype) == np.float64 else torch.float32
    networks.generator.to(kind)
    networks.discriminator.to(kind)
    return networks


@torch.no_grad()
def features_and_logits(networks: Networks, scaling: Scaling, rows: Array) -> list[Array]:
    """Return the features and the logits of the discriminator."""
    x, _ = scaling.apply(rows, rows.dtype, networks.flat.values.device)
    return [values.cpu().numpy() for values in discriminated(networks, x)]


@torch.no_grad()
def rows_of(networks: Networks, scaling: Scaling, z: Array) -> Array:
    """Return the rows that the generator makes from noise, in the user's units."""
    noise = torch.from_numpy(np.array(z)).to(networks.flat.values.device)
    return scaling.invert(generated(networks, noise).cpu().numpy())
