"""Exact order statistics of magnitudes, and the thresholds and masks made of them.

The threshold of PDP lies midway between two neighbouring order statistics. A sort
finds them, but costs far more than a training step's own arithmetic. Non-negative
floats order like their bit patterns read as integers, so counting finds the same two
values exactly:

- wherever a compiler makes fast loops of it (TensorFlow's graphs, XLA, JAX) by the
  passes of `order_search`, of which one suffices with a `bracket` from the last step;
- in TensorFlow's eager code by a two-level histogram of the upper and the lower 16
  bits;
- in PyTorch by a sort of what lies in the bracket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from pdp_keras.masks import order_search
from pdp_keras.masks.compilation import (
    MANY,
    compiled,
    compiles_with_xla,
    is_compiled_apart,
    traced_once,
)
from pdp_keras.masks.custom_gradient import with_gradient
from pdp_keras.masks.order_search import INT32_MAX, Part, from_bits, magnitude_bits

Tensor = Any
# Numbers in a bracket: two ends, and the last value.
BRACKET = 3
Selection = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

_LOW_BITS = 16
_HIGH_BUCKETS = 1 << 15  # the sign bit of a magnitude is always 0
_LOW_BUCKETS = 1 << _LOW_BITS
# Up to the last one, kernels are filled up to one of these sizes, so that the many
# small ones of a network share a few compiled programs.
_PROGRAM_SIZES = (1 << 12, 1 << 16, 1 << 17, order_search.LARGE - 1)


def order_statistics(values: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """The magnitudes of rank `rank - 1` and `rank`, counted from 0 in rising order.

    With `rank` weights to prune these are the largest pruned and the smallest
    kept magnitude. Ranks are clipped to the ones that exist, so `rank=0` gives
    the smallest value twice and `rank=n` the largest value twice. NaN ranks above
    every number, as in a sort.

    Args:
        values: float32 tensor of any shape with n >= 1 values; their sign is ignored.
        rank: integer scalar tensor (or int) in `[0, n]`.

    Returns:
        `(lower, upper)`, two float32 scalars.

    Example:

    >>> lower, upper = order_statistics(ops.array([3.0, 1.0, 2.0, 5.0]), 2)
    >>> float(lower), float(upper)
    (2.0, 3.0)
    """
    found: tuple[Tensor, Tensor] = _order_statistics(
        ops.reshape(values, (-1,)), _rank(rank), _known(None)
    )
    return found


def midpoint_threshold(values: Tensor, zeros: Tensor) -> Tensor:
    """PDP's threshold: midway between the largest pruned and smallest kept value.

    `t = (min W_h + max W_l) / 2` (Cho, Adya and Naik, NeurIPS 2023,
    arXiv:2305.11203, section 3).

    Args:
        values: float32 tensor with n >= 1 values; their sign is ignored.
        zeros: integer scalar in `[0, n]`, how many of them are to be pruned.

    Returns:
        A float32 scalar. 0 where nothing is to be pruned; the largest magnitude
        where everything is.

    Example:

    >>> float(midpoint_threshold(ops.array([3.0, 1.0, 2.0, 5.0]), 2))
    2.5
    """
    return tracked_threshold(values, zeros)[0]


def tracked_threshold(
    values: Tensor, zeros: Tensor, bracket: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`midpoint_threshold`, and the bracket to give the next time.

    Args:
        values: float32 tensor with n >= 1 values; their sign is ignored.
        zeros: integer scalar in `[0, n]`, how many of them are to be pruned.
        bracket: float32 tensor `(3,)`: what the last call returned, a guess where the
            threshold is. It changes the time, never the result. None or zeros at
            first.

    Returns:
        `(threshold, bracket)`, float32 tensors of shapes `()` and `(3,)`.
    """
    bracket = _known(bracket)
    if 0 in values.shape:
        return ops.zeros((), "float32"), bracket
    flat = ops.reshape(values, (-1,))
    found: tuple[Tensor, Tensor] = _tracked_threshold(flat, _rank(zeros), bracket)
    return found


def smallest(values: Tensor, zeros: Tensor, bracket: Tensor | None = None) -> Tensor:
    """Marks exactly the `zeros` smallest magnitudes, ties in order of position.

    Args:
        values: float32 tensor with n >= 1 values; their sign is ignored.
        zeros: integer scalar in `[0, n]`.
        bracket: as for `tracked_threshold`.

    Returns:
        A bool tensor of the shape of `values`, True for `zeros` entries.

    Example:

    >>> smallest(ops.array([2.0, 1.0, 2.0, 2.0]), 2)
    [True, True, False, False]
    """
    if 0 in values.shape:
        return ops.zeros(values.shape, dtype="bool")
    marks = _smallest(ops.reshape(values, (-1,)), _rank(zeros), _known(bracket))
    return ops.reshape(marks, values.shape)


