"""How often ShiftedTemplateEM finds the template, with its default settings.

    python benchmarks/template_recovery.py [--seeds N] [--write] [--oscillating]

A fit succeeds if the correlation of its template with the true one is within 3% of what
the mean of the windows at the true shifts reaches. Every fit is a fresh draw of the data.

With --oscillating, templates oscillate and fade, 100 samples in signals of 300. A fit succeeds
if its objective is within 0.01 nats per signal of that of EM started at the truth.
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


# -- templates that oscillate ------------------------------------------------------------

WIDTH, LENGTH = 100, 300


def oscillation(name: str) -> np.ndarray:
    """A template of standard deviation 1 that fades at its ends."""
    t = np.arange(WIDTH) - WIDTH / 2
    u = np.arange(WIDTH) - 20
    found = {
        "fast": np.sin(2 * np.pi * t / 12) * np.exp(-(t**2) / (2 * 15**2)),
        "slow": np.sin(2 * np.pi * t / 30) * np.exp(-(t**2) / (2 * 18**2)),
        "onset": np.where(u >= 0, np.sin(2 * np.pi * u / 15) * np.exp(-u.clip(0) / 18), 0),
        "chirp": np.sin(2 * np.pi * (t / 20 + t**2 / 900)) * np.exp(-(t**2) / (2 * 20**2)),
        "spike": np.exp(-(t**2) / (2 * 3**2)) - 0.5 * np.exp(-((t - 10) ** 2) / (2 * 6**2)),
    }[name]
    return found / found.std()


def one_oscillation(name: str, n: int, noise_std: float, seed: int) -> tuple[float, float]:
    """Nats per signal below EM from the truth, and CPU seconds."""
    truth, background = oscillation(name)[None], np.zeros((1, LENGTH))
    data = make_shifted_templates(
        n, template=truth, background=background, noise_std=noise_std, random_state=seed
    )
    model = ShiftedTemplateEM(WIDTH, max_iter=300, random_state=seed)
    best = ShiftedTemplateEM(
        WIDTH,
        template_init=truth,
        background_init=background,
        noise_std_init=noise_std,
        max_iter=300,
    )
    with threadpool_limits(1):
        start = time.thread_time()
        model.fit(data.X)
        seconds = time.thread_time() - start
        best.fit(data.X)
    return best.lower_bound_ - model.lower_bound_, seconds


def oscillations(seeds: range, n_jobs: int) -> list[str]:
    """The table of templates that oscillate."""
    lines = [
        "| template | n | noise sd | wins | largest gap | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    wins = []
    for name in ("fast", "slow", "onset", "chirp", "spike"):
        for n in (100, 400):
            for noise_std in (0.5, 1.0):
                fits = Parallel(n_jobs=n_jobs)(
                    delayed(one_oscillation)(name, n, noise_std, s) for s in seeds
                )
                gaps, seconds = np.transpose(fits)
                wins += list(gaps <= 0.01)
                lines.append(
                    f"| {name} | {n} | {noise_std:g} | {np.sum(gaps <= 0.01)}/{len(gaps)} | "
                    f"{max(gaps.max(), 0):.3f} | {seconds.mean():.1f} |"
                )
                print(lines[-1], flush=True)
    lines += ["", f"{sum(wins)} of {len(wins)} ({np.mean(wins):.1%})."]
    print(lines[-1])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="a part of the case's description")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks")
    parser.add_argument("--oscillating", action="store_true", help="templates that oscillate")
    args = parser.parse_args()
    if args.oscillating:
        lines = oscillations(
            range(args.first_seed, args.first_seed + 2 * args.seeds), args.n_jobs
        )
        if args.write:
            write_results("template_oscillating", lines)
        return
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
