"""`NM`: at most N nonzeros in every M consecutive weights along the input axis.

The kernel is looked at as `(before, groups, M, after)`: M consecutive inputs of one
output. In each group the threshold lies midway between the N-th and the (N+1)-th
largest magnitude (Cho, Adya and Naik, NeurIPS 2023, arXiv:2305.11203, section 3, with
one threshold a group), and exactly N survive.

How it learns gradually: on the way to the full number of zeros the threshold of every
group is scaled by the fraction that has been reached, so that each group lets go of
its smallest weights first. The hard mask has exactly the `zeros` smallest of the
weights that their groups will not keep. Other ways were tried, among them a ranking of
these weights for the soft mask too, which costs more and was no better: candidates and
figures are in `benchmarks/nm_schedules.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from pdp_keras.masks import MANY, compiled, smallest, soft_masked
from pdp_keras.models import KernelAxes
from pdp_keras.modes.axis_order import AxisOrder
from pdp_keras.modes.base import Mode, Width

Tensor = Any

# Up to this M comparisons of whole slices are used; beyond it a sort is cheaper.
_MOST_COMPARED = 16
# Smaller than every magnitude: what fills up a tail is pruned before any weight.
_PADDING = -1.0
_KEPT = float(np.finfo("float32").max)


@dataclasses.dataclass(frozen=True)
class NM(Mode):
    """Keeps N of every M consecutive weights along the input axis.

    The input axis is the one that the layer sums over (channels of a convolution,
    features of a Dense layer), which is also what the sparse units of NPUs and GPUs
    group. Several input axes, as in the output projection of attention, are taken
    as one, in their order. A tail shorter than M is treated as padded with zeros.

    2:4 is 50 % sparse, 1:4 is 75 %. TFMOT counts the zeros instead.

    Args:
        n: how many weights of a group are kept, `1 <= n < m`.
        m: size of a group.

    Raises:
        ValueError: unless both are integers and `1 <= n < m`.

    Example:

    >>> pdp_keras.prune_model(model, mode="2:4")
    >>> pdp_keras.prune_model(model, mode=pdp_keras.NM(1, 8))
    """

    n: int
    m: int

    name = "nm"
    is_allocated = False

    def __post_init__(self) -> None:
        integers = all(type(value) is int for value in (self.n, self.m))
        if not (integers and 1 <= self.n < self.m):
            raise ValueError(
                "N:M keeps n of m weights, integers with 1 <= n < m. "
                f"Received: n={self.n!r}, m={self.m!r}"
            )

    @property
    def default_sparsity(self) -> float:  # type: ignore[override]
        """1 - n / m."""
        return 1 - self.n / self.m

    def resolve_sparsity(self, sparsity: Any) -> float:
        """1 - n / m, which the user may repeat but not change."""
        if sparsity is not None and (
            abs(super().resolve_sparsity(sparsity) - self.default_sparsity) > 1e-9
        ):
            raise ValueError(
                f"The sparsity of {self.n}:{self.m} follows from it: "
                f"{self.default_sparsity:g}; leave it out. "
                f"Received: sparsity={sparsity!r}"
            )
        return self.default_sparsity

    def reason_against(self, shape: tuple[int, ...], axes: KernelAxes) -> str | None:
        """A kernel needs an input axis that is longer than n."""
        if not axes.inputs:
            return f"{self.n}:{self.m} groups weights along an input axis: it has none"
        inputs = math.prod(shape[axis] for axis in axes.inputs)
        if inputs <= self.n:
            return (
                f"{self.n}:{self.m} leaves {self.n} weights of each group: its input "
                f"axis has only {inputs}"
            )
        return None

    def units(self, shape: tuple[int, ...], axes: KernelAxes) -> int:
        """The number of weights."""
        del axes
        return math.prod(shape)

    def count_zeros(
        self, sparsity: float, shape: tuple[int, ...], axes: KernelAxes
    ) -> int:
        """All but n weights of every group of m."""
        del sparsity
        inputs = math.prod(shape[axis] for axis in axes.inputs)
        groups, tail = divmod(inputs, self.m)
        of_one_output = groups * (self.m - self.n) + max(0, tail - self.n)
        return of_one_output * (math.prod(shape) // max(1, inputs))

    def threshold(self, weights: Tensor, zeros: Tensor, axes: KernelAxes) -> Tensor:
        """One threshold for each group, `(before, groups, 1, after)`, float32.

        Midway between the n-th and the (n+1)-th largest magnitude of the group, times
        the fraction of all its zeros that `zeros` stands for.
        """
        view = _GroupView(tuple(weights.shape), axes, self.m)
        magnitudes = view.split(ops.stop_gradient(ops.abs(weights)), _PADDING)
        return self._grouped_threshold(magnitudes, zeros, view)

    def soft_masked(
        self,
        weights: Tensor,
        zeros: Tensor,
        axes: KernelAxes,
        width: Width,
        max_gain: float = math.inf,
    ) -> Tensor:
        """The weights times their soft mask, with PDP's gradient up to `max_gain`."""
        if 0 in weights.shape:
            return weights
        view = _GroupView(tuple(weights.shape), axes, self.m)
        threshold = self.threshold(weights, zeros, axes)
        grouped = view.split(weights, 0.0)
        known = threshold, width(threshold), max_gain
        return view.join(soft_masked(grouped, *known))

    def hard_masked(self, weights: Tensor, zeros: Tensor, axes: KernelAxes) -> Tensor:
        """The weights with `zeros` of those that their groups do not keep set to 0."""
        if 0 in weights.shape:
            return weights
        view = _GroupView(tuple(weights.shape), axes, self.m)
        absolute = ops.cast(ops.stop_gradient(ops.abs(weights)), "float32")
        magnitudes = view.split(absolute, _PADDING)
        zeros = ops.cast(zeros, "int32")
        if view.length <= self.n:
            return weights
        losers = _losers(self)(magnitudes)
        pruned = ops.cond(
            zeros >= self._most_zeros(view),
            lambda: losers,
            lambda: smallest(_among(losers, magnitudes), zeros),
        )
        return ops.where(view.join(pruned), ops.zeros_like(weights), weights)

    def _most_zeros(self, view: _GroupView) -> int:
        return self.count_zeros(self.default_sparsity, view.shape, view.axes)

    def _grouped_threshold(
        self, magnitudes: Tensor, zeros: Tensor, view: _GroupView
    ) -> Tensor:
        shape = (*magnitudes.shape[:2], 1, magnitudes.shape[3])
        if view.length <= self.n:
            return ops.zeros(shape, dtype="float32")
        most = max(1, self._most_zeros(view))
        fraction = ops.minimum(1.0, ops.cast(zeros, "float32") / most)

        def scaled() -> Tensor:
            middle = fraction * _middle(self)(magnitudes)
            if view.tail and view.tail <= self.n:  # nothing to prune in the tail
                has_losers = np.ones((1, shape[1], 1, 1), dtype="float32")
                has_losers[:, -1] = 0
                middle = middle * has_losers
            return middle

        # During warm-up nothing is pruned, and nothing should be paid for it.
        return ops.cond(fraction > 0, scaled, lambda: ops.zeros(shape, dtype="float32"))

    def neighbours(self, magnitudes: Tensor) -> tuple[Tensor, Tensor]:
        """The n-th and the (n+1)-th largest of each group."""
        m = magnitudes.shape[2]
        if m > _MOST_COMPARED:
            ordered = ops.sort(magnitudes, axis=2)  # rising
            lost = m - self.n - 1
            return ordered[:, :, lost + 1 : lost + 2], ordered[:, :, lost : lost + 1]
        members = ops.unstack(magnitudes, axis=2)
        # From the side that is nearer: the n + 1 largest or the m - n + 1 smallest.
        if self.n + 1 <= m - self.n + 1:
            *_, kept, lost = _extremes(members, self.n + 1, ops.maximum, ops.minimum)
        else:
            count = m - self.n + 1
            *_, lost, kept = _extremes(members, count, ops.minimum, ops.maximum)
        return ops.expand_dims(kept, 2), ops.expand_dims(lost, 2)

    def losers(self, magnitudes: Tensor) -> Tensor:
        """True for the m - n smallest of each group, the first of equal ones first.

        What fills up a tail is not marked.
        """
        is_weight = magnitudes >= 0
        m = magnitudes.shape[2]
        if m > _MOST_COMPARED:
            rank = ops.argsort(ops.argsort(magnitudes, axis=2), axis=2)
            return ops.logical_and(rank < m - self.n, is_weight)
        members = ops.unstack(magnitudes, axis=2)
        beaten: list[Any] = [0] * m
        for later in range(m):
            for earlier in range(later):
                wins = ops.cast(members[later] >= members[earlier], "int32")
                beaten[earlier] = beaten[earlier] + wins
                beaten[later] = beaten[later] + (1 - wins)
        return ops.logical_and(ops.stack(beaten, axis=2) >= self.n, is_weight)


