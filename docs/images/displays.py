"""Draw the pictures of the page on displays, by its own code: python docs/images/displays.py"""

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "user_guide" / "displays.md"
BLOCK = re.compile(r"```python\n(.*?)```\n\n!\[[^]]*\]\(\.\./images/(\w+\.png)\)", re.S)


def main() -> None:
    """Run the blocks in their order, and save the last figure of each."""
    names: dict[str, Any] = {}
    for code, picture in BLOCK.findall(PAGE.read_text()):
        exec(compile(code, str(PAGE), "exec"), names)
        names["display"].figure_.savefig(FOLDER / picture, dpi=75)
        plt.close("all")
        print(picture, names["display"])


if __name__ == "__main__":
    plt.switch_backend("Agg")
    main()
