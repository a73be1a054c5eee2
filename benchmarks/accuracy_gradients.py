"""PDP with other gradients than its own: what the comparison of recipes asks about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as tf

from pdp_keras.method import Tensor, Weight
from pdp_keras.method_pdp import PDP


def _mask(weights: Tensor, masked: Tensor, slope: Tensor) -> Tensor:
    del slope
    return tf.math.divide_no_nan(masked, weights)


# From the weights, the masked weights and PDP's own gradient.
_GRADIENTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mask": _mask,
    "straight_through": lambda weights, masked, slope: tf.ones_like(slope),
}


@dataclasses.dataclass(frozen=True)
class OtherGradientPDP(PDP):
    """PDP whose backward pass multiplies by something else (TensorFlow only)."""

    gradient: str = "mask"

    name: ClassVar[str] = "pdp_other_gradient"

    def masked(self, weight: Weight) -> Tensor:
        """As PDP, with `gradient` in place of its own."""
        masking = weight.soft_masking()

        @tf.custom_gradient
        def with_other_gradient(weights: Tensor) -> Any:
            def backward(upstream: Tensor) -> Tensor:
                with tf.GradientTape() as tape:
                    tape.watch(weights)
                    masked = masking(weights)
                slope = tape.gradient(masked, weights)
                return upstream * _GRADIENTS[self.gradient](weights, masked, slope)

            return masking(weights), backward

        return with_other_gradient(tf.cast(weight.variable.value, "float32"))
