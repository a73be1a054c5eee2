"""The soft mask in PyTorch: the formulas of `functional`, written over in place.

PyTorch runs one operation after the other, each over the whole kernel, and a new array
for every result costs more than the arithmetic. No gradient flows through these.
"""

from __future__ import annotations

import math
from typing import Any

Tensor = Any


def masked(
    weights: Tensor, low: Tensor, high: Tensor, inverse: Tensor, largest: float
) -> Tensor:
    """`m(w) * w`; the numbers are those of `functional.soft_masked`."""
    return _logit(weights, low, high, inverse, largest).sigmoid_().mul_(weights)


def masked_gradient(
    weights: Tensor,
    upstream: Tensor,
    low: Tensor,
    high: Tensor,
    inverse: Tensor,
    largest: float,
    max_gain: float,
) -> Tensor:
    """The gradient of `masked` with respect to the weights."""
    logit = _logit(weights, low, high, inverse, largest)
    keep = logit.sigmoid()
    # m (1 - m), where 1 - m has all its digits.
    both = logit.neg_().sigmoid_().mul_(keep)
    scaled = weights.mul(inverse).clamp_(-largest, largest)
    slope = both.mul_(scaled.square_()).mul_(2.0).add_(keep)
    if max_gain < math.inf:
        slope.clamp_(max=max_gain)
    return slope.mul_(upstream)


def _logit(
    weights: Tensor, low: Tensor, high: Tensor, inverse: Tensor, largest: float
) -> Tensor:
    scores = weights.abs()
    difference = scores.sub(low).mul_(inverse).clamp_(-largest, largest)
    return difference.mul_(scores.add_(high).mul_(inverse).clamp_(max=largest))
