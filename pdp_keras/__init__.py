"""Pruning for Keras 3 with PDP, from `model.fit` to a model for the device."""

from pdp_keras.allocation import GlobalMagnitude, WeightInfo
from pdp_keras.callbacks import PDPScheduleCallback
from pdp_keras.channels.rules import ChannelRule, register_channel_rule
from pdp_keras.export import ExportReport, export_tflite
from pdp_keras.layers import PDPWrapper
from pdp_keras.masks import AbsoluteTemperature, RelativeTemperature
from pdp_keras.models import KernelAxes, count_macs, register_prunable_layer
from pdp_keras.modes import NM, Channel, Unstructured
from pdp_keras.prune import prune_model
from pdp_keras.report import SparsityReport, sparsity_report
from pdp_keras.strip import strip_pruning
from pdp_keras.targets import DeployCheck, deploy_check
from pdp_keras.tflite import ExportError
from pdp_keras.version import __version__

__all__ = [
    "NM",
    "AbsoluteTemperature",
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
    "register_channel_rule",
    "register_prunable_layer",
    "sparsity_report",
    "strip_pruning",
]
