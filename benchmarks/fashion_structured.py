"""Structured sparsity on Fashion-MNIST: PDP against magnitude pruning and dense.

    python benchmarks/fashion_structured.py --seeds=3
    python benchmarks/fashion_structured.py --quick     # tries everything in a minute

One network, one budget, three structures (2:4, 1:4, channels at half of the
multiplications), each by PDP and by gradual magnitude pruning (Zhu and Gupta,
arXiv:1710.01878): a hard mask anew at every step and a masked gradient. Both follow
the same cubic schedule. Every finished training is a line of `--output`; what is there
already is not run again.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from typing import Any

import common  # before the others: it finds the examples and quiets TensorFlow
import data
import keras
import numpy as np
from absl import app, flags

import pdp_keras
from pdp_keras.models.macs import count_macs

_SEEDS = flags.DEFINE_integer("seeds", 3, "How many runs of each.", lower_bound=1)
_QUICK = flags.DEFINE_bool("quick", False, "A short run on few images.")
_ONLY = flags.DEFINE_list("only", None, "Names of methods; by default all.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the IDX files.")
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/fashion_structured.jsonl", "Results file, added to."
)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every training gets."""

    epochs: int = 8
    warmup_epochs: int = 1
    ramp_epochs: int = 4
    images: int = 24_000
    batch_size: int = 128
    learning_rate: float = 2e-3

    @property
    def steps_per_epoch(self) -> int:
        """Steps; the last batch may be smaller."""
        return math.ceil(self.images / self.batch_size)


QUICK = Budget(epochs=3, ramp_epochs=1, images=2000)


@dataclasses.dataclass(frozen=True)
class Method:
    """What is pruned, and how; `mode` None trains densely."""

    mode: str | None = None
    magnitude: bool = False
    temperature: Any = None  # the mode's own
    final_temperature: float = 0.01


METHODS = {
    "dense": Method(),
    "2:4 pdp": Method("2:4", final_temperature=0.001),
    "2:4 magnitude": Method("2:4", magnitude=True),
    "1:4 pdp": Method("1:4", final_temperature=0.001),
    "1:4 magnitude": Method("1:4", magnitude=True),
    "channel pdp": Method("channel", temperature=pdp_keras.RelativeTemperature(1e-3)),
    "channel magnitude": Method("channel", magnitude=True),
}


@dataclasses.dataclass(frozen=True)
class CubicRamp:
    """`1 - (1 - p)**3` with p from 0 at step `begin` to 1 at step `end`."""

    begin: int
    end: int

    def __call__(self, step: int) -> float:
        """The fraction of the target during this step, counted from 0."""
        position = (step + 1 - self.begin) / (self.end - self.begin)
        return 1 - (1 - min(1.0, max(0.0, position))) ** 3


