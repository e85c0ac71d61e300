"""Time and memory of BayesianGMM_MAP against scikit-learn and others.

    python benchmarks/mixture.py [--write]

All sides of a comparison start from the same parameters, run interleaved in one process,
and are compared in what they find; times are the least of several repeats. pomegranate,
tgmm and torch take part if they are installed.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from results import write_results
from sklearn.datasets import load_digits, load_sample_image
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.mixture import GaussianMixture
from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky
from threadpoolctl import threadpool_limits

from skem import BayesianGMM_MAP, LatentImputer
from skem._base.passes import Passes
from skem._rows.parts import InMemory
from skem._threads import one_blas_thread
from skem.mixture._covariances import Layout
from skem.mixture._model import Mixture
from skem.mixture._params import Params
from skem.mixture._prior import flat_prior

CASES = {
    "a": (1_000_000, 3, 3, 1.0),
    "b": (200_000, 16, 10, 1.0),
    "c, overlapping": (50_000, 64, 20, 0.5),
    "c, separated": (50_000, 64, 20, 2.0),
}


def draw(n, n_features, n_components, spread, seed=0):
    """Rows of a mixture, and parameters near the true ones."""
    rng = np.random.default_rng(seed)
    means = spread * rng.normal(size=(n_components, n_features)) * np.sqrt(3)
    mix = np.eye(n_features) + 0.2 * rng.normal(size=(n_features, n_features)) / np.sqrt(
        n_features
    )
    components = rng.integers(n_components, size=n)
    X = means[components] + rng.normal(size=(n, n_features)) @ mix
    covariances = np.broadcast_to(mix.T @ mix, (n_components, n_features, n_features)) * 1.1
    means = means + 0.1 * rng.normal(size=means.shape)
    return X, np.full(n_components, 1 / n_components), means, np.array(covariances)


# -- one EM iteration: (log-likelihood per row, weights, means, covariances) -------------


def scikit_learn(X, weights, means, covariances, kind="full"):
    model = GaussianMixture(len(weights), covariance_type=kind, reg_covar=0)
    dtype = X.dtype

    def iteration():
        model.weights_, model.means_ = weights.astype(dtype), means.astype(dtype)
        model.covariances_ = covariances.astype(dtype)
        model.precisions_cholesky_ = _compute_precision_cholesky(model.covariances_, kind)
        log_lik, log_resp = model._e_step(X)
        model._m_step(X, log_resp)
        return log_lik, model.weights_, model.means_, model.covariances_

    return iteration


def skem(X, weights, means, covariances, kind="full", *, n_threads=1, fast=False):
    layout = Layout(kind, *means.shape)
    model = Mixture(layout, flat_prior(layout), X.std(0), fast=fast)
    passes = Passes(model, InMemory(X), n_threads)

    def iteration():
        params = Params(layout, weights, means, layout.to_blocks(covariances))
        stats = passes.total(params)
        new = model.m_step(params, stats)
        log_lik = stats.log_lik / stats.weight
        return log_lik, new.weights, new.means, layout.to_public(new.covariances)

    return iteration


def source_style(X, weights, means, covariances):
    """Batched MultivariateNormal.log_prob over n x K, responsibilities, weighted sums."""
    import torch

    X, weights, means, covariances = (
        torch.as_tensor(v.astype(X.dtype)) for v in (X, weights, means, covariances)
    )

    def iteration():
        normal = torch.distributions.MultivariateNormal(means, covariances)
        log_joint = normal.log_prob(X[:, None]) + weights.log()
        norm = torch.logsumexp(log_joint, 1, keepdim=True)
        resp = (log_joint - norm).exp()
        counts = resp.sum(0)
        new = resp.T @ X / counts[:, None]
        gaps = X[:, None] - new
        scatter = torch.einsum("nk,nki,nkj->kij", resp, gaps, gaps)
        out = norm.mean(), counts / len(X), new, scatter / counts[:, None, None]
        return tuple(value.numpy() for value in out)

    return iteration


def pomegranate(X, weights, means, covariances):
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    X, weights, means, covariances = (
        torch.as_tensor(v.astype(np.float32)) for v in (X, weights, means, covariances)
    )
    normals = [Normal(m, c) for m, c in zip(means, covariances, strict=True)]

    def iteration():
        model = GeneralMixtureModel(normals, priors=weights)
        log_lik = model.summarize(X)
        return (float(log_lik) / len(X),)

    return iteration


def tgmm(X, weights, means, covariances):
    import torch
    from tgmm import GaussianMixture as TorchMixture

    dtype = torch.float64 if X.dtype == np.float64 else torch.float32
    rows = torch.as_tensor(X)

    def iteration():
        model = TorchMixture(
            n_components=len(weights),
            n_features=X.shape[1],
            covariance_type="full",
            max_iter=1,
            tol=1e-300,
            reg_covar=0.0,
            init_means=torch.as_tensor(means, dtype=dtype),
            init_covariances=torch.as_tensor(covariances, dtype=dtype),
            init_weights=torch.as_tensor(weights, dtype=dtype),
        )
        model.fit(rows)
        return ()

    return iteration


def least(functions: dict[str, Callable], repeats: int) -> dict[str, float]:
    """The least wall time of each function, in ms, in interleaved repeats."""
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * min(values) for name, values in times.items()}


def agree(found, reference, rtol):
    for a, b in zip(found, reference, strict=False):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def iterations(lines: list[str]) -> None:
    lines += [
        "One EM iteration, full covariances, ms, and how many times faster than scikit-learn "
        "in the same dtype with the same number of threads; and what two threads gain in "
        "numba when nothing else runs.",
        "",
        "| case | dtype | threads | scikit-learn | NumPy | | numba | | 2 threads alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, (n, n_features, n_components, spread) in CASES.items():
        double, *start = draw(n, n_features, n_components, spread)
        truth = skem(double, *start)()
        for dtype in (np.float64, np.float32):
            X = double.astype(dtype)
            ours = {
                (name, threads): limited(skem(X, *start, n_threads=threads, fast=fast))
                for name, fast in (("NumPy", False), ("numba", True))
                for threads in (1, 2)
            }
            for function in ours.values():
                agree(function(), truth, 1e-10 if dtype is np.float64 else 1e-4)
            # alone: threads of BLAS go on spinning for a while
            alone = least({key: ours[key] for key in (("numba", 1), ("numba", 2))}, 9)
            for threads in (1, 2):
                theirs = scikit_learn(X, *start)
                with threadpool_limits(threads):
                    agree(theirs(), truth, 1e-8 if dtype is np.float64 else 1e-2)
                    functions = {"scikit-learn": theirs}
                    functions |= {name: ours[name, threads] for name in ("NumPy", "numba")}
                    ms = least(functions, 7)
                ratio = {name: ms["scikit-learn"] / value for name, value in ms.items()}
                gain = alone["numba", 1] / alone["numba", 2]
                lines.append(
                    f"| {case}: n={n}, D={n_features}, K={n_components} | {dtype.__name__} | "
                    f"{threads} | {ms['scikit-learn']:.1f} | {ms['NumPy']:.1f} | "
                    f"**{ratio['NumPy']:.1f}x** | {ms['numba']:.1f} | "
                    f"**{ratio['numba']:.1f}x** | {f'{gain:.2f}' if threads == 2 else ''} |"
                )
                print(lines[-1], flush=True)


def limited(function):
    def run():
        with one_blas_thread():
            return function()

    return run


def covariance_types(lines: list[str]) -> None:
    lines += [
        "",
        "The other covariance types, float64 / float32, one thread, NumPy alone (numba up to "
        "4 features): times faster than scikit-learn.",
        "",
        "| case | tied | diag | spherical |",
        "|---|---|---|---|",
    ]
    for case in ("a", "b", "c, overlapping"):
        n, n_features, n_components, spread = CASES[case]
        double, weights, means, full = draw(n, n_features, n_components, spread)
        cells = []
        for kind in ("tied", "diag", "spherical"):
            diagonal = np.einsum("kii->ki", full)
            shapes = {"tied": full[0], "diag": diagonal, "spherical": diagonal.mean(1)}
            ratios = []
            for dtype in (np.float64, np.float32):
                start = double.astype(dtype), weights, means, shapes[kind], kind
                functions = {"scikit-learn": scikit_learn(*start), "skem": skem(*start)}
                if n_features <= 4:
                    functions["numba"] = skem(*start, fast=True)
                with threadpool_limits(1):
                    rtol = 1e-9 if dtype is np.float64 else 2e-3
                    agree(functions["skem"](), functions["scikit-learn"](), rtol)
                    ms = least(functions, 5)
                ratios.append(
                    " or ".join(
                        f"{ms['scikit-learn'] / ms[name]:.1f}"
                        for name in ("skem", "numba")
                        if name in ms
                    )
                )
            cells.append(" / ".join(ratios))
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)


def peers(lines: list[str]) -> None:
    lines += ["", "Peers on case a with 100,000 rows, one thread, ms per iteration:", ""]
    n = 100_000
    double, *start = draw(n, *CASES["a"][1:])
    makers = {"scikit-learn": scikit_learn, "skem, NumPy": skem}
    makers["skem, numba"] = lambda *args: skem(*args, fast=True)
    if find_spec("torch"):
        makers["source's style (torch)"] = source_style
    for name, maker in (("pomegranate", pomegranate), ("tgmm", tgmm)):
        if find_spec(name):
            makers[name] = maker
    rows = {name: [] for name in makers}
    for dtype in (np.float64, np.float32):
        X = double.astype(dtype)
        functions = {name: maker(X, *start) for name, maker in makers.items()}
        with threadpool_limits(1):
            limit_torch()
            truth = skem(double, *start)()
            for name, function in list(functions.items()):
                try:
                    agree(function(), truth, 1e-8 if name != "pomegranate" else 1e-2) if (
                        dtype is np.float64
                    ) else function()
                except Exception as error:
                    print(f"{name} failed: {error!r}"[:300])
                    del functions[name]
            ms = least(functions, 5)
        for name in makers:
            rows[name].append(f"{ms[name]:.1f}" if name in ms else "fails")
    lines += ["| | float64 | float32 |", "|---|---|---|"]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    print("\n".join(lines[-len(rows) :]), flush=True)


def limit_torch() -> None:
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)


# -- whole fits ---------------------------------------------------------------------------


def whole_fits(lines: list[str]) -> None:
    lines += [
        "",
        "A whole `fit` with default parameters (k-means start, tol=1e-3), K=3, D=3, one "
        "thread, ms:",
        "",
        "| n | scikit-learn | skem | times faster | nats per row, skem - scikit-learn |",
        "|---|---|---|---|---|",
    ]
    for n in (100, 300, 1000, 3000, 10_000, 100_000):
        X = draw(n, 3, 3, 1.0)[0]
        models = {
            "scikit-learn": GaussianMixture(3, random_state=0),
            "skem": BayesianGMM_MAP(3, random_state=0),
        }
        with threadpool_limits(1):
            ms = least({name: lambda m=m: m.fit(X) for name, m in models.items()}, 9)
        gap = models["skem"].score(X) - models["scikit-learn"].score(X)
        lines.append(
            f"| {n} | {ms['scikit-learn']:.1f} | {ms['skem']:.1f} | "
            f"{ms['scikit-learn'] / ms['skem']:.1f} | {gap:+.4f} |"
        )
        print(lines[-1], flush=True)
    code = (
        "import numpy as np\nX = np.random.default_rng(0).normal(size=({n}, 3))\n"
        "from {module} import {name}\n{name}(3, random_state=0, tol=1e-2).fit(X)"
    )
    lines += ["", "The same in a new process, seconds, imports included:", ""]
    for n in (100, 10_000):
        commands = {
            "scikit-learn": code.format(n=n, module="sklearn.mixture", name="GaussianMixture"),
            "skem": code.format(n=n, module="skem", name="BayesianGMM_MAP"),
        }
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        ms = least(
            {
                name: lambda c=c: subprocess.run([sys.executable, "-c", c], env=env, check=True)
                for name, c in commands.items()
            },
            7,
        )
        lines.append(
            f"- n={n}: scikit-learn {ms['scikit-learn'] / 1e3:.2f}, skem {ms['skem'] / 1e3:.2f}"
        )
        print(lines[-1], flush=True)


def memory(lines: list[str]) -> None:
    """Peak memory of a fit beyond X, each in a process of its own."""
    lines += ["", "Peak memory of five iterations beyond X, in multiples of X:", ""]
    code = """
