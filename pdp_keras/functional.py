"""The soft and the hard mask as pure functions of tensors.

The soft mask of PDP is the weight's share in a softmax over {prune, keep},

    [z, m] = softmax([t**2, w**2] / temperature),
    m(w)   = sigmoid((w**2 - t**2) / temperature),

and the layer computes with `m(w) * w` (Cho, Adya and Naik, NeurIPS 2023,
arXiv:2305.11203, equations 3 to 5). With t and the temperature held constant,

    d(m w)/dw = m + (2 w**2 / temperature) * m * (1 - m),

which needs only w and t: the backward pass recomputes the mask, so that nothing
of the size of the weights is kept between the two passes.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

# Squares of anything below stay finite in float32. Far smaller arguments already
# saturate the sigmoid, so the bound never changes a mask.
_LARGEST = 1e18


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
    scaled, scaled_threshold = _scale(scores, threshold, width)
    mask = ops.sigmoid(_logit(scaled, scaled_threshold))
    return ops.where(threshold > 0, mask, ops.ones_like(mask))


def soft_masked(weights: Tensor, threshold: Tensor, width: Tensor) -> Tensor:
    """`m(w) * w` with PDP's gradient in closed form.

    Args:
        weights: float32 tensor.
        threshold: float32 tensor that broadcasts to `weights`; a constant for
            the gradient.
        width: square root of the temperature, like `threshold`.

    Returns:
        A float32 tensor of the shape of `weights`. Its gradient with respect to
        `weights` is `m + 2 (w / width)**2 m (1 - m)`, finite for every finite w.

    Example:

    >>> soft_masked(ops.array([0.0, 0.1, -1.0]), 0.1, 0.01)
    [0.0, 0.05, -1.0]
    """

    @ops.custom_gradient
    def masked(weights: Tensor, threshold: Tensor, width: Tensor) -> Any:
        def gradient(*args: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
            if upstream is None:
                (upstream,) = args
            return (
                upstream * soft_masked_slope(weights, threshold, width),
                ops.zeros_like(threshold),
                ops.zeros_like(width),
            )

        return weights * soft_mask(ops.abs(weights), threshold, width), gradient

    return masked(
        weights, ops.stop_gradient(threshold), ops.stop_gradient(width)
    )


def soft_masked_slope(weights: Tensor, threshold: Tensor, width: Tensor) -> Tensor:
    """The closed form of `d(m w)/dw`; arguments as for `soft_masked`."""
    scaled, scaled_threshold = _scale(ops.abs(weights), threshold, width)
    logit = _logit(scaled, scaled_threshold)
    keep = ops.sigmoid(logit)
    # 1 - keep, without the cancellation where keep is close to 1.
    prune = ops.sigmoid(-logit)
    slope = keep + 2.0 * ops.square(scaled) * (keep * prune)
    return ops.where(threshold > 0, slope, ops.ones_like(slope))


def _scale(scores: Tensor, threshold: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and threshold in units of the width, so that squares stay in range."""
    safe = ops.where(threshold > 0, width, ops.ones_like(width))
    return (
        ops.minimum(scores / safe, _LARGEST),
        ops.minimum(threshold / safe, _LARGEST),
    )


def _logit(scaled: Tensor, scaled_threshold: Tensor) -> Tensor:
    # As a product of two factors it keeps its digits near the threshold, where a
    # difference of squares would lose them.
    return (scaled - scaled_threshold) * (scaled + scaled_threshold)
