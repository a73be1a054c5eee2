"""What each family of devices wants of a model, and what it makes of it."""

from pdp_keras.targets import vela
from pdp_keras.targets.deploy import deploy_check
from pdp_keras.targets.registry import TARGETS, Target, get
from pdp_keras.targets.report import DeployCheck
from pdp_keras.targets.vela import VelaReport

__all__ = [
    "TARGETS",
    "DeployCheck",
    "Target",
    "VelaReport",
    "deploy_check",
    "get",
    "vela",
]
