"""`STR`: soft thresholds that are learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras import ops

from pdp_keras.configs import FINITE, NOT_NEGATIVE, POSITIVE, argument
from pdp_keras.masks import read, with_gradient
from pdp_keras.methods.base import Extra, Method, Tensor, Weight


@dataclasses.dataclass(frozen=True)
class STR(Method):
    """Soft threshold reparameterization: every kernel learns its own threshold.

        w_ = sign(w) relu(|w| - sigmoid(p)),  one trainable scalar p a kernel

    with the gradients of that formula, and `decay * p` added to that of p. The decay
    draws p up to 0 and so makes the kernel sparse, while the loss holds against it:
    the sparsity follows from `decay` and `initial`, not from the schedule, and is not
    exactly what `prune_model` was asked for. Tune one of the two to reach it
    (Kusupati et al., ICML 2020, arXiv:2002.03231, equations 4 to 6).

    Args:
        initial: what p starts from; sigmoid(-6) is a threshold of 0.0025.
        decay: of p; in the paper that of the weights.
        rate: p is this times the variable that is trained. With Adam, whose steps do
            not depend on the size of a gradient, p learns so many times faster than
            the weights: at a learning rate for fine-tuning it hardly moves with 1.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="str")
    >>> method = pdp_keras.methods.STR(initial=-3.0)
    >>> pruned = pdp_keras.prune_model(model, 0.9, method=method)
    """

    initial: float = argument(FINITE, -6.0)
    decay: float = argument(NOT_NEGATIVE, 1e-2)
    rate: float = argument(POSITIVE, 1.0)

    name = "str"
    learns_sparsity = sets_zeros = True

    def extras(self) -> dict[str, Extra]:
        """The trainable scalar."""
        initial = self.initial / self.rate
        return {"threshold": Extra((), initial=initial, trainable=True)}

    def masked(self, weight: Weight) -> Tensor:
        """The weights, each nearer to 0 by the threshold."""

        def gradient(upstream: Tensor, weights: Tensor, variable: Tensor) -> Any:
            p = self.rate * variable
            threshold = ops.sigmoid(p)
            kept = ops.where(ops.abs(weights) > threshold, upstream, 0.0 * upstream)
            slope = threshold * (1.0 - threshold)
            of_p = -slope * ops.sum(ops.sign(weights) * kept) + self.decay * p
            return kept, self.rate * of_p

        weights = ops.cast(weight.variable.value, "float32")
        # A tensor: TensorFlow's eager code refuses to differentiate by a variable here.
        p = ops.cast(weight.extras["threshold"].value, "float32")
        return with_gradient(self._soft_thresholded, gradient, weights, p)

    def hard_masked(self, weight: Weight) -> Tensor:
        """The same."""
        weights = ops.cast(weight.variable.value, "float32")
        return self._soft_thresholded(weights, weight.extras["threshold"].value)

    def count(self, weights: Sequence[Any]) -> None:
        """Counts what the thresholds prune."""
        for weight in weights:
            pruned = read(weight.hard_masked()) == 0
            weight.zeros.assign(int(pruned.sum()))

    def _soft_thresholded(self, weights: Tensor, variable: Tensor) -> Tensor:
        threshold = ops.sigmoid(self.rate * variable)
        return ops.sign(weights) * ops.relu(ops.abs(weights) - threshold)
