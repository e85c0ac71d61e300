"""Packages that use a Gaussian mixture, with ours in the place of scikit-learn's."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.metrics import roc_auc_score

from skem import BayesianGMM_MAP

pytestmark = pytest.mark.clients
X, y = load_iris(return_X_y=True)


@pytest.fixture(params=["theirs", "ours"])
def exchanged(request, monkeypatch):
    """Let a module use our class, or leave it."""

    def exchange(module):
        if request.param == "ours":
            monkeypatch.setattr(module, "GaussianMixture", BayesianGMM_MAP)

    return exchange


def test_scikit_lego_classifier(exchanged):
    pytest.importorskip("sklego")
    from sklego.mixture import gmm_classifier

    exchanged(gmm_classifier)
    model = gmm_classifier.GMMClassifier(n_components=1, random_state=0).fit(X, y)
    # with one component each, this is quadratic discriminant analysis with equal priors
    assert (model.predict(X) == y).mean() == pytest.approx(0.98, abs=0.007)
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)


def test_scikit_lego_outliers(exchanged):
    pytest.importorskip("sklego")
    from sklego.mixture import gmm_outlier_detector

    exchanged(gmm_outlier_detector)
    model = gmm_outlier_detector.GMMOutlierDetector(n_components=2, threshold=0.95)
    assert (model.fit(X).predict(X) == -1).mean() == pytest.approx(0.05, abs=0.01)
    assert (model.predict(X[:20] + 10) == -1).all()


def test_pyod(exchanged):
    pytest.importorskip("pyod")
    from pyod.models import gmm

    exchanged(gmm)
    inside, outside = X[y < 2], X[y == 2][:10]
    model = gmm.GMM(n_components=2, contamination=0.1, random_state=0).fit(inside)
    scores = model.decision_function(np.vstack([inside, outside]))
    assert roc_auc_score(np.repeat([0, 1], [100, 10]), scores) > 0.95
    assert model.labels_.mean() == pytest.approx(0.1)
    assert model.predict_proba(outside).shape == (10, 2)


def test_fisher_vectors_need_the_class_of_scikit_learn():
    fisher_vector = pytest.importorskip("skimage.feature").fisher_vector
    model = BayesianGMM_MAP(3, covariance_type="diag", random_state=0).fit(X)
    assert fisher_vector(X, model.to_sklearn()).shape == (2 * 3 * 4 + 3,)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_onnx(kind, dtype):
    onnxruntime = pytest.importorskip("onnxruntime")
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    data = X.astype(dtype)
    model = BayesianGMM_MAP(3, covariance_type=kind, prior="empirical", random_state=0)
    onx = to_onnx(model.fit(data).to_sklearn(), data[:1])
    session = onnxruntime.InferenceSession(onx.SerializeToString())
    labels, probabilities = session.run(None, {"X": data})
    np.testing.assert_array_equal(labels.ravel(), model.predict(data))
    atol = 1e-12 if dtype == np.float64 else 5e-5  # ONNX has sums of single precision
    np.testing.assert_allclose(probabilities, model.predict_proba(data), rtol=0, atol=atol)
