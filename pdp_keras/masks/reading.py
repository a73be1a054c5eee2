"""Values of variables and tensors, of any backend, on the host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import ops


def read(value: Any) -> np.ndarray:
    """A variable or tensor of any backend as a NumPy array."""
    return np.asarray(ops.convert_to_numpy(value))


def read_integer(value: Any) -> int:
    """A scalar counter as a Python int."""
    return int(read(value))


def require_finite(named: Iterable[tuple[str, np.ndarray]]) -> None:
    """Checks weights that are to be pruned.

    Args:
        named: the weights by name.

    Raises:
        ValueError: for NaN or infinity.
    """
    for name, values in named:
        if not np.isfinite(values).all():
            raise ValueError(
                "Weights must be finite to be pruned. Received: NaN or infinity in "
                f"{name!r}"
            )
