"""PDP with other gradients than its own: what the comparison of recipes asks about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

from keras import ops

from pdp_keras.masks.custom_gradient import straight_through
from pdp_keras.methods.base import Tensor, Weight
from pdp_keras.methods.pdp import PDP


def _through_mask(weights: Tensor, masked: Tensor) -> Tensor:
    mask = ops.where(weights == 0, 0.0, masked / ops.where(weights == 0, 1.0, weights))
    return weights * ops.stop_gradient(mask)


# From the weights and the masked weights to these with another gradient.
_GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mask": _through_mask,
    "straight_through": straight_through,
}


@dataclasses.dataclass(frozen=True)
class OtherGradientPDP(PDP):
    """PDP whose backward pass multiplies by something else."""

    gradient: str = "mask"

    name: ClassVar[str] = "pdp_other_gradient"

    def masked(self, weight: Weight) -> Tensor:
        """As PDP, with `gradient` in place of its own."""
        weights = ops.cast(weight.variable.value, "float32")
        return _GRADIENTS[self.gradient](weights, weight.soft_masking()(weights))
