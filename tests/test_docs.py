"""Docstrings of everything public are complete, and the pages of the guide run."""

import inspect
import re
from pathlib import Path

import pages
import pytest
from numpydoc.validate import validate

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


SLOW = {
    "displays",
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
def test_blocks_of_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pages.run(page)


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.stem)
def test_pages_have_small_pictures(page):
    names = re.findall(r"images/(\w+\.png)", page.read_text())
    assert names
    for name in names:
        assert (DOCS / "images" / name).stat().st_size < 60_000


def test_each_display_is_on_the_page_of_displays():
    text = (DOCS / "user_guide" / "displays.md").read_text()
    displays = {name for name in skem.__all__ if name.endswith("Display")}
    assert displays - set(re.findall(r"\w+Display", text)) == {"MorphDisplay"}
