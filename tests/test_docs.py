"""Docstrings of everything public are complete, and the pages of the guide run."""

import inspect
import re
from pathlib import Path

import h5py
import numpy as np
import pages
import pandas as pd
import pytest
import zarr
from numpydoc.validate import validate
from sklearn.datasets import load_digits

import skem
import skem.datasets
import skem.template

DOCS = Path(__file__).parent.parent / "docs"
IGNORED = {"ES01", "EX01", "SA01", "GL01", "GL02", "GL03", "GL08", "RT02", "PR02"}


def public_objects():
    names = [f"skem.{name}" for name in skem.__all__]
    names += [f"skem.datasets.{name}" for name in skem.datasets.__all__]
    names += [f"skem.template.{name}" for name in skem.template.__all__]
    for name in names:
        yield name
        thing = getattr(skem, name.split(".")[1], None)
        if inspect.isclass(thing):
            for member, value in inspect.getmembers(thing, inspect.isroutine):
                own = (getattr(value, "__module__", "") or "").startswith("skem")
                if own and not member.startswith("_"):
                    yield f"{name}.{member}"


@pytest.mark.parametrize("name", list(public_objects()))
def test_docstring(name):
    errors = [e for e in validate(name)["errors"] if e[0] not in IGNORED]
    assert not errors


@pytest.mark.parametrize("name", [n for n in public_objects() if n.count(".") == 1])
def test_classes_have_an_example(name):
    assert ">>>" in inspect.getdoc(getattr(skem, name.split(".")[1]))


def test_versions_agree():
    root = DOCS.parent
    heading = re.search(r"^## (\S+?),? ", (root / "CHANGELOG.md").read_text(), re.M)
    citation = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(), re.M)
    assert heading[1] == citation[1] == skem.__version__


@pytest.fixture(scope="module")
def folder_of_data(tmp_path_factory):
    """The files that the recipes name."""
    folder = tmp_path_factory.mktemp("recipes")
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(60_000, 3)) + 3 * rng.integers(0, 3, size=(60_000, 1))
    pixels = pixels.astype(np.float32)
    np.save(folder / "pixels.npy", pixels)
    pixels.tofile(folder / "pixels.f32")
    digits = (load_digits().data / 16).astype(np.float32)
    for name, X in (("pixels", pixels), ("digits", digits)):
        array = zarr.create_array(folder / f"{name}.zarr", shape=X.shape, dtype=X.dtype)
        array[:] = X
    images = skem.datasets.make_shifted_templates(
        n_samples=200, image_shape=(6, 24), template_width=8, random_state=0
    ).X
    with h5py.File(folder / "images.h5", "w") as file:
        file["images"] = images.reshape(-1, 6, 24)
    frame = pd.DataFrame(pixels[:5000], columns=list("abc"))
    frame.to_csv(folder / "table.csv", index=False)
    frame.to_parquet(folder / "table.parquet")
    return folder


SLOW = {
    "generative_adversarial_network",
    "getting_started",
    "images",
    "in_scikit_learn",
    "scaling",
    "signals",
    "variational_autoencoder",
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in SLOW))
        for page in pages.pages()
    ],
)
def test_blocks_of_pages_run(page, request, tmp_path, monkeypatch):
    scaling = page.stem == "scaling"
    monkeypatch.chdir(request.getfixturevalue("folder_of_data") if scaling else tmp_path)
    pages.run(page)
