"""How a mask is made in training: PDP, and what papers compare it with.

One file a method; `get` makes one from its name.
"""

from pdp_keras.methods.acdc import ACDC
from pdp_keras.methods.base import Extra, Group, Method, Weight
from pdp_keras.methods.channel_method import ChannelMethod
from pdp_keras.methods.dcp import DCP
from pdp_keras.methods.dnw import DNW
from pdp_keras.methods.gmp import GMP
from pdp_keras.methods.granet import GraNet
from pdp_keras.methods.learned_scores import LearnedScores
from pdp_keras.methods.learned_threshold import STR
from pdp_keras.methods.movement import Movement, SoftMovement
from pdp_keras.methods.nisp import NISP
from pdp_keras.methods.optg import OptG
from pdp_keras.methods.pdp import PDP, PaperPDP
from pdp_keras.methods.pofa import POFA
from pdp_keras.methods.registry import (
    METHODS,
    deserialize,
    get,
    require_mode,
    resolve_temperature,
    serialize,
)
from pdp_keras.methods.rigl import RigL
from pdp_keras.methods.scp import SCP
from pdp_keras.methods.sr_ste import SRSTE
from pdp_keras.methods.stored_mask import StoredMask

__all__ = [
    "ACDC",
    "DCP",
    "DNW",
    "GMP",
    "METHODS",
    "NISP",
    "PDP",
    "POFA",
    "SCP",
    "SRSTE",
    "STR",
    "ChannelMethod",
    "Extra",
    "GraNet",
    "Group",
    "LearnedScores",
    "Method",
    "Movement",
    "OptG",
    "PaperPDP",
    "RigL",
    "SoftMovement",
    "StoredMask",
    "Weight",
    "deserialize",
    "get",
    "require_mode",
    "resolve_temperature",
    "serialize",
]
