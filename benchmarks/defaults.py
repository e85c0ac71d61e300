"""How default settings do on small and real data, beside what people use today.

    python benchmarks/defaults.py [--mnist DIR] [--only TEXT] [--write]

A section for each model, all on the same tables: those of scikit-learn, those of statsmodels
and scikit-image if they are installed, simulated ones, and the first rows of MNIST. A third of
the rows is held out. CPU time, one thread; about a quarter of an hour.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from mnist import load_mnist
from results import write_results
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import BernoulliRBM
from sklearn.preprocessing import MinMaxScaler
from threadpoolctl import threadpool_limits

from skem import BernoulliRBMCD

N_TEST = 2000  # largest number of held-out rows
MNIST_ROWS = (500, 2000, 10_000)


class Table(NamedTuple):
    """Rows, their classes, and the value from which a feature counts as 1."""

    name: str
    X: np.ndarray
    y: np.ndarray
    threshold: float | None = None  # None is the median of each feature
    n_train: int | None = None  # None is two thirds


class Split(NamedTuple):
    """Rows and classes to learn from, and those held out."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


# -- data -------------------------------------------------------------------------------------


def above_median(y: np.ndarray) -> np.ndarray:
    return (y > np.median(y)).astype(int)


def of_scikit_learn() -> Iterator[Table]:
    for name in ("iris", "wine", "breast_cancer"):
        data = getattr(datasets, f"load_{name}")()
        yield Table(name.replace("_", " "), data.data, data.target)
    data = datasets.load_diabetes()
    yield Table("diabetes", data.data, above_median(data.target))
    data = datasets.load_digits()
    yield Table("digits", data.data / 16, data.target, 0.47)


def of_statsmodels() -> Iterator[Table]:
    from statsmodels.api import datasets as others

    frame = others.fair.load_pandas().data
    yield Table("affairs", frame.drop(columns="affairs").to_numpy(float), frame.affairs > 0)
    frame = others.anes96.load_pandas().data
    yield Table("election", frame.drop(columns=["vote", "popul"]).to_numpy(float), frame.vote)
    frame = others.star98.load_pandas().data
    passed = frame.NABOVE / (frame.NABOVE + frame.NBELOW)
    features = frame.drop(columns=["NABOVE", "NBELOW"]).to_numpy(float)
    yield Table("schools", features, above_median(passed))
    frame = others.randhie.load_pandas().data.iloc[:4000]
    yield Table("doctor visits", frame.drop(columns="mdvis").to_numpy(float), frame.mdvis > 2)


def of_scikit_image() -> Iterator[Table]:
    from skimage.data import lfw_subset

    faces = lfw_subset()
    yield Table("faces", faces.reshape(len(faces), -1), np.arange(len(faces)) < 100)


def simulated() -> Iterator[Table]:
    rng = np.random.default_rng(0)
    z, loadings = rng.normal(size=(1500, 3)), rng.normal(size=(3, 20))
    yield Table("factors", z @ loadings + rng.normal(size=(1500, 20)), z[:, 0] > 0)
    z, loadings = rng.normal(size=(150, 2)), rng.normal(size=(2, 50))
    yield Table("few factors", z @ loadings + rng.normal(size=(150, 50)), z[:, 0] > 0)
    means, y = 1.2 * rng.normal(size=(6, 15)), rng.integers(6, size=900)
    yield Table("mixture", means[y] + rng.normal(size=(900, 15)), y)
    means, y = 2 * rng.normal(size=(3, 6)), rng.integers(3, size=3000)
    yield Table("three clusters", means[y] + rng.normal(size=(3000, 6)), y)


def of_mnist(folder: str) -> Iterator[Table]:
    (X, y), (test, test_y) = load_mnist(folder), load_mnist(folder, "t10k")
    for n in MNIST_ROWS:
        rows = np.concatenate([X[:n], test[:N_TEST]]) / 255
        yield Table(f"MNIST, {n} rows", rows, np.r_[y[:n], test_y[:N_TEST]], 0.5, n)


