"""The wrapper that computes with masked weights, and the state that it keeps."""

from pdp_keras.layers.counters import add_counter, add_extra, add_temperature_scale
from pdp_keras.layers.held import hard_values, held_value
from pdp_keras.layers.inference import mask_each_batch, mask_once
from pdp_keras.layers.masked_layer import MaskedLayer, noted_calls
from pdp_keras.layers.normalization import can_normalize, masked_normalization
from pdp_keras.layers.pruned_weight import UNSET, Counted, PrunedWeight, describe
from pdp_keras.layers.settings import MaskSettings
from pdp_keras.layers.stacks import masked_at_once, outermost_call, set_home
from pdp_keras.layers.wrapper import PDPWrapper

__all__ = [
    "UNSET",
    "Counted",
    "MaskSettings",
    "MaskedLayer",
    "PDPWrapper",
    "PrunedWeight",
    "add_counter",
    "add_extra",
    "add_temperature_scale",
    "can_normalize",
    "describe",
    "hard_values",
    "held_value",
    "mask_each_batch",
    "mask_once",
    "masked_at_once",
    "masked_normalization",
    "noted_calls",
    "outermost_call",
    "set_home",
]
