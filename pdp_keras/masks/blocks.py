"""Soft masks of small blocks of a kernel, and their gradient in closed form.

A kernel is looked at as `(positions, inputs, outputs)`. A block is so many neighbouring
inputs of so many neighbouring outputs at one position; what is left over at the end of
an axis is taken one by one. The score of a block is the root mean square s of its n
weights: in units of |w|, so that blocks of different sizes share one threshold, and
differentiable. With t and the temperature constant the block's weights w become m(s) w,

    m(s) = sigmoid((s**2 - t**2) / temperature),

and the Jacobian of that is

    m I + (2 / (n temperature)) m (1 - m) w w^T.

Along w it is m + (2 s**2 / temperature) m (1 - m), the slope of a single weight of
that size; across w it is m. Both need only w and t, and both are bounded by `max_gain`.
For n = 1 this is `soft_masked`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from keras import ops

from pdp_keras.masks.compilation import MANY, compiled
from pdp_keras.masks.functional import keep_and_slope, with_constants

Tensor = Any
_LARGEST = 1e18
# Inputs and outputs of a block.
Sizes = tuple[int, int]


def count_blocks(length: int, size: int) -> int:
    """How many blocks an axis has: whole ones, and single places at its end."""
    return length // size + length % size


def block_scores(weights: Tensor, sizes: Sizes) -> Tensor:
    """The root mean square of each block.

    Args:
        weights: float32 tensor `(positions, inputs, outputs)`.
        sizes: inputs and outputs of a block.

    Returns:
        A float32 tensor `(positions, blocks along inputs, blocks along outputs)`.

    Example:

    >>> block_scores(ops.array([[[3.0, 4.0, 0.0, 0.0, 6.0]]]), (1, 2))
    [[[3.5355, 0.0, 6.0]]]
    """
    found: Tensor = _scorer(sizes)(weights)
    return found


def block_soft_masked(
    weights: Tensor,
    threshold: Tensor,
    width: Tensor,
    sizes: Sizes,
    max_gain: float = math.inf,
) -> Tensor:
    """`m(s) * w`, with the gradient above.

    Args:
        weights: float32 tensor `(positions, inputs, outputs)`.
        threshold: float32 scalar, in units of the score; a constant for the gradient.
            Where it is 0 nothing is pruned.
        width: square root of the temperature, like `threshold`.
        sizes: inputs and outputs of a block.
        max_gain: what the gradient is bounded by, along w and across it.

    Returns:
        A float32 tensor of the shape of `weights`.
    """
    return with_constants(
        _forward(sizes), _backward(sizes, max_gain), weights, threshold, width
    )


def spread(blocks: Tensor, shape: tuple[int, ...], sizes: Sizes) -> Tensor:
    """What each block has, at all of its weights; of any type.

    Args:
        blocks: as `block_scores` returns them.
        shape: `(positions, inputs, outputs)`.
        sizes: inputs and outputs of a block.
    """
    for axis, size in zip((1, 2), sizes, strict=True):
        if size > 1:
            whole, single = _apart(blocks, axis, shape[axis] // size)
            blocks = _together(ops.repeat(whole, size, axis), single, axis)
    return blocks


def _sums(values: Tensor, sizes: Sizes) -> Tensor:
    """The sum over each block."""
    for axis, size in zip((1, 2), sizes, strict=True):
        if size > 1:
            count = values.shape[axis] // size
            whole, single = _apart(values, axis, count * size)
            shape = list(values.shape)
            shape[axis : axis + 1] = [count, size]
            total = ops.sum(ops.reshape(whole, shape), axis=axis + 1)
            values = _together(total, single, axis)
    return values


def _members(shape: tuple[int, ...], sizes: Sizes) -> Any:
    """How many weights each block has, to be broadcast to them."""
    counts: Any = 1.0
    for axis, size in zip((1, 2), sizes, strict=True):
        whole, single = divmod(shape[axis], size)
        each = [float(size)] * whole + [1.0] * single
        counts = counts * ops.reshape(
            ops.convert_to_tensor(each, "float32"), [-1, 1] if axis == 1 else [1, -1]
        )
    return counts


def _apart(values: Tensor, axis: int, length: int) -> tuple[Tensor, Tensor | None]:
    if length == values.shape[axis]:
        return values, None
    if axis == 1:
        return values[:, :length], values[:, length:]
    return values[:, :, :length], values[:, :, length:]


def _together(whole: Tensor, single: Tensor | None, axis: int) -> Tensor:
    return whole if single is None else ops.concatenate([whole, single], axis)


@functools.cache
def _scorer(sizes: Sizes) -> Callable[[Tensor], Tensor]:
    @compiled(least=MANY)
    def scores(weights: Tensor) -> Tensor:
        return _root_mean_square(weights, sizes)

    return scores


def _root_mean_square(weights: Tensor, sizes: Sizes) -> Tensor:
    squares = _sums(ops.square(weights), sizes)
    mean = squares / _members(tuple(weights.shape), sizes)
    scores = ops.sqrt(mean)
    # TensorFlow's root rounds differently within a tensor, and equal blocks would not
    # be equal; after a step of Newton's they are.
    newton = 0.5 * (scores + mean / ops.where(scores > 0, scores, 1.0))
    scores = ops.where(mean < _LARGEST, newton, scores)
    # The square of a larger one may be infinite, and the threshold beside it.
    return ops.minimum(scores, _LARGEST)


@functools.cache
def _forward(sizes: Sizes) -> Callable[..., Tensor]:
    @compiled(least=MANY)
    def forward(weights: Tensor, threshold: Tensor, width: Tensor) -> Tensor:
        scores = _root_mean_square(weights, sizes)
        keep, _ = keep_and_slope(scores, threshold, width)
        return weights * spread(keep, tuple(weights.shape), sizes)

    return forward


@functools.cache
def _backward(sizes: Sizes, max_gain: float) -> Callable[..., Tensor]:
    @compiled(least=MANY)
    def backward(
        weights: Tensor, upstream: Tensor, threshold: Tensor, width: Tensor
    ) -> Tensor:
        shape = tuple(weights.shape)
        scores = _root_mean_square(weights, sizes)
        keep, slope = keep_and_slope(scores, threshold, width)
        if max_gain < math.inf:
            keep, slope = ops.minimum(keep, max_gain), ops.minimum(slope, max_gain)
        positive = scores > 0
        inverse = 1.0 / ops.where(positive, scores, 1.0)
        inverse = ops.where(positive, inverse, 0.0)
        # Of length sqrt(n) in each block, whatever the size of its weights.
        longest = math.sqrt(sizes[0] * sizes[1])
        unit = ops.clip(weights * spread(inverse, shape, sizes), -longest, longest)
        along = _sums(unit * upstream, sizes) / _members(shape, sizes)
        return upstream * spread(keep, shape, sizes) + unit * spread(
            (slope - keep) * along, shape, sizes
        )

    return backward
