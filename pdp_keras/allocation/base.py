"""What an allocation is given, and how it counts.

An allocation is a function from the weights and the overall sparsity to the number
of zeros in each. Nothing here knows a layer or a model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pdp_keras.configs import shown


@dataclasses.dataclass(frozen=True)
class WeightInfo:
    """What an allocation may look at.

    Attributes:
        name: `"layer/kernel"`; nested layers are separated by slashes.
        layer: name of the layer, `"layer"`.
        values: the weights, a float NumPy array.
        fan_in: product of the input axes (channels that one output sums over).
        fan_out: product of the output axes.
        spatial: the sizes of the remaining axes.

    Example:

    An allocation of one's own: layers that sum over few inputs stay dense.

    >>> def by_fan_in(weights: list[WeightInfo], sparsity):
    ...     return [sparsity if weight.fan_in > 4 else 0.0 for weight in weights]
    >>> pruned = pdp_keras.prune_model(model, 0.8, allocation=by_fan_in)
    """

    name: str
    layer: str
    values: np.ndarray
    fan_in: int = 1
    fan_out: int = 1
    spatial: tuple[int, ...] = ()


def count_zeros(sparsity: float, size: float) -> int:
    """round(sparsity * size), the number of zeros that a sparsity asks for."""
    return round(sparsity * size)


def check_sparsity(sparsity: Any, name: str = "sparsity") -> float:
    """The sparsity as a float.

    Raises:
        ValueError: unless it is a number in [0, 1).
    """
    try:
        value = float(sparsity)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if isinstance(sparsity, bool | str) or not 0 <= value < 1:
        raise ValueError(
            f"{name} must be a number in [0, 1): the fraction of zeros. "
            f"Received: {name}={shown(sparsity)}"
        )
    return value


Allocation = Callable[[Sequence[WeightInfo], float], Sequence[int]]
