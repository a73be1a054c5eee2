"""Pruning for Keras 3 with PDP, from `model.fit` to a model for the device."""

from typing import Any

from pdp_keras.allocation import GlobalMagnitude, WeightInfo
from pdp_keras.at_target import AtTarget
from pdp_keras.callbacks import PDPScheduleCallback
from pdp_keras.channels.rules import ChannelRule, register_channel_rule
from pdp_keras.export import ExportReport, export_tflite
from pdp_keras.layers import PDPWrapper
from pdp_keras.masks import AbsoluteTemperature, RelativeTemperature
from pdp_keras.models import KernelAxes, count_macs, register_prunable_layer
from pdp_keras.modes import NM, Block, Channel, Unstructured
from pdp_keras.prune import prune_model
from pdp_keras.prune_once import prune_once
from pdp_keras.report import SparsityReport, sparsity_report
from pdp_keras.seeds import BackupSeeds
from pdp_keras.strip import strip_pruning
from pdp_keras.targets import DeployCheck, deploy_check
from pdp_keras.tflite import ExportError
from pdp_keras.version import __version__

__all__ = [
    "NM",
    "AbsoluteTemperature",
    "AtTarget",
    "BackupSeeds",
    "Block",
    "Channel",
    "ChannelRule",
    "DeployCheck",
    "ExportError",
    "ExportReport",
    "GlobalMagnitude",
    "KernelAxes",
    "PDPScheduleCallback",
    "PDPWrapper",
    "RelativeTemperature",
    "SparsityReport",
    "Unstructured",
    "WeightInfo",
    "__version__",
    "count_macs",
    "deploy_check",
    "export_tflite",
    "prune_model",
    "prune_once",
    "register_channel_rule",
    "register_prunable_layer",
    "sparsity_report",
    "strip_pruning",
]


def __getattr__(name: str) -> Any:
    """Imports `pdp_keras.plot` when it is first used: it needs matplotlib."""
    if name == "plot":
        import importlib

        return importlib.import_module("pdp_keras.plot")
    raise AttributeError(f"module 'pdp_keras' has no attribute {name!r}")
