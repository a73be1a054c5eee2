"""Channel rules of keras_hub's transformer layers, which need not be installed.

Each is one layer for Keras, with a residual stream through it that keeps its channels.
The hidden units of its feed-forward part can be removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pdp_keras.channel_labels import LabelledTensor
from pdp_keras.channel_rules_base import (
    ChannelCall,
    ChannelRule,
    Config,
    Kept,
    activate,
)

# From a layer to its pairs of Dense layers: into the hidden units, and out of them.
Pairs = Callable[[Any], Sequence[tuple[Any, Any]]]


def _feed_forward(pairs: Pairs, argument: str) -> ChannelRule:
    """The rule of a layer whose `argument` says how wide its hidden layers are."""

    def trace(call: ChannelCall) -> Any:
        for x in call.inputs:
            call.fix(x, "{layer} adds to them in a residual stream of its own")
        hidden = None
        for into, out_of in pairs(call.layer):
            inside = call.inside(into, [], [])
            made = inside.makes("kernel", 1)
            inside.follows("bias", 0, made)
            call.inside(out_of, [], []).reads("kernel", 0, made)
            units = LabelledTensor(made[None], (None, len(made)))
            activate(inside, units, into.activation)
            # One argument for all of them: they stay equally wide.
            hidden = made if hidden is None else hidden
            call.atoms.join(hidden, made)
        return call.fixed()

    def resize(layer: Any, config: Config, kept: Kept) -> Config:
        into, _ = pairs(layer)[0]
        return {**config, argument: kept.inside(into).size("kernel", 1)}

    return ChannelRule(trace, resize)


def _own_pair(layer: Any) -> list[tuple[Any, Any]]:
    return [(layer._feedforward_intermediate_dense, layer._feedforward_output_dense)]


def _block_pairs(layer: Any) -> list[tuple[Any, Any]]:
    return [(block.mlp.dense_1, block.mlp.dense_2) for block in layer.encoder_layers]


_TRANSFORMER = _feed_forward(_own_pair, "intermediate_dim")

ROWS: dict[type | str, ChannelRule] = {
    "keras_hub.src.layers.modeling.transformer_encoder.TransformerEncoder": (
        _TRANSFORMER
    ),
    "keras_hub.src.layers.modeling.transformer_decoder.TransformerDecoder": (
        _TRANSFORMER
    ),
    "keras_hub.src.models.vit.vit_layers.ViTEncoder": _feed_forward(
        _block_pairs, "mlp_dim"
    ),
}
