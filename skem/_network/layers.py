"""Dense and convolutional networks, and explicit formulas of their gradients.

The explicit formulas build no graph, and write into the vector of all gradients.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS, WIDTH = (32, 64), 256  # sizes of the layers in convolutional networks
MIN_ONEDNN = 2e6  # with more multiplications, the overhead of a call of oneDNN is negligible
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


@dataclass(frozen=True)
class Design:
    """Architecture of the networks; a subclass adds the fields of one model."""

    n_features: int
    n_components: int
    hidden_layer_sizes: tuple[int, ...]
    activation: str
    architecture: str
    image_shape: tuple[int, ...] | None

    @property
    def channels_first(self) -> tuple[int, int, int]:
        """The shape (channels, height, width) of an image."""
        height, width, *channels = self.image_shape or (1, self.n_features)
        return (channels[0] if channels else 1, height, width)

    def from_rows(self, widths: Sequence[int], n_out: int) -> nn.Sequential:
        """Return a network from rows to ``n_out`` values, with uninitialized weights."""
        if self.architecture == "dense":
            return dense([self.n_features, *widths, n_out], self.activation)
        return convolutions(self.channels_first, n_out, self.activation)

    def to_rows(self, widths: Sequence[int]) -> nn.Sequential:
        """Return a network from codes to rows, with uninitialized weights."""
        if self.architecture == "dense":
            return dense([self.n_components, *widths, self.n_features], self.activation)
        return deconvolutions(self.n_components, self.channels_first, self.activation)


# The float32 matrix product of oneDNN. On processors that are not from Intel it is twice as
# fast as MKL, which torch calls otherwise. torch offers it under a private name only.
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
if not torch.backends.mkldnn.is_available():
    _onednn = None


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a @ b.T + bias without a graph; (n, k) and (m, k) give (n, m)."""
    large = a.shape[0] * a.shape[1] * b.shape[0] >= MIN_ONEDNN
    if large and _onednn is not None and a.dtype == torch.float32 and a.device.type == "cpu":
        found: Tensor = _onednn(a, b, bias, "none", [], "")
        return found
    return a @ b.T if bias is None else torch.addmm(bias, a, b.T)


class Dense(nn.Linear):
    """Linear layer that calls ``product`` if no graph is built."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        return product(x, self.weight, self.bias)


def new(kind: type[nn.Module], *args: Any, **keywords: Any) -> nn.Module:
    """Return a layer with uninitialized values, so that no random numbers are drawn."""
    # nn.utils.skip_init does the same, but loads hundreds of modules
    layer = kind(*args, **keywords, dtype=torch.float32, device="meta")
    for name, values in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, nn.Parameter(torch.empty(values.shape, dtype=torch.float32)))
    return layer


def fill_uniform(module: nn.Sequential, random: torch.Generator) -> nn.Sequential:
    """Draw weights and biases uniformly within +-1 / sqrt(number of inputs), as in torch."""
    with torch.no_grad():
        for layer in module.modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                continue
            weight = layer.weight
            fan_in = math.prod(weight.shape[1:])
            if isinstance(layer, nn.ConvTranspose2d):  # its first axis counts the inputs
                fan_in = weight.shape[0] * math.prod(weight.shape[2:])
            assert layer.bias is not None
            for values in (weight, layer.bias):
                limit = 1 / math.sqrt(fan_in)
                values.uniform_(-limit, limit, generator=random)
    return module


class ToImages(nn.Module):
    """Layer from flat rows (n, height * width * channels) to (n, channels, height, width)."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        c, h, w = self.shape
        return x.reshape(-1, h, w, c).permute(0, 3, 1, 2)


class ToRows(nn.Module):
    """Layer from images (n, channels, height, width) to flat rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(len(x), -1)


class DoubleToGray(nn.ConvTranspose2d):
    """Transposed convolution to one channel, as a matrix product and a sum of patches.

    The kernel size is 4, the stride 2 and the padding 1. It is faster than the general layer.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        more, less = self.output_padding
        size = 2 * x.shape[2] + more, 2 * x.shape[3] + less
        patches = self.weight.flatten(1).T @ x.flatten(2)
        image = functional.fold(patches, size, 4, padding=1, stride=2)
        assert self.bias is not None
        return image + self.bias[:, None, None]


