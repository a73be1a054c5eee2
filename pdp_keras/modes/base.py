"""What every mode answers: the granularity of a mask, as one interface.

A mode says what is pruned together in a kernel, finds the threshold for a number of
zeros, and marks what is cut in the end. Scores and thresholds broadcast against the
weights, so that one soft mask serves every mode.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

from pdp_keras import allocation
from pdp_keras.masks import temperatures
from pdp_keras.models import KernelAxes

Tensor = Any
# The square root of the temperature for a threshold, of the threshold's shape.
Width = Callable[[Tensor], Tensor]


class Mode(abc.ABC):
    """Base class: a small immutable object without state of its own.

    Kernels come as float32 tensors with the meaning of their axes; `zeros` is an
    integer scalar tensor: how many units are pruned now.
    """

    name: str
    # The sparsity that a user gets who gives none.
    default_sparsity: float
    # How soft the mask is where the user says nothing.
    default_temperature: temperatures.Temperature = temperatures.DEFAULT
    # Whether the user may share the sparsity out among layers.
    is_allocated = True
    # Whether a unit is all that makes an output, so that its bias goes with it.
    prunes_outputs = False
    # Whether finding the threshold is faster with a bracket from the last step; then
    # there are `tracked_threshold`, `soft_masked_at` and `tracked_hard_masked`, and
    # `hard_masked` takes a bracket too.
    keeps_bracket = False
    # Whether equal kernels can be masked at once, as rows of one tensor; then there are
    # `soft_masked_rows` and `hard_masked_rows`.
    has_rows = False

    def reason_against(self, shape: tuple[int, ...], axes: KernelAxes) -> str | None:
        """Why a kernel cannot be pruned in this mode; None if it can."""
        del shape, axes
        return None

    def resolve_sparsity(self, sparsity: Any) -> float:
        """The sparsity to aim at, from what the user gave (None: nothing).

        Raises:
            ValueError: unless it is in [0, 1) and fits the mode.
        """
        if sparsity is None:
            return self.default_sparsity
        return allocation.check_sparsity(sparsity)

    def require_allocated(self, allocation: Any) -> None:
        """Refuses an allocation where the mode leaves nothing to share out.

        Raises:
            ValueError: if the mode fixes the sparsity of every kernel.
        """
        if not self.is_allocated:
            raise ValueError(
                f"{self} decides the sparsity of every kernel itself; leave "
                f"`allocation` out. Received: allocation={allocation!r}"
            )

    def resolve_temperature(self, temperature: Any) -> temperatures.Temperature:
        """The temperature from what the user gave (None: nothing)."""
        given = self.default_temperature if temperature is None else temperature
        return temperatures.get(given)

    @abc.abstractmethod
    def units(self, shape: tuple[int, ...], axes: KernelAxes) -> int:
        """How many things a kernel has of which some can be pruned."""

    def count_zeros(
        self, sparsity: float, shape: tuple[int, ...], axes: KernelAxes
    ) -> int:
        """How many units of a kernel a sparsity prunes."""
        return allocation.count_zeros(sparsity, self.units(shape, axes))

    def limit_zeros(self, zeros: int, units: int) -> int:
        """What the mode makes of the zeros that an allocation wants."""
        del units
        return zeros

    def ranked(self, weights: Tensor, axes: KernelAxes) -> Tensor:
        """What an allocation ranks: one number for each unit, comparable."""
        del axes
        return weights

    @abc.abstractmethod
    def threshold(self, weights: Tensor, zeros: Tensor, axes: KernelAxes) -> Tensor:
        """The threshold below which `zeros` units fall, in units of |w|."""

    @abc.abstractmethod
    def soft_masked(
        self,
        weights: Tensor,
        zeros: Tensor,
        axes: KernelAxes,
        width: Width,
        max_gain: float = math.inf,
    ) -> Tensor:
        """The weights times their soft mask, with PDP's gradient up to `max_gain`."""

    @abc.abstractmethod
    def hard_masked(self, weights: Tensor, zeros: Tensor, axes: KernelAxes) -> Tensor:
        """The weights with exactly `zeros` units (ties by position) set to 0."""

    def output_mask(
        self, weights: Tensor, zeros: Tensor, axes: KernelAxes, width: Width | None
    ) -> Tensor:
        """The mask of whole outputs, where the mode prunes such; hard without width."""
        raise NotImplementedError
