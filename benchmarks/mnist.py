"""MNIST from its four idx files."""

import gzip
from pathlib import Path

import numpy as np


def load_mnist(folder: str, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Gray values 0-255, (n, 784), and labels; ``part`` is "train" or "t10k"."""

    def read(kind: str, offset: int) -> np.ndarray:
        with gzip.open(Path(folder) / f"{part}-{kind}-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    return read("images-idx3", 16).reshape(-1, 784), read("labels-idx1", 8)
