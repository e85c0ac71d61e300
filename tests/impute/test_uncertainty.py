"""How sure LatentImputer is, and what its model sees."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.stats import multivariate_normal
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skem import BayesianGMM_MAP, LatentImputer, MixtureDisplay, VAEEstimator


@pytest.fixture(name="table", scope="module")
def mixed_table():
    """Return two numbers and a category that goes with them, with holes."""
    rng = np.random.default_rng(0)
    group = rng.integers(3, size=300)
    numbers = 2.0 * group[:, None] + rng.normal(size=(300, 2)) * [1.0, 5.0]
    table = pd.DataFrame(numbers, columns=["a", "b"], index=np.arange(300) + 7)
    table = table.assign(
        kind=np.array(["x", "y", "z"])[group], on=numbers[:, 0] + rng.normal(size=300) > 2
    ).astype({"on": object})
    return table.mask(rng.random(table.shape) < 0.2)


@pytest.fixture(name="imputer", scope="module")
def single_gaussian(table):
    return LatentImputer(BayesianGMM_MAP(1)).fit(table)


def conditional(model, codes):
    """Return the conditional means and standard deviations of a single Gaussian."""
    mean, cov = model.means_[0], model.covariances_[0]
    filled, std = codes.copy(), np.zeros_like(codes)
    for i, row in enumerate(codes):
        o, m = ~np.isnan(row), np.isnan(row)
        gain = cov[np.ix_(m, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
        filled[i, m] = mean[m] + gain @ (row[o] - mean[o])
        std[i, m] = np.sqrt(np.diag(cov[np.ix_(m, m)] - gain @ cov[np.ix_(o, m)]))
    return filled, std


def test_the_model_sees_categories_as_numbers(table, imputer):
    codes = imputer.encode(table)
    names = imputer.code_names_.tolist()
    assert set(names[:5]) == {"a", "b", "kind_x", "kind_y", "kind_z"}
    assert names[5] in ("on_True", "on_False")
    np.testing.assert_array_equal(codes[:, :2], table[["a", "b"]].to_numpy(float))
    for j, name in enumerate(names[2:], 2):
        column, category = name.split("_")
        expected = (table[column].astype(str) == category).to_numpy(float)
        expected[table[column].isna()] = np.nan
        np.testing.assert_array_equal(codes[:, j], expected)


def test_standard_deviations_of_a_mixed_table(table, imputer):
    filled, std = imputer.impute(table, return_std=True)
    pd.testing.assert_frame_equal(filled, imputer.transform(table))
    assert std.index.equals(table.index)
    assert std.columns.tolist() == ["a", "b", "kind", "on"]
    codes, expected = conditional(imputer.estimator_, imputer.encode(table))
    gaps = table.isna().to_numpy()
    assert not std.to_numpy()[~gaps].any()
    np.testing.assert_allclose(std[["a", "b"]], expected[:, :2], rtol=1e-7)
    shares = np.clip(codes[:, 2:5], 0, 1)
    other = 1 - shares.max(1) / shares.sum(1)
    np.testing.assert_allclose(std["kind"][gaps[:, 2]], other[gaps[:, 2]], atol=1e-9)
    share = np.clip(codes[:, 5], 0, 1)
    other = np.minimum(share, 1 - share)
    np.testing.assert_allclose(std["on"][gaps[:, 3]], other[gaps[:, 3]], atol=1e-9)


def test_standard_deviations_of_numbers(table):
    numbers = table[["a", "b"]].assign(empty=np.nan)
    imputer = LatentImputer(BayesianGMM_MAP(1)).fit(numbers)
    _, expected = conditional(imputer.estimator_, numbers[["a", "b"]].to_numpy())
    of_array = LatentImputer(BayesianGMM_MAP(1)).fit(numbers.to_numpy())
    filled, std = of_array.impute(numbers.to_numpy(), return_std=True)
    assert isinstance(std, np.ndarray)
    np.testing.assert_allclose(std, expected, rtol=1e-7)
    for X in (numbers, pl.from_pandas(numbers)):
        found = imputer.impute(X, return_std=True)
        for frame, values in zip(found, (filled, std), strict=True):
            assert type(frame) is type(X)
            assert list(frame.columns) == ["a", "b"]
            np.testing.assert_allclose(frame.to_numpy(), values, rtol=1e-9)
    keeping = LatentImputer(BayesianGMM_MAP(1), keep_empty_features=True).fit(numbers)
    filled, std = keeping.impute(numbers, return_std=True)
    assert (filled["empty"] == 0).all()
    assert std["empty"].isna().all()


def test_a_frame_of_polars_with_categories(table, imputer):
    own = pl.from_pandas(table.astype({"on": "boolean"}))
    other = LatentImputer(BayesianGMM_MAP(1)).fit(own)
    filled, std = other.impute(own, return_std=True)
    expected, expected_std = imputer.impute(table, return_std=True)
    assert filled["kind"].to_list() == expected["kind"].tolist()
    np.testing.assert_allclose(std.to_numpy(), expected_std.to_numpy(), rtol=1e-7)


def test_about_as_many_cells_are_right_as_it_says(table):
    rng = np.random.default_rng(1)
    group = rng.integers(3, size=2000)
    complete = pd.DataFrame({"a": 4.0 * group + rng.normal(size=2000)})
    complete["kind"] = np.where(rng.random(2000) < 0.2, "other", group.astype(str))
    lost = rng.random(complete.shape) < [[0.3, 0.3]]
    imputer = LatentImputer().fit(complete.mask(lost))
    filled, std = imputer.impute(complete.mask(lost), return_std=True)
    wrong = (filled["kind"] != complete["kind"])[lost[:, 1]]
    n_lost = lost[:, 1].sum()
    assert abs(wrong.mean() - std["kind"][lost[:, 1]].mean()) < 3 * np.sqrt(0.2 / n_lost)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (VAEEstimator(1, max_iter=1, hidden_layer_sizes=(4,)), "VAEEstimator"),
        (make_pipeline(StandardScaler(), BayesianGMM_MAP(1)), "StandardScaler and Bayesian"),
    ],
)
def test_which_models_have_standard_deviations(table, model, name):
    numbers = table[["a", "b"]].to_numpy()
    imputer = LatentImputer(model).fit(numbers)
    np.testing.assert_array_equal(imputer.impute(numbers), imputer.transform(numbers))
    with pytest.raises(TypeError, match=f"return_std=True needs a Gaussian mixture.*{name}"):
        imputer.impute(numbers, return_std=True)


def test_scores_of_rows(table, imputer):
    scores = imputer.score_samples(table)
    model, expected = imputer.estimator_, []
    for row in imputer.encode(table):
        o = np.flatnonzero(~np.isnan(row))
        density = multivariate_normal(
            model.means_[0, o], model.covariances_[0][np.ix_(o, o)], allow_singular=True
        )
        expected.append(density.logpdf(row[o]) if len(o) else 0.0)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
    assert imputer.score(table) == pytest.approx(scores.mean())
    inside = LatentImputer(make_pipeline(StandardScaler(), BayesianGMM_MAP(1)))
    assert inside.fit(table[["a", "b"]]).score_samples(table[["a", "b"]]).shape == (300,)


def test_parts_of_a_collection(table):
    da = pytest.importorskip("dask.array")
    X = table[["a", "b"]].to_numpy()
    imputer = LatentImputer(BayesianGMM_MAP(1)).fit(X)
    lazy = da.from_array(X, chunks=(70, 2))
    for of_whole, of_parts in zip(
        (*imputer.impute(X, return_std=True), imputer.score_samples(X), imputer.encode(X)),
        (
            *imputer.impute(lazy, return_std=True),
            imputer.score_samples(lazy),
            imputer.encode(lazy),
        ),
        strict=True,
    ):
        assert isinstance(of_parts, da.Array)
        np.testing.assert_allclose(of_parts.compute(), of_whole, rtol=1e-9)


def test_a_display_shows_the_model_within(table, imputer):
    display = MixtureDisplay.from_estimator(imputer, table, features=["b", "kind_y"])
    assert display.ax_.get_xlabel() == "b"
    chosen = imputer.code_names_.tolist().index("kind_y")
    assert display.means[0, 1] == imputer.estimator_.means_[0, chosen]
    numbers = MixtureDisplay.from_estimator(imputer, table)
    assert numbers.feature_names == ["a", "b"]
    codes, _ = conditional(imputer.estimator_, imputer.encode(table))
    np.testing.assert_allclose(display.X, codes[:, [1, chosen]], rtol=1e-9)