@functools.cache
def _losers(mode: NM) -> Callable[[Tensor], Tensor]:
    """What marks them, compiled like `_middle`."""
    return (
        compiled(least=MANY)(mode.losers) if mode.m <= _MOST_COMPARED else mode.losers
    )


@functools.cache
def _middle(mode: NM) -> Callable[[Tensor], Tensor]:
    """What finds the middle between the n-th and the (n+1)-th largest of each group."""

    def middle(magnitudes: Tensor) -> Tensor:
        kept, lost = mode.neighbours(magnitudes)
        return 0.5 * kept + 0.5 * lost

    # XLA makes one loop of the comparisons; its sort is no faster.
    return compiled(least=MANY)(middle) if mode.m <= _MOST_COMPARED else middle


def _extremes(
    members: Sequence[Tensor], count: int, better: Any, worse: Any
) -> list[Tensor]:
    """The `count` most extreme values at each place, in order, by comparisons."""
    rest, found = list(members), []
    for _ in range(count):
        best = rest[0]
        for i in range(1, len(rest)):
            best, rest[i - 1] = better(best, rest[i]), worse(best, rest[i])
        found.append(best)
        rest.pop()
    return found


def _among(losers: Tensor, magnitudes: Tensor) -> Tensor:
    """The magnitudes of the losers; everything else ranks behind them."""
    return ops.where(losers, magnitudes, ops.full_like(magnitudes, _KEPT))