def build_model() -> keras.Model:
    """Convolutions, two residual sums, a depthwise one, and a Dense head: to logits."""
    layers = keras.layers

    def normalized(x: Any, activation: str | None = "relu") -> Any:
        # Keras's momentum of 0.99 needs far more steps than there are.
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.Activation(activation)(x) if activation else x

    def convolution(filters: int, size: int, **arguments: Any) -> Any:
        return layers.Conv2D(filters, size, padding="same", use_bias=False, **arguments)

    inputs = keras.Input((28, 28, 1), name="image")
    x = normalized(convolution(16, 3, strides=2, name="stem")(inputs))
    x = short = normalized(convolution(32, 3, strides=2, name="conv_1")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = normalized(convolution(32, 1, name="pointwise")(normalized(x)), None)
    x = layers.Activation("relu")(layers.Add()([x, short]))
    x = short = normalized(convolution(48, 3, name="conv_2")(x))
    x = normalized(convolution(48, 3, name="branch_1")(x))
    x = normalized(convolution(48, 1, name="branch_2")(x), None)
    x = layers.Activation("relu")(layers.Add()([x, short]))
    x = layers.Flatten()(normalized(convolution(64, 1, name="wide")(x)))
    x = layers.Dropout(0.3)(x)
    x = layers.Dense(128, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="cnn")


def prune(model: keras.Model, method: Method, sparsity: float | None) -> keras.Model:
    """The model, pruned by a method; N:M has a sparsity of its own."""
    arguments: dict[str, Any] = {"mode": method.mode, "temperature": method.temperature}
    if sparsity is not None:
        arguments["sparsity"] = sparsity
    if method.mode == "channel":
        arguments["allocation"] = "uniform"
    if method.magnitude:  # A hard step: the gradient is the mask.
        arguments["temperature"] = pdp_keras.RelativeTemperature(1e-8)
    return pdp_keras.prune_model(model, **arguments)


def new_schedule(method: Method, budget: Budget) -> pdp_keras.PDPScheduleCallback:
    """The callback: the cubic ramp; PDP's temperature falls in the second half."""
    steps, begin = budget.steps_per_epoch, budget.warmup_epochs
    end = begin + budget.ramp_epochs
    return pdp_keras.PDPScheduleCallback(
        schedule=CubicRamp(begin * steps, end * steps),
        final_temperature=1 if method.magnitude else method.final_temperature,
        fall=(0.5, 1.0),
    )


def channel_sparsity(fraction: float = 0.5) -> float:
    """The uniform sparsity at which the channels left cost this part of the MACs."""
    model = build_model()
    wanted = fraction * count_macs(model)
    low, high = 0.0, 0.9
    for _ in range(7):
        middle = (low + high) / 2
        pruned = common.prune_now(prune(model, METHODS["channel pdp"], middle))
        macs = count_macs(pdp_keras.strip_pruning(pruned))
        low, high = (middle, high) if macs > wanted else (low, middle)
    return high


def train(
    method: Method, seed: int, budget: Budget, images: data.ImageData, sparsity: Any
) -> dict[str, Any]:
    """Trains once; the figures of the stripped model."""
    keras.utils.set_random_seed(seed)
    model = build_model()
    callbacks = []
    if method.mode is not None:
        is_n_of_m = method.mode in ("2:4", "1:4")  # whose sparsity follows
        model = prune(model, method, None if is_n_of_m else sparsity)
        callbacks.append(new_schedule(method, budget))
    steps = budget.epochs * budget.steps_per_epoch
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(budget.learning_rate, steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    keras.utils.set_random_seed(seed)  # The same batches for every method.
    start = time.perf_counter()
    history = model.fit(
        images.x_train[: budget.images],
        images.y_train[: budget.images],
        batch_size=budget.batch_size,
        epochs=budget.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    seconds = time.perf_counter() - start
    if method.mode is not None:
        model = pdp_keras.strip_pruning(model)
    kernels = [v.numpy() for v in model.trainable_variables]
    return {
        "validation": common.accuracy(model, images.x_val, images.y_val),
        "test": common.accuracy(model, images.x_test, images.y_test),
        "macs": count_macs(model),
        "parameters": model.count_params(),
        "nonzeros": int(sum(np.count_nonzero(kernel) for kernel in kernels)),
        "channel_sparsity": sparsity if method.mode == "channel" else None,
        "loss": history.history["loss"][-1],
        "seconds": seconds,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Mean and standard deviation over the seeds of each method."""
    print(
        f"\n{'':<20}{'runs':>5}{'validation':>15}{'test':>15}"
        f"{'MACs':>12}{'parameters':>12}{'nonzero':>10}{'s/run':>8}"
    )
    for name in METHODS:
        own = [row for row in rows if row["method"] == name]
        if own:
            print(
                f"{name:<20}{len(own):>5}"
                f"{common.mean_and_std([row['validation'] for row in own]):>15}"
                f"{common.mean_and_std([row['test'] for row in own]):>15}"
                f"{own[0]['macs']:>12,}{own[0]['parameters']:>12,}"
                f"{round(np.mean([row['nonzeros'] for row in own])):>10,}"
                f"{np.mean([row['seconds'] for row in own]):>8.0f}"
            )


def main(argv: list[str]) -> None:
    """Everything from the flags to the table."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    unknown = sorted(set(_ONLY.value or ()) - set(METHODS))
    if unknown:
        raise app.UsageError(f"only: names of {list(METHODS)}. Received: {unknown}")
    budget = QUICK if _QUICK.value else Budget()
    path = pathlib.Path(_OUTPUT.value).expanduser()
    images = data.load("fashion_mnist", _DATA_DIR.value, validation_fraction=0.2)
    print(common.describe_machine())
    print(budget, flush=True)
    # Rows of another budget or of the quick run are not comparable.
    this = dataclasses.asdict(budget)
    rows = [row for row in common.read_rows(path) if row["budget"] == this]
    done = {(row["method"], row["seed"]) for row in rows}
    sparsity = None
    for seed in range(1 if _QUICK.value else _SEEDS.value):
        for name in _ONLY.value or METHODS:
            if (name, seed) in done:
                continue
            if METHODS[name].mode == "channel" and sparsity is None:
                sparsity = channel_sparsity()
            figures = train(METHODS[name], seed, budget, images, sparsity)
            row = {"method": name, "seed": seed, "budget": this, **figures}
            common.append_row(path, row)
            rows.append(row)
            print(
                f"{name:<20} seed {seed}: validation {row['validation']:.2f}, "
                f"{row['macs']:,} MACs, {row['seconds']:.0f} s",
                flush=True,
            )
    print_table(rows)


if __name__ == "__main__":
    app.run(main)
