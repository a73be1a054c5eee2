"""From training to a file that is fast: a phone's network through PDP to LiteRT.js.

    python examples/mobile.py                          # digits, minutes
    python examples/mobile.py --dataset=fashion_mnist  # hours on two cores
    bash examples/pretrained.sh                        # from ImageNet; half an hour
    python examples/serve.py                           # then: the page with both

A dense and a pruned MobileNetV2 (or, with `--network=efficientnet_lite0`, a network
that has learned ImageNet) start from the same weights and train for the same number of
epochs, on images that a layer in the network resizes. Only what pays on the
target "xnnpack" is pruned, the 1x1 convolutions. Both networks are exported, run on
the test images in LiteRT and, where Node.js and Chromium are installed, timed in the
browser. Into `--output_dir` go the models, the files, what `serve.py` needs, and all
figures (`results.json`).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import pathlib
from typing import Any

# TensorFlow reports its start-up on the console unless told not to beforehand.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import data
import efficientnet_lite
import keras
import litert_js
import numpy as np
import training
from absl import app, flags
from training import Recipe, heading

import pdp_keras

flags.adopt_module_key_flags(training)

_SPARSITY = 0.85  # of the 1x1 convolutions
RECIPES = {
    "digits": Recipe(epochs=16, warmup_epochs=1, ramp_epochs=6),
    "fashion_mnist": Recipe(epochs=10, warmup_epochs=1, ramp_epochs=4),
}
# What has learned ImageNet learns the rest in a few epochs.
FINE_TUNING = Recipe(epochs=6, warmup_epochs=1, ramp_epochs=3, learning_rate=1e-3)
LABELS = {
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
TITLES = {
    "mobilenetv2": "MobileNetV2",
    "efficientnet_lite0": "EfficientNet-Lite0 from ImageNet",
}
FOLDERS = {"mobilenetv2": "mobile", "efficientnet_lite0": "pretrained"}
_SAMPLES = 96  # test images for the page

_SIZE = flags.DEFINE_integer("size", 64, "Images are resized to it.", lower_bound=32)
_NETWORK = flags.DEFINE_enum(
    "network",
    "mobilenetv2",
    TITLES,
    "MobileNetV2 from random weights, or EfficientNet-Lite0 from those of ImageNet.",
)
_ALPHA = flags.DEFINE_float("alpha", 1.0, "MobileNetV2's width, such as 0.35 or 1.")
_IMAGES = flags.DEFINE_integer(
    "images", None, "Train on the first so many images. Default: all.", lower_bound=1
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One way to write a network as a file, for the table of sizes."""

    target: str
    quantize: str | None
    # Half precision through fifty layers rounds more than the export takes for right.
    tolerance: float | None = None


# The dense network is written as anybody would.
KINDS = {
    name: {
        "": Kind(target, None),
        "_float16": Kind(target, "float16", 0.05),
        "_int8": Kind("generic", "int8"),
    }
    for name, target in (("dense", "generic"), ("sparse", "xnnpack"))
}


