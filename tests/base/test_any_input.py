"""Any parameters, rows, weights and calls give numbers, a ValueError or a TypeError.

``pytest tests/base/test_any_input.py --hypothesis-profile=long`` tries 5000 examples for each
estimator.
"""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone

from skem import (
    BayesianGMM_MAP,
    BernoulliRBMCD,
    GANEstimator,
    LatentImputer,
    ShiftedTemplateEM,
    VAEEstimator,
)

da = pytest.importorskip("dask.array")

# What users may catch, or see: a RuntimeWarning of NumPy or torch is neither.
ERRORS = ValueError, TypeError
NUMBERS = st.one_of(
    st.floats(-10, 10, width=32),
    st.sampled_from([0.0, 1.0, 0.5, 255.0, 1e-30, 1e30, -1e-300]),
)
WILD = st.one_of(NUMBERS, st.sampled_from([np.nan, np.inf, -np.inf, 1e154, 1e300, -1e308]))
COUNTS = st.sampled_from([1, 2, 3, 5, np.int8(3), 0, -1, 2.5, None, "many"])
SEEDS = st.sampled_from([0, 1, None, np.random.RandomState(3), -1])
SHARES = st.sampled_from([0.0, 0.1, 0.5, 1.0, -0.5, 3.0, np.nan, "half"])
SIZES = st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 10.0, 1e10, 0, -1.0, np.inf])
FLAGS = st.sampled_from([True, False, True, False, "yes"])
COMMON = {"random_state": SEEDS, "warm_start": FLAGS, "verbose": st.just(0)}
NETWORK = {
    "n_components": COUNTS,
    "hidden_layer_sizes": st.sampled_from([(), (3,), (4, 2), 3, (0,), None]),
    "activation": st.sampled_from(["relu", "tanh", "gelu", "step"]),
    "batch_size": st.sampled_from(["auto", 1, 4, 100, 0]),
    "learning_rate": st.sampled_from(["one_cycle", "constant", 0.001]),
    "learning_rate_init": SIZES,
    "image_shape": st.sampled_from([None, None, None, (2, 2), (1, 3), (3,), (0, 0)]),
    **COMMON,
}
MODELS = {
    "template": (
        ShiftedTemplateEM(max_iter=3, random_state=0),
        {
            "template_width": COUNTS,
            "template_height": COUNTS,
            "max_iter": COUNTS,
            "tol": SIZES,
            "absent": FLAGS,
            "noise_std_init": SIZES,
            "shift_concentration_prior": SIZES,
            "n_templates": st.sampled_from([1, 1, 2, 3, 0, "two"]),
            "composition": st.sampled_from(["occlude", "add", "add", "behind"]),
            "amplitude": st.sampled_from(["fixed", "free", "free", "any"]),
            "noise": st.sampled_from(["white", "stationary", "pink"]),
            "cyclic": FLAGS,
            "shift_prior": st.sampled_from([None, None, [1.0], [0.5, 0.5], [0.0, 1.0], "flat"]),
            "init": st.sampled_from(["auto", "random", "mean"]),
            "image_shape": NETWORK["image_shape"],
            **COMMON,
        },
    ),
    "mixture": (
        BayesianGMM_MAP(2, max_iter=3, random_state=0),
        {
            "n_components": COUNTS,
            "covariance_type": st.sampled_from(["full", "tied", "diag", "spherical", "round"]),
            "prior": st.sampled_from(["none", "empirical", "mml", "flat"]),
            "fixed": st.sampled_from([None, ["weights"], {"means": [True, False]}, "means"]),
            "means_init": st.sampled_from([None, [[0.0], [1.0]], [[0.0, 1], [1, 0]]]),
            "background": st.sampled_from([None, None, "uniform", [[0], [1]]]),
            "weights_init": st.sampled_from([None, [0.5, 0.5], [1, 0]]),
            "max_iter": COUNTS,
            "n_init": st.sampled_from([1, 2, 0]),
            "tol": SIZES,
            "reg_covar": SIZES,
            "init_params": st.sampled_from(["kmeans", "k-means++", "random_from_data", "best"]),
            **COMMON,
        },
    ),
    "rbm": (
        BernoulliRBMCD(3, n_iter=2, random_state=0),
        {
            "n_components": COUNTS,
            "n_iter": st.sampled_from([1, 2, "auto", 0, np.int8(2)]),
            "learning_rate": st.sampled_from(["auto", 0.1, 1e3, 1e30, 0]),
            "batch_size": NETWORK["batch_size"],
            "centered": FLAGS,
            "schedule": st.sampled_from(["auto", "constant", "linear", "steep"]),
            "random_state": SEEDS,
        },
    ),
    "vae": (
        VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=2, random_state=0),
        {
            "likelihood": st.sampled_from(
                ["auto", "bernoulli", "gaussian", "poisson", {"categorical": [0]}]
            ),
            "beta": SIZES,
            "kl_warmup": SHARES,
            "early_stopping": FLAGS,
            "validation_fraction": SHARES,
            "max_iter": st.sampled_from([1, 2, 0, np.int8(2), "long"]),
            **NETWORK,
        },
    ),
    "gan": (
        GANEstimator(2, hidden_layer_sizes=(4,), max_iter=2, random_state=0),
        {
            "average": SHARES,
            "spectral_norm": FLAGS,
            "noise": st.sampled_from(["normal", "uniform", "white"]),
            "loss": st.sampled_from(["non_saturating", "minimax", "hinge"]),
            "max_iter": st.sampled_from([1, 2, 0, np.int8(2), "long"]),
            **NETWORK,
        },
    ),
    "imputer": (
        LatentImputer(),
        {
            "estimator": st.sampled_from(
                [None, BayesianGMM_MAP(2, max_iter=3, prior="empirical"), "mixture"]
            ),
            "missing_values": st.sampled_from([np.nan, 0, -1, "none"]),
            "keep_empty_features": FLAGS,
            "add_indicator": FLAGS,
            "sample_posterior": FLAGS,
            "min_value": st.sampled_from([-np.inf, 0, 5.0, [0, 1], np.nan]),
            "random_state": SEEDS,
        },
    ),
}
VERBS = (
    "transform", "score_samples", "score", "predict", "predict_proba", "reconstruct", "impute",
    "inverse_transform", "partial_fit", "fit", "sample", "log_joint", "bic", "icl", "align",
    "predict_class", "shifts", "amplitudes",
    "sample_conditional", "condition",
    "pickle",
)  # fmt: skip


