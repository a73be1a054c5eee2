"""Channel rules of keras_hub's composite layers, which need not be installed.

Each is one layer for Keras, and can be made smaller as far as its arguments allow.

A transformer layer has a residual stream through it that keeps its channels. The
hidden units of its feed-forward part can be removed, and heads where the size of a head
is an argument.

The blocks of MobileNets are chains of Keras layers, whose own rules are followed. Of
channels whose number is not an argument, but what keras_hub rounds one to, as many
must stay as it rounds to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pdp_keras.channels.labels import LabelledTensor, Labels
from pdp_keras.channels.rules.base import (
    ChannelCall,
    ChannelRule,
    Config,
    Kept,
    Resize,
    activate,
    channel_axis,
    computes_kernel,
    find_rule,
)
from pdp_keras.channels.rules.shapes import elementwise

# From a layer to its feed-forward parts: the layers into the hidden units (several
# where one is the gate of another), and the one out of them.
Parts = Callable[[Any], Sequence[tuple[Sequence[Any], Any]]]

# `adjust_channels` makes the numbers of expanded and squeezed channels multiples of it.
_DIVISOR = 8

_PROJECTIONS = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")
_RESIDUAL = "{layer} adds to them in a residual stream of its own"
_HEADS = (
    "{layer} has no argument for the size of a head: fewer heads would be larger ones"
)


def _feed_forward(parts: Parts, argument: str, factor: int = 1) -> ChannelRule:
    """The rule of a layer whose `argument` says how wide its hidden layers are.

    It is `factor` times as much as they have units.
    """

    def trace(call: ChannelCall) -> Any:
        return _trace_feed_forward(call, parts(call.layer))

    def resize(layer: Any, config: Config, kept: Kept) -> Config:
        (into, *_), _ = parts(layer)[0]
        return {**config, argument: factor * kept.inside(into).size("kernel", 1)}

    return ChannelRule(trace, resize)


def _trace_feed_forward(
    call: ChannelCall, parts: Sequence[tuple[Sequence[Any], Any]]
) -> list[LabelledTensor]:
    for x in call.inputs:
        call.fix(x, _RESIDUAL)
    if any(computes_kernel(x) for intos, out in parts for x in (*intos, out)):
        return call.unknown(f"layer {call.layer.name!r} computes its kernels")
    hidden = None
    for intos, out_of in parts:
        for into in intos:
            inside = call.inside(into, [], [])
            made = inside.makes("kernel", 1)
            inside.follows("bias", 0, made)
            units = LabelledTensor(made[None], (None, len(made)))
            activate(inside, units, into.activation)
            # One argument for all of them: they stay equally wide.
            hidden = made if hidden is None else hidden
            call.atoms.join(hidden, made)
        call.inside(out_of, [], []).reads("kernel", 0, made)
    return call.fixed()


def _own_pair(layer: Any) -> list[tuple[list[Any], Any]]:
    return [([layer._feedforward_intermediate_dense], layer._feedforward_output_dense)]


def _block_pairs(layer: Any) -> list[tuple[list[Any], Any]]:
    return [([x.mlp.dense_1], x.mlp.dense_2) for x in layer.encoder_layers]


def _gated_pair(layer: Any) -> list[tuple[list[Any], Any]]:
    into = [layer._feedforward_intermediate_dense, layer._feedforward_gate_dense]
    return [(into, layer._feedforward_output_dense)]


def _gemma_pair(layer: Any) -> list[tuple[list[Any], Any]]:
    return [([layer.gating_ffw, layer.gating_ffw_2], layer.ffw_linear)]


def _fix_heads(call: ChannelCall, heads: Labels, outputs: Labels) -> None:
    """Says why the heads of a layer cannot be removed, and what it makes of them."""
    for labels, reason in ((heads, _HEADS), (outputs, _RESIDUAL)):
        call.fix(LabelledTensor(labels[None], (None, len(labels))), reason)


def _transformer(call: ChannelCall) -> Any:
    outputs = _trace_feed_forward(call, _own_pair(call.layer))
    for name in ("_self_attention_layer", "_cross_attention_layer"):
        attention = getattr(call.layer, name, None)
        if attention is None:
            continue
        parts = [getattr(attention, part) for part in _PROJECTIONS]
        if not any(map(computes_kernel, parts)):
            inside = call.inside(attention, [], [])
            kernels = [f"{part}.kernel" for part in _PROJECTIONS]
            heads = inside.makes(kernels[0], 1)
            for kernel in kernels[1:3]:
                inside.makes(kernel, 1, heads)
            _fix_heads(call, heads, inside.makes(kernels[3], -1))
    return outputs


@dataclasses.dataclass(frozen=True)
class _Heads:
    """Where a decoder's layer has its heads.

    Attributes:
        attention: its attribute with the attention.
        names: of the projections in it: query, key, value, output.
        axis: of the first three kernels, along which the heads lie.
    """

    attention: str
    names: tuple[str, str, str, str]
    axis: int

    def parts(self, layer: Any) -> list[Any]:
        attention = getattr(layer, self.attention)
        return [getattr(attention, name) for name in self.names]

    def trace(self, call: ChannelCall) -> None:
        """A unit is the head of a key and a value, and all queries that read it."""
        layer = call.layer
        parts = self.parts(layer)
        if any(map(computes_kernel, parts)):
            return
        query, key, value, output = (call.inside(part, [], []) for part in parts)
        pairs = key.makes("kernel", self.axis)
        value.makes("kernel", self.axis, pairs)
        repeats = layer.num_query_heads // layer.num_key_value_heads
        heads = query.makes("kernel", self.axis, np.repeat(pairs, repeats))
        for each, made in ((query, heads), (key, pairs), (value, pairs)):
            each.follows("bias", 0, made)
        output.reads("kernel", 0, heads)
        if not hasattr(layer, "head_dim"):
            _fix_heads(call, pairs, output.makes("kernel", -1))

    def resize(self, layer: Any, config: Config, kept: Kept) -> Config:
        if not hasattr(layer, "head_dim"):
            return config
        query, key, *_ = self.parts(layer)
        return {
            **config,
            "num_query_heads": kept.inside(query).size("kernel", self.axis),
            "num_key_value_heads": kept.inside(key).size("kernel", self.axis),
            # Or else it would follow from their number.
            "head_dim": query.kernel.shape[-1],
        }


def _decoder(parts: Parts, heads: _Heads, factor: int = 1) -> ChannelRule:
    """The rule of a decoder's layer: hidden units, and heads."""
    hidden = _feed_forward(parts, "intermediate_dim", factor)

    def trace(call: ChannelCall) -> Any:
        outputs = hidden.trace(call)
        heads.trace(call)
        return outputs

    def resize(layer: Any, config: Config, kept: Kept) -> Config:
        assert hidden.resize is not None
        return heads.resize(layer, hidden.resize(layer, config, kept), kept)

    return ChannelRule(trace, resize)


