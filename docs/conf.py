"""Sphinx configuration."""

import sys
from pathlib import Path

from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (for the gallery)

import skem

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "skem"
copyright = "2026, the skem developers"
version = release = skem.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "bundled_mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = [
    "_build",
    "_inventories",
    "benchmarks/[!i]*.md",
]  # tables that pages include
suppress_warnings = ["config.cache"]
nitpicky = False

intersphinx_mapping = {  # see _inventories/make.py
    "python": ("https://docs.python.org/3", "_inventories/python.inv"),
    "sklearn": ("https://scikit-learn.org/stable", "_inventories/sklearn.inv"),
    "numpy": ("https://numpy.org/doc/stable", "_inventories/numpy.inv"),
}
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {"ndarray": "numpy.ndarray", "RandomState": "numpy.random.RandomState"}
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "doc_module": ("skem",),
    "reference_url": {"skem": None},
    "backreferences_dir": "generated/backreferences",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "matplotlib_animations": True,
    "parallel": 2,
}

html_static_path = ["_static"]
html_css_files = ["skem.css"]
html_context = {"default_mode": "auto"}
html_theme = "pydata_sphinx_theme"
html_title = "skem"
# pages that have no neighbors to navigate to
html_sidebars = {
    name: []
    for name in ("index", "getting_started", "about", "architecture", "changelog", "api")
}
toc_object_entries_show_parents = "hide"
html_favicon = "_static/favicon.svg"
html_show_sourcelink = False
html_theme_options = {
    "logo": {
        "image_light": "_static/logo-light.svg",
        "image_dark": "_static/logo-dark.svg",
        "alt_text": "skem",
    },
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
}
