"""`Movement` and `SoftMovement`: scores that grow as weights move away from 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras import ops

from pdp_keras.configs import NOT_NEGATIVE, POSITIVE, argument, number
from pdp_keras.masks import read, smallest
from pdp_keras.methods.base import Extra, Tensor, Weight
from pdp_keras.methods.learned_scores import LearnedScores
from pdp_keras.scheduling import Moment

_THRESHOLD = number(
    "in (0, 0.5): scores start at 0, whose sigmoid is 0.5",
    lambda value: 0 < value < 0.5,
)


@dataclasses.dataclass(frozen=True)
class Movement(LearnedScores):
    """Movement pruning: a weight that training moves towards 0 goes.

        training:   mask * w; the mask prunes the lowest scores of each kernel, anew at
                    every step
        gradient:   mask for w; upstream * w for the scores

    Sanh, Wolf and Rush, NeurIPS 2020, arXiv:2005.07683, section 4. There the scores
    have a learning rate of their own. Here they need none: they start at 0, and with
    SGD as with Adam another rate stretches all of them alike, which leaves their order,
    and so the mask, as it is.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="movement")
    """

    name = "movement"

    def mask(self, weight: Weight) -> Tensor:
        """All but the lowest scores."""
        scores = ops.stop_gradient(ops.convert_to_tensor(weight.extras["scores"]))
        # Order statistics are those of magnitudes.
        ranks = scores - ops.min(scores)
        return ops.logical_not(smallest(ranks, weight.zeros.value))


@dataclasses.dataclass(frozen=True)
class SoftMovement(LearnedScores):
    """Soft movement pruning: a threshold for the scores, and a force that lowers them.

        training:   mask * w;  mask = sigmoid(S) > threshold * f, f the cubic ramp
        gradient:   mask for w; for the scores upstream * w + force * f * the gradient
                    of the mean of sigmoid(S) over all scores of the model

    Its sparsity follows from `force` (lambda in the paper) and is not exactly what
    `prune_model` was asked for: tune the force to reach it. Sanh, Wolf and Rush,
    NeurIPS 2020, arXiv:2005.07683, section 4 and appendix. (Their code takes the mean
    of each layer and then of the layers, which is the same for the equal layers of a
    Transformer; with unequal ones it would empty the smallest layer before the others
    have lost anything.)

    A score goes when it has fallen to -2.2, where its sigmoid is a tenth. At the
    learning rate of the weights it never comes that far within a fine-tuning; where a
    force drives it there in spite of that, all scores fall together. So S is `rate`
    times a variable that starts at 0: with Adam, `rate` is the learning rate of the
    scores in units of that of the weights (in the paper 1e-2 and 3e-5), with SGD the
    square root of that: 10 to 30 serve there.

    Args:
        force: how strongly scores are lowered.
        threshold: what sigmoid(S) must be above in the end, in (0, 0.5).
        rate: how much faster the scores learn than the weights.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="soft_movement")
    >>> method = pdp_keras.methods.SoftMovement(force=20.0)
    >>> pruned = pdp_keras.prune_model(model, 0.9, method=method)
    """

    force: float = argument(NOT_NEGATIVE, 400.0)
    threshold: float = argument(_THRESHOLD, 0.1)
    rate: float = argument(POSITIVE, 333.0)

    name = "soft_movement"
    learns_sparsity = sets_zeros = True

    def extras(self) -> dict[str, Extra]:
        """Scores, how far the ramp has come, and the force on each score."""
        return super().extras() | {"position": Extra(()), "push": Extra(())}

    def update(
        self, weights: Sequence[Any], moment: Moment, optimizer: Any = None
    ) -> None:
        """Moves the threshold, and shares out the force."""
        del optimizer
        position = self.fraction(moment)
        push = position * self.force / max(1, sum(weight.units for weight in weights))
        for weight in weights:
            weight.extras["position"].assign(position)
            weight.extras["push"].assign(push)

    def count(self, weights: Sequence[Any]) -> None:
        """Counts what the threshold prunes."""
        for weight in weights:
            weight.zeros.assign(int((~read(self.mask(weight))).sum()))

    def mask(self, weight: Weight) -> Tensor:
        """Scores whose sigmoid is not below the threshold."""
        scores = self.rate * ops.convert_to_tensor(weight.extras["scores"])
        limit = self.threshold * ops.convert_to_tensor(weight.extras["position"])
        # Before the ramp the limit is 0, which a sigmoid that underflows is not below.
        return ops.sigmoid(scores) >= limit

    def score_gradient(
        self, weight: Weight, straight: Tensor, scores: Tensor
    ) -> Tensor:
        """With the gradient of the force's loss."""
        sigmoid = ops.sigmoid(self.rate * scores)
        push = ops.convert_to_tensor(weight.extras["push"])
        return self.rate * (straight + push * sigmoid * (1.0 - sigmoid))
