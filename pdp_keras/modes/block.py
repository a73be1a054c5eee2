"""`Block`: neighbouring output channels share their zeros.

The blocks are those of XNNPACK's sparse kernels (`xnn_analyze_f32_spmm_w` and
`xnn_pack_f32_spmm_w` in its `src/reference/packing.cc`): counted from the first output
channel on, whole blocks first, and what is left over one by one. A block goes or stays
as one. Its score is the root mean square of its weights, in units of |w|: a channel
that is left over is compared with pairs by the same threshold, and the temperatures of
single weights mean the same here. (An L2 norm grows with the block: what is left over
would go first.)
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from keras import ops

from pdp_keras.masks import (
    block_scores,
    block_soft_masked,
    count_blocks,
    midpoint_threshold,
    smallest,
    spread,
    tracked_threshold,
)
from pdp_keras.models import KernelAxes
from pdp_keras.modes.axis_order import AxisOrder
from pdp_keras.modes.base import Mode, Width

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Block(Mode):
    """Blocks of neighbouring output channels at one input and kernel position.

    Pairs are what LiteRT's kernels for 64-bit Arm (XNNPACK) run with fewer
    instructions than scattered zeros, and fours too; in a browser blocks are slower.
    Sparsity counts blocks. Where the outputs are no multiple of the block, the last
    ones are blocks of one, as the runtime takes them.

    Args:
        outputs: neighbouring output channels of a block. Several output axes, as in the
            projections of attention, are taken as one, in their order.
        inputs: neighbouring inputs of a block, for other runtimes than XNNPACK.

    Raises:
        ValueError: unless both are positive integers, and not both 1.

    Example:

    >>> pdp_keras.prune_model(model, sparsity=0.85, mode="block")
    >>> pdp_keras.prune_model(model, mode="block:4")
    >>> pdp_keras.prune_model(model, mode=pdp_keras.Block(outputs=4, inputs=4))
    """

    outputs: int = 2
    inputs: int = 1

    name = "block"
    default_sparsity = 0.8
    keeps_bracket = True

    def __post_init__(self) -> None:
        sizes = {"outputs": self.outputs, "inputs": self.inputs}
        for name, value in sizes.items():
            if type(value) is not int or value < 1:
                raise ValueError(
                    f"{name} must be a positive integer. Received: {name}={value!r}"
                )
        if self.outputs == self.inputs == 1:
            raise ValueError(
                "A block must have at least two weights; single ones are "
                'mode="unstructured". Received: outputs=1, inputs=1'
            )

    def reason_against(self, shape: tuple[int, ...], axes: KernelAxes) -> str | None:
        """Outputs must read the same inputs: a block shares what it skips."""
        del shape
        if not axes.inputs:
            return "blocks share an input: none of its outputs sums over inputs"
        if not axes.outputs:
            return "blocks are of neighbouring outputs: it has no output axis"
        return None

    def units(self, shape: tuple[int, ...], axes: KernelAxes) -> int:
        """The number of blocks."""
        positions, inputs, outputs = _View(shape, axes).flat
        return (
            positions
            * count_blocks(inputs, self.inputs)
            * count_blocks(outputs, self.outputs)
        )

    def ranked(self, weights: Tensor, axes: KernelAxes) -> Tensor:
        """The root mean square of each block."""
        return ops.ravel(self.scores(weights, axes))

    def threshold(self, weights: Tensor, zeros: Tensor, axes: KernelAxes) -> Tensor:
        """One float32 scalar for the whole kernel, in units of |w|."""
        return midpoint_threshold(self.scores(ops.stop_gradient(weights), axes), zeros)

    def tracked_threshold(
        self, weights: Tensor, zeros: Tensor, axes: KernelAxes, bracket: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`threshold`, looking in the bracket first, and the bracket of the next."""
        scores = self.scores(ops.stop_gradient(weights), axes)
        return tracked_threshold(scores, zeros, bracket)

    def soft_masked_at(
        self,
        weights: Tensor,
        threshold: Tensor,
        axes: KernelAxes,
        width: Width,
        max_gain: float = math.inf,
    ) -> Tensor:
        """`soft_masked` with a threshold that is known."""
        if 0 in weights.shape:
            return weights
        view = _View(tuple(weights.shape), axes)
        known = threshold, width(threshold), self._sizes, max_gain
        return view.join(block_soft_masked(view.split(weights), *known))

    def soft_masked(
        self,
        weights: Tensor,
        zeros: Tensor,
        axes: KernelAxes,
        width: Width,
        max_gain: float = math.inf,
    ) -> Tensor:
        """The weights times the soft mask of their block, with PDP's gradient.

        That is bounded by `max_gain`; see `masks/blocks.py`.
        """
        threshold = self.threshold(weights, zeros, axes)
        return self.soft_masked_at(weights, threshold, axes, width, max_gain)

    def hard_masked(
        self,
        weights: Tensor,
        zeros: Tensor,
        axes: KernelAxes,
        bracket: Tensor | None = None,
    ) -> Tensor:
        """The weights with exactly `zeros` blocks (ties by position) set to 0."""
        if 0 in weights.shape:
            return weights
        scores = self.scores(ops.stop_gradient(weights), axes)
        return self._cut(weights, smallest(scores, zeros, bracket), axes)

    def tracked_hard_masked(
        self, weights: Tensor, zeros: Tensor, axes: KernelAxes, bracket: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`hard_masked`, looking in the bracket first, and the bracket of the next."""
        if 0 in weights.shape:
            return weights, bracket
        scores = self.scores(ops.stop_gradient(weights), axes)
        _, found = tracked_threshold(scores, zeros, bracket)
        return self._cut(weights, smallest(scores, zeros, found), axes), found

    def scores(self, weights: Tensor, axes: KernelAxes) -> Tensor:
        """The root mean square of each block, `(positions, inputs, outputs)`."""
        view = _View(tuple(weights.shape), axes)
        return block_scores(view.split(ops.cast(weights, "float32")), self._sizes)

    def _cut(self, weights: Tensor, pruned: Tensor, axes: KernelAxes) -> Tensor:
        view = _View(tuple(weights.shape), axes)
        marks = view.join(spread(pruned, view.flat, self._sizes))
        return ops.where(marks, ops.zeros_like(weights), weights)

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.inputs, self.outputs


class _View:
    """A kernel as `(positions, inputs, outputs)`, and back."""

    def __init__(self, shape: tuple[int, ...], axes: KernelAxes) -> None:
        rank = len(shape)
        inputs = sorted(axis % rank for axis in axes.inputs)
        outputs = sorted(axis % rank for axis in axes.outputs)
        others = [a for a in range(rank) if a not in (*inputs, *outputs)]
        self.order = AxisOrder(shape, (*others, *inputs, *outputs))
        self.flat = tuple(
            math.prod(shape[axis] for axis in part)
            for part in (others, inputs, outputs)
        )

    def split(self, kernel: Tensor) -> Tensor:
        """From the kernel's shape."""
        return self.order.split(kernel, self.flat)

    def join(self, flat: Tensor) -> Tensor:
        """To the kernel's shape."""
        return self.order.join(flat)
