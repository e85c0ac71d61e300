"""Tools for torch: separate random generators, flat parameters, portable state.

Only ``seeded`` changes the global random state of torch, for user-defined modules.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from skem._base.minibatch import batches
from skem._network.scaling import Scaling
from skem._rows.parts import LocalRows
from skem._threads import OneThread
from skem._typing import AnyArray, Indices

_LOCK = Lock()

# Longest gradient that Adam accepts, in root mean squares of the gradients before it. In trials
# on twelve data sets ratios were below 50, except for outliers, whose ratios were above 5000.
MAX_RATIO = 100.0
MAX_LENGTH = 1e18  # squares of longer gradients are beyond float32


class _Forks:
    """Whether torch used threads of OpenMP in a process that was then forked.

    These threads do not exist in the child, which would wait for them forever.
    """

    used = lost = False

    @classmethod
    def note(cls) -> None:
        cls.lost |= cls.used

    @classmethod
    def check(cls) -> None:
        several = torch.get_num_threads() > 1
        if cls.lost and several:
            raise RuntimeError(
                "torch used several threads before this process was forked, and would wait for "
                "them forever: call torch.set_num_threads(1) in this process first, or start "
                "processes by 'spawn' or joblib's 'loky' instead of 'fork'."
            )
        cls.used |= several


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Forks.note)


class Purpose(IntEnum):
    """Purpose of a stream of random numbers."""

    WEIGHTS = 1
    PASS = 2
    SUBSET = 3
    NOISE = 4


one_torch_thread = OneThread(lambda: [torch])


def check_forks() -> None:
    """Raise an error if threads of torch were lost by a fork; note that they may be used."""
    _Forks.check()


def choose_device(device: str) -> torch.device:
    """Return the device; raise an error if it cannot be used."""
    _Forks.check()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        probe = torch.zeros(1, device=device)
        probe.cpu()  # fails on devices that store no values
        return probe.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        name = device.lower().replace("gpu", "cuda")
        hint = f"Is {name!r} meant? " if name != device else ""
        raise ValueError(
            f"device={device!r} cannot be used here. {hint}Use device='auto' or 'cpu' "
            f"otherwise. torch says: {error}"
        ) from error


def generator(*seeds: int) -> torch.Generator:
    """Return a CPU random generator, so that the numbers are the same on every device."""
    words = np.random.SeedSequence(seeds).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random numbers inside the block, for user-defined modules."""
    with _LOCK, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def module_of(
    name: str, factory: Callable[..., nn.Module], seed: int, n_in: int, n_out: int
) -> nn.Module:
    """Return the module of a user's factory after a trial on two rows."""
    if isinstance(factory, nn.Module):
        raise ValueError(
            f"{name} must be a function that creates a module, but it is a module, "
            f"{type(factory).__name__}: pass a function {name}(n_in, n_out) that returns a new "
            "module at each call."
        )
    with seeded(seed), torch.no_grad():
        module = factory(n_in, n_out)
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"{name} must return a torch.nn.Module, but it returned {type(module)}: pass "
                "a function that creates a module."
            )
        module.float().eval()
        shape = tuple(module(torch.zeros(2, n_in, dtype=torch.float32)).shape)
    if shape != (2, n_out):
        raise ValueError(
            f"{name}({n_in}, {n_out}) must return a module that maps rows of {n_in} values to "
            f"rows of {n_out} values, but the output for two rows has shape {shape}."
        )
    return module


@dataclass
class Flat:
    """All parameters in one vector, and their gradients; the modules hold views of both."""

    values: nn.Parameter
    gradient: Tensor


def flatten(parameters: list[nn.Parameter], device: torch.device) -> Flat:
    """Move the parameters into one vector; each parameter becomes a view of it."""
    values = torch.cat([p.detach().reshape(-1).to(device) for p in parameters])
    gradient, start = torch.zeros_like(values), 0
    for p in parameters:
        part = slice(start, start + p.numel())
        p.data = values[part].view(p.shape)
        p.grad = gradient[part].view(p.shape)
        start = part.stop
    flat = nn.Parameter(values)
    flat.grad = gradient
    return Flat(flat, gradient)


def arrays_of(tensors: list[Tensor]) -> list[AnyArray]:
    """Return copies as NumPy arrays."""
    return [t.detach().cpu().numpy().copy() for t in tensors]


def fill(tensors: list[Tensor], arrays: list[AnyArray]) -> None:
    """Copy the values of arrays into tensors."""
    with torch.no_grad():
        for tensor, array in zip(tensors, arrays, strict=True):
            tensor.copy_(torch.from_numpy(array))


