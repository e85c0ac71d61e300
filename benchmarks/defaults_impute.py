"""LatentImputer() beside scikit-learn's imputers, all by default, on tables of many kinds.

    python benchmarks/defaults_impute.py [--repeats N] [--only TEXT] [--write]

A fifth of the cells is hidden at random. Tables of scikit-learn, simulated ones, and those of
statsmodels and scikit-image if they are installed. One thread; about ten minutes.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import pandas as pd
from results import write_results
from sklearn import datasets
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from threadpoolctl import threadpool_limits

from skem import BayesianGMM_MAP, LatentImputer

SHARE = 0.2  # of the cells are hidden
MAX_ROWS = 3000
MIN_OTHERS = 10  # rows in which a feature is not its median; others are left out

IMPUTERS: dict[str, Callable[[], object]] = {
    "LatentImputer": LatentImputer,
    "KNNImputer": KNNImputer,
    "IterativeImputer": lambda: IterativeImputer(random_state=0),
    "SimpleImputer": SimpleImputer,
    "one Gaussian": lambda: LatentImputer(BayesianGMM_MAP(1, prior="empirical")),
}


# -- tables of numbers ------------------------------------------------------------------------


def of_scikit_learn() -> Iterator[tuple[str, np.ndarray]]:
    for name in ("iris", "wine", "breast_cancer", "diabetes", "digits", "linnerud"):
        yield name.replace("_", " "), getattr(datasets, f"load_{name}")().data


def of_statsmodels() -> Iterator[tuple[str, np.ndarray]]:
    from statsmodels.api import datasets as others

    names = {
        "fair": "affairs",
        "anes96": "election",
        "star98": "schools",
        "randhie": "doctor visits",
        "ccard": "credit cards",
        "modechoice": "travel",
        "heart": "heart",
        "statecrime": "crime",
    }
    for module, name in names.items():
        frame = getattr(others, module).load_pandas().data
        yield name, frame.select_dtypes("number").dropna().to_numpy(float)


def of_scikit_image() -> Iterator[tuple[str, np.ndarray]]:
    from skimage.data import lfw_subset

    faces = lfw_subset()[:, ::2, ::4]
    yield "faces", faces.reshape(len(faces), -1)


def simulated() -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    for n, D, n_factors in ((1500, 20, 3), (150, 50, 2), (500, 30, 10)):
        z, loadings = rng.normal(size=(n, n_factors)), rng.normal(size=(n_factors, D))
        yield f"{n_factors} factors", z @ loadings + rng.normal(size=(n, D))
    for n, D, K, spread in (
        (900, 15, 6, 1.2),
        (3000, 6, 3, 2),
        (200, 10, 4, 2),
        (2000, 4, 10, 4),
    ):
        means = spread * rng.normal(size=(K, D))
        yield f"{K} clusters", means[rng.integers(K, size=n)] + rng.normal(size=(n, D))
    yield "swiss roll", datasets.make_swiss_roll(1500, noise=0.5, random_state=0)[0]
    yield "friedman", np.column_stack(datasets.make_friedman1(1000, 6, random_state=0))
    z, loadings = rng.normal(size=(800, 3)), rng.normal(size=(3, 8))
    yield "log-normal", np.exp(0.7 * z @ loadings)


def tables() -> Iterator[tuple[str, np.ndarray]]:
    yield from of_scikit_learn()
    for package, load in (("statsmodels", of_statsmodels), ("skimage", of_scikit_image)):
        if find_spec(package):
            yield from load()
        else:
            print(f"{package} is not installed: its tables are left out")
    yield from simulated()


def standardized(X: np.ndarray) -> np.ndarray:
    X = np.asarray(X[:MAX_ROWS], float)
    X = X[:, (np.median(X, 0) != X).sum(0) >= MIN_OTHERS]
    return (X - X.mean(0)) / X.std(0)


def of_numbers(only: str, repeats: int) -> Iterator[str]:
    yield (
        "Root mean squared error on the hidden cells, in standard deviations of the features / "
        f"CPU seconds of fit and transform. Means of {repeats} draws of the hidden cells:"
    )
    yield ""
    yield "| table | rows | features | " + " | ".join(IMPUTERS) + " | to the better peer |"
    yield "|---" * (4 + len(IMPUTERS)) + "|"
    for name, table in tables():
        if only not in name:
            continue
        X, found = standardized(table), []
        for seed in range(repeats):
            hidden = np.random.default_rng(seed).random(X.shape) < SHARE
            found.append([])
            for make in IMPUTERS.values():
                start = time.process_time()
                filled = make().fit_transform(np.where(hidden, np.nan, X))
                cpu = time.process_time() - start
                error = np.sqrt(((filled - X)[hidden] ** 2).mean())
                found[-1].append((error, cpu))
        means = np.mean(found, axis=0)
        cells = [f"{error:.3f} / {cpu:.2f}" for error, cpu in means]
        ratio = means[0, 0] / min(means[1, 0], means[2, 0])
        shape = f"{X.shape[0]} | {X.shape[1]}"
        yield f"| {name} | {shape} | " + " | ".join(cells) + f" | {ratio:.2f} |"


# -- tables of mixed types --------------------------------------------------------------------


def mixed_tables() -> Iterator[tuple[str, pd.DataFrame]]:
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


def with_codes(make: Callable[[], object]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Impute columns of 0 and 1 for the categories; fill with that of the largest value.

    The first category has no column: those of all sum to 1, which IterativeImputer reads as
    a perfect prediction, and it then returns the means.
    """

    def fill(frame: pd.DataFrame) -> pd.DataFrame:
        names = frame.select_dtypes(exclude="number").columns
        parts, categories = [frame.drop(columns=names)], {}
        for name in names:
            codes = pd.get_dummies(frame[name], prefix=name, dtype=float)
            codes[frame[name].isna()] = np.nan
            categories[name] = sorted(frame[name].dropna().unique())
            parts.append(codes.iloc[:, 1:])
        filled = pd.concat(parts, axis=1)
        filled = pd.DataFrame(make().fit_transform(filled), columns=filled.columns)
        out = filled[parts[0].columns].copy()
        for name, part in zip(names, parts[1:], strict=True):
            codes = filled[part.columns].to_numpy()
            codes = np.column_stack([1 - codes.sum(1), codes])
            best = np.array(categories[name])[codes.argmax(1)]
            out[name] = frame[name].where(frame[name].notna(), best)
        return out[list(frame.columns)]

    return fill


