"""The benchmark page: its charts can be drawn, and its sentences agree with its tables."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

spec = importlib.util.spec_from_file_location(
    "charts", Path(__file__).parent.parent / "benchmarks" / "charts.py"
)
charts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(charts)


@pytest.mark.slow
def test_charts_can_be_drawn(tmp_path):
    charts.draw(tmp_path)
    page = (charts.DOCS / "benchmarks" / "index.md").read_text()
    drawn = {path.name for path in tmp_path.iterdir()}
    kept = {path.name for path in (charts.DOCS / "images").glob("bench_*")}
    assert drawn == kept
    assert all(name in page for name in drawn)


def values(name, *columns, table=0):
    rows = charts.tables(name)[table]
    return [charts.numbers(rows, column) for column in columns]


def test_template():
    rows = charts.one_thread(charts.tables("template")[0])
    ms = dict(zip(charts.column(rows, "variant"), charts.numbers(rows, "ms"), strict=True))
    assert ms["scipy.signal.fftconvolve"] > 70 * ms["skem, float64"]
    assert ms["skem, float64"] < 6 * ms["one streaming pass, float64"]
    (ratios, noise, n) = values("template_classes", "least ratio to the oracle", "noise", "n")
    assert (ratios[(noise < 2) | (n == 1000)] > 0.95).mean() > 0.95
    assert ratios[(noise == 3) & (n == 200)].max() < 0.95
    found, aligned = values("template_recovery", "found", "aligned")
    assert (found > 0.97 * aligned).all()
    ml, default = values("template_new_shifts", "1", "1.1")
    assert (default > ml - 0.02).all()
    assert np.median(default) > np.median(ml) + 0.2


def test_mixture():
    higher, lower = values("outcomes", "higher", "lower, theirs proper")
    assert (higher > 1.5 * lower).all()
    assert higher[-1] > 4 * lower[-1]  # of all fits
    rows, ours, flat = values(
        "prior", "rows per feature and component", "without correlations", "flat"
    )
    assert (ours >= flat)[rows < 10].all()
    assert np.abs(ours - flat)[rows == 30].max() <= 0.011
    (ratios,) = values("arrays", "ratio")
    assert ratios.max() == 14
    kinds, dtypes = (
        np.array(charts.column(charts.tables("arrays")[0], name)) for name in ("type", "dtype")
    )
    slow = (kinds == "diag") & (dtypes == "float64")
    assert (ratios[slow] < 1).all()
    assert (ratios[~slow] > 1).all()
    (peak,) = values("scale", "peak, MB")
    assert peak.max() < 200


def test_starts_with_missing_values():
    (loss,) = values("starts_missing", "loss of one start")
    assert np.median(loss) < 0.03
    assert (loss > 0.1).mean() == pytest.approx(1 / 8, abs=0.01)


def test_defaults():
    ours, theirs = values("defaults_rbm", "default", "scikit-learn")
    assert (ours > theirs).all()
    ours, theirs = values("defaults_vae", "VAE", "FactorAnalysis")
    known = np.isfinite(ours) & np.isfinite(theirs)
    assert (ours > theirs - 0.02)[known].mean() > 0.8
    drawn, training = values("defaults_gan", "GAN", "training rows")
    assert np.median(drawn / training) < 1.2
    (ratio,) = values("defaults_impute", "to the better peer")
    assert (ratio <= 1).mean() > 0.9
