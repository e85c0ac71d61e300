"""Benchmark tables, written where the documentation includes them."""

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "benchmarks"


def write_results(name: str, lines: list[str]) -> None:
    """Write a Markdown table to docs/benchmarks/<name>.md."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.md").write_text("\n".join(lines) + "\n")
