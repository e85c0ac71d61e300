"""Run the Python blocks of a page of the documentation, and draw its pictures.

A page is run from top to bottom in one namespace. A picture of the page shows what the blocks
above it have drawn. A comment ``<!-- check ... -->`` holds assertions about what the page says;
readers do not see it. ``python docs/pages.py`` draws the pictures of all pages anew, or those
of the pages that it is given.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
PARTS = re.compile(
    r"^```python\n(?P<code>.*?)^```$"
    r"|^<!-- check\n(?P<check>.*?)^-->$"
    r"|^!\[[^\]]*\]\(\S*images/(?P<picture>\w+\.png)\)",
    re.M | re.S,
)
# Packages for users of other tools; they are not among the requirements of the tests.
CLIENTS = re.compile(r"^(?:from|import) (mlflow|onnxruntime|skl2onnx)\b", re.M)
CALLBACKS = importlib.util.find_spec("sklearn.callback") is not None  # since 1.9


def pages():
    """Return the pages that have Python blocks."""
    paths = [DOCS / "getting_started.md", *sorted((DOCS / "user_guide").glob("*.md"))]
    return [path for path in paths if "```python" in path.read_text()]


def clients(page):
    """Return the packages that the page imports and the tests do not require."""
    return sorted(set(CLIENTS.findall(page.read_text())))


def run(page, pictures=None, with_clients=False):
    """Run a page in the current folder.

    Parameters
    ----------
    page : Path
        The page.
    pictures : Path, default=None
        The folder in which the pictures are saved; None only tests that they are drawn.
    with_clients : bool, default=False
        Whether to run the blocks that import packages which the tests do not require, and the
        checks of these blocks.
    """
    import matplotlib.pyplot as plt

    if page.stem == "scaling":
        write_files()
    text, names, left_out = page.read_text(), {"__name__": "page"}, False
    for part in PARTS.finditer(text):
        if part["picture"]:
            assert plt.get_fignums(), f"{page.name}: no block draws {part['picture']}"
            if pictures is not None:
                save(plt.gcf(), pictures / part["picture"])
            plt.close("all")
            continue
        source = part["code"] or part["check"]
        if part["code"]:
            left_out = not with_clients and CLIENTS.search(source) is not None
            left_out |= "sklearn.callback" in source and not CALLBACKS
        if left_out:
            continue
        if '"__main__"' in source or "os.environ" in source:
            run_script(source)
            continue
        # with the lines above it, a traceback shows the line of the page
        above = text[: part.start()].count("\n") + 1
        exec(compile("\n" * above + source, str(page), "exec"), names)


def write_files():
    """Write the files that the page on scaling reads."""
    import h5py
    import numpy as np
    import pandas as pd
    import zarr
    from sklearn.datasets import load_digits

    from skem.datasets import make_shifted_templates

    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(60_000, 3)) + 3 * rng.integers(0, 3, size=(60_000, 1))
    pixels = pixels.astype(np.float32)
    np.save("pixels.npy", pixels)
    pixels.tofile("pixels.f32")
    digits = (load_digits().data / 16).astype(np.float32)
    for name, X in (("pixels", pixels), ("digits", digits)):
        array = zarr.create_array(f"{name}.zarr", shape=X.shape, dtype=X.dtype)
        array[:] = X
    images = make_shifted_templates(200, image_shape=(6, 24), template_width=8, random_state=0)
    with h5py.File("images.h5", "w") as file:
        file["images"] = images.X.reshape(-1, 6, 24)
    frame = pd.DataFrame(pixels[:5000], columns=list("abc"))
    frame.to_csv("table.csv", index=False)
    frame.to_parquet("table.parquet")


def run_script(source):
    """Run a block that starts processes, or sets variables before it imports SciPy."""
    Path("script.py").write_text(source)
    # another cluster on this machine, which has the port of the dashboard, is no error
    options = ["-W", "error", "-W", "default::UserWarning"]
    subprocess.run([sys.executable, *options, "script.py"], check=True)


def save(figure, path):
    """Save a figure as a PNG of less than 60 kB, if 24 colors suffice for that."""
    from PIL import Image

    for dpi, colors in ((110, 96), (90, 48), (75, 24)):
        figure.savefig(path, dpi=dpi)
        with Image.open(path) as image:
            few = image.convert("RGB").quantize(colors)
        few.save(path, optimize=True)
        if path.stat().st_size < 60_000:
            break
    print(path.name, path.stat().st_size // 1024, "kB")


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "Agg"
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    for page in chosen or pages():
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            run(page, DOCS / "images")
            os.chdir(DOCS)
