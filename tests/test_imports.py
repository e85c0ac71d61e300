"""Imports point one way, and `import skem` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "skem"
HEAVY = {"torch", "dask", "matplotlib", "numba", "pandas", "PIL"}
TORCH = [
    "_networks",
    "_scaling",
    "_torch",
    "_vae_model",
    "_vae_train",
    "_gan_model",
    "_gan_train",
]
# Each module may import those named here; a module not named here, none.
ALLOWED = {
    "__init__": {
        "callbacks",
        "code_display",
        "gan",
        "image_display",
        "impute",
        "mixture",
        "mixture_display",
        "rbm",
        "template",
        "display",
        "vae",
    },
    "_loop": set(),
    "_stats": set(),
    "_windows": set(),
    "_threads": set(),
    "_files": set(),
    "_data": {"_files", "_threads"},
    "_moments": {"_data"},
    "_sampling": {"_data"},
    "_pixels": {"_data"},
    "_passes": {"_data", "_threads"},
    "_streams": {"_data", "_files"},
    "_estimator": {"_loop", "_data", "_files", "_streams"},
    "_em_estimator": {"_loop", "_data", "_estimator", "_passes", "_streams", "_threads"},
    "_template_model": {"_stats", "_windows"},
    "_template_starts": {
        "_data",
        "_loop",
        "_moments",
        "_passes",
        "_template_model",
        "_windows",
    },
    "_template_moves": {"_data", "_loop", "_passes", "_template_model", "_windows"},
    "template": {
        "_data",
        "_em_estimator",
        "_estimator",
        "_loop",
        "_passes",
        "_sampling",
        "_streams",
        "_template_model",
        "_template_moves",
        "_template_starts",
        "_threads",
        "_windows",
    },
    "_covariances": set(),
    "_mixture_sums": set(),
    "_vector_math": set(),
    "_mixture_kernel": {"_mixture_sums", "_vector_math"},
    "_mixture_missing": {"_covariances", "_mixture_sums"},
    "_mixture_model": {
        "_stats",
        "_covariances",
        "_mixture_kernel",
        "_mixture_missing",
        "_mixture_sums",
    },
    "_mixture_prior": {"_data", "_passes", "_covariances", "_mixture_model"},
    "_mixture_starts": {"_loop", "_passes", "_covariances", "_mixture_model"},
    "_potts": {"_covariances", "_mixture_model"},
    "mixture": {
        "_loop",
        "_data",
        "_estimator",
        "_covariances",
        "_mixture_missing",
        "_mixture_model",
        "_mixture_prior",
        "_mixture_starts",
        "_em_estimator",
        "_moments",
        "_pixels",
        "_potts",
        "_sampling",
        "_streams",
        "_threads",
    },
    "callbacks": {"_estimator"},
    "impute": {"_data", "_estimator", "_streams", "mixture"},
    "code_display": {"image_display"},
    "display": set(),
    "image_display": set(),
    "mixture_display": set(),
    "_rbm_model": set(),
    "_rbm_rows": {"_moments", "_rbm_model"},
    "_rbm_train": {"_rbm_model", "_rbm_rows"},
    "_rbm_kernel": {"_rbm_model", "_rbm_train", "_threads", "_vector_math"},
    "rbm": {
        "_data",
        "_files",
        "_estimator",
        "_loop",
        "_rbm_kernel",
        "_rbm_model",
        "_rbm_rows",
        "_rbm_train",
        "_streams",
        "_threads",
    },
    "_torch": {"_files"},
    "_networks": set(),
    "_vae_model": {"_networks", "_torch"},
    "_network_kernel": {"_vector_math"},
    "_scaling": {"_moments"},
    "_vae_train": {"_data", "_scaling", "_torch", "_network_kernel", "_vae_model"},
    "_network_estimator": {"_data", "_estimator", "_loop", "_streams"},
    "vae": {
        "_moments",
        "_streams",
        "_data",
        "_estimator",
        "_network_estimator",
        "_scaling",
        "_torch",
        "_vae_model",
        "_vae_train",
    },
    "_gan_model": {"_networks", "_torch"},
    "_gan_train": {"_gan_model", "_networks", "_scaling", "_torch"},
    "gan": {
        "_moments",
        "_streams",
        "_data",
        "_estimator",
        "_gan_model",
        "_gan_train",
        "_network_estimator",
        "_network_kernel",
        "_networks",
        "_scaling",
        "_torch",
    },
    "datasets": set(),
}


def imported(node: ast.AST) -> list[str]:
    """Full names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [node.module]
    return []


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_imports_point_one_way(path):
    tree = ast.parse(path.read_text())
    names = [name for node in ast.walk(tree) for name in imported(node)]
    own = {name.split(".")[1] for name in names if name.startswith("skem.")}
    assert own <= ALLOWED[path.stem]
    top = {name.split(".")[0] for node in tree.body for name in imported(node)}
    late = {"_mixture_kernel": "numba", "_rbm_kernel": "numba", "_vector_math": "numba"}
    late |= dict.fromkeys(TORCH, "torch")
    late["_network_kernel"] = "numba"
    lazy = {late.get(path.stem)}  # such modules are themselves imported late
    assert not top & (HEAVY - lazy), "heavy modules are imported where they are used"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_private_scikit_learn_is_only_in_one_file(path):
    private = [
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("sklearn")
        for name in [*node.module.split("."), *(alias.name for alias in node.names)]
        if name.startswith("_")
    ]
    assert not private or path.stem == "_estimator"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_dask_is_only_where_rows_live(path):
    tree = ast.parse(path.read_text())
    names = {name.split(".")[0] for node in ast.walk(tree) for name in imported(node)}
    assert not names & {"dask", "distributed", "zarr", "h5py"} or path.stem == "_data"


@pytest.mark.parametrize(
    "statement",
    ["import skem", "from skem import BayesianGMM_MAP, TemplateDisplay"],
)
def test_import_is_light(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    loaded = {name.split(".")[0] for name in out.split()}
    assert not loaded & (HEAVY - {"pandas"})  # scikit-learn itself may load pandas
    if statement == "import skem":
        assert not loaded & {"numpy", "sklearn"}


def test_public_names():
    import skem

    assert set(skem.__all__) <= set(dir(skem))
    for name in skem.__all__:
        assert getattr(skem, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        skem.nothing  # noqa: B018
