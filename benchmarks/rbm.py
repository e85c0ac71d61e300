"""Time of one epoch of BernoulliRBMCD against scikit-learn, others, and its products alone.

    python benchmarks/rbm.py --mnist DIR [--write]

784 visible and 500 hidden units, MNIST thresholded at 0.5. All sides run interleaved on the
same rows; times are the least of several repeats, scaled to 60,000 rows. learnergy takes
part if it is installed, the compiled loops if numba is.
"""

import argparse
import math
import os
import platform
import time

import numpy as np
from mnist import load_mnist
from results import write_results
from scipy.linalg.blas import sgemm
from sklearn.neural_network import BernoulliRBM
from threadpoolctl import threadpool_limits

import skem.rbm._estimator
from skem import BernoulliRBMCD

N, H, REPEATS = 12_000, 500, 3


def ours(X, batch, algorithm, k, *, fast, n_jobs=1):
    model = BernoulliRBMCD(
        H, n_iter=1, batch_size=batch, algorithm=algorithm, n_gibbs_steps=k, n_jobs=n_jobs,
        random_state=0,
    )  # fmt: skip

    def run():
        skem.rbm._estimator.MIN_FAST = 0 if fast else math.inf
        model.fit(X)

    return run


def scikit_learn(X, batch):
    model = BernoulliRBM(H, batch_size=batch, n_iter=1, random_state=0)
    return lambda: model.fit(X)


def products(batch, k):
    """The 2k + 1 products of the chain and that of the update, in float32."""
    rng = np.random.default_rng(0)
    v, h = rng.random((2 * batch, 784), np.float32), rng.random((2 * batch, H), np.float32)
    W, x, y = rng.random((784, H), np.float32), v[:batch].copy(), h[:batch].copy()

    def run():
        for _ in range(N // batch):
            np.matmul(v[:batch], W, out=y)
            for _ in range(k):
                np.matmul(h[:batch], W.T, out=x)
                np.matmul(v[:batch], W, out=y)
            sgemm(1e-9, h.T, v.T, beta=1.0, c=W.T, trans_b=1, overwrite_c=1)

    return run


def loops(X, k, n_rows=600):
    """The source's style: every row by itself, in NumPy's usual float64."""
    X, rng = X.astype(float), np.random.default_rng(0)
    W, b, c = 0.01 * rng.standard_normal((784, H)), np.zeros(784), np.zeros(H)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def run():
        for v0 in X[:n_rows]:
            h0 = h = sigmoid(v0 @ W + c)
            for _ in range(k):
                v = (rng.random(784) < sigmoid(W @ (1.0 * (rng.random(H) < h)) + b)) * 1.0
                h = sigmoid(v @ W + c)
            W[:] += 1e-3 * (np.outer(v0, h0) - np.outer(v, h))
            b[:] += 1e-3 * (v0 - v)
            c[:] += 1e-3 * (h0 - h)

    return run, N / n_rows


def learnergy(X, batch, k):
    import torch
    from learnergy.models.bernoulli import RBM

    torch.set_num_threads(1)
    data = torch.utils.data.TensorDataset(torch.as_tensor(X), torch.zeros(len(X)))
    model = RBM(n_visible=784, n_hidden=H, steps=k, learning_rate=0.1)
    return lambda: model.fit(data, batch_size=batch, epochs=1)


def seconds(functions, repeats=REPEATS):
    best = dict.fromkeys(functions, math.inf)
    for _ in range(repeats):
        for name, (function, scale) in functions.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], (time.perf_counter() - start) * scale * 60_000 / N)
    return best


def table(X, lines, n_threads):
    X64 = X.astype(float)
    lines += [
        "",
        f"{n_threads} thread(s); seconds for 60,000 rows (speed in units of the float32 "
        "products alone):",
        "",
        "| | " + " | ".join(f"{a}, batches of {b}" for a, b, _, _ in CASES) + " |",
        "|---" * (len(CASES) + 1) + "|",
    ]
    rows: dict[str, list[str]] = {}
    for name, batch, algorithm, k in CASES:
        functions = {
            "products alone": (products(batch, k), 1),
            "skem, NumPy": (ours(X, batch, algorithm, k, fast=False), 1),
            "skem, NumPy, float64 rows": (ours(X64, batch, algorithm, k, fast=False), 1),
            "skem, numba": (ours(X, batch, algorithm, k, fast=True, n_jobs=n_threads), 1),
            "skem, numba, float64 rows": (
                ours(X64, batch, algorithm, k, fast=True, n_jobs=n_threads),
                1,
            ),
            "scikit-learn (PCD-1), float64": (scikit_learn(X64, batch), 1),
            "scikit-learn (PCD-1), float32": (scikit_learn(X, batch), 1),
        }
        if algorithm == "cd" and n_threads == 1 and batch == 100:
            functions["row by row"] = loops(X, k)
            try:
                functions["learnergy"] = (learnergy(X, batch, k), 1)
            except ImportError:
                print("learnergy is not installed")
        with threadpool_limits(n_threads):
            if n_threads == 1:
                seconds(functions, 1)
                found = seconds(functions)
            else:  # one after the other: waiting threads of BLAS would disturb the next side
                found = {}
                for key, function in functions.items():
                    time.sleep(1)
                    found |= seconds({key: function}, REPEATS + 1)
        for key in list(functions):
            rows.setdefault(key, [""] * len(CASES))
            rows[key][CASES.index((name, batch, algorithm, k))] = (
                f"{found[key]:.2f} ({found['products alone'] / found[key]:.2f})"
            )
        print(n_threads, name, batch, {k: round(v, 2) for k, v in found.items()}, flush=True)
    lines += [f"| {key} | " + " | ".join(cells) + " |" for key, cells in rows.items()]


CASES = [
    ("CD-1", 100, "cd", 1),
    ("PCD-1", 100, "pcd", 1),
    ("CD-10", 100, "cd", 10),
    ("CD-1", 16, "cd", 1),
    ("PCD-1", 16, "pcd", 1),
    ("CD-10", 16, "cd", 10),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder of the four idx files")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    images, _ = load_mnist(options.mnist)
    X = (images[:N] > 127).astype(np.float32)
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}. {N} rows, scaled.",
    ]
    for n_threads in (1, 2):
        table(X, lines, n_threads)
    if options.write:
        write_results("rbm", lines)


if __name__ == "__main__":
    main()
