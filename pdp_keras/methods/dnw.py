"""`DNW`: a hard mask with a straight-through gradient."""

from __future__ import annotations

import dataclasses

from keras import ops

from pdp_keras.masks import straight_through
from pdp_keras.methods.base import Method, Tensor, Weight
from pdp_keras.scheduling import Moment


@dataclasses.dataclass(frozen=True)
class DNW(Method):
    """Discovering neural wirings: pruned weights learn as if they were there.

        training:   mask * w; the mask prunes the smallest |w|, anew at every step
        gradient:   1, also where the mask is 0
        sparsity:   the target from the end of warm-up on

    Wortsman, Farhadi and Rastegari, NeurIPS 2019, arXiv:1906.00586.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="dnw")
    """

    name = "dnw"
    modes = ("unstructured", "nm", "block")

    def masked(self, weight: Weight) -> Tensor:
        """The weights with the smallest of them set to 0."""
        weight.track_threshold()
        weights = ops.cast(weight.variable.value, "float32")
        return straight_through(weights, ops.cast(weight.cut_smallest(), "float32"))

    def hard_masked(self, weight: Weight) -> Tensor:
        """The same."""
        return weight.cut_smallest(training=False)

    def fraction(self, moment: Moment, shape: str | None = None) -> float:
        """1 once the warm-up is over; the ramp is not used unless it has a shape."""
        if shape is not None:
            return super().fraction(moment, shape)
        return float(moment.done > moment.ramp.warmup_epochs)
