"""Training of the autoencoder, and its application to rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skem._network.scaling import Scaling
from skem._network.training import (
    Adam,
    Purpose,
    Trained,
    epoch_batches,
    generator,
    seeded,
)
from skem._rows.parts import LocalRows, working_dtype
from skem._typing import Array, Indices
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


@dataclass
class Model(Trained):
    """A network with the scaling of its rows."""

    design: Design
    network: Network

    def tensors(self) -> list[Tensor]:
        """Return all parameters, and the buffers of user-defined modules."""
        network = self.network
        buffers = *network.encoder.buffers(), *network.decoder.buffers()
        return [network.flat.values, *buffers]

    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.network.flat.values).all())

    @property
    def device(self) -> torch.device:
        return self.network.flat.values.device


@dataclass
class Training(Model):
    """A model, its optimizer, and the history of the current fit."""

    adam: Adam
    n_steps: int = 0
    losses: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)

    @property
    def n_passes(self) -> int:
        return len(self.losses)


def start(
    design: Design,
    scaling: Scaling,
    seed: int,
    device: torch.device,
    *,
    half: bool,
    fast: bool,
    adam: dict[str, Any] | None,
) -> Training:
    """Return a network with random weights, and its optimizer.

    If ``half``, matrix products are in bfloat16. If ``fast``, two loops are compiled.
    """
    network, step = build(design, seed, device), None
    if fast:
        from skem._network import kernel  # numba takes time to import

        network.compiled, step = kernel.bernoulli, kernel.adam
    if half:
        network.half = in_half(network)
    return Training(scaling, seed, design, network, Adam(network.flat, adam, step))


def epoch(
    training: Training,
    rows: LocalRows,
    chosen: Indices,
    batch_size: int,
    rate: Callable[[int], float],
    beta: float,
) -> None:
    """Take a step for each minibatch of the chosen rows, shuffled."""
    network, device = training.network, training.device
    random = generator(training.seed, Purpose.PASS, training.n_steps)
    loss = kl = total = 0.0
    for batch in epoch_batches(training, rows, chosen, batch_size, random, device):
        shape = batch.n_rows, training.design.n_components
        noise = torch.randn(shape, generator=random, dtype=torch.float32).to(device)
        with nullcontext() if network.manual_gradient else training_mode(network, random):
            terms = gradient(network, batch.x, batch.seen, batch.share, noise, beta)
        training.adam.step(rate(training.n_steps))
        training.n_steps += 1
        loss += batch.n_rows * sum(terms)
        kl += batch.n_rows * terms[1]
        total += batch.total_share * batch.n_rows
    mean = loss / total + training.scaling.log_volume
    if not np.isfinite(mean) or not training.is_finite():
        raise FloatingPointError(f"the loss became {mean}")
    training.losses.append(mean)
    training.divergences.append(kl / total)


@contextmanager
def training_mode(network: Network, random: torch.Generator) -> Iterator[None]:
    """Set user-defined modules to training mode, for dropout and batch normalization."""
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
    """Return the posterior means of complete rows."""
    x, _ = model.scaling.apply(rows, working_dtype(rows), model.device)
    return encode(model.network, x)[0].cpu().numpy()


@torch.no_grad()
def decoded(model: Model, z: Array) -> Array:
    """Return the expected rows given codes, in the user's units."""
    z_tensor = torch.from_numpy(np.array(z)).to(model.device)
    return model.scaling.invert(expected(model.network, z_tensor).cpu().numpy())


@torch.no_grad()
def completed(model: Model, rows: Array, noise: Array, n_average: int) -> Array:
    """Return rows whose missing values are filled by chains of codes.

    A chain starts at a draw from the prior. It alternates between two steps: fill the row
    given the code, and draw a code given the filled row. The filled rows of the last
    ``n_average`` steps are averaged. Chains whose codes explain the observed values better
    get more weight: the softmax of the mean log importance weight of these steps. All rows
    use the same noise (n_steps + 1, n_chains, d).
    """
    network, (n_steps, n_chains, _) = model.network, noise.shape
    dtype = working_dtype(rows)
    x, seen = model.scaling.apply(rows, dtype, model.device)
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
    """Return a lower bound of log p of each row's observed values, in the user's units."""
    device = model.device
    x, _ = model.scaling.apply(filled, dtype, device)
    missing = np.isnan(rows)
    seen = torch.from_numpy((~missing).astype(dtype)).to(device) if missing.any() else None
    draws = torch.from_numpy(noise.astype(dtype)).to(device)
    found = bound(model.network, x, seen, draws).cpu().numpy()
    return found - model.scaling.log_volumes(rows).astype(dtype)
