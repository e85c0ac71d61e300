"""Time of BayesianGMM_MAP on tensors of torch, against scikit-learn on the same tensors.

    SCIPY_ARRAY_API=1 python benchmarks/arrays.py [--write]

Both sides start from the same parameters, run the same iterations, interleaved in one process,
and must find the same means. Times are the least of several repeats: of the processor on the
CPU, where both have one thread, and of the clock on a GPU. The tensors are on the GPU if torch
finds one. Passes of VAEEstimator and GANEstimator are measured then too: on the GPU from a
tensor there, on the GPU from an array of NumPy, and on the CPU.
"""

import argparse
import platform
import time
import warnings

import numpy as np
import sklearn
import torch
from mixture import draw
from results import write_results
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from skem import BayesianGMM_MAP, GANEstimator, VAEEstimator

CASES = {  # rows, features, components, type
    "20,000 x 10": (20_000, 10, 8, "full"),
    "50,000 x 3": (50_000, 3, 5, "full"),
    "10,000 x 50": (10_000, 50, 10, "diag"),
    "100,000 x 20": (100_000, 20, 10, "full"),
    "100,000 x 20, tied": (100_000, 20, 10, "tied"),
    "100,000 x 20, spherical": (100_000, 20, 10, "spherical"),
}
N_ITER = 10
TOLERANCE = {"float64": 1e-6, "float32": 1e-2}


def device_of():
    for name in ("cuda", "mps"):
        if getattr(torch, name).is_available():
            return name
    return "cpu"


def options_of(case, dtype, device):
    """Return the rows and the parameters of both sides."""
    n, D, K, kind = case
    X, weights, means, covariances = draw(n, D, K, 1.0)
    shared = np.linalg.inv(covariances)
    precisions = {
        "full": shared,
        "tied": shared[0],
        "diag": np.tile(1 / np.diag(covariances[0]), (K, 1)),
        "spherical": np.full(K, 1 / np.diag(covariances[0]).mean()),
    }[kind]

    def tensor(values):
        return torch.asarray(values.astype(dtype), device=device)

    starts = {"weights_init": weights, "means_init": means, "precisions_init": precisions}
    starts = {name: tensor(value) for name, value in starts.items()}
    options = {"covariance_type": kind, "max_iter": N_ITER, "tol": 0, "reg_covar": 1e-6}
    return tensor(X), {"n_components": K, "init_params": "random", **options, **starts}


def timed(work, device):
    """Return the result, and its seconds of the processor, or of the clock on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    found = work()
    if device != "cpu":
        getattr(torch, device).synchronize()
    return found, clock() - start


def compared(case, dtype, device, n_repeats):
    """Return the least seconds of fits and of predictions: ours, then scikit-learn's."""
    X, options = options_of(case, dtype, device)
    best = np.full((2, 2), np.inf)
    for _ in range(n_repeats):
        models = []
        for i, kind in enumerate((BayesianGMM_MAP, GaussianMixture)):
            model, seconds = timed(lambda kind=kind: kind(**options).fit(X), device)
            best[i, 0] = min(best[i, 0], seconds)
            _, seconds = timed(lambda model=model: model.predict_proba(X), device)
            best[i, 1] = min(best[i, 1], seconds)
            assert model.n_iter_ == N_ITER
            models.append(model)
        torch.testing.assert_close(
            models[0].means_, models[1].means_, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )
    return best


def passes(device, n_rows=60_000, n_passes=3):
    """Yield a line of the seconds of a pass of each network, from tensors and arrays."""
    X = np.random.default_rng(0).random((n_rows, 784), dtype=np.float32)
    tensor = torch.asarray(X, device=device)
    for kind in (VAEEstimator, GANEstimator):
        options = {"n_components": 10, "batch_size": 500, "max_iter": n_passes}
        seconds = []
        for rows, place in ((tensor, device), (X, device), (X, "cpu")):
            model = kind(**options, device=place, random_state=0)
            model.partial_fit(rows[:500])
            _, time_of_fit = timed(lambda m=model, r=rows: m.fit(r), device)
            seconds.append(f"{time_of_fit / n_passes:.2f}")
        yield f"| {kind.__name__} | {' | '.join(seconds)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/arrays.md")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    device = device_of()
    name = torch.cuda.get_device_name() if device == "cuda" else device
    lines = [
        f"{platform.machine()}, torch {torch.__version__} on {name}, scikit-learn "
        f"{sklearn.__version__}, one thread. Seconds of {N_ITER} iterations, and of "
        "`predict_proba`.",
        "",
        "| rows | K | type | dtype | fit | scikit-learn | ratio | predict_proba | scikit-learn "
        "| ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    with sklearn.config_context(array_api_dispatch=True), threadpool_limits(1):
        for label, case in CASES.items():
            for dtype in ("float64", "float32"):
                if device == "mps" and dtype == "float64":
                    continue
                (fit, proba), (their_fit, their_proba) = compared(
                    case, dtype, device, options.repeats
                )
                lines.append(
                    f"| {label} | {case[2]} | {case[3]} | {dtype} | {fit:.3f} | {their_fit:.3f}"
                    f" | {their_fit / fit:.1f} | {proba:.4f} | {their_proba:.4f} "
                    f"| {their_proba / proba:.1f} |"
                )
                print(lines[-1], flush=True)
        if device != "cpu":
            lines += ["", "Seconds of a pass over 60,000 x 784, by the clock.", ""]
            lines += ["| | tensor on the GPU | NumPy, to the GPU | CPU |", "|---|---|---|---|"]
            lines += passes(device)
            print("\n".join(lines[-4:]))
    if options.write:
        write_results("arrays", lines)


if __name__ == "__main__":
    main()
