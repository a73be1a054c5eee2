"""What happens to labels where values move or meet: the algebra behind the rules.

The rules of merging and reshaping layers and of the operations of `keras.ops` are
made of these functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdp_keras.channels.labels import (
    FIXED,
    LabelledTensor,
    Labels,
    Shape,
    expand,
    squash,
)
from pdp_keras.channels.rules.base import ChannelCall

# Stands in for an unknown dimension where a number is needed. What varies along such
# a dimension afterwards was mixed up with it.
_STAND_IN = 3


def elementwise(call: ChannelCall, operands: Sequence[LabelledTensor]) -> Labels:
    """Joins what meets at the same place; the labels of the result.

    An operand with one place where another has several channels acts on all of them:
    it is fixed, and not joined.
    """
    rank = max(x.rank for x in operands)
    tensors = [_with_rank(x, rank) for x in operands]
    while True:
        tensors = [call.atoms.refresh(x) for x in tensors]
        varying = sorted({axis for x in tensors for axis in x.varying})
        if not _settle(call, tensors, varying):
            break
    joined = [x for x in tensors if not (_is_fixed(x) and _is_one(x, varying))]
    if not joined:
        return np.zeros((1,) * rank, np.int64)
    result = joined[0].labels
    for x in joined[1:]:
        call.atoms.join(result, x.labels)
        result = np.broadcast_arrays(result, x.labels)[0]
    return squash(call.atoms.canonical(result))


def _settle(
    call: ChannelCall, tensors: list[LabelledTensor], varying: list[int]
) -> bool:
    """Takes one step towards operands that can be joined; False if there is none."""
    for x in tensors:
        for axis in varying:
            if axis in x.varying:
                continue
            if not _is_one(x, [axis]):
                # It cannot go along this axis; so nothing else can that it meets.
                if _is_fixed(x) or len(varying) > 1:
                    for other in tensors:
                        if axis in other.varying:
                            call.constant_along(
                                other,
                                axis,
                                reason="{layer} combines them with others that "
                                "cannot be removed",
                            )
                            return True
            elif not _is_fixed(x):
                wide = [y for y in tensors if len(y.varying) > 1 and axis in y.varying]
                if x.varying and wide:
                    call.constant_along(wide[0], axis)
                else:
                    call.fix(x, "{layer} applies them to several channels")
                return True
    return False


def _is_one(x: LabelledTensor, axes: Sequence[int]) -> bool:
    return all(x.shape[axis] == 1 for axis in axes)


def _is_fixed(x: LabelledTensor) -> bool:
    return bool((x.labels == FIXED).all())


def _with_rank(x: LabelledTensor, rank: int) -> LabelledTensor:
    missing = (1,) * (rank - x.rank)
    return LabelledTensor(
        x.labels.reshape(missing + x.labels.shape), missing + tuple(x.shape)
    )


def reshape(call: ChannelCall, x: LabelledTensor, target: Shape) -> Labels | None:
    """The labels of a tensor with another shape; None where that cannot be told."""
    x = call.atoms.refresh(x)
    if not x.varying and _is_fixed(x):
        return np.zeros((1,) * len(target), np.int64)
    source = [_STAND_IN if size is None else size for size in x.shape]
    sizes = [_STAND_IN if size is None else size for size in target]
    total = math.prod(source)
    unknown = [axis for axis, size in enumerate(target) if size is None]
    if len(unknown) == 1:
        rest = math.prod(sizes) // _STAND_IN
        sizes[unknown[0]] = total // rest if rest else 0
    if math.prod(sizes) != total:
        return None
    labels = squash(np.broadcast_to(x.labels, source).reshape(sizes))
    if any(labels.shape[axis] > 1 for axis in unknown):
        return None
    return labels


def concatenate(
    call: ChannelCall, operands: Sequence[LabelledTensor], axis: int
) -> Labels:
    """The labels of tensors that are laid side by side along an axis."""
    tensors = [call.atoms.refresh(x) for x in operands]
    axis %= tensors[0].rank
    others = {a for x in tensors for a in x.varying if a != axis}
    if others or any(x.shape[axis] is None for x in tensors):
        # A channel that lies along another axis reaches through all of them.
        parts = [call.constant_along(x, axis).labels for x in tensors]
        call.atoms.join(*parts)
        return squash(call.atoms.canonical(np.broadcast_arrays(*parts)[0]))
    return np.concatenate(
        [expand(x.labels, axis, x.shape[axis]) for x in tensors], axis
    )


def reduce(call: ChannelCall, x: LabelledTensor, axis: Any, keepdims: bool) -> Labels:
    """The labels after a sum, mean or the like over some axes, or all of them."""
    if axis is None:
        axis = range(x.rank)
    axes = [a % x.rank for a in ([axis] if isinstance(axis, int) else axis)]
    x = call.constant_along(x, *axes)
    return x.labels if keepdims else x.labels.squeeze(tuple(axes))


def index(call: ChannelCall, x: LabelledTensor, key: Any) -> Labels | None:
    """The labels of `x[key]`; None if the key is neither integers nor slices."""
    x = call.atoms.refresh(x)
    items = full_key(key, x.rank)
    if items is None:
        return None
    axis = 0
    applied: list[Any] = []
    for item in items:
        if item is None:
            applied.append(None)
            continue
        if isinstance(item, slice) and axis in x.varying:
            _join_blocks(call, x, axis, item)
        if axis not in x.varying:
            item = slice(None) if isinstance(item, slice) else 0
        applied.append(item)
        axis += 1
    labels: Labels = call.atoms.canonical(x.labels)[tuple(applied)]
    return labels


def full_key(key: Any, rank: int) -> list[Any] | None:
    """An item for each axis, and None for new ones; None for another kind of key."""
    items = list(key) if isinstance(key, tuple | list) else [key]
    if not all(
        item is None or item is Ellipsis or isinstance(item, slice | int)
        for item in items
    ):
        return None
    parts = [
        part
        for s in items
        if isinstance(s, slice)
        for part in (s.start, s.stop, s.step)
    ]
    if not all(part is None or isinstance(part, int) for part in parts):
        return None
    missing = rank - sum(item is not None and item is not Ellipsis for item in items)
    rest: list[Any] = [slice(None)] * missing
    if Ellipsis not in items:
        return items + rest
    where = items.index(Ellipsis)
    return items[:where] + rest + items[where + 1 :]


def _join_blocks(call: ChannelCall, x: LabelledTensor, axis: int, item: slice) -> None:
    """Keeps the steps of a slice regular: what lies between two steps is one unit."""
    size = x.labels.shape[axis]
    step = item.step or 1
    if step == 1 or item == slice(None, None, -1):
        return
    if step < 0:
        call.fix(x, "{layer} takes them in steps backwards")
        return
    lines = np.moveaxis(x.labels, axis, 0)
    call.atoms.join(lines, lines[np.arange(size) // step * step])


def new_key(key: Any, masks: Sequence[Any]) -> tuple[Any, ...]:
    """The key that finds in the smaller tensor what is left of `x[key]`."""
    items = full_key(key, len(masks))
    assert items is not None
    axis = 0
    result: list[Any] = []
    for item in items:
        if item is None:
            result.append(None)
            continue
        mask = masks[axis]
        axis += 1
        result.append(item if mask is None else _new_item(item, mask))
    return tuple(result)


def _new_item(item: Any, mask: np.ndarray) -> Any:
    before = np.cumsum(mask) - mask
    if isinstance(item, int):
        return int(before[item])
    if item == slice(None, None, -1) or item == slice(None):
        return item
    chosen = np.arange(len(mask))[item]
    places = before[chosen[mask[chosen]]]
    return slice(int(places[0]), int(places[-1]) + 1, item.step)
