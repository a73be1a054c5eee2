"""`LearnedScores`: what the methods share that learn a score beside every weight."""

from __future__ import annotations

import abc

from keras import ops

from pdp_keras.masks import masked_noting
from pdp_keras.methods.base import Extra, Method, Tensor, Weight


class LearnedScores(Method):
    """Computes with `mask * w`, the mask made of trained scores S.

    The gradient passes the mask straight through: of a score it is the gradient of
    the masked weight times the weight. The optimizer of the model updates both.
    """

    def extras(self) -> dict[str, Extra]:
        """The scores, 0 at first."""
        return {"scores": Extra(trainable=True)}

    @abc.abstractmethod
    def mask(self, weight: Weight) -> Tensor:
        """The mask, bool, of the scores of this moment."""

    def score_gradient(
        self, weight: Weight, straight: Tensor, scores: Tensor
    ) -> Tensor:
        """The gradient of the scores, from the one that passes straight through."""
        del weight, scores
        return straight

    def masked(self, weight: Weight) -> Tensor:
        """The weights that the mask keeps."""

        def note(upstream: Tensor, weights: Tensor, scores: Tensor) -> list[Tensor]:
            return [self.score_gradient(weight, upstream * weights, scores)]

        return masked_noting(
            ops.cast(weight.variable.value, "float32"),
            ops.cast(self.mask(weight), "float32"),
            note,
            ops.convert_to_tensor(weight.extras["scores"]),
        )

    def hard_masked(self, weight: Weight) -> Tensor:
        """The same."""
        weights = ops.cast(weight.variable.value, "float32")
        return ops.where(self.mask(weight), weights, ops.zeros_like(weights))
