"""`SRSTE`: straight-through with a decay of what is pruned."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import ops

from pdp_keras.configs import NOT_NEGATIVE, argument
from pdp_keras.masks import with_gradient
from pdp_keras.methods.base import Tensor, Weight
from pdp_keras.methods.dnw import DNW


@dataclasses.dataclass(frozen=True)
class SRSTE(DNW):
    """Sparse-refined straight-through estimator, made for N:M.

        training:   mask * w; the mask keeps the n largest |w| of each group of m
        gradient:   1, plus decay * w where the mask is 0
        sparsity:   the target from the end of warm-up on

    Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From
    Scratch, ICLR 2021, arXiv:2102.04010, equation 9.

    Args:
        decay: how strongly a pruned weight is drawn to 0, lambda in the paper.

    Example:

    >>> pruned = pdp_keras.prune_model(model, mode="2:4", method="sr_ste")
    """

    decay: float = argument(NOT_NEGATIVE, 2e-4)

    name = "sr_ste"

    def masked(self, weight: Weight) -> Tensor:
        """The weights with the smallest of them set to 0."""
        weight.track_threshold()
        cut = ops.stop_gradient(ops.cast(weight.cut_smallest(), "float32"))

        def gradient(upstream: Tensor, weights: Tensor, cut: Tensor) -> Any:
            # weights - cut is the pruned weights alone.
            return upstream + self.decay * (weights - cut), ops.zeros_like(cut)

        weights = ops.cast(weight.variable.value, "float32")
        return with_gradient(lambda weights, cut: 1.0 * cut, gradient, weights, cut)