def _swiglu(heads: _Heads) -> ChannelRule:
    """A decoder's layer that calls an activation of its own on the gate."""
    rule = _decoder(_gated_pair, heads)

    def trace(call: ChannelCall) -> Any:
        outputs = rule.trace(call)
        gate = call.inside(call.layer._feedforward_gate_dense, [], [])
        made = gate.makes("kernel", 1)
        units = LabelledTensor(made[None], (None, len(made)))
        activate(call, units, call.layer.activation)
        return outputs

    return ChannelRule(trace, rule.resize)


def _patch_embedding(call: ChannelCall) -> Any:
    layer = call.layer
    parts = [layer.patch_embedding, layer.position_embedding]
    if any(map(computes_kernel, parts)):
        return call.unknown(f"layer {layer.name!r} computes its kernels")
    x = call.first()
    patches, positions = (call.inside(part, [], []) for part in parts)
    patches.reads("kernel", -2, call.line(x, channel_axis(layer, x.rank)))
    made = patches.makes("kernel", -1)
    patches.follows("bias", 0, made)
    positions.makes("embeddings", 1, made)
    call.follows("class_token", 2, made)
    return call.along_axis(made, -1)


def _resize_patch_embedding(layer: Any, config: Config, kept: Kept) -> Config:
    return {
        **config,
        "hidden_dim": kept.inside(layer.patch_embedding).size("kernel", -1),
    }


