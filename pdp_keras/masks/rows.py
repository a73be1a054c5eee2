"""Thresholds and masks of many equal kernels at once: each is a row of one tensor.

What a network of many small layers waits for is the operations, not the weights: one
of each for all rows costs about as much as for one. The order statistics are those of
`thresholds`, exact here as well. Where a compiler makes fast loops of it they are found
by counting, two bits in each pass; elsewhere by a sort.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from pdp_keras.masks.compilation import compiled, compiles_with_xla
from pdp_keras.masks.order_search import INT32_MAX, from_bits, magnitude_bits

Tensor = Any

# From so many values on, of many kernels, a program is worth its compilation.
_LEAST = 1 << 12
_TOP = 30  # the highest bit of a magnitude, below the sign


def row_thresholds(rows: Tensor, zeros: Tensor) -> Tensor:
    """`midpoint_threshold` of each row.

    Args:
        rows: float32 tensor `(kernels, n)` with n >= 1; signs are ignored.
        zeros: int32 tensor `(kernels,)`, each in `[0, n]`: how many are to be pruned.

    Returns:
        A float32 tensor `(kernels, 1)`; 0 where nothing is to be pruned.

    Example:

    >>> row_thresholds(ops.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), ops.array([1, 0]))
    [[1.5], [0.0]]
    """
    found: Tensor = _row_thresholds(rows, ops.cast(zeros, "int32"))
    return found


def smallest_of_rows(rows: Tensor, zeros: Tensor) -> Tensor:
    """Marks the `zeros` smallest magnitudes of each row, ties in order of position.

    Args:
        rows: float32 tensor `(kernels, n)` with n >= 1; signs are ignored.
        zeros: int32 tensor `(kernels,)`, each in `[0, n]`.

    Returns:
        A bool tensor `(kernels, n)`.
    """
    found: Tensor = _smallest_of_rows(rows, ops.cast(zeros, "int32"))
    return found


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """`ops.stack(tensors)`, with the gradient that `unstacked` has the other way."""
    if keras.backend.backend() == "jax":
        return _stack_for_jax()(tuple(map(ops.convert_to_tensor, tensors)))
    return ops.stack(tensors)


def unstacked(tensor: Tensor) -> Sequence[Tensor]:
    """`ops.unstack(tensor)`, whose gradient is one stack.

    JAX would add up as many tensors as there are parts, each zeros but for one.
    """
    if keras.backend.backend() == "jax":
        parts: Sequence[Tensor] = _unstack_for_jax()(tensor)
        return parts
    return ops.unstack(tensor)


@functools.cache
def _stack_for_jax() -> Any:
    import jax

    stack = jax.custom_vjp(lambda parts: jax.numpy.stack(parts))
    stack.defvjp(
        lambda parts: (stack(parts), None), lambda _, upstream: (tuple(upstream),)
    )
    return stack


@functools.cache
def _unstack_for_jax() -> Any:
    import jax

    unstack = jax.custom_vjp(lambda x: tuple(x))
    unstack.defvjp(
        lambda x: (unstack(x), None),
        lambda _, upstream: (jax.numpy.stack(upstream),),
    )
    return unstack


@compiled(least=_LEAST)
def _row_thresholds(rows: Tensor, zeros: Tensor) -> Tensor:
    zeros = ops.expand_dims(zeros, 1)

    def compute() -> Tensor:
        lower, upper = map(from_bits, _neighbours(magnitude_bits(rows), zeros))
        # Halved before the sum: the sum of two large magnitudes may overflow.
        return ops.where(zeros > 0, 0.5 * lower + 0.5 * upper, 0.0)

    def nothing() -> Tensor:
        return ops.zeros((rows.shape[0], 1), "float32")

    # During warm-up nothing is pruned, and then nothing should be paid for it.
    return ops.cond(ops.any(zeros > 0), compute, nothing)


@compiled(least=_LEAST)
def _smallest_of_rows(rows: Tensor, zeros: Tensor) -> Tensor:
    zeros = ops.expand_dims(zeros, 1)

    def mark() -> Tensor:
        bits = magnitude_bits(rows)
        boundary, _ = _neighbours(bits, zeros)
        below = bits < boundary
        tied = ops.logical_and(bits == boundary, zeros > 0)
        missing = zeros - _count(below)

        def first_tied() -> Tensor:
            order = ops.cumsum(ops.cast(tied, "int32"), axis=1)
            return ops.logical_and(tied, order <= missing)

        # Distinct weights, the common case, are spared the running count.
        is_clear = ops.all(_count(tied) == missing)
        chosen = ops.cond(is_clear, lambda: tied, first_tied)
        return ops.logical_or(below, chosen)

    def nothing() -> Tensor:
        return ops.zeros(rows.shape, "bool")

    return ops.cond(ops.any(zeros > 0), mark, nothing)


def _neighbours(bits: Tensor, zeros: Tensor) -> tuple[Tensor, Tensor]:
    """The bits of the largest pruned and the smallest kept magnitude of each row."""
    last = bits.shape[1] - 1
    lower, upper = ops.clip(zeros - 1, 0, last), ops.clip(zeros, 0, last)
    if keras.backend.backend() == "jax" or (
        keras.backend.backend() == "tensorflow" and compiles_with_xla()
    ):
        return _by_counting(bits, lower, upper)
    ordered = ops.sort(bits, axis=1)
    return tuple(ops.take_along_axis(ordered, rank, axis=1) for rank in (lower, upper))


def _by_counting(bits: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Builds up the lower value from its highest bit down."""
    # A value is not below a pivot where no more than its rank are.
    top = 1 << _TOP
    found = ops.where(_count(bits < top) <= lower, top, 0)

    def two_more(shift: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        reached = 0
        for step in (1, 2, 3):
            pivots = found + ops.left_shift(ops.full((), step, "int32"), shift)
            is_reached = _count(bits < pivots) <= lower
            reached = reached + ops.cast(is_reached, "int32")
        return shift - 2, found + ops.left_shift(reached, shift)

    _, found = ops.while_loop(
        lambda shift, found: shift >= 0,
        two_more,
        (ops.full((), _TOP - 2, "int32"), found),
    )
    above = ops.min(ops.where(bits > found, bits, INT32_MAX), axis=1, keepdims=True)
    # The upper one equals the lower one if enough copies of it exist.
    return found, ops.where(_count(bits <= found) > upper, found, above)


def _count(marks: Tensor) -> Tensor:
    return ops.sum(ops.cast(marks, "int32"), axis=1, keepdims=True)
