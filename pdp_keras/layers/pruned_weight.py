"""`PrunedWeight`: one kernel with the state of its mask."""

from __future__ import annotations

import copy
import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops

from pdp_keras import allocation as allocations
from pdp_keras.layers.settings import MaskSettings, WithSettings
from pdp_keras.layers.stacks import is_masked_with_others, masked_with_others
from pdp_keras.masks import may_update, read, read_integer, soft_mask
from pdp_keras.models import Kernel
from pdp_keras.modes import Mode

Tensor = Any

# A target that a global allocation has not decided yet.
UNSET = -1


def describe(kernel: Kernel, mode: Mode) -> allocations.WeightInfo:
    """What an allocation may know of a kernel."""
    shape, axes = kernel.shape, kernel.axes
    weights = ops.cast(kernel.variable.value, "float32")
    return allocations.WeightInfo(
        name=kernel.full_name,
        layer=kernel.path,
        values=read(mode.ranked(weights, axes)),
        fan_in=math.prod(shape[axis] for axis in axes.inputs),
        fan_out=math.prod(shape[axis] for axis in axes.outputs),
        spatial=tuple(
            size
            for axis, size in enumerate(shape)
            if axis not in (*axes.inputs, *axes.outputs)
        ),
    )


class Counted(WithSettings):
    """What has a number of units to prune, a target for it, and a temperature.

    Attributes:
        settings: its mode, method, temperature and allocation.
        units: how many things can be pruned.
        zeros: integer variable: how many are pruned now.
        target_zeros: integer variable: how many are in the end, or `UNSET`.
        temperature_scale: float variable: what the temperature has fallen to.
    """

    # What several of them are called.
    kind: ClassVar[str] = "weights"

    units: Any
    zeros: Any
    target_zeros: Any
    temperature_scale: Any

    @property
    def is_allocated(self) -> bool:
        """Whether the mode lets an allocation decide."""
        return bool(self.mode.is_allocated)

    @property
    def target_sparsity(self) -> float | None:
        """Fraction of units to prune; None until an allocation decides."""
        zeros = read_integer(self.target_zeros)
        return None if zeros == UNSET else zeros / max(1, self.units)

    @property
    def is_below_target(self) -> bool:
        """Whether fewer units are pruned than will be, or that is not decided."""
        target = read_integer(self.target_zeros)
        return target == UNSET or read_integer(self.zeros) < target

    def width(self, threshold: Tensor) -> Tensor:
        """The square root of the current temperature, in units of the threshold."""
        scale = ops.cast(self.temperature_scale.value, "float32")
        return self.temperature.width(threshold) * ops.sqrt(scale)


