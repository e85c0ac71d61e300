"""The optimizer of the networks, and rows that it can hardly bear."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from skem import GANEstimator, VAEEstimator  # noqa: E402
from skem._network import training as network  # noqa: E402
from skem._network.training import Adam, flatten  # noqa: E402


def adam_on_numbers(n=5):
    flat = flatten([nn.Parameter(torch.ones(n))], torch.device("cpu"))
    return flat, Adam(flat)


def test_adam_is_that_of_torch():
    """With gradients of ordinary lengths nothing is limited."""
    flat, adam = adam_on_numbers()
    values = nn.Parameter(torch.ones(5))
    reference = torch.optim.Adam([values], lr=0.1)
    random = torch.Generator().manual_seed(0)
    for i in range(300):
        gradient = torch.randn(5, generator=random) * (1 + i % 7)
        flat.gradient.copy_(gradient)
        values.grad = gradient
        adam.step(0.1)
        reference.step()
    torch.testing.assert_close(flat.values.detach(), values.detach())


@pytest.mark.parametrize("size", [1e8, 1e17, 1e25, 3e38])
@pytest.mark.parametrize("pause", [False, True])
def test_one_long_gradient_does_not_stop_adam(size, pause):
    """The gradients before and after it are those of |values|^2 / 2."""
    flat, adam = adam_on_numbers()
    for i in range(1500):
        flat.gradient.copy_(flat.values.detach())
        if i == 20:
            flat.gradient[2] = size
            if pause:
                adam = Adam(flat, adam.state())
        adam.step(0.01)
    square = adam.state()["exp_avg_sq"]
    assert np.isfinite(square).all()
    assert flat.values.detach().abs().max() < 0.1


def test_the_limit_is_relative_to_the_lengths_before():
    flat, adam = adam_on_numbers()
    for _ in range(10):
        flat.gradient.copy_(torch.tensor([3.0, 0, 4, 0, 0]))
        adam.step(0.0)
    flat.gradient.copy_(torch.tensor([0, 1e6, 0, 0, 0]))
    adam.step(0.0)
    torch.testing.assert_close(flat.gradient, torch.tensor([0, 5 * network.MAX_RATIO, 0, 0, 0]))
    flat.gradient.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="length nan"):
        adam.step(0.1)


@pytest.mark.parametrize(
    "model",
    [
        VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=3, random_state=0),
        GANEstimator(3, hidden_layer_sizes=(8,), max_iter=3, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore:mode collapse")
@pytest.mark.parametrize("cell", [1e6, 1e12, -1e12])
def test_a_wild_cell_does_not_freeze_the_networks(model, cell):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(200, 6))
    model.fit(X)
    states = [model._adam] if hasattr(model, "_adam") else model._adams
    before = [np.linalg.norm(np.sqrt(state["exp_avg_sq"])) for state in states]
    batch = X[:64].copy()
    batch[3, 2] = cell
    model.partial_fit(batch)
    states = [model._adam] if hasattr(model, "_adam") else model._adams
    after = [np.linalg.norm(np.sqrt(state["exp_avg_sq"])) for state in states]
    assert all(b < 100 * a for a, b in zip(before, after, strict=True))
    for _ in range(3):
        model.partial_fit(X)
    assert np.isfinite(model.score(X))
