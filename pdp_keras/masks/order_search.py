"""Two neighbouring order statistics by counting, in operations that XLA makes fast.

A sort costs far more than a training step's own arithmetic. Non-negative floats order
like their bit patterns read as integers, so counting what lies below a few pivots
narrows an interval of bits until it has only what is looked for. Where the values
move little between calls, a `bracket` from the last call makes that one pass:

- a pass counts the values below four pivots, for each group of 128 values at once
  (four counts of 8 bits in one integer, so that the values are read once);
- when few groups reach into the interval, the search goes on in these alone;
- when a pivot lies between the two ranks, the largest value below it and the
  smallest one from there are the answer; when the interval is one value, that is.

A bracket is only a guess: whatever is in it, the values found are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

Tensor = Any

INT32_MAX = 2**31 - 1
_GROUP = 128
_PIVOTS = 4
_STRANDS = 4
_BITS = 8  # of a count: it is at most _GROUP
# From this many values on, the search goes on in a part of them.
LARGE = (1 << 18) + 1
# So many groups make the part: 65536 values.
_MOST_GROUPS = 512
# Half the width of a bracket, in units in the last place: 2**23 are a factor of 2.
_NARROWEST, _FIRST, _WIDEST = 1 << 6, 1 << 13, 1 << 24


def magnitude_bits(values: Tensor) -> Tensor:
    """The bits of |values| as int32: they order like the magnitudes, NaN last."""
    return ops.bitwise_and(_reinterpreted(values, "int32"), INT32_MAX)


def from_bits(bits: Tensor) -> Tensor:
    """The floats with these bits; the inverse of `magnitude_bits`."""
    return _reinterpreted(bits, "float32")


def _reinterpreted(x: Tensor, dtype: str) -> Tensor:
    """The same bits as numbers of another kind."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.bitcast(x, dtype)
    if backend == "torch":
        import torch

        return x.view(getattr(torch, dtype))
    return x.view(dtype)


def search(
    values: Tensor, lower: Tensor, upper: Tensor, bracket: Tensor
) -> tuple[Tensor, Tensor]:
    """The magnitudes of rank `lower` and `upper`, counted from 0 in rising order.

    Args:
        values: float32 tensor `(n,)`; their sign is ignored.
        lower: int32 scalar in `[0, n)`.
        upper: int32 scalar: `lower`, or `lower + 1` if that is below n.
        bracket: float32 tensor `(3,)`: between which two magnitudes the lower one
            may be, and which one it was the last time; zeros where nothing is known.
            Anything else is as good for the result, if not for the time.

    Returns:
        Two float32 scalars.
    """
    rows = _Rows(values)
    if values.shape[0] < LARGE:
        interval = _unknown_interval()
        pivots = _pivots(interval, magnitude_bits(bracket))
        return _search(rows, lower, upper, interval, pivots)
    part = first_pass(values, lower, upper, bracket)
    interval = part.interval
    found: tuple[Tensor, Tensor] = ops.cond(
        part.is_small,
        lambda: search_part(part),
        lambda: _search(rows, lower, upper, interval, _even_pivots(interval)),
    )
    return found


