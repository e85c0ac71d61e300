"""Rows whose columns have other types than in fit."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from skem import BayesianGMM_MAP, CriterionDisplay, LatentImputer


@pytest.fixture(name="table", scope="module")
def mixed_table():
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=200)
    return pd.DataFrame(
        {
            "size": 3.0 * group + rng.normal(size=200),
            "kind": np.array(["small", "large"])[group],
            "alive": rng.random(200) < 0.5,
        }
    )


def imputer_of(table):
    return LatentImputer(BayesianGMM_MAP(1)).fit(table)


def test_one_row_without_its_categories(table):
    """A frame of one row has the type float64 for NaN, and object for None."""
    imputer = imputer_of(table)
    for missing in (np.nan, None, pd.NA):
        row = pd.DataFrame([{"size": 3.0, "kind": missing, "alive": missing}])
        filled, std = imputer.impute(row, return_std=True)
        assert filled["kind"].tolist() == ["large"]
        assert filled["kind"].dtype == table["kind"].dtype
        assert filled["alive"].dtype == bool
        assert 0 < std.loc[0, "kind"] < 0.5
        pd.testing.assert_frame_equal(imputer.transform(row), filled)
    empty = pd.DataFrame([{"size": None, "kind": "small", "alive": True}])
    assert imputer.transform(empty)["size"].dtype == float


@pytest.mark.parametrize("of_fit", [object, "category", "str"])
@pytest.mark.parametrize("later", [object, "category", "str"])
def test_strings_and_categoricals_replace_each_other(table, of_fit, later):
    imputer = imputer_of(table.astype({"kind": of_fit}))
    rows = table.astype({"kind": later})
    rows.loc[:4, "kind"] = np.nan
    filled = imputer.transform(rows)
    expected = imputer_of(table).transform(rows.astype({"kind": object}))
    assert filled["kind"].tolist() == expected["kind"].tolist()
    # categories that the fit does not know stay as they are
    others = table.assign(kind=table["kind"].replace("small", "tiny")).astype({"kind": later})
    assert imputer.transform(others)["kind"].tolist() == others["kind"].tolist()


def test_one_row_of_polars(table):
    imputer = imputer_of(pl.from_pandas(table))
    row = pl.DataFrame([{"size": 3.0, "kind": None, "alive": None}])
    filled = imputer.transform(row)
    assert filled["kind"].to_list() == ["large"]
    assert filled["alive"].dtype == pl.Boolean


def test_dates_are_refused_by_name(table):
    dated = table.assign(day=pd.date_range("2026-01-01", periods=200))
    with pytest.raises(ValueError, match="column 'day' of X holds dates or times"):
        LatentImputer().fit(dated)


def test_columns_that_identify_rows_are_told(table):
    named = table.assign(id=[f"row {i}" for i in range(200)])
    with pytest.warns(UserWarning, match="column 'id' of X has 200 categories in 200 rows"):
        imputer_of(named)


def test_criteria_of_the_model_within(table):
    display = CriterionDisplay.from_estimator(
        LatentImputer(BayesianGMM_MAP(prior="empirical", random_state=0)),
        table,
        param_range=(1, 2),
    )
    codes = imputer_of(table).encode(table)
    for model, bic in zip(display.estimators_, display.criteria["bic"], strict=True):
        assert bic == pytest.approx(model.bic(codes))
    with pytest.raises(TypeError, match="from_search for its held-out score"):
        CriterionDisplay.from_estimator(BayesianGMM_MAP(), codes, criteria=["waic"])
