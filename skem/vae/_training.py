"""Training of the autoencoder, and its application to rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import stdtrit
from sklearn.utils import gen_batches
from torch import Tensor

from skem._base.draws import row_shifts
from skem._network.scaling import Scaling
from skem._network.training import (
    Adam,
    Purpose,
    Trained,
    epoch_batches,
    generator,
    seeded,
)
from skem._rows.parts import LocalRows
from skem._typing import AnyArray, Array, Indices
from skem.vae._columns import log_odds
from skem.vae._draws import sobol_points
from skem.vae._factors import Factors, Kind, choose_kind, fit_factors, linear_encoder
from skem.vae._model import (
    FEATURE_LIMIT,
    Base,
    Design,
    Network,
    bound,
    build,
    encode,
    expected,
    gradient,
    in_half,
    move_noise,
    noise_variance,
    stand_on,
)
from skem.vae._posterior import N_POINTS, N_POOL, Pool, complete, pool_of

# Draws of the code for a row in training, if values are missing. More make the model better
# and the encoder worse.
N_WEIGHTED = 5
N_VALIDATION = 16  # draws for the score of a validation row
BLOCK = 1000  # rows at a time: all at once would take too much memory
N_DRAWS = 64  # quasi-random draws of the code for the ELBO
# A factor analysis uses at most this number of values, and of products of factors if some are
# missing.
FACTOR_SIZE, FACTOR_PRODUCTS = 1e7, 1e7
# Steps over which noise variances are averaged, and weights if the best are kept.
WINDOW, WINDOW_START = 100, 10  # the window grows from the latter


@dataclass
class Model(Trained):
    """A network with the scaling of its rows."""

    design: Design
    network: Network
    pool: Pool | None = None  # draws of the prior, once rows with missing values came

    def tensors(self) -> list[Tensor]:
        """Return all parameters, and the buffers of user-defined modules."""
        network = self.network
        buffers = *network.encoder.buffers(), *network.decoder.buffers()
        return [network.flat.values, *buffers, *(network.base or ())]

    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.network.flat.values).all())

    @property
    def device(self) -> torch.device:
        return self.network.flat.values.device


@dataclass(kw_only=True)
class Training(Model):
    """A model, its optimizer, and the history of the current fit."""

    adam: Adam
    n_steps: int = 0
    kind: Kind | None = None  # of factor analysis, once it is chosen
    # scores of the validation rows: with the first weights, and with the best ones
    first_scores: Array | None = None
    best_scores: Array | None = None
    best_mean: float = -np.inf
    average: Tensor | None = None  # running average of the parameters, if the best are kept
    losses: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)

    @property
    def n_passes(self) -> int:
        return len(self.losses)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged parameters inside the block."""
        values = self.network.flat.values.detach()
        own = values.clone()
        if self.average is not None:
            values.copy_(self.average)
        try:
            yield
        finally:
            values.copy_(own)

    def note_scores(self, scores: Array, weight: Array) -> float:
        """Record scores of the validation rows; return their weighted mean."""
        mean = float(np.average(scores, weights=weight))
        if self.first_scores is None:
            self.first_scores = scores
        if self.best_scores is None or mean > self.best_mean:
            self.best_scores, self.best_mean = scores, mean
        return mean

    def has_risen(self) -> bool:
        """Return whether the best scores exceed the first ones by more than chance.

        A t test of the gains decides, at the level of 5%. It is true if nothing is known.
        """
        if self.first_scores is None or self.best_scores is None:
            return True
        gain = self.best_scores - self.first_scores
        if len(gain) < 2:
            return False
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        return bool(gain.mean() > stdtrit(len(gain) - 1, 0.95) * error)

    def snapshot(self) -> list[AnyArray]:
        """Return copies of all tensors, with the averaged parameters."""
        with self.averaged():
            return self.weights()

    def restore(self, weights: list[AnyArray]) -> None:
        super().restore(weights)
        if self.average is not None:
            self.average.copy_(self.network.flat.values.detach())


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
    own = Adam(network.flat, adam, step)
    return Training(scaling, seed, design=design, network=network, adam=own)


