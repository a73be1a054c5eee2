"""How each method is run where a pretrained Transformer is fine-tuned.

Every method has two candidates, of which validation accuracy chooses one with the first
seed, at 90 % for all sparsities; those that learn their sparsity are brought to it, in
up to four trainings a level. The first candidate follows the paper, in parts of the
run; of PDP it is the library's default, with a ramp of half of the run as the others
have.
"""

from __future__ import annotations

from accuracy_recipes import recipe
from accuracy_training import Training

_GLOBAL = {"allocation": "global"}
_LAMP = {"allocation": "lamp"}
_UNIFORM = {"allocation": "uniform"}
_DENSE = (recipe("dense"),)
_PAPER = tuple(
    recipe("pdp_paper", prune={"temperature": temperature})
    for temperature in (1e-4, 1e-3)
)

# Of a method that learns its sparsity: the argument by which it is brought to the
# target, with its least and its largest value.
LEARNED = {"str": ("decay", 1e-6, 1e-1), "soft_movement": ("force", 20.0, 2000.0)}

UNSTRUCTURED: dict[str, tuple[Training, ...]] = {
    "dense": _DENSE,
    "pdp": (recipe("pdp"), recipe("pdp", prune=_UNIFORM)),
    "pdp_paper": _PAPER,
    # The second is that of movement pruning's comparison.
    "gmp": (recipe("gmp", prune=_LAMP), recipe("gmp", prune=_UNIFORM)),
    "dnw": (
        recipe("dnw", prune=_UNIFORM, warmup=0.0),
        recipe("dnw", prune=_LAMP, schedule={"ramp": "cubic"}),
    ),
    "str": (recipe("str", {"rate": 100.0}),),
    "optg": tuple(
        recipe("optg", {"masks": 1000, "steepness": s}) for s in (20.0, 10.0)
    ),
    "acdc": (recipe("acdc"), recipe("acdc", prune=_LAMP)),
    "movement": (recipe("movement", prune=_UNIFORM), recipe("movement", prune=_LAMP)),
    "soft_movement": (recipe("soft_movement", {"rate": 20.0}),),
    # Half of the training makes the dense model that is pruned, and its own teacher; or
    # the pretrained model is pruned, and the second half has a locked mask.
    "pofa": (
        recipe("pofa", prune=_LAMP, warmup=0.0, ramp=0.5, pretraining=0.5),
        recipe("pofa", prune=_LAMP, warmup=0.0, ramp=0.5),
    ),
}

N_OF_M: dict[str, tuple[Training, ...]] = {
    "dense": _DENSE,
    "pdp": (recipe("pdp"), recipe("pdp", warmup=0.0)),
    "pdp_paper": _PAPER,
    "gmp": (recipe("gmp"), recipe("gmp", warmup=0.0)),
    "dnw": (
        recipe("dnw", warmup=0.0),
        recipe("dnw", schedule={"ramp": "cubic"}),
    ),
    "sr_ste": tuple(
        recipe("sr_ste", {"decay": decay}, warmup=0.0) for decay in (2e-4, 2e-3)
    ),
}

# Half of the heads and of the hidden units of the feed-forward parts.
CHANNEL: dict[str, tuple[Training, ...]] = {
    "dense": _DENSE,
    "pdp": (recipe("pdp"), recipe("pdp", schedule={"fall": (0.5, 1.5)})),
    "gmp": (recipe("gmp"), recipe("gmp", warmup=0.2, ramp=0.6)),
    "nisp": tuple(recipe("nisp", warmup=part) for part in (0.1, 0.3)),
}

RECIPES = {"unstructured": UNSTRUCTURED, "nm": N_OF_M, "channel": CHANNEL}
