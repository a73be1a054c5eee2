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


def register_channel_rule(layer_class: type, rule: ChannelRule | type) -> None:
    """Says how channels pass through a custom layer.

    Args:
        layer_class: a subclass of `keras.layers.Layer`. Its subclasses inherit the
            rule if they do not override `call`.
        rule: a `ChannelRule`; or a class that has one, which it takes over.

    Raises:
        TypeError: if `layer_class` is not a layer class, or `rule` neither a rule nor
            a class with one.

    Example:

    A layer with a scale for each channel and an argument `size`.

    >>> def trace(call):
    ...     line = call.line(call.first(), -1)
    ...     call.follows("scale", 0, line)
    ...     return call.along_axis(line, -1)
    >>> def resize(layer, config, kept):
    ...     return {**config, "size": kept.size("scale", 0)}
    >>> register_channel_rule(ScaleLayer, ChannelRule(trace, resize))

    A Dense whose own `call` rounds the kernel, and no more:

    >>> register_channel_rule(RoundedDense, keras.layers.Dense)
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise TypeError(
            "layer_class must be a subclass of keras.layers.Layer. "
            f"Received: layer_class={layer_class!r}"
        )
    found = find_rule(rule) if isinstance(rule, type) else rule
    if not isinstance(found, ChannelRule):
        raise TypeError(
            "rule must be a ChannelRule, or a class that has one. "
            f"Received: rule={rule!r}"
        )
    RULES[layer_class] = found
