"""Rows as the autoencoder takes them, and its training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skem._network.scaling import Scaling
from skem._network.training import Adam, arrays_of, batches, fill, generator, seeded
from skem._rows.parts import working_dtype
from skem.vae._model import (
    Design,
    Network,
    as_expected,
    bound,
    build,
    decode,
    encode,
    expected,
    gradient,
    in_half,
    log_likelihood,
    log_ratio,
)

Array = NDArray[np.floating]


@dataclass
class Model:
    """A network, and what it sees of rows."""

    design: Design
    network: Network
    scaling: Scaling
    seed: int

    def _tensors(self) -> list[Tensor]:
        network = self.network
        buffers = *network.encoder.buffers(), *network.decoder.buffers()
        return [network.flat.values, *buffers]

    def weights(self) -> list[NDArray]:
        """All parameters, and the buffers of modules of users."""
        return arrays_of(self._tensors())

    def restore(self, weights: list[NDArray]) -> None:
        fill(self._tensors(), weights)

    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.network.flat.values).all())


@dataclass
class Training(Model):
    """A model, its optimiser, and what happened so far."""

    adam: Adam
    n_steps: int = 0
    losses: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # of the rows kept aside
    aside: NDArray[np.intp] | None = None
    best: tuple[float, list[NDArray]] | None = None  # a score, and the weights that had it
    n_worse: int = 0

    @property
    def n_passes(self) -> int:
        return len(self.losses)

    def follow(self, score: float, tol: float) -> None:
        """Note the score of the rows kept aside, and the weights if it is the best."""
        self.scores.append(score)
        self.n_worse += 1
        if self.best is None or score > self.best[0] + tol:
            self.best, self.n_worse = (score, self.weights()), 0


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
        from skem._network import kernel

        network.compiled, step = kernel.bernoulli, kernel.adam
    if half:
        network.half = in_half(network)
    return Training(design, network, scaling, seed, Adam(network.flat, adam, step))


def epoch(
    training: Training,
    rows: Array,
    weight: Array,
    chosen: NDArray[np.intp],
    batch_size: int,
    rate: Callable[[int], float],
    beta: float,
) -> None:
    """One pass over the chosen rows, shuffled."""
    network, scaling = training.network, training.scaling
    device = network.flat.values.device
    random = generator(training.seed, 2, training.n_steps)
    n_codes, mean_weight = training.design.n_components, weight[chosen].mean()
    loss = kl = total = 0.0
    for part in batches(rows, chosen, batch_size, random):
        x, seen = scaling.apply(np.asarray(rows[part]), np.float32, device)
        own = weight[part]
        noise = torch.randn((len(part), n_codes), generator=random, dtype=torch.float32)
        # light batches take short steps, for any size of a batch
        relative = own / (mean_weight * len(own))
        share = torch.from_numpy(relative.astype(np.float32)).to(device)
        with nullcontext() if network.by_hand else training_mode(network, random):
            terms = gradient(network, x, seen, share, noise.to(device), beta)
        training.adam.step(rate(training.n_steps))
        training.n_steps += 1
        loss += len(own) * sum(terms)
        kl += len(own) * terms[1]
        total += float(relative.sum()) * len(own)
    mean = loss / total + scaling.log_volume
    if not np.isfinite(mean) or not training.is_finite():
        raise FloatingPointError(f"the loss became {mean}")
    training.losses.append(mean)
    training.divergences.append(kl / total)


@contextmanager
def training_mode(network: Network, random: torch.Generator) -> Iterator[None]:
    """Modules of users may drop units, and normalise batches, in training only."""
    modules = network.encoder, network.decoder
    try:
        for module in modules:
            module.train()
        with seeded(int(torch.randint(2**31, (), generator=random))):
            yield
    finally:
        for module in modules:
            module.eval()


@torch.no_grad()
def codes(model: Model, rows: Array) -> Array:
    """Posterior means of complete rows."""
    x, _ = model.scaling.apply(rows, working_dtype(rows), model.network.flat.values.device)
    return encode(model.network, x)[0].cpu().numpy()


@torch.no_grad()
def decoded(model: Model, z: Array) -> Array:
    """Expected rows of codes, in the units of the rows."""
    z_tensor = torch.from_numpy(np.array(z)).to(model.network.flat.values.device)
    return model.scaling.invert(expected(model.network, z_tensor).cpu().numpy())


@torch.no_grad()
def completed(model: Model, rows: Array, noise: Array, n_average: int) -> Array:
    """Rows whose holes are filled by what chains of codes expect there.

    A chain starts at a draw from the prior, and draws a code given the row as it is filled, and
    fills the row given the code, in turn. Chains count by how well their codes explain what is
    seen: by the mean log importance weight of the last steps, of which rows are averaged.
    ``noise`` (n_steps + 1, n_chains, d) is that of all rows.
    """
    network, (n_steps, n_chains, _) = model.network, noise.shape
    dtype = working_dtype(rows)
    x, seen = model.scaling.apply(rows, dtype, network.flat.values.device)
    assert seen is not None
    n, known, seen = len(x), x.repeat(n_chains, 1), seen.repeat(n_chains, 1)
    total, log_weight = torch.zeros_like(known), torch.zeros_like(known[:, 0])
    steps = torch.from_numpy(noise.astype(dtype)).to(x.device)
    codes = steps[0].repeat_interleave(n, 0)
    for i in range(1, n_steps):
        x = torch.where(seen > 0, known, expected(network, codes))
        mean, log_variance = encode(network, x)
        draw = steps[i].repeat_interleave(n, 0)
        codes = mean + (0.5 * log_variance).exp() * draw
        if i >= n_steps - n_average:
            output = decode(network, codes)
            total += as_expected(network, output)
            log_weight += log_likelihood(network, known, seen, output)
            log_weight += log_ratio(draw, codes, log_variance)
    share = (log_weight.view(n_chains, n) / n_average).softmax(0)
    filled = ((total / n_average).view(n_chains, n, -1) * share[..., None]).sum(0)
    return np.where(np.isnan(rows), model.scaling.invert(filled.cpu().numpy()), rows)


def bounds(model: Model, rows: Array, filled: Array, noise: Array, dtype: Any) -> Array:
    """A lower bound of log p of what is seen of each row, in the units of the rows."""
    device = model.network.flat.values.device
    x, _ = model.scaling.apply(filled, dtype, device)
    missing = np.isnan(rows)
    seen = torch.from_numpy((~missing).astype(dtype)).to(device) if missing.any() else None
    draws = torch.from_numpy(noise.astype(dtype)).to(device)
    found = bound(model.network, x, seen, draws).cpu().numpy()
    return found - model.scaling.log_volumes(rows).astype(dtype)