def tables(mnist: str | None) -> Iterator[Table]:
    yield from of_scikit_learn()
    for package, load in (("statsmodels", of_statsmodels), ("skimage", of_scikit_image)):
        if find_spec(package):
            yield from load()
        else:
            print(f"{package} is not installed: its data are left out")
    yield from simulated()
    if mnist:
        yield from of_mnist(mnist)


def split(table: Table) -> Split:
    """Shuffle, unless the table says which rows are held out, and cut."""
    order = np.arange(len(table.X))
    if table.n_train is None:
        order = np.random.default_rng(1).permutation(order)
    n = table.n_train or 2 * len(order) // 3
    X, y = np.asarray(table.X, float)[order], np.asarray(table.y)[order].astype(int)
    return Split(X[:n], y[:n], X[n:][:N_TEST], y[n:][:N_TEST])


def gray(table: Table) -> Split:
    """Return values between 0 and 1; what the training rows do not reach is cut off."""
    own = split(table)
    if table.threshold is not None:
        return own
    scaler = MinMaxScaler(clip=True).fit(own.X)
    return own._replace(X=scaler.transform(own.X), X_test=scaler.transform(own.X_test))


def binary(table: Table) -> Split:
    """Return 0 and 1: whether a value is above the threshold."""
    own = split(table)
    limit = np.median(own.X, axis=0) if table.threshold is None else table.threshold
    X, X_test = (1.0 * np.greater(values, limit) for values in (own.X, own.X_test))
    return own._replace(X=X, X_test=X_test)


# -- restricted Boltzmann machines ------------------------------------------------------------

RBMS: dict[str, Callable[[], object]] = {
    "default": lambda: BernoulliRBMCD(random_state=0),
    "n_iter=10": lambda: BernoulliRBMCD(n_iter=10, random_state=0),
    "scikit-learn": lambda: BernoulliRBM(random_state=0),
    "its learning_rate=0.01": lambda: BernoulliRBM(learning_rate=0.01, random_state=0),
}


def with_likelihood(machine: object) -> BernoulliRBMCD:
    """Return a machine with the weights of another one, and a likelihood."""
    own = BernoulliRBMCD(len(machine.components_))
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        setattr(own, name, getattr(machine, name))
    return own


def accuracy(machine: object, rows: Split) -> float:
    """Return the accuracy of a logistic regression on the features of the machine."""
    classifier = LogisticRegression(max_iter=1000).fit(machine.transform(rows.X), rows.y)
    return classifier.score(machine.transform(rows.X_test), rows.y_test)


def restricted_boltzmann_machines(data: list[Table]) -> Iterator[str]:
    yield (
        "Held-out nats per row / accuracy of a logistic regression on the features / CPU "
        "seconds of the fit; 256 hidden units, everything else as it is by default:"
    )
    yield ""
    yield "| data | rows | features | " + " | ".join(RBMS) + " |"
    yield "|---" * (3 + len(RBMS)) + "|"
    for table in data:
        for kind, prepare in (("gray", gray), ("binary", binary)):
            rows, cells = prepare(table), []
            for make in RBMS.values():
                start = time.process_time()
                machine = make().fit(rows.X)
                cpu = time.process_time() - start
                nats = with_likelihood(machine).score(rows.X_test)
                cells.append(f"{nats:.2f} / {accuracy(machine, rows):.3f} / {cpu:.1f}")
            shape = f"{len(rows.X)} | {rows.X.shape[1]}"
            yield f"| {table.name}, {kind} | {shape} | " + " | ".join(cells) + " |"


SECTIONS: dict[str, Callable[[list[Table]], Iterator[str]]] = {
    "BernoulliRBMCD": restricted_boltzmann_machines,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", help="folder of the four idx files")
    parser.add_argument("--only", default="", help="tables whose name contains this")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines: list[str] = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = [table for table in tables(options.mnist) if options.only in table.name]
        for name, section in SECTIONS.items():
            lines += ["", f"**{name}.**"]
            for line in section(data):
                print(line, flush=True)
                lines.append(line)
    if options.write:
        write_results("defaults", lines[1:])


if __name__ == "__main__":
    main()
