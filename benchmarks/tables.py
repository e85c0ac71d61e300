"""Tables on which default settings are compared, and how they are cut and scaled."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pandas as pd
from mnist import load_mnist
from sklearn import datasets
from sklearn.preprocessing import MinMaxScaler

N_TEST = 2000  # largest number of held-out rows
MNIST_ROWS = (500, 2000, 10_000)
# statsmodels' tables of numbers without classes
WITHOUT_CLASSES = {
    "ccard": "credit cards",
    "modechoice": "travel",
    "heart": "heart",
    "statecrime": "crime",
}


class Table(NamedTuple):
    """Rows, their classes if they have any, and the value from which a feature counts as 1."""

    name: str
    X: np.ndarray
    y: np.ndarray | None = None
    threshold: float | None = None  # None is the median of each feature
    n_train: int | None = None  # None is two thirds


class Split(NamedTuple):
    """Rows and classes to learn from, and those held out."""

    X: np.ndarray
    y: np.ndarray | None
    X_test: np.ndarray
    y_test: np.ndarray | None


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
    yield Table("linnerud", datasets.load_linnerud().data)


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
    for module, name in WITHOUT_CLASSES.items():
        frame = getattr(others, module).load_pandas().data
        yield Table(name, frame.select_dtypes("number").dropna().to_numpy(float))


def of_scikit_image() -> Iterator[Table]:
    from skimage.data import lfw_subset

    faces = lfw_subset()
    yield Table("faces", faces.reshape(len(faces), -1), np.arange(len(faces)) < 100)
    yield Table("small faces", faces[:, ::2, ::4].reshape(len(faces), -1))


def simulated() -> Iterator[Table]:
    rng = np.random.default_rng(0)
    for name, n, D, n_factors in (
        ("factors", 1500, 20, 3),
        ("few factors", 150, 50, 2),
        ("ten factors", 500, 30, 10),
    ):
        z, loadings = rng.normal(size=(n, n_factors)), rng.normal(size=(n_factors, D))
        yield Table(name, z @ loadings + rng.normal(size=(n, D)), z[:, 0] > 0)
    for name, n, D, K, spread in (
        ("mixture", 900, 15, 6, 1.2),
        ("three clusters", 3000, 6, 3, 2),
        ("four clusters", 200, 10, 4, 2),
        ("ten clusters", 2000, 4, 10, 4),
    ):
        means, y = spread * rng.normal(size=(K, D)), rng.integers(K, size=n)
        yield Table(name, means[y] + rng.normal(size=(n, D)), y)
    yield Table("swiss roll", datasets.make_swiss_roll(1500, noise=0.5, random_state=0)[0])
    X, y = datasets.make_friedman1(1000, 6, random_state=0)
    yield Table("friedman", np.column_stack([X, y]))
    z, loadings = rng.normal(size=(800, 3)), rng.normal(size=(3, 8))
    yield Table("log-normal", np.exp(0.7 * z @ loadings))


def of_mnist(folder: str) -> Iterator[Table]:
    (X, y), (test, test_y) = load_mnist(folder), load_mnist(folder, "t10k")
    for n in MNIST_ROWS:
        rows = np.concatenate([X[:n], test[:N_TEST]]) / 255
        yield Table(f"MNIST, {n} rows", rows, np.r_[y[:n], test_y[:N_TEST]], 0.5, n)


def tables(mnist: str | None) -> Iterator[Table]:
    """Yield the tables of the libraries that are installed; MNIST is in a folder."""
    yield from of_scikit_learn()
    for package, load in (("statsmodels", of_statsmodels), ("skimage", of_scikit_image)):
        if find_spec(package):
            yield from load()
        else:
            print(f"{package} is not installed: its data are left out")
    yield from simulated()
    if mnist:
        yield from of_mnist(mnist)


def mixed_tables() -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield tables with columns of numbers and of strings."""
    rng = np.random.default_rng(0)
    group = rng.integers(5, size=2000)
    numbers = 2 * rng.normal(size=(5, 6))[group] + rng.normal(size=(2000, 6))
    frame = pd.DataFrame(numbers, columns=[f"number {i}" for i in range(6)])
    for j, n_categories in enumerate((2, 3, 6)):
        odds = rng.dirichlet(np.full(n_categories, 0.3), size=5)[group].cumsum(1)
        drawn = (rng.random((2000, 1)) > odds).sum(1).clip(0, n_categories - 1)
        frame[f"category {j}"] = np.array(list("abcdef"))[drawn]
    yield "5 groups", frame
    data = datasets.load_iris(as_frame=True)
    yield "iris", data.data.assign(species=data.target_names[data.target])
    data = datasets.load_wine(as_frame=True)
    yield "wine", data.data.assign(cultivar=data.target_names[data.target])
    if find_spec("statsmodels"):
        from statsmodels.api import datasets as others

        frame = others.fair.load_pandas().data.iloc[:2000]
        for name in ("occupation", "occupation_husb", "religious"):
            frame[name] = "level " + frame[name].astype(int).astype(str)
        yield "affairs", frame
        frame = others.anes96.load_pandas().data
        for name in ("PID", "vote"):
            frame[name] = "level " + frame[name].astype(int).astype(str)
        yield "election", frame


def split(table: Table, seed: int = 1) -> Split:
    """Shuffle, unless the table says which rows are held out, and cut."""
    order = np.arange(len(table.X))
    if table.n_train is None:
        order = np.random.default_rng(seed).permutation(order)
    n = table.n_train or 2 * len(order) // 3
    train, test = order[:n], order[n:][:N_TEST]
    X, y = np.asarray(table.X, float), table.y
    if y is None:
        return Split(X[train], None, X[test], None)
    y = np.asarray(y).astype(int)
    return Split(X[train], y[train], X[test], y[test])


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


def standardized(table: Table, seed: int = 1) -> Split:
    """Return features of mean 0 and variance 1, without the constant ones; images as is."""
    own = split(table, seed)
    kept = own.X.std(0) > 0
    X, test = own.X[:, kept], own.X_test[:, kept]
    if "MNIST" not in table.name:
        mean, scale = X.mean(0), X.std(0)
        X, test = (X - mean) / scale, (test - mean) / scale
    return own._replace(X=X, X_test=test)
