"""The code of the page on displays runs, and each picture on the page is one of its blocks."""

import importlib.util
import re
from pathlib import Path

import pytest

import skem

SCRIPT = Path(__file__).parents[2] / "docs" / "images" / "displays.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("displays", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_block_has_its_picture(script):
    text = script.PAGE.read_text()
    pictures = [picture for _, picture in script.BLOCK.findall(text)]
    assert len(pictures) == text.count("```python") == text.count("![")
    assert all((SCRIPT.parent / picture).is_file() for picture in pictures)
    displays = {name for name in skem.__all__ if name.endswith("Display")}
    assert displays - set(re.findall(r"\w+Display", text)) == {"MorphDisplay"}


@pytest.mark.slow
def test_the_page_runs(script, tmp_path, monkeypatch):
    expected = {path.name for path in SCRIPT.parent.glob("display_*.png")}
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    script.main()
    assert {path.name for path in tmp_path.iterdir()} == expected
