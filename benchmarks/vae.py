"""Time of a training row of VAEEstimator against the usual torch loop, pythae and its products.

    python benchmarks/vae.py --mnist DIR [--write]

The dense network 784-256-16-256-784 with ReLU, and the convolutional one with 32 codes, on
MNIST thresholded at 0.5, on one thread. All sides run interleaved on the same rows; times are
the least of several repeats. pythae takes part if it is installed.
"""

import argparse
import logging
import math
import os
import platform
import tempfile
import time

import numpy as np
import torch
from mnist import load_mnist
from PIL import Image
from results import write_results
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

import skem._network.estimator
from skem import VAEEstimator
from skem._network.layers import product

N, N_CONV, EPOCHS, REPEATS = 12_800, 2_560, 8, 6
DENSE = {"n_components": 16, "hidden_layer_sizes": (256,), "activation": "relu"}
CONV = {
    "n_components": 32, "architecture": "conv", "image_shape": (28, 28), "activation": "relu"
}  # fmt: skip


def ours(X, batch, n_epochs, *, fast=True, **options):
    # the others hold out no rows either
    options = {"early_stopping": False, "random_state": 0, **options}
    model = VAEEstimator(**options, batch_size=batch, max_iter=n_epochs)

    def run():
        skem._network.estimator.MIN_FAST = 0 if fast else math.inf
        model.fit(X)

    return run, n_epochs * len(X)


class Images(Dataset):
    """An image and a label at a time, by way of Pillow, as torchvision's MNIST does it."""

    def __init__(self, images, labels):
        self.images, self.labels = torch.from_numpy(images).view(-1, 28, 28), labels.tolist()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = Image.fromarray(self.images[i].numpy())
        pixels = torch.from_numpy(np.array(image, np.uint8)).view(28, 28, 1)
        pixels = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        return pixels, self.labels[i]


class Usual(nn.Module):
    """Two layers for mean and log-variance after a shared one, and a sigmoid at the end."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(784, 256)
        self.mean, self.log_variance = nn.Linear(256, 16), nn.Linear(256, 16)
        self.decoder = nn.Sequential(
            nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 784), nn.Sigmoid()
        )

    def forward(self, x):
        h = self.hidden(x).relu()
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(z), mean, log_variance


class UsualConv(nn.Module):
    """The same convolutions and widths as those of the estimator."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(3136, 256), nn.ReLU(),
        )  # fmt: skip
        self.mean, self.log_variance = nn.Linear(256, 32), nn.Linear(256, 32)
        self.decoder = nn.Sequential(
            nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 3136), nn.ReLU(),
            nn.Unflatten(1, (64, 7, 7)), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Flatten(), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x):
        h = self.hidden(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(z), mean, log_variance


def usual(data, batch, network):
    """A DataLoader, sigmoid and cross-entropy, Adam as it comes."""
    loader = DataLoader(data, batch_size=batch, shuffle=True)
    optimizer, losses = torch.optim.Adam(network.parameters()), []

    def run():
        for x, _ in loader:
            x = x.view(len(x), -1)
            output, mean, log_variance = network(x)
            loss = functional.binary_cross_entropy(output, x, reduction="sum")
            loss -= 0.5 * torch.sum(1 + log_variance - mean**2 - log_variance.exp())
            optimizer.zero_grad()
            (loss / len(x)).backward()
            optimizer.step()
            losses.append(loss.item())

    return run, len(data)


def products(X, batch, product=None):
    """The matrix products of a step: forward, and backward to weights and inputs.

    By ``torch.mm``, or by ``product(a, b)`` = a @ b.T.
    """
    shapes = [(784, 256), (256, 32), (16, 256), (256, 784)]
    x = {n: torch.rand(batch, n) for n in (784, 256, 32, 16)}
    W = [torch.rand(b, a) for a, b in shapes]
    dW = [torch.empty_like(w) for w in W]
    y = {n: torch.empty(batch, n) for n in (784, 256, 32, 16)}

    def other():
        for _ in range(len(X) // batch):
            for (a, b), w in zip(shapes, W, strict=True):
                product(x[a], w)
                product(x[b].T, x[a].T)
            for (_, b), w in list(zip(shapes, W, strict=True))[1:]:
                product(x[b], w.T)

    def run():
        for _ in range(len(X) // batch):
            for (a, b), w, d in zip(shapes, W, dW, strict=True):
                torch.mm(x[a], w.T, out=y[b])
                torch.mm(x[b].T, x[a], out=d)
            for (a, b), w in list(zip(shapes, W, strict=True))[1:]:
                torch.mm(x[b], w, out=y[a])

    return (other if product else run), len(X)


def pythae(X, batch, folder):
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    logging.disable(logging.CRITICAL)

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Sequential(nn.Linear(784, 256), nn.ReLU())
            self.mean, self.log_variance = nn.Linear(256, 16), nn.Linear(256, 16)

        def forward(self, x):
            h = self.hidden(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 784), nn.Sigmoid()
            )

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    config = VAEConfig(input_dim=(784,), latent_dim=16, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder())
    training = BaseTrainerConfig(
        output_dir=folder, num_epochs=1, learning_rate=1e-3, no_cuda=True,
        per_device_train_batch_size=batch,
    )  # fmt: skip
    return lambda: TrainingPipeline(model=model, training_config=training)(X), len(X)


def microseconds(sides):
    """The least time of a row, of interleaved repeats."""
    best = dict.fromkeys(sides, math.inf)
    for _ in range(REPEATS):
        for name, (function, n_rows) in sides.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], 1e6 * (time.perf_counter() - start) / n_rows)
    return best


