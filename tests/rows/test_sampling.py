"""Samples to start from."""

import numpy as np
import pytest

from skem._rows.sampling import _first_of_equal


@pytest.mark.parametrize("n_rows", [1, 2, 50])
@pytest.mark.parametrize("block_size", [1, 7, 2**17])
def test_runs_of_equal_rows_across_blocks(n_rows, block_size, monkeypatch):
    monkeypatch.setattr("skem._rows.sampling.BLOCK_SIZE", block_size)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, size=(n_rows, 3)).astype(float)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    expected = [0]
    for i in range(1, n_rows):
        if not np.array_equal(rows[i - 1], rows[i], equal_nan=True):
            expected.append(i)
    assert _first_of_equal(rows).tolist() == expected