def tracked_cut(
    values: Tensor, zeros: Tensor, bracket: Tensor
) -> tuple[Tensor, Tensor]:
    """The values with the `zeros` smallest set to 0, and the bracket of the next time.

    Where the values are what they were the last time, one pass shows that they are cut
    in the same place, and cuts them.

    Args:
        values: float32 tensor with n >= 1 values.
        zeros: integer scalar in `[0, n]`.
        bracket: as for `tracked_threshold`.

    Returns:
        `(values, bracket)`; the gradient of the values is 1 where they are left.
    """
    if 0 in values.shape:
        return values, bracket
    zeros = _rank(zeros)

    flat = ops.reshape(ops.stop_gradient(values), (-1,))
    cut, found = _tracked_cut(flat, zeros, bracket)
    cut = ops.stop_gradient(ops.reshape(cut, values.shape))

    def gradient(
        upstream: Tensor, values: Tensor, cut: Tensor
    ) -> tuple[Tensor, Tensor]:
        # A kept 0 looks like a pruned one: they are found again.
        pruned = smallest(values, zeros, found)
        zero = ops.zeros_like(upstream)
        return ops.where(pruned, zero, upstream), zero

    return with_gradient(lambda _, cut: 1.0 * cut, gradient, values, cut), found


@traced_once
def _tracked_cut(flat: Tensor, zeros: Tensor, bracket: Tensor) -> tuple[Tensor, Tensor]:
    cut, is_right = _cut_at(flat, zeros, bracket)

    def search() -> tuple[Tensor, Tensor]:
        boundary, _ = _order_statistics(flat, zeros, bracket)
        pruned = _marked(flat, zeros, boundary)
        found = order_search.next_bracket(boundary, bracket)
        return ops.where(pruned, ops.zeros_like(flat), flat), found

    return ops.cond(is_right, lambda: (cut, bracket), search)


@compiled(least=MANY)
def _cut_at(flat: Tensor, zeros: Tensor, bracket: Tensor) -> tuple[Tensor, Tensor]:
    """Cut up to the last value that was found, and whether that cuts so many."""
    bits = magnitude_bits(flat)
    pruned = ops.logical_and(bits <= magnitude_bits(bracket[2]), zeros > 0)
    return ops.where(pruned, 0.0, flat), _count(pruned) == zeros


@traced_once
def _smallest(flat: Tensor, zeros: Tensor, bracket: Tensor) -> Tensor:
    def mark() -> Tensor:
        boundary, _ = _order_statistics(flat, zeros, bracket)
        return _marked(flat, zeros, boundary)

    return ops.cond(zeros > 0, mark, lambda: ops.zeros(flat.shape, dtype="bool"))


@compiled(least=MANY)
def _marked(values: Tensor, zeros: Tensor, boundary: Tensor) -> Tensor:
    """True below the boundary, and for the first ones on it until there are `zeros`."""
    # By their bits: TensorFlow's kernels take denormal floats for zeros.
    keys, boundary_key = magnitude_bits(values), magnitude_bits(boundary)
    below = keys < boundary_key
    tied = keys == boundary_key
    missing = zeros - _count(below)

    def first_tied() -> Tensor:
        order = ops.cumsum(ops.cast(tied, "int32"))
        return ops.logical_and(tied, order <= missing)

    # Distinct weights, the common case, are spared the running count.
    chosen = ops.cond(ops.equal(_count(tied), missing), lambda: tied, first_tied)
    return ops.logical_or(below, chosen)


def _count(marks: Tensor) -> Tensor:
    return ops.sum(ops.cast(marks, "int32"))


def _rank(rank: Tensor) -> Tensor:
    return ops.cast(rank, "int32")


def _known(bracket: Tensor | None) -> Tensor:
    return ops.zeros((BRACKET,), "float32") if bracket is None else bracket


@traced_once
def _tracked_threshold(
    flat: Tensor, zeros: Tensor, bracket: Tensor
) -> tuple[Tensor, Tensor]:
    last = ops.convert_to_tensor(flat.shape[0] - 1, "int32")
    if is_compiled_apart() and flat.shape[0] <= _PROGRAM_SIZES[-1]:
        # All in one program: the fewer operations, the less a small step waits.
        found: tuple[Tensor, Tensor] = _threshold_program(
            _filled_up(flat), zeros, last, bracket
        )
        return found
    return _threshold_and_bracket(flat, zeros, last, bracket)


def _threshold_and_bracket(
    flat: Tensor, zeros: Tensor, last: Tensor, bracket: Tensor
) -> tuple[Tensor, Tensor]:
    def compute() -> tuple[Tensor, Tensor]:
        lower, upper = _selection()(flat, *_neighbours(zeros, last), bracket)
        # Halved before the sum: the sum of two large magnitudes may overflow.
        middle = 0.5 * lower + 0.5 * upper
        return middle, order_search.next_bracket(lower, bracket)

    # During warm-up nothing is pruned, and then nothing should be paid for it.
    return ops.cond(zeros > 0, compute, lambda: (ops.zeros((), "float32"), bracket))