class _GroupView:
    """A kernel as `(before, groups, m, after)` and back."""

    def __init__(self, shape: tuple[int, ...], axes: KernelAxes, m: int) -> None:
        self.shape = shape
        self.axes = axes
        inputs = sorted(axis % len(shape) for axis in axes.inputs)
        others = [axis for axis in range(len(shape)) if axis not in inputs]
        before = [axis for axis in others if axis < inputs[0]]
        after = [axis for axis in others if axis > inputs[0]]
        # Only an unusual einsum has other axes between its input axes.
        self.order = AxisOrder(shape, (*before, *inputs, *after))
        self.length = math.prod(shape[axis] for axis in inputs)
        # No more than the axis has, or an M of a billion would take as much memory.
        m = min(m, max(1, self.length))
        self.tail = self.length % m
        self.padding = -self.length % m
        self.flat = (
            math.prod(shape[axis] for axis in before),
            self.length,
            math.prod(shape[axis] for axis in after),
        )
        groups = (self.length + self.padding) // m
        self.grouped = (self.flat[0], groups, m, self.flat[2])

    def split(self, kernel: Tensor, padding: float) -> Tensor:
        """From the kernel's shape to groups."""
        flat = self.order.split(kernel, self.flat)
        if self.padding:
            pads = ((0, 0), (0, self.padding), (0, 0))
            flat = ops.pad(flat, pads, constant_values=padding)
        return ops.reshape(flat, self.grouped)

    def join(self, grouped: Tensor) -> Tensor:
        """The inverse of `split`."""
        before, groups, m, after = self.grouped
        flat = ops.reshape(grouped, (before, groups * m, after))
        if self.padding:
            flat = flat[:, : self.length]
        return self.order.join(flat)
