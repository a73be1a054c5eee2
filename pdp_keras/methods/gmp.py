"""`GMP`: gradual magnitude pruning."""

from __future__ import annotations

import dataclasses

from pdp_keras.methods.base import Method, Tensor, Weight


@dataclasses.dataclass(frozen=True)
class GMP(Method):
    """Gradual magnitude pruning: a hard mask whose sparsity follows a cubic ramp.

        training:   mask * w; the mask prunes the smallest |w|
        gradient:   mask
        sparsity:   s (1 - (1 - p)**3) as p goes from 0 to 1

    What is pruned keeps its value and gets no gradient; it comes back only when a
    kept weight has become smaller (Zhu and Gupta, arXiv:1710.01878).

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="gmp")
    """

    name = "gmp"
    modes = ("unstructured", "nm", "block", "channel")

    def masked(self, weight: Weight) -> Tensor:
        """The weights with the smallest of them set to 0."""
        weight.track_threshold()
        return weight.cut_smallest()

    def hard_masked(self, weight: Weight) -> Tensor:
        """The same."""
        return weight.cut_smallest(training=False)
