"""`export_tflite`: a stripped model as a file that was run and compared."""

from pdp_keras.export.report import ExportReport
from pdp_keras.export.tflite import export_tflite

__all__ = [
    "ExportReport",
    "export_tflite",
]
