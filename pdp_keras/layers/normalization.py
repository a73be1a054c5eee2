"""Normalizations across channels whose statistics count living channels only.

A layer that normalizes over its channels would still see a pruned one in its mean.
Weighted by the mask, its statistics are those of the layer with that channel removed:
for LayerNormalization (Ba et al., 2016, arXiv:1607.06450, equation 3)

    mean = sum(m x) / sum(m),   variance = sum(m (x - mean)**2) / sum(m).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import layers, ops

Tensor = Any


def can_normalize(layer: Any) -> bool:
    """Whether there is a masked form of a layer."""
    return _find(layer) is not None


def masked_normalization(layer: Any, mask: Tensor, axis: int, inputs: Tensor) -> Tensor:
    """What a normalization layer computes without the channels that are masked.

    Args:
        layer: a built LayerNormalization, RMSNormalization or UnitNormalization
            (`can_normalize`).
        mask: float32 tensor of one mask value for each channel, in [0, 1].
        axis: the channel axis of the inputs.
        inputs: float tensor.

    Returns:
        A tensor of the shape of `inputs`, in the layer's compute dtype.
    """
    compute = _find(layer)
    assert compute is not None
    x = ops.cast(inputs, "float32")
    rank = len(x.shape)
    shape = [1] * rank
    shape[axis % rank] = mask.shape[0]
    given = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    axes = sorted(a % rank for a in given)
    outputs = compute(layer, x, ops.reshape(mask, shape), axes)
    return ops.cast(outputs, layer.compute_dtype)


def _mean(values: Tensor, mask: Tensor, axes: Sequence[int]) -> Tensor:
    # The mask has size 1 along all axes but one of these, so its mean over the
    # elements is its mean over the channels.
    return ops.mean(values * mask, axes, keepdims=True) / ops.mean(
        mask, axes, keepdims=True
    )


def _scaled(x: Tensor, weight: Any, axes: Sequence[int]) -> Tensor:
    """A weight of the layer, to broadcast against x."""
    shape = [x.shape[a] if a in axes else 1 for a in range(len(x.shape))]
    return ops.reshape(ops.cast(weight, "float32"), shape)


def _layer(layer: Any, x: Tensor, mask: Tensor, axes: Sequence[int]) -> Tensor:
    centred = x - _mean(x, mask, axes)
    variance = _mean(ops.square(centred), mask, axes)
    y = (x if layer.rms_scaling else centred) * ops.rsqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        y = y * _scaled(x, layer.gamma, axes)
    if layer.beta is not None:
        y = y + _scaled(x, layer.beta, axes)
    return y


def _root_mean_square(
    layer: Any, x: Tensor, mask: Tensor, axes: Sequence[int]
) -> Tensor:
    y = x * ops.rsqrt(_mean(ops.square(x), mask, axes) + layer.epsilon)
    return y * _scaled(x, layer.scale, axes)


def _unit(layer: Any, x: Tensor, mask: Tensor, axes: Sequence[int]) -> Tensor:
    del layer
    squares = ops.sum(ops.square(x) * mask, axes, keepdims=True)
    return x * ops.minimum(ops.rsqrt(squares), 1e12)


_FORMS: dict[str, Callable[..., Tensor]] = {
    "LayerNormalization": _layer,
    "RMSNormalization": _root_mean_square,  # not in every supported Keras version
    "UnitNormalization": _unit,
}


def _find(layer: Any) -> Callable[..., Tensor] | None:
    for name, form in _FORMS.items():
        known = getattr(layers, name, None)
        # A subclass with a `call` of its own computes something else.
        if known and isinstance(layer, known) and type(layer).call is known.call:
            return form
    return None
