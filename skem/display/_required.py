"""Say what the displays need, before one of them fails halfway."""

from importlib.util import find_spec

if find_spec("matplotlib") is None:
    raise ImportError(
        "The displays need matplotlib, which is not installed: run pip install matplotlib."
    )
