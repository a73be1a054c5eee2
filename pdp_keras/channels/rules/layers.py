"""Channel rules of the stateless layers: merging, pooling, reshaping, activations."""

from __future__ import annotations

from typing import Any

from keras import layers

from pdp_keras.channels.labels import LabelledTensor
from pdp_keras.channels.rules.base import (
    ChannelCall,
    ChannelRule,
    Config,
    Kept,
    activate,
    channel_axis,
)
from pdp_keras.channels.rules.shapes import concatenate, elementwise, reshape


def _pass(call: ChannelCall) -> LabelledTensor:
    return call.tensor(call.first().labels)


def _activation(call: ChannelCall) -> LabelledTensor:
    return activate(call, call.first(), call.layer.activation)


def _softmax(call: ChannelCall) -> LabelledTensor:
    axis = call.layer.axis
    axes = [axis] if isinstance(axis, int) else axis
    return call.tensor(call.constant_along(call.first(), *axes).labels)


def _spatial(call: ChannelCall) -> LabelledTensor:
    """Each channel for itself, whatever happens along the other axes."""
    x = call.first()
    x = call.only_along(x, channel_axis(call.layer, x.rank))
    return call.tensor(x.labels)


def _global_pooling(call: ChannelCall) -> LabelledTensor:
    x = call.first()
    axis = channel_axis(call.layer, x.rank)
    return call.along_axis(call.line(x, axis), axis if call.layer.keepdims else 1)


def _merge(call: ChannelCall) -> LabelledTensor:
    return call.tensor(elementwise(call, call.inputs))


def _concatenate(call: ChannelCall) -> LabelledTensor:
    return call.tensor(concatenate(call, call.inputs, call.layer.axis))


def _flatten(call: ChannelCall) -> Any:
    x = call.first()
    if call.layer.data_format == "channels_first" and x.rank > 1:
        last = (0, *range(2, x.rank), 1)
        shape = tuple(x.shape[axis] for axis in last)
        x = LabelledTensor(x.labels.transpose(last), shape)
    return _reshaped(call, x)


def _reshape(call: ChannelCall) -> Any:
    return _reshaped(call, call.first())


def _reshaped(call: ChannelCall, x: LabelledTensor) -> Any:
    labels = reshape(call, x, call.output_shapes[0])
    if labels is None:
        call.fix(x, "{layer} mixes them with a dimension of unknown size")
        return call.fixed()
    return call.tensor(labels)


def _resize_reshape(layer: Any, config: Config, kept: Kept) -> Config:
    shape = kept.resized(0, config["target_shape"], 1)
    return {**config, "target_shape": tuple(shape)}


def _permute(call: ChannelCall) -> LabelledTensor:
    return call.tensor(call.first().labels.transpose((0, *call.layer.dims)))


def _repeat_vector(call: ChannelCall) -> LabelledTensor:
    return call.tensor(call.first().labels[:, None])


def _needs_all(call: ChannelCall) -> Any:
    for x in call.inputs:
        call.fix(x, "{layer} mixes them, and not by a kernel")
    return call.fixed()


def _scaled_sum(call: ChannelCall) -> LabelledTensor:
    return call.tensor(elementwise(call, call.inputs))


_PASS = ChannelRule(_pass)
_SPATIAL = ChannelRule(_spatial)
_GLOBAL = ChannelRule(_global_pooling)
_MERGE = ChannelRule(_merge)

_SPATIAL_LAYERS = [
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "AdaptiveAveragePooling1D",
    "AdaptiveAveragePooling2D",
    "AdaptiveAveragePooling3D",
    "AdaptiveMaxPooling1D",
    "AdaptiveMaxPooling2D",
    "AdaptiveMaxPooling3D",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "Resizing",
    "CenterCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
    "RandomCrop",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
]
_GLOBAL_LAYERS = [
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
]
_PASSING_LAYERS = [
    "ReLU",
    "LeakyReLU",
    "ELU",
    "Dropout",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "Identity",
]
_MERGING_LAYERS = ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"]


def _named(names: list[str], rule: ChannelRule) -> dict[type | str, ChannelRule]:
    """The rows of the classes among these that the Keras version has."""
    return {getattr(layers, name): rule for name in names if hasattr(layers, name)}


ROWS: dict[type | str, ChannelRule] = {
    **_named(_SPATIAL_LAYERS, _SPATIAL),
    **_named(_GLOBAL_LAYERS, _GLOBAL),
    **_named(_PASSING_LAYERS, _PASS),
    **_named(_MERGING_LAYERS, _MERGE),
    layers.Activation: ChannelRule(_activation),
    layers.Softmax: ChannelRule(_softmax),
    layers.Concatenate: ChannelRule(_concatenate),
    layers.Flatten: ChannelRule(_flatten),
    layers.Reshape: ChannelRule(_reshape, _resize_reshape, by_place=True),
    layers.Permute: ChannelRule(_permute),
    layers.RepeatVector: ChannelRule(_repeat_vector),
    layers.Dot: ChannelRule(_needs_all),
    layers.Masking: ChannelRule(_needs_all),
    "keras.src.applications.inception_resnet_v2.CustomScaleLayer": _MERGE,
    "keras.src.applications.convnext.StochasticDepth": _PASS,
}
