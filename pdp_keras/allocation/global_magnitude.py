"""One ranking over all weights: by magnitude, or layer-adaptive (LAMP)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from pdp_keras.allocation.base import WeightInfo, count_zeros
from pdp_keras.configs import FLAG, FRACTION, Rule, argument, look_up, require_rules

_LIMIT = Rule(
    "a number in [0, 1], or None", lambda value: value is None or FRACTION.holds(value)
)
_MOVING = Rule("a bool, or None", lambda value: value is None or FLAG.holds(value))


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

    Example:

    >>> lamp = GlobalMagnitude(max_sparsity=0.95, moving=True, score="lamp")
    >>> pruned = pdp_keras.prune_model(model, 0.8, allocation=lamp)
    """

    max_sparsity: float | None = argument(_LIMIT, None)
    moving: bool | None = argument(_MOVING, None)
    score: str = "magnitude"

    def __post_init__(self) -> None:
        require_rules(self)
        look_up(_SCORES, "score", self.score)

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
