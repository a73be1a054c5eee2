"""A kernel with its axes in another order, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

Tensor = Any


class AxisOrder:
    """Puts the axes of a kernel in an order.

    Args:
        shape: of the kernel.
        order: its axes, as they are to come.
    """

    def __init__(self, shape: tuple[int, ...], order: Sequence[int]) -> None:
        self.order = tuple(order)
        self.moved = [shape[axis] for axis in order]
        self.is_moved = list(order) != sorted(order)

    def split(self, kernel: Tensor, flat: tuple[int, ...]) -> Tensor:
        """The kernel in that order, in a shape that joins neighbouring axes."""
        if self.is_moved:
            kernel = ops.transpose(kernel, self.order)
        return ops.reshape(kernel, flat)

    def join(self, flat: Tensor) -> Tensor:
        """The inverse of `split`."""
        moved = ops.reshape(flat, self.moved)
        if self.is_moved:
            return ops.transpose(moved, np.argsort(self.order).tolist())
        return moved
