"""`PDP`: the soft mask that the weights make themselves; and the paper's recipe."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from keras import ops

from pdp_keras.configs import POSITIVE, Rule, argument
from pdp_keras.masks import AbsoluteTemperature
from pdp_keras.methods.base import Method, Tensor, Weight

_GAIN = Rule(
    "a positive number, or None",
    lambda value: value is None or value == math.inf or POSITIVE.holds(value),
)


@dataclasses.dataclass(frozen=True)
class PDP(Method):
    """Parameter-free differentiable pruning; first published as IDP.

        training:   m(w) * w,  m(w) = sigmoid((w**2 - t**2) / temperature)
        gradient:   m + (2 w**2 / temperature) m (1 - m), at most max_gain
        inference:  the mask is hard

    The threshold t follows the weights at every step (Cho, Adya and Naik, NeurIPS
    2023, arXiv:2305.11203).

    The recipe around it is not the paper's, which is `PaperPDP`, but what was the most
    accurate in `benchmarks/accuracy_ablation.py`: a temperature relative to t**2 that
    falls in the second half of the ramp (for N:M in all of it), a bounded gradient, a
    cubic ramp by step, and the ranking of `allocation="lamp"`, made anew while the mask
    changes.

    Args:
        max_gain: what the gradient is bounded by: with 1 no weight near the threshold
            moves faster than it would in a dense network, however low the temperature.
            None for the formula as it is. (Channels take it as it is.)

    Raises:
        ValueError: if it is not positive.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="pdp")
    >>> method = pdp_keras.methods.PDP(max_gain=None)
    >>> pruned = pdp_keras.prune_model(model, 0.9, method=method)
    """

    max_gain: float | None = argument(_GAIN, 1.0)

    name = "pdp"
    modes = ("unstructured", "nm", "block", "channel")
    is_soft = True

    def default_allocation(self, mode: Any) -> str:
        """By LAMP, which no layer can lose all of its weights to."""
        return "lamp" if mode.name in ("unstructured", "block") else "global"

    def default_fall(self, mode: Any) -> tuple[float, float]:
        """For N:M from the ramp's beginning: its groups decide early."""
        return (0.0, 1.0) if mode.name == "nm" else super().default_fall(mode)

    def masked(self, weight: Weight) -> Tensor:
        """The weights times their soft mask."""
        return weight.soft_masking()(ops.cast(weight.variable.value, "float32"))

    def hard_masked(self, weight: Weight) -> Tensor:
        """The weights with the smallest of them set to 0."""
        return weight.cut_smallest(training=False)


@dataclasses.dataclass(frozen=True)
class PaperPDP(PDP):
    """PDP as its paper runs it.

    One temperature of 1e-4 for all weights, which stays; the gradient without a bound;
    a straight ramp by epoch; one ranking at the end of warm-up (arXiv:2305.11203,
    algorithm 1 and section 4).

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="pdp_paper")
    """

    max_gain: float | None = argument(_GAIN, None)

    name = "pdp_paper"
    ramp = "linear"
    goes_by_step = False
    default_temperature = AbsoluteTemperature(1e-4)
    final_temperature = 1.0

    def default_allocation(self, mode: Any) -> str:
        """One ranking of all magnitudes."""
        del mode
        return "global"
