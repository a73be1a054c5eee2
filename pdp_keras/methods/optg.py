"""`OptG`: a supermask that is learned together with the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from pdp_keras.configs import NOT_NEGATIVE, POSITIVE_INTEGER, argument
from pdp_keras.masks import read, read_integer
from pdp_keras.methods.base import Extra, Tensor, Weight
from pdp_keras.methods.learned_scores import LearnedScores
from pdp_keras.methods.stored_mask import smallest
from pdp_keras.scheduling import Moment


@dataclasses.dataclass(frozen=True)
class OptG(LearnedScores):
    """Optimizing gradient-driven criteria: the supermask optimizer.

        training:   mask * w
        gradient:   mask for w; upstream * w for the scores, times `rate`
        masks:      a hundred times in a run, or once an epoch if that is more often,
                    the lowest scores of the whole model go
        sparsity:   s * rate, rate = sigmoid(steepness (p - 1/2)), p the part of the
                    run that is done

    Zhang et al., arXiv:2201.12826, section 3. There a run has a hundred epochs and a
    mask for each. Their public code has a steepness of 1 an epoch, which is 100 here
    for a run of 100 epochs; short runs want a gentler one. The
    rate multiplies the gradient of the scores: under SGD that is their learning rate,
    as there; Adam divides it out again.

    Args:
        steepness: of the sigmoid.
        masks: how many a run has at least; with 1, one an epoch.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="optg")
    """

    steepness: float = argument(NOT_NEGATIVE, 20.0)
    masks: int = argument(POSITIVE_INTEGER, 100)

    name = "optg"
    reallocates = True

    def extras(self) -> dict[str, Extra]:
        """Scores, the mask that they gave last, and their learning rate's factor."""
        return super().extras() | {
            "mask": Extra(dtype="bool", initial=1),
            "rate": Extra(()),
        }

    def fraction(self, moment: Moment, shape: str | None = None) -> float:
        """The sigmoid; 1 in the last tenth, or from the last mask if that is longer.

        Warm-up and ramp are not used.
        """
        del shape
        # What is left of a run when its last mask is made, in epochs.
        rest = self._interval(moment) / (moment.steps_per_epoch or 1)
        last = min(0.9 * moment.epochs, moment.epochs - rest)
        return 1.0 if moment.done > last else self._rate(moment)

    def is_due(self, moment: Moment) -> bool:
        """As often as there are to be masks."""
        return moment.passes(self._interval(moment))

    def _interval(self, moment: Moment) -> int:
        """Steps from one mask to the next; 1, an epoch, where it goes by epoch."""
        an_epoch = moment.steps_per_epoch
        return max(1, min(an_epoch, moment.epochs * an_epoch // self.masks))

    def rankings(self, weights: Sequence[Any]) -> list[np.ndarray]:
        """The scores, moved so that the least of the model is 0."""
        scores = [read(weight.extras["scores"]) for weight in weights]
        least = min(values.min() for values in scores)
        return [values - least for values in scores]

    def update(
        self, weights: Sequence[Any], moment: Moment, optimizer: Any = None
    ) -> None:
        """Makes the masks anew."""
        del optimizer
        for weight in weights:
            scores = read(weight.extras["scores"])
            pruned = smallest(scores, read_integer(weight.zeros))
            weight.extras["mask"].assign(~pruned)
            weight.extras["rate"].assign(self._rate(moment))

    def mask(self, weight: Weight) -> Tensor:
        """The mask of the last update."""
        return ops.convert_to_tensor(weight.extras["mask"])

    def score_gradient(
        self, weight: Weight, straight: Tensor, scores: Tensor
    ) -> Tensor:
        """Times the factor of the learning rate."""
        del scores
        return straight * ops.convert_to_tensor(weight.extras["rate"])

    def _rate(self, moment: Moment) -> float:
        # The sigmoid; its exponential would overflow where the slope is steep.
        return 0.5 + 0.5 * math.tanh(0.5 * self.steepness * (moment.progress - 0.5))
