"""How often ShiftedTemplateEM finds the template, with its default settings.

    python benchmarks/template_recovery.py [--seeds N] [--first-seed S] [--write]

A fit succeeds if the correlation of its template with the true one is within 3% of what
the mean of the windows at the true shifts reaches. Every fit is a fresh draw of the data.
"""

import argparse
import gzip
import time
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from matplotlib.cbook import get_sample_data
from PIL import Image
from results import write_results
from scipy.ndimage import gaussian_filter1d
from threadpoolctl import threadpool_limits

from skem import ShiftedTemplateEM
from skem.datasets import load_hidden_face, make_shifted_templates


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    n: int
    noise_std: float
    width: int = 73
    prior: str = "uniform"
    portrait: str = "hopper"
    shrinkage: str = "start"
    clip: bool = False


IMAGES = [
    Case("image", 20, 60),
    Case("image", 20, 150),
    Case("image", 50, 60),
    Case("image", 50, 250),
    Case("image", 50, 400),
    Case("image", 100, 60),
    Case("image", 100, 250),
    Case("image", 100, 400),
    Case("image", 100, 600),
    Case("image", 1000, 100),
    Case("image", 1000, 400),
    Case("image", 1000, 600),
    Case("image", 1000, 400, clip=True),
    Case("image", 100, 60, prior="centered"),
    Case("image", 100, 250, prior="centered"),
    Case("image", 100, 250, prior="dirichlet"),
    Case("image", 1000, 250, prior="centered"),
    Case("image", 100, 60, width=10),
    Case("image", 100, 60, width=25),
    Case("image", 100, 60, width=120),
    Case("image", 100, 60, width=160),
    Case("image", 100, 250, width=160),
    Case("image", 50, 150, portrait="head"),
    Case("image", 100, 250, portrait="head"),
    Case("image", 100, 400, portrait="head", prior="dirichlet"),
]
SIGNALS = [
    Case("signal, textured", 300, 0.5, width=30),
    Case("signal, textured", 300, 1.0, width=30),
    Case("signal, flat", 300, 0.5, width=30),
    Case("signal, flat", 300, 1.0, width=30),
]
NOISY = [
    Case("image", 1000, 1000, shrinkage="map"),
    Case("image", 1000, 1500, shrinkage="map"),
]


def portrait(name: str, width: int) -> np.ndarray:
    """A gray portrait 100 pixels high and ``width`` wide."""
    if name == "hopper":
        face = load_hidden_face(1).template
    else:
        with gzip.open(get_sample_data("s1045.ima.gz", asfileobj=False)) as file:
            head = np.frombuffer(file.read(), np.uint16).reshape(256, 256)
        face = np.clip(head[20:220, 55:201] / head.max() * 400, 0, 255)
    size = (width, 100)
    return np.asarray(Image.fromarray(face.astype(np.uint8)).resize(size), dtype=float)


def prior(name: str, n_shifts: int, rng: np.random.RandomState) -> np.ndarray:
    """Probabilities of the shifts."""
    if name == "centered":
        place = np.linspace(-1, 1, n_shifts)
        weights = np.exp(-(place**2) / (2 * 0.15**2))
        return weights / weights.sum()
    if name == "dirichlet":
        return rng.dirichlet(np.full(n_shifts, 0.3))
    return np.full(n_shifts, 1 / n_shifts)


def draw(case: Case, seed: int):
    """Fresh data of a case."""
    rng = np.random.RandomState(seed)
    if case.name == "image":
        face = portrait(case.portrait, case.width)
        background = load_hidden_face(1).background
    else:
        face = gaussian_filter1d(rng.normal(size=(1, case.width)), 1.5)
        background = gaussian_filter1d(rng.normal(size=(1, 120)), 1.5)
        face /= face.std()
        background *= ("textured" in case.name) / background.std()
    n_shifts = background.shape[1] - case.width + 1
    return make_shifted_templates(
        case.n,
        template=face,
        background=background,
        noise_std=case.noise_std,
        shift_prior=prior(case.prior, n_shifts, rng),
        clip=(0, 255) if case.clip else None,
        dtype=np.float32,
        random_state=rng,
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def one_fit(case: Case, seed: int) -> dict:
    """Correlations of the fit and of the aligned mean with the truth, CPU seconds."""
    data = draw(case, seed)
    stack = data.X.reshape(case.n, *data.image_shape)
    windows = [
        image[:, d : d + case.width] for image, d in zip(stack, data.shifts, strict=True)
    ]
    aligned = correlation(np.mean(windows, axis=0, dtype=float), data.template)
    model = ShiftedTemplateEM(
        case.width,
        image_shape=data.image_shape,
        shrinkage=case.shrinkage,
        max_iter=300,
        random_state=seed,
    )
    with threadpool_limits(1):
        start = time.thread_time()
        model.fit(data.X)
        seconds = time.thread_time() - start
    found = correlation(model.template_, data.template)
    return {
        "found": found,
        "aligned": aligned,
        "success": found >= 0.97 * aligned,
        "seconds": seconds,
        "n_iter": model.n_iter_,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="a part of the case's description")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks")
    args = parser.parse_args()
    lines = [
        "| data | n | noise sd | width | prior | mode | wins | found | aligned | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print(*lines, sep="\n")
    totals: dict[str, list[bool]] = {}
    for group, cases in (("images", IMAGES), ("signals", SIGNALS), ("noisy", NOISY)):
        for case in cases:
            if args.only not in str(case):
                continue
            n_seeds = args.seeds * (4 if group == "signals" else 1)
            seeds = range(args.first_seed, args.first_seed + n_seeds)
            fits = Parallel(n_jobs=args.n_jobs)(delayed(one_fit)(case, s) for s in seeds)
            mean = {key: np.mean([fit[key] for fit in fits]) for key in fits[0]}
            wins = sum(fit["success"] for fit in fits)
            totals.setdefault(group, []).extend(fit["success"] for fit in fits)
            name = case.name + (", clipped" if case.clip else "")
            name += "" if case.portrait == "hopper" else f" ({case.portrait})"
            lines.append(
                f"| {name} | {case.n} | {case.noise_std:g} | {case.width} | {case.prior} | "
                f"{case.shrinkage} | {wins}/{n_seeds} | {mean['found']:.3f} | "
                f"{mean['aligned']:.3f} | {mean['seconds']:.1f} |"
            )
            print(lines[-1], flush=True)
    lines.append("")
    for group, wins in totals.items():
        lines.append(f"{group}: {sum(wins)} of {len(wins)} ({np.mean(wins):.1%}).")
        print(lines[-1])
    if args.write:
        write_results("template_recovery", lines)


if __name__ == "__main__":
    main()