@st.composite
def rows(draw, n_features=None):
    """Numbers of any size and type, with holes, constant columns and repeated rows."""
    shape = [draw(st.integers(1, 12)), n_features or draw(st.integers(1, 6))]
    kind = draw(st.sampled_from(["unit", "normal", "numbers", "wild", "wild", "bits", "ints"]))
    if kind in ("unit", "normal"):
        rng = np.random.default_rng(draw(st.integers(0, 1000)))
        X = rng.random(shape) if kind == "unit" else rng.normal(size=shape)
        X[rng.random(shape) < draw(st.sampled_from([0, 0, 0.3, 0.9]))] = np.nan
    elif kind in ("bits", "ints"):
        return draw(arrays({"bits": bool, "ints": np.uint8}[kind], shape))
    else:
        X = draw(arrays(float, shape, elements=NUMBERS if kind == "numbers" else WILD))
    if draw(st.booleans()):
        X[:, 0] = X[0, 0]
    if draw(st.booleans()):
        X = np.repeat(X, 3, axis=0)
    scale = draw(st.sampled_from([1.0, 1.0, 1.0, 1e-20, 1e-160, 1e12, 1e150]))
    offset = draw(st.sampled_from([0.0, 0.0, 1e9, -5.0]))
    with np.errstate(all="ignore"):
        return (X * scale + offset).astype(draw(st.sampled_from([float, float, np.float32])))


def contained(draw, X):
    """Rows in one of the containers that users have, or in one that nothing can read."""
    with np.errstate(all="ignore"):
        make = draw(
            st.sampled_from(
                [
                    lambda X: X,
                    lambda X: X,
                    lambda X: X.tolist(),
                    np.asfortranarray,
                    lambda X: pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])]),
                    lambda X: pd.DataFrame(X),
                    lambda X: sp.csr_matrix(X),
                    lambda X: sp.coo_array(X),
                    lambda X: np.ma.masked_invalid(X),
                    lambda X: da.from_array(X, chunks=(3, -1)),
                    lambda X: X.astype(object),
                    lambda X: X.astype(str),
                    lambda X: X.astype(complex),
                    lambda X: X[:, 0],
                    lambda X: X[None],
                    lambda X: X[:0],
                    lambda X: "rows",
                    lambda X: None,
                ]
            )
        )
        return make(X)


def weights(draw, n):
    return draw(
        st.sampled_from(
            [
                None,
                None,
                None,
                np.ones(n),
                np.arange(n),
                np.full(n, 1e-300),
                np.full(n, 1e300),
                np.r_[1e-320, np.ones(n - 1)],
                np.zeros(n),
                -np.ones(n),
                np.full(n, np.nan),
                np.ones(n + 1),
                np.ones((n, 1)),
                np.ones(n, complex),
                2.0,
                "heavy",
            ]
        )
    )


def called(model, verb, X, weight):
    if verb == "pickle":
        return pickle.loads(pickle.dumps(model)) and None
    if verb == "sample":
        return model.sample(3, random_state=0)
    if verb in ("fit", "partial_fit"):
        options = {} if weight is None else {"sample_weight": weight}
        getattr(model, verb)(X, **options)
        return None
    return getattr(model, verb)(X)


def arrays_of(result):
    if hasattr(result, "compute"):
        result = result.compute()
    if isinstance(result, tuple):
        return [array for part in result for array in arrays_of(part)]
    return [] if result is None else [np.asarray(result)]


def some(parameters):
    """A few parameters at any value, the others as they are."""
    return st.lists(st.sampled_from(sorted(parameters)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: parameters[name] for name in names})
    )


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
def test_numbers_or_an_error_that_says_why(name, data):
    base, parameters = MODELS[name]
    model = clone(base).set_params(**data.draw(some(parameters), "parameters"))
    X = data.draw(rows(), "rows")
    verbs = data.draw(st.lists(st.sampled_from(VERBS), max_size=3), "verbs")
    for i, verb in enumerate(["fit", *verbs]):
        new = X if i == 0 else data.draw(st.one_of(st.just(X), rows(X.shape[1])), "new rows")
        given_rows, weight = contained(data.draw, new), weights(data.draw, len(new))
        if not hasattr(model, verb) and verb != "pickle":
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            try:
                found = arrays_of(called(model, verb, given_rows, weight))
            except ERRORS:
                continue
        for array in found:
            with_nan = ("align", "impute", "reconstruct", "shifts")
            if array.dtype.kind == "f" and verb not in with_nan:
                assert not np.isnan(array).any(), verb
