"""Channel rules of recurrent layers and of the wrappers around layers.

A gated layer keeps its gates side by side in one kernel: the labels of its units are
repeated once for each gate.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from keras import layers, tree

from pdp_keras.channels.labels import LabelledTensor, fixed_tensor
from pdp_keras.channels.rules.base import (
    ChannelCall,
    ChannelRule,
    Config,
    Kept,
    activate,
    find_rule,
)


def _recurrent(gates: int) -> ChannelRule:
    def trace(call: ChannelCall) -> Any:
        layer = call.layer
        if layer.stateful:
            return call.unknown(f"layer {layer.name!r} is stateful: it keeps a state")
        given = inspect.signature(layer.call).bind(*call.args, **call.kwargs)
        x = call.inputs[0]
        initial = tree.flatten(given.arguments.get("initial_state"))
        initial = [state for state in initial if isinstance(state, LabelledTensor)]
        for other in call.inputs[1:]:
            if not any(other is state for state in initial):
                call.fix(other, "{layer} needs them all")
        call.reads("cell.kernel", 0, call.line(x, -1))
        tiled = call.makes("cell.kernel", 1)
        units = tiled.reshape(gates, -1)
        call.atoms.join_along(units, 0)
        line = units[0]
        call.reads("cell.recurrent_kernel", 0, line)
        call.makes("cell.recurrent_kernel", 1, np.tile(line, gates))
        call.follows("cell.bias", -1, np.tile(line, gates))
        for state in initial:
            call.atoms.join(call.line(state, -1), line)
        for name in ("activation", "recurrent_activation"):
            function = getattr(layer.cell, name, None)
            activate(call, LabelledTensor(line[None], (None, len(line))), function)
        return [
            call.along_axis(line, -1, output)
            for output in range(len(call.output_shapes))
        ]

    def resize(layer: Any, config: Config, kept: Kept) -> Config:
        return {**config, "units": kept.size("cell.recurrent_kernel", 0)}

    return ChannelRule(trace, resize)


def _inner(config: Config, name: str, layer: Any, kept: Kept) -> Config:
    """The config of a wrapper with the config of the layer inside made smaller."""
    rule = find_rule(type(layer))
    # The shape that the inner layer was built on would build it again.
    inner = {k: v for k, v in config[name].items() if k != "build_config"}
    if rule is not None and rule.resize is not None:
        inner["config"] = rule.resize(layer, inner["config"], kept.inside(layer))
    return {**config, name: inner}


def _bidirectional(call: ChannelCall) -> Any:
    layer = call.layer
    both = [layer.forward_layer, layer.backward_layer]
    rules = [find_rule(type(part)) for part in both]
    if len(call.inputs) > 1 or len(call.output_shapes) > 2 or layer.return_state:
        return call.unknown(f"layer {layer.name!r}: states go in or out of it")
    units = [part.cell.units if type(part) in _UNITS else None for part in both]
    if None in rules or None in units or units[0] != units[1]:
        return call.unknown()
    shape = call.output_shapes[0]
    outputs = []
    for part, rule, size in zip(both, rules, units, strict=True):
        inside = call.inside(part, call.inputs, [(*shape[:-1], size)])
        (output,) = rule.trace(inside)  # type: ignore[union-attr, misc]
        outputs.append(output)
    lines = [call.line(output, -1) for output in outputs]
    # Keras computes its output shape as if both had the same number of units.
    call.atoms.join(*lines)
    if layer.merge_mode is None:
        return outputs
    if layer.merge_mode == "concat":
        return call.along_axis(np.concatenate(lines), -1)
    return call.along_axis(lines[0], -1)


def _resize_bidirectional(layer: Any, config: Config, kept: Kept) -> Config:
    config = _inner(config, "layer", layer.forward_layer, kept)
    return _inner(config, "backward_layer", layer.backward_layer, kept)


def _time_distributed(call: ChannelCall) -> Any:
    layer = call.layer.layer
    rule = find_rule(type(layer))
    if rule is None or rule.by_place or len(call.output_shapes) > 1:
        return call.unknown()
    x = call.constant_along(call.first(), 1)
    (shape,) = call.output_shapes
    step = LabelledTensor(x.labels[:, 0], (x.shape[0], *x.shape[2:]))
    result = rule.trace(call.inside(layer, [step], [(shape[0], *shape[2:])]))
    (output,) = result if isinstance(result, list) else [result]
    if output.rank + 1 != len(shape):
        return fixed_tensor(shape)
    return call.tensor(output.labels[:, None])


def _resize_time_distributed(layer: Any, config: Config, kept: Kept) -> Config:
    def without_time(masks: list[list[Any]]) -> list[list[Any]]:
        return [[tensor[0], *tensor[2:]] for tensor in masks]

    step = Kept(
        kept.sizes, layer, without_time(kept.inputs), without_time(kept.outputs)
    )
    return _inner(config, "layer", layer.layer, step)


_UNITS = (layers.LSTM, layers.GRU, layers.SimpleRNN)

ROWS: dict[type | str, ChannelRule] = {
    layers.LSTM: _recurrent(gates=4),
    layers.GRU: _recurrent(gates=3),
    layers.SimpleRNN: _recurrent(gates=1),
    layers.Bidirectional: ChannelRule(_bidirectional, _resize_bidirectional),
    layers.TimeDistributed: ChannelRule(_time_distributed, _resize_time_distributed),
}
