"""How each method of the accuracy comparison is run, and what is tuned of it.

Every method has three candidates (for channels two), of which validation
accuracy chooses one for each network (see `accuracy.py`); those that learn their
sparsity are brought to it instead, in up to four trainings a level. The first candidate
follows the paper, or its authors' code, in parts of the run; of PDP it is the library's
default, with a ramp of half of the run as the others have.
"""

from __future__ import annotations

from typing import Any

from accuracy_training import Training

_GLOBAL = {"allocation": "global"}
_MOVING = {"allocation": {"moving": True}}
_LAMP = {"allocation": "lamp"}
_UNIFORM = {"allocation": "uniform"}
_ERK = {"allocation": "erk"}
# What TFMOT prunes: it passes depthwise kernels over.
_NOT_DEPTHWISE = {"filters": "(fast_conv2d|dense).*"}

# Of a method that learns its sparsity: the argument by which it is brought to the
# target, with its least and its largest value.
LEARNED = {"str": ("decay", 1e-4, 1e0), "soft_movement": ("force", 1e0, 1e5)}


def recipe(
    method: str, arguments: dict[str, Any] | None = None, **settings: Any
) -> Training:
    """A training of no network yet."""
    return Training("", "", method, arguments=arguments or {}, **settings)


def _paper(temperature: float) -> Training:
    return recipe("pdp_paper", prune={"temperature": temperature})


_DENSE = (recipe("dense"),)

UNSTRUCTURED: dict[str, tuple[Training, ...]] = {
    "dense": _DENSE,
    "pdp": (
        recipe("pdp"),
        recipe("pdp", ramp=0.3),
        recipe("pdp", prune=_MOVING),
    ),
    "pdp_paper": (_paper(1e-4), _paper(1e-3), _paper(1e-2)),
    "gmp": (
        recipe("gmp", prune=_UNIFORM, warmup=0.2, ramp=0.6),
        recipe("gmp", prune=_LAMP),
        recipe("gmp", prune=_LAMP, ramp=0.3),
    ),
    "dnw": (
        recipe("dnw", prune=_UNIFORM, warmup=0.0),
        recipe("dnw", prune=_MOVING, schedule={"ramp": "cubic"}),
        recipe("dnw", prune=_LAMP, schedule={"ramp": "cubic"}),
    ),
    # Trainings of a search, at every level, in place of candidates.
    "str": (recipe("str"),),
    "optg": (
        recipe("optg", {"steepness": 20.0, "masks": 100}),
        recipe("optg", {"steepness": 10.0, "masks": 1000}),
        recipe("optg", {"steepness": 20.0, "masks": 1000}),
    ),
    "acdc": (
        recipe("acdc"),
        recipe("acdc", prune=_ERK),
        recipe("acdc", prune=_LAMP),
    ),
    "granet": (
        recipe("granet", {"frequency": 100}),
        recipe("granet", {"frequency": 25}),
        recipe("granet", {"frequency": 50}, prune=_LAMP),
    ),
    "rigl": (
        recipe("rigl", prune=_ERK),
        recipe("rigl", prune=_UNIFORM),
        recipe("rigl", {"frequency": 25}, prune=_ERK),
    ),
    "movement": (
        recipe("movement", prune=_UNIFORM),
        recipe("movement", prune=_GLOBAL),
        recipe("movement", prune=_GLOBAL, warmup=0.2, ramp=0.6),
    ),
    # With SGD `rate` counts by its square.
    "soft_movement": (recipe("soft_movement", {"rate": 30.0}),),
    # Half of the training makes the dense model that is pruned, and its own teacher.
    "pofa": tuple(
        recipe("pofa", prune=prune, warmup=0.0, ramp=ramp, pretraining=0.5)
        for prune, ramp in ((_UNIFORM, 0.5), (_GLOBAL, 0.5), (_LAMP, 0.5))
    ),
    # The outside check, and ours with the same settings; nothing is tuned.
    "gmp_uniform": (
        recipe("gmp", prune=_UNIFORM | _NOT_DEPTHWISE, warmup=0.2, ramp=0.6),
    ),
    "tfmot": (recipe("tfmot", {"frequency": 10}, warmup=0.2, ramp=0.6),),
}

N_OF_M: dict[str, tuple[Training, ...]] = {
    "dense": _DENSE,
    "pdp": (
        recipe("pdp"),
        recipe("pdp", warmup=0.0),
        recipe("pdp", schedule={"fall": (0.5, 1.0)}),
    ),
    "pdp_paper": (_paper(1e-4), _paper(1e-3), _paper(1e-2)),
    "gmp": (
        recipe("gmp", warmup=0.2, ramp=0.6),
        recipe("gmp"),
        recipe("gmp", warmup=0.0),
    ),
    "dnw": (
        recipe("dnw", warmup=0.0),
        recipe("dnw", schedule={"ramp": "cubic"}),
        recipe("dnw", warmup=0.0, schedule={"ramp": "cubic"}),
    ),
    "sr_ste": tuple(
        recipe("sr_ste", {"decay": decay}, warmup=0.0) for decay in (2e-4, 5e-4, 2e-3)
    ),
}

# Half of the multiplications: the same part of the channels everywhere.
CHANNEL: dict[str, tuple[Training, ...]] = {
    "dense": _DENSE,
    "pdp": (
        recipe("pdp"),
        recipe("pdp", schedule={"fall": (0.5, 1.5)}),
    ),
    "gmp": (
        recipe("gmp", warmup=0.2, ramp=0.6),
        recipe("gmp"),
    ),
    "nisp": tuple(recipe("nisp", warmup=part) for part in (0.3, 0.1)),
    "dcp": tuple(recipe("dcp", warmup=w, ramp=r) for w, r in ((0.3, 0.3), (0.1, 0.5))),
    "scp": tuple(recipe("scp", {"force": force}) for force in (0.1, 0.03)),
}

RECIPES = {"unstructured": UNSTRUCTURED, "nm": N_OF_M, "channel": CHANNEL}
