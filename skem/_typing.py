"""Types that many signatures share."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
AnyArray = NDArray[np.generic]  # of numbers, bits or bytes