def begin_with_factors(training: Training, rows: LocalRows, chosen: Indices) -> None:
    """Make the networks the factor analysis of the chosen rows, or of some of them.

    Cross-validation chooses its kind at the first call. It is of the Gaussian columns. The
    other columns start independent of the codes.
    """
    d, columns = training.design.n_components, training.network.columns
    factors = Factors(np.zeros(0), np.zeros((0, d)), np.zeros(0))
    if columns.n_gaussian:
        factors = _factors_of(training, rows, chosen)
    to_code, code_mean, code_log_variance = linear_encoder(factors)
    rest = np.zeros((training.design.n_features - columns.n_gaussian, d))
    values = (
        np.hstack([to_code, rest.T]),
        code_mean,
        code_log_variance,
        np.vstack([factors.loadings, rest]),
        np.r_[factors.mean, log_odds(training.scaling, columns)],
        np.r_[np.sqrt(factors.noise), np.ones(len(rest))],
    )
    device = training.device
    tensors = (torch.from_numpy(v.astype(np.float32)).to(device) for v in values)
    stand_on(training.network, Base(*tensors))


def _factors_of(training: Training, rows: LocalRows, chosen: Indices) -> Factors:
    """Return the factor analysis of the Gaussian columns."""
    d, floor, seed = training.design.n_components, float(np.exp(-FEATURE_LIMIT)), training.seed
    x, weight = _some_rows(training, rows, chosen)
    # a feature may be constant in the chosen rows, and not in others
    positive = np.flatnonzero(rows.weight)
    every, mass = x, weight
    if len(chosen) < len(positive):
        every, mass = _some_rows(training, rows, positive)
    mass = mass[:, None] * ~np.isnan(every)
    variance = np.nansum(mass * every**2, 0) / np.maximum(mass.sum(0), np.finfo(float).tiny)
    if training.kind is None:
        training.kind = choose_kind(x, weight, variance, d, floor, seed)
    return fit_factors(x, weight, variance, d, floor, seed, training.kind)


def _some_rows(training: Training, rows: LocalRows, chosen: Indices) -> tuple[Array, Array]:
    """Return standardized Gaussian columns and weights of the rows a factor analysis needs."""
    d, D = training.design.n_components, training.network.columns.n_gaussian
    random = np.random.default_rng([training.seed, Purpose.SUBSET])
    order = random.permutation(chosen)
    some = np.sort(order[: int(FACTOR_SIZE / D)])
    values = np.asarray(rows[some], dtype=float)
    if np.isnan(values).any():
        some = np.sort(order[: max(2 * d, int(FACTOR_PRODUCTS / (D * d + d**3)))])
        values = np.asarray(rows[some], dtype=float)
    return training.scaling.scaled(values)[:, :D], np.asarray(rows.weight)[some]


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
        shape: tuple[int, ...] = batch.n_rows, training.design.n_components
        if batch.seen is not None:
            shape = N_WEIGHTED, *shape
        noise = torch.randn(shape, generator=random, dtype=torch.float32).to(device)
        with nullcontext() if network.manual_gradient else training_mode(network, random):
            terms = gradient(network, batch.x, batch.seen, batch.share, noise, beta)
        training.adam.step(rate(training.n_steps))
        training.n_steps += 1
        share = max(1 / WINDOW, 1 / (training.n_steps + WINDOW_START))
        if terms.excess is not None:
            move_noise(network, terms.excess, share)
        if training.average is not None:
            training.average.lerp_(network.flat.values.detach(), share)
        loss += batch.n_rows * (terms.distortion + terms.rate)
        kl += batch.n_rows * terms.rate
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
    x, _ = model.scaling.apply(rows, model.network.numpy_dtype, model.device)
    return encode(model.network, x)[0].cpu().numpy()


@torch.no_grad()
def decoded(model: Model, z: Array) -> Array:
    """Return the expected rows given codes, in the user's units."""
    z_tensor = torch.from_numpy(np.array(z)).to(model.device)
    return model.scaling.invert(expected(model.network, z_tensor).cpu().numpy())


