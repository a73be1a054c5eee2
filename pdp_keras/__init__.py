"""Pruning for Keras 3 with PDP, from `model.fit` to a model for the device."""

from pdp_keras.allocation import GlobalMagnitude, WeightInfo
from pdp_keras.callbacks import PDPScheduleCallback
from pdp_keras.channel import Channel
from pdp_keras.channel_rules import ChannelRule, register_channel_rule
from pdp_keras.deploy import deploy_check
from pdp_keras.deploy_report import DeployCheck
from pdp_keras.export import ExportReport, export_tflite
from pdp_keras.layer_table import KernelAxes, register_prunable_layer
from pdp_keras.macs import count_macs
from pdp_keras.n_of_m import NM
from pdp_keras.prune import prune_model
from pdp_keras.report import SparsityReport, sparsity_report
from pdp_keras.strip import strip_pruning
from pdp_keras.temperatures import AbsoluteTemperature, RelativeTemperature
from pdp_keras.unstructured import Unstructured
from pdp_keras.version import __version__
from pdp_keras.wrapper import PDPWrapper

__all__ = [
    "NM",
    "AbsoluteTemperature",
    "Channel",
    "ChannelRule",
    "DeployCheck",
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
