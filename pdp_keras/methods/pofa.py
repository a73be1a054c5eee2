"""`POFA`: magnitude pruning of a trained model, whose mask is locked in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pdp_keras.configs import POSITIVE_INTEGER, argument
from pdp_keras.masks import read_integer
from pdp_keras.methods.stored_mask import StoredMask, kept_magnitudes, smallest
from pdp_keras.scheduling import Moment


@dataclasses.dataclass(frozen=True)
class POFA(StoredMask):
    """Prune once for all: the mask of a general model, kept while it learns a task.

        training:   mask * w
        gradient:   mask
        masks:      on a cubic ramp, every `frequency` steps, the smallest |w|; locked
                    from the end of the ramp on

    Zafrir et al., arXiv:2111.05754. There the model is trained before, and learns from
    its dense self by distillation: put `keras.distillation.Distiller` around the two.

    Args:
        frequency: steps between two updates of the mask.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="pofa")
    >>> method = pdp_keras.methods.POFA(frequency=50)
    >>> pruned = pdp_keras.prune_model(model, 0.9, method=method)
    """

    frequency: int = argument(POSITIVE_INTEGER, 100)

    name = "pofa"
    reallocates = False

    def is_due(self, moment: Moment) -> bool:
        """Every `frequency` steps of the ramp, and at its end."""
        ends = moment.ramp(moment.done) >= 1
        is_over = moment.ramp(moment.before) >= 1
        return not is_over and (ends or moment.passes(self.frequency))

    def update(
        self, weights: Sequence[Any], moment: Moment, optimizer: Any = None
    ) -> None:
        """Prunes the smallest."""
        del moment, optimizer
        for weight in weights:
            pruned = smallest(kept_magnitudes(weight), read_integer(weight.zeros))
            weight.extras["mask"].assign(~pruned)
