"""Pruning for Keras 3 with PDP, from `model.fit` to a model for the device."""

from pdp_keras.allocation import GlobalMagnitude, WeightInfo
from pdp_keras.callbacks import PDPScheduleCallback
from pdp_keras.export import ExportReport, export_tflite
from pdp_keras.layer_table import KernelAxes, register_prunable_layer
from pdp_keras.modes import Unstructured
from pdp_keras.prune import prune_model
from pdp_keras.report import SparsityReport, sparsity_report
from pdp_keras.strip import strip_pruning
from pdp_keras.temperatures import AbsoluteTemperature, RelativeTemperature
from pdp_keras.version import __version__
from pdp_keras.wrapper import PDPWrapper

__all__ = [
    "AbsoluteTemperature",
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
    "export_tflite",
    "prune_model",
    "register_prunable_layer",
    "sparsity_report",
    "strip_pruning",
]
