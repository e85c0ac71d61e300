"""Types that many signatures share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
AnyArray = NDArray[Any]  # of any dtype
