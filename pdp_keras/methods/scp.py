"""`SCP`: channels that a BatchNormalization and a ReLU shut are left out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from pdp_keras.configs import POSITIVE, argument
from pdp_keras.masks import midpoint_threshold, read, sum_by_unit
from pdp_keras.methods.base import Extra, Group, Tensor
from pdp_keras.methods.channel_method import ChannelMethod

# Below it a scale makes no steeper slope.
_LEAST_SCALE = 1e-3
# Untrained normalizations all have the same odds, and a mask without width would have
# no finite gradient.
_LEAST_SPREAD = 0.1
# Probabilities are taken to lie this far from 0 and 1 where their logarithm is taken.
_LEAST = 1e-6


@dataclasses.dataclass(frozen=True)
class SCP(ChannelMethod):
    """Operation-aware soft channel pruning: masks from what shuts a channel.

        off:        p = Phi(-beta / |gamma|), Phi of the standard normal distribution:
                    how often a ReLU finds nothing above 0 behind a
                    BatchNormalization with shift beta and scale gamma
        training:   m = sigmoid((k (o - t) + log(u / (1 - u))) / softness),
                    o = log((1 - p) / p) the odds of being on, t midway between those
                    of the channels that are pruned and those that are kept,
                    k = sharpness / mean |o - t|, and u uniform in (0, 1), drawn in
                    every step for every channel
        gradient:   through o to beta and gamma; k and t are constants
        loss:       force * sum |p - (1 - h)|, h the hard mask
        inference:  the hard mask prunes the channels with the largest p

    Weights and masks train together; nothing is fine-tuned. From Kang and Han, ICML
    2020, arXiv:2007.03938, are the probability and a Gumbel-softmax mask that is made
    of it. There a sparsity loss weighs against the task, and how many channels are off
    follows; here the schedule says how many, by t, and the loss draws the
    probabilities of these to 1 and those of the others to 0. The `final_temperature`
    of `PDPScheduleCallback` divides k, so that in the end hardly anything is left to
    chance. (With k = 1 and t = 0 a channel is on with the probability 1 - p. In a run
    too short for p to come near 0 or 1, each would be off every other step, and
    inference compute something else than training to the end.) In warm-up m is 1.

    With `allocation="global"` one ranking of the probabilities, made anew in every
    epoch, decides which groups lose how many channels.

    A group has probabilities if every BatchNormalization that its channels pass stands
    directly in front of a ReLU; of several, and of several channels that must go
    together, the product counts: all have to be shut. The other groups (sums of
    residual branches, linear bottlenecks, layers without BatchNormalization) get the
    norm of their weights as score, and a hard mask in training, too. A model in which
    no group has probabilities is refused.

    Args:
        force: how strongly each channel is drawn off or on.
        softness: the temperature of the Gumbel-softmax; the closer to 0, the closer m
            is to 0 or 1.
        sharpness: how little is left to chance, in units of the noise.

    Raises:
        ValueError: if one of them is not positive.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.5, mode="channel", method="scp")
    """

    force: float = argument(POSITIVE, 0.1)
    softness: float = argument(POSITIVE, 0.5)
    sharpness: float = argument(POSITIVE, 10.0)

    name = "scp"
    goes_by_step = False
    reallocates = True
    needs_gates = True
    draws = True

    def extras(self) -> dict[str, Extra]:
        """The noise of the step, log(u / (1 - u))."""
        return {"noise": Extra()}

    def channel_scores(self, group: Group) -> Tensor:
        """The probability of being on, or the norm."""
        return 1.0 - off_probability(group) if group.gates else group.norms()

    def channel_mask(self, group: Group) -> Tensor:
        """The relaxed sample, or the hard mask."""
        if not group.gates:
            return group.hard_mask()
        off = off_probability(group)
        odds = _log(1.0 - off) - _log(off)
        constant = ops.stop_gradient(odds)
        # Order statistics are those of magnitudes.
        least = ops.min(constant)
        above = midpoint_threshold(constant - least, group.zeros.value)
        distance = odds - (least + above)
        spread = ops.mean(ops.abs(ops.stop_gradient(distance)))
        width = ops.maximum(spread, _LEAST_SPREAD) / self.sharpness
        width = width * ops.convert_to_tensor(group.temperature_scale)
        noise = ops.convert_to_tensor(group.extras["noise"])
        mask = ops.sigmoid((distance / width + noise) / self.softness)
        return ops.where(_prunes(group), mask, ops.ones_like(mask))

    def start_call(self, group: Group) -> Tensor:
        """Draws the noise; the loss."""
        u = keras.random.uniform(
            (group.units,), _LEAST, 1.0 - _LEAST, seed=group.seed_generator
        )
        group.extras["noise"].assign(ops.log(u) - ops.log(1.0 - u))
        wanted = 1.0 - group.hard_mask()
        distance = ops.sum(ops.abs(off_probability(group) - wanted))
        return self.force * ops.where(_prunes(group), distance, 0.0)

    def rankings(self, weights: Sequence[Any]) -> list[np.ndarray]:
        """The scores; probabilities over their mean, as norms are over theirs."""
        scores = [read(group.scores()) for group in weights]
        gated = [s for s, group in zip(scores, weights, strict=True) if group.gates]
        mean = np.concatenate(gated).mean() or 1.0
        return [
            values / mean if group.gates else values
            for values, group in zip(scores, weights, strict=True)
        ]


def off_probability(group: Group) -> Tensor:
    """The probability that all channels of a unit are shut, `(units,)`, float32."""
    logarithm: Tensor = 0.0
    for gate in group.gates:
        ratio = ops.cast(gate.shift.value, "float32")
        if gate.scale is not None:
            scale = ops.abs(ops.cast(gate.scale.value, "float32"))
            ratio = ratio / ops.maximum(scale, _LEAST_SCALE)
        off = 0.5 * (1.0 - ops.erf(ratio / math.sqrt(2)))
        logarithm += sum_by_unit(_log(off), gate.unit_of, group.units)
    return ops.exp(logarithm)


def _log(probability: Tensor) -> Tensor:
    return ops.log(ops.clip(probability, _LEAST, 1.0 - _LEAST))


def _prunes(group: Group) -> Tensor:
    return ops.convert_to_tensor(group.zeros) > 0
