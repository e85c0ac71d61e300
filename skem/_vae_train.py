"""Rows as the autoencoder takes them, and its training."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skem._data import Moments
from skem._torch import Adam, batches, generator
from skem._vae_model import Design, Network, bound, build, encode, expected, gradient, in_half

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Scaling:
    """How rows become what the networks see: (x - offset) / scale, with holes filled."""

    gaussian: bool
    offset: Array
    scale: Array
    fill: Array  # in the units of the networks

    def apply(self, rows: Array, device: Any) -> tuple[Tensor, Tensor | None]:
        """The rows, which are overwritten, and where they were seen, if anything was not."""
        seen = None
        if self.gaussian:
            rows -= self.offset.astype(rows.dtype)
            rows /= self.scale.astype(rows.dtype)
        missing = np.isnan(rows)
        if missing.any():
            np.copyto(rows, self.fill.astype(rows.dtype), where=missing)
            seen = torch.from_numpy((~missing).astype(rows.dtype)).to(device)
        x = torch.from_numpy(rows)
        if not self.gaussian:
            x.clamp_(0, 1)
        return x.to(device), seen

    def invert(self, rows: Array) -> Array:
        """Back to the units of the user."""
        if not self.gaussian:
            return rows
        return rows * self.scale.astype(rows.dtype) + self.offset.astype(rows.dtype)

    @property
    def log_volume(self) -> float:
        """What makes the density of scaled rows that of rows in the user's units."""
        return float(np.log(self.scale).sum()) if self.gaussian else 0.0

    def log_volumes(self, rows: Array) -> Array:
        """The same for each row, of what is seen of it."""
        if not self.gaussian:
            return np.zeros(len(rows))
        return ~np.isnan(rows) @ np.log(self.scale)


def scaling_of(seen: Moments, gaussian: bool) -> Scaling:
    """Standardisation of Gaussian features; Bernoulli ones stay as they are."""
    if (seen.weight == 0).any():
        raise ValueError(
            f"X has {int((seen.weight == 0).sum())} features without any observed value, the "
            f"first at index {int(np.argmin(seen.weight))}: drop or fill them."
        )
    mean = seen.mean
    if not gaussian:
        return Scaling(False, 0 * mean, np.ones_like(mean), mean)
    variance = seen.square / seen.weight
    tiny = variance <= 1e-12 * (mean**2 + variance)
    return Scaling(True, mean, np.sqrt(np.where(tiny, 1, variance)), 0 * mean)


@dataclass
class Model:
    """A network, and what it sees of rows."""

    design: Design
    network: Network
    scaling: Scaling
    seed: int

    def weights(self) -> Array:
        return self.network.flat.values.detach().cpu().numpy().copy()

    def restore(self, weights: Array) -> None:
        with torch.no_grad():
            self.network.flat.values.copy_(torch.from_numpy(weights))


@dataclass
class Training(Model):
    """A model, its optimiser, and what happened so far."""

    adam: Adam
    n_steps: int = 0
    losses: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)


def start(
    design: Design,
    scaling: Scaling,
    seed: int,
    device: torch.device,
    *,
    half: bool,
    fast: bool,
    adam: dict[str, Any] | None = None,
) -> Training:
    """Random weights; with ``half``, products in bfloat16, with ``fast``, loops in numba."""
    network, step = build(design, seed, device), None
    if fast:
        from skem import _vae_kernel

        network.compiled, step = _vae_kernel.bernoulli, _vae_kernel.adam
    if half:
        network.half = in_half(network)
    return Training(design, network, scaling, seed, Adam(network.flat, adam, step))


def epoch(
    training: Training,
    rows: Array,
    weight: Array,
    batch_size: int,
    rate: Callable[[int], float],
    beta: float,
) -> None:
    """One pass over the shuffled rows."""
    network, scaling = training.network, training.scaling
    device = network.flat.values.device
    random = generator(training.seed, 2, training.n_steps)
    n_codes, mean_weight = training.design.n_components, weight.mean()
    loss = kl = total = 0.0
    for chosen in batches(len(rows), batch_size, random):
        x, seen = scaling.apply(np.asarray(rows[chosen], np.float32), device)
        own = weight[chosen]
        noise = torch.randn((len(chosen), n_codes), generator=random).to(device)
        if not own.any():
            continue
        # light batches take short steps, for any size of a batch
        relative = own / (mean_weight * len(own))
        share = torch.from_numpy(relative.astype(np.float32)).to(device)
        distortion, divergence = gradient(network, x, seen, share, noise, beta)
        training.adam.step(rate(training.n_steps))
        training.n_steps += 1
        loss += len(own) * (distortion + divergence)
        kl += len(own) * divergence
        total += float(relative.sum()) * len(own)
    mean = loss / total + scaling.log_volume
    if not np.isfinite(mean) or not bool(torch.isfinite(network.flat.values).all()):
        raise FloatingPointError(f"the loss became {mean} in pass {len(training.losses) + 1}")
    training.losses.append(mean)
    training.divergences.append(kl / total)


@torch.no_grad()
def codes(model: Model, rows: Array) -> Array:
    """Posterior means of complete rows."""
    x, _ = model.scaling.apply(rows.copy(), model.network.flat.values.device)
    return encode(model.network, x)[0].cpu().numpy()


@torch.no_grad()
def decoded(model: Model, z: Array) -> Array:
    """Expected rows of codes, in the units of the rows."""
    z_tensor = torch.from_numpy(np.array(z)).to(model.network.flat.values.device)
    return model.scaling.invert(expected(model.network, z_tensor).cpu().numpy())


@torch.no_grad()
def completed(model: Model, rows: Array, draws: Array, n_average: int) -> Array:
    """Rows whose holes are filled by codes and expected rows in turn."""
    network = model.network
    x, seen = model.scaling.apply(rows.copy(), network.flat.values.device)
    assert seen is not None
    known, total = x, torch.zeros_like(x)
    for i, draw in enumerate(torch.from_numpy(draws.astype(rows.dtype)).to(x.device)):
        mean, log_variance = encode(network, x)
        output = expected(network, mean + (0.5 * log_variance).exp() * draw)
        x = torch.where(seen > 0, known, output)
        if i >= len(draws) - n_average:
            total += output
    filled = model.scaling.invert((total / n_average).cpu().numpy())
    return np.where(np.isnan(rows), filled, rows)


def bounds(
    model: Model, rows: Array, filled: Array, draws: Array, n_importance: int, dtype: Any
) -> Array:
    """A lower bound of log p of what is seen of each row, in the units of the rows."""
    device = model.network.flat.values.device
    x, _ = model.scaling.apply(np.array(filled, dtype), device)
    missing = np.isnan(rows)
    seen = torch.from_numpy((~missing).astype(dtype)).to(device) if missing.any() else None
    noise = torch.from_numpy(draws.astype(dtype)).to(device)
    found = bound(model.network, x, seen, noise, n_importance).cpu().numpy()
    return found - model.scaling.log_volumes(rows).astype(dtype)
