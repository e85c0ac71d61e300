"""Any rows either fit to finite numbers or are refused by a ValueError that says why."""

import re
import warnings

import numpy as np
import pytest
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

MODELS = [
    ShiftedTemplateEM(max_iter=5, random_state=0),
    BayesianGMM_MAP(2, max_iter=5, random_state=0),
    BayesianGMM_MAP(2, covariance_type="diag", prior="empirical", max_iter=5, random_state=0),
    BernoulliRBMCD(3, n_iter=2, random_state=0),
    VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=2, random_state=0),
    GANEstimator(2, hidden_layer_sizes=(4,), max_iter=2, random_state=0),
    LatentImputer(BayesianGMM_MAP(2, max_iter=5, prior="empirical", random_state=0)),
]

NUMBERS = st.one_of(
    st.floats(-10, 10, width=32),
    st.sampled_from([0.0, 1.0, 0.5, 255.0, 1e-30, 1e30, -1e-300]),
)
HOLES = st.one_of(NUMBERS, st.just(np.nan))
WILD = st.one_of(HOLES, st.sampled_from([np.inf, -np.inf, 1e300, -1e308]))


@st.composite
def data(draw):
    """Rows of any size, dtype and scale, with holes, constant columns and repeated rows."""
    dtype = draw(
        st.sampled_from([np.float64, np.float64, np.float32, np.int64, np.uint8, bool])
    )
    n_dims = draw(st.sampled_from([2, 2, 2, 2, 2, 2, 1, 3]))
    shape = draw(st.tuples(*[st.integers(0 if n_dims == 3 else 1, 12)] * n_dims))
    if np.dtype(dtype).kind != "f":
        return draw(arrays(dtype, shape))
    kind = draw(st.sampled_from(["unit", "normal", "numbers", "holes", "wild"]))
    if kind in ("unit", "normal"):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        rows = rng.random(shape) if kind == "unit" else rng.normal(size=shape)
        rows[rng.random(shape) < draw(st.sampled_from([0, 0, 0.3, 0.9]))] = np.nan
    else:
        elements = {"numbers": NUMBERS, "holes": HOLES, "wild": WILD}[kind]
        rows = draw(arrays(np.float64, shape, elements=elements))
    if rows.ndim == 2 and draw(st.booleans()):
        rows[:, 0] = rows[0, 0]
    if draw(st.booleans()):
        rows = np.repeat(rows, 3, axis=0)
    scale = draw(st.sampled_from([1.0, 1.0, 1e-20, 1e-160, 1e12, 1e150]))
    offset = draw(st.sampled_from([0.0, 0.0, 1e9, -5.0]))
    with np.errstate(over="ignore", invalid="ignore"):
        return (rows * scale + offset).astype(dtype)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
@given(X=data())
def test_fits_or_says_why(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fitted = clone(model).fit(X)
        except ValueError as error:
            message = str(error)
            fitted = None
    if fitted is None:
        assert re.search(r"\bX\b|sample|feature|array|" + "|".join(model.get_params()), message)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(model, LatentImputer):
            assert np.isfinite(fitted.transform(X)).all()
            return
        assert np.isfinite(fitted.transform(X)).all()
        assert np.isfinite(fitted.score_samples(X)).all()
        drawn = fitted.sample(3, random_state=0)
        assert np.isfinite(drawn[0] if isinstance(drawn, tuple) else drawn).all()
