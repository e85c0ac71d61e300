"""How default settings do on small and real data, beside what people use today.

    python benchmarks/defaults.py [--mnist DIR] [--model NAME] [--only TEXT] [--write]

A section for each model, all on the same tables: those of scikit-learn, those of statsmodels
and scikit-image if they are installed, simulated ones, and the first rows of MNIST. A third of
the rows is held out; imputers get all rows, and a fifth of the cells is hidden. CPU time, one
thread; about an hour, and two with MNIST.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from results import write_results
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import BernoulliRBM
from tables import Split, Table, binary, gray, mixed_tables, standardized, tables
from threadpoolctl import threadpool_limits

from skem import BayesianGMM_MAP, BernoulliRBMCD, GANEstimator, LatentImputer, VAEEstimator

Lines = Iterator[str]


def header(*cells: str) -> Lines:
    yield ""
    yield "| " + " | ".join(cells) + " |"
    yield "|---" * len(cells) + "|"


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


# -- restricted Boltzmann machines ------------------------------------------------------------

RBMS: dict[str, Callable[[], object]] = {
    "default": lambda: BernoulliRBMCD(random_state=0),
    "n_iter=10": lambda: BernoulliRBMCD(n_iter=10, random_state=0),
    "scikit-learn": lambda: BernoulliRBM(random_state=0),
    "its learning_rate=0.01": lambda: BernoulliRBM(learning_rate=0.01, random_state=0),
}


def with_likelihood(rbm: object) -> BernoulliRBMCD:
    """Return an RBM with the weights of another one, and a likelihood."""
    own = BernoulliRBMCD(len(rbm.components_))
    for name in ("components_", "intercept_hidden_", "intercept_visible_"):
        setattr(own, name, getattr(rbm, name))
    return own


def held_out_nats(rbm: object, rows: Split) -> float:
    """Return the log-likelihood with the larger of two estimates of log Z.

    They err on different sides if the chains do not mix.
    """
    own = with_likelihood(rbm)
    n_free = -float(own.free_energy(rows.X_test).mean())
    return n_free - max(own.log_partition().value, own.log_partition(rows.X[:1000]).value)


def accuracy(rbm: object, rows: Split) -> float:
    """Return the accuracy of a logistic regression on the features; NaN without classes."""
    if rows.y is None:
        return np.nan
    classifier = LogisticRegression(max_iter=1000).fit(rbm.transform(rows.X), rows.y)
    return classifier.score(rbm.transform(rows.X_test), rows.y_test)


def restricted_boltzmann_machines(data: list[Table]) -> Lines:
    yield (
        "Held-out nats per row / accuracy of a logistic regression on the features / CPU "
        "seconds of the fit; 256 hidden units, everything else as it is by default:"
    )
    yield from header("data", "rows", "features", *RBMS)
    for table in data:
        for kind, prepare in (("gray", gray), ("binary", binary)):
            rows, cells = prepare(table), []
            for make in RBMS.values():
                start = time.process_time()
                rbm = make().fit(rows.X)
                cpu = time.process_time() - start
                nats = held_out_nats(rbm, rows)
                cells.append(f"{nats:.2f} / {accuracy(rbm, rows):.3f} / {cpu:.1f}")
            yield row(f"{table.name}, {kind}", *rows.X.shape, *cells)


# -- variational autoencoders -----------------------------------------------------------------

NOISE = 0.5  # standard deviation of the noise to remove, in those of the features
SPLITS, SPLIT_ROWS = 5, 1000  # splits of tables with fewer rows; larger ones have one
VAE_HEADS = (
    "data", "rows", "features", "VAE", "FactorAnalysis", "one Gaussian", "VAE - FactorAnalysis",
    "redrawn, VAE", "FactorAnalysis", "PCA", "denoised, VAE", "FactorAnalysis", "PCA", "CPU s",
)  # fmt: skip


def gaussian(X: np.ndarray, test: np.ndarray) -> float:
    covariance = np.cov(X.T) + 1e-6 * np.eye(X.shape[1])
    return float(multivariate_normal(X.mean(0), covariance).logpdf(test).mean())


def autoencoded(X: np.ndarray, test: np.ndarray, is_image: bool) -> list[float]:
    """Return nats, squared errors and CPU seconds in the order of the heads; NaN for none."""
    start = time.process_time()
    model = VAEEstimator(random_state=0).fit(X)
    cpu = time.process_time() - start
    d = min(model.n_components, *X.shape)
    factors, pca = FactorAnalysis(d, random_state=0).fit(X), PCA(d, random_state=0).fit(X)
    nats = [model.score(test), np.nan, np.nan]
    if not is_image:
        nats[1:] = factors.score(test), gaussian(X, test)
    redraw = (
        model.reconstruct,
        lambda rows: factors.transform(rows) @ factors.components_ + factors.mean_,
        lambda rows: pca.inverse_transform(pca.transform(rows)),
    )
    rng = np.random.default_rng(0)
    noisy = test + NOISE * test.std() * rng.normal(size=test.shape)
    noisy = noisy.clip(0, 1) if is_image else noisy
    errors = [((f(rows) - test) ** 2).mean() for rows in (test, noisy) for f in redraw]
    return [*nats, *errors, cpu]


def variational_autoencoders(data: list[Table]) -> Lines:
    yield (
        "Held-out nats per row, then mean squared errors of held-out rows redrawn from their "
        f"codes, and from those of the rows with noise of {NOISE} standard deviations. Tables "
        "are standardized, MNIST is gray and has the Bernoulli likelihood, whose nats have no "
        f"peer. Means of {SPLITS} random splits for tables of fewer than {SPLIT_ROWS} rows, "
        "with the standard error of the difference, and one split of others:"
    )
    yield from header(*VAE_HEADS)
    for table in data:
        found, is_image = [], "MNIST" in table.name
        n_splits = SPLITS if len(table.X) < SPLIT_ROWS and not is_image else 1
        for seed in range(1, 1 + n_splits):
            X, _, test, _ = standardized(table, seed)
            found.append(autoencoded(X, test, is_image))
        gains = np.subtract(*np.transpose(found)[:2])
        error = f" ± {gains.std(ddof=1) / n_splits**0.5:.2f}" if n_splits > 1 else ""
        means = np.mean(found, axis=0)
        cells = [f"{v:.2f}" for v in means[:3]], [f"{v:.3f}" for v in means[3:-1]]
        line = *cells[0], f"{gains.mean():.2f}{error}", *cells[1], f"{means[-1]:.0f}"
        shown = ("-" if cell.startswith("nan") else cell for cell in line)
        yield row(table.name, *X.shape, *shown)


# -- generative adversarial networks ----------------------------------------------------------

N_DRAWN = 1000


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the energy distance of two samples (Szekely and Rizzo, 2004)."""
    return float(2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean())


