"""What the tests need to know of the versions of scikit-learn."""

import pytest
import sklearn
from sklearn.utils.fixes import parse_version


def has(version):
    """Whether scikit-learn is of this version, or newer."""
    return parse_version(sklearn.__version__) >= parse_version(f"{version}.dev0")


needs_callbacks = pytest.mark.skipif(not has("1.9"), reason="callbacks of others need 1.9")
