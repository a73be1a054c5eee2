"""Allocations that the user gives: a mapping, or a callable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from pdp_keras.allocation.base import WeightInfo, check_sparsity, count_zeros


@dataclasses.dataclass(frozen=True)
class MappingAllocation:
    """A sparsity for each layer, or for each weight, by its name."""

    sparsities: dict[str, float]

    def __call__(self, weights: Sequence[WeightInfo], sparsity: float) -> list[int]:
        """Zeros of each weight."""
        names = {w.name for w in weights} | {w.layer for w in weights}
        unknown = sorted(set(self.sparsities) - names)
        if unknown:
            raise ValueError(
                f"An allocation may only name pruned weights, of {sorted(names)}. "
                f"Received: {unknown}"
            )
        missing = [
            w.name
            for w in weights
            if w.name not in self.sparsities and w.layer not in self.sparsities
        ]
        if missing:
            raise ValueError(
                "An allocation must name every pruned weight (use `filters` to leave "
                f"some out). Received: no sparsity for {missing}"
            )
        return [
            count_zeros(
                check_sparsity(
                    self.sparsities.get(w.name, self.sparsities.get(w.layer)),
                    f"allocation[{w.name!r}]",
                ),
                w.values.size,
            )
            for w in weights
        ]


@dataclasses.dataclass(frozen=True)
class CallableAllocation:
    """A function from the weights and the overall sparsity to one for each."""

    function: Callable[[list[WeightInfo], float], Sequence[float]]

    def __call__(self, weights: Sequence[WeightInfo], sparsity: float) -> list[int]:
        """Zeros of each weight."""
        sparsities = list(self.function(list(weights), sparsity))
        if len(sparsities) != len(weights):
            raise ValueError(
                "An allocation must return one sparsity for each of the "
                f"{len(weights)} weights. Received: {len(sparsities)} values"
            )
        return [
            count_zeros(check_sparsity(s, f"allocation of {w.name!r}"), w.values.size)
            for w, s in zip(weights, sparsities, strict=True)
        ]
