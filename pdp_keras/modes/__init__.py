"""What is pruned together: weights, N of M, blocks, or channels. One file a mode."""

from pdp_keras.modes.base import Mode
from pdp_keras.modes.block import Block
from pdp_keras.modes.channel import Channel, safe_sqrt
from pdp_keras.modes.choice import choose_kernels
from pdp_keras.modes.n_of_m import NM
from pdp_keras.modes.registry import deserialize, get, serialize
from pdp_keras.modes.unstructured import Unstructured

__all__ = [
    "NM",
    "Block",
    "Channel",
    "Mode",
    "Unstructured",
    "choose_kernels",
    "deserialize",
    "get",
    "safe_sqrt",
    "serialize",
]