def generative_adversarial_networks(data: list[Table]) -> Lines:
    yield (
        f"Energy distance of {N_DRAWN} drawn rows to held-out ones, beside that of the "
        "training rows and of draws from one Gaussian:"
    )
    heads = "GAN", "training rows", "one Gaussian", "coverage", "CPU s"
    yield from header("data", "rows", "features", *heads)
    for table in data:
        X, _, test, _ = standardized(table)
        start = time.process_time()
        model = GANEstimator(random_state=0).fit(X)
        cpu = time.process_time() - start
        rng = np.random.default_rng(0)
        drawn = rng.multivariate_normal(X.mean(0), np.cov(X.T), N_DRAWN, method="eigh")
        own = rng.permutation(X)[:N_DRAWN]
        distances = [
            energy_distance(rows, test) for rows in (model.sample(N_DRAWN), own, drawn)
        ]
        cells = *(f"{d:.3f}" for d in distances), f"{model.coverage_:.2f}", f"{cpu:.0f}"
        yield row(table.name, *X.shape, *cells)


# -- imputers ---------------------------------------------------------------------------------

SHARE = 0.2  # of the cells are hidden
MAX_ROWS, MAX_FEATURES = 3000, 100
MIN_OTHERS = 10  # rows in which a feature is not its median; others are left out
REPEATS = 2  # draws of the hidden cells

