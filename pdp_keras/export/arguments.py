"""The checks of `export_tflite`'s arguments, made before anything is done."""

from __future__ import annotations

import importlib.util
import math
import os
import pathlib
from typing import Any

import keras

from pdp_keras import targets
from pdp_keras.models import require_plain, require_tensorflow
from pdp_keras.targets import Target, vela
from pdp_keras.tflite import QUANTIZATIONS


def check_model(model: Any) -> None:
    """Checks that a model is built, plain, and can be converted."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a `keras.Model` of Keras 3. "
            f"Received: model={model!r} of type {type(model)}"
        )
    require_tensorflow("`export_tflite`")
    require_plain(model, "export")


def check_accelerator(target: str, accelerator: str | None) -> None:
    """Checks that an accelerator goes with the target, and that Vela is there."""
    if accelerator is None:
        return
    if target != "ethos-u":
        raise ValueError(
            "`accelerator` goes with target='ethos-u'. "
            f"Received: accelerator={accelerator!r} and target={target!r}"
        )
    vela.check_accelerator(accelerator)


def check_options(
    target: Any, quantize: Any, representative_dataset: Any, batch_size: Any
) -> Target:
    """Checks the options that depend on the target; returns its row."""
    row = targets.get(target)
    if quantize not in row.quantizations:
        why = f", as {row.why_quantized}" if row.why_quantized else ""
        raise ValueError(
            f"`quantize` must be one of {list(row.quantizations)} for "
            f"target {target!r}{why}. Received: quantize={quantize!r}"
        )
    if QUANTIZATIONS[quantize].calibrated and representative_dataset is None:
        raise ValueError(
            f"`representative_dataset` must be given with quantize={quantize!r}: its "
            "samples set the ranges of the activations. "
            "Received: representative_dataset=None"
        )
    if batch_size is not None and (
        not isinstance(batch_size, int)
        or isinstance(batch_size, bool)
        or batch_size < 1
    ):
        raise ValueError(
            "`batch_size` must be a positive integer, or None for an open batch. "
            f"Received: batch_size={batch_size!r}"
        )
    if batch_size is None and row.fixed_batch:
        raise ValueError(
            f"`batch_size` must be fixed for target {target!r}: its runtime or "
            "compiler takes no open batch. Received: batch_size=None"
        )
    return row


def check_tolerance(tolerance: Any) -> None:
    """Checks that a tolerance is a positive number, or None."""
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if tolerance is not None and not (number and 0 < tolerance < math.inf):
        raise ValueError(
            "`tolerance` must be a positive number, or None for that of the "
            f"quantization. Received: tolerance={tolerance!r}"
        )


def checked_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path, if a file can be written there."""
    checked = pathlib.Path(path)
    if checked.is_dir():
        raise IsADirectoryError(
            f"`path` must be a file's, not a folder's. Received: path={path}"
        )
    if not checked.parent.is_dir():
        raise FileNotFoundError(
            f"The folder of `path` must exist. Received: path={path}"
        )
    if not os.access(checked.parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"The folder of `path` must be writable. Received: path={path}"
        )
    return checked


def check_packages() -> None:
    """Checks that the converter and the runtime are installed."""
    for module, package in (
        ("tensorflow", "tensorflow"),
        ("ai_edge_litert", "ai-edge-litert"),
    ):
        if importlib.util.find_spec(module) is None:
            raise ImportError(
                f"`export_tflite` needs the package {package!r}: "
                f"`pip install {package}`"
            )
