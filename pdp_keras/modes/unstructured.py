"""`Unstructured`: every weight for itself."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from keras import ops

from pdp_keras.masks import (
    midpoint_threshold,
    row_thresholds,
    smallest,
    smallest_of_rows,
    soft_masked,
    tracked_cut,
    tracked_threshold,
)
from pdp_keras.models import KernelAxes
from pdp_keras.modes.base import Mode, Width

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Unstructured(Mode):
    """Every weight stands for itself; its score is |w|.

    Example:

    >>> pdp_keras.prune_model(model, sparsity=0.9, mode=Unstructured())
    """

    name = "unstructured"
    default_sparsity = 0.8
    keeps_bracket = True
    has_rows = True

    def units(self, shape: tuple[int, ...], axes: KernelAxes) -> int:
        """The number of weights."""
        del axes
        return math.prod(shape)

    def threshold(self, weights: Tensor, zeros: Tensor, axes: KernelAxes) -> Tensor:
        """One float32 scalar for the whole kernel."""
        del axes
        return midpoint_threshold(ops.stop_gradient(weights), zeros)

    def tracked_threshold(
        self, weights: Tensor, zeros: Tensor, axes: KernelAxes, bracket: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`threshold`, looking in the bracket first, and the bracket of the next."""
        del axes
        return tracked_threshold(ops.stop_gradient(weights), zeros, bracket)

    def soft_masked_at(
        self,
        weights: Tensor,
        threshold: Tensor,
        axes: KernelAxes,
        width: Width,
        max_gain: float = math.inf,
    ) -> Tensor:
        """`soft_masked` with a threshold that is known."""
        del axes
        return soft_masked(weights, threshold, width(threshold), max_gain)

    def soft_masked(
        self,
        weights: Tensor,
        zeros: Tensor,
        axes: KernelAxes,
        width: Width,
        max_gain: float = math.inf,
    ) -> Tensor:
        """The weights times their soft mask, with PDP's gradient up to `max_gain`."""
        threshold = self.threshold(weights, zeros, axes)
        return self.soft_masked_at(weights, threshold, axes, width, max_gain)

    def hard_masked(
        self,
        weights: Tensor,
        zeros: Tensor,
        axes: KernelAxes,
        bracket: Tensor | None = None,
    ) -> Tensor:
        """The weights with exactly `zeros` of them (ties by position) set to 0."""
        del axes
        single = ops.cast(ops.stop_gradient(weights), "float32")
        pruned = smallest(single, zeros, bracket)
        return ops.where(pruned, ops.zeros_like(weights), weights)

    def tracked_hard_masked(
        self, weights: Tensor, zeros: Tensor, axes: KernelAxes, bracket: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`hard_masked`, looking in the bracket first, and the bracket of the next."""
        del axes
        return tracked_cut(weights, zeros, bracket)

    def soft_masked_rows(
        self, rows: Tensor, zeros: Tensor, width: Width, max_gain: float = math.inf
    ) -> Tensor:
        """`soft_masked` of each row; zeros and width are one for each."""
        threshold = row_thresholds(ops.stop_gradient(rows), zeros)
        return soft_masked(rows, threshold, width(threshold), max_gain)

    def hard_masked_rows(self, rows: Tensor, zeros: Tensor) -> Tensor:
        """`hard_masked` of each row."""
        pruned = smallest_of_rows(ops.stop_gradient(rows), zeros)
        return ops.where(pruned, ops.zeros_like(rows), rows)