IMPUTERS: dict[str, Callable[[], object]] = {
    "LatentImputer": LatentImputer,
    "KNNImputer": KNNImputer,
    "IterativeImputer": lambda: IterativeImputer(random_state=0),
    "SimpleImputer": SimpleImputer,
    "one Gaussian": lambda: LatentImputer(BayesianGMM_MAP(1, prior="empirical")),
}


def imputers(data: list[Table]) -> Lines:
    yield (
        "Root mean squared error on the hidden cells, in standard deviations of the features / "
        f"CPU seconds of fit and transform. Means of {REPEATS} draws of the hidden cells:"
    )
    yield from header("table", "rows", "features", *IMPUTERS, "to the better peer")
    for table in data:
        X = np.asarray(table.X[:MAX_ROWS], float)
        X = X[:, (np.median(X, 0) != X).sum(0) >= MIN_OTHERS]
        if X.shape[1] > MAX_FEATURES:
            continue
        X, found = (X - X.mean(0)) / X.std(0), []
        for seed in range(REPEATS):
            hidden = np.random.default_rng(seed).random(X.shape) < SHARE
            found.append([])
            for make in IMPUTERS.values():
                start = time.process_time()
                filled = make().fit_transform(np.where(hidden, np.nan, X))
                cpu = time.process_time() - start
                found[-1].append((np.sqrt(((filled - X)[hidden] ** 2).mean()), cpu))
        means = np.mean(found, axis=0)
        cells = [f"{error:.3f} / {cpu:.2f}" for error, cpu in means]
        yield row(table.name, *X.shape, *cells, f"{means[0, 0] / means[1:3, 0].min():.2f}")


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


def imputers_of_mixed_types(data: list[Table]) -> Lines:
    yield (
        "Tables with columns of strings: root mean squared error of the numbers / share of the "
        "hidden categories that are right / CPU seconds. The imputers of scikit-learn see a "
        "column of 0 and 1 for each category but the first, and the largest value is filled in:"
    )
    yield from header("table", "rows", "numbers", "categories", *MIXED)
    for name, frame in mixed_tables():
        is_number = np.array([frame[c].dtype.kind in "fi" for c in frame])
        numbers, others = frame.columns[is_number], frame.columns[~is_number]
        scaled = (frame[numbers] - frame[numbers].mean()) / frame[numbers].std()
        frame, found = frame.assign(**scaled), []
        for seed in range(REPEATS):
            hidden = np.random.default_rng(seed).random(frame.shape) < SHARE
            found.append([])
            for fill in MIXED.values():
                start = time.process_time()
                filled = fill(frame.mask(hidden))
                cpu = time.process_time() - start
                gaps = (filled[numbers] - frame[numbers]).to_numpy(float)
                error = np.sqrt((gaps[hidden[:, is_number]] ** 2).mean())
                right = (filled[others] == frame[others]).to_numpy()
                found[-1].append((error, right[hidden[:, ~is_number]].mean(), cpu))
        cells = ["{:.3f} / {:.3f} / {:.2f}".format(*means) for means in np.mean(found, axis=0)]
        yield row(name, len(frame), len(numbers), len(others), *cells)


SECTIONS: dict[str, Callable[[list[Table]], Lines]] = {
    "rbm": restricted_boltzmann_machines,
    "vae": variational_autoencoders,
    "gan": generative_adversarial_networks,
    "impute": imputers,
    "impute_mixed": imputers_of_mixed_types,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", help="folder of the four idx files")
    parser.add_argument("--model", choices=SECTIONS, help="one section only")
    parser.add_argument("--only", default="", help="tables whose name contains this")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = [table for table in tables(options.mnist) if options.only in table.name]
        for name in [options.model] if options.model else SECTIONS:
            lines = []
            for line in SECTIONS[name](data):
                print(line, flush=True)
                lines.append(line)
            if options.write:
                write_results(f"defaults_{name}", lines)


if __name__ == "__main__":
    main()