def next_bracket(found: Tensor, bracket: Tensor) -> Tensor:
    """Where to look the next time, from the lower value that was found.

    About where the value is if it goes on as it has moved; four times as far to both
    sides as that was wrong this time, or half as far as the last time.

    Args:
        found: float32 scalar.
        bracket: float32 tensor `(3,)` in which it was expected.

    Returns:
        A float32 tensor `(3,)`.
    """
    bits, guess = magnitude_bits(found), magnitude_bits(bracket)
    centre, width = _centre_and_width(guess)
    is_known = width > 0
    missed = ops.minimum(ops.abs(bits - centre), _WIDEST // 4)
    width = ops.where(is_known, ops.maximum(4 * missed, width // 2), _FIRST)
    width = ops.clip(width, _NARROWEST, _WIDEST)
    moved = ops.where(is_known, ops.clip(bits - guess[2], -_WIDEST, _WIDEST), 0)
    centre = ops.clip(bits + moved, _WIDEST, INT32_MAX - _WIDEST)
    return from_bits(ops.stack([centre - width, centre + width, bits]))


def _centre_and_width(guess: Tensor) -> tuple[Tensor, Tensor]:
    """Middle of a bracket's bits and half its width, 0 unless it is a bracket."""
    width = guess[1] // 2 - guess[0] // 2
    return guess[0] + width, ops.maximum(width, 0)


class _Interval(NamedTuple):
    """What is known of the two ranks.

    Attributes:
        lo, hi: the bits of both are in `[lo, hi]`.
        split: bits that are above the lower and not above the upper; else 0.
    """

    lo: Tensor
    hi: Tensor
    split: Tensor

    @property
    def is_open(self) -> Tensor:
        """Whether there is more to find out."""
        return ops.logical_and(self.lo < self.hi, self.split == 0)


class Part(NamedTuple):
    """The values that are left to search, and what of them.

    Attributes:
        bits: `(groups, 128)`; what is outside of the interval ranks last.
        lo, hi, split: the interval, as in `_Interval`.
        lower, upper: the ranks among `bits`.
        is_small: whether all that is inside found room in `bits`.
    """

    bits: Tensor
    lo: Tensor
    hi: Tensor
    split: Tensor
    lower: Tensor
    upper: Tensor
    is_small: Tensor

    @property
    def interval(self) -> _Interval:
        """The interval in which both ranks are."""
        return _Interval(self.lo, self.hi, self.split)

    def rows(self) -> Tensor:
        """The bits."""
        return self.bits


class _Rows:
    """Values as rows of bits, made anew in every call.

    So XLA may make the bits within each pass, and no copy of them is kept.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self) -> Tensor:
        bits = magnitude_bits(self.values)
        if bits.shape[0] % _GROUP:
            missing = -bits.shape[0] % _GROUP
            bits = ops.pad(bits, (0, missing), constant_values=INT32_MAX)
        return ops.reshape(bits, (-1, _GROUP))


def _search(
    rows: Callable[[], Tensor],
    lower: Tensor,
    upper: Tensor,
    interval: _Interval,
    pivots: Tensor,
) -> tuple[Tensor, Tensor]:
    """The values of both ranks among `rows()`, by passes over all of them."""

    def is_open(lo: Tensor, hi: Tensor, split: Tensor, pivots: Tensor) -> Tensor:
        return _Interval(lo, hi, split).is_open

    def narrow(lo: Tensor, hi: Tensor, split: Tensor, pivots: Tensor) -> Any:
        totals = _totals(_count_below(rows(), pivots))
        narrower = _narrowed(_Interval(lo, hi, split), pivots, totals, lower, upper)
        return *narrower, _even_pivots(narrower)

    lo, _, split, _ = ops.while_loop(is_open, narrow, (*interval, pivots))
    bits = rows()
    below = ops.max(ops.where(bits < split, bits, 0))
    above = ops.min(ops.where(bits < split, INT32_MAX, bits))
    # Without a split the interval is one value.
    found = ops.where(split > 0, below, lo), ops.where(split > 0, above, lo)
    return from_bits(found[0]), from_bits(found[1])


def first_pass(values: Tensor, lower: Tensor, upper: Tensor, bracket: Tensor) -> Part:
    """One pass over at least `LARGE` values, and what is left to search."""
    n = values.shape[0]
    interval = _unknown_interval()
    pivots = _pivots(interval, magnitude_bits(bracket))
    # Not in a loop: XLA would copy the values before it.
    packed = _count_below(_Rows(values)(), pivots)
    interval = _narrowed(interval, pivots, _totals(packed), lower, upper)
    below, upto = 0, _GROUP
    for i in range(_PIVOTS):
        below = ops.where(pivots[i] == interval.lo, _count(packed, i), below)
        upto = ops.where(pivots[i] == interval.hi + 1, _count(packed, i), upto)
    reaches_in = upto > below
    # Where each group that reaches in is written; all others to one place more.
    order = ops.cumsum(ops.cast(reaches_in, "int32")) - 1
    is_written = ops.logical_and(reaches_in, order < _MOST_GROUPS)
    slots = ops.where(is_written, order, _MOST_GROUPS)[:, None]
    groups = packed.shape[0]
    numbers = ops.arange(groups, dtype="int32") - groups
    chosen = groups + ops.scatter(slots, numbers, (_MOST_GROUPS + 1,))[:-1]
    places = chosen[:, None] * _GROUP + np.arange(_GROUP, dtype="int32")
    bits = magnitude_bits(ops.take(values, ops.minimum(places, n - 1)))
    is_inside = ops.logical_and(bits >= interval.lo, bits <= interval.hi)
    bits = ops.where(ops.logical_and(is_inside, places < n), bits, INT32_MAX)
    before = ops.sum(below)
    return Part(
        bits,
        *interval,
        lower - before,
        upper - before,
        order[-1] < _MOST_GROUPS,
    )


def search_part(part: Part) -> tuple[Tensor, Tensor]:
    """`search` in what `first_pass` has left, if that is small."""
    pivots = _even_pivots(part.interval)
    return _search(part.rows, part.lower, part.upper, part.interval, pivots)


def _unknown_interval() -> _Interval:
    return _Interval(_int(0), _int(INT32_MAX), _int(0))


def _pivots(interval: _Interval, guess: Tensor) -> Tensor:
    """The ends of a bracket and of its inner quarter, if it is one: `(4,)`."""
    centre, width = _centre_and_width(guess)
    around = centre + width // 4 * np.array([-4, -1, 1, 4], "int32")
    return ops.where(width > 0, ops.clip(around, 1, INT32_MAX), _even_pivots(interval))


def _even_pivots(interval: _Interval) -> Tensor:
    """Four bit patterns in `(lo, hi]`, in rising order: `(4,)` int32."""
    step = (interval.hi - interval.lo) // (_PIVOTS + 1)
    pivots = interval.lo + 1 + step * np.arange(1, _PIVOTS + 1, dtype="int32")
    return ops.minimum(pivots, interval.hi)


def _count_below(rows: Tensor, pivots: Tensor) -> Tensor:
    """How many of each row are below each pivot, four counts in one integer."""
    rows = ops.reshape(rows, (-1, _STRANDS, _GROUP // _STRANDS))
    packed = 0
    for i in range(_PIVOTS):
        one = np.array(1 << (_BITS * i), "int64").astype("int32")
        packed = packed + ops.where(rows < pivots[i], one, 0)
    # In two steps: XLA fuses the first one with the comparisons, and would write the
    # packed ones of a sum along the last axis before it sums them.
    return ops.sum(ops.sum(packed, axis=1), axis=1)


def _count(packed: Tensor, i: int) -> Tensor:
    shifted = ops.right_shift(packed, _BITS * i)
    return ops.bitwise_and(shifted, (1 << _BITS) - 1)


def _totals(packed: Tensor) -> Tensor:
    shifts = _BITS * np.arange(_PIVOTS, dtype="int32")
    shifted = ops.right_shift(packed[:, None], shifts)
    return ops.sum(ops.bitwise_and(shifted, (1 << _BITS) - 1), axis=0)


def _narrowed(
    interval: _Interval, pivots: Tensor, totals: Tensor, lower: Tensor, upper: Tensor
) -> _Interval:
    """What the numbers of values below the pivots tell."""
    lo, hi, split = interval
    for i in range(_PIVOTS):
        pivot, total = pivots[i], totals[i]
        lo = ops.where(total <= lower, ops.maximum(lo, pivot), lo)
        hi = ops.where(total > upper, ops.minimum(hi, pivot - 1), hi)
        is_between = ops.logical_and(total > lower, total <= upper)
        split = ops.where(is_between, pivot, split)
    return _Interval(lo, hi, split)


def _int(value: int) -> Tensor:
    return ops.full((), value, "int32")
