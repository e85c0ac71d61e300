"""The likelihood bounds that VAEEstimator reaches on MNIST, and its imputation.

    python benchmarks/vae_quality.py --mnist DIR [--write]

Training and test rows are binarised once, each pixel set with the probability of its gray
value. The estimator's own defaults are used: only n_components and max_iter are given. Nats
are minus the mean bound of log p over all test rows; smaller is better. Half an hour.
"""

import argparse
import time

import numpy as np
import torch
from mnist import load_mnist
from results import write_results
from sklearn.impute import KNNImputer
from threadpoolctl import threadpool_limits

from skem import VAEEstimator

CODES, N_ITER, SEEDS, N_IMPUTED, CLIP = (2, 8, 16), 60, (0, 1, 2), 1000, 0.01
SOURCE = {
    "hidden_layer_sizes": (256,), "activation": "relu", "batch_size": 64, "kl_warmup": 0,
    "learning_rate": "constant", "learning_rate_init": 1e-3,
}  # fmt: skip


def binarise(gray, rng):
    return (rng.random(gray.shape, np.float32) < gray / 255).astype(np.float32)


def fit(X, **options):
    start = time.process_time()
    model = VAEEstimator(**options).fit(X)
    return model, time.process_time() - start


def bounds(model, test):
    """Minus the ELBO and the bound of 100 importance samples, and their CPU seconds."""
    start, found = time.process_time(), []
    for n in (1, 100):
        found.append(-model.set_params(n_importance_samples=n).score(test))
    return *found, time.process_time() - start


def say(lines, *cells):
    lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    print(lines[-1], flush=True)


def likelihoods(lines, X, gray, test):
    lines += [
        "| | CPU s | -ELBO | IWAE-100 | KL | scores, CPU s |",
        "|---|---|---|---|---|---|",
    ]
    kept = None
    for n_codes in CODES:
        found = []
        for seed in SEEDS:
            model, cpu = fit(X, n_components=n_codes, max_iter=N_ITER, random_state=seed)
            elbo, iwae, scored = bounds(model, test)
            found.append([cpu, elbo, iwae, model.kl_curve_[-1], scored])
            print(n_codes, seed, found[-1], flush=True)
        cpu, elbo, iwae, kl, scored = np.mean(found, axis=0)
        spread = np.ptp([row[2] for row in found])
        say(
            lines,
            f"{n_codes} codes, {N_ITER} epochs, mean of {len(SEEDS)} seeds",
            f"{cpu:.0f}",
            f"{elbo:.2f}",
            f"{iwae:.2f} (range {spread:.2f})",
            f"{kl:.1f}",
            f"{scored:.0f}",
        )
        kept = model
    half, cpu = fit(X, n_components=16, max_iter=N_ITER, random_state=0, precision="bfloat16")
    elbo, iwae, scored = bounds(half, test)
    cells = f"{cpu:.0f}", f"{elbo:.2f}", f"{iwae:.2f}", f"{half.kl_curve_[-1]:.1f}"
    say(lines, "16 codes, bfloat16, one seed", *cells, f"{scored:.0f}")
    source, cpu = fit(gray, n_components=16, max_iter=10, random_state=0, **SOURCE)
    elbo, iwae, scored = bounds(source, test)
    cells = f"{cpu:.0f}", f"{elbo:.2f}", f"{iwae:.2f}", f"{source.kl_curve_[-1]:.1f}"
    say(lines, "the source's recipe, 16 codes, gray values, 10 epochs", *cells, f"{scored:.0f}")
    return kept


def judge(p, truth, missing):
    p = np.clip(p, CLIP, 1 - CLIP)[missing]
    truth = truth[missing] > 0
    bits = -np.log2(np.where(truth, p, 1 - p)).mean()
    return f"{100 * ((p > 0.5) != truth).mean():.2f} / {bits:.3f}"


def imputation(lines, X, test, model):
    rng = np.random.default_rng(0)
    truth = test[:N_IMPUTED]
    cases = {f"{share:.0%}": rng.random(truth.shape) < share for share in (0.5, 0.2, 0.1)}
    cases["bottom half"] = np.broadcast_to(np.arange(784) >= 392, truth.shape)
    nearest = KNNImputer(n_neighbors=5).fit(X[rng.permutation(len(X))[:5000]])
    methods = {
        "mean image": lambda v: np.broadcast_to(X.mean(0), v.shape),
        "KNNImputer, 5000 rows": nearest.transform,
        "skem, 16 codes": model.impute,
    }
    lines += [
        "",
        f"Missing pixels of {N_IMPUTED} test images: wrong ones in % at 0.5 / bits per missing "
        f"pixel (probabilities kept in [{CLIP}, {1 - CLIP}] for all), and CPU seconds:",
        "",
        "| | " + " | ".join(cases) + " | CPU s |",
        "|---" * (len(cases) + 2) + "|",
    ]
    for name, method in methods.items():
        start = time.process_time()
        cells = [
            judge(method(np.where(missing, np.nan, truth).astype(np.float32)), truth, missing)
            for missing in cases.values()
        ]
        say(lines, name, *cells, f"{time.process_time() - start:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder of the four idx files")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    (gray, _), (grey_test, _) = load_mnist(options.mnist), load_mnist(options.mnist, "t10k")
    X, test = binarise(gray, rng), binarise(grey_test, rng)
    torch.set_num_threads(1)
    lines: list[str] = []
    with threadpool_limits(1):
        model = likelihoods(lines, X, (gray / 255).astype(np.float32), test)
        imputation(lines, X, test, model)
    if options.write:
        write_results("vae_quality", lines)


if __name__ == "__main__":
    main()
