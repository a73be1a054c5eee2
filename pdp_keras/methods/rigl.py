"""`RigL`: a fixed number of weights, of which some change places."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from pdp_keras.configs import COUNT, FRACTION, POSITIVE_INTEGER, argument, number
from pdp_keras.masks import masked_noting, read, read_integer
from pdp_keras.methods.base import Extra, Tensor, Weight
from pdp_keras.methods.stored_mask import StoredMask, forget_momentum, smallest
from pdp_keras.scheduling import Moment

_PART = number("a number in (0, 1]", lambda value: 0 < value <= 1)


class Regrowing(StoredMask):
    """A stored mask with the size of the gradient of every weight, pruned or not."""

    def extras(self) -> dict[str, Extra]:
        """The mask, and |gradient| of the last step."""
        return super().extras() | {
            "gradient": Extra(trainable=True, takes_gradient=True)
        }

    def masked(self, weight: Weight) -> Tensor:
        """The weights that the mask keeps; notes the gradient of all."""
        return masked_noting(
            ops.cast(weight.variable.value, "float32"),
            ops.cast(weight.extras["mask"], "float32"),
            lambda upstream, *_: [ops.abs(upstream)],
            ops.convert_to_tensor(weight.extras["gradient"]),
        )

    def hard_masked(self, weight: Weight) -> Tensor:
        """The weights that the mask keeps."""
        return super().masked(weight)


@dataclasses.dataclass(frozen=True)
class RigL(Regrowing):
    """The rigged lottery: sparse from start to end.

        training:   mask * w
        gradient:   mask
        masks:      random at first; every `frequency` steps the fraction
                    `exchanged / 2 (1 + cos(pi t / T))` of the kept weights with the
                    smallest |w| goes, and as many with the largest |gradient| come,
                    as zeros and without momentum

    The sparsity is the target from the first step on, which calls for
    `allocation="erk"` or `"uniform"` (a ranking of untrained weights tells nothing).
    Evci et al., ICML 2020, arXiv:1911.11134, section 3.

    Args:
        exchanged: the fraction of a kernel's weights that is exchanged at first.
        frequency: steps between two exchanges.
        until: after this part of the run, T, nothing is exchanged any more.
        seed: of the first mask.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.9, method="rigl")
    >>> method = pdp_keras.methods.RigL(frequency=50)
    >>> pruned = pdp_keras.prune_model(model, 0.9, method=method)
    """

    exchanged: float = argument(FRACTION, 0.3)
    frequency: int = argument(POSITIVE_INTEGER, 100)
    until: float = argument(_PART, 0.75)
    seed: int = argument(COUNT, 0)

    name = "rigl"
    reallocates = False

    def fraction(self, moment: Moment, shape: str | None = None) -> float:
        """1; warm-up and ramp are not used."""
        del moment, shape
        return 1.0

    def is_due(self, moment: Moment) -> bool:
        """At the first step, and every `frequency` steps until `until`."""
        is_first = moment.before <= 0
        is_on = moment.progress < self.until
        return is_first or (is_on and moment.passes(self.frequency))

    def update(
        self, weights: Sequence[Any], moment: Moment, optimizer: Any = None
    ) -> None:
        """Draws the first masks; later, exchanges weights."""
        random = np.random.default_rng(self.seed)
        turn = 1 + math.cos(math.pi * min(1.0, moment.progress / self.until))
        for weight in weights:
            mask = read(weight.extras["mask"])
            zeros = read_integer(weight.zeros)
            if mask.all():
                drawn = random.random(mask.shape)
                weight.extras["mask"].assign(~smallest(drawn, zeros))
            elif moment.step != 0:
                exchange(
                    weight, int(0.5 * self.exchanged * turn * mask.sum()), optimizer
                )


def exchange(weight: Any, count: int, optimizer: Any) -> None:
    """Drops the `count` smallest kept weights and grows as many by their gradients.

    What was just dropped may come back, with its value.
    """
    mask, values = read(weight.extras["mask"]), read(weight.variable)
    gradients = read(weight.extras["gradient"])
    # What is pruned already can neither be dropped, nor be 0 by mistake.
    dropped = smallest(np.where(mask, np.abs(values), np.inf), count)
    left = mask & ~dropped
    grown = smallest(np.where(left, np.inf, -gradients), count)
    new = grown & ~mask
    weight.variable.assign(np.where(new, 0, values))
    weight.extras["mask"].assign(left | grown)
    forget_momentum(optimizer, weight.variable, new)