import sys, warnings, numpy as np
warnings.simplefilter("ignore")
sys.path.insert(0, "benchmarks")
from mixture import draw, CASES
import skem.mixture, sklearn.mixture
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
X, weights, means, covariances = draw(*CASES["{case}"])
{make}
model.set_params(
    weights_init=weights, means_init=means, precisions_init=np.linalg.inv(covariances),
    max_iter=5, tol=0)
model.fit(X)
open("/proc/self/clear_refs", "w").write("5")
before = peak()
model.fit(X)
print((peak() - before) * 1024 / X.nbytes)
"""
    makes = {
        "scikit-learn": "model = sklearn.mixture.GaussianMixture({K})",
        "skem": "model = skem.mixture.BayesianGMM_MAP({K})",
    }
    for case in ("a", "b", "c, overlapping"):
        K = CASES[case][2]
        used = {}
        for name, make in makes.items():
            command = [sys.executable, "-c", code.format(case=case, make=make.format(K=K))]
            out = subprocess.run(command, capture_output=True, text=True, check=True)
            used[name] = float(out.stdout)
        lines.append(
            f"- {case}: scikit-learn {used['scikit-learn']:.2f}, skem {used['skem']:.2f}"
        )
        print(lines[-1], flush=True)


def starts(lines: list[str]) -> None:
    """n_init=10: all starts to the end on all rows, against the best of a sample."""
    lines += [
        "",
        "Ten starts (random_from_data, K=8, D=4, overlapping, 100,000 rows, float64): all run "
        "on all rows, or on the sample with the best continued (what `fit` does). Nats per "
        "row and seconds, five data sets, one thread:",
        "",
        "| | all | sample |",
        "|---|---|---|",
    ]
    for seed in range(5):
        X = draw(100_000, 4, 8, 0.8, seed)[0]
        options = {"init_params": "random_from_data", "tol": 1e-4, "max_iter": 300}
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            start = time.perf_counter()
            scores = []
            for one in range(10):
                model = BayesianGMM_MAP(8, random_state=one, **options)
                scores.append(model.fit(X).lower_bound_)
            middle = time.perf_counter()
            best = BayesianGMM_MAP(8, n_init=10, random_state=0, **options).fit(X).lower_bound_
            end = time.perf_counter()
        lines.append(
            f"| data {seed} | {max(scores):.4f}, {middle - start:.1f} s | {best:.4f}, "
            f"{end - middle:.1f} s |"
        )
        print(lines[-1], flush=True)


def missing_values(lines: list[str]) -> None:
    """Fill digits whose rows all have patterns of missing values of their own."""
    digits = load_digits().data
    lines += [
        "",
        "Filling missing values of scikit-learn's digits (64 features, a pattern of its own in "
        "each row), whole fit and transform with default settings: seconds, and the root mean "
        "square error of the hidden values.",
        "",
        "| rows, missing | LatentImputer | KNNImputer | IterativeImputer |",
        "|---|---|---|---|",
    ]
    for n_rows, share in ((1797, 0.2), (200, 0.3)):
        X = digits[:n_rows]
        hidden = np.random.default_rng(0).random(X.shape) < share
        cells = []
        for imputer in (LatentImputer(), KNNImputer(), IterativeImputer(random_state=0)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                start = time.perf_counter()
                filled = imputer.fit_transform(np.where(hidden, np.nan, X))
                seconds = time.perf_counter() - start
            error = np.sqrt(np.mean((filled - X)[hidden] ** 2))
            cells.append(f"{seconds:.1f} s, {error:.2f}")
        lines.append(f"| {n_rows}, {share:.0%} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)


def segmentation(lines: list[str], images: dict[str, np.ndarray]) -> None:
    """K=2, priors of the source, 100 iterations: pixels as floats, and as bytes."""
    lines += [
        "",
        "Segmenting photographs: K=2, alpha=100, mu_0=0, kappa_0=1, nu_0=4, Sigma_0=I, 100 "
        "iterations, float64, one thread, seconds for the whole fit:",
        "",
        "| image | source's style | scikit-learn, no prior | skem | skem, bytes |",
        "|---|---|---|---|---|",
    ]
    prior = {
        "weight_concentration_prior": 100,
        "mean_prior": 0.0,
        "mean_precision_prior": 1,
        "degrees_of_freedom_prior": 4,
    }
    for name, image in images.items():
        bytes_ = image.reshape(-1, 3)
        X = bytes_ / 255
        rng = np.random.default_rng(0)
        means = X[rng.integers(len(X), size=2)]
        first = {"weights_init": [0.5, 0.5], "max_iter": 100, "tol": 0}
        model = BayesianGMM_MAP(
            2, **prior, covariance_prior=np.eye(3), means_init=means, **first,
            precisions_init=np.stack([np.eye(3)] * 2),
        )  # fmt: skip
        scaled = BayesianGMM_MAP(
            2, **prior, covariance_prior=255**2 * np.eye(3), means_init=255 * means, **first,
            precisions_init=np.stack([np.eye(3)] * 2) / 255**2,
        )  # fmt: skip
        plain = GaussianMixture(
            2, means_init=means, precisions_init=np.stack([np.eye(3)] * 2), **first
        )
        functions = {"skem": lambda: model.fit(X), "bytes": lambda: scaled.fit(bytes_)}
        functions["scikit-learn"] = lambda: plain.fit(X)
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for function in functions.values():
                function()
            np.testing.assert_allclose(255 * model.means_, scaled.means_, rtol=1e-6)
            seconds = {k: v / 1e3 for k, v in least(functions, 2).items()}
            style = ""
            if find_spec("torch"):
                limit_torch()
                took, found = source_map(X, means)
                np.testing.assert_allclose(found, model.means_, rtol=1e-6)
                gains = [took / seconds[key] for key in ("skem", "bytes")]
                style = f"{took:.1f} ({gains[0]:.0f}x, {gains[1]:.0f}x)"
        lines.append(
            f"| {name} {image.shape[0]}x{image.shape[1]} | {style} | "
            f"{seconds['scikit-learn']:.1f} | {seconds['skem']:.2f} | {seconds['bytes']:.2f} |"
        )
        print(lines[-1], flush=True)


def source_map(X, means):
    """100 iterations in the source's style; the time and the means."""
    import torch

    X, mu = torch.as_tensor(X), torch.as_tensor(means)
    n, D = X.shape
    sigma, pi = torch.stack([torch.eye(D, dtype=X.dtype)] * 2), torch.full((2,), 0.5).double()
    start = time.perf_counter()
    for _ in range(100):
        normal = torch.distributions.MultivariateNormal(mu, sigma)
        log_joint = normal.log_prob(X[:, None]) + pi.log()
        resp = torch.softmax(log_joint, 1)
        counts = resp.sum(0)
        average = resp.T @ X / counts[:, None]
        gaps = X[:, None] - average
        scatter = torch.einsum("nk,nki,nkj->kij", resp, gaps, gaps)
        mu = counts[:, None] * average / (counts + 1)[:, None]
        pull = (counts / (counts + 1))[:, None, None] * average[:, :, None] * average[:, None]
        sigma = (torch.eye(D, dtype=X.dtype) + scatter + pull) / (counts + 6 + D)[:, None, None]
        pi = (counts + 99) / (n + 2 * 99)
    return time.perf_counter() - start, mu.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--images", nargs="*", default=[], help="photographs to segment")
    options = parser.parse_args()
    from PIL import Image

    images = {
        "china": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
    }
    for path in options.images:
        name = os.path.splitext(os.path.basename(path))[0]
        images[name] = np.asarray(Image.open(path).convert("RGB"))
    parts: dict[str, Callable] = {
        "iterations": iterations,
        "covariance_types": covariance_types,
        "peers": peers,
        "whole_fits": whole_fits,
        "memory": memory,
        "starts": starts,
        "missing_values": missing_values,
        "segmentation": lambda lines: segmentation(lines, images),
    }
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}.",
        "",
    ]
    for name, part in parts.items():
        if not options.only or name in options.only:
            part(lines)
    if options.write:
        write_results("mixture", lines)


if __name__ == "__main__":
    main()
