"""Channel rules of the layers that multiply by a kernel: dense, convolution, embedding.

A kernel makes the channels of its output axis, fresh ones, and reads those of its
input along the axis that it sums over.
"""

from __future__ import annotations

import string
from typing import Any

import numpy as np
from keras import layers

from pdp_keras.channels.labels import LabelledTensor, Labels, expand
from pdp_keras.channels.rules.base import (
    ChannelCall,
    ChannelRule,
    Config,
    Kept,
    activate,
    channel_axis,
)


def _read(call: ChannelCall, x: LabelledTensor, axis: int) -> tuple[Labels, Any]:
    """Labels along the axis that is read, and those that pass along the others."""
    x = call.atoms.refresh(x)
    if axis % x.rank in x.varying:
        x = call.only_along(x, axis)
    line = expand(x.labels, axis % x.rank, x.shape[axis])
    if axis % x.rank in x.varying or not x.varying:
        return line.reshape(-1), None
    # They pass; what the kernel makes is then one thing for each of them.
    return np.zeros(x.shape[axis] or 1, np.int64), x.labels


def _emit(
    call: ChannelCall, made: Labels, passing: Any, axis: int, activation: Any
) -> LabelledTensor:
    if passing is None:
        output = call.along_axis(made, axis)
    else:
        call.atoms.fix(
            made,
            "structure",
            f"layer {call.layer.name!r} is applied along another axis than the one "
            "on which its inputs' channels lie",
        )
        output = call.tensor(passing)
    return activate(call, output, activation)


def _dense(call: ChannelCall) -> LabelledTensor:
    line, passing = _read(call, call.first(), -1)
    call.reads("kernel", 0, line)
    made = call.makes("kernel", 1)
    call.follows("bias", 0, made)
    return _emit(call, made, passing, -1, call.layer.activation)


def _resize_dense(layer: Any, config: Config, kept: Kept) -> Config:
    return {**config, "units": kept.size("kernel", 1)}


def _einsum_letters(call: ChannelCall) -> tuple[str, str, str] | None:
    """The letters of an equation, with one for each axis behind a leading `...`."""
    parts = call.layer.equation.replace(" ", "").replace("->", ",").split(",")
    if any("..." in part and not part.startswith("...") for part in parts):
        return None
    inputs, kernel, output = (part.replace("...", "") for part in parts)
    elided = "".join(
        c for c in string.ascii_letters if c not in inputs + kernel + output
    )
    elided = elided[: call.inputs[0].rank - len(inputs)]
    return elided + inputs, kernel, elided + output


def _einsum_dense(call: ChannelCall) -> Any:
    layer = call.layer
    letters = _einsum_letters(call)
    if letters is None:
        return call.unknown(f"layer {layer.name!r}: '...' must come first")
    inputs, kernel, output = letters
    x = call.first()
    read = [c for c in kernel if c in inputs and c not in output]
    passing = [c for c in output if c in inputs and c not in kernel]
    made = sorted(
        (c for c in kernel if c in output and c not in inputs), key=output.index
    )
    # Elsewhere they are summed over without a kernel, or have a kernel of their own.
    x = call.constant_along(
        x, *(i for i, c in enumerate(inputs) if c not in read and c not in passing)
    )
    # Of several axes the first that is read: whole heads, not single places of each.
    varying = [inputs[axis] for axis in x.varying]
    main = next((c for c in [*read, *passing] if c in varying), None)
    if main is not None:
        x = call.only_along(x, inputs.index(main))
    for c in read:
        size = layer.kernel.shape[kernel.index(c)]
        line = call.line(x, inputs.index(c)) if c == main else np.zeros(size, np.int64)
        call.reads("kernel", kernel.index(c), line)
    through = None
    if main in passing and x.varying:
        shape = [1] * len(output)
        shape[output.index(main)] = -1
        through = x.labels.reshape(shape)
    if not made:
        out = call.fixed()[0] if through is None else call.tensor(through)
        return activate(call, out, layer.activation)
    # Of several axes that it makes, the first: again whole heads.
    axis = output.index(made[0]) - len(output)
    fresh = call.makes("kernel", kernel.index(made[0]))
    if layer.bias is not None and made[0] in layer.bias_axes:
        call.follows("bias", axis, fresh)
    return _emit(call, fresh, through, axis, layer.activation)


def _resize_einsum_dense(layer: Any, config: Config, kept: Kept) -> Config:
    shape = config["output_shape"]
    sizes = [shape] if isinstance(shape, int) else list(shape)
    return {**config, "output_shape": tuple(kept.resized(0, sizes, -len(sizes)))}


def _by_position(call: ChannelCall, labels: Labels, groups: int) -> Labels:
    """Joins the places at the same position of all groups."""
    return call.atoms.join_along(labels.reshape(groups, -1), 0).repeat(groups, 0)