# Where the labels go within a composite layer, given those of its input.
Inside = Callable[[ChannelCall, LabelledTensor], LabelledTensor]


def _image_block(inside: Inside, resize: Resize) -> ChannelRule:
    """The rule of a composite layer that keeps to the rules of the layers in it."""

    def trace(call: ChannelCall) -> Any:
        for part in call.layer._flatten_layers(include_self=False):
            if find_rule(type(part)) is None or computes_kernel(part):
                return call.unknown(
                    f"in layer {call.layer.name!r} layer {part.name!r} of class "
                    f"{type(part).__name__} has no channel rule, or computes its kernel"
                )
        return call.tensor(inside(call, call.first()).labels)

    return ChannelRule(trace, resize)


def _through(call: ChannelCall, x: LabelledTensor, *parts: Any) -> LabelledTensor:
    """What comes out of layers inside, called one after the other."""
    for part in parts:
        rule = find_rule(type(part))
        assert rule is not None
        shape = part.compute_output_shape(x.shape)
        result = rule.trace(call.inside(part, [x], [shape]))
        (x,) = result if isinstance(result, list) else [result]
    return x


def _in_steps(call: ChannelCall, conv: Any) -> None:
    """Joins as many channels that a convolution makes as keras_hub rounds to."""
    made = call.inside(conv, [], []).makes("kernel", -1)
    call.atoms.join_along(made.reshape(-1, _DIVISOR), 1)


def _filters(kept: Kept, conv: Any) -> int:
    return kept.inside(conv).size("kernel", -1)


def _squeeze_excite(call: ChannelCall, x: LabelledTensor) -> LabelledTensor:
    layer = call.layer
    x = call.only_along(x, channel_axis(layer.conv_reduce, x.rank))
    means = tuple(
        1 if axis in layer.spatial_dims else size for axis, size in enumerate(x.shape)
    )
    gate = _through(
        call,
        LabelledTensor(x.labels, means),
        layer.conv_reduce,
        layer.activation1,
        layer.conv_expand,
        layer.gate,
    )
    return LabelledTensor(elementwise(call, [x, gate]), x.shape)


def _resize_squeeze_excite(layer: Any, config: Config, kept: Kept) -> Config:
    return {
        **config,
        "filters": _filters(kept, layer.conv_expand),
        "bottleneck_filters": _filters(kept, layer.conv_reduce),
    }


def _excited(call: ChannelCall, x: LabelledTensor, part: Any) -> LabelledTensor:
    """What comes out of a squeeze-and-excitation that may be inside."""
    if part is None:
        return x
    x = _through(call, x, part)
    _in_steps(call, part.conv_reduce)
    return x


def _ratio(config: Config, kept: Kept, part: Any) -> Any:
    """The ratio of which keras_hub makes the number of squeezed channels left."""
    if part is None:
        return config["squeeze_excite_ratio"]
    squeezed = kept.inside(part.conv_reduce)
    return squeezed.size("kernel", -1) / squeezed.size("kernel", -2)


def _plus(call: ChannelCall, x: LabelledTensor, y: LabelledTensor) -> LabelledTensor:
    return LabelledTensor(elementwise(call, [x, y]), y.shape)


def _depthwise_block(call: ChannelCall, x: LabelledTensor) -> LabelledTensor:
    layer = call.layer
    y = _through(
        call,
        x,
        layer.pad,
        layer.conv1,
        layer.batch_normalization1,
        layer.activation1,
    )
    y = _excited(call, y, getattr(layer, "se_layer", None))
    y = _through(call, y, layer.conv2, layer.batch_normalization2)
    # keras_hub 0.19 has none.
    return _plus(call, x, y) if getattr(layer, "residual", False) else y


