"""How a model's sparsity is shared out among its weights.

An allocation is a function from the weights and the overall sparsity to the number
of zeros in each. Nothing here knows a layer or a model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class WeightInfo:
    """What an allocation may look at.

    Attributes:
        name: `"layer/kernel"`; nested layers are separated by slashes.
        layer: name of the layer, `"layer"`.
        values: the weights, a float NumPy array.
        fan_in: product of the input axes (channels that one output sums over).
        fan_out: product of the output axes.
        spatial: the sizes of the remaining axes.
    """

    name: str
    layer: str
    values: np.ndarray
    fan_in: int = 1
    fan_out: int = 1
    spatial: tuple[int, ...] = ()


def count_zeros(sparsity: float, size: float) -> int:
    """round(sparsity * size), the number of zeros that a sparsity asks for."""
    return round(sparsity * size)


def check_sparsity(sparsity: Any, name: str = "sparsity") -> float:
    """The sparsity as a float.

    Raises:
        ValueError: unless it is a number in [0, 1).
    """
    try:
        value = float(sparsity)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(sparsity, bool | str) or not 0 <= value < 1:
        raise ValueError(
            f"{name} must be a number in [0, 1): the fraction of zeros. "
            f"Received: {name}={sparsity!r}"
        )
    return value


def uniform(weights: Sequence[WeightInfo], sparsity: float) -> list[int]:
    """The same sparsity everywhere."""
    return [count_zeros(sparsity, w.values.size) for w in weights]


@dataclasses.dataclass(frozen=True)
class GlobalMagnitude:
    """One ranking over all weights of the model (arXiv:2305.11203).

    Args:
        max_sparsity: no single weight tensor gets sparser than this, unless the
            overall sparsity is higher itself; what it would have lost is taken
            from the others. Without such a limit a layer of small weights
            disappears as a whole and the network is cut in two. None: 0.99, and
            above an overall sparsity of 0.98 halfway from it to 1, because a limit
            that all tensors reach leaves nothing to rank.
        moving: whether the ranking is made anew while the mask changes, or once, at
            the end of warm-up, as in the paper. None leaves it to the method.
        score: what is ranked: `"magnitude"`, |w|; or `"lamp"`, its square as a part of
            the squares of all weights of its tensor that are not smaller. The latter
            does not depend on a tensor's scale, and the largest weight of each has the
            score 1 (layer-adaptive magnitude-based pruning, Lee et al., ICLR 2021,
            arXiv:2010.07611, equation 1).

    The paper has no limit: `GlobalMagnitude(max_sparsity=1.0)`.
    """

    max_sparsity: float | None = None
    moving: bool | None = None
    score: str = "magnitude"

    def __post_init__(self) -> None:
        if self.max_sparsity is not None and not 0 <= self.max_sparsity <= 1:
            raise ValueError(
                "max_sparsity must be a number in [0, 1], or None. "
                f"Received: max_sparsity={self.max_sparsity!r}"
            )
        if self.score not in _SCORES:
            raise ValueError(
                f"score must be one of {sorted(_SCORES)}. "
                f"Received: score={self.score!r}"
            )

    def __call__(self, weights: Sequence[WeightInfo], sparsity: float) -> list[int]:
        """Zeros of each weight; they add up to round(sparsity * all)."""
        sizes = [w.values.size for w in weights]
        total = count_zeros(sparsity, sum(sizes))
        limits = self._limits(sizes, sparsity, total)
        score = _SCORES[self.score]
        ranked = []
        for weight, limit in zip(weights, limits, strict=True):
            magnitudes = np.sort(np.abs(np.ravel(weight.values)))
            scores = score(magnitudes.astype("float64"))
            # Beyond a tensor's limit they rank last: they can never be taken.
            scores[limit:] = np.inf
            ranked.append(scores)
        return _count_smallest(ranked, total)

    def _limits(self, sizes: list[int], sparsity: float, total: int) -> list[int]:
        limit = self.max_sparsity
        if limit is None:
            limit = max(0.99, (1 + sparsity) / 2)
        shares = [max(limit, sparsity) * size for size in sizes]
        # Rounded down, or a tensor of less than 100 weights could vanish at 0.99;
        # but 0.29 * 100 is 28.999...
        limits = [math.floor(share + 1e-9) for share in shares]
        if sum(limits) >= total:
            return limits
        return [math.ceil(share) for share in shares]


def _lamp(magnitudes: np.ndarray) -> np.ndarray:
    # Relative to the largest, so that no square overflows.
    squares = np.square(magnitudes / max(magnitudes.max(initial=0.0), _TINY))
    not_smaller = np.cumsum(squares[::-1])[::-1]
    return squares / np.maximum(not_smaller, _TINY)


_TINY = np.finfo("float64").tiny
# From the magnitudes of a tensor, sorted, to scores, which are sorted, too.
_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "magnitude": lambda magnitudes: magnitudes,
    "lamp": _lamp,
}


def _count_smallest(ranked: list[np.ndarray], total: int) -> list[int]:
    """How many of each sorted array are among the `total` smallest; the first first."""
    if not total:
        return [0] * len(ranked)
    # A selection: millions of weights need not be sorted among each other.
    largest = np.partition(np.concatenate(ranked), total - 1)[total - 1]
    below = [int(np.searchsorted(scores, largest, "left")) for scores in ranked]
    up_to = [int(np.searchsorted(scores, largest, "right")) for scores in ranked]
    left = total - sum(below)
    counts = []
    for less, not_more in zip(below, up_to, strict=True):
        taken = min(left, not_more - less)
        counts.append(less + taken)
        left -= taken
    return counts


def erk(weights: Sequence[WeightInfo], sparsity: float) -> list[int]:
    """Erdos-Renyi-Kernel: density in proportion to (fan_in + fan_out + k) / size.

    Layers whose density would pass 1 stay dense, and the rest is scaled again
    (Evci et al., RigL, ICML 2020, arXiv:1911.11134, section 3.1).
    """
    sizes = np.array([w.values.size for w in weights], dtype="float64")
    raw = np.array([_erk_density(w) for w in weights])
    kept_in_all = sizes.sum() - count_zeros(sparsity, int(sizes.sum()))
    dense = np.zeros(len(weights), dtype=bool)
    densities = np.ones(len(weights))
    while not dense.all():
        rest = kept_in_all - sizes[dense].sum()
        scale = rest / (raw * sizes)[~dense].sum()
        densities = np.where(dense, 1.0, scale * raw)
        if densities.max() <= 1:
            break
        dense |= densities >= densities.max()
    return [
        min(w.values.size, max(0, count_zeros(1 - density, w.values.size)))
        for w, density in zip(weights, densities, strict=True)
    ]


def _erk_density(weight: WeightInfo) -> float:
    dimensions = (weight.fan_in, weight.fan_out, *weight.spatial)
    return sum(dimensions) / math.prod(dimensions)


Allocation = Callable[[Sequence[WeightInfo], float], Sequence[int]]

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
            f"callable. Received: allocation={allocation!r}"
        )
    if isinstance(allocation, GlobalMagnitude):
        return allocation
    if isinstance(allocation, Mapping):
        return _MappingAllocation(dict(allocation))
    if callable(allocation):
        return _CallableAllocation(allocation)
    raise TypeError(
        f"allocation must be one of {sorted(_ALLOCATIONS)}, a mapping or a callable. "
        f"Received: allocation={allocation!r}"
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
        return GlobalMagnitude(**allocation)
    if isinstance(allocation, GlobalMagnitude):
        return allocation
    if allocation == "uniform":
        return None
    found = _ALLOCATIONS.get(allocation) if isinstance(allocation, str) else None
    if isinstance(found, GlobalMagnitude):
        return found
    raise ValueError(
        "The allocation of a single wrapper must be 'uniform', 'global', 'lamp' or a "
        f"GlobalMagnitude. Received: allocation={allocation!r}"
    )


def serialize_deferred(allocation: GlobalMagnitude | None) -> str | dict[str, Any]:
    """A JSON-able value that `get_deferred` takes back."""
    return "uniform" if allocation is None else dataclasses.asdict(allocation)


@dataclasses.dataclass(frozen=True)
class _MappingAllocation:
    sparsities: dict[str, float]

    def __call__(self, weights: Sequence[WeightInfo], sparsity: float) -> list[int]:
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
class _CallableAllocation:
    function: Callable[[list[WeightInfo], float], Sequence[float]]

    def __call__(self, weights: Sequence[WeightInfo], sparsity: float) -> list[int]:
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
