"""Trains a small network dense and pruned, and compares the two down to the phone.

    python examples/train.py                              # digits, about a minute
    python examples/train.py --dataset=fashion_mnist --seeds=3
    python examples/train.py --dataset=cifar10 --epochs=40 --sparsity=0.8

Both networks start from the same weights and train for the same number of epochs.
The validation split is watched while they train; the test split is used once, at
the end, for the Keras models and for the exported files in LiteRT. Into
`--output_dir` go the pruned model (`.keras`), the exported files (`.tflite`), plots
(`.png`) and all figures (`results.json`).
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from typing import Any

# TensorFlow reports its start-up on the console unless told not to beforehand.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import data
import keras
import numpy as np
import training
from absl import app, flags
from training import Recipe, heading

import pdp_keras
from pdp_keras import plot

flags.adopt_module_key_flags(training)

_SPARSITY = 0.9
_QUANTIZATIONS = ("none", "float16", "dynamic", "int8")


DEFAULT_RECIPE = Recipe(epochs=30, warmup_epochs=3, ramp_epochs=12)
RECIPES = {
    "digits": Recipe(epochs=40, warmup_epochs=4, ramp_epochs=16, batch_size=32),
    "fashion_mnist": Recipe(epochs=8, warmup_epochs=1, ramp_epochs=3, batch_size=128),
}

_TEMPERATURE = flags.DEFINE_float(
    "temperature", None, "tau in units of w**2; by default the library's own choice."
)
_WARMUP_EPOCHS = flags.DEFINE_integer(
    "warmup_epochs", None, "Epochs before anything is pruned.", lower_bound=0
)
_RAMP_EPOCHS = flags.DEFINE_integer(
    "ramp_epochs", None, "Epochs in which the sparsity rises.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images a step.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "Adam's, at the start; falls by cosine.", lower_bound=0.0
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many runs.", lower_bound=1)
_QUANTIZE = flags.DEFINE_list(
    "quantize",
    ["none", "int8"],
    f"Kinds of .tflite files to write, of {', '.join(_QUANTIZATIONS)}.",
)


def recipe_from_flags() -> Recipe:
    """The data set's recipe, with what was given on the command line in its place."""
    given = {
        "epochs": training.EPOCHS.value,
        "warmup_epochs": _WARMUP_EPOCHS.value,
        "ramp_epochs": _RAMP_EPOCHS.value,
        "batch_size": _BATCH_SIZE.value,
        "learning_rate": _LEARNING_RATE.value,
    }
    recipe = RECIPES.get(training.DATASET.value, DEFAULT_RECIPE)
    return dataclasses.replace(
        recipe, **{name: value for name, value in given.items() if value is not None}
    )