_threshold_program = compiled()(_threshold_and_bracket)


@traced_once
def _order_statistics(
    flat: Tensor, rank: Tensor, bracket: Tensor
) -> tuple[Tensor, Tensor]:
    return _selection()(flat, *_neighbours(rank, flat.shape[0] - 1), bracket)


def _neighbours(rank: Tensor, last: Tensor | int) -> tuple[Tensor, Tensor]:
    """The ranks before and from this one on, clipped to those that exist."""
    return ops.clip(rank - 1, 0, last), ops.clip(rank, 0, last)


def _selection() -> Selection:
    backend = keras.backend.backend()
    if backend == "torch":
        return _select_by_sort
    if is_compiled_apart():
        return _select_by_programs
    if backend == "tensorflow" and not compiles_with_xla():
        return _select_by_histogram
    return _search


_search = compiled()(order_search.search)
_first_pass = compiled()(order_search.first_pass)


@compiled()
def _search_part(*part: Tensor) -> tuple[Tensor, Tensor]:
    return order_search.search_part(Part(*part))


def _select_by_programs(
    flat: Tensor, lower: Tensor, upper: Tensor, bracket: Tensor
) -> tuple[Tensor, Tensor]:
    """The search in parts whose compilation the kernels of a network share."""
    if flat.shape[0] <= _PROGRAM_SIZES[-1]:
        return _search(_filled_up(flat), lower, upper, bracket)
    part = _first_pass(flat, lower, upper, bracket)
    return ops.cond(
        part[-1],
        lambda: _search_part(*part),
        lambda: _select_by_histogram(flat, lower, upper, bracket),
    )


def _filled_up(flat: Tensor) -> Tensor:
    """With NaNs, which rank above all, up to a size that other kernels have too."""
    n = flat.shape[0]
    size = next(size for size in _PROGRAM_SIZES if n <= size)
    last_of_all = np.array(INT32_MAX, "int32").view("float32")
    return ops.pad(flat, (0, size - n), constant_values=last_of_all)


def _select_by_sort(
    flat: Tensor, lower: Tensor, upper: Tensor, bracket: Tensor
) -> tuple[Tensor, Tensor]:
    """PyTorch's way, where the size of a tensor may depend on data."""
    bits = magnitude_bits(flat)
    lo, hi, _ = (int(end) for end in magnitude_bits(bracket))
    before, inside = 0, bits
    if hi > lo:
        is_below = bits < lo
        before = _count_at_once(is_below)
        inside = bits[(bits <= hi) ^ is_below]
    if not before <= int(lower) <= int(upper) < before + len(inside):
        before, inside = 0, bits
    ordered = ops.sort(inside)
    return tuple(from_bits(ordered[rank - before]) for rank in (lower, upper))


def _count_at_once(marks: Tensor) -> int:
    # PyTorch's own count of marks takes a fifth of the time of their sum.
    own = getattr(marks, "count_nonzero", None)
    return int(_count(marks) if own is None else own())


def _select_by_histogram(
    flat: Tensor, lower: Tensor, upper: Tensor, bracket: Tensor
) -> tuple[Tensor, Tensor]:
    import tensorflow as tf

    del bracket
    bits = magnitude_bits(flat)
    high = tf.bitwise.right_shift(bits, _LOW_BITS)
    bucket, before = _locate(high, lower, _HIGH_BUCKETS)
    members = tf.boolean_mask(bits, high == bucket)
    low, before_low = _locate(
        tf.bitwise.bitwise_and(members, _LOW_BUCKETS - 1),
        lower - before,
        _LOW_BUCKETS,
    )
    found = tf.bitwise.bitwise_or(tf.bitwise.left_shift(bucket, _LOW_BITS), low)
    copies = tf.reduce_sum(tf.cast(tf.equal(members, found), tf.int32))
    up_to_found = before + before_low + copies
    # The upper one equals the lower one if enough copies of it exist; otherwise it is
    # the next larger value.
    larger = tf.reduce_min(tf.where(bits > found, bits, INT32_MAX))
    next_bits = tf.where(upper < up_to_found, found, larger)
    return from_bits(found), from_bits(next_bits)


def _locate(keys: Tensor, rank: Tensor, buckets: int) -> tuple[Tensor, Tensor]:
    """The bucket that holds the value of this rank, and how many come before."""
    import tensorflow as tf

    counts = tf.math.bincount(keys, minlength=buckets, maxlength=buckets)
    running = tf.cumsum(counts)
    bucket = tf.searchsorted(running, rank[tf.newaxis], side="right")[0]
    return bucket, running[bucket] - counts[bucket]
