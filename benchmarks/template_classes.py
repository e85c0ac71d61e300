"""How often ShiftedTemplateEM finds several templates, and what they cost.

    python benchmarks/template_classes.py [--write] [--seeds N]

Images and signals hide one of C smooth random templates at a random shift, in a smooth random
background or in none. The oracle is the mean of the windows at the true shifts of the true
class. A fit wins if each of its templates correlates with a true one at least 0.95 times as
much as the oracle's does, each with another one. It is as high as from the truth if its
objective is within 0.01 nats per image of that of EM started at the true templates.
"""

import argparse
import itertools
import time
import warnings

import numpy as np
from results import write_results
from scipy.optimize import linear_sum_assignment
from sklearn.exceptions import ConvergenceWarning

from skem import ShiftedTemplateEM
from skem._base.passes import Passes
from skem._rows.parts import InMemory
from skem.datasets import make_shifted_templates
from skem.template._model import Params
from skem.template._starts import model_of
from skem.template._windows import Windows

# image shape, template height and width, whether there is a background, and two noise levels
KINDS = {
    "images": ((12, 40), 12, 12, True, (0.5, 2.0, 3.0)),
    "images, two axes": ((16, 18), 6, 6, True, (0.3, 1.0)),
    "signals": ((1, 100), 1, 25, True, (0.3, 0.6)),
    "signals, no background": ((1, 100), 1, 25, False, (0.3, 0.6)),
}


def simulate(kind, n_templates, n, noise_std, seed):
    """Return images, templates, true classes and true shifts."""
    shape, height, width, textured, _ = KINDS[kind]
    rng = np.random.default_rng(seed)
    size = {"image_shape": shape, "template_width": width, "template_height": height}
    first = make_shifted_templates(1, random_state=seed, **size)
    background = first.background if textured else np.zeros(shape)
    classes = rng.integers(n_templates, size=n)
    X, shifts, templates = np.empty((n, np.prod(shape))), np.empty(n, int), []
    for c in range(n_templates):
        template = make_shifted_templates(1, random_state=1000 * seed + c, **size).template
        data = make_shifted_templates(
            int((classes == c).sum()) or 1,
            template=template,
            background=background,
            noise_std=noise_std,
            random_state=int(rng.integers(2**31)),
        )
        count = int((classes == c).sum())
        X[classes == c], shifts[classes == c] = data.X[:count], data.shifts[:count]
        templates.append(template)
    return X, np.array(templates), classes, shifts


def oracle(kind, X, templates, classes, shifts):
    """Return the correlations of the mean windows at the true places, for each class."""
    shape, height, width, *_ = KINDS[kind]
    images = X.reshape(-1, *shape)
    rows, columns = np.unravel_index(shifts, (shape[0] - height + 1, shape[1] - width + 1))
    places = zip(images, rows, columns, strict=True)
    windows = np.array([image[r : r + height, c : c + width] for image, r, c in places])
    return np.array(
        [
            correlation(windows[classes == c].mean(0), template)
            for c, template in enumerate(templates)
        ]
    )


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def matched(found, templates):
    """Return the correlation of each true template with the found one that is matched to it."""
    table = np.array([[correlation(a, b) for a in found] for b in templates])
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns]


def fit(kind, X, n_templates, seed=0, **given):
    shape, height, width, *_ = KINDS[kind]
    model = ShiftedTemplateEM(
        width,
        template_height=height,
        image_shape=shape,
        n_templates=n_templates,
        random_state=seed,
        **given,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X)


