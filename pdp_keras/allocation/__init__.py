"""How a model's sparsity is shared out among its weights: one file a kind.

An allocation is a function from the weights and the overall sparsity to the number of
zeros in each. Nothing here knows a layer or a model.
"""

from pdp_keras.allocation.base import (
    Allocation,
    WeightInfo,
    check_sparsity,
    count_zeros,
)
from pdp_keras.allocation.global_magnitude import GlobalMagnitude
from pdp_keras.allocation.registry import (
    get,
    get_deferred,
    is_deferred,
    serialize_deferred,
)

__all__ = [
    "Allocation",
    "GlobalMagnitude",
    "WeightInfo",
    "check_sparsity",
    "count_zeros",
    "get",
    "get_deferred",
    "is_deferred",
    "serialize_deferred",
]
