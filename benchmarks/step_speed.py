"""What pruning adds to a training step, or to `predict`.

    python benchmarks/step_speed.py                                # minutes a network
    python benchmarks/step_speed.py --only=ResNet18 --jit_compile
    KERAS_BACKEND=jax python benchmarks/step_speed.py --only=ResNet18
    python benchmarks/step_speed.py --inference

Each network trains on one random batch with SGD and momentum: dense, and pruned by PDP
to its full sparsity, in three modes. All take turns in one process, there and back;
the ratio is the median over the turns of a variant's time over the dense one of that
turn. The dense network is there twice, and the ratio is to the mean of both: what the
two differ by is what the machine cannot tell.
`--peers=tfmot,pquant` adds tensorflow-model-optimization in the tf_keras that it needs,
over the dense step there, and PQuantML. "First step" is the tracing and compiling that
comes once. With `--inference`, one `predict` of 64 batches is what is timed.
"""

from __future__ import annotations

import pathlib
import re
import statistics
import time
from typing import Any

import common  # before the others: it finds the examples and quiets TensorFlow
import keras
import step_variants
from absl import app, flags
from step_variants import Variants
from training_networks import NETWORKS, Network

_ONLY = flags.DEFINE_string("only", ".*", "Regular expression of whole names.")
_MODES = flags.DEFINE_list("modes", step_variants.MODES, "Modes of PDP.")
_JIT = flags.DEFINE_bool("jit_compile", False, "Whether XLA compiles the whole step.")
_PEERS = flags.DEFINE_list("peers", [], "Other libraries: tfmot, pquant.")
_INFERENCE = flags.DEFINE_bool("inference", False, "Whether to time inference.")
_TURNS = flags.DEFINE_integer("turns", 15, "Turns of each variant.", 1)
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/step_speed.jsonl", "Results file, added to."
)

# Turns of at least so many seconds of the dense step.
_SECONDS = 0.05


def time_steps(network: Network, variants: Variants) -> Any:
    """Milliseconds of each turn, and seconds of the first step, by name."""
    prepare = step_variants.predictor if _INFERENCE.value else step_variants.stepper
    steps, first = {}, {}
    for name, make in variants.items():
        keras.utils.set_random_seed(0)
        steps[name] = prepare(make(), network)
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
    for turn in range(_TURNS.value):
        for name, step in list(steps.items())[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            for _ in range(each):
                step()
            times[name].append(1e3 * (time.perf_counter() - start) / each)
    return times, first


def report(name: str, variants: Variants) -> None:
    """Times the variants of a network; prints and keeps the results."""
    reference = next(iter(variants))
    again = f"{reference} again"
    both = variants | {again: variants[reference]}
    times, first = time_steps(NETWORKS[name], both)
    dense = [
        statistics.mean(pair)
        for pair in zip(times[reference], times[again], strict=True)
    ]
    for variant, values in times.items():
        ratios = [x / y for x, y in zip(values, dense, strict=True)]
        row = {
            "network": name,
            "variant": variant,
            "backend": keras.backend.backend(),
            "does": "inference" if _INFERENCE.value else "training",
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
            peers = _PEERS.value
            given = network, _MODES.value, peers, _JIT.value
            report(name, step_variants.keras_variants(*given))
            if "tfmot" in peers:
                report(name, step_variants.tf_keras_variants(network, _JIT.value))


if __name__ == "__main__":
    app.run(main)