@torch.no_grad()
def drawn(model: Model, z: Array, rng: np.random.RandomState) -> Array:
    """Draw a row given each code, in the user's units."""
    network, columns = model.network, model.network.columns
    n, G, B = len(z), columns.n_gaussian, columns.n_bernoulli
    blocks = torch.from_numpy(z).to(model.device).split(BLOCK)
    rows = torch.cat([expected(network, block) for block in blocks]).cpu().numpy()
    noise = noise_variance(network).sqrt().cpu().numpy()
    rows[:, :G] += noise * rng.standard_normal((n, G))
    end = G + B
    rows[:, G:end] = rng.random_sample((n, B)) < rows[:, G:end]
    for size in columns.n_categories:  # the category where the distribution function passes u
        edges = rows[:, end : end + size].cumsum(1)
        found = (rng.random_sample((n, 1)) * edges[:, -1:] >= edges).sum(1)
        rows[:, end : end + size] = np.arange(size) == found[:, None]
        end += size
    return model.scaling.invert(rows)


class Filled(NamedTuple):
    """Expectations given the observed values of rows."""

    rows: Array  # with their missing values filled, in the user's units
    codes: Array
    log_evidence: Array  # estimates of log p of the observed values, in the user's units


def completed(model: Model, rows: Array) -> Filled:
    """Return expectations given the observed values of rows that have missing values."""
    dtype, d = model.network.numpy_dtype, model.design.n_components
    x, seen = model.scaling.apply(rows, dtype, model.device)
    assert seen is not None

    def on_device(values: Array) -> Tensor:
        return torch.from_numpy(values.astype(dtype)).to(model.device)

    if model.pool is None:
        model.pool = pool_of(model.network, on_device(sobol_points(N_POOL, d, model.seed)))
    points = on_device(sobol_points(N_POINTS, d + 1, model.seed + 1))
    shifts = on_device(row_shifts(model.scaling.scaled(rows), d + 1, model.seed))
    found = complete(model.network, model.pool, x, seen, points, shifts)
    filled, codes, evidence = (values.cpu().numpy() for values in found[:3])
    filled = np.where(np.isnan(rows), model.scaling.invert(filled), rows)
    return Filled(filled, codes, _in_units(model, rows, evidence))


def _in_units(model: Model, rows: Array, scores: Array) -> Array:
    """Return log-densities in the user's units, with penalties for values out of range."""
    scaling = model.scaling
    return scores - scaling.log_volumes(rows) - scaling.penalties(rows)


def bounds(model: Model, rows: Array, n_samples: int, n_draws: int = N_DRAWS) -> Array:
    """Return a lower bound of log p of the observed values of each row, in the user's units.

    The encoder sees missing values as means. The bound has ``n_samples`` importance samples,
    and is averaged over at least ``n_draws`` draws.
    """
    dtype, d = model.network.numpy_dtype, model.design.n_components
    x, seen = model.scaling.apply(rows, dtype, model.device)
    n_sets = max(1, -(-n_draws // (n_samples * (2 if n_samples == 1 else 1))))
    points = sobol_points(n_sets * n_samples, d, model.seed).reshape(n_sets, n_samples, d)
    shifts = row_shifts(model.scaling.scaled(rows), d, model.seed)
    arrays = (torch.from_numpy(v.astype(dtype)).to(model.device) for v in (points, shifts))
    found = bound(model.network, x, seen, *arrays).cpu().numpy()
    return _in_units(model, rows, found)


def validation_scores(training: Training, rows: LocalRows, chosen: Indices) -> Array:
    """Return the bound of training for validation rows, with the averaged parameters."""
    found = []
    with training.averaged():
        for part in gen_batches(len(chosen), BLOCK):
            block = np.asarray(rows[chosen[part]])
            n_samples = N_WEIGHTED if np.isnan(block).any() else 1
            found.append(bounds(training, block, n_samples, N_VALIDATION))
    return np.concatenate(found)
