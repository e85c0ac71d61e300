"""Time and memory of one EM iteration of ShiftedTemplateEM against other ways to do it.

    python benchmarks/template.py [--write]

1000 images of 100 x 200, template 100 x 73, one run. The competitors hold the images as
published solutions of this problem do, on the last axis. Each does an E step and an M step,
the slowest two on a few of the images, scaled; their numbers are compared with ours. Times
are the least of several repeats, interleaved.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from results import write_results
from scipy.signal import fftconvolve
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from skem import ShiftedTemplateEM
from skem._base.passes import Passes
from skem._rows.parts import InMemory
from skem.datasets import load_hidden_face, make_shifted_templates
from skem.template._model import Params, ShiftedTemplate
from skem.template._starts import model_of
from skem.template._windows import Windows

# -- competitors: (X, n, template, background, s, prior) -> (log-likelihood, template, s)
# for the first n images of X, of shape (height, width, n_images)


def loops(X, n, template, background, noise_std, prior):
    """The formulas with a loop over images and one over shifts."""
    width, w = X.shape[1], template.shape[1]
    n_shifts = width - w + 1
    log_lik = 0.0
    posterior = np.zeros((n, n_shifts))
    for k in range(n):
        log_joint = np.zeros(n_shifts)
        for d in range(n_shifts):
            mean = background.copy()
            mean[:, d : d + w] = template
            terms = -0.5 * np.log(2 * np.pi * noise_std**2)
            terms = terms - (X[:, :, k] - mean) ** 2 / (2 * noise_std**2)
            log_joint[d] = terms.sum() + np.log(prior[d])
        log_lik += logsumexp(log_joint)
        posterior[k] = np.exp(log_joint - logsumexp(log_joint))
    new_template = np.zeros_like(template)
    num, den = np.zeros_like(background), np.zeros_like(background)
    for k in range(n):
        for d in range(n_shifts):
            new_template += posterior[k, d] * X[:, d : d + w, k] / n
            outside = np.ones_like(background)
            outside[:, d : d + w] = 0
            num += posterior[k, d] * outside * X[:, :, k]
            den += posterior[k, d] * outside
    new_background = np.where(den > 1e-8, num / np.maximum(den, 1e-300), background)
    square = 0.0
    for k in range(n):
        for d in range(n_shifts):
            mean = new_background.copy()
            mean[:, d : d + w] = new_template
            square += posterior[k, d] * ((X[:, :, k] - mean) ** 2).sum()
    return log_lik, new_template, np.sqrt(square / (n * background.size))


def one_loop(X, n, template, background, noise_std, prior):
    """NumPy on all images at once, with one loop over shifts."""
    X = X[:, :, :n]
    width, w = X.shape[1], template.shape[1]
    n_shifts = width - w + 1
    constant = background.size / 2 * np.log(2 * np.pi * noise_std**2)
    log_joint = np.empty((n_shifts, n))
    for d in range(n_shifts):
        mean = background.copy()
        mean[:, d : d + w] = template
        square = ((X - mean[:, :, None]) ** 2).sum((0, 1))
        log_joint[d] = np.log(prior[d]) - constant - square / (2 * noise_std**2)
    log_lik = logsumexp(log_joint, axis=0)
    posterior = np.exp(log_joint - log_lik)
    new_template = np.zeros_like(template)
    outside = np.ones((width, n))
    for d in range(n_shifts):
        new_template += X[:, d : d + w] @ posterior[d] / n
        outside[d : d + w] -= posterior[d]
    num, den = np.einsum("jk,ijk->ij", outside, X), outside.sum(1)
    new_background = np.where(den > 1e-8, num / np.maximum(den, 1e-300), background)
    square = 0.0
    for d in range(n_shifts):
        mean = new_background.copy()
        mean[:, d : d + w] = new_template
        square += ((X - mean[:, :, None]) ** 2).sum((0, 1)) @ posterior[d]
    return log_lik.sum(), new_template, np.sqrt(square / X.size)


def convolve(X, n, template, background, noise_std, prior):
    """scipy.signal.fftconvolve for the correlations, image by image; any shift."""
    (height, width), (h, w) = background.shape, template.shape
    ones = np.ones((h, w))
    constant = height * width / 2 * np.log(2 * np.pi * noise_std**2)
    shape = (height - h + 1, width - w + 1)
    posterior = np.empty((n, *shape))
    log_lik = 0.0

    def squares(image, template, background):
        outside = (image - background) ** 2
        inside = fftconvolve(image**2, ones, "valid") + (template**2).sum()
        inside -= 2 * fftconvolve(image, template[::-1, ::-1], "valid")
        return outside.sum() - fftconvolve(outside, ones, "valid") + inside

    for k in range(n):
        square = squares(X[:, :, k], template, background)
        log_joint = np.log(prior.reshape(shape)) - constant - square / (2 * noise_std**2)
        norm = logsumexp(log_joint)
        log_lik += norm
        posterior[k] = np.exp(log_joint - norm)
    new_template = np.zeros_like(template)
    num, den = np.zeros_like(background), np.zeros_like(background)
    for k, q in enumerate(posterior):
        image = X[:, :, k]
        new_template += fftconvolve(image, q[::-1, ::-1], "valid") / n
        seen = np.maximum(1 - fftconvolve(q, ones), 0)
        num += seen * image
        den += seen
    new_background = np.where(den > 1e-8, num / np.maximum(den, 1e-300), background)
    square = 0.0
    for k, q in enumerate(posterior):
        square += (q * squares(X[:, :, k], new_template, new_background)).sum()
    return log_lik, new_template, np.sqrt(square / (n * background.size))


# -- ours -------------------------------------------------------------------------------


class Ours:
    """One EM iteration of skem, with what a fit prepares once already prepared."""

    def __init__(self, images, window, dtype, n_threads=1):
        X = images.reshape(len(images), -1).astype(dtype)
        windows = Windows(images.shape[1:], window)
        self.model, _ = model_of(windows, InMemory(X))
        self.passes = Passes(self.model, InMemory(X), n_threads)
        self.X = X

    def params(self, template, background, noise_std, prior) -> Params:
        model: ShiftedTemplate = self.model
        template = model.to_centered(template[None, ..., None])
        background = model.to_centered(background[..., None])
        return Params(template, background, noise_std**2, prior)

    def __call__(self, params: Params):
        stats = self.passes.total(params)
        new = self.model.m_step(params, stats)
        return stats.log_lik, self.model.to_image(new.template)[0, ..., 0], new.noise_var**0.5

    def stream(self) -> float:
        """Read once what an iteration reads: the pixels and their transform."""
        total = float(self.X.ravel() @ self.X.ravel())
        for rows in self.passes._cached:
            values = rows.spectrum.ravel().view(rows.spectrum.real.dtype)
            total += float(values @ values)
        return total


def least(functions: dict[str, Callable], repeats: int) -> dict[str, float]:
    """The least wall time of each function, in ms, in interleaved repeats."""
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * min(values) for name, values in times.items()}


def iterations(lines: list[str]) -> None:
    data = load_hidden_face(1000, noise_std=400, clip=None, dtype=np.float64)
    images = data.X.reshape(-1, *data.image_shape)
    point = (data.template, data.background, 400.0, np.full(128, 1 / 128))
    ours = {
        (name, threads): Ours(images, (100, 73), dtype, threads)
        for name, dtype in (("float64", np.float64), ("float32", np.float32))
        for threads in (1, 2)
    }
    params = ours["float64", 1].params(*point)
    X = np.ascontiguousarray(images.transpose(1, 2, 0))
    for function, few in ((loops, 2), (one_loop, 50)):
        reference = convolve(X, few, *point)
        for a, b in zip(function(X, few, *point), reference, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7)
    for dtype, rtol in ((np.float64, 1e-9), (np.float32, 1e-5)):
        found = Ours(images[:50], (100, 73), dtype)
        found = found(found.params(*point))
        for a, b in zip(found, convolve(X, 50, *point), strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=100 * rtol)

    scale = {"loops": 500, "one loop": 1, "fftconvolve": 20}
    competitors = {
        "loops": lambda: loops(X, 2, *point),
        "one loop": lambda: one_loop(X, 1000, *point),
        "fftconvolve": lambda: convolve(X, 50, *point),
    }
    times = {}
    for name, ms in least(competitors, 2).items():
        times[name] = ms * scale[name]
    mine = {key: lambda f=f: f(params) for key, f in ours.items()}
    mine |= {("stream", name): ours[name, 1].stream for name in ("float64", "float32")}
    times |= least(mine, 15)

    lines += [
        "One EM iteration, 1000 images of 100 x 200, template 100 x 73, 128 shifts.",
        "",
        "| variant | threads | ms | x loops | x one loop | x fftconvolve | x stream |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [
        ("plain loops over images and shifts", 1, "loops", None),
        ("NumPy, one loop over shifts", 1, "one loop", None),
        ("scipy.signal.fftconvolve", 1, "fftconvolve", None),
        *(
            (f"skem, {dtype}", threads, (dtype, threads), dtype)
            for dtype in ("float64", "float32")
            for threads in (1, 2)
        ),
        ("one streaming pass, float64", 1, ("stream", "float64"), None),
        ("one streaming pass, float32", 1, ("stream", "float32"), None),
    ]
    for label, threads, key, dtype in rows:
        ratios = [times[c] / times[key] for c in ("loops", "one loop", "fftconvolve")]
        stream = f"{times[key] / times['stream', dtype]:.1f}" if dtype else ""
        ratio_text = " | ".join(f"{r:.0f}" if r >= 10 else f"{r:.2f}" for r in ratios)
        lines.append(f"| {label} | {threads} | {times[key]:.1f} | {ratio_text} | {stream} |")
    gains = [times[name, 1] / times[name, 2] for name in ("float64", "float32")]
    lines.append(
        f"\nTwo threads against one: {gains[0]:.2f} times faster in float64, {gains[1]:.2f} in "
        f"float32. What two threads gain on this machine, in the same run: {control():.2f} "
        "in a matrix product that stays in the cache."
    )


def control() -> float:
    """How much faster two threads are at something that shares nothing."""
    matrix = np.random.default_rng(0).random((400, 400), dtype=np.float32)

    def work(_: int) -> None:
        for _ in range(20):
            matrix @ matrix

    with ThreadPoolExecutor(2) as pool:
        times = least(
            {
                "one": lambda: [work(0), work(1)],
                "two": lambda: list(pool.map(work, range(2))),
            },
            15,
        )
    return times["one"] / times["two"]


def two_dimensions(lines: list[str]) -> None:
    data = make_shifted_templates(
        300, image_shape=(64, 64), template_width=24, template_height=24, random_state=0
    )
    images = data.X.reshape(-1, 64, 64)
    n_shifts = 41 * 41
    point = (data.template, data.background, 0.5, np.full(n_shifts, 1 / n_shifts))
    ours = Ours(images, (24, 24), np.float32)
    params = ours.params(*point)
    X = np.ascontiguousarray(images.transpose(1, 2, 0))
    few = Ours(images[:30], (24, 24), np.float64)
    found = few(few.params(*point))
    for a, b in zip(found, convolve(X, 30, *point), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7)
    times = least(
        {"ours": lambda: ours(params), "fftconvolve": lambda: convolve(X, 30, *point)}, 5
    )
    theirs = 10 * times["fftconvolve"]
    lines += [
        "",
        f"Shifts in two dimensions, 300 images of 64 x 64, template 24 x 24, {n_shifts} "
        f"shifts, one thread: skem float32 {times['ours']:.0f} ms, fftconvolve "
        f"{theirs:.0f} ms: {theirs / times['ours']:.1f} "
        "times faster.",
    ]


def whole_fit(lines: list[str]) -> None:
    data = load_hidden_face(1000, noise_std=400)
    seconds, found = [], []
    for seed in range(3):
        model = ShiftedTemplateEM(73, image_shape=data.image_shape, random_state=seed)
        start = time.process_time()
        model.fit(data.X)
        seconds.append(time.process_time() - start)
        found.append(np.corrcoef(model.template_.ravel(), data.template.ravel())[0, 1])
    lines += [
        "",
        "A whole fit with the default settings, 1000 images, noise sd 400 clipped to "
        f"0...255, float32, one thread: {min(seconds):.1f} to {max(seconds):.1f} CPU s; "
        f"correlation of the template with the portrait {min(found):.3f} to "
        f"{max(found):.3f}.",
    ]


def peak_memory() -> None:
    """Print the peak memory of a fit beyond X and its transform, in multiples of X.

    From Linux's record of the process's largest resident memory.
    """

    def peak() -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])

    tiny = make_shifted_templates(20, random_state=0)
    ShiftedTemplateEM(20, image_shape=tiny.image_shape, random_state=0).fit(tiny.X)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 20000), dtype=np.float32)
    transform = 2000 * 100 * 101 * 8
    model = ShiftedTemplateEM(73, image_shape=(100, 200), random_state=0, max_iter=3)
    before = peak()
    model.fit(X)
    print((peak() - before - transform) / X.nbytes)


def memory(lines: list[str]) -> None:
    command = [sys.executable, "-W", "ignore", __file__, "--memory"]
    shares = [
        float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)
    ]
    lines += [
        "",
        "Peak memory of a fit beyond X and its transform, 2000 images, float32: "
        f"{max(shares):.2f} of X.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        peak_memory()
        return
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, NumPy {np.__version__}.",
        "",
    ]
    with threadpool_limits(1):
        iterations(lines)
        two_dimensions(lines)
        whole_fit(lines)
    memory(lines)
    print("\n".join(lines))
    if args.write:
        write_results("template", lines)


if __name__ == "__main__":
    main()
