"""Channel rules of normalization layers and of others that scale or shift channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import layers

from pdp_keras.channels.labels import LabelledTensor, expand
from pdp_keras.channels.rules.base import ChannelCall, ChannelRule, Config, Kept


def _batch_normalization(call: ChannelCall) -> LabelledTensor:
    x = call.only_along(call.first(), call.layer.axis)
    line = call.line(x, call.layer.axis)
    for weight in ("gamma", "beta", "moving_mean", "moving_variance"):
        call.follows(weight, 0, line)
    return call.tensor(x.labels)


def _across(axes: Any, *weights: str) -> Any:
    """A rule for layers that compute statistics along these axes."""

    def trace(call: ChannelCall) -> LabelledTensor:
        x = call.first()
        given = [axis % x.rank for axis in axes(call.layer)]
        where = sorted(given)
        if where != given:
            # Keras shapes gamma by the order given and applies it in rising order.
            return call.tensor(call.constant_along(x, *where).labels)
        across = [axis for axis in x.varying if axis in where]
        if across:
            x = call.only_along(x, across[0])
        if across and x.varying:
            call.normalizes(weights, where.index(across[0]), call.line(x, across[0]))
        return call.tensor(x.labels)

    return trace


def _axes(layer: Any) -> list[int]:
    axis = layer.axis
    return [axis] if isinstance(axis, int) else list(axis)


def _group_normalization(call: ChannelCall) -> LabelledTensor:
    layer = call.layer
    x = call.only_along(call.first(), layer.axis)
    line = call.line(x, layer.axis)
    groups = len(line) if layer.groups == -1 else layer.groups
    call.atoms.join_along(line.reshape(groups, -1), 1)
    line = call.atoms.canonical(line)
    for weight in ("gamma", "beta"):
        call.follows(weight, 0, line)
    return call.along_axis(line, layer.axis)


def _resize_group_normalization(layer: Any, config: Config, kept: Kept) -> Config:
    mask = kept.inputs[0][layer.axis]
    if mask is None or layer.groups == -1:
        return config
    return {**config, "groups": int(mask.sum()) * layer.groups // len(mask)}


def _prelu(call: ChannelCall) -> LabelledTensor:
    x = call.first()
    shared = [axis - 1 for axis in call.layer.shared_axes or ()]
    for axis in range(1, x.rank):
        if axis in x.varying and axis - 1 not in shared:
            full = expand(x.labels, axis, x.shape[axis])
            if len(x.varying) > 1:
                x = call.only_along(x, axis)
                full = expand(x.labels, axis, x.shape[axis])
            call.follows("alpha", axis - 1, full.reshape(-1))
    return call.tensor(x.labels)


def _data_normalization(call: ChannelCall) -> LabelledTensor:
    # Its statistics may be given in its config, as lists.
    x = call.first()
    axes = [axis % x.rank for axis in call.layer.axis]
    return call.tensor(call.constant_along(x, *axes).labels if axes else x.labels)


def _layer_scale(call: ChannelCall) -> LabelledTensor:
    x = call.first()
    line = call.line(x, -1)
    call.follows("gamma", 0, line)
    return call.along_axis(line, -1)


def _resize_layer_scale(layer: Any, config: Config, kept: Kept) -> Config:
    return {**config, "projection_dim": kept.size("gamma", 0)}


def _rescaling(call: ChannelCall) -> LabelledTensor:
    x = call.first()
    sizes = [math.prod(np.shape(v)) for v in (call.layer.scale, call.layer.offset)]
    if max(sizes) > 1:
        call.fix(x, "{layer} has a scale for each of them in its config")
        return call.fixed()[0]
    return call.tensor(x.labels)


ROWS: dict[type | str, ChannelRule] = {
    layers.BatchNormalization: ChannelRule(_batch_normalization),
    layers.LayerNormalization: ChannelRule(_across(_axes, "gamma", "beta")),
    layers.UnitNormalization: ChannelRule(_across(_axes)),
    layers.GroupNormalization: ChannelRule(
        _group_normalization, _resize_group_normalization
    ),
    layers.PReLU: ChannelRule(_prelu),
    layers.Normalization: ChannelRule(_data_normalization),
    layers.Rescaling: ChannelRule(_rescaling),
    "keras.src.applications.convnext.LayerScale": ChannelRule(
        _layer_scale, _resize_layer_scale
    ),
    "keras.src.layers.normalization.rms_normalization.RMSNormalization": ChannelRule(
        _across(_axes, "scale")
    ),
}
