"""LatentImputer against closed forms, and as its users meet it."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy.stats import multivariate_normal
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils._testing import ignore_warnings

from skem import BayesianGMM_MAP, BernoulliRBMCD, GANEstimator, LatentImputer, VAEEstimator


@pytest.fixture(name="X", scope="module")
def rows():
    return load_iris().data[np.random.default_rng(0).permutation(150)]


@pytest.fixture(name="holes", scope="module")
def rows_with_holes(X):
    return np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)


def test_fills_with_the_conditional_mean(X, holes):
    imputer = LatentImputer(BayesianGMM_MAP(1, reg_covar=0)).fit(X)
    mean, cov = X.mean(0), np.cov(X.T, bias=True)
    filled = imputer.transform(holes)
    for row, found in zip(holes, filled, strict=True):
        o, m = ~np.isnan(row), np.isnan(row)
        gain = cov[np.ix_(m, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
        expected = mean[m] + gain @ (row[o] - mean[o])
        np.testing.assert_allclose(found[m], expected, rtol=1e-8)
        np.testing.assert_array_equal(found[o], row[o])


def test_better_than_the_mean(X, holes):
    missing = np.isnan(holes)

    def error(imputer):
        return np.sqrt(((imputer.fit_transform(holes) - X)[missing] ** 2).mean())

    vae = VAEEstimator(2, max_iter=200, hidden_layer_sizes=(32,), random_state=0)
    for model in (None, BayesianGMM_MAP(3, prior="empirical", random_state=0), vae):
        assert error(LatentImputer(model)) < 0.6 * error(SimpleImputer())


def test_tuned_in_a_pipeline(X, holes):
    y = load_iris().target[np.random.default_rng(0).permutation(150)]
    pipeline = make_pipeline(
        StandardScaler(),
        LatentImputer(BayesianGMM_MAP(prior="empirical", random_state=0)),
        LogisticRegression(),
    )
    grid = {"latentimputer__estimator__n_components": [1, 2, 3]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(holes, y)
    assert search.best_score_ > 0.85
    alone = GridSearchCV(
        LatentImputer(BayesianGMM_MAP(prior="empirical", random_state=0)),
        {"estimator__n_components": [1, 2, 10]},
    ).fit(holes)
    assert np.isfinite(alone.best_score_)


def test_models_that_need_complete_rows(X, holes):
    class Complete(BayesianGMM_MAP):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.input_tags.allow_nan = False
            return tags

    complete = ~np.isnan(holes).any(1)
    weight = np.arange(150.0)
    one = LatentImputer(Complete(1)).fit(holes, sample_weight=weight)
    two = BayesianGMM_MAP(1).fit(holes[complete], sample_weight=weight[complete])
    np.testing.assert_allclose(one.estimator_.means_, two.means_)
    with pytest.raises(ValueError, match="no row of X is complete"):
        LatentImputer(Complete(1)).fit(np.where(np.eye(4)[np.arange(150) % 4] > 0, np.nan, X))


def test_frames_weights_and_names(X, holes):
    frame = pd.DataFrame(holes, columns=list("abcd"))
    imputer = LatentImputer(BayesianGMM_MAP(1)).set_output(transform="pandas")
    out = imputer.fit(frame, sample_weight=np.r_[np.ones(100), np.zeros(50)]).transform(frame)
    assert list(out.columns) == list(imputer.get_feature_names_out()) == list("abcd")
    np.testing.assert_allclose(
        imputer.estimator_.means_, BayesianGMM_MAP(1).fit(holes[:100]).means_
    )
    with sklearn.config_context(enable_metadata_routing=True):
        model = BayesianGMM_MAP(1).set_fit_request(sample_weight=True)
        routed = LatentImputer(model).fit(holes, sample_weight=np.arange(150.0))
    direct = BayesianGMM_MAP(1).fit(holes, sample_weight=np.arange(150.0))
    np.testing.assert_allclose(routed.estimator_.means_, direct.means_)
    assert (
        LatentImputer().fit(holes.astype(np.float32)).transform(holes.astype(np.float32)).dtype
        == np.float32
    )


def test_observed_values_stay(X):
    rows = np.array([[np.nan, 0.0, 3.0, -2.0]])
    model = BernoulliRBMCD(4, n_iter=3, random_state=0)
    imputer = LatentImputer(model).fit((X.mean(0) < X) * 1.0)
    with pytest.warns(UserWarning, match="outside \\[0, 1\\] are clipped"):
        filled = imputer.transform(rows)
    np.testing.assert_array_equal(filled[0, 1:], rows[0, 1:])
    assert 0 <= filled[0, 0] <= 1


def test_models_of_others(holes):
    class Toy(BaseEstimator):
        def fit(self, X, foo=None, sample_weight=None):
            self.mean_, self.foo_ = np.average(X, axis=0, weights=sample_weight), foo
            return self

        def impute(self, X):
            return np.where(np.isnan(X), self.mean_, X)

    imputer = LatentImputer(Toy()).fit(holes, foo="abc", sample_weight=np.ones(150))
    assert imputer.estimator_.foo_ == "abc"
    assert not hasattr(imputer, "score")
    weight = np.r_[np.ones(100), np.zeros(50)]
    mixture = LatentImputer(BayesianGMM_MAP(1)).fit(holes)
    expected = mixture.estimator_.score(holes[:100])
    assert mixture.score(holes, sample_weight=weight) == pytest.approx(expected)


def test_wrong_models_are_named(X):
    with pytest.raises(TypeError, match="GANEstimator has none"):
        LatentImputer(GANEstimator()).fit(X)
    with pytest.raises(ValueError, match="inf"):
        LatentImputer().fit(np.where(X > 7, np.inf, X))


# -- the default model ------------------------------------------------------------------------


@ignore_warnings(category=ConvergenceWarning)
def error(imputer, X, missing):
    filled = imputer.fit_transform(np.where(missing, np.nan, X))
    return np.sqrt((((filled - X) / X.std(0))[missing] ** 2).mean())


def of_clusters(n, seed=0):
    """Rows of six clusters in four dimensions."""
    rng = np.random.default_rng(seed)
    means = 4 * rng.normal(size=(6, 4))
    return means[rng.integers(6, size=n)] + rng.normal(size=(n, 4))


def of_factors(n, D, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, D)) + rng.normal(size=(n, D))


TABLES = {
    "iris": lambda: load_iris().data,
    "wine": lambda: load_wine().data,
    "diabetes": lambda: load_diabetes().data,
    "clusters": lambda: of_clusters(800),
    "few factors": lambda: of_factors(100, 30),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_default_is_no_worse_than_scikit_learns(name):
    X = TABLES[name]()
    missing = np.random.default_rng(3).random(X.shape) < 0.2
    peers = [
        error(
            make_pipeline(StandardScaler(), KNNImputer()), (X - X.mean(0)) / X.std(0), missing
        ),
        error(IterativeImputer(random_state=0), X, missing),
    ]
    assert error(LatentImputer(), X, missing) < 1.02 * min(peers)


def test_the_default_follows_the_rows():
    chosen = LatentImputer().fit(of_factors(300, 5)).estimator_
    assert chosen.n_components == 1
    assert LatentImputer().fit(of_clusters(1000)).estimator_.n_components >= 8
    few = LatentImputer().fit(of_clusters(40)).estimator_
    assert few.n_components == 1  # each component needs 30 rows
    wide = LatentImputer().fit(of_factors(60, 30)).estimator_
    assert wide.degrees_of_freedom_prior is not None  # the stronger prior
    assert chosen.get_params()["warm_start"] is False


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_rows_lower_the_number_of_components(n):
    X = of_clusters(n)
    X[0, 1] = np.nan
    filled = LatentImputer().fit_transform(X)
    assert np.isfinite(filled).all()


def test_the_default_does_not_depend_on_units():
    X = np.where(np.random.default_rng(0).random((200, 4)) < 0.2, np.nan, of_clusters(200))
    units = np.array([1e-6, 1.0, 1e5, 1e9])
    one, two = LatentImputer().fit_transform(X), LatentImputer().fit_transform(X * units)
    np.testing.assert_allclose(two / units, one, rtol=1e-5, atol=1e-6)


def test_constant_columns_and_weights_of_the_default():
    X = np.c_[of_clusters(100), np.full(100, 7.0)]
    X[:5, 4] = np.nan
    filled = LatentImputer().fit_transform(X)
    np.testing.assert_allclose(filled[:5, 4], 7)
    weight = np.r_[np.ones(60), np.zeros(40)]
    a = LatentImputer().fit(X, sample_weight=weight).transform(X)
    b = LatentImputer().fit(X[:60]).transform(X)
    np.testing.assert_allclose(a, b)


# -- tables of mixed types --------------------------------------------------------------------


def mixed(n=400, seed=0):
    """A group decides the category, the flag, the level, and a mean."""
    rng = np.random.default_rng(seed)
    group = rng.integers(3, size=n)
    a = rng.normal(size=n) + 4 * group
    frame = pd.DataFrame(
        {
            "a": a,
            "text": np.array(["x", "y", "z"])[group],
            "kind": pd.Categorical(np.array(["u", "v", "w"])[group], ["w", "u", "v", "never"]),
            "flag": pd.array(group > 1, dtype="boolean"),
            "level": pd.array(group, dtype="Int64"),
            "b": (2 * a + rng.normal(size=n)).astype(np.float32),
        }
    )
    missing = rng.random(frame.shape) < 0.2
    missing[:, 1:4] &= ~missing[:, [4]]  # something tells the group
    holes = frame.copy()
    for j in range(frame.shape[1]):
        holes.iloc[missing[:, j], j] = None
    return frame, holes, missing


@pytest.mark.slow
def test_categories_come_back_as_they_were():
    frame, holes, missing = mixed()
    chosen = ["text", "kind", "flag", "level"]
    imputer = LatentImputer(categorical_features=chosen).fit(holes)
    out = imputer.transform(holes)
    assert type(out) is pd.DataFrame
    assert list(out.columns) == list(frame.columns)
    assert not out.isna().any().any()
    for j, name in enumerate(frame):
        seen, hidden = ~missing[:, j], missing[:, j]
        if name in chosen:
            assert out[name].dtype == frame[name].dtype
            assert (out[name] == frame[name])[hidden].mean() > 0.95
        np.testing.assert_array_equal(
            out[name][seen].to_numpy(object), frame[name][seen].to_numpy(object)
        )
    by_index = LatentImputer(categorical_features=[1, 2, 3, 4]).fit_transform(holes)
    by_mask = LatentImputer(categorical_features=[False, *[True] * 4, False])
    pd.testing.assert_frame_equal(by_index, out)
    pd.testing.assert_frame_equal(by_mask.fit_transform(holes), out)
    again = pickle.loads(pickle.dumps(imputer)).transform(holes[:1])
    pd.testing.assert_frame_equal(again, out[:1])
    assert np.isfinite(imputer.score(holes))


def test_types_tell_the_categories():
    _, holes, _ = mixed()
    out = LatentImputer().fit_transform(holes)
    kinds = {name: out[name].dtype.kind for name in ("a", "level", "b", "flag")}
    assert kinds == {"a": "f", "level": "f", "b": "f", "flag": "b"}
    assert set(out["text"]) == {"x", "y", "z"}
    holes["text"] = holes["text"].astype(object)
    objects = LatentImputer().fit_transform(holes)
    assert (objects["text"] == out["text"]).all()
    theirs = LatentImputer().fit_transform(pl.from_pandas(holes))
    assert type(theirs) is pl.DataFrame
    assert theirs["text"].to_list() == out["text"].tolist()
    assert theirs["flag"].dtype == pl.Boolean
    plain = LatentImputer(categorical_features=None)
    with pytest.raises(ValueError, match="cannot be converted to a number"):
        plain.fit(holes)


def test_categories_in_arrays():
    frame, holes, missing = mixed()
    array = holes[["a", "text"]].to_numpy(object)
    out = LatentImputer(categorical_features=[1]).fit_transform(array)
    assert out.dtype == object
    hidden = missing[:, 1]
    assert (out[hidden, 1] == frame["text"].to_numpy(object)[hidden]).mean() > 0.8
    codes = holes[["a", "level"]].to_numpy(float, na_value=np.nan)
    assert codes.dtype == float
    out = LatentImputer(categorical_features=[-1]).fit_transform(codes)
    assert out.dtype == float
    assert set(out[:, 1]) == {0, 1, 2}


def test_categories_are_filled_by_bayes_rule():
    """With one flag missing, the filled one is the more probable under the mixture."""
    _, holes, _ = mixed(seed=1)
    holes = holes[["a", "flag"]]
    imputer = LatentImputer(BayesianGMM_MAP(1)).fit(holes)
    model, rows = imputer.estimator_, holes[holes["flag"].isna() & holes["a"].notna()]
    x = rows["a"].to_numpy()
    normal = multivariate_normal(model.means_[0], model.covariances_[0], allow_singular=True)
    one = normal.logpdf(np.column_stack([x, np.ones_like(x)]))
    zero = normal.logpdf(np.column_stack([x, np.zeros_like(x)]))
    # the code 1 is the rarer category
    rarer = holes["flag"].mean() < 0.5
    expected = np.where(one > zero, rarer, not rarer)
    np.testing.assert_array_equal(imputer.transform(rows)["flag"].to_numpy(bool), expected)


def test_unseen_rare_and_single_categories():
    frame, holes, _ = mixed()
    imputer = LatentImputer().fit(holes)
    new = holes[:3].copy()
    new["text"] = ["unseen", None, "x"]
    new["kind"] = pd.Categorical(["other", None, "u"])
    out = imputer.transform(new)
    assert out["text"][0] == "unseen"
    assert out["kind"].tolist()[0::2] == ["other", "u"]
    many = pd.DataFrame({"name": [f"n{i % 50}" for i in range(200)], "a": np.arange(200.0)})
    many.loc[:4, "name"] = None
    assert (
        LatentImputer().fit(many).estimator_.means_.shape[1] == 21
    )  # 20 categories have codes
    assert LatentImputer().fit_transform(many)["name"].notna().all()
    single = frame.assign(text=["x"] * 399 + [None])
    assert set(LatentImputer().fit_transform(single)["text"]) == {"x"}


def test_wrong_categories_are_named():
    _, holes, _ = mixed()
    for wrong in ("auto", ["nothing"], [17], [0.5]):
        with pytest.raises(ValueError, match="categorical_features"):
            LatentImputer(categorical_features=wrong).fit(holes)
    empty = holes.assign(text=pd.array([None] * 400, dtype="string"))
    with pytest.raises(ValueError, match="column 1 of X has no observed category"):
        LatentImputer(categorical_features=["text"]).fit(empty)
    kept = LatentImputer(BayesianGMM_MAP(1)).fit(empty)
    assert "text" not in kept.transform(empty).columns
    assert "text" not in kept.get_feature_names_out()
    imputer = LatentImputer(BayesianGMM_MAP(1)).fit(holes)
    with pytest.raises(ValueError, match="feature names should match"):
        imputer.transform(holes[holes.columns[::-1]])


# -- models inside others, and the options of scikit-learn's imputers -------------------------


def test_a_pipeline_a_search_or_a_frozen_model_inside(X, holes):
    mean, scale = np.nanmean(holes, 0), np.nanstd(holes, 0)
    own = BayesianGMM_MAP(2, prior="empirical", random_state=0)
    expected = own.fit((holes - mean) / scale).impute((holes - mean) / scale) * scale + mean
    pipeline = make_pipeline(StandardScaler(), clone(own))
    for model in (pipeline, GridSearchCV(pipeline, {"bayesiangmm_map__n_components": [2]})):
        imputer = LatentImputer(model)
        for y in (None, np.zeros(150)):
            np.testing.assert_allclose(imputer.fit(holes, y).transform(holes), expected)
        assert np.isfinite(imputer.score(holes))
    frozen = LatentImputer(FrozenEstimator(pipeline.fit(holes)))
    np.testing.assert_allclose(frozen.fit(holes[:5]).transform(holes), expected)
    with pytest.raises(TypeError, match="inverse_transform, but Normalizer"):
        LatentImputer(make_pipeline(Normalizer(), clone(own))).fit(holes)


@pytest.mark.filterwarnings("ignore:Skipping features")
def test_options_of_the_imputers_of_scikit_learn(X, holes):
    rows = np.c_[holes, np.full(150, np.nan)]
    for options in ({}, {"keep_empty_features": True}, {"add_indicator": True}):
        found = LatentImputer(BayesianGMM_MAP(1), **options).fit(rows)
        theirs = SimpleImputer(**options).fit(rows)
        out = found.transform(rows)
        assert out.shape == theirs.transform(rows).shape
        np.testing.assert_array_equal(
            found.get_feature_names_out(), theirs.get_feature_names_out()
        )
    assert (LatentImputer(keep_empty_features=True).fit_transform(rows)[:, 4] == 0).all()
    flags = SimpleImputer(add_indicator=True).fit_transform(rows)[:, 4:]
    np.testing.assert_array_equal(
        LatentImputer(add_indicator=True).fit_transform(rows)[:, 4:], flags
    )
    with_names = pd.DataFrame(rows, columns=list("abcde"))
    frame = LatentImputer(add_indicator=True).set_output(transform="pandas")
    names = list("abcd") + [f"missingindicator_{c}" for c in "abcde"]
    assert list(frame.fit_transform(with_names).columns) == names
    marked = np.where(np.isnan(holes), -9, holes)
    np.testing.assert_allclose(
        LatentImputer(missing_values=-9).fit_transform(marked),
        LatentImputer().fit_transform(holes),
    )
    out = LatentImputer(BayesianGMM_MAP(1), min_value=[0, 0, 3, 0], max_value=5.5)
    filled = out.fit_transform(holes)[np.isnan(holes)]
    plain = LatentImputer(BayesianGMM_MAP(1)).fit_transform(holes)
    low = np.broadcast_to([0, 0, 3, 0], holes.shape)
    np.testing.assert_allclose(filled, np.clip(plain, low, 5.5)[np.isnan(holes)])
    for wrong in ({"min_value": [1, 2]}, {"min_value": 3, "max_value": 2}):
        with pytest.raises(ValueError, match="min_value"):
            LatentImputer(**wrong).fit(holes)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_draws_have_the_conditional_moments(kind):
    """Against the conditional of a mixture, computed component by component."""
    rng = np.random.default_rng(0)
    X = of_clusters(300)[:, :3] + rng.normal(size=(300, 1))
    model = BayesianGMM_MAP(3, covariance_type=kind, random_state=0).fit(X)
    row = np.array([X[0, 0] + 1, np.nan, np.nan])
    rows = np.tile(row, (20_000, 1))
    imputer = LatentImputer(FrozenEstimator(model), sample_posterior=True, random_state=0)
    drawn = imputer.fit(X).transform(rows)
    np.testing.assert_array_equal(drawn, imputer.transform(rows))
    means, second, shares = [], [], []
    for k, mean in enumerate(model.means_):
        cov = model.covariances_ if kind == "tied" else model.covariances_[k]
        cov = cov if np.ndim(cov) == 2 else np.eye(3) * cov
        gain = cov[1:, 0] / cov[0, 0]
        means.append(mean[1:] + gain * (row[0] - mean[0]))
        rest = cov[1:, 1:] - np.outer(gain, cov[0, 1:])
        second.append(rest + np.outer(means[-1], means[-1]))
        density = multivariate_normal(mean[0], cov[0, 0]).pdf(row[0])
        shares.append(model.weights_[k] * density)
    shares = np.array(shares) / sum(shares)
    expected = shares @ np.array(means)
    covariance = np.einsum("k,kij->ij", shares, second) - np.outer(expected, expected)
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(drawn[:, 1:].mean(0), expected, atol=4 * spread.max() / 141)
    np.testing.assert_allclose(
        np.cov(drawn[:, 1:].T) / np.outer(spread, spread),
        covariance / np.outer(spread, spread),
        atol=0.06,
    )


def test_only_mixtures_draw(X):
    own = LatentImputer(
        BayesianGMM_MAP(2, random_state=0), sample_posterior=True, random_state=0
    )
    rows = np.array([[5.0, 3.5, np.nan, 0.2], [np.nan] * 4])
    one, two = own.fit(X).transform(rows), own.set_params(random_state=1).transform(rows)
    assert (one != two).sum() == 5
    assert np.isfinite(LatentImputer(sample_posterior=True).fit(X).transform(rows)).all()
    imputer = LatentImputer(VAEEstimator(max_iter=1), sample_posterior=True)
    with pytest.raises(TypeError, match="VAEEstimator"):
        imputer.fit(X).transform(X)


# -- categories by their own likelihood -------------------------------------------------------


def table_of_groups(rng, n):
    """Strings, booleans, codes and a number that a hidden group ties together."""
    group = rng.integers(3, size=n)
    odds = np.array([[0.85, 0.1, 0.05], [0.05, 0.85, 0.1], [0.1, 0.05, 0.85]])
    kind = (rng.random((n, 1)) > odds[group].cumsum(1)).sum(1)
    code = (rng.random((n, 1)) > odds[group][:, [2, 0, 1]].cumsum(1)).sum(1)
    return pd.DataFrame(
        {
            "kind": np.array(["red", "green", "blue"])[kind],
            "wide": np.where(group == 0, rng.random(n) < 0.9, rng.random(n) < 0.1),
            "size": 100 + 20 * group + 4 * rng.normal(size=n),
            "code": 7 * code,
        }
    )


def small_vae(**options):
    return VAEEstimator(3, hidden_layer_sizes=(16,), max_iter=20, random_state=0, **options)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["auto", "gaussian", {"gaussian": ["size"]}])
def test_a_vae_fills_categories_by_their_likelihood(likelihood):
    table = table_of_groups(np.random.default_rng(0), 600)
    lost = np.random.default_rng(1).random(table.shape) < 0.2
    holes = table.astype({"wide": "boolean", "code": "Int64"}).mask(lost)
    columns = ["kind", "wide", "code"]
    vae = small_vae(likelihood=likelihood)
    imputer = LatentImputer(vae, categorical_features=columns).fit(holes)
    assert vae.likelihood == likelihood
    expected = {"gaussian": [2], "bernoulli": [], "categorical": [0, 1, 3]}
    assert imputer.estimator_.likelihood_ == expected
    assert np.isfinite(imputer.score(holes))
    filled = imputer.transform(holes)
    assert (filled.dtypes == holes.dtypes).all()
    for j, name in enumerate(table):
        own = lost[:, j]
        assert (filled[name] == table[name])[~own].all()
        if name in columns:
            right = (filled[name] == table[name])[own].mean()
            assert right > (table[name][own] == table[name].mode()[0]).mean() + 0.15
    assert np.abs(filled["size"] - table["size"])[lost[:, 2]].mean() < 12  # apart: 14.8


def test_a_vae_sees_rare_and_new_categories_as_missing():
    rng = np.random.default_rng(0)
    table = table_of_groups(rng, 200)
    table.loc[:24, "kind"] = [f"rare {i}" for i in range(25)]
    imputer = LatentImputer(small_vae()).fit(table)
    new = table[:30].copy()
    new.loc[29, "kind"] = "never seen"
    filled = imputer.transform(new)
    assert filled["kind"].tolist() == new["kind"].tolist()  # what is observed stays
    new.loc[28:, "kind"] = None
    assert set(imputer.transform(new)["kind"][28:]) <= set(table["kind"])


def test_which_models_get_codes():
    table = table_of_groups(np.random.default_rng(0), 200)
    search = GridSearchCV(small_vae(), {"n_components": [1, 2]}, cv=2)
    found = LatentImputer(search).fit(table).estimator_.best_estimator_
    assert found.likelihood_["categorical"] == [0, 1]
    pipeline = make_pipeline(StandardScaler(), small_vae())
    inside = LatentImputer(pipeline).fit(table).estimator_[-1]
    assert inside.n_features_in_ == 6  # 3 colors, and a column each for the others
    conflict = LatentImputer(small_vae(likelihood={"gaussian": ["kind"]}))
    with pytest.raises(ValueError, match="column 'kind' under 'gaussian', but it holds cat"):
        conflict.fit(table)
    numbers = table[["size", "code"]] / [1, 7]
    by_name = LatentImputer(small_vae(likelihood={"categorical": ["code"]})).fit(numbers)
    assert by_name.estimator_.likelihood_["categorical"] == [1]
    empty = table.assign(size=np.nan)
    kept = LatentImputer(small_vae()).fit(empty)
    assert kept.estimator_.likelihood_ == {
        "gaussian": [2], "bernoulli": [], "categorical": [0, 1],
    }  # fmt: skip
    assert list(kept.transform(empty)) == ["kind", "wide", "code"]


# -- back to rows with holes ------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
def test_the_inverse_brings_holes_back(holes, keep):
    holes = np.column_stack([holes, np.full(len(holes), np.nan)])
    imputer = LatentImputer(add_indicator=True, keep_empty_features=keep)
    filled = imputer.fit_transform(holes)
    np.testing.assert_array_equal(imputer.inverse_transform(filled), holes)
    marked = np.where(np.isnan(holes), -1, holes)
    imputer.set_params(missing_values=-1)
    np.testing.assert_array_equal(
        imputer.inverse_transform(imputer.fit_transform(marked)), marked
    )
    with pytest.raises(ValueError, match=r"columns, but transform returns"):
        imputer.inverse_transform(holes[:, :2])
    with pytest.raises(ValueError, match="add_indicator=True"):
        LatentImputer().fit(holes).inverse_transform(filled)


def test_the_inverse_of_frames(holes):
    frame = pd.DataFrame(holes, columns=list("abcd"), index=np.arange(len(holes)) + 7)
    frame["kind"] = pd.Series(np.where(holes[:, 0] > 5, "x", "y"), index=frame.index)
    frame.loc[10:20, "kind"] = None
    imputer = LatentImputer(add_indicator=True)
    back = imputer.inverse_transform(imputer.fit_transform(frame))
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    back = imputer.inverse_transform(imputer.fit_transform(pl.from_pandas(frame)))
    assert back.equals(pl.from_pandas(frame))


def test_a_table_with_hardly_a_value():
    X = np.full((7, 2), np.nan)
    X[-1] = [0.9, 0.1]
    np.testing.assert_allclose(LatentImputer().fit(X).transform(X), np.tile(X[-1], (7, 1)))


def test_draws_of_the_parts_of_a_collection_differ():
    da = pytest.importorskip("dask.array")
    X = np.column_stack([np.arange(400) % 200 + 1e-9 * np.arange(400), np.full(400, np.nan)])
    known = np.random.default_rng(0).normal(size=(100, 2))
    imputer = LatentImputer(BayesianGMM_MAP(1), sample_posterior=True, random_state=0)
    blocks = da.from_array(X, chunks=(200, 2))
    drawn = np.asarray(imputer.fit(known).transform(blocks))[:, 1]
    first, second = drawn[:200], drawn[200:]
    assert abs(np.corrcoef(np.diff(first), np.diff(second))[0, 1]) < 0.3
    np.testing.assert_array_equal(imputer.transform(blocks)[:, 1], drawn)


def test_fewer_rows_than_components():
    X = np.random.default_rng(0).normal(size=(6, 3))
    X[0, 0] = np.nan
    mixture = BayesianGMM_MAP(20, prior="empirical", random_state=0)
    for model in (mixture, make_pipeline(StandardScaler(), clone(mixture))):
        imputer = LatentImputer(model)
        with pytest.warns(UserWarning, match="more than the 6 rows"):
            filled = imputer.fit_transform(X)
        assert np.isfinite(filled).all()
    assert mixture.n_components == 20  # only the copy is changed
