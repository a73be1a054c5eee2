"""Thresholds, soft and hard masks, and their gradients, on every backend.

What is computed from a tensor of weights and a number of zeros; nothing here knows a
layer. Only this package looks at the backend.
"""

from pdp_keras.masks import recomputed, temperatures
from pdp_keras.masks.blocks import (
    block_scores,
    block_soft_masked,
    count_blocks,
    spread,
)
from pdp_keras.masks.compilation import MANY, compiled, may_update
from pdp_keras.masks.custom_gradient import (
    masked_noting,
    straight_through,
    with_gradient,
)
from pdp_keras.masks.functional import soft_mask, soft_masked
from pdp_keras.masks.reading import read, read_integer, require_finite
from pdp_keras.masks.rows import (
    row_thresholds,
    smallest_of_rows,
    stacked,
    unstacked,
)
from pdp_keras.masks.temperatures import AbsoluteTemperature, RelativeTemperature
from pdp_keras.masks.thresholds import (
    BRACKET,
    midpoint_threshold,
    smallest,
    tracked_cut,
    tracked_threshold,
)
from pdp_keras.masks.units import masked_noting_norms, sum_by_unit

__all__ = [
    "BRACKET",
    "MANY",
    "AbsoluteTemperature",
    "RelativeTemperature",
    "block_scores",
    "block_soft_masked",
    "compiled",
    "count_blocks",
    "masked_noting",
    "masked_noting_norms",
    "may_update",
    "midpoint_threshold",
    "read",
    "read_integer",
    "recomputed",
    "require_finite",
    "row_thresholds",
    "smallest",
    "smallest_of_rows",
    "soft_mask",
    "soft_masked",
    "spread",
    "stacked",
    "straight_through",
    "sum_by_unit",
    "temperatures",
    "tracked_cut",
    "tracked_threshold",
    "unstacked",
    "with_gradient",
]
