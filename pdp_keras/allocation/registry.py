"""The table of allocations, by name; and what stands in a wrapper's config."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pdp_keras.allocation.base import Allocation
from pdp_keras.allocation.fixed import erk, uniform
from pdp_keras.allocation.given import CallableAllocation, MappingAllocation
from pdp_keras.allocation.global_magnitude import GlobalMagnitude
from pdp_keras.configs import fill, shown

_ALLOCATIONS: dict[str, Allocation] = {
    "global": GlobalMagnitude(),
    "lamp": GlobalMagnitude(max_sparsity=1.0, moving=True, score="lamp"),
    "uniform": uniform,
    "erk": erk,
}


def get(allocation: Any) -> Allocation:
    """An allocation from a name, a mapping or a callable.

    Args:
        allocation: `"global"`, `"lamp"`, `"uniform"`, `"erk"`; a mapping from layer
            names (`"dense"`) or weight names (`"dense/kernel"`) to sparsities, which
            must name every pruned weight; or a callable
            `(weights: list[WeightInfo], sparsity: float) -> sparsities`, one
            number in [0, 1) a weight.

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else.
    """
    if isinstance(allocation, str):
        if allocation in _ALLOCATIONS:
            return _ALLOCATIONS[allocation]
        raise ValueError(
            f"allocation must be one of {sorted(_ALLOCATIONS)}, a mapping or a "
            f"callable. Received: allocation={shown(allocation)}"
        )
    if isinstance(allocation, GlobalMagnitude):
        return allocation
    if isinstance(allocation, Mapping):
        return MappingAllocation(dict(allocation))
    if callable(allocation):
        return CallableAllocation(allocation)
    raise TypeError(
        f"allocation must be one of {sorted(_ALLOCATIONS)}, a mapping or a callable. "
        f"Received: allocation={shown(allocation)}"
    )


def is_deferred(allocation: Any) -> bool:
    """Whether it ranks trained weights, and so waits for the end of warm-up."""
    return isinstance(get(allocation), GlobalMagnitude)


def get_deferred(allocation: Any) -> GlobalMagnitude | None:
    """What a single wrapper accepts: a global ranking, or None for `"uniform"`.

    Raises:
        ValueError: for anything else; only `prune_model` sees all layers.
    """
    if isinstance(allocation, dict) and "max_sparsity" in allocation:
        found: GlobalMagnitude = fill(GlobalMagnitude, "the allocation", allocation)
        return found
    if isinstance(allocation, GlobalMagnitude):
        return allocation
    if allocation == "uniform":
        return None
    named = _ALLOCATIONS.get(allocation) if isinstance(allocation, str) else None
    if isinstance(named, GlobalMagnitude):
        return named
    raise ValueError(
        "The allocation of a single wrapper must be 'uniform', 'global', 'lamp' or a "
        f"GlobalMagnitude. Received: allocation={shown(allocation)}"
    )


def serialize_deferred(allocation: GlobalMagnitude | None) -> str | dict[str, Any]:
    """A JSON-able value that `get_deferred` takes back."""
    return "uniform" if allocation is None else dataclasses.asdict(allocation)
