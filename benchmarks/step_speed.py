"""What pruning adds to a training step.

    python benchmarks/step_speed.py                                # minutes a network
    python benchmarks/step_speed.py --only=ResNet18 --jit_compile

Each network trains on one random batch with SGD and momentum: dense, and pruned by PDP
to its full sparsity, in three modes. All take turns in one process; the ratio is the
median over the turns of a variant's time over that of the dense step of the same turn.
`--tfmot` adds tensorflow-model-optimization in the tf_keras that it needs, over the
dense step there. "First step" is the tracing and compiling that comes once.
"""

from __future__ import annotations

import os
import pathlib
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import common  # before the others: it finds the examples and quiets TensorFlow

# TFMOT asks for it; Keras 3 is imported by its own name and does not care.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import keras
import tensorflow as tf
from absl import app, flags
from training_networks import NETWORKS, Network

import pdp_keras

_ONLY = flags.DEFINE_string("only", ".*", "Regular expression of whole names.")
_MODES = flags.DEFINE_list("modes", ["unstructured", "2:4", "channel"], "Modes.")
_JIT = flags.DEFINE_bool("jit_compile", False, "Whether XLA compiles the whole step.")
_TFMOT = flags.DEFINE_bool("tfmot", False, "Whether to time TFMOT too.")
_TURNS = flags.DEFINE_integer("turns", 15, "Turns of each variant.", 1)
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/step_speed.jsonl", "Results file, added to."
)

_SPARSITY = 0.85
# Turns of at least so many seconds of the dense step.
_SECONDS = 0.05


def pdp_variants(network: Network) -> dict[str, Callable[[], Any]]:
    """By name, what makes a compiled Keras 3 model; the dense one first."""

    def make(mode: str | None) -> Any:
        model = network.build(keras)
        if mode is not None:
            given = {} if ":" in mode else {"sparsity": _SPARSITY}
            model = common.prune_now(pdp_keras.prune_model(model, mode=mode, **given))
        return _compiled(keras, model)

    names = {"dense": None} | {f"PDP {mode}": mode for mode in _MODES.value}
    return {name: lambda mode=mode: make(mode) for name, mode in names.items()}


def tfmot_variants(network: Network) -> dict[str, Callable[[], Any]]:
    """The same for TFMOT: masks made anew every step, and every 100 steps."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    def make(frequency: int | None) -> Any:
        model = network.build(tf_keras)
        if frequency is not None:
            schedule = tfmot.sparsity.keras.ConstantSparsity(
                _SPARSITY, begin_step=0, frequency=frequency
            )
            model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
        return _compiled(tf_keras, model)

    names = {"tf_keras dense": None, "TFMOT, every step": 1, "TFMOT, every 100": 100}
    return {name: lambda every=every: make(every) for name, every in names.items()}


def _compiled(library: Any, model: Any) -> Any:
    model.compile(
        library.optimizers.SGD(0.01, momentum=0.9),
        library.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=_JIT.value,
    )
    return model


def stepper(model: Any, network: Network) -> Callable[[], None]:
    """A function that trains one step, without the overhead of `fit`."""
    data = tf.data.Dataset.from_tensors(network.data()).cache().repeat()
    batches = iter(data)
    train = model.make_train_function() or model.train_function
    steps = [
        layer.pruning_step
        for layer in model._flatten_layers()
        if hasattr(layer, "pruning_step")
    ]

    def step() -> None:
        logs = train(batches)
        for variable in steps:  # what TFMOT's UpdatePruningStep does
            variable.assign_add(1)
        float(tf.reduce_sum(next(iter(logs.values()))))  # waits for the step

    for variable in steps:
        variable.assign(0)
    return step


def time_steps(network: Network, variants: dict[str, Callable[[], Any]]) -> Any:
    """Milliseconds of each turn, and seconds of the first step, by name."""
    steps, first = {}, {}
    for name, make in variants.items():
        keras.utils.set_random_seed(0)
        steps[name] = stepper(make(), network)
        start = time.perf_counter()
        steps[name]()
        first[name] = time.perf_counter() - start
    for step in steps.values():
        # A bracket needs some steps to close in on the threshold.
        for _ in range(10):
            step()
    start = time.perf_counter()
    next(iter(steps.values()))()
    each = max(1, round(_SECONDS / (time.perf_counter() - start)))
    times = {name: [] for name in steps}
    for _ in range(_TURNS.value):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(each):
                step()
            times[name].append(1e3 * (time.perf_counter() - start) / each)
    return times, first


def report(name: str, variants: dict[str, Callable[[], Any]]) -> None:
    """Times the variants of a network; prints and keeps the results."""
    times, first = time_steps(NETWORKS[name], variants)
    dense = next(iter(times.values()))
    for variant, values in times.items():
        ratios = [x / y for x, y in zip(values, dense, strict=True)]
        row = {
            "network": name,
            "variant": variant,
            "jit_compile": _JIT.value,
            "milliseconds": statistics.median(values),
            "ratio": statistics.median(ratios),
            "first_step_seconds": first[variant],
        }
        common.append_row(pathlib.Path(_OUTPUT.value).expanduser(), row)
        print(
            f"{name:14} {variant:18} {row['milliseconds']:9.2f} ms  "
            f"{row['ratio'] - 1:+7.1%}  first step {first[variant]:5.1f} s",
            flush=True,
        )


def main(_: list[str]) -> None:
    """Times every network that was asked for."""
    print(common.describe_machine())
    for name, network in NETWORKS.items():
        if re.fullmatch(_ONLY.value, name):
            report(name, pdp_variants(network))
            if _TFMOT.value:
                report(name, tfmot_variants(network))


if __name__ == "__main__":
    app.run(main)
