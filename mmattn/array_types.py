"""Type aliases of numpy arrays: `Ints` (int64), `Floats` (float64), `Floats32` and `Bools`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bools", "Floats", "Floats32", "Ints"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
