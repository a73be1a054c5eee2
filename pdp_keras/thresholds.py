"""Exact order statistics of magnitudes: the only place that looks at the backend.

The threshold of PDP lies midway between two neighbouring order statistics. A
sort finds them, but on TensorFlow's CPU a sort costs far more than the training
step's own arithmetic. Non-negative floats order like their bit patterns read as
integers, so counting bits finds the same two values exactly:

- TensorFlow graphs and eager code: a two-level histogram of the upper and the
  lower 16 bits (`_select_by_histogram`);
- inside XLA, which has no fast histogram: bisection on the 31 bits
  (`_select_by_bisection`);
- JAX and PyTorch: a sort (`_select_by_sort`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Tensor = Any

_LOW_BITS = 16
_HIGH_BUCKETS = 1 << 15  # the sign bit of a magnitude is always 0
_LOW_BUCKETS = 1 << _LOW_BITS
_INT32_MAX = 2**31 - 1


def order_statistics(magnitudes: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """The values of rank `rank - 1` and `rank`, counted from 0 in rising order.

    With `rank` weights to prune these are the largest pruned and the smallest
    kept magnitude. Ranks are clipped to the ones that exist, so `rank=0` gives
    the smallest value twice and `rank=n` the largest value twice. NaN ranks above
    every number, as in a sort.

    Args:
        magnitudes: float32 tensor of any shape with n >= 1 non-negative values.
        rank: integer scalar tensor (or int) in `[0, n]`.

    Returns:
        `(lower, upper)`, two float32 scalars.

    Example:

    >>> lower, upper = order_statistics(ops.array([3.0, 1.0, 2.0, 5.0]), 2)
    >>> float(lower), float(upper)
    (2.0, 3.0)
    """
    flat = ops.reshape(magnitudes, (-1,))
    n = flat.shape[0]
    rank = ops.cast(rank, "int32")
    lower = ops.clip(rank - 1, 0, n - 1)
    upper = ops.clip(rank, 0, n - 1)
    values: tuple[Tensor, Tensor] = _selection()(flat, lower, upper)
    return values


def midpoint_threshold(magnitudes: Tensor, zeros: Tensor) -> Tensor:
    """PDP's threshold: midway between the largest pruned and smallest kept value.

    `t = (min W_h + max W_l) / 2` (Cho, Adya and Naik, NeurIPS 2023,
    arXiv:2305.11203, section 3).

    Args:
        magnitudes: float32 tensor with n >= 1 non-negative values.
        zeros: integer scalar in `[0, n]`, how many of them are to be pruned.

    Returns:
        A float32 scalar. 0 where nothing is to be pruned; the largest magnitude
        where everything is.

    Example:

    >>> float(midpoint_threshold(ops.array([3.0, 1.0, 2.0, 5.0]), 2))
    2.5
    """

    def compute() -> Tensor:
        lower, upper = order_statistics(magnitudes, zeros)
        # Halved before the sum: the sum of two large magnitudes may overflow.
        return 0.5 * lower + 0.5 * upper

    if 0 in magnitudes.shape:
        return ops.zeros((), "float32")
    # During warm-up nothing is pruned, and then nothing should be paid for it.
    return ops.cond(
        ops.cast(zeros, "int32") > 0,
        compute,
        lambda: ops.zeros((), "float32"),
    )


def smallest(magnitudes: Tensor, zeros: Tensor) -> Tensor:
    """Marks exactly the `zeros` smallest magnitudes, ties in order of position.

    Args:
        magnitudes: float32 tensor with n >= 1 non-negative values.
        zeros: integer scalar in `[0, n]`.

    Returns:
        A bool tensor of the shape of `magnitudes`, True for `zeros` entries.

    Example:

    >>> smallest(ops.array([2.0, 1.0, 2.0, 2.0]), 2)
    [True, True, False, False]
    """
    if 0 in magnitudes.shape:
        return ops.zeros(magnitudes.shape, dtype="bool")
    zeros = ops.cast(zeros, "int32")

    def mark() -> Tensor:
        flat = ops.reshape(magnitudes, (-1,))
        boundary, _ = order_statistics(flat, zeros)
        keys, boundary_key = _sort_key(flat), _sort_key(boundary)
        below = keys < boundary_key
        tied = keys == boundary_key
        missing = zeros - ops.sum(ops.cast(below, "int32"))

        def first_tied() -> Tensor:
            order = ops.cumsum(ops.cast(tied, "int32"))
            return ops.logical_and(tied, order <= missing)

        # Distinct weights, the common case, are spared the running count.
        all_tied = ops.equal(ops.sum(ops.cast(tied, "int32")), missing)
        chosen = ops.cond(all_tied, lambda: tied, first_tied)
        return ops.reshape(ops.logical_or(below, chosen), magnitudes.shape)

    return ops.cond(zeros > 0, mark, lambda: ops.zeros(magnitudes.shape, dtype="bool"))


def _sort_key(magnitudes: Tensor) -> Tensor:
    """Something that compares like the magnitudes, denormal numbers included.

    TensorFlow's kernels take denormal floats for zeros; their bits do not suffer.
    """
    if keras.backend.backend() != "tensorflow":
        return magnitudes
    import tensorflow as tf

    return tf.bitcast(magnitudes, tf.int32)


def _selection() -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    if keras.backend.backend() != "tensorflow":
        return _select_by_sort
    return _select_by_bisection if _compiles_with_xla() else _select_by_histogram


def _compiles_with_xla() -> bool:
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    # TensorFlow has no public way to ask this while a function is being traced.
    return bool(
        not tf.executing_eagerly()
        and control_flow_util.GraphOrParentsInXlaContext(
            tf.compat.v1.get_default_graph()
        )
    )


def _select_by_sort(flat: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, ...]:
    ordered = ops.sort(flat)
    return ops.take(ordered, lower), ops.take(ordered, upper)


def _select_by_histogram(
    flat: Tensor, lower: Tensor, upper: Tensor
) -> tuple[Tensor, ...]:
    import tensorflow as tf

    bits = tf.bitcast(flat, tf.int32)
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
    return _values(bits, found, up_to_found, upper)


def _locate(keys: Tensor, rank: Tensor, buckets: int) -> tuple[Tensor, Tensor]:
    """The bucket that holds the value of this rank, and how many come before."""
    import tensorflow as tf

    counts = tf.math.bincount(keys, minlength=buckets, maxlength=buckets)
    running = tf.cumsum(counts)
    bucket = tf.searchsorted(running, rank[tf.newaxis], side="right")[0]
    return bucket, running[bucket] - counts[bucket]


def _select_by_bisection(
    flat: Tensor, lower: Tensor, upper: Tensor
) -> tuple[Tensor, ...]:
    import tensorflow as tf

    bits = tf.bitcast(flat, tf.int32)

    def decide(step: Tensor, found: Tensor) -> Tensor:
        candidate = tf.bitwise.bitwise_or(found, tf.bitwise.left_shift(1, 30 - step))
        below = tf.reduce_sum(tf.cast(bits < candidate, tf.int32))
        return tf.where(below <= lower, candidate, found)

    found = ops.fori_loop(0, 31, decide, tf.constant(0, tf.int32))
    up_to_found = tf.reduce_sum(tf.cast(bits <= found, tf.int32))
    return _values(bits, found, up_to_found, upper)


def _values(
    bits: Tensor, found: Tensor, up_to_found: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor]:
    """From the bits of the lower value to both values.

    The upper one equals the lower one if enough copies of it exist; otherwise it
    is the next larger value.
    """
    import tensorflow as tf

    larger = tf.reduce_min(tf.where(bits > found, bits, _INT32_MAX))
    next_bits = tf.where(upper < up_to_found, found, larger)
    return tf.bitcast(found, tf.float32), tf.bitcast(next_bits, tf.float32)
