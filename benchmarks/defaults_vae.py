"""VAEEstimator as it is by default, beside factor analysis, a Gaussian and PCA.

    python benchmarks/defaults_vae.py [--mnist DIR] [--only TEXT] [--write]

The tables are those of ``defaults.py``. A third of the rows is held out. Peers have as many
codes as the autoencoder. CPU time, one thread; a few minutes, half an hour with MNIST.
"""

import argparse
import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from defaults import Table, split, tables
from results import write_results
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis
from threadpoolctl import threadpool_limits

from skem import VAEEstimator

NOISE = 0.5  # standard deviation of the noise to remove, in those of the features
HEADS = (
    "data", "rows", "features", "VAE", "FactorAnalysis", "one Gaussian",
    "redrawn, VAE", "PCA", "denoised, VAE", "PCA", "CPU s",
)  # fmt: skip


def gaussian(X: np.ndarray, test: np.ndarray) -> float:
    covariance = np.cov(X.T) + 1e-6 * np.eye(X.shape[1])
    return float(multivariate_normal(X.mean(0), covariance).logpdf(test).mean())


def cells(table: Table) -> list[str]:
    """Return the row of a table; features have the variance 1, constant ones are left out."""
    own = split(table)
    scale = own.X.std(0)
    kept = scale > 0
    binary = "MNIST" in table.name
    X, test = own.X[:, kept], own.X_test[:, kept]
    if not binary:
        X, test = ((rows - own.X.mean(0)[kept]) / scale[kept] for rows in (X, test))
    start = time.process_time()
    model = VAEEstimator(random_state=0).fit(X)
    cpu = time.process_time() - start
    d = min(model.n_components, *X.shape)
    nats = [model.score(test)]
    if model.likelihood_ == "gaussian":
        nats += [FactorAnalysis(d, random_state=0).fit(X).score(test), gaussian(X, test)]
    noisy = test + NOISE * test.std() * np.random.default_rng(0).normal(size=test.shape)
    noisy = noisy.clip(0, 1) if binary else noisy
    pca, errors = PCA(d, random_state=0).fit(X), []
    for rows in (test, noisy):
        for redrawn in (
            model.reconstruct(rows),
            pca.inverse_transform(pca.transform(rows)),
        ):
            errors.append(f"{((redrawn - test) ** 2).mean():.3f}")
    shown = [f"{value:.2f}" for value in nats] + ["-"] * (3 - len(nats))
    return [table.name, str(len(X)), str(X.shape[1]), *shown, *errors, f"{cpu:.0f}"]


def lines_of(data: Iterator[Table]) -> Iterator[str]:
    yield (
        "Held-out nats per row, then mean squared errors of held-out rows redrawn from their "
        f"codes, and from those of the rows with noise of {NOISE} standard deviations. Tables "
        "are standardized, MNIST is gray and has the "
        "Bernoulli likelihood, whose nats have no peer:"
    )
    yield ""
    yield "| " + " | ".join(HEADS) + " |"
    yield "|---" * len(HEADS) + "|"
    for table in data:
        yield "| " + " | ".join(cells(table)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", help="folder of the four idx files")
    parser.add_argument("--only", default="", help="tables whose name contains this")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = (table for table in tables(options.mnist) if options.only in table.name)
        for line in lines_of(data):
            print(line, flush=True)
            lines.append(line)
    if options.write:
        write_results("defaults_vae", lines)


if __name__ == "__main__":
    main()
