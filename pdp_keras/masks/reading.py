"""Values of variables and tensors, of any backend, on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def read(value: Any) -> np.ndarray:
    """A variable or tensor of any backend as a NumPy array."""
    return np.asarray(ops.convert_to_numpy(value))


def read_integer(value: Any) -> int:
    """A scalar counter as a Python int."""
    return int(read(value))
