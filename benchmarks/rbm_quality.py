"""How well BernoulliRBMCD models MNIST, and fills in missing pixels.

    python benchmarks/rbm_quality.py --mnist DIR [--write]

One thread; CPU seconds. All 10,000 test images; mean log-likelihoods in nats, exact for 20
hidden units, by annealed importance sampling (AIS) from both ends for more. The estimator's
defaults are used: only n_components and the number of epochs are given. About half an hour.
"""

import argparse
import time

import numpy as np
from mnist import load_mnist
from results import write_results
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.neural_network import BernoulliRBM
from threadpoolctl import threadpool_limits

from skem import BernoulliRBMCD

N_IMPUTED, CLIP = 1000, 0.01


def fit(model, X):
    start = time.process_time()
    model.fit(X)
    return model, time.process_time() - start


def as_ours(other, X):
    """An RBM with another's parameters, and a likelihood."""
    model = BernoulliRBMCD(len(other.components_), n_iter=0).fit(X[:10_000])
    model.components_ = other.components_.astype(np.float32)
    model.intercept_hidden_ = other.intercept_hidden_.astype(np.float32)
    model.intercept_visible_ = other.intercept_visible_.astype(np.float32)
    return model


def report(lines, name, model, cpu, X, test):
    """The likelihood of the test rows, and the time it took to fit and to judge."""
    energy = -model.free_energy(test).mean()
    start = time.process_time()
    forward = model.log_partition()
    taken = time.process_time() - start
    cells = [f"{energy - forward.value:.2f}", "", f"{taken:.1f}"]
    if forward.method == "ais":
        back = model.log_partition(X[:400])
        cells[0] += f" ± {forward.standard_error:.2f}"
        cells[1] = f"{energy - back.value:.2f} ± {back.standard_error:.2f}"
    lines.append(f"| {name} | {cpu:.0f} | " + " | ".join(cells) + " |")
    print(lines[-1], flush=True)


def header(lines, text):
    lines += [
        "",
        text,
        "",
        "| RBM | CPU s | exact or forward AIS | reverse AIS | log Z took, CPU s |",
    ]
    lines += ["|---|---|---|---|---|"]


def likelihoods(lines, X, test):
    header(lines, "Thresholded at 0.5:")
    rbms = {}
    for n_hidden, n_iter in ((20, 20), (20, 90), (100, 30), (500, 18), (500, 70)):
        model, cpu = fit(BernoulliRBMCD(n_hidden, n_iter=n_iter, random_state=0), X)
        report(lines, f"{n_hidden} hidden, {n_iter} epochs", model, cpu, X, test)
        rbms[n_hidden, n_iter] = model
    source = {
        "algorithm": "cd", "n_gibbs_steps": 10, "batch_size": 16, "learning_rate": 0.1,
        "centered": False, "schedule": "constant", "weight_decay": 0.0, "random_state": 0,
    }  # fmt: skip
    for n_hidden, n_iter in ((20, 3), (500, 2)):
        model, cpu = fit(BernoulliRBMCD(n_hidden, n_iter=n_iter, **source), X)
        report(
            lines,
            f"the source's CD-10, {n_hidden} hidden, {n_iter} epochs",
            model,
            cpu,
            X,
            test,
        )
    for n_hidden, options, n_iter in (
        (20, {}, 4),
        (500, {"learning_rate": 0.01}, 2),
        (500, {"batch_size": 100, "learning_rate": 0.05}, 6),
    ):
        other, cpu = fit(BernoulliRBM(n_hidden, n_iter=n_iter, random_state=0, **options), X)
        name = f"scikit-learn, {n_hidden} hidden, {n_iter} epochs, {options or 'defaults'}"
        report(lines, name, as_ours(other, X), cpu, X, test)
    return rbms


def stochastic(lines, gray, grey_test, n_iter=140):
    """Each epoch and the test set are drawn anew from the gray values."""
    header(lines, "Stochastically binarised (another unit, not to be compared with the above):")
    rng = np.random.default_rng(0)

    def draw(p):
        return (rng.random(p.shape, np.float32) < p).astype(np.float32)

    test = draw(grey_test)
    model, start = BernoulliRBMCD(500, random_state=0), time.process_time()
    for i in range(n_iter):
        model.set_params(learning_rate=0.1 * (1 - i / n_iter)).partial_fit(draw(gray))
    cpu = time.process_time() - start
    report(
        lines, f"500 hidden, {n_iter} calls of partial_fit", model, cpu, draw(gray[:400]), test
    )


def judge(p, truth, missing):
    p = np.clip(p, CLIP, 1 - CLIP)[missing]
    truth = truth[missing] > 0
    bits = -np.log2(np.where(truth, p, 1 - p)).mean()
    return f"{100 * ((p > 0.5) != truth).mean():.2f} / {bits:.3f}"


def imputation(lines, X, test, rbms):
    rng = np.random.default_rng(0)
    truth = test[:N_IMPUTED]
    cases = {f"{share:.0%}": rng.random(truth.shape) < share for share in (0.2, 0.5, 0.8)}
    cases["bottom half"] = np.broadcast_to(np.arange(784) >= 392, truth.shape)
    some = X[rng.permutation(len(X))[:5000]]
    few = some[:2000]
    nearest = KNNImputer(n_neighbors=5).fit(some)
    iterative = IterativeImputer(
        max_iter=2, n_nearest_features=30, random_state=0, min_value=0, max_value=1,
        keep_empty_features=True, skip_complete=False,
    )  # fmt: skip
    methods = {
        "mean image": lambda v: np.broadcast_to(X.mean(0), v.shape),
        "KNNImputer, 5000 rows": nearest.transform,
        "IterativeImputer, 2000 rows": lambda v: iterative.fit(
            np.concatenate([few, v])
        ).transform(v),
    }
    for (n_hidden, n_iter), model in rbms.items():
        methods[f"skem, {n_hidden} hidden, {n_iter} epochs"] = model.impute
    lines += [
        "",
        f"Missing pixels of {N_IMPUTED} test images: wrong ones in % at 0.5 / bits per missing "
        f"pixel (probabilities kept in [{CLIP}, {1 - CLIP}] for all), and the CPU seconds of "
        "the four cases:",
        "",
        "| | " + " | ".join(cases) + " | CPU s |",
        "|---" * (len(cases) + 2) + "|",
    ]
    for name, method in methods.items():
        cells, start = [], time.process_time()
        for missing in cases.values():
            filled = method(np.where(missing, np.nan, truth).astype(np.float32))
            cells.append(judge(filled, truth, missing))
        lines.append(f"| {name} | {' | '.join(cells)} | {time.process_time() - start:.0f} |")
        print(lines[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder of the four idx files")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--skip-stochastic", action="store_true")
    options = parser.parse_args()
    (gray, _), (grey_test, _) = load_mnist(options.mnist), load_mnist(options.mnist, "t10k")
    X, test = ((x > 127).astype(np.float32) for x in (gray, grey_test))
    lines: list[str] = []
    with threadpool_limits(1):
        rbms = likelihoods(lines, X, test)
        imputation(lines, X, test, rbms)
        if not options.skip_stochastic:
            stochastic(lines, *((x / 255).astype(np.float32) for x in (gray, grey_test)))
    if options.write:
        write_results("rbm_quality", lines)


if __name__ == "__main__":
    main()
