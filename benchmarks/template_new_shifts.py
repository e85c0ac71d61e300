"""Where ShiftedTemplateEM places templates in new images, for several concentrations.

    python benchmarks/template_new_shifts.py [--seeds N] [--write]

The training images lack many shifts. Each model is fitted with several values of
``shift_concentration_prior`` and places the template in 500 new images. A row holds the share
that is placed exactly, and by how many nats per new image the score is below that of a prior of
the shifts that is equal to the truth, with the same template, background and noise.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from results import write_results
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from skem import ShiftedTemplateEM
from skem.datasets import load_hidden_face, make_shifted_templates

CONCENTRATIONS = (1.0, 1.001, 1.01, 1.1, 1.3, 2.0)
N_NEW = 500


def fit(model, X, shifts):
    return model.fit(X)


def fit_batches(model, X, shifts):
    for start in range(0, len(X), 16):
        model.partial_fit(X[start : start + 16])
    return model


def fit_few_then_all(model, X, shifts):
    model.fit(X[:50])
    return model.set_params(warm_start=True).fit(X)


def fit_few_first(model, X, shifts):
    model.set_params(init="mean", subset_schedule=((30, 5),))
    return model.fit(X)


def fit_sorted(model, X, shifts):
    model.set_params(init="mean", subset_schedule=((30, 5),))
    return model.fit(X[np.argsort(shifts, kind="stable")])


def fit_growing(model, X, shifts):
    model.set_params(init="random", n_init=1, max_iter=1)
    model.set_params(subset_schedule=((50, 5), (100, 1), (300, 1), (500, 1)))
    return model.fit(X)


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    data: str
    n: int
    how: Callable = fit
    prior: str = "uniform"
    noise_std: float = 1.0
    absent: float = 0.0


COLUMNS, SIGNALS, SQUARE = "20 x 60, 41 shifts", "1 x 120, 91 shifts", "30 x 30, 441 shifts"
FACE = "face, 128 shifts"
CASES = [
    Case(COLUMNS, 16),
    Case(COLUMNS, 50),
    Case(COLUMNS, 400),
    Case(COLUMNS, 400, fit_batches),
    Case(COLUMNS, 1000, fit_few_then_all),
    Case(COLUMNS, 1000, fit_few_first),
    Case(COLUMNS, 1000, fit_sorted),
    Case(COLUMNS, 400, noise_std=6.0),
    Case(COLUMNS, 100, prior="centered"),
    Case(COLUMNS, 100, prior="few"),
    Case(COLUMNS, 100, absent=0.6),
    Case(SIGNALS, 50, noise_std=0.5),
    Case(SIGNALS, 100),
    Case(SIGNALS, 300, prior="dirichlet"),
    Case(SIGNALS, 300, prior="few"),
    Case(SIGNALS, 400, fit_batches),
    Case(SQUARE, 100),
    Case(SQUARE, 300),
    Case(SQUARE, 1000),
    Case(SQUARE, 300, noise_std=2.0),
    Case(SQUARE, 300, prior="centered"),
    Case(SQUARE, 300, prior="few"),
    Case(SQUARE, 300, absent=0.6),
    Case(SQUARE, 400, fit_batches),
    Case(FACE, 1000, fit_growing, noise_std=100.0),
    Case(FACE, 1000, fit_growing, noise_std=400.0),
]


def probabilities(name: str, shape: tuple[int, int], rng) -> np.ndarray:
    """True probabilities of the shifts."""
    n_shifts = shape[0] * shape[1]
    if name == "centered":
        rows, columns = (
            np.exp(-(np.linspace(-1, 1, n) ** 2) / (2 * 0.3**2)) if n > 1 else np.ones(1)
            for n in shape
        )
        weights = np.outer(rows, columns).ravel()
    elif name == "dirichlet":
        weights = rng.dirichlet(np.full(n_shifts, 0.3))
    elif name == "few":
        weights = np.where(rng.permutation(n_shifts) < 5, 1.0, 0.01 / n_shifts)
    else:
        weights = np.ones(n_shifts)
    return weights / weights.sum()


def draw(case: Case, seed: int):
    """Training images, and new ones, in one bunch; the true prior of the shifts."""
    rng = np.random.RandomState(seed)
    size = {
        COLUMNS: ((20, 60), 20, 20),
        SIGNALS: ((1, 120), 1, 30),
        SQUARE: ((30, 30), 10, 10),
        FACE: ((100, 200), 100, 73),
    }[case.data]
    (height, width), h, w = size
    shape = height - h + 1, width - w + 1
    prior = probabilities(case.prior, shape, rng)
    options = {
        "noise_std": case.noise_std,
        "shift_prior": prior,
        "absent": case.absent,
        "random_state": rng,
    }
    n = case.n + N_NEW
    if case.data == FACE:
        data = load_hidden_face(n, **options)
    else:
        data = make_shifted_templates(
            n, image_shape=(height, width), template_height=h, template_width=w, **options
        )
    if case.absent:
        prior = np.append((1 - case.absent) * prior, case.absent)
    return data, prior


def one_data_set(case: Case, seed: int) -> np.ndarray:
    """Share placed, excess nats, noise ratio for each concentration."""
    data, prior = draw(case, seed)
    X, new = data.X[: case.n], data.X[case.n :]
    shifts = data.shifts[: case.n]
    found = []
    for concentration in CONCENTRATIONS:
        model = ShiftedTemplateEM(
            data.template_width,
            template_height=data.template_height,
            image_shape=data.image_shape,
            absent=case.absent > 0,
            shift_concentration_prior=concentration,
            random_state=seed,
        )
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            case.how(model, X, shifts)
        placed = np.mean(model.predict(new) == data.shifts[case.n :])
        score = model.score(new)
        model.shift_prior_ = prior
        found.append((placed, model.score(new) - score, model.noise_std_))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=3000)
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of the case's description")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks")
    args = parser.parse_args()
    names = [f"{value:g}" for value in CONCENTRATIONS]
    lines = [
        f"| data | n | fit | prior | noise | absent | {' | '.join(names)} |",
        f"|---|---|---|---|---|---|{'---|' * len(names)}",
    ]
    print(*lines, sep="\n")
    for case in CASES:
        if args.only not in str(case):
            continue
        seeds = range(args.first_seed, args.first_seed + args.seeds)
        found = Parallel(n_jobs=args.n_jobs)(delayed(one_data_set)(case, s) for s in seeds)
        placed, excess, _ = np.transpose(np.mean(found, axis=0))
        cells = [f"{a:.3f} ({b:.2f})" for a, b in zip(placed, excess, strict=True)]
        how = case.how.__name__.replace("fit_", "").replace("_", " ")
        lines.append(
            f"| {case.data} | {case.n} | {how} | {case.prior} | {case.noise_std:g} | "
            f"{case.absent:g} | {' | '.join(cells)} |"
        )
        print(lines[-1], flush=True)
    if args.write:
        write_results("template_new_shifts", lines)


if __name__ == "__main__":
    main()