def most_frequent(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: column.fillna(
                column.mean() if column.dtype.kind == "f" else column.mode().iloc[0]
            )
            for name, column in frame.items()
        }
    )


MIXED: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "LatentImputer": lambda frame: LatentImputer().fit_transform(frame),
    "KNNImputer": with_codes(KNNImputer),
    "IterativeImputer": with_codes(lambda: IterativeImputer(random_state=0)),
    "mean, most frequent": most_frequent,
}


def of_mixed_types(only: str, repeats: int) -> Iterator[str]:
    yield (
        "Tables with columns of strings: root mean squared error of the numbers / share of the "
        "hidden categories that are right / CPU seconds. The imputers of scikit-learn see a "
        "column of 0 and 1 for each category but the first, and the largest value is filled in:"
    )
    yield ""
    yield "| table | rows | numbers | categories | " + " | ".join(MIXED) + " |"
    yield "|---" * (4 + len(MIXED)) + "|"
    for name, frame in mixed_tables():
        if only not in name:
            continue
        is_number = np.array([frame[c].dtype.kind in "fi" for c in frame])
        numbers = frame.columns[is_number]
        scaled = (frame[numbers] - frame[numbers].mean()) / frame[numbers].std()
        frame, found = frame.assign(**scaled), []
        for seed in range(repeats):
            hidden = np.random.default_rng(seed).random(frame.shape) < SHARE
            found.append([])
            for fill in MIXED.values():
                start = time.process_time()
                filled = fill(frame.mask(hidden))
                cpu = time.process_time() - start
                gaps = (filled[numbers] - frame[numbers]).to_numpy(float)
                error = np.sqrt((gaps[hidden[:, is_number]] ** 2).mean())
                others = frame.columns[~is_number]
                right = (filled[others] == frame[others]).to_numpy()
                found[-1].append((error, right[hidden[:, ~is_number]].mean(), cpu))
        cells = ["{:.3f} / {:.3f} / {:.2f}".format(*row) for row in np.mean(found, axis=0)]
        shape = f"{len(frame)} | {len(numbers)} | {len(others)}"
        yield f"| {name} | {shape} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="tables whose name contains this")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines: list[str] = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for section in (of_mixed_types, of_numbers):
            lines.append("")
            for line in section(options.only, options.repeats):
                print(line, flush=True)
                lines.append(line)
    if options.write:
        write_results("defaults_impute", lines[1:])


if __name__ == "__main__":
    main()
