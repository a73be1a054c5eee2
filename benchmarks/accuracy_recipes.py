"""How each method of the accuracy comparison is run, and what is tuned of it.

Every method has four candidates, of which validation accuracy chooses one for each
network (see `accuracy.py`). The first follows the paper, or its authors' code, in parts
of the run.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pdp_keras import methods

_MOVING = {"allocation": {"moving": True}}
_FIXED = {"allocation": {"moving": False}}
_UNIFORM = {"allocation": "uniform"}
_ERK = {"allocation": "erk"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a `Training`.

    Attributes:
        learned: for a method that learns its sparsity: the argument by which it is
            brought to the target, and its least and largest value.
    """

    method: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    prune: dict[str, Any] = dataclasses.field(default_factory=dict)
    warmup: float = 0.1
    ramp: float = 0.5
    schedule: dict[str, Any] = dataclasses.field(default_factory=dict)
    pretraining: float = 0.0
    rate: float = 1.0
    learned: tuple[str, float, float] | None = None

    def fits(self, kind: str) -> bool:
        """Whether the method can prune in structures of this kind."""
        return self.method == "dense" or kind in methods.get(self.method).modes


RECIPES: dict[str, tuple[Recipe, ...]] = {}
