"""Copy MathJax into the built pages, so that formulas render without a network.

npm brings it while the pages are built. Without npm, the pages load MathJax from its public
address, as those of Sphinx do.
"""

import shutil
import subprocess
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

VERSION = "4.1.3"
FONT = "@mathjax/mathjax-newcm-font"
CONFIG = {
    "loader": {"paths": {"fonts": "[mathjax]/fonts"}},
    "output": {
        "fontPath": "[mathjax]/fonts/%%FONT%%-font",
        "displayOverflow": "linebreak",
    },
    # nothing that would load more scripts
    "options": {
        "enableMenu": False,
        "menuOptions": {
            "settings": dict.fromkeys(("enrich", "speech", "braille", "collapsible"), False)
        },
    },
}


def bundle(app: Sphinx) -> None:
    """Copy the scripts and fonts to the folder of static files."""
    if app.builder.format != "html" or not shutil.which("npm"):
        return
    kept = Path(app.confdir) / "_build" / f"mathjax-{VERSION}"
    modules = kept / "node_modules"
    if not modules.exists():
        command = ["npm", "install", "--silent", "--no-audit", "--prefix", str(kept)]
        done = subprocess.run(
            [*command, f"mathjax@{VERSION}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            shutil.rmtree(kept, ignore_errors=True)
            raise ExtensionError(f"npm could not install MathJax: {done.stderr}")
    target = Path(app.outdir) / "_static" / "mathjax"
    if target.exists():
        return
    target.mkdir(parents=True)
    shutil.copy(modules / "mathjax" / "tex-chtml.js", target)
    font = target / "fonts" / "mathjax-newcm-font"
    font.mkdir(parents=True)
    shutil.copy(modules / FONT / "chtml.js", font)
    shutil.copytree(modules / FONT / "chtml", font / "chtml")


def setup(app: Sphinx) -> dict[str, bool]:
    if shutil.which("npm"):
        app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.config.mathjax4_config = CONFIG
    app.connect("builder-inited", bundle)
    return {"parallel_read_safe": True}
