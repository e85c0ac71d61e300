"""Training of the generative adversarial network, and how well its rows cover the data."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances
from torch import Tensor

from skem._network.layers import forward
from skem._network.scaling import Scaling
from skem._network.training import Adam, arrays_of, batches, fill, generator
from skem.gan._model import (
    Networks,
    discriminator_gradient,
    draw,
    generated,
    generator_gradient,
    normalise,
    squashed,
    state_of,
)

Array = NDArray[np.floating]

N_COMPARED, N_NEAREST = 1000, 5  # rows of which coverage is measured, and neighbours


@dataclass
class Training:
    """Networks, their optimisers, and what happened so far."""

    networks: Networks
    average: Tensor  # of the generator's parameters
    scaling: Scaling
    seed: int
    adams: tuple[Adam, Adam]  # of the discriminator, and of the generator
    compared: Tensor  # rows of which coverage is measured
    n_steps: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)

    @property
    def n_passes(self) -> int:
        return len(self.losses)

    def _tensors(self) -> list[Tensor]:
        return [self.average, *state_of(self.networks)]

    def weights(self) -> list[NDArray]:
        """The averaged generator, both networks, and singular vectors."""
        return arrays_of(self._tensors())

    def restore(self, weights: list[NDArray]) -> None:
        fill(self._tensors(), weights)

    def is_finite(self) -> bool:
        return all(bool(torch.isfinite(t).all()) for t in self._tensors())


def epoch(
    training: Training,
    rows: Array,
    weight: Array,
    chosen: NDArray[np.intp],
    batch_size: int,
    rate: float,
    decay: float,
) -> None:
    """One pass over the chosen rows: steps of the discriminator and the generator in turn."""
    networks, device = training.networks, training.average.device
    adam_d, adam_g = training.adams
    random = generator(training.seed, 2, training.n_steps)
    mean_weight, totals = weight[chosen].mean(), np.zeros(2)
    layers = list(networks.generator.children())
    for part in batches(rows, chosen, batch_size, random):
        own = weight[part]
        z = draw(networks.design, len(part), random).to(device)
        x, _ = training.scaling.apply(np.asarray(rows[part]), np.float32, device)
        relative = own / (mean_weight * len(own))
        share = torch.from_numpy(relative.astype(np.float32)).to(device)
        with torch.no_grad():
            values = forward(layers, z)
            fake = squashed(networks, values[-1])
        loss_d = discriminator_gradient(networks, x, share, fake)
        adam_d.step(rate)
        normalise(networks)
        loss_g = generator_gradient(networks, values, fake)
        adam_g.step(rate)
        training.n_steps += 1
        # the average forgets the beginning sooner
        keep = min(decay, (1 + training.n_steps) / (10 + training.n_steps))
        with torch.no_grad():
            training.average.lerp_(networks.flat.values, 1 - keep)
        totals += len(own) * np.array([loss_d, loss_g])
    mean = totals / len(chosen)
    if not np.isfinite(mean).all() or not training.is_finite():
        raise FloatingPointError(f"the losses became {mean[0]} and {mean[1]}")
    training.losses.append((float(mean[0]), float(mean[1])))


def rows_to_compare(rows: Array, weight: Array, scaling: Scaling, seed: int) -> Tensor:
    """At most a thousand rows, as often as their weights say."""
    rng, chosen = np.random.default_rng([seed, 3]), np.flatnonzero(weight)
    if (weight[chosen] != weight[chosen[0]]).any():
        chosen = rng.choice(len(rows), min(N_COMPARED, len(chosen)), p=weight / weight.sum())
    elif len(chosen) > N_COMPARED:
        chosen = rng.choice(chosen, N_COMPARED, replace=False)
    return scaling.apply(np.asarray(rows[np.sort(chosen)]), np.float32, "cpu")[0]


@torch.no_grad()
def coverage(training: Training) -> float:
    """The share of rows with a generated one no farther than their fifth nearest other row."""
    networks = training.networks
    keep = networks.flat.values.detach().clone()
    networks.flat.values.copy_(training.average)
    random = generator(training.seed, 4)
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