def _conv(call: ChannelCall) -> LabelledTensor:
    layer = call.layer
    x = call.first()
    axis = channel_axis(layer, x.rank)
    line = call.line(x, axis)
    made = call.makes("kernel", -1)
    groups = layer.groups
    if groups == 1:
        call.reads("kernel", -2, line)
    elif _whole_groups(layer):
        # Whole groups go, with their inputs and outputs: the kernel reads nothing
        # of a dead group for a living one.
        inputs = call.atoms.join_along(line.reshape(groups, -1), 1)
        outputs = call.atoms.join_along(made.reshape(groups, -1), 1)
        call.atoms.join(inputs, outputs)
    else:
        call.reads("kernel", -2, _by_position(call, line, groups)[0])
        _by_position(call, made, groups)
    call.follows("bias", 0, made)
    return activate(call, call.along_axis(made, axis), layer.activation)


def _whole_groups(layer: Any) -> bool:
    """Whether only one channel a group is left on a side."""
    return layer.groups > 1 and (
        layer.kernel.shape[-2] == 1 or layer.kernel.shape[-1] == layer.groups
    )


def _resize_conv(layer: Any, config: Config, kept: Kept) -> Config:
    filters = kept.size("kernel", -1)
    if not _whole_groups(layer):
        return {**config, "filters": filters}
    groups = filters * layer.groups // layer.filters
    return {**config, "filters": filters, "groups": groups}


def _conv_transpose(call: ChannelCall) -> LabelledTensor:
    layer = call.layer
    x = call.first()
    axis = channel_axis(layer, x.rank)
    call.reads("kernel", -1, call.line(x, axis))
    made = call.makes("kernel", -2)
    call.follows("bias", 0, made)
    return activate(call, call.along_axis(made, axis), layer.activation)


def _resize_conv_transpose(layer: Any, config: Config, kept: Kept) -> Config:
    return {**config, "filters": kept.size("kernel", -2)}


def _depthwise(call: ChannelCall) -> LabelledTensor:
    layer = call.layer
    x = call.first()
    axis = channel_axis(layer, x.rank)
    line = call.makes("kernel", -2, call.line(x, axis))
    made = line.repeat(layer.depth_multiplier)
    call.follows("bias", 0, made)
    return activate(call, call.along_axis(made, axis), layer.activation)


def _separable(call: ChannelCall) -> LabelledTensor:
    layer = call.layer
    x = call.first()
    axis = channel_axis(layer, x.rank)
    line = call.makes("depthwise_kernel", -2, call.line(x, axis))
    call.reads("pointwise_kernel", -2, line.repeat(layer.depth_multiplier))
    made = call.makes("pointwise_kernel", -1)
    call.follows("bias", 0, made)
    return activate(call, call.along_axis(made, axis), layer.activation)


def _resize_separable(layer: Any, config: Config, kept: Kept) -> Config:
    return {**config, "filters": kept.size("pointwise_kernel", -1)}


def _embedding(call: ChannelCall) -> LabelledTensor:
    for x in call.inputs:
        call.fix(x, "{layer} looks them up")
    return call.along_axis(call.makes("embeddings", 1), -1)


def _reversible_embedding(call: ChannelCall) -> Any:
    """Looked up, or read: the two are equally wide, and may be one weight."""
    if not call.kwargs.get("reverse"):
        return _embedding(call)
    read = call.line(call.first(), -1)
    call.atoms.join(call.makes("embeddings", 1), read)
    if call.weight("reverse_embeddings") is None:  # tied
        call.reads("embeddings", 1, read)
    else:
        call.reads("reverse_embeddings", 0, read)
    return call.fixed()


def _resize_embedding(layer: Any, config: Config, kept: Kept) -> Config:
    return {**config, "output_dim": kept.size("embeddings", 1)}


_CONV = ChannelRule(_conv, _resize_conv)
_TRANSPOSED = ChannelRule(_conv_transpose, _resize_conv_transpose)
_DEPTHWISE = ChannelRule(_depthwise)
_SEPARABLE = ChannelRule(_separable, _resize_separable)

ROWS: dict[type | str, ChannelRule] = {
    layers.Dense: ChannelRule(_dense, _resize_dense),
    layers.EinsumDense: ChannelRule(_einsum_dense, _resize_einsum_dense),
    layers.Conv1D: _CONV,
    layers.Conv2D: _CONV,
    layers.Conv3D: _CONV,
    layers.Conv1DTranspose: _TRANSPOSED,
    layers.Conv2DTranspose: _TRANSPOSED,
    layers.Conv3DTranspose: _TRANSPOSED,
    layers.DepthwiseConv1D: _DEPTHWISE,
    layers.DepthwiseConv2D: _DEPTHWISE,
    layers.SeparableConv1D: _SEPARABLE,
    layers.SeparableConv2D: _SEPARABLE,
    layers.Embedding: ChannelRule(_embedding, _resize_embedding),
    # Not in every Keras that is supported.
    "keras.src.layers.core.reversible_embedding.ReversibleEmbedding": ChannelRule(
        _reversible_embedding, _resize_embedding
    ),
}