def dense(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Return linear layers with activations between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [new(Dense, a, b), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def convolutions(shape: tuple[int, int, int], n_out: int, activation: str) -> nn.Sequential:
    """Return a network from flat images of shape (channels, height, width)."""
    activate, (a, b) = ACTIVATIONS[activation], CHANNELS
    size = b * (shape[1] // 4) * (shape[2] // 4)
    return nn.Sequential(
        ToImages(shape),
        new(nn.Conv2d, shape[0], a, 4, 2, 1),
        activate(),
        new(nn.Conv2d, a, b, 4, 2, 1),
        activate(),
        ToRows(),
        new(Dense, size, WIDTH),
        activate(),
        new(Dense, WIDTH, n_out),
    )


def deconvolutions(n_in: int, shape: tuple[int, int, int], activation: str) -> nn.Sequential:
    """Return a network to flat images of shape (channels, height, width)."""
    c, h, w = shape
    activate, (a, b) = ACTIVATIONS[activation], CHANNELS
    quarter = b, h // 4, w // 4
    odd = (h // 2 % 2, w // 2 % 2), (h % 2, w % 2)
    last = DoubleToGray if c == 1 else nn.ConvTranspose2d
    return nn.Sequential(
        new(Dense, n_in, WIDTH),
        activate(),
        new(Dense, WIDTH, b * quarter[1] * quarter[2]),
        activate(),
        ToImages(quarter),
        new(nn.ConvTranspose2d, b, a, 4, 2, 1, output_padding=odd[0]),
        activate(),
        new(last, a, c, 4, 2, 1, output_padding=odd[1]),
        ToRows(),
    )


# -- gradients ------------------------------------------------------------------------------


def forward(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    """Return the inputs of all layers, followed by the output of the last layer."""
    values = [x]
    for layer in layers:
        values.append(layer(values[-1]))
    return values


def backward(
    layers: list[Any],
    values: list[Tensor],
    grad: Tensor,
    *,
    to_input: bool,
    to_weights: bool = True,
) -> Tensor:
    """Set the gradients of the layers; return the gradient by the input if ``to_input``."""
    first = next(i for i, layer in enumerate(layers) if hasattr(layer, "weight"))
    for i in range(len(layers) - 1, -1, -1):
        asked = to_input or i > first, to_weights
        grad = BACKWARD[type(layers[i])](layers[i], grad, values[i], values[i + 1], asked)
    return grad


Asked = tuple[bool, bool]  # whether to compute the gradients by the input and by the weights


def _linear(layer: Any, grad: Tensor, x: Tensor, y: Tensor, asked: Asked) -> Tensor:
    if asked[1]:
        layer.weight.grad.copy_(product(grad.T, x.T))
        torch.sum(grad, 0, out=layer.bias.grad)
    return product(grad, layer.weight.T) if asked[0] else grad


def _convolution(layer: Any, grad: Tensor, x: Tensor, y: Tensor, asked: Asked) -> Tensor:
    d_x, d_weight, d_bias = torch.ops.aten.convolution_backward(
        grad, x, layer.weight, [len(layer.bias)], layer.stride, layer.padding, layer.dilation,
        isinstance(layer, nn.ConvTranspose2d), layer.output_padding, 1,
        [asked[0], asked[1], asked[1]],
    )  # fmt: skip
    if asked[1]:
        layer.weight.grad.copy_(d_weight)
        layer.bias.grad.copy_(d_bias)
    return d_x if asked[0] else grad


def _double_to_gray(layer: Any, grad: Tensor, x: Tensor, y: Tensor, asked: Asked) -> Tensor:
    patches = functional.unfold(grad, 4, padding=1, stride=2)
    if asked[1]:
        layer.weight.grad.flatten(1).copy_((x.flatten(2) @ patches.mT).sum(0))
        torch.sum(grad, (0, 2, 3), out=layer.bias.grad)
    return (layer.weight.flatten(1) @ patches).view(x.shape)


# Functions (layer, gradient by the output, input, output, asked) -> gradient by the input.
BACKWARD: dict[type, Callable[[Any, Tensor, Tensor, Tensor, Asked], Tensor]] = {
    Dense: _linear,
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _convolution,
    DoubleToGray: _double_to_gray,
    nn.ReLU: lambda layer, grad, x, y, _: torch.ops.aten.threshold_backward(grad, x, 0),
    nn.GELU: lambda layer, grad, x, y, _: torch.ops.aten.gelu_backward(grad, x),
    nn.Tanh: lambda layer, grad, x, y, _: torch.ops.aten.tanh_backward(grad, y),
    ToImages: lambda layer, grad, x, y, _: ToRows()(grad),
    ToRows: lambda layer, grad, x, y, _: ToImages((x.shape[1], x.shape[2], x.shape[3]))(grad),
}
