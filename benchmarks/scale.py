"""Cost of an EM iteration of BayesianGMM_MAP past memory: files, and workers of dask.

    python benchmarks/scale.py [--rows 1e8] [--folder DIR] [--write]

The rows are float32 in three overlapping clusters. Each length of the file is measured in a
process of its own, whose peak of memory counts the pages of the file that are mapped. The
workers are processes of this machine with one thread each, and hold the rows.
"""

import argparse
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from results import write_results

K, D, PART, REPEATS = 3, 3, 10**6, 5
BOUND = 300  # MB above what the imports take


def write_file(path, n_rows):
    file = np.memmap(path, np.float32, "w+", shape=(n_rows, D))
    for start in range(0, n_rows, PART):
        stop = min(start + PART, n_rows)
        file[start:stop] = clusters(stop - start, D, start)


def clusters(n_rows, n_features, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_rows, n_features), np.float32)
    rows += 2 * rng.integers(0, 3, (n_rows, 1))
    return rows


def memory():
    """Resident memory in MB: all, and without the pages of files."""
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return [int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")]


class Peak:
    """The peak of memory above what there was at the beginning."""

    def __enter__(self):
        self.base, self.peak, self.on = memory(), memory(), True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while self.on:
            self.peak = [max(pair) for pair in zip(self.peak, memory(), strict=True)]
            time.sleep(0.002)

    def __exit__(self, *error):
        self.on = False
        self.thread.join()
        self.above = [a - b for a, b in zip(self.peak, self.base, strict=True)]


def least(function, repeats=REPEATS):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def passes_of(model, X, n_threads):
    """What a fit repeats: E steps over all rows, with the compiled loop."""
    from skem._base.passes import Passes

    rows = model._check_rows(X, reset=True)
    return Passes(with_kernel(model), rows, n_threads)


def with_kernel(model):
    return replace(model._fitted_model(), fast=True)


def of_file(path, n_rows, n_threads):
    """One length of the file, in a process of its own."""
    from skem import BayesianGMM_MAP

    warm = BayesianGMM_MAP(K, random_state=0).fit(clusters(300_000, D, 1))  # compiles
    warm.score(clusters(1000, D, 1))
    X = np.memmap(path, np.float32, "r", shape=(n_rows, D))
    model = BayesianGMM_MAP(K, random_state=0, tol=0, max_iter=3, n_jobs=n_threads)
    with Peak() as peak:
        start = time.perf_counter()
        model.fit(X)
        fit = time.perf_counter() - start
        passes, params = passes_of(model, X, n_threads), model._params(model._fitted_model())
        warm_time = least(lambda: passes.total(params))
    return {
        "fit": fit, "pass": warm_time, "peak": peak.above[0], "anonymous": peak.above[1],
        "n_iter": model.n_iter_,
    }  # fmt: skip


def of_disk(path, n_rows):
    """Seconds to read the file, from the disk and from the system's cache, and a cold pass."""
    from skem import BayesianGMM_MAP

    def read(cold):
        buffer = bytearray(2**25)
        with open(path, "rb", buffering=0) as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.readinto(buffer):
                pass

    def forget():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    X = np.memmap(path, np.float32, "r", shape=(n_rows, D))
    model = BayesianGMM_MAP(K, random_state=0).fit(clusters(300_000, D, 1))
    passes, params = passes_of(model, X, 1), model._params(model._fitted_model())
    passes.total(params)
    out = {"disk": least(lambda: read(True), 2), "cache": least(lambda: read(False))}
    forget()
    out["cold"] = least(lambda: passes.total(params), 1)
    return out


def of_scikit_learn(path, n_rows):
    """Seconds of an iteration of scikit-learn's estimator, and its peak of memory."""
    from sklearn.mixture import GaussianMixture

    X = np.memmap(path, np.float32, "r", shape=(n_rows, D))
    start = np.array([[0.0] * D, [2.0] * D, [4.0] * D])
    options = {"means_init": start, "tol": 0, "init_params": "random_from_data"}
    GaussianMixture(K, max_iter=1, **options).fit(X[:1000])
    times = []
    with Peak() as peak:
        for n_iter in (1, 4):
            model = GaussianMixture(K, max_iter=n_iter, random_state=0, **options)
            times.append(least(lambda model=model: model.fit(X), 1))
    return {"pass": (times[1] - times[0]) / 3, "peak": peak.above[0]}


def in_process(task, *arguments, **environment):
    """The result of a function of this file in a new process."""
    command = [sys.executable, __file__, "--task", json.dumps([task, *arguments])]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **environment}
    )
    return json.loads(run.stdout.splitlines()[-1])


