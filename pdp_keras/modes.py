"""What is pruned together: the granularity of a mask.

A mode turns the weights of one kernel into scores, finds their threshold for a
given number of zeros, and marks what is cut in the end. Scores and thresholds
broadcast against the weights, so that one soft mask serves every mode.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from keras import ops

from pdp_keras import functional, thresholds

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Unstructured:
    """Every weight stands for itself; its score is |w|.

    Example:

    >>> pdp_keras.prune_model(model, sparsity=0.9, mode=Unstructured())
    """

    name = "unstructured"

    def units(self, shape: tuple[int, ...]) -> int:
        """How many things can be pruned in a kernel of this shape: its weights."""
        return math.prod(shape)

    def threshold(self, weights: Tensor, zeros: Tensor) -> Tensor:
        """The threshold at which `zeros` weights fall below; float32 scalar."""
        return thresholds.midpoint_threshold(ops.stop_gradient(ops.abs(weights)), zeros)

    def soft_masked(
        self, weights: Tensor, zeros: Tensor, width: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The float32 weights times their soft mask, with PDP's gradient.

        `width` gives the square root of the temperature for a threshold.
        """
        threshold = self.threshold(weights, zeros)
        return functional.soft_masked(weights, threshold, width(threshold))

    def hard_masked(self, weights: Tensor, zeros: Tensor) -> Tensor:
        """The weights with exactly `zeros` of them (ties by position) set to 0."""
        pruned = thresholds.smallest(
            ops.cast(ops.stop_gradient(ops.abs(weights)), "float32"), zeros
        )
        return ops.where(pruned, ops.zeros_like(weights), weights)


Mode = Unstructured

_MODES: dict[str, type[Mode]] = {"unstructured": Unstructured}


def get(mode: str | Mode | dict[str, Any]) -> Mode:
    """A mode from its name, its object, or the dict of `serialize`.

    Raises:
        ValueError: if the name is unknown.
        TypeError: if it is none of these.
    """
    if isinstance(mode, Unstructured):
        return mode
    if isinstance(mode, dict):
        return deserialize(mode)
    if isinstance(mode, str) and mode in _MODES:
        return _MODES[mode]()
    error = ValueError if isinstance(mode, str) else TypeError
    raise error(
        f"mode must be one of {sorted(_MODES)} or a mode object. "
        f"Received: mode={mode!r}"
    )


def serialize(mode: Mode) -> dict[str, Any]:
    """A JSON-able dict from which `deserialize` makes an equal mode."""
    return {"name": mode.name, **dataclasses.asdict(mode)}


def deserialize(config: dict[str, Any]) -> Mode:
    """The inverse of `serialize`."""
    arguments = dict(config)
    name = arguments.pop("name", None)
    if name not in _MODES:
        raise ValueError(
            f"name must be one of {sorted(_MODES)}. Received: name={name!r}"
        )
    return _MODES[name](**arguments)
