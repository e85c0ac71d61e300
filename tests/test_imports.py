"""Imports point one way, and `import skem` stays light."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "skem"
FILES = sorted(PACKAGE.rglob("*.py"))

# -- who may import whom ----------------------------------------------------------------------

GROUND = {"_compiled", "_loop", "_stats", "_threads", "_typing", "_vector_math", "_warn"}
MODELS = {"gan", "mixture", "rbm", "template", "vae"}
# Each wing, and what its files may import besides each other.
MAY_IMPORT = {
    "ground": set(),
    "_rows": {"ground"},
    "_base": {"ground", "_rows"},
    "_network": {"ground", "_rows", "_base"},
    "mixture": {"ground", "_rows", "_base"},
    "template": {"ground", "_rows", "_base"},
    "rbm": {"ground", "_rows", "_base"},
    "vae": {"ground", "_rows", "_base", "_network"},
    "gan": {"ground", "_rows", "_base", "_network"},
    "display": set(),
    "datasets": set(),
    "callbacks": {"ground", "_base"},
    "impute": {"ground", "_rows", "_base", "mixture"},
    "__init__": {*MODELS, "callbacks", "display", "impute"},
}
# Where a package may be imported, and whether only inside functions.
MATPLOTLIB = ["display/*.py", "datasets.py"]
ONLY_IN = {
    "dask": ["_rows/cluster.py"],
    "distributed": ["_rows/cluster.py"],
    "h5py": [],
    "zarr": [],
    "numba": ["_vector_math.py", "*/*kernel.py"],
    "torch": [
        "_network/*.py",
        *("vae/_model.py", "vae/_posterior.py", "vae/_training.py"),
        *("gan/_model.py", "gan/_training.py"),
    ],
    "matplotlib": MATPLOTLIB,
    "PIL": MATPLOTLIB,
    "pandas": ["_rows/cluster.py"],
}
LATE = {"dask", "distributed", "matplotlib", "PIL", "pandas"}


def wing_of(path: Path) -> str:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "ground" if name in GROUND else name


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(node: ast.AST) -> list[str]:
    """Full names of the modules that a statement may import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def all_imported(path: Path) -> list[str]:
    return [name for node in ast.walk(tree_of(path)) for name in imported(node)]


def by_file(function):
    return pytest.mark.parametrize(
        "path", FILES, ids=lambda p: str(p.relative_to(PACKAGE).with_suffix(""))
    )(function)


@by_file
def test_wings_import_one_way(path):
    wing = wing_of(path)
    wings = {name.split(".")[1] for name in all_imported(path) if name.startswith("skem.")}
    wings = {"ground" if name in GROUND else name for name in wings}
    assert wings - {wing} <= MAY_IMPORT[wing]


@by_file
def test_rooms_of_a_wing(path):
    """Nobody imports an estimator but its wing's door, and a model sees no rows."""
    names = all_imported(path)
    doors = path.name == "__init__.py" or any(
        name.startswith(("skem._base.estimator", "skem._network.estimator")) for name in names
    )
    private = [name for name in names if "._estimator" in name]
    assert not private or doors
    if path.name == "_model.py":
        assert not [name for name in names if name.startswith("skem._rows")]


@by_file
def test_packages_are_imported_where_they_belong(path):
    inside = path.relative_to(PACKAGE)
    names = {name.split(".")[0] for name in all_imported(path)}
    for package in names & set(ONLY_IN):
        assert any(inside.match(pattern) for pattern in ONLY_IN[package]), package
    top = {name.split(".")[0] for node in tree_of(path).body for name in imported(node)}
    assert not top & LATE, "imported where it is used, since it may be missing, and is slow"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@cache
def own_private_names() -> set[str]:
    """Private names that skem itself defines or assigns."""
    names = set()
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)  # a fitted attribute that is set by its name
    return names


@by_file
def test_private_names_of_others_are_in_one_wing(path):
    """Of scikit-learn in ``_base``, of dask in ``_rows/cluster``; attributes count."""
    if wing_of(path) == "_base" or path.name == "cluster.py":
        return
    nodes = list(ast.walk(tree_of(path)))
    names = [name for name in all_imported(path) if name.startswith("sklearn")]
    assert not [name for name in names if any(map(is_private, name.split(".")))]
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    foreign = {name for name in used if is_private(name)} - own_private_names()
    assert not foreign


# -- what an import loads ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    ["import skem", "from skem import BayesianGMM_MAP, TemplateDisplay"],
)
def test_import_is_light(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    loaded = {name.split(".")[0] for name in out.split()}
    # scikit-learn itself may load pandas
    assert not loaded & {"torch", "dask", "matplotlib", "numba", "PIL"}
    if statement == "import skem":
        assert not loaded & {"numpy", "sklearn"}


def test_public_names():
    import skem

    modules = {"callbacks", "datasets", "display", "impute", *MODELS}
    assert set(dir(skem)) == {*skem.__all__, *modules, "__version__"}
    for name in skem.__all__:
        assert getattr(skem, name).__name__ == name
    for name in modules:
        assert getattr(skem, name).__name__ == f"skem.{name}"
    with pytest.raises(AttributeError, match="nothing"):
        skem.nothing  # noqa: B018