def table(lines, title, found):
    """Times, and their ratios to those of other sides."""
    bases = [name for name in found if name.startswith("products")]
    heads = ["", "µs per row", "x usual style", *(f"/ {name}" for name in bases)]
    lines += ["", title, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, value in found.items():
        cells = [name, f"{value:.1f}", f"{found['usual style'] / value:.2f}"]
        cells += [f"{value / found[base]:.2f}" for base in bases]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder of the four idx files")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    images, labels = load_mnist(options.mnist)
    binary = np.where(images > 127, np.uint8(255), np.uint8(0))[:N]
    X, labels = (binary > 0).astype(np.float32), labels[:N]
    torch.set_num_threads(1)
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, one thread. The usual style: a Dataset of single "
        "images through Pillow, DataLoader, sigmoid and binary cross-entropy, Adam as it "
        "comes, batches of 64. From tensors: the same from a TensorDataset. The processor "
        f"{'multiplies' if torch.cpu._is_avx512_bf16_supported() else 'does not multiply'} "
        "bfloat16.",
    ]
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        for batch in (64, 128, 256):
            sides = {
                "skem": ours(X, batch, EPOCHS, **DENSE),
                "skem without numba": ours(X, batch, EPOCHS, **DENSE, fast=False),
                "skem, GELU": ours(X, batch, EPOCHS, **{**DENSE, "activation": "gelu"}),
                "skem, bfloat16": ours(X, batch, EPOCHS, **DENSE, precision="bfloat16"),
                "products alone, torch.mm": products(X, batch),
                "products alone, oneDNN": products(X, batch, product),
                "usual style": usual(Images(binary, labels), 64, Usual()),
            }
            if batch == 64:
                tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(labels.copy()))
                sides["usual style, from tensors"] = usual(tensors, 64, Usual())
                try:
                    sides["pythae's trainer"] = pythae(X, batch, folder)
                except ImportError:
                    print("pythae is not installed")
            found = microseconds(sides)
            table(lines, f"Dense, batches of {batch}:", found)
        few = X[:N_CONV]
        sides = {
            "skem": ours(few, 64, 1, **CONV),
            "skem, bfloat16": ours(few, 64, 1, **CONV, precision="bfloat16"),
            "usual style": usual(Images(binary[:N_CONV], labels[:N_CONV]), 64, UsualConv()),
        }
        found = microseconds(sides)
        table(lines, "Convolutional, batches of 64:", found)
    if options.write:
        write_results("vae", lines)


if __name__ == "__main__":
    main()