class Adam:
    """Adam on one vector; its state can be stored as NumPy arrays.

    A gradient far longer than those before it is shortened: it would fill the running mean of
    squared gradients, and training would stand still for thousands of steps.

    ``compiled(values, gradient, mean, square, rate, n, beta_1, beta_2)`` is an optional
    compiled step on arrays. On the CPU it takes half of the time of torch.
    """

    def __init__(
        self,
        flat: Flat,
        state: dict[str, Any] | None = None,
        compiled: Callable[..., None] | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self._flat, self._compiled, self._betas = flat, compiled, betas
        if state is None:
            zeros = np.zeros(len(flat.values), np.float32)
            state = {"step": np.float32(0), "exp_avg": zeros, "exp_avg_sq": zeros}
        self._state = {
            name: torch.tensor(np.array(value)).to(flat.values.device)
            for name, value in state.items()
        }
        self._n_steps = int(self._state["step"].item())
        self._square = float(self._state["exp_avg_sq"].sum())  # grows and decays like its parts

    def step(self, rate: float) -> None:
        self._limit_gradient()
        if self._compiled is None:
            self._step_of_torch(rate)
            return
        self._state["step"] += 1
        self._compiled(
            self._flat.values.detach().numpy(),
            self._flat.gradient.numpy(),
            self._state["exp_avg"].numpy(),
            self._state["exp_avg_sq"].numpy(),
            rate,
            self._state["step"].item(),
            *self._betas,
        )

    @torch.no_grad()
    def _step_of_torch(self, rate: float) -> None:
        # the class torch.optim.Adam would load 800 modules and set an environment variable
        adam(
            [self._flat.values],
            [self._flat.gradient],
            [self._state["exp_avg"]],
            [self._state["exp_avg_sq"]],
            [],
            [self._state["step"]],
            fused=self._flat.values.device.type in ("cpu", "cuda"),
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def _limit_gradient(self) -> None:
        gradient, keep = self._flat.gradient, self._betas[1]
        length = float(torch.linalg.vector_norm(gradient))
        if not length < MAX_LENGTH:  # its square is too large for float32
            length = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        if self._n_steps and self._square > 0:
            usual = math.sqrt(self._square / (1 - keep**self._n_steps))
            if length > MAX_RATIO * usual:
                gradient.mul_(MAX_RATIO * usual / length)
                length = MAX_RATIO * usual
        if not length < MAX_LENGTH:
            raise FloatingPointError(f"the gradient has length {length:.3g}")
        self._n_steps += 1
        self._square = keep * self._square + (1 - keep) * length**2

    def state(self) -> dict[str, AnyArray]:
        return {name: value.cpu().numpy().copy() for name, value in self._state.items()}


def one_cycle(peak: float, n_steps: int) -> Callable[[int], float]:
    """Return a rate that rises for a tenth of the steps, then falls to 0 as a cosine."""
    rise = max(1, n_steps // 10)

    def rate(i: int) -> float:
        if i < rise:
            return peak * (i + 1) / rise
        share = min(1.0, (i - rise) / max(1, n_steps - rise))
        return peak * 0.5 * (1 + math.cos(math.pi * share))

    return rate


@dataclass
class Trained(ABC):
    """Networks with the scaling of their rows."""

    scaling: Scaling
    seed: int

    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """Return all tensors that training changes."""

    def weights(self) -> list[AnyArray]:
        """Return copies of all tensors."""
        return arrays_of(self.tensors())

    snapshot = weights

    def restore(self, weights: list[AnyArray]) -> None:
        """Set all tensors to these weights."""
        fill(self.tensors(), weights)

    def is_finite(self) -> bool:
        """Return whether all tensors are finite."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.tensors())


@dataclass
class Batch:
    """A scaled minibatch."""

    x: Tensor
    seen: Tensor | None  # 0 where a value is missing; None if nothing is
    share: Tensor  # weights relative to the mean weight, divided by the number of rows
    total_share: float
    n_rows: int


def epoch_batches(
    trained: Trained,
    rows: LocalRows,
    chosen: Indices,
    size: int,
    random: torch.Generator,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield shuffled minibatches; a last batch of one row is merged into the one before.

    Batches of small total weight have small shares, and therefore take short steps.
    """
    weight = np.asarray(rows.weight)
    order = chosen[torch.randperm(len(chosen), generator=random).numpy()]
    mean_weight = weight[chosen].mean()
    for index in batches(rows, order, size, min_rows=2):
        x, seen = scaled_batch(trained.scaling, rows.batch(index), device)
        relative = weight[index] / (mean_weight * len(index))
        share = torch.from_numpy(relative.astype(np.float32)).to(device)
        yield Batch(x, seen, share, float(relative.sum()), len(index))


def scaled_batch(
    scaling: Scaling, rows: AnyArray | Tensor, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return scaled rows, and a 0/1 mask of observed values or None; tensors are complete."""
    if isinstance(rows, Tensor):
        return scaling.of_tensor(rows, np.float32, device), None
    return scaling.apply(rows, np.float32, device)
