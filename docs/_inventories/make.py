"""Write the inventories of other packages' pages: python docs/_inventories/make.py

Sphinx links to these names. The inventories are kept here, so that a build needs no network.
"""

import zlib
from pathlib import Path

SKLEARN = {
    "class": [
        "decomposition.FactorAnalysis", "decomposition.PCA",
        "frozen.FrozenEstimator", "impute.IterativeImputer", "impute.KNNImputer",
        "impute.MissingIndicator", "impute.SimpleImputer", "mixture.BayesianGaussianMixture",
        "mixture.GaussianMixture", "model_selection.GridSearchCV",
        "model_selection.HalvingGridSearchCV", "model_selection.KFold",
        "neighbors.KernelDensity", "neural_network.BernoulliRBM", "pipeline.Pipeline",
        "preprocessing.OneHotEncoder", "preprocessing.StandardScaler",
    ],
    "function": [
        "base.clone", "datasets.fetch_openml", "datasets.load_digits", "datasets.load_iris",
        "feature_extraction.image.grid_to_graph", "model_selection.cross_val_score",
        "pipeline.make_pipeline", "utils.estimator_checks.check_estimator",
    ],
}  # fmt: skip
NUMPY = {"class": ["ndarray", "random.RandomState", "memmap"], "function": ["load", "savez"]}


def lines_of(package: str, names: dict[str, list[str]], folder: str) -> list[str]:
    return [
        f"{package}.{name} py:{kind} 1 {folder}/{package}.{name}.html#$ -"
        for kind, own in names.items()
        for name in own
    ]


def write(package: str, title: str, lines: list[str]) -> None:
    head = (
        "# Sphinx inventory version 2\n"
        f"# Project: {title}\n# Version: \n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    body = zlib.compress(("\n".join(lines) + "\n").encode())
    (Path(__file__).parent / f"{package}.inv").write_bytes(head.encode() + body)


write("sklearn", "scikit-learn", lines_of("sklearn", SKLEARN, "modules/generated"))
terms = ["array_like std:term 1 glossary.html#term-$ -"]
write("numpy", "NumPy", lines_of("numpy", NUMPY, "reference/generated") + terms)


PYTHON = {
    "library/stdtypes.html": ("py:class", ["dict", "list", "str", "tuple"]),
    "library/functions.html": ("py:class", ["float", "int"]),
    "library/constants.html": ("py:data", ["False", "None", "True"]),
}
lines = [f"{name} {kind} 1 {page}#$ -" for page, (kind, own) in PYTHON.items() for name in own]
terms = ("generator", "iterable", "sequence")
lines += [f"{name} std:term 1 glossary.html#term-$ -" for name in terms]
lines.append("bltin-boolean-values std:label 1 library/stdtypes.html#boolean-type-bool Boolean")
write("python", "Python", lines)
