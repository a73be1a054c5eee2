"""What the training scripts share: flags, recipe, a line an epoch, test accuracy."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import data
import keras
import numpy as np
from absl import app, flags

import pdp_keras

DATASET = flags.DEFINE_string(
    "dataset",
    "digits",
    "'digits', or an image classification data set of TensorFlow Datasets by name; "
    "fashion_mnist is read from local IDX files where there are any.",
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder with IDX files, or folder of TensorFlow Datasets."
)
SPARSITY = flags.DEFINE_float(
    "sparsity", None, "Fraction of zeros, in [0, 1). Default: the script's."
)
EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Default: depends on the data set.", lower_bound=1
)
SEED = flags.DEFINE_integer("seed", 0, "The first seed.", lower_bound=0)
OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder for the results. Default: one below ./pdp_output."
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How long, in epochs, and how fast to train on one data set."""

    epochs: int
    warmup_epochs: int
    ramp_epochs: int
    batch_size: int = 64
    learning_rate: float = 2e-3


def compile_model(model: keras.Model, recipe: Recipe, examples: int) -> None:
    """Prepares for training: Adam with a learning rate that falls to 0 by cosine."""
    steps = recipe.epochs * math.ceil(examples / recipe.batch_size)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def new_schedule(recipe: Recipe) -> pdp_keras.PDPScheduleCallback:
    """The callback that raises the sparsity."""
    return pdp_keras.PDPScheduleCallback(
        warmup_epochs=recipe.warmup_epochs, ramp_epochs=recipe.ramp_epochs
    )


class EpochLine(keras.callbacks.Callback):
    """Prints one short line for about every tenth of the epochs."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        epochs = self.params["epochs"]
        every = max(1, epochs // 10)
        if (epoch + 1) % every and epoch + 1 != epochs:
            return
        logs = logs or {}
        parts = [f"  epoch {epoch + 1:3d}/{epochs}", f"loss {logs['loss']:.4f}"]
        parts += [
            f"{name} {logs[key]:6.2%}"
            for name, key in (
                ("train", "accuracy"),
                ("validation", "val_accuracy"),
                ("sparsity", "sparsity"),
            )
            if key in logs
        ]
        print("   ".join(parts), flush=True)


def fit(
    model: keras.Model,
    images: data.ImageData,
    recipe: Recipe,
    seed: int,
    *callbacks: Any,
) -> tuple[dict[str, list[float]], float]:
    """Trains the model; returns its history and the seconds that it took."""
    keras.utils.set_random_seed(seed)  # The same batches for both networks.
    compile_model(model, recipe, len(images.x_train))
    start = time.perf_counter()
    history = model.fit(
        images.x_train,
        images.y_train,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation_data=(images.x_val, images.y_val),
        callbacks=[*callbacks, EpochLine()],
        verbose=0,
    )
    return history.history, time.perf_counter() - start


def keras_test_accuracy(model: keras.Model, images: data.ImageData) -> float:
    """The fraction of test images that a Keras model gets right."""
    logits = model.predict(images.x_test, batch_size=256, verbose=0)
    return float(np.mean(np.argmax(logits, axis=-1) == images.y_test))


def tflite_test_accuracy(path: pathlib.Path, images: data.ImageData) -> float:
    """The fraction of test images that a .tflite file of batch 1 gets right."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    (output,) = interpreter.get_output_details()
    x = images.x_test
    if entry["dtype"] != np.float32:
        scale, zero_point = entry["quantization"]
        limits = np.iinfo(entry["dtype"])
        x = np.clip(np.round(x / scale) + zero_point, limits.min, limits.max)
    correct = 0
    for image, label in zip(x.astype(entry["dtype"]), images.y_test, strict=True):
        interpreter.set_tensor(entry["index"], image[np.newaxis])
        interpreter.invoke()
        # The scale of quantized logits does not change which one is largest.
        correct += int(np.argmax(interpreter.get_tensor(output["index"])[0]) == label)
    return correct / len(x)


def export_and_test(
    model: keras.Model, path: pathlib.Path, images: data.ImageData, **arguments: Any
) -> dict[str, Any]:
    """Writes a .tflite file and tests it; the row of the results.

    Args:
        model: the Keras model.
        path: the file.
        images: some of the training images calibrate, those for testing test.
        **arguments: of `export_tflite`.
    """
    report = pdp_keras.export_tflite(
        model, path, representative_dataset=images.x_train[:256], **arguments
    )
    return {
        "file": path.name,
        "size_bytes": report.size_bytes,
        "gzip_bytes": report.gzip_bytes,
        "sparse_encoding": report.sparse_encoding,
        "max_difference": report.max_difference,
        "relative_difference": report.relative_difference,
        "test_accuracy": tflite_test_accuracy(path, images),
    }


def sparsity(default: float) -> float:
    """The flag's, or else the script's own."""
    return default if SPARSITY.value is None else SPARSITY.value


def prepare(pruned: keras.Model, recipe: Recipe, default: str) -> pathlib.Path:
    """Stops a run with a wrong flag now, and not after the dense training.

    Returns:
        The flag's folder, or else `default` of ./pdp_output; it exists then.
    """
    new_schedule(recipe).start(pruned, epochs=recipe.epochs)
    given = OUTPUT_DIR.value or pathlib.Path("pdp_output") / default
    folder = pathlib.Path(given).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_results(folder: pathlib.Path, results: dict[str, Any]) -> None:
    """Writes all figures."""
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def heading(text: str) -> None:
    """Prints a heading."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def run_script(argv: list[str], run: Callable[[], None]) -> None:
    """Runs a script; what a user can mend needs no traceback."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    try:
        run()
    except (ValueError, OSError, ImportError, pdp_keras.ExportError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
