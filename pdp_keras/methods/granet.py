"""`GraNet`: gradual pruning with regrowth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdp_keras.configs import FRACTION, POSITIVE_INTEGER, argument
from pdp_keras.masks import read_integer
from pdp_keras.methods.rigl import Regrowing, exchange
from pdp_keras.methods.stored_mask import kept_magnitudes, smallest
from pdp_keras.scheduling import Moment


@dataclasses.dataclass(frozen=True)
class GraNet(Regrowing):
    """Sparse training by gradual pruning with zero-cost neuroregeneration.

        training:   mask * w
        gradient:   mask
        masks:      every `frequency` steps the smallest |w| of the whole model go,
                    on a cubic ramp; then, in each kernel, the fraction `exchanged`
                    (by a cosine down to `exchanged_last`) of the kept weights makes
                    room for as many with the largest |gradient|

    Liu et al., NeurIPS 2021, arXiv:2106.10404, algorithm 1, from a dense network.

    Args:
        exchanged: the fraction that is exchanged at first.
        exchanged_last: and at the end of the ramp.
        frequency: steps between two updates.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="granet")
    >>> method = pdp_keras.methods.GraNet(frequency=50)
    >>> pruned = pdp_keras.prune_model(model, 0.9, method=method)
    """

    exchanged: float = argument(FRACTION, 0.5)
    exchanged_last: float = argument(FRACTION, 0.005)
    frequency: int = argument(POSITIVE_INTEGER, 100)

    name = "granet"

    def is_due(self, moment: Moment) -> bool:
        """Every `frequency` steps, and at the one that ends the ramp."""
        ends = moment.ramp(moment.before) < 1 <= moment.ramp(moment.done)
        return ends or moment.passes(self.frequency)

    def rankings(self, weights: Sequence[Any]) -> list[np.ndarray]:
        """The magnitudes; what is pruned already ranks least."""
        return [kept_magnitudes(weight) for weight in weights]

    def update(
        self, weights: Sequence[Any], moment: Moment, optimizer: Any = None
    ) -> None:
        """Prunes, then exchanges."""
        position = moment.ramp(moment.done)
        rate = self.exchanged_last + 0.5 * (self.exchanged - self.exchanged_last) * (
            1 + math.cos(math.pi * position)
        )
        for weight in weights:
            zeros = read_integer(weight.zeros)
            mask = ~smallest(kept_magnitudes(weight), zeros)
            weight.extras["mask"].assign(mask)
            if zeros and 0 < position < 1:
                exchange(weight, int(rate * mask.sum()), optimizer)