def build_model(image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """A convolutional network: images in [0, 1] of this shape to logits.

    Three convolutions, each followed by pooling, and two dense layers; one more
    convolution for each factor of two by which the images exceed 64 pixels.
    """
    stages = max(3, math.ceil(math.log2(max(image_shape[:2]) / 8)))
    inputs = x = keras.Input(image_shape, name="image")
    for stage in range(stages):
        filters = min(16 * 2**stage, 128)
        # Pooling first: what follows then has a quarter of the pixels to work on.
        # No bias, as BatchNormalization adds its own. Its momentum: Keras's 0.99
        # needs far more steps than a small data set has.
        x = keras.layers.Conv2D(
            filters, 3, padding="same", use_bias=False, name=f"conv{stage + 1}"
        )(x)
        x = keras.layers.MaxPooling2D(padding="same", name=f"pool{stage + 1}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{stage + 1}")(x)
        x = keras.layers.ReLU(name=f"relu{stage + 1}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dropout(0.3, name="dropout")(x)
    x = keras.layers.Dense(512, activation="relu", name="dense")(x)
    outputs = keras.layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, outputs, name="cnn")


def new_models(images: data.ImageData, seed: int) -> tuple[keras.Model, keras.Model]:
    """A dense and a pruned network with the same initial weights."""
    keras.utils.set_random_seed(seed)
    dense = build_model(images.x_train.shape[1:], images.num_classes)
    pruned = pdp_keras.prune_model(
        dense, sparsity=training.sparsity(_SPARSITY), temperature=_TEMPERATURE.value
    )
    return dense, pruned


def export(
    models: dict[str, keras.Model], images: data.ImageData, folder: pathlib.Path
) -> list[dict[str, Any]]:
    """Writes a .tflite file for each model and quantization, and tests each file."""
    rows = []
    for quantize in _QUANTIZE.value:
        for name, model in models.items():
            suffix = "" if quantize == "none" else f"_{quantize}"
            path = folder / f"{name}{suffix}.tflite"
            kind = None if quantize == "none" else quantize
            row = training.export_and_test(model, path, images, quantize=kind)
            rows.append({**row, "quantize": quantize})
    return rows


def write_plots(
    pruned: keras.Model, history: dict[str, list[float]], folder: pathlib.Path
) -> None:
    """Writes the PNG files."""
    report = pdp_keras.sparsity_report(pruned)
    largest = max(report.rows, key=lambda row: row.size)
    plot.plot_sparsity(report).savefig(folder / "sparsity.png")
    plot.plot_training(history).savefig(folder / "training.png")
    plot.plot_weights(pruned, largest.layer, largest.weight).savefig(
        folder / "weights.png"
    )


def summary(accuracies: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation over the seeds, and the difference, in percent."""
    percent = {name: 100 * np.array(values) for name, values in accuracies.items()}
    percent["difference"] = percent["pruned"] - percent["dense"]
    return {
        name: {
            "mean": float(values.mean()),
            "std": float(values.std(ddof=1)) if len(values) > 1 else None,
            "by_seed": [float(value) for value in values],
        }
        for name, values in percent.items()
    }


def print_summary(
    accuracy: dict[str, dict[str, Any]], files: list[dict[str, Any]]
) -> None:
    """The final tables."""
    heading("Test accuracy in percent")
    for name, row in accuracy.items():
        sign = "+" if name == "difference" else ""
        line = f"  {name:<12}{row['mean']:{sign}8.2f}"
        if row["std"] is not None:
            by_seed = "  ".join(f"{value:{sign}.2f}" for value in row["by_seed"])
            line += f" ± {row['std']:.2f}   (seeds: {by_seed})"
        print(line)
    heading("Exported files (first seed)")
    print(f"  {'file':<22}{'KiB':>9}{'KiB gzip':>10}{'weights':>9}{'LiteRT test':>13}")
    for row in files:
        stored = "sparse" if row["sparse_encoding"] else "dense"
        print(
            f"  {row['file']:<22}{row['size_bytes'] / 1024:>9.1f}"
            f"{row['gzip_bytes'] / 1024:>10.1f}{stored:>9}"
            f"{row['test_accuracy']:>12.2%}"
        )


def check_flags() -> None:
    """Raises ValueError for what absl cannot check by itself."""
    unknown = sorted(set(_QUANTIZE.value) - set(_QUANTIZATIONS))
    if unknown:
        raise ValueError(
            f"quantize must be a list of {', '.join(_QUANTIZATIONS)}. "
            f"Received: quantize={','.join(unknown)!r}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """Both networks of one seed after training."""

    dense: keras.Model
    pruned: keras.Model
    history: dict[str, list[float]]
    dense_seconds: float
    pruned_seconds: float


def train_both(images: data.ImageData, recipe: Recipe, seed: int) -> Trained:
    """Trains a dense and a pruned network from the same initial weights."""
    dense, pruned = new_models(images, seed)
    heading(f"Seed {seed}: dense, {recipe.epochs} epochs")
    _, dense_seconds = training.fit(dense, images, recipe, seed)
    hold = recipe.epochs - recipe.warmup_epochs - recipe.ramp_epochs
    target = training.sparsity(_SPARSITY)
    heading(
        f"Seed {seed}: pruned to {target:.1%}, {recipe.warmup_epochs} "
        f"warm-up + {recipe.ramp_epochs} ramp + {hold} hold epochs"
    )
    history, pruned_seconds = training.fit(
        pruned, images, recipe, seed, training.new_schedule(recipe)
    )
    print(f"  {dense_seconds:.0f} s dense, {pruned_seconds:.0f} s pruned")
    return Trained(dense, pruned, history, dense_seconds, pruned_seconds)


def run() -> None:
    """Everything from the flags to the files."""
    check_flags()
    recipe = recipe_from_flags()
    images = data.load(training.DATASET.value, training.DATA_DIR.value)
    dense, pruned = new_models(images, 0)
    folder = training.prepare(pruned, recipe, training.DATASET.value)
    print(
        f"{images.name}: {len(images.x_train):,} training, {len(images.x_val):,} "
        f"validation and {len(images.x_test):,} test images of "
        f"{'×'.join(map(str, images.x_train.shape[1:]))}, {images.num_classes} classes"
    )
    print(f"network: {dense.count_params():,} parameters")

    seeds = range(training.SEED.value, training.SEED.value + _SEEDS.value)
    trained = [train_both(images, recipe, seed) for seed in seeds]
    stripped = [pdp_keras.strip_pruning(one.pruned) for one in trained]
    first, small = trained[0], stripped[0]
    small.save(folder / "pruned.keras")
    report = pdp_keras.sparsity_report(first.pruned)
    print(f"\n{report}")
    write_plots(first.pruned, first.history, folder)

    # From here on the test data is used, and nothing is decided any more.
    accuracy = summary(
        {
            "dense": [
                training.keras_test_accuracy(one.dense, images) for one in trained
            ],
            "pruned": [
                training.keras_test_accuracy(model, images) for model in stripped
            ],
        }
    )
    files = export({"dense": first.dense, "pruned": small}, images, folder)
    print_summary(accuracy, files)
    results = {
        "dataset": images.name,
        "recipe": dataclasses.asdict(recipe),
        "sparsity": training.sparsity(_SPARSITY),
        "temperature": _TEMPERATURE.value,
        "seeds": list(seeds),
        "test_accuracy_percent": accuracy,
        "files": files,
        "seconds": {
            "dense": [one.dense_seconds for one in trained],
            "pruned": [one.pruned_seconds for one in trained],
        },
        "history": {
            key: [float(value) for value in values]
            for key, values in first.history.items()
        },
        "report": report.to_dict(),
    }
    training.write_results(folder, results)
    print(f"\nResults, models and plots: {folder.resolve()}")


def main(argv: list[str]) -> None:
    """Everything, from the command line."""
    training.run_script(argv, run)


if __name__ == "__main__":
    app.run(main)
