"""Torch for estimators: random numbers of one's own, flat parameters, portable state.

No global state of torch is read or changed, but in ``seeded``, for modules of users.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skem._rows.files import by_windows

_LOCK = Lock()


def choose_device(device: str) -> torch.device:
    """A device that is there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        probe = torch.zeros(1, device=device)
        probe.cpu()  # fails where there are no values
        return probe.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={device!r} cannot be used here: {error}") from error


def generator(*seeds: int) -> torch.Generator:
    """Random numbers of the processor, the same on every device."""
    words = np.random.SeedSequence(seeds).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """For modules of users: torch's own random numbers come from the seed in here."""
    with _LOCK, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def module_of(
    name: str, factory: Callable[..., nn.Module], seed: int, n_in: int, n_out: int
) -> nn.Module:
    """A module of the user's, tried on two rows."""
    with seeded(seed), torch.no_grad():
        module = factory(n_in, n_out)
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"{name} must return a torch.nn.Module, but it returned {type(module)}."
            )
        module.float().eval()
        shape = tuple(module(torch.zeros(2, n_in, dtype=torch.float32)).shape)
    if shape != (2, n_out):
        raise ValueError(
            f"{name}({n_in}, {n_out}) must return a module from rows of {n_in} values to rows "
            f"of {n_out}, but two rows came out with shape {shape}."
        )
    return module


@dataclass
class Flat:
    """All parameters in one vector, of which the modules hold views, and their gradients."""

    values: nn.Parameter
    gradient: Tensor


def flatten(parameters: list[nn.Parameter], device: torch.device) -> Flat:
    """Move parameters into one vector."""
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


def arrays_of(tensors: list[Tensor]) -> list[NDArray]:
    """Copies as NumPy arrays."""
    return [t.detach().cpu().numpy().copy() for t in tensors]


def fill(tensors: list[Tensor], arrays: list[NDArray]) -> None:
    """The values of arrays, put into tensors."""
    with torch.no_grad():
        for tensor, array in zip(tensors, arrays, strict=True):
            tensor.copy_(torch.from_numpy(array))


class Adam:
    """Adam on one vector, in one call, with a state of NumPy arrays.

    ``compiled`` does the same as torch in half of the time, on the processor:
    ``compiled(values, gradient, mean, square, rate, n, beta_1, beta_2)`` on arrays.
    """

    def __init__(
        self,
        flat: Flat,
        state: dict[str, Any] | None = None,
        compiled: Callable[..., None] | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self._flat, self._compiled, self._betas = flat, compiled, betas
        fused = flat.values.device.type in ("cpu", "cuda")
        self._adam = torch.optim.Adam([flat.values], betas=betas, fused=fused)
        if state is None:
            zeros = np.zeros(len(flat.values), np.float32)
            state = {"step": np.float32(0), "exp_avg": zeros, "exp_avg_sq": zeros}
        self._state = {
            name: torch.tensor(np.array(value)).to(flat.values.device)
            for name, value in state.items()
        }
        self._adam.state[flat.values] = self._state

    def step(self, rate: float) -> None:
        if self._compiled is None:
            self._adam.param_groups[0]["lr"] = rate
            self._adam.step()
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

    def state(self) -> dict[str, NDArray]:
        return {name: value.cpu().numpy().copy() for name, value in self._state.items()}


def one_cycle(peak: float, n_steps: int) -> Callable[[int], float]:
    """A rate that rises for a tenth of the steps, and then falls to 0 as a cosine."""
    rise = max(1, n_steps // 10)

    def rate(i: int) -> float:
        if i < rise:
            return peak * (i + 1) / rise
        share = min(1.0, (i - rise) / max(1, n_steps - rise))
        return peak * 0.5 * (1 + math.cos(math.pi * share))

    return rate


def batches(
    rows: Any, chosen: NDArray[np.intp], size: int, random: torch.Generator
) -> Iterator[NDArray[np.intp]]:
    """Shuffled minibatches of indices; a last one of a single row joins the one before."""
    order = by_windows(chosen[torch.randperm(len(chosen), generator=random).numpy()], rows)
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield np.sort(order[start:end])