def recovery(lines, n_seeds, kinds=KINDS, counts=(2, 3, 5), sizes=(200, 1000)):
    """The fits that win; those with two axes of movement take long, and are fitted to few."""
    lines += [
        "| data | noise | n | C | wins | least ratio to the oracle | as high as from the truth "
        "| images of the right class | CPU s per fit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, n, n_templates in itertools.product(kinds, sizes, counts):
        if kind == "images, two axes" and n > 200:
            continue
        for noise_std in KINDS[kind][-1]:
            wins, high, least, right, seconds = 0, 0, 1.0, [], []
            for seed in range(n_seeds):
                X, templates, classes, shifts = simulate(kind, n_templates, n, noise_std, seed)
                start = time.process_time()
                model = fit(kind, X, n_templates, seed)
                seconds.append(time.process_time() - start)
                ratio = matched(model.templates_, templates)
                ratio = (ratio / oracle(kind, X, templates, classes, shifts)).min()
                wins, least = wins + (ratio >= 0.95), min(least, ratio)
                from_truth = fit(
                    kind, X, n_templates, template_init=templates, noise_std_init=noise_std
                )
                high += model.lower_bound_ > from_truth.lower_bound_ - 0.01
                table = np.zeros((n_templates, n_templates))
                np.add.at(table, (classes, model.predict_class(X)), 1)
                right.append(table[linear_sum_assignment(-table)].sum() / n)
            lines.append(
                f"| {kind} | {noise_std} | {n} | {n_templates} | {wins} of {n_seeds} | "
                f"{least:.3f} | {high} of {n_seeds} | {np.mean(right):.3f} | "
                f"{np.mean(seconds):.1f} |"
            )
            print(lines[-1], flush=True)


def speed(lines):
    """The CPU time of an iteration with C templates, over C times that with one."""
    lines += ["", "| n | image | template | dtype | C | time / (C x time of one) |"]
    lines += ["|---|---|---|---|---|---|"]
    rng = np.random.default_rng(0)
    for shape, window, n in (
        ((20, 60), (20, 20), 1000),
        ((1, 200), (1, 40), 1000),
        ((48, 48), (16, 16), 200),
    ):
        for dtype in (np.float32, np.float64):
            X = rng.normal(size=(n, np.prod(shape))).astype(dtype)
            steps = {}
            for n_templates in (1, 2, 3, 5):
                windows, rows = Windows(shape, window), InMemory(X)
                model, _ = model_of(windows, rows, n_templates=n_templates)
                passes = Passes(model, rows)
                lines_of = len(model.center)
                params = Params(
                    rng.normal(size=(n_templates, lines_of, *windows.window)),
                    rng.normal(size=(lines_of, *windows.space)),
                    1.0,
                    np.full(model.n_categories, 1 / model.n_categories),
                )
                steps[n_templates] = lambda m=model, t=passes.total, p=params: m.m_step(p, t(p))
            least = dict.fromkeys(steps, np.inf)
            for _ in range(15):
                for n_templates, step in steps.items():
                    start = time.process_time()
                    step()
                    least[n_templates] = min(least[n_templates], time.process_time() - start)
            lines += [
                f"| {n} | {shape[0]} x {shape[1]} | {window[0]} x {window[1]} | "
                f"{dtype.__name__} | {c} | {least[c] / (c * least[1]):.2f} |"
                for c in (2, 3, 5)
            ]


def choice(lines, n_seeds):
    """The number of templates with the lowest BIC."""
    lines += [
        "",
        "| data | noise | n | true C | C of the lowest BIC |",
        "|---|---|---|---|---|",
    ]
    for kind, n_templates in itertools.product(("images", "signals"), (1, 2, 3)):
        noise_std, chosen = KINDS[kind][-1][0], []
        for seed in range(n_seeds):
            X, *_ = simulate(kind, n_templates, 400, noise_std, 100 + seed)
            bic = [fit(kind, X, c).bic(X) for c in (1, 2, 3, 4)]
            chosen.append(1 + int(np.argmin(bic)))
        found = ", ".join(map(str, chosen))
        lines.append(f"| {kind} | {noise_std} | 400 | {n_templates} | {found} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    lines: list[str] = []
    recovery(lines, arguments.seeds)
    speed(lines)
    choice(lines, min(arguments.seeds, 5))
    print("\n".join(lines))
    if arguments.write:
        write_results("template_classes", lines)


if __name__ == "__main__":
    main()
