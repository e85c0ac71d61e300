"""What the empirical prior of BayesianGMM_MAP costs and gains, against the flat one.

    python benchmarks/prior.py [--repeats N] [--write]

Held-out log-likelihood minus that of the true mixture, in nats per row, for Gaussian groups
with and without correlations. "without correlations" is the prior of the class; the others
are what it was chosen from: the covariance of the data instead of its diagonal, 3 rows instead
of 1, and the proper prior of Fraley and Raftery (2007) with nu_0 = D + 2.
"""

import argparse
import warnings

import numpy as np
from joblib import Parallel, delayed
from results import write_results
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from skem import BayesianGMM_MAP

FEATURES, RATIOS, COMPONENTS = (2, 5, 10, 20, 30), (1.5, 3, 5, 10, 30), (1, 3)
TYPES = ("full", "tied", "diag", "spherical")
N_TEST = 1500


def truth(D, K, kind, rng, correlated):
    """Draw means and covariances of K groups."""
    means = 2.0 * rng.normal(size=(K, D)) * (K > 1)
    covariances = np.tile(np.eye(D), (K, 1, 1))
    if correlated and kind in ("full", "tied"):
        factors = rng.normal(size=(K, D, D)) / np.sqrt(D) + 0.5 * np.eye(D)
        covariances = factors @ factors.transpose(0, 2, 1) + 0.05 * np.eye(D)
        if kind == "tied":
            covariances[:] = covariances[0]
    return means, covariances


def draw(n, means, covariances, rng):
    K, D = means.shape
    factors = np.linalg.cholesky(covariances)
    y = rng.integers(K, size=n)
    return means[y] + np.einsum("nij,nj->ni", factors[y], rng.normal(size=(n, D)))


def candidates(D, K, kind, X):
    """Return the options of each prior."""
    covariance = np.cov(X.T, bias=True).reshape(D, D) / K ** (2 / D)
    diagonal = np.diag(covariance)
    if np.linalg.eigvalsh(covariance).min() < 1e-6 * diagonal.max():
        covariance = 0.99 * covariance + 0.01 * np.diag(diagonal)
    scales = {"full": covariance, "tied": covariance, "diag": diagonal}
    scale = scales.get(kind, diagonal.mean())
    flat = {"full": -(D + 2), "tied": -(D + 1 + K), "diag": -3, "spherical": -(D + 2)}[kind]
    common = {"mean_precision_prior": 0.01, "mean_prior": X.mean(0)}
    return {
        "flat": {},
        "without correlations": {"prior": "empirical"},
        "with correlations": {
            "covariance_prior": scale,
            "degrees_of_freedom_prior": flat + 1,
            **common,
        },
        "3 rows": {
            "covariance_prior": 3 * scale,
            "degrees_of_freedom_prior": flat + 3,
            **common,
        },
        "proper": {"covariance_prior": scale, "degrees_of_freedom_prior": D + 2, **common},
    }


def gaps(D, ratio, K, kind, seed):
    """Return the held-out gap of each prior to the truth."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng([D, int(10 * ratio), K, seed])
    means, covariances = truth(D, K, kind, rng, seed % 2)
    X, test = (draw(n, means, covariances, rng) for n in (int(ratio * D * K), N_TEST))
    parts = zip(means, covariances, strict=True)
    log_joint = [multivariate_normal(m, c).logpdf(test) - np.log(K) for m, c in parts]
    best = logsumexp(log_joint, axis=0).mean()
    return [
        BayesianGMM_MAP(K, covariance_type=kind, random_state=0, **options).fit(X).score(test)
        - best
        for options in candidates(D, K, kind, X).values()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    names = list(candidates(2, 1, "full", np.eye(2)))
    lines = [
        "| covariance | K | D | rows per feature and component | " + " | ".join(names) + " |",
        "|" + "---|" * (4 + len(names)),
    ]
    worst = -np.inf
    with Parallel(2) as parallel:
        for kind in TYPES:
            for K in COMPONENTS:
                for D in FEATURES:
                    for ratio in RATIOS:
                        found = parallel(
                            delayed(gaps)(D, ratio, K, kind, seed)
                            for seed in range(options.repeats)
                        )
                        flat, ours, *rest = np.mean(found, axis=0)
                        worst = max(worst, flat - ours)
                        cells = " | ".join(f"{value:.2f}" for value in (flat, ours, *rest))
                        lines.append(f"| {kind} | {K} | {D} | {ratio:g} | {cells} |")
    print("\n".join(lines))
    print(f"\nlargest loss of the empirical prior against the flat one: {worst:.3f} nats")
    if options.write:
        write_results("prior", [__doc__.split("\n\n")[2].replace("\n", " "), "", *lines])


if __name__ == "__main__":
    main()
