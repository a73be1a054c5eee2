"""Channels that live and die together: found, masked in training, then removed.

`rules` say how channels pass through each class of layers; `trace` follows them through
a model; `plan`, `group` and `wrapper` mask them in training; `surgery` removes them.
"""

from pdp_keras.channels.classes import must_keep_class, needs_equal_widths
from pdp_keras.channels.group import ChannelGroup
from pdp_keras.channels.plan import ChannelPlanner
from pdp_keras.channels.surgery import remove_channels
from pdp_keras.channels.wrapper import ChannelWrapper

__all__ = [
    "ChannelGroup",
    "ChannelPlanner",
    "ChannelWrapper",
    "must_keep_class",
    "needs_equal_widths",
    "remove_channels",
]
