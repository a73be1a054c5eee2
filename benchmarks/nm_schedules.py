"""How N:M should rise: candidates, on the same network and budget.

    python benchmarks/nm_schedules.py --seeds=3

Each candidate is a mode of its own that differs from `pdp_keras.NM` in one thing.
LeNet-300-100 on 12 000 images of Fashion-MNIST; what is printed is the accuracy on
10 000 validation images (no test image is touched), once rounded, in percent.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import common
import data
import keras
import numpy as np
from absl import app, flags
from keras import ops

import pdp_keras
from pdp_keras import modes
from pdp_keras.masks import thresholds
from pdp_keras.modes import n_of_m

_SEEDS = flags.DEFINE_integer("seeds", 3, "How many runs of each.", lower_bound=1)
_PATTERNS = flags.DEFINE_list("patterns", ["2:4", "1:4", "1:8"], "N:M.")
_EPOCHS = flags.DEFINE_integer("epochs", 14, "Epochs; 2 warm-up, half of them ramp.")


@dataclasses.dataclass(frozen=True)
class RankedLosers(pdp_keras.NM):
    """The `zeros` smallest of all weights that their groups will not keep."""

    name = "ranked_losers"

    def _grouped_threshold(self, magnitudes, zeros, view):
        most = self._most_zeros(view)
        losers = n_of_m._among(self._losers(magnitudes), magnitudes)
        return ops.minimum(
            super()._grouped_threshold(magnitudes, most, view),
            thresholds.midpoint_threshold(losers, zeros),
        )


@dataclasses.dataclass(frozen=True)
class FallingN(pdp_keras.NM):
    """m-1:m, then m-2:m, ... down to n:m, in equal parts of the ramp."""

    name = "falling_n"

    def _grouped_threshold(self, magnitudes, zeros, view):
        most = self._most_zeros(view)
        found = ops.zeros((*magnitudes.shape[:2], 1, magnitudes.shape[3]), "float32")
        for kept in range(self.m - 1, self.n - 1, -1):
            level = pdp_keras.NM(kept, self.m)
            threshold = level._grouped_threshold(magnitudes, most, view)
            is_reached = zeros >= (self.m - kept) * most // (self.m - self.n)
            found = ops.where(is_reached, threshold, found)
        return found


@dataclasses.dataclass(frozen=True)
class AtOnce(pdp_keras.NM):
    """The full pattern from the end of warm-up; only the temperature falls."""

    name = "at_once"

    def _grouped_threshold(self, magnitudes, zeros, view):
        most = self._most_zeros(view)
        threshold = super()._grouped_threshold(magnitudes, most, view)
        return ops.where(zeros > 0, threshold, ops.zeros_like(threshold))


CANDIDATES = {
    "threshold scaled by the ramp (shipped)": (pdp_keras.NM, 1.0),
    "ranking of the losers": (RankedLosers, 1.0),
    "n falls from m - 1": (FallingN, 1.0),
    "at once, temperature falls": (AtOnce, 1.0),
    "scaled, narrow band (tau = t^2 / 10)": (pdp_keras.NM, 0.1),
    "ranking, hard mask (magnitude)": (RankedLosers, 1e-8),
}


def accuracy(mode, factor, images, seed: int) -> float:
    """Validation accuracy of one run, in percent."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(images.x_train.shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Dense(300, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(images.num_classes),
        ]
    )
    schedule = None
    if mode is not None:
        temperature = pdp_keras.RelativeTemperature(factor)
        model = pdp_keras.prune_model(model, mode=mode, temperature=temperature)
        schedule = pdp_keras.PDPScheduleCallback(
            warmup_epochs=2,
            ramp_epochs=_EPOCHS.value // 2,
            update="step",
            fall=(0.5, 1.0),
        )
    steps = _EPOCHS.value * -(-len(images.x_train) // 128)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        images.x_train,
        images.y_train,
        batch_size=128,
        epochs=_EPOCHS.value,
        verbose=0,
        callbacks=[schedule] if schedule else [],
    )
    return 100 * model.evaluate(images.x_val, images.y_val, 500, verbose=0)[1]


def main(argv: list[str]) -> None:
    """Prints a line for each candidate and pattern."""
    for mode in (RankedLosers, FallingN, AtOnce):
        modes._MODES[mode.name] = mode
    everything = data.load("fashion_mnist", None)
    images = dataclasses.replace(
        everything,
        x_train=everything.x_train[:12_000],
        y_train=everything.y_train[:12_000],
        x_val=everything.x_val[:10_000],
        y_val=everything.y_val[:10_000],
    )

    def report(title: str, *arguments) -> None:
        values = [accuracy(*arguments, images, seed) for seed in range(_SEEDS.value)]
        each = "  ".join(f"{value:.2f}" for value in values)
        spread = common.deviation(values)
        mean = f"{np.mean(values):7.2f} ± {spread:.2f}"
        print(f"  {title:<40}{mean}   ({each})", flush=True)

    report("dense", None, None)
    for pattern in _PATTERNS.value:
        print(pattern)
        n, m = map(int, pattern.split(":"))
        for title, (kind, factor) in CANDIDATES.items():
            report(title, kind(n, m), factor)


if __name__ == "__main__":
    app.run(main)
