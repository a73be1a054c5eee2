"""Conversion to `.tflite`, and what is read from such files and edited in them."""

from pdp_keras.tflite import conversion
from pdp_keras.tflite.conversion import (
    QUANTIZATIONS,
    Edit,
    ExportError,
    Quantization,
    TracedModel,
)
from pdp_keras.tflite.difference import Difference, largest_difference
from pdp_keras.tflite.edits import edit_for_xnnpack
from pdp_keras.tflite.encoding import better_encoding, encoded_model
from pdp_keras.tflite.file import stored_tensors, stored_weights
from pdp_keras.tflite.graph import FileGraph, FileOperator, FileTensor, read_graph

__all__ = [
    "QUANTIZATIONS",
    "Difference",
    "Edit",
    "ExportError",
    "FileGraph",
    "FileOperator",
    "FileTensor",
    "Quantization",
    "TracedModel",
    "better_encoding",
    "conversion",
    "edit_for_xnnpack",
    "encoded_model",
    "largest_difference",
    "read_graph",
    "stored_tensors",
    "stored_weights",
]
