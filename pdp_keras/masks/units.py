"""Masked weights whose backward pass notes how large the gradient of each unit is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from pdp_keras.masks.custom_gradient import masked_noting

Tensor = Any


def sum_by_unit(values: Tensor, unit_of: np.ndarray, units: int) -> Tensor:
    """The sum of the values at the places of each unit, `(units,)`.

    Args:
        values: a float tensor, one value for each place.
        unit_of: for every place its unit, -1 for none.
        units: how many there are.
    """
    if np.array_equal(unit_of, np.arange(units)):
        return values
    (places,) = np.nonzero(unit_of >= 0)
    return ops.segment_sum(
        ops.take(values, places),
        unit_of[places].astype("int32"),
        num_segments=units,
    )


def masked_noting_norms(
    weights: Tensor,
    mask: Tensor,
    axis: int,
    notes: Sequence[tuple[Any, np.ndarray]],
) -> Tensor:
    """`weights * mask`, with the gradient `mask` for the weights and none for the mask.

    Args:
        weights: float tensor.
        mask: of its type, to be broadcast; 0 or 1.
        axis: the axis of the weights along which channels lie.
        notes: float32 variables of one number for each unit, and the unit of every
            place along the axis. The gradient of such a number is the sum of
            `upstream**2` over all weights at the unit's places, masked or not: the
            squared norm of the gradient of what the layer computes with.
    """
    others = [i for i in range(len(weights.shape)) if i != axis]
    kinds = [(unit_of, int(variable.shape[0])) for variable, unit_of in notes]

    def note(upstream: Tensor, *_: Tensor) -> list[Tensor]:
        squares = ops.sum(ops.square(ops.cast(upstream, "float32")), axis=others)
        return [sum_by_unit(squares, unit_of, units) for unit_of, units in kinds]

    variables = [ops.convert_to_tensor(variable) for variable, _ in notes]
    return masked_noting(weights, mask, note, *variables)