def _resize_depthwise_block(layer: Any, config: Config, kept: Kept) -> Config:
    return {
        **config,
        "infilters": _filters(kept, layer.conv1),
        "filters": _filters(kept, layer.conv2),
        "squeeze_excite_ratio": _ratio(config, kept, getattr(layer, "se_layer", None)),
    }


def _inverted_block(call: ChannelCall, x: LabelledTensor) -> LabelledTensor:
    layer = call.layer
    y = _through(
        call,
        x,
        layer.conv1,
        layer.batch_normalization1,
        layer.activation1,
        layer.pad,
        layer.conv2,
        layer.batch_normalization2,
        layer.activation2,
    )
    _in_steps(call, layer.conv1)
    y = _excited(call, y, layer.squeeze_excite)
    y = _through(call, y, layer.conv3, layer.batch_normalization3)
    return _plus(call, x, y) if _adds_input(layer) else y


def _adds_input(block: Any) -> bool:
    return bool(block.stride == 1 and block.infilters == block.filters)


def _resize_inverted_block(layer: Any, config: Config, kept: Kept) -> Config:
    inputs = kept.inside(layer.conv1).size("kernel", -2)
    filters = _filters(kept, layer.conv3)
    # Only compared with `filters`: where they were different, they must remain so, or
    # the smaller block would add its input.
    if inputs == filters and not _adds_input(layer):
        inputs = 0
    return {
        **config,
        "expansion": _filters(kept, layer.conv1),
        "infilters": inputs,
        "filters": filters,
        "squeeze_excite_ratio": _ratio(config, kept, layer.squeeze_excite),
    }


def _activated_block(call: ChannelCall, x: LabelledTensor) -> LabelledTensor:
    layer = call.layer
    return _through(
        call, x, layer.conv, layer.batch_normalization, layer.activation_layer
    )


def _resize_activated_block(layer: Any, config: Config, kept: Kept) -> Config:
    return {**config, "filter": _filters(kept, layer.conv)}


_MOBILENET = "keras_hub.src.models.mobilenet.mobilenet_backbone"
_TRANSFORMER = ChannelRule(
    _transformer, _feed_forward(_own_pair, "intermediate_dim").resize
)

_GEMMA_HEADS = _Heads(
    "attention", ("query_dense", "key_dense", "value_dense", "output_dense"), 0
)
_LLAMA_HEADS = _Heads("_self_attention_layer", _PROJECTIONS, 1)

ROWS: dict[type | str, ChannelRule] = {
    "keras_hub.src.models.gemma.gemma_decoder_block.GemmaDecoderBlock": _decoder(
        _gemma_pair, _GEMMA_HEADS, factor=2
    ),
    "keras_hub.src.models.llama.llama_decoder.LlamaTransformerDecoder": _swiglu(
        _LLAMA_HEADS
    ),
    "keras_hub.src.models.mistral.mistral_transformer_decoder."
    "MistralTransformerDecoder": _swiglu(_LLAMA_HEADS),
    "keras_hub.src.layers.modeling.transformer_encoder.TransformerEncoder": (
        _TRANSFORMER
    ),
    "keras_hub.src.layers.modeling.transformer_decoder.TransformerDecoder": (
        _TRANSFORMER
    ),
    "keras_hub.src.models.vit.vit_layers.ViTEncoder": _feed_forward(
        _block_pairs, "mlp_dim"
    ),
    "keras_hub.src.models.vit.vit_layers.ViTPatchingAndEmbedding": ChannelRule(
        _patch_embedding, _resize_patch_embedding
    ),
    f"{_MOBILENET}.SqueezeAndExcite2D": _image_block(
        _squeeze_excite, _resize_squeeze_excite
    ),
    f"{_MOBILENET}.DepthwiseConvBlock": _image_block(
        _depthwise_block, _resize_depthwise_block
    ),
    f"{_MOBILENET}.InvertedResidualBlock": _image_block(
        _inverted_block, _resize_inverted_block
    ),
    f"{_MOBILENET}.ConvBnActBlock": _image_block(
        _activated_block, _resize_activated_block
    ),
}