def build_model(
    network: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    size: int,
    alpha: float = 1.0,
) -> keras.Model:
    """A network for images in [0, 1] of any size, grey or coloured, to logits.

    Args:
        network: as the flag.
        image_shape: of an image; it is resized within the network.
        num_classes: how many logits.
        size: what it is resized to, in pixels.
        alpha: of MobileNetV2.
    """
    inputs = x = keras.Input(image_shape, name="image")
    x = keras.layers.Resizing(size, size, name="resize")(x)
    if image_shape[-1] == 1:
        x = keras.layers.Concatenate(name="colours")([x, x, x])
    if network == "efficientnet_lite0":
        model = efficientnet_lite.new_classifier(inputs, x, num_classes)
        efficientnet_lite.load_pretrained(model)
        return model
    x = keras.layers.Rescaling(2.0, offset=-1.0, name="rescale")(x)
    model = keras.applications.MobileNetV2(
        input_tensor=x,
        alpha=alpha,
        weights=None,
        classes=num_classes,
        classifier_activation=None,
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Its 0.999 needs far more steps than a small data set has.
            layer.momentum = 0.9
    return keras.Model(inputs, model.output, name=network)


def recipe_from_flags() -> Recipe:
    """The data set's recipe; with other epochs, in the same proportions."""
    recipe = RECIPES.get(training.DATASET.value, RECIPES["digits"])
    if _NETWORK.value == "efficientnet_lite0":
        recipe = FINE_TUNING
    if training.EPOCHS.value is None:
        return recipe
    part = training.EPOCHS.value / recipe.epochs
    return dataclasses.replace(
        recipe,
        epochs=training.EPOCHS.value,
        warmup_epochs=max(1, round(part * recipe.warmup_epochs)),
        ramp_epochs=max(1, round(part * recipe.ramp_epochs)),
    )


def load_images() -> data.ImageData:
    """The data set, cut to `--images`."""
    images = data.load(training.DATASET.value, training.DATA_DIR.value)
    return dataclasses.replace(
        images,
        x_train=images.x_train[: _IMAGES.value],
        y_train=images.y_train[: _IMAGES.value],
    )


def export(
    models: dict[str, keras.Model], images: data.ImageData, folder: pathlib.Path
) -> list[dict[str, Any]]:
    """Writes and tests every file of both networks."""
    rows = []
    for name, model in models.items():
        for suffix, kind in KINDS[name].items():
            path = folder / f"{name}{suffix}.tflite"
            rows.append(
                training.export_and_test(
                    model, path, images, **dataclasses.asdict(kind)
                )
            )
    return rows


def time_in_browser(
    rows: list[dict[str, Any]], images: data.ImageData, folder: pathlib.Path
) -> None:
    """Adds each file's milliseconds in LiteRT.js to its row, if they can be had."""
    # LiteRT.js takes no int8 inputs.
    rows = [row for row in rows if "int8" not in row["file"]]
    files = [(folder / row["file"]).read_bytes() for row in rows]
    batches = [{"image": images.x_test[:1]}]
    try:
        runs = litert_js.run_files(files, batches, rounds=9, runs=20)
    except litert_js.BrowserError as error:
        # Everything else is done by now, and worth showing.
        print(f"  not timed in the browser: {error}")
        return
    for row, run in zip(rows, runs, strict=True):
        row["browser_ms"] = run.milliseconds


def write_page(
    folder: pathlib.Path, images: data.ImageData, rows: list[dict[str, Any]], title: str
) -> None:
    """Writes what the page needs beside the files: `page.json`.

    Args:
        folder: where `dense.tflite` and `sparse.tflite` are.
        images: their test images are offered on the page.
        rows: with "file", "size_bytes" and "gzip_bytes" of both files.
        title: what the page says about the networks.
    """
    sizes = {row["file"].removesuffix(".tflite"): row for row in rows}
    numbers = [str(i) for i in range(images.num_classes)]
    page = {
        "title": title,
        "shape": images.x_test.shape[1:],
        "labels": LABELS.get(images.name, numbers),
        "files": {
            name: {
                "file": f"{name}.tflite",
                "bytes": sizes[name]["size_bytes"],
                "gzip": sizes[name]["gzip_bytes"],
            }
            for name in KINDS
        },
        "samples": [
            {
                "pixels": base64.b64encode(np.uint8(np.round(255 * x))).decode(),
                "label": int(y),
            }
            for x, y in zip(images.x_test[:_SAMPLES], images.y_test, strict=False)
        ],
    }
    (folder / "page.json").write_text(json.dumps(page))


def print_table(rows: list[dict[str, Any]]) -> None:
    """One line a file."""
    heading("Files")
    print(
        f"  {'file':<22}{'KiB':>9}{'gzipped':>10}{'zeros':>9}{'LiteRT test':>13}"
        f"{'browser':>12}"
    )
    for row in rows:
        stored = "sparse" if row["sparse_encoding"] else ""
        timed = f"{row['browser_ms']:.2f} ms" if "browser_ms" in row else "-"
        print(
            f"  {row['file']:<22}{row['size_bytes'] / 1024:>9.0f}"
            f"{row['gzip_bytes'] / 1024:>10.0f}{stored:>9}"
            f"{row['test_accuracy']:>13.2%}{timed:>12}"
        )


def run() -> None:
    """Everything from the flags to the files."""
    recipe, sparsity = recipe_from_flags(), training.sparsity(_SPARSITY)
    images = load_images()
    keras.utils.set_random_seed(training.SEED.value)
    network = _NETWORK.value
    dense = build_model(
        network, images.x_train.shape[1:], images.num_classes, _SIZE.value, _ALPHA.value
    )
    pruned = pdp_keras.prune_model(dense, sparsity, target="xnnpack")
    folder = training.prepare(pruned, recipe, FOLDERS[network])
    print(
        f"{images.name}: {len(images.x_train):,} training images, resized to "
        f"{_SIZE.value}×{_SIZE.value}; {dense.count_params():,} parameters"
    )
    heading(f"Dense, {recipe.epochs} epochs")
    _, dense_seconds = training.fit(dense, images, recipe, training.SEED.value)
    heading(
        f"1x1 convolutions pruned to {sparsity:.0%}: {recipe.warmup_epochs} "
        f"warm-up + {recipe.ramp_epochs} ramp of {recipe.epochs} epochs"
    )
    schedule = training.new_schedule(recipe)
    _, pruned_seconds = training.fit(
        pruned, images, recipe, training.SEED.value, schedule
    )
    models = {"dense": dense, "sparse": pdp_keras.strip_pruning(pruned)}
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
    print(f"\n{pdp_keras.deploy_check(models['sparse'], 'xnnpack').summary}")

    # From here on the test data is used, and nothing is decided any more.
    accuracy = {
        name: training.keras_test_accuracy(m, images) for name, m in models.items()
    }
    rows = export(models, images, folder)
    time_in_browser(rows, images, folder)
    print_table(rows)
    title = (
        f"{TITLES[network]} on {images.name}: test accuracy "
        f"{accuracy['dense']:.2%} dense, {accuracy['sparse']:.2%} with "
        f"{sparsity:.0%} zeros in its 1×1 convolutions."
    )
    write_page(folder, images, rows, title)
    results = {
        "network": network,
        "dataset": images.name,
        "images": len(images.x_train),
        "size": _SIZE.value,
        "alpha": _ALPHA.value,
        "sparsity": sparsity,
        "recipe": dataclasses.asdict(recipe),
        "test_accuracy": accuracy,
        "seconds": {"dense": dense_seconds, "pruned": pruned_seconds},
        "files": rows,
    }
    training.write_results(folder, results)
    print(f"\n{title}\n\nSee both side by side: python examples/serve.py")


def main(argv: list[str]) -> None:
    """Everything, from the command line."""
    training.run_script(argv, run)


if __name__ == "__main__":
    app.run(main)
