"""Torch for estimators: random numbers of one's own, flat parameters, portable state.

No global state of torch is read or changed, but in ``call_factory``, for modules of users.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_LOCK = Lock()


def choose_device(device: str) -> torch.device:
    """A device that is there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={device!r} cannot be used here: {error}") from error


def generator(*seeds: int) -> torch.Generator:
    """Random numbers of the processor, the same on every device."""
    words = np.random.SeedSequence(seeds).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def call_factory(factory: Callable[..., nn.Module], seed: int, *args: int) -> nn.Module:
    """A module of the user's, whose random values come from the seed."""
    with _LOCK, torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory(*args)


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


class Adam:
    """Adam on one vector, in one call, with a state of NumPy arrays.

    ``compiled`` does the same as torch in half of the time, on the processor:
    ``compiled(values, gradient, mean, square, rate, n)`` on arrays.
    """

    def __init__(
        self,
        flat: Flat,
        state: dict[str, Any] | None = None,
        compiled: Callable[..., None] | None = None,
    ) -> None:
        self._flat, self._compiled = flat, compiled
        fused = flat.values.device.type in ("cpu", "cuda")
        self._adam = torch.optim.Adam([flat.values], fused=fused)
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


def batches(n_rows: int, size: int, random: torch.Generator) -> Iterator[NDArray[np.intp]]:
    """Indices of shuffled minibatches; a last one of a single row joins the one before."""
    order = torch.randperm(n_rows, generator=random).numpy()
    starts = list(range(0, n_rows, size))
    if len(starts) > 1 and n_rows - starts[-1] == 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], n_rows], strict=True):
        yield np.sort(order[start:end])
