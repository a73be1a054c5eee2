"""How channels pass through each class of layers: one file a family."""

from pdp_keras.channels.rules.base import ChannelCall, ChannelRule, Kept, find_rule
from pdp_keras.channels.rules.registry import register_channel_rule

__all__ = [
    "ChannelCall",
    "ChannelRule",
    "Kept",
    "find_rule",
    "register_channel_rule",
]
