"""How good default starts of a mixture are when values are missing.

    python benchmarks/starts_missing.py [--seeds 4] [--write]

On each table a share of the values is removed at random. The objective of a fit with one start,
in nats per row, is compared with that of the best of ten. Ten minutes.
"""

import argparse
import time
import warnings

import numpy as np
from results import write_results
from tables import tables
from threadpoolctl import threadpool_limits

from skem import BayesianGMM_MAP

MAX_ROWS, MAX_FEATURES = 1000, 8
SHARES, COMPONENTS = (0.1, 0.3), (3, 5)


def lines(n_seeds: int):
    cells = "table", "missing", "loss of one start", "worst", "empty components", "time of ten"
    yield "| " + " | ".join(cells) + " |"
    yield "|---" * len(cells) + "|"
    for table in tables(None):
        X = np.asarray(table.X, float)[:MAX_ROWS, :MAX_FEATURES]
        X = X[:, np.ptp(X, axis=0) > 0]
        if len(X) < 60 or X.shape[1] < 2:
            continue
        for share in SHARES:
            losses, n_empty, seconds = [], 0, {1: 0.0, 10: 0.0}
            for seed in range(n_seeds):
                lost = np.random.default_rng(seed).random(X.shape) < share
                rows = np.where(lost, np.nan, X)[~lost.all(1)]
                for K in COMPONENTS:
                    ends = {}
                    for n_init in seconds:
                        start = time.process_time()
                        ends[n_init] = BayesianGMM_MAP(
                            K, prior="empirical", n_init=n_init, random_state=seed
                        ).fit(rows)
                        seconds[n_init] += time.process_time() - start
                    losses.append(ends[10].lower_bound_ - ends[1].lower_bound_)
                    n_empty += int((ends[1].weights_ * len(rows) < 1).sum())
            yield (
                f"| {table.name} | {share:.0%} | {np.mean(losses):.3f} | {max(losses):.3f} "
                f"| {n_empty} of {len(losses)} fits | {seconds[10] / seconds[1]:.1f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    options = parser.parse_args()
    found = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for line in lines(options.seeds):
            print(line, flush=True)
            found.append(line)
    if options.write:
        write_results("starts_missing", found)


if __name__ == "__main__":
    main()
