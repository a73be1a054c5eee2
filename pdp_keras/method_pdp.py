"""`PDP`: the soft mask that the weights make themselves; and the paper's recipe."""

from __future__ import annotations

import dataclasses

from keras import ops

from pdp_keras.method import Method, Tensor, Weight
from pdp_keras.temperatures import AbsoluteTemperature


@dataclasses.dataclass(frozen=True)
class PDP(Method):
    """Parameter-free differentiable pruning; first published as IDP.

        training:   m(w) * w,  m(w) = sigmoid((w**2 - t**2) / temperature)
        gradient:   m + (2 w**2 / temperature) m (1 - m)
        inference:  the mask is hard

    The threshold t follows the weights at every step (Cho, Adya and Naik, NeurIPS
    2023, arXiv:2305.11203).
    """

    name = "pdp"
    modes = ("unstructured", "nm", "channel")
    ramp = "linear"
    goes_by_step = False
    is_soft = True

    def masked(self, weight: Weight) -> Tensor:
        """The weights times their soft mask."""
        return weight.soft_masking()(ops.cast(weight.variable.value, "float32"))

    def hard_masked(self, weight: Weight) -> Tensor:
        """The weights with the smallest of them set to 0."""
        return weight.cut_smallest()


@dataclasses.dataclass(frozen=True)
class PaperPDP(PDP):
    """PDP as its paper runs it.

    One temperature of 1e-4 for all weights, which stays; a straight ramp by epoch; one
    ranking at the end of warm-up (arXiv:2305.11203, algorithm 1 and section 4).
    """

    name = "pdp_paper"
    ramp = "linear"
    goes_by_step = False
    reallocates = False
    default_temperature = AbsoluteTemperature(1e-4)
    final_temperature = 1.0
