"""Docstrings of everything public are complete."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from numpydoc.validate import validate
from sklearn.datasets import load_digits

import skem
import skem.datasets
import skem.template

GUIDE = Path(__file__).parent.parent / "docs" / "user_guide"
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
    root = GUIDE.parent.parent
    heading = re.search(r"^## (\S+?),? ", (root / "CHANGELOG.md").read_text(), re.M)
    citation = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(), re.M)
    assert heading[1] == citation[1] == skem.__version__


def recipes():
    """The blocks of code of the page on scaling."""
    parts = (GUIDE / "scaling.md").read_text().split("```python\n")[1:]
    return [part.split("```")[0] for part in parts]


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


@pytest.mark.slow
@pytest.mark.parametrize("code", recipes(), ids=range(len(recipes())))
def test_recipes_run(code, folder_of_data, monkeypatch):
    monkeypatch.chdir(folder_of_data)
    if "__main__" not in code:
        exec(compile(code, "scaling.md", "exec"), {"__name__": "recipe"})
        return
    Path("recipe.py").write_text(code)
    # another cluster on this machine, which has the port of the dashboard, is no error
    options = ["-W", "error", "-W", "default::UserWarning"]
    subprocess.run([sys.executable, *options, "recipe.py"], check=True)
