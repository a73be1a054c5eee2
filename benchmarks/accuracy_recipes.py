"""How each method of the accuracy comparison is run, and what is tuned of it.

Every method has three candidates, of which validation accuracy chooses one for each
network (see `accuracy.py`); those that learn their sparsity are brought to it instead,
in up to six trainings a cell. The first candidate follows the paper, or its authors'
code, in parts of the run.
"""

from __future__ import annotations

import dataclasses
from typing import Any

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


_PDP = {"ramp": "cubic", "update": "step"}


def _pdp(**prune: Any) -> Recipe:
    return Recipe("pdp", prune=prune, schedule=_PDP)


def _paper(temperature: float) -> Recipe:
    return Recipe("pdp_paper", prune={"temperature": temperature})


def _learned(method: str, name: str, low: float, high: float) -> Recipe:
    return Recipe(method, learned=(name, low, high))


_DENSE = (Recipe("dense"),)

UNSTRUCTURED: dict[str, tuple[Recipe, ...]] = {
    "dense": _DENSE,
    "pdp": (_pdp(), _pdp(**_MOVING), _pdp(factor=0.3, **_MOVING)),
    "pdp_paper": (_paper(1e-4), _paper(1e-3), _paper(1e-2)),
    "gmp": (
        Recipe("gmp", prune=_UNIFORM, warmup=0.2, ramp=0.6),
        Recipe("gmp", prune=_FIXED),
        Recipe("gmp", prune=_MOVING),
    ),
    "dnw": (
        Recipe("dnw", prune=_UNIFORM, warmup=0.0),
        Recipe("dnw", prune=_FIXED),
        Recipe("dnw", prune=_FIXED, schedule={"ramp": "cubic"}),
    ),
    # Six trainings of a bisection, in every cell, in place of candidates.
    "str": (_learned("str", "decay", 1e-4, 1e-1),),
    "optg": tuple(Recipe("optg", {"steepness": s}) for s in (20.0, 10.0, 40.0)),
    "acdc": (
        Recipe("acdc"),
        Recipe("acdc", prune=_UNIFORM),
        Recipe("acdc", prune=_ERK),
    ),
    "granet": tuple(Recipe("granet", {"frequency": f}) for f in (100, 50, 25)),
    "rigl": (
        Recipe("rigl", prune=_ERK),
        Recipe("rigl", prune=_UNIFORM),
        Recipe("rigl", {"frequency": 25}, prune=_ERK),
    ),
    "movement": (
        Recipe("movement", prune=_UNIFORM),
        Recipe("movement", prune=_FIXED),
        Recipe("movement", prune=_FIXED, warmup=0.2, ramp=0.6),
    ),
    "soft_movement": (_learned("soft_movement", "force", 1e0, 1e5),),
    # Half of the training makes the dense model that is pruned, and its own teacher.
    "pofa": tuple(
        Recipe("pofa", prune=prune, warmup=0.0, ramp=ramp, pretraining=0.5)
        for prune, ramp in ((_UNIFORM, 0.5), (_FIXED, 0.5), (_FIXED, 0.7))
    ),
}

N_OF_M: dict[str, tuple[Recipe, ...]] = {
    "dense": _DENSE,
    "pdp": (_pdp(), _pdp(factor=0.3), _pdp(factor=0.1)),
    "pdp_paper": (_paper(1e-4), _paper(1e-3), _paper(1e-2)),
    "gmp": (
        Recipe("gmp", warmup=0.2, ramp=0.6),
        Recipe("gmp"),
        Recipe("gmp", ramp=0.7),
    ),
    "dnw": (
        Recipe("dnw", warmup=0.0),
        Recipe("dnw"),
        Recipe("dnw", schedule={"ramp": "cubic"}),
    ),
    "sr_ste": tuple(
        Recipe("sr_ste", {"decay": decay}, warmup=0.0) for decay in (2e-4, 6e-5, 2e-3)
    ),
}

RECIPES = {"unstructured": UNSTRUCTURED, "nm": N_OF_M}