def growth(path, n_most, lines):
    lengths = [n for n in (10**5, 10**6, 10**7, 10**8) if n <= n_most]
    lines += [
        "",
        f"K = {K}, D = {D}, float32, a memory-mapped file, in the system's cache. Peaks are MB "
        "above the imports, with mapped pages of the file (and without). scikit-learn fits the "
        "same file.",
        "",
        "| rows | file, MB | pass, s (2 threads) | GB/s | peak, MB | fit of 3 iterations, s "
        "| scikit-learn, s | its peak, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for n in lengths:
        one, two = (in_process("of_file", path, n, t) for t in (1, 2))
        peak, anonymous = max(one["peak"], two["peak"]), max(one["anonymous"], two["anonymous"])
        theirs = in_process("of_scikit_learn", path, n) if n <= 10**7 else None
        lines.append(
            f"| {n:.0e} | {12e-6 * n:.0f} | {one['pass']:.4f} ({two['pass']:.4f}) "
            f"| {12e-9 * n / one['pass']:.1f} ({12e-9 * n / two['pass']:.1f}) "
            f"| {peak:.0f} ({anonymous:.0f}) | {one['fit']:.2f} ({two['fit']:.2f}) "
            + (f"| {theirs['pass']:.3f} | {theirs['peak']:.0f} |" if theirs else "| - | - |")
        )
        print(lines[-1], flush=True)
        assert peak < BOUND, f"{peak} MB"
    disk = in_process("of_disk", path, n)
    size = 12e-9 * n
    speed = {
        name: f"{seconds:.2f} s, {size / seconds:.1f} GB/s" for name, seconds in disk.items()
    }
    lines += [
        "",
        f"All peaks are below the bound of {BOUND} MB. The longest file, {size:.1f} GB, is "
        f"read from the disk in {speed['disk']}, from the cache in {speed['cache']}; a pass "
        f"from the disk takes {speed['cold']}, with one thread.",
    ]
    print(lines[-1], flush=True)


CASES = [  # name, K, D, rows, blocks
    ("K = 3, D = 3", 3, 3, 10**8, 8),
    ("K = 10, D = 20", 10, 20, 4 * 10**6, 8),
    ("two blocks of nothing", 3, 3, 200, 2),
    ("many blocks of nothing", 3, 3, 25_600, 256),
]
MACHINES, CORES, DISK = 100, 32, 3e9  # of the plan; bytes per second of a machine's disk


def cluster(lines):
    from skem import BayesianGMM_MAP

    lines += [
        "",
        "Workers of dask, one process and one thread each, on this machine; float32, full "
        "covariances. A message is the function that goes to a worker, with the parameters, or "
        "the statistics that come back from a block.",
        "",
        "| | rows | blocks | pass, s: 1 worker | 2 workers | efficiency "
        "| in one process, s: 1 thread | 2 threads | messages, kB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    found = []
    for name, k, d, n, blocks in CASES:
        model = BayesianGMM_MAP(k, random_state=0, max_iter=5, tol=0)
        model.fit(clusters(50_000, d, 0))
        one, two = (of_workers(model, n, d, blocks, n_workers) for n_workers in (1, 2))
        alone, both = (of_process(model, n, d, blocks, n_threads) for n_threads in (1, 2))
        sent, returned = messages(model, d)
        lines.append(
            f"| {name} | {n:.0e} | {blocks} | {one:.3f} | {two:.3f} | {one / two / 2:.2f} "
            f"| {alone:.3f} | {both:.3f} | {sent / 1e3:.1f}, {returned / 1e3:.1f} |"
        )
        print(lines[-1], flush=True)
        found.append((two, alone))
    plan(found, lines)


def plan(found, lines):
    """What an iteration would take on many machines, from what was measured on this one."""
    fixed = found[2][0]
    each = (found[3][0] - fixed) / (CASES[3][4] - CASES[2][4])
    lines += [
        "",
        "<!-- plan -->",
        f"A pass costs {1e3 * fixed:.0f} ms and {1e3 * each:.2f} ms for each block, whatever "
        f"the rows. From these figures, an iteration on {MACHINES} machines of {CORES} cores, "
        f"one block for each machine, shared by {CORES} threads, with disks of "
        f"{DISK / 1e9:.0f} GB/s:",
        "",
        "| | rows | held in memory, s | of which tasks, s | efficiency | read from disks, s |",
        "|---|---|---|---|---|---|",
    ]
    for (name, _, d, n, _), (_, alone) in zip(CASES[:2], found, strict=False):
        for rows in (1e10, 1e11, 1e12):
            work = alone / n * rows / MACHINES / CORES
            tasks = fixed + each * MACHINES
            disk = max(work, 4 * d * rows / MACHINES / DISK)
            lines.append(
                f"| {name} | {rows:.0e} | {work + tasks:.2f} | {tasks:.2f} "
                f"| {work / (work + tasks):.2f} | {disk + tasks:.2f} |"
            )
            print(lines[-1], flush=True)


def of_workers(model, n, d, blocks, n_workers):
    """Seconds of a pass over blocks that workers hold."""
    import dask.array as da
    from dask.distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": ":0"}
    with LocalCluster(n_workers=n_workers, **options) as local, Client(local):
        chunks = ((n // blocks,) * blocks, (d,))
        X = da.map_blocks(block, n // blocks, d, dtype=np.float32, chunks=chunks).persist()
        return of_passes(model, X)


def of_process(model, n, d, blocks, n_threads):
    rows = np.concatenate([clusters(n // blocks, d, i) for i in range(blocks)])
    return of_passes(model, rows, n_threads)


def of_passes(model, X, n_threads=1):
    passes = passes_of(model, X, n_threads)
    params = model._params(model._fitted_model())
    passes.total(params)  # compiles
    return least(lambda: passes.total(params))


def block(n_rows, n_features, block_info=None):
    """A block of rows; dask tells which."""
    return clusters(n_rows, n_features, block_info[None]["chunk-location"][0])


def messages(model, d):
    """Bytes of a function with its parameters, and of the statistics of a block."""
    fitted, rows = with_kernel(model), clusters(1000, d, 0)
    e_step = partial(fitted.e_step, model._params(fitted))
    stats = e_step(fitted.rows(rows, rows.dtype), np.ones(len(rows)))
    return len(pickle.dumps(e_step)), len(pickle.dumps(stats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e8)
    parser.add_argument(
        "--folder", default=None, help="where the file is written, 12 bytes a row"
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.task:
        task, *arguments = json.loads(options.task)
        print(json.dumps(globals()[task](*arguments)))
        return
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}."
    ]
    n = int(options.rows)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = str(Path(folder) / "rows.f32")
        write_file(path, n)
        growth(path, n, lines)
    cluster(lines)
    if options.write:
        write_results("scale", lines)


if __name__ == "__main__":
    main()
