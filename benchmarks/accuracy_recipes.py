"""How each method of the accuracy comparison is run, and what is tuned of it.

Every method has three candidates, of which validation accuracy chooses one for each
network (see `accuracy.py`); those that learn their sparsity are brought to it instead,
in up to six trainings a cell. The first candidate follows the paper, or its authors'
code, in parts of the run.
"""

from __future__ import annotations

import dataclasses
from typing import Any

_GLOBAL = {"allocation": "global"}
_MOVING = {"allocation": {"moving": True}}
_LAMP = {"allocation": "lamp"}
_UNIFORM = {"allocation": "uniform"}
_ERK = {"allocation": "erk"}
# What TFMOT prunes: it passes depthwise kernels over.
_NOT_DEPTHWISE = {"filters": "(conv2d|dense).*"}


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
    weight_decay: float = 0.0
    learned: tuple[str, float, float] | None = None


def _paper(temperature: float) -> Recipe:
    return Recipe("pdp_paper", prune={"temperature": temperature})


def _learned(method: str, name: str, low: float, high: float) -> Recipe:
    return Recipe(method, learned=(name, low, high))


_DENSE = (Recipe("dense"),)

# The first row of each is the library's default.
UNSTRUCTURED: dict[str, tuple[Recipe, ...]] = {
    "dense": _DENSE,
    "pdp": (
        Recipe("pdp"),
        Recipe("pdp", prune=_MOVING),
        Recipe("pdp", schedule={"fall": (0.25, 0.75)}),
    ),
    "pdp_paper": (_paper(1e-4), _paper(1e-3), _paper(1e-2)),
    "gmp": (
        Recipe("gmp", prune=_UNIFORM, warmup=0.2, ramp=0.6),
        Recipe("gmp", prune=_MOVING),
        Recipe("gmp", prune=_LAMP),
    ),
    "dnw": (
        Recipe("dnw", prune=_UNIFORM, warmup=0.0),
        Recipe("dnw", prune=_MOVING, schedule={"ramp": "cubic"}),
        Recipe("dnw", prune=_LAMP, schedule={"ramp": "cubic"}),
    ),
    # Trainings of a search, at every level, in place of candidates.
    "str": (_learned("str", "decay", 1e-4, 1e0),),
    "optg": tuple(Recipe("optg", {"steepness": s}) for s in (20.0, 10.0, 40.0)),
    "acdc": (
        Recipe("acdc"),
        Recipe("acdc", prune=_ERK),
        Recipe("acdc", prune=_LAMP),
    ),
    "granet": (
        Recipe("granet", {"frequency": 100}),
        Recipe("granet", {"frequency": 25}),
        Recipe("granet", {"frequency": 50}, prune=_LAMP),
    ),
    "rigl": (
        Recipe("rigl", prune=_ERK),
        Recipe("rigl", prune=_UNIFORM),
        Recipe("rigl", {"frequency": 25}, prune=_ERK),
    ),
    "movement": (
        Recipe("movement", prune=_UNIFORM),
        Recipe("movement", prune=_GLOBAL),
        Recipe("movement", prune=_GLOBAL, warmup=0.2, ramp=0.6),
    ),
    "soft_movement": (_learned("soft_movement", "force", 1e0, 1e5),),
    # Half of the training makes the dense model that is pruned, and its own teacher.
    "pofa": tuple(
        Recipe("pofa", prune=prune, warmup=0.0, ramp=ramp, pretraining=0.5)
        for prune, ramp in ((_UNIFORM, 0.5), (_GLOBAL, 0.5), (_LAMP, 0.5))
    ),
    # The outside check, and ours with the same settings; nothing is tuned.
    "gmp_uniform": (
        Recipe("gmp", prune=_UNIFORM | _NOT_DEPTHWISE, warmup=0.2, ramp=0.6),
    ),
    "tfmot": (Recipe("tfmot", {"frequency": 10}, warmup=0.2, ramp=0.6),),
}

N_OF_M: dict[str, tuple[Recipe, ...]] = {
    "dense": _DENSE,
    "pdp": (
        Recipe("pdp"),
        Recipe("pdp", schedule={"fall": (0.5, 1.5)}),
        Recipe("pdp", prune={"factor": 0.3}),
    ),
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

# Half of the multiplications: the same part of the channels everywhere.
CHANNEL: dict[str, tuple[Recipe, ...]] = {
    "dense": _DENSE,
    "pdp": (
        Recipe("pdp"),
        Recipe("pdp", schedule={"fall": (0.5, 1.5)}),
        Recipe("pdp", prune={"factor": 0.1}),
    ),
    "gmp": (
        Recipe("gmp", warmup=0.2, ramp=0.6),
        Recipe("gmp"),
        Recipe("gmp", ramp=0.3),
    ),
    "nisp": tuple(Recipe("nisp", warmup=part) for part in (0.3, 0.1, 0.5)),
    "dcp": tuple(
        Recipe("dcp", warmup=w, ramp=r) for w, r in ((0.3, 0.3), (0.1, 0.5), (0.3, 0.5))
    ),
    "scp": tuple(Recipe("scp", {"force": force}) for force in (0.1, 0.03, 0.3)),
}

RECIPES = {"unstructured": UNSTRUCTURED, "nm": N_OF_M, "channel": CHANNEL}