class PrunedWeight(Counted):
    """One kernel inside a `PDPWrapper` with its state.

    Attributes:
        kernel: which variable of which layer.
        settings: those of its wrapper.
        zeros: integer variable: how many weights the mask prunes now.
        target_zeros: integer variable: how many it prunes at the end; -1 until a
            global allocation has decided.
        temperature_scale: float variable: what the temperature has fallen to, as a
            fraction of its own value. All kernels of a wrapper share it.
        bracket: float variable `(3,)`: where the threshold of the next step is looked
            for first; None if the mode has no use for it.
        extras: the variables that the method keeps beside the kernel, by name.
    """

    def __init__(
        self,
        kernel: Kernel,
        settings: MaskSettings,
        zeros: Any,
        target_zeros: Any,
        temperature_scale: Any,
        bracket: Any = None,
        extras: dict[str, Any] | None = None,
    ) -> None:
        self.kernel = kernel
        self.settings = settings
        self.zeros = zeros
        self.target_zeros = target_zeros
        self.temperature_scale = temperature_scale
        self.bracket = bracket
        self.extras = extras or {}

    def require_in_place(self) -> None:
        """Checks that its layer still computes with this variable.

        Raises:
            ValueError: if something (LoRA, quantization) has replaced it.
        """
        owner, name = self.kernel.owner, self.kernel.name
        try:
            found = operator.attrgetter(name)(owner)
        except AttributeError:
            found = None
        if found is not self.variable:
            raise ValueError(
                "A pruned layer must compute with the kernel that is pruned; LoRA and "
                "quantization replace it: strip the model first. "
                f"Received: {self.kernel.full_name!r}, which is no longer the kernel "
                "of its layer"
            )

    def limit_zeros(self, zeros: int) -> int:
        """What the mode makes of the zeros that an allocation wants."""
        return self.mode.limit_zeros(zeros, self.units)

    def describe(self) -> allocations.WeightInfo:
        """What an allocation may know."""
        return describe(self.kernel, self.mode)

    def values(self) -> list[tuple[str, np.ndarray]]:
        """The weights by name."""
        return [(self.kernel.full_name, read(self.variable).astype("float32"))]

    def placed_at(self, path: str) -> PrunedWeight:
        """The same weight, named by its path in a whole model."""
        placed = copy.copy(self)
        placed.kernel = dataclasses.replace(self.kernel, path=path)
        return placed

    @property
    def layer(self) -> str:
        """Path of the layer that owns the kernel."""
        return self.kernel.path

    @property
    def name(self) -> str:
        """Name of the kernel in that layer."""
        return self.kernel.name

    @property
    def variable(self) -> Any:
        """The Keras variable with the unmasked weights."""
        return self.kernel.variable

    @property
    def units(self) -> int:
        """How many things the mode can prune in this kernel."""
        return self.mode.units(self.kernel.shape, self.kernel.axes)

    def numpy_threshold(self) -> np.ndarray:
        """The current thresholds t, in units of |w|; 0 where nothing is pruned.

        One number (shape `()`), or as many as the mode has thresholds.
        """
        weights = ops.cast(self.variable.value, "float32")
        axes = self.kernel.axes
        return read(self.mode.threshold(weights, self.zeros.value, axes))

    def soft_mask(self, weights: np.ndarray, threshold: float) -> np.ndarray:
        """m(w) at a threshold for any NumPy array of weights."""
        threshold = ops.full((), threshold, dtype="float32")
        scores = ops.abs(ops.convert_to_tensor(weights, dtype="float32"))
        return read(soft_mask(scores, threshold, self.width(threshold)))

    def masked_values(self, training: bool) -> list[tuple[Any, Tensor]]:
        """Variables with what the layer computes with: soft or hard masked.

        The kernel, and the bias of its layer where the mode prunes whole outputs.
        """
        mode, axes = self.mode, self.kernel.axes
        weights = self.kernel.variable.value
        zeros = self.zeros.value
        masked = self.method.masked(self) if training else self.method.hard_masked(self)
        values = [(self.kernel.variable, ops.cast(masked, weights.dtype))]
        bias = self._bias_of_outputs()
        if bias is not None:
            single = ops.cast(weights, "float32")
            is_soft = training and self.method.is_soft
            mask = mode.output_mask(
                single, zeros, axes, self.width if is_soft else None
            )
            mask = ops.cast(ops.reshape(mask, bias.shape), bias.dtype)
            values.append((bias, bias.value * mask))
        return values

    def hard_masked(self) -> Tensor:
        """The weights as inference sees them and as stripping leaves them."""
        return self.masked_values(training=False)[0][1]

    def soft_masking(self) -> Callable[[Tensor], Tensor]:
        """What masks float32 weights as training sees them; finds the threshold now.

        The function reads no variable any more, so that it may be called later.
        """
        together = masked_with_others(self, "soft", _soft_masked_rows)
        if together is not None:
            return lambda _: together
        weights = ops.cast(self.kernel.variable.value, "float32")
        zeros, axes = ops.convert_to_tensor(self.zeros), self.kernel.axes
        scale = ops.sqrt(ops.convert_to_tensor(self.temperature_scale, "float32"))
        gain = self._max_gain

        def width(threshold: Tensor) -> Tensor:
            return self.temperature.width(threshold) * scale

        if self.bracket is None:
            known = zeros, axes, width, gain
            return lambda weights: self.mode.soft_masked(weights, *known)
        threshold, bracket = self.mode.tracked_threshold(
            weights, zeros, axes, self.bracket.value
        )
        self.bracket.assign(bracket)
        return lambda weights: self.mode.soft_masked_at(
            weights, threshold, axes, width, gain
        )

    def track_threshold(self) -> None:
        """Notes where the threshold is, so that the next cut finds it sooner."""
        if self.bracket is not None and not is_masked_with_others(self):
            weights = ops.cast(self.kernel.variable.value, "float32")
            zeros, axes = ops.convert_to_tensor(self.zeros), self.kernel.axes
            known = weights, zeros, axes, self.bracket.value
            _, bracket = self.mode.tracked_threshold(*known)
            self.bracket.assign(bracket)

    def cut_smallest(self, training: bool = True) -> Tensor:
        """The weights with exactly the `zeros` smallest (by the mode) set to 0.

        In training they have moved since the last step. At inference they are mostly
        those of the last call, and it is worth noting where that cut them.
        """
        together = masked_with_others(self, "hard", _hard_masked_rows)
        weights, zeros = self.variable.value, self.zeros.value
        if together is not None:
            return ops.cast(together, weights.dtype)
        if self.bracket is None:
            return self.mode.hard_masked(weights, zeros, self.kernel.axes)
        bracket = self.bracket.value
        if training:
            return self.mode.hard_masked(weights, zeros, self.kernel.axes, bracket)
        single = ops.cast(weights, "float32")
        known = single, zeros, self.kernel.axes, bracket
        cut, bracket = self.mode.tracked_hard_masked(*known)
        if may_update():
            self.bracket.assign(bracket)
        return ops.cast(cut, weights.dtype)

    @property
    def _max_gain(self) -> float:
        return math.inf if self.method.max_gain is None else self.method.max_gain

    def _bias_of_outputs(self) -> Any:
        if not self.mode.prunes_outputs:
            return None
        bias = getattr(self.kernel.owner, "bias", None)
        outputs = math.prod(
            self.kernel.shape[axis] for axis in self.kernel.axes.outputs
        )
        if bias is None or math.prod(bias.shape) != outputs:
            return None
        return bias


def _soft_masked_rows(
    weights: Sequence[PrunedWeight], rows: Tensor, zeros: Tensor
) -> Tensor:
    first = weights[0]
    scales = [ops.cast(w.temperature_scale.value, "float32") for w in weights]
    scale = ops.sqrt(ops.expand_dims(ops.stack(scales), 1))

    def width(threshold: Tensor) -> Tensor:
        return first.temperature.width(threshold) * scale

    masked: Tensor = first.mode.soft_masked_rows(rows, zeros, width, first._max_gain)
    return masked


def _hard_masked_rows(
    weights: Sequence[PrunedWeight], rows: Tensor, zeros: Tensor
) -> Tensor:
    masked: Tensor = weights[0].mode.hard_masked_rows(rows, zeros)
    return masked
