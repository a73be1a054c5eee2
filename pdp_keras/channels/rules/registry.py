"""The table of channel rules: how channels pass through each class of layers.

A rule goes with a class, and with those subclasses that do not override `call`.
Classes without a rule keep all channels that reach them.
"""

from __future__ import annotations

import keras

from pdp_keras.channels.rules import (
    attention,
    hub,
    kernels,
    layers,
    normalization,
    operations,
    recurrent,
)
from pdp_keras.channels.rules.base import (
    RULES,
    ChannelCall,
    ChannelRule,
    Kept,
    find_rule,
)

__all__ = ["ChannelCall", "ChannelRule", "Kept", "find_rule", "register_channel_rule"]

for _family in (
    attention,
    hub,
    kernels,
    layers,
    normalization,
    operations,
    recurrent,
):
    RULES.update(_family.ROWS)


def register_channel_rule(layer_class: type, rule: ChannelRule) -> None:
    """Says how channels pass through a custom layer.

    Args:
        layer_class: a subclass of `keras.layers.Layer`. Its subclasses inherit the
            rule if they do not override `call`.
        rule: a `ChannelRule`.

    Raises:
        TypeError: if `layer_class` is not a layer class, or `rule` not a rule.

    Example:

    A layer with a scale for each channel and an argument `size`.

    >>> def trace(call):
    ...     line = call.line(call.first(), -1)
    ...     call.follows("scale", 0, line)
    ...     return call.along_axis(line, -1)
    >>> def resize(layer, config, kept):
    ...     return {**config, "size": kept.size("scale", 0)}
    >>> register_channel_rule(ScaleLayer, ChannelRule(trace, resize))
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise TypeError(
            "layer_class must be a subclass of keras.layers.Layer. "
            f"Received: layer_class={layer_class!r}"
        )
    if not isinstance(rule, ChannelRule):
        raise TypeError(f"rule must be a ChannelRule. Received: rule={rule!r}")
    RULES[layer_class] = rule
