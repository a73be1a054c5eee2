"""`PrunedWeight`: one kernel with the state of its mask."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from pdp_keras import functional, modes, temperatures
from pdp_keras.kernels import Kernel

Tensor = Any

# A target that a global allocation has not decided yet.
UNSET = -1


def read(value: Any) -> np.ndarray:
    """A variable or tensor of any backend as a NumPy array."""
    return np.asarray(ops.convert_to_numpy(value))


def read_integer(value: Any) -> int:
    """A scalar counter as a Python int."""
    return int(read(value))


class PrunedWeight:
    """One kernel inside a `PDPWrapper` with its state.

    Attributes:
        kernel: which variable of which layer.
        zeros: integer variable: how many weights the mask prunes now.
        target_zeros: integer variable: how many it prunes at the end; -1 until a
            global allocation has decided.
        temperature_scale: float variable: what the temperature has fallen to, as a
            fraction of its own value. All kernels of a wrapper share it.
    """

    def __init__(
        self,
        kernel: Kernel,
        mode: modes.Mode,
        temperature: temperatures.Temperature,
        zeros: Any,
        target_zeros: Any,
        temperature_scale: Any,
    ) -> None:
        self.kernel = kernel
        self.mode = mode
        self.temperature = temperature
        self.zeros = zeros
        self.target_zeros = target_zeros
        self.temperature_scale = temperature_scale

    def placed_at(self, path: str) -> PrunedWeight:
        """The same weight, named by its path in a whole model."""
        kernel = dataclasses.replace(self.kernel, path=path)
        return PrunedWeight(
            kernel,
            self.mode,
            self.temperature,
            self.zeros,
            self.target_zeros,
            self.temperature_scale,
        )

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
        return self.mode.units(self.kernel.shape)

    @property
    def target_sparsity(self) -> float | None:
        """Fraction of zeros at the end; None until a global allocation decides."""
        zeros = read_integer(self.target_zeros)
        return None if zeros == UNSET else zeros / max(1, self.units)

    def width(self, threshold: Tensor) -> Tensor:
        """The square root of the current temperature, in units of |w|."""
        scale = ops.cast(self.temperature_scale.value, "float32")
        return self.temperature.width(threshold) * ops.sqrt(scale)

    def numpy_threshold(self) -> float:
        """The current threshold t, in units of |w|; 0 where nothing is pruned."""
        weights = ops.cast(self.variable.value, "float32")
        return float(read(self.mode.threshold(weights, self.zeros.value)))

    def soft_mask(self, weights: np.ndarray) -> np.ndarray:
        """m(w) at the current threshold for any NumPy array of weights."""
        threshold = ops.full((), self.numpy_threshold(), dtype="float32")
        scores = ops.abs(ops.convert_to_tensor(weights, dtype="float32"))
        return read(functional.soft_mask(scores, threshold, self.width(threshold)))

    def soft_masked(self) -> Tensor:
        """The weights as training sees them, in the variable's dtype."""
        weights = self.kernel.variable.value
        masked = self.mode.soft_masked(
            ops.cast(weights, "float32"), self.zeros.value, self.width
        )
        return ops.cast(masked, weights.dtype)

    def hard_masked(self) -> Tensor:
        """The weights as inference sees them and as stripping leaves them."""
        return self.mode.hard_masked(self.kernel.variable.value, self.zeros.value)
