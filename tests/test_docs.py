"""Docstrings of everything public are complete."""

import inspect

import pytest
from numpydoc.validate import validate

import skem
import skem.datasets

IGNORED = {"ES01", "EX01", "SA01", "GL01", "GL02", "GL03", "GL08", "RT02", "PR02"}


def public_objects():
    names = [f"skem.{name}" for name in skem.__all__]
    names += [f"skem.datasets.{name}" for name in skem.datasets.__all__]
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
