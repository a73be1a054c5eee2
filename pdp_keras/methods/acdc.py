"""`ACDC`: alternating compressed and decompressed phases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdp_keras.masks import read, read_integer
from pdp_keras.methods.stored_mask import StoredMask, forget_momentum, smallest
from pdp_keras.scheduling import Moment

# The beginnings of the compressed phases and of the dense ones between them, in parts
# of the run: a tenth dense, then 5 % each, a longer dense phase, and a last compressed
# one of 15 %.
_COMPRESSED = (0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.85)
_DENSE = (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75)


@dataclasses.dataclass(frozen=True)
class ACDC(StoredMask):
    """Alternating compressed and decompressed training.

        training:   mask * w; in a dense phase the mask is 1
        gradient:   mask
        masks:      the smallest |w| of the whole model when a compressed phase begins,
                    then fixed; a dense phase brings the pruned weights back as zeros,
                    without momentum

    Peste, Iofinova, Vladu and Alistarh, NeurIPS 2021, arXiv:2106.12379, with the phases
    of their public code for ImageNet, in parts of the run.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="acdc")
    """

    name = "acdc"
    may_fall = True

    def fraction(self, moment: Moment, shape: str | None = None) -> float:
        """1 in a compressed phase, else 0; warm-up and ramp are not used."""
        del shape
        return float(_begun(_COMPRESSED, moment) > _begun(_DENSE, moment))

    def is_due(self, moment: Moment) -> bool:
        """At the beginning of a phase."""
        before = dataclasses.replace(moment, done=moment.before)
        marks = _COMPRESSED + _DENSE
        is_first = moment.before <= 0
        return is_first or _begun(marks, moment) != _begun(marks, before)

    def update(
        self, weights: Sequence[Any], moment: Moment, optimizer: Any = None
    ) -> None:
        """Compresses, or brings back what was compressed."""
        del moment
        for weight in weights:
            mask = read(weight.extras["mask"])
            values = read(weight.variable)
            zeros = read_integer(weight.zeros)
            if not zeros and not mask.all():
                weight.variable.assign(np.where(mask, values, 0))
                forget_momentum(optimizer, weight.variable, ~mask)
            weight.extras["mask"].assign(~smallest(np.abs(values), zeros))


def _begun(marks: tuple[float, ...], moment: Moment) -> int:
    # A step belongs to the phase in which it ends.
    return sum(moment.done > mark * moment.epochs + 1e-9 for mark in marks)
