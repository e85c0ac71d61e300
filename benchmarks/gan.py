"""GANEstimator on MNIST: time of a training step, and the quality of what it draws.

    python benchmarks/gan.py --mnist DIR [--write]

A step is one of the discriminator and one of the generator, 100-128-784 and 784-128-1, in
batches of 128. The usual style is the loop of most tutorials: a DataLoader, modules of torch,
binary cross-entropy of sigmoids, two Adams. Quality is judged by the features of a classifier
that is trained here, beside the floor (real digits) and ceilings. One thread; about ten
minutes.
"""

import argparse
import math
import os
import platform
import time
import warnings

import numpy as np
import torch
from judge import Judge, judged
from mnist import load_mnist
from results import write_results
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from vae import Images

import skem._network.estimator
from skem import GANEstimator
from skem._network.estimator import MIN_FAST

N, BATCH, EPOCHS, REPEATS, SEEDS, N_DRAWN = 12_800, 128, 10, 6, (0, 1, 2), 10_000
USUAL = {
    "activation": "relu", "spectral_norm": False, "average": 0, "noise": "uniform",
    "learning_rate_init": 1e-3, "beta_1": 0.9, "beta_2": 0.999,
}  # fmt: skip


def usual(data):
    """Two modules, sigmoids and cross-entropy, a fresh batch of noise for each network."""
    generator = nn.Sequential(nn.Linear(100, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid())
    discriminator = nn.Sequential(
        nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 1), nn.Sigmoid()
    )
    adam_d = torch.optim.Adam(discriminator.parameters())
    adam_g = torch.optim.Adam(generator.parameters())
    loader = DataLoader(data, batch_size=BATCH, shuffle=True)
    ones, zeros = torch.ones(BATCH, 1), torch.zeros(BATCH, 1)
    losses, entropy = [], functional.binary_cross_entropy

    def run():
        for images, _ in loader:
            x = images.view(BATCH, 784)
            fake = generator(2 * torch.rand(BATCH, 100) - 1)
            loss_d = entropy(discriminator(x), ones) + entropy(
                discriminator(fake.detach()), zeros
            )
            adam_d.zero_grad()
            loss_d.backward()
            adam_d.step()
            loss_g = entropy(discriminator(generator(2 * torch.rand(BATCH, 100) - 1)), ones)
            adam_g.zero_grad()
            loss_g.backward()
            adam_g.step()
            losses.append((loss_d.item(), loss_g.item()))

    return run, len(data) // BATCH


def ours(X, *, fast=True, **options):
    model = GANEstimator(batch_size=BATCH, max_iter=EPOCHS, random_state=0, **options)

    def run():
        skem._network.estimator.MIN_FAST = 0 if fast else math.inf
        model.fit(X)

    return run, EPOCHS * (len(X) // BATCH)


def speed(lines, X, data):
    sides = {
        "skem": ours(X),
        "skem without numba": ours(X, fast=False),
        "skem, the usual networks and settings": ours(X, **USUAL),
        "usual style": usual(data),
    }
    best = dict.fromkeys(sides, math.inf)
    for _ in range(REPEATS):
        for name, (run, n_steps) in sides.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start) / n_steps)
    skem._network.estimator.MIN_FAST = MIN_FAST
    lines += ["| | ms per step | x usual style |", "|---|---|---|"]
    for name, value in best.items():
        lines.append(f"| {name} | {value:.2f} | {best['usual style'] / value:.2f} |")
        print(lines[-1], flush=True)


def say(lines, name, cpu, found, coverage=""):
    cells = [
        name, cpu, f"{found['Frechet']:.1f}", f"{found['precision']:.2f}",
        f"{found['recall']:.2f}", found["digits"], f"{found['unevenness']:.3f}", coverage,
    ]  # fmt: skip
    lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    print(lines[-1], flush=True)


def quality(lines, judge, X, test):
    rng = np.random.default_rng(0)
    lines += [
        "",
        "| | CPU s | Fréchet | precision | recall | digits | unevenness | coverage_ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    say(lines, "training digits (floor)", "", judged(judge, test, X[:N_DRAWN]))
    pixels = rng.random((N_DRAWN, 784)) < X.mean(0)
    say(lines, "independent pixels (ceiling)", "", judged(judge, test, pixels))
    uniform = rng.random((N_DRAWN, 784))
    say(lines, "uniform noise (ceiling)", "", judged(judge, test, uniform))
    n_usual = 107  # passes in which 60,000 rows are 50,000 steps
    cases = [(f"skem, defaults, seed {seed}", {"random_state": seed}) for seed in SEEDS]
    cases += [
        ("skem, minimax loss", {"loss": "minimax"}),
        ("skem, without spectral norm", {"spectral_norm": False}),
        ("skem, without averaging", {"average": 0}),
        ("the usual settings, as many passes", USUAL),
        ("the usual settings, 50,000 steps", {**USUAL, "max_iter": n_usual}),
    ]
    for name, options in cases:
        start = time.process_time()
        model = GANEstimator(**{"random_state": 0, **options}).fit(X)
        cpu = f"{time.process_time() - start:.0f}"
        found = judged(judge, test, model.sample(N_DRAWN, random_state=0))
        say(lines, name, cpu, found, f"{model.coverage_:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder of the four idx files")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    (images, labels), (test_images, test_labels) = (
        load_mnist(options.mnist, part) for part in ("train", "t10k")
    )
    X, test = ((part / 255).astype(np.float32) for part in (images, test_images))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    with threadpool_limits(1):
        judge = Judge(X, labels)
        accuracy = (judge.classes(test) == test_labels).mean()
        lines = [
            f"{platform.machine()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, torch {torch.__version__}, one thread. Accuracy of "
            f"the classifier on the test digits: {accuracy:.2%}.",
            "",
        ]
        print(lines[0], flush=True)
        speed(lines, X[:N], Images(images[:N].copy(), labels[:N]))
        quality(lines, judge, X, test)
    if options.write:
        write_results("gan", lines)


if __name__ == "__main__":
    main()
