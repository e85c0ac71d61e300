"""Change the code in small ways, and count the changes that the tests notice.

    python benchmarks/mutation.py [--model NAME] [--n 20] [--seed 0]

Each mutant swaps an operator, a comparison or a constant in one line of a model's files. Its
tests run until the first failure. Survivors are printed: each one is a line that no test
checks, or a change without effect. Some minutes for each ten mutants. The files are changed in
a copy of the repository.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODELS = "mixture", "template", "rbm", "vae", "gan"
LIMIT = 600  # seconds; an endless loop is noticed
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield the nodes of functions that can be changed, and the field to change."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
                yield node, "op"
            elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
                yield node, "ops"
            elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
                yield node, "value"


def mutate(node: ast.AST, field: str) -> None:
    old = getattr(node, field)
    if field == "op":
        setattr(node, field, SWAPS[type(old)]())
    elif field == "ops":
        setattr(node, field, [SWAPS[type(old[0])](), *old[1:]])
    else:
        setattr(node, field, not old if isinstance(old, bool) else old + 1)


def is_noticed(folder: Path, tests: str) -> bool:
    """Return whether a test fails."""
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
        "-m", "not slow and not mnist", tests,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--n", type=int, default=20, help="mutants of each model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("skem", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        for model in options.model or MODELS:
            rng, n_noticed = random.Random(options.seed), 0
            files = sorted((folder / "skem" / model).glob("_[a-z]*.py"))
            sources = {file: file.read_text() for file in files}
            choices = [
                (file, i)
                for file, source in sources.items()
                for i, _ in enumerate(places(ast.parse(source)))
            ]
            for file, i in rng.sample(choices, options.n):
                tree = ast.parse(sources[file])
                node, field = list(places(tree))[i]
                line, before = node.lineno, ast.unparse(node)
                mutate(node, field)
                file.write_text(ast.unparse(tree))
                noticed = is_noticed(folder, f"tests/{model}")
                file.write_text(sources[file])
                n_noticed += noticed
                if not noticed:
                    print(
                        f"survived: {file.name}:{line} {before} -> {ast.unparse(node)}",
                        flush=True,
                    )
            print(f"{model}: {n_noticed} of {options.n} noticed", flush=True)


if __name__ == "__main__":
    main()
