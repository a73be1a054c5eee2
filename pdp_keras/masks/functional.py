"""The soft and the hard mask as pure functions of tensors.

The soft mask of PDP is the weight's share in a softmax over {prune, keep},

    [z, m] = softmax([t**2, w**2] / temperature),
    m(w)   = sigmoid((w**2 - t**2) / temperature),

and the layer computes with `m(w) * w` (Cho, Adya and Naik, NeurIPS 2023,
arXiv:2305.11203, equations 3 to 5). With t and the temperature held constant,

    d(m w)/dw = m + (2 w**2 / temperature) * m * (1 - m),

which needs only w and t: the backward pass recomputes the mask, so that nothing
of the size of the weights is kept between the two passes. At the threshold it is
1/2 + t**2 / (2 temperature), many times the gradient of a dense weight where the
temperature is low; `max_gain` bounds it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from pdp_keras.masks import functional_torch
from pdp_keras.masks.compilation import MANY, compiled
from pdp_keras.masks.custom_gradient import with_gradient

Tensor = Any

# Products of two numbers below stay finite in float32. Far smaller ones already
# saturate the sigmoid, so the bound never changes a mask.
_LARGEST = 1e18
# The smallest normal float32: backends may take anything smaller for 0, and 0 / 0
# is no mask.
_SMALLEST = 2.0**-126


def soft_mask(scores: Tensor, threshold: Tensor, width: Tensor) -> Tensor:
    """The keep probability of each score, `sigmoid((s**2 - t**2) / width**2)`.

    Args:
        scores: float32 tensor of non-negative scores, in units of |w|.
        threshold: float32 tensor that broadcasts to `scores`, in units of |w|.
            Where it is 0 nothing is pruned and the mask is exactly 1.
        width: float32 tensor that broadcasts to `scores`: the square root of the
            temperature, in units of |w|. Must be positive where `threshold` is.

    Returns:
        A float32 tensor in [0, 1] of the shape of `scores`.

    Example:

    >>> soft_mask(ops.array([0.0, 0.1, 1.0]), 0.1, 0.01)
    [0.0, 0.5, 1.0]
    """
    low, high, inverse = _scales(threshold, width)
    # Left to the backend: channels take their gradient through it.
    mask = ops.sigmoid(_logit(scores, low, high, inverse))
    # Which comes near 1 and not always to it, however large its argument.
    return ops.where(threshold > 0, mask, ops.ones_like(mask))


def soft_masked(
    weights: Tensor, threshold: Tensor, width: Tensor, max_gain: float = math.inf
) -> Tensor:
    """`m(w) * w` with PDP's gradient in closed form.

    Args:
        weights: float32 tensor.
        threshold: float32 tensor that broadcasts to `weights`; a constant for
            the gradient.
        width: square root of the temperature, like `threshold`.
        max_gain: what the gradient is bounded by.

    Returns:
        A float32 tensor of the shape of `weights`. Its gradient with respect to
        `weights` is `min(max_gain, m + 2 (w / width)**2 m (1 - m))`, finite for every
        finite w.

    Example:

    >>> soft_masked(ops.array([0.0, 0.1, -1.0]), 0.1, 0.01)
    [0.0, 0.05, -1.0]
    """
    return with_constants(
        _forward, _backward_up_to(max_gain), weights, threshold, width
    )


def with_constants(
    forward: Callable[..., Tensor],
    backward: Callable[..., Tensor],
    weights: Tensor,
    threshold: Tensor,
    width: Tensor,
) -> Tensor:
    """`forward(weights, threshold, width)`; no gradient reaches the last two.

    That of the weights is `backward(weights, upstream, threshold, width)`.
    """

    def gradient(
        upstream: Tensor, weights: Tensor, threshold: Tensor, width: Tensor
    ) -> tuple[Tensor, ...]:
        return (
            backward(weights, upstream, threshold, width),
            ops.zeros_like(threshold),
            ops.zeros_like(width),
        )

    constants = ops.stop_gradient(threshold), ops.stop_gradient(width)
    return with_gradient(forward, gradient, weights, *constants)


def soft_masked_slope(weights: Tensor, threshold: Tensor, width: Tensor) -> Tensor:
    """The closed form of `d(m w)/dw`; arguments as for `soft_masked`."""
    return keep_and_slope(ops.abs(weights), threshold, width)[1]


def keep_and_slope(
    scores: Tensor, threshold: Tensor, width: Tensor
) -> tuple[Tensor, Tensor]:
    """The mask m of each score, exactly 1 in the end, and `d(m s)/ds`.

    Arguments as for `soft_mask`.
    """
    low, high, inverse = _scales(threshold, width)
    keep, both = _keep_and_both(_logit(scores, low, high, inverse))
    scaled = ops.minimum(scores * inverse, _LARGEST)
    return keep, keep + 2.0 * ops.square(scaled) * both


def _keep_and_both(logit: Tensor) -> tuple[Tensor, Tensor]:
    """The mask m = sigmoid(logit), exactly 1 in the end, and m (1 - m).

    Both from the smaller of m and 1 - m, so that neither is a difference of nearly
    equal numbers; and from one exponential.
    """
    small = ops.exp(-ops.abs(logit))
    smaller = small / (1.0 + small)
    keep = ops.where(logit < 0, smaller, 1.0 - smaller)
    return keep, smaller * (1.0 - smaller)


@compiled(least=MANY)
def _forward(weights: Tensor, threshold: Tensor, width: Tensor) -> Tensor:
    low, high, inverse = _scales(threshold, width)
    if keras.backend.backend() == "torch":
        return functional_torch.masked(weights, low, high, inverse, _LARGEST)
    logit = _logit(ops.abs(weights), low, high, inverse)
    # sigmoid(logit) * weights with one division, which is exact where nothing is cut.
    return weights / (1.0 + ops.exp(-logit))


@functools.cache
def _backward_up_to(max_gain: float) -> Callable[..., Tensor]:
    """The backward pass: a program for each bound, of which there are one or two."""

    @compiled(least=MANY)
    def backward(
        weights: Tensor, upstream: Tensor, threshold: Tensor, width: Tensor
    ) -> Tensor:
        if keras.backend.backend() == "torch":
            given = weights, upstream, *_scales(threshold, width), _LARGEST, max_gain
            return functional_torch.masked_gradient(*given)
        slope = soft_masked_slope(weights, threshold, width)
        if max_gain < math.inf:
            slope = ops.minimum(slope, max_gain)
        return upstream * slope

    return backward


def _scales(threshold: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The threshold twice, to subtract and to add, and 1 / width.

    Where nothing is pruned they are such that every score is kept: a choice of a few
    numbers in place of one for every weight.
    """
    is_pruned = threshold > 0
    inverse = ops.where(is_pruned, 1.0 / ops.maximum(width, _SMALLEST), _LARGEST)
    low = ops.where(is_pruned, threshold, -1.0)
    return low, ops.abs(low), inverse


def _logit(scores: Tensor, low: Tensor, high: Tensor, inverse: Tensor) -> Tensor:
    # As a product of two factors it keeps its digits near the threshold, where a
    # difference of squares would lose them. Each is bounded by itself: bounded
    # before the subtraction, two large numbers would look equal.
    difference = ops.clip((scores - low) * inverse, -_LARGEST, _LARGEST)
    return difference * ops.minimum((scores + high) * inverse, _LARGEST)
