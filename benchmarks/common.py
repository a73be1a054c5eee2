"""What the benchmarks share: resumable results, random networks, LiteRT timing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

# TensorFlow reports its start-up on the console unless told not to beforehand.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The examples' data sets; whoever imports this module finds them.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "examples"))

import keras
import numpy as np

import pdp_keras

_PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "numpy")


def describe_machine() -> str:
    """One line with the processor and the versions that figures depend on."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    python = f"Python {platform.python_version()}"
    return ", ".join([f"{os.cpu_count()} cores of {_processor()}", python, *versions])


def _processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a results file, one JSON object a line; none if it is missing."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def append_row(path: pathlib.Path, row: dict[str, Any]) -> None:
    """Adds a row, so that an interrupted benchmark can go on after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def mean_and_std(values: list[float]) -> str:
    """`91.80 ± 0.08`; without the deviation for a single value."""
    text = f"{np.mean(values):.2f}"
    return f"{text} ± {deviation(values):.2f}" if len(values) > 1 else text


def accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """The fraction of images that a model gets right, in percent."""
    logits = model.predict(x, batch_size=500, verbose=0)
    return 100 * float(np.mean(np.argmax(logits, axis=-1) == y))


def process_megabytes(name: str) -> float:
    """Megabytes of one line of this process's status; 0 outside Linux."""
    path = pathlib.Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line for line in lines if line.startswith(name + ":")]
    return 1024 * int(found[0].split()[1]) / 1e6 if found else 0.0


def prune_now(model: Any) -> Any:
    """Takes a pruned model to its full targets without training it; returns it."""
    schedule = pdp_keras.PDPScheduleCallback(ramp_epochs=1)
    schedule.start(model, epochs=1)
    schedule.start_epoch(0)
    return model


def random_inputs(model: Any, count: int, seed: int = 0) -> Any:
    """Inputs in the range that a network was made for, in its input's structure."""
    random = np.random.default_rng(seed)
    preprocessing = (keras.layers.Rescaling, keras.layers.Normalization)
    wants_bytes = any(isinstance(x, preprocessing) for x in model._flatten_layers())

    def draw(tensor: Any) -> np.ndarray:
        shape = (count, *tensor.shape[1:])
        if "int" in str(tensor.dtype):
            return random.integers(0, 2, shape).astype(str(tensor.dtype))
        values = random.standard_normal(shape, "float32")
        return np.clip(128 + 64 * values, 0, 255) if wants_bytes else values

    return keras.tree.map_structure(draw, model.input)


def randomize(model: Any, seed: int = 0) -> Any:
    """Gives a fresh network weights with which its output depends on its input.

    Kernels are drawn from N(0, 2 / fan-in). As Keras initializes them, many networks
    put out nearly the same for every input, and then any two models compare as equal.
    The factors of BatchNormalization are small: at 1 the deepest networks multiply a
    rounding error by up to 1e9, and no two models compare as equal.
    """
    random = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        for variable in getattr(layer, "_trainable_variables", ()):
            shape = tuple(variable.shape)
            if len(shape) > 1:
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                fan_in = np.prod(shape[: -2 if depthwise else -1])
                scale = np.sqrt(2 / fan_in)
                variable.assign(scale * random.standard_normal(shape, "float32"))
            elif isinstance(layer, keras.layers.BatchNormalization):
                if variable is layer.gamma:
                    variable.assign(np.full(shape, 0.1, "float32"))
            elif type(layer).__name__ == "LayerScale":
                # Born as 1e-6, it would hide the block that it scales.
                variable.assign(np.full(shape, 0.5, "float32"))
    return model


def fit_normalizations(model: Any, inputs: Any) -> None:
    """Sets the statistics of every BatchNormalization to those of these inputs."""
    found = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in found]
    for layer in found:
        layer.momentum = 0.0
    try:
        model(inputs, training=True)
    finally:
        for layer, momentum in zip(found, momenta, strict=True):
            layer.momentum = momentum


def relative_difference(got: Any, expected: Any) -> float:
    """The largest difference of two outputs, in units of the expected one's scale."""
    got, expected = np.asarray(got), np.asarray(expected)
    return float(np.max(np.abs(got - expected)) / np.max(np.abs(expected)))


def latencies(
    paths: list[pathlib.Path], runs: int = 15, warm_up: int = 3
) -> list[list[float]]:
    """Seconds of single runs of .tflite files in LiteRT with one thread.

    The files are run turn by turn, so that whatever else the machine does slows all
    of them alike.

    Returns:
        For each file the seconds of its `runs` runs.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreters = [Interpreter(model_path=str(p), num_threads=1) for p in paths]
    for interpreter in interpreters:
        interpreter.allocate_tensors()
        for detail, values in _random_inputs(interpreter):
            interpreter.set_tensor(detail["index"], values)
    seconds: list[list[float]] = [[] for _ in paths]
    for turn in range(warm_up + runs):
        for interpreter, measured in zip(interpreters, seconds, strict=True):
            start = time.perf_counter()
            interpreter.invoke()
            if turn >= warm_up:
                measured.append(time.perf_counter() - start)
    return seconds


def _random_inputs(interpreter: Any) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    random = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = random.standard_normal(detail["shape"])
        if not np.issubdtype(detail["dtype"], np.floating):
            values = values > 0  # 0 and 1: valid wherever indices are wanted
        yield detail, values.astype(detail["dtype"])
