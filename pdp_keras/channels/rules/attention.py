"""Channel rules of attention layers: a head is a unit."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers

from pdp_keras.channels.labels import LabelledTensor, Labels
from pdp_keras.channels.rules.base import ChannelCall, ChannelRule, Config, Kept


def _operands(call: ChannelCall) -> tuple[list[Any], list[LabelledTensor]]:
    """Query, value and key; then the other tensors, which are masks."""
    given = inspect.signature(call.layer.call).bind(*call.args, **call.kwargs)
    names = ("query", "value", "key")
    found = {name: given.arguments.get(name) for name in names}
    if found["key"] is None:
        found["key"] = found["value"]
    operands = [found[name] for name in names]
    chosen = [id(x) for x in operands]
    return operands, [x for x in call.inputs if id(x) not in chosen]


def _project(
    call: ChannelCall, name: str, x: LabelledTensor, heads: Labels | None = None
) -> Labels:
    """The labels of the heads that a projection makes."""
    call.reads(f"{name}.kernel", 0, call.line(x, -1))
    made = call.makes(f"{name}.kernel", 1, heads)
    call.follows(f"{name}.bias", 0, made)
    return made


def _combine(call: ChannelCall, heads: Labels) -> Labels:
    """The labels of the channels that the output projection makes of the heads."""
    call.reads("_output_dense.kernel", 0, heads)
    made = call.makes("_output_dense.kernel", -1)
    call.follows("_output_dense.bias", -1, made)
    return made


def _outputs(call: ChannelCall, made: Labels, heads: Labels) -> list[LabelledTensor]:
    outputs = [call.along_axis(made, -1)]
    if len(call.output_shapes) > 1:  # the scores of each head
        outputs.append(call.along_axis(heads, 1, 1))
    return outputs


def _fix_masks(
    call: ChannelCall, masks: Sequence[LabelledTensor], heads: Labels
) -> None:
    for mask in masks:
        call.fix(mask, "{layer} takes them as a mask")
        if mask.rank > 3 and mask.shape[1] != 1:
            call.atoms.fix(heads, "structure", "a mask is given for each head")


def _multi_head(call: ChannelCall) -> Any:
    layer = call.layer
    (query, value, key), masks = _operands(call)
    heads = _project(call, "_query_dense", query)
    _project(call, "_key_dense", key, heads)
    _project(call, "_value_dense", value, heads)
    if call.weight("_gate_dense") is not None:
        _project(call, "_gate_dense", query, heads)
    _fix_masks(call, masks, heads)
    made = _combine(call, heads)
    if len(layer._output_dense.kernel.shape) != 3:
        call.atoms.fix(
            made, "structure", f"layer {layer.name!r} has outputs of several axes"
        )
        return [
            *call.fixed()[:1],
            *(call.along_axis(heads, 1, i) for i in range(1, len(call.output_shapes))),
        ]
    return _outputs(call, made, heads)


def _resize_multi_head(layer: Any, config: Config, kept: Kept) -> Config:
    config = {**config, "num_heads": kept.size("_query_dense.kernel", 1)}
    if len(layer._output_dense.kernel.shape) == 3:
        # Without it the layer would make as many as the query has.
        size = kept.size("_output_dense.kernel", -1)
        config["output_shape"] = (size,)
    return config


def _grouped_query(call: ChannelCall) -> Any:
    layer = call.layer
    (query, value, key), masks = _operands(call)
    pairs = _project(call, "_key_dense", key)
    _project(call, "_value_dense", value, pairs)
    heads = np.repeat(pairs, layer.num_repeats)
    _project(call, "_query_dense", query, heads)
    if call.weight("_gate_dense") is not None:
        _project(call, "_gate_dense", query, heads)
    _fix_masks(call, masks, heads)
    made = _combine(call, heads)
    # It makes as many channels as the query has; no argument says otherwise.
    call.atoms.join(made, call.line(query, -1))
    return _outputs(call, made, heads)


def _resize_grouped_query(layer: Any, config: Config, kept: Kept) -> Config:
    return {
        **config,
        "num_query_heads": kept.size("_query_dense.kernel", 1),
        "num_key_value_heads": kept.size("_key_dense.kernel", 1),
    }


def _dot_product(call: ChannelCall) -> Any:
    for x in call.inputs:
        call.fix(x, "{layer} compares all of them")
    return call.fixed()


ROWS: dict[type | str, ChannelRule] = {
    layers.MultiHeadAttention: ChannelRule(_multi_head, _resize_multi_head),
    layers.GroupQueryAttention: ChannelRule(_grouped_query, _resize_grouped_query),
    layers.Attention: ChannelRule(_dot_product),
    layers.AdditiveAttention: ChannelRule(_dot_product),
}
