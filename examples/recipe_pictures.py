"""Pictures for the guide: what the temperature does, good runs and bad ones.

Usage, some minutes for the small network of `train.py`:

    python examples/recipe_pictures.py
"""

from __future__ import annotations

import os
import pathlib

# TensorFlow reports its start-up on the console unless told not to beforehand.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import data
import keras
import matplotlib
import numpy as np
import train
import training
from absl import app, flags

import pdp_keras
from pdp_keras.masks import functional

matplotlib.use("agg")
import matplotlib.pyplot as plt

_FOLDER = flags.DEFINE_string("folder", "docs/pictures", "Where they go.")
_FACTORS = (4.0, 1.0, 0.1, 0.01)
_RECIPE = training.Recipe(epochs=40, warmup_epochs=4, ramp_epochs=20, batch_size=32)

# Of each run: sparsity, arguments of the callback, and what to see.
_RUNS = {
    "good: validation follows training, and has time to recover": (0.95, {}),
    "soft to the end: validation, whose mask is hard, comes apart": (
        0.95,
        {"final_temperature": 1.0},
    ),
    "a ramp without a hold: no time to recover": (0.95, {"ramp_epochs": 36}),
    "too sparse: training falls, too": (0.995, {}),
}


def draw_temperatures(path: pathlib.Path) -> None:
    """The mask and its gradient over |w| / t, a line a temperature."""
    scores = np.linspace(0, 2, 401, dtype="float32")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    for factor in _FACTORS:
        threshold, width = np.float32(1), np.float32(factor**0.5)
        label = f"τ = {factor:g} t²"
        mask = keras.ops.convert_to_numpy(
            functional.soft_mask(scores, threshold, width)
        )
        slope = keras.ops.convert_to_numpy(
            functional.soft_masked_slope(scores, threshold, width)
        )
        left.plot(scores, mask, label=label)
        right.plot(scores, slope, label=label)
    left.set(title="the mask m", xlabel="|w| / t")
    right.set(title="its gradient, d(m w) / dw", xlabel="|w| / t", ylim=(0, 6))
    right.axhline(1.0, color="black", linestyle=":", linewidth=1)
    right.annotate("the default bound", (0.02, 1.1), fontsize="small")
    right.annotate("to 50", (1.03, 5.6), fontsize="small")
    left.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_runs(path: pathlib.Path) -> None:
    """Training curves of one network under four recipes."""
    images = data.load("digits", None)
    figure, axes = plt.subplots(2, 2, figsize=(12, 7))
    for axis, (title, (sparsity, changes)) in zip(
        axes.flat, _RUNS.items(), strict=True
    ):
        print(title)
        keras.utils.set_random_seed(0)
        dense = train.build_model(images.x_train.shape[1:], images.num_classes)
        pruned = pdp_keras.prune_model(dense, sparsity)
        given = {
            "warmup_epochs": _RECIPE.warmup_epochs,
            "ramp_epochs": _RECIPE.ramp_epochs,
        }
        schedule = pdp_keras.PDPScheduleCallback(**(given | changes))
        history, _ = training.fit(pruned, images, _RECIPE, 0, schedule)
        pdp_keras.plot.plot_training(history, ax=axis)
        axis.set_title(title, pad=24)  # above the legend
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main(argv: list[str]) -> None:
    """Draws both."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    folder = pathlib.Path(_FOLDER.value).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    draw_temperatures(folder / "temperature.png")
    draw_runs(folder / "runs.png")


if __name__ == "__main__":
    app.run(main)
