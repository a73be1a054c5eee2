"""`Channel`: whole output channels, to be removed when the model is stripped."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from keras import ops

from pdp_keras.masks import RelativeTemperature, midpoint_threshold, smallest, soft_mask
from pdp_keras.models import KernelAxes
from pdp_keras.modes.base import Mode, Width

Tensor = Any

_NORMS = ("l1", "l2")
# Norms of kernels with a fan-in of 10,000, drawn at random, are as close as this.
_LEAST_SPREAD = 0.01


@dataclasses.dataclass(frozen=True)
class Channel(Mode):
    """Output channels; the score of a channel is a norm of its weights.

    In a model with a graph channels that belong together (in a residual sum, say)
    are scored and pruned together, and `strip_pruning` removes them.

    Args:
        norm: `"l2"` or `"l1"`: how the score is made from a channel's weights. It
            is divided by the mean over the channels of the same kernel, so that
            scores of different kernels can be compared.
        round_to: what is left of a group of channels is rounded to the nearest
            multiple of this, but not to 0; 8 suits most accelerators.
        min_channels: at least so many channels of a group are left.

    Raises:
        ValueError: for an unknown norm or a number below 1.

    Example:

    >>> mode = pdp_keras.Channel(round_to=8)
    >>> pdp_keras.prune_model(model, sparsity=0.5, mode=mode)
    """

    norm: str = "l2"
    round_to: int = 1
    min_channels: int = 1

    name = "channel"
    default_sparsity = 0.5
    # Few channels, each with many weights: a wider band settles late which of them go,
    # and costs accuracy. See benchmarks/structured_temperature.py.
    default_temperature = RelativeTemperature(0.01)
    prunes_outputs = True

    def __post_init__(self) -> None:
        if self.norm not in _NORMS:
            raise ValueError(
                f"norm must be one of {list(_NORMS)}. Received: norm={self.norm!r}"
            )
        for name in ("round_to", "min_channels"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(
                    f"{name} must be a positive integer. Received: {name}={value!r}"
                )

    def reason_against(self, shape: tuple[int, ...], axes: KernelAxes) -> str | None:
        """A kernel needs more output channels than must be left."""
        channels = self.units(shape, axes)
        if channels <= self.min_channels:
            return f"it has {channels} channels, of which {self.min_channels} are left"
        return None

    def units(self, shape: tuple[int, ...], axes: KernelAxes) -> int:
        """The number of output channels."""
        return math.prod(shape[axis] for axis in axes.outputs)

    def count_zeros(
        self, sparsity: float, shape: tuple[int, ...], axes: KernelAxes
    ) -> int:
        """round(sparsity * channels), less what `round_to` and the floor ask for."""
        zeros = super().count_zeros(sparsity, shape, axes)
        return self.limit_zeros(zeros, self.units(shape, axes))

    def limit_zeros(self, zeros: int, units: int, each: int = 1) -> int:
        """The number nearest to `zeros` that leaves a multiple, and enough.

        Args:
            zeros: how many units to prune.
            units: how many there are.
            each: channels in a unit (the size of an attention head).
        """
        step = self.round_to // math.gcd(self.round_to, each)
        fewest = -(-self.min_channels // each)
        # Rounded half up: rather a channel too many than one too few.
        left = max(step, (2 * (units - zeros) + step) // (2 * step) * step)
        left = max(left, -(-fewest // step) * step)
        return max(0, units - left)

    def ranked(self, weights: Tensor, axes: KernelAxes) -> Tensor:
        """Each channel's score over the mean of its kernel."""
        scores = self.scores(weights, axes)
        mean = ops.mean(scores)
        return ops.ravel(scores / ops.where(mean > 0, mean, ops.ones_like(mean)))

    def threshold(self, weights: Tensor, zeros: Tensor, axes: KernelAxes) -> Tensor:
        """One float32 scalar, in units of the score."""
        scores = ops.stop_gradient(self.scores(weights, axes))
        return midpoint_threshold(scores, zeros)

    def soft_masked(
        self,
        weights: Tensor,
        zeros: Tensor,
        axes: KernelAxes,
        width: Width,
        max_gain: float = math.inf,
    ) -> Tensor:
        """The weights times the soft mask of their channel, with its own gradient."""
        del max_gain
        return weights * self.output_mask(weights, zeros, axes, width)

    def hard_masked(self, weights: Tensor, zeros: Tensor, axes: KernelAxes) -> Tensor:
        """The weights with exactly `zeros` channels (ties by position) set to 0."""
        mask = self.output_mask(ops.cast(weights, "float32"), zeros, axes, None)
        return ops.where(mask > 0, weights, ops.zeros_like(weights))

    def output_mask(
        self, weights: Tensor, zeros: Tensor, axes: KernelAxes, width: Width | None
    ) -> Tensor:
        """The mask of each output channel; other axes have size 1."""
        scores = self.scores(weights, axes)
        if width is None:
            return self.hard_mask(scores, zeros)
        return self.soft_mask(scores, zeros, width)

    def hard_mask(self, scores: Tensor, zeros: Tensor) -> Tensor:
        """1 for what is kept and 0 for the `zeros` smallest scores, float32."""
        pruned = smallest(ops.stop_gradient(scores), zeros)
        return 1.0 - ops.cast(pruned, "float32")

    def soft_mask(self, scores: Tensor, zeros: Tensor, width: Width) -> Tensor:
        """The mask of each score; at the threshold `zeros` of them fall below.

        The gradient flows through the scores, not through the threshold. A relative
        temperature is in units of the mean of |s**2 - t**2|, at least a hundredth of
        t**2: where all norms are the same (constant or orthogonal kernels) a band
        without width would have no finite gradient.
        """
        constant = ops.stop_gradient(scores)
        threshold = ops.stop_gradient(midpoint_threshold(constant, zeros))
        # Norms of channels lie close together: what is wide is told by their spread
        # about the threshold and not, as for single weights, by the threshold.
        square = ops.square(threshold)
        distance = ops.mean(ops.abs(ops.square(constant) - square))
        spread = ops.sqrt(ops.maximum(distance, _LEAST_SPREAD * square))
        return soft_mask(scores, threshold, width(spread))

    def scores(self, weights: Tensor, axes: KernelAxes) -> Tensor:
        """The norm of each output channel's weights; other axes have size 1."""
        others = tuple(
            axis for axis in range(len(weights.shape)) if axis not in axes.outputs
        )
        if self.norm == "l1":
            return ops.sum(ops.abs(weights), axis=others, keepdims=True)
        squares = ops.sum(ops.square(weights), axis=others, keepdims=True)
        return safe_sqrt(squares)


def safe_sqrt(squares: Tensor) -> Tensor:
    """The square root, with a gradient of 0 and not infinity where it is 0."""
    positive = squares > 0
    return ops.where(
        positive,
        ops.sqrt(ops.where(positive, squares, ops.ones_like(squares))),
        ops.zeros_like(squares),
    )
