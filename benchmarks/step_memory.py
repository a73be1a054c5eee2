"""How much memory a training step takes, pruned and dense.

    python benchmarks/step_memory.py
    python benchmarks/step_memory.py --only=ResNet18 --peers=tfmot,pquant

Each variant trains in a process of its own. What is reported is what the model's and
the optimizer's variables take, and what a step takes on top of them at its peak: the
kernel's high-water mark of the process (`VmHWM` in Linux), reset before the step, less
what the process held then; the median of several steps. The last column is what the
variant takes above the dense one, in copies of the largest kernel.
"""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
from typing import Any

import common  # before the others: it finds the examples and quiets TensorFlow
import keras
import numpy as np
import step_variants
from absl import app, flags
from training_networks import NETWORKS, Network

_ONLY = flags.DEFINE_string("only", ".*", "Regular expression of whole names.")
_MODES = flags.DEFINE_list("modes", step_variants.MODES, "Modes of PDP.")
_JIT = flags.DEFINE_bool("jit_compile", False, "Whether XLA compiles the whole step.")
_PEERS = flags.DEFINE_list("peers", [], "Other libraries: tfmot, pquant.")
_STEPS = flags.DEFINE_integer("steps", 9, "Steps of each variant.", 1)
_VARIANT = flags.DEFINE_string("variant", None, "Measure this one, in this process.")
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/step_memory.jsonl", "Results file, added to."
)

# Buffers of more than 64 KiB go back to the system at once, so that its counters see
# what is in use. Not for timing: it makes steps slow.
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
}
_MEGABYTE = 1e6


def variants(network: Network) -> step_variants.Variants:
    """All that were asked for, by name."""
    peers = _PEERS.value
    found = step_variants.keras_variants(network, _MODES.value, peers, _JIT.value)
    if "tfmot" in peers:
        found |= step_variants.tf_keras_variants(network, _JIT.value)
    return found


def measure(network: Network, variant: str) -> dict[str, float]:
    """Megabytes of the variables and of a step on top of them."""
    keras.utils.set_random_seed(0)
    model = variants(network)[variant]()
    step = step_variants.stepper(model, network)
    for _ in range(3):
        step()
    on_top = []
    for _ in range(_STEPS.value):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        # 5 resets the high-water mark, see proc(5).
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        step()
        on_top.append(_status("VmHWM") - before)
    held = [*model.variables, *_optimizer_variables(model.optimizer)]
    unique = {id(variable): variable for variable in held}.values()
    return {
        "variables": sum(_bytes(variable) for variable in unique) / _MEGABYTE,
        "on_top": statistics.median(on_top),
        "largest_kernel": max(_bytes(v) for v in model.trainable_variables) / _MEGABYTE,
    }


def _optimizer_variables(optimizer: Any) -> list[Any]:
    found = optimizer.variables
    return list(found() if callable(found) else found)


def _bytes(variable: Any) -> int:
    # Of TFMOT's and Keras's variables alike.
    name = getattr(variable.dtype, "name", variable.dtype)
    size = 1 if name == "bool" else np.dtype(name).itemsize
    return int(np.prod(tuple(variable.shape))) * size


def _status(name: str) -> float:
    """Megabytes of one line of this process's status."""
    found = common.process_megabytes(name)
    if not found:
        raise RuntimeError(f"There is no {name}; this benchmark needs Linux.")
    return found


def measure_apart(name: str, variant: str) -> dict[str, float]:
    """`measure` in a process of its own."""
    arguments = [f"--only={name}", f"--variant={variant}", f"--steps={_STEPS.value}"]
    arguments += [f"--jit_compile={_JIT.value}", f"--peers={','.join(_PEERS.value)}"]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=os.environ | _ALLOCATOR,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(name: str) -> None:
    """Measures the variants of a network; prints and keeps the results."""
    dense = None
    for variant in variants(NETWORKS[name]):
        found = measure_apart(name, variant)
        total = found["variables"] + found["on_top"]
        if variant.endswith("dense"):
            dense = total
        above = (total - dense) / found["largest_kernel"]
        row = {"network": name, "variant": variant, "backend": keras.backend.backend()}
        row |= {"jit_compile": _JIT.value, "kernels_above_dense": above} | found
        common.append_row(pathlib.Path(_OUTPUT.value).expanduser(), row)
        print(
            f"{name:14} {variant:18} variables {found['variables']:7.1f} MB, a step "
            f"{found['on_top']:7.1f} MB on top: {total - dense:+7.1f} MB, "
            f"{above:+.1f} kernels",
            flush=True,
        )


def main(_: list[str]) -> None:
    """Measures every network that was asked for."""
    chosen = [name for name in NETWORKS if re.fullmatch(_ONLY.value, name)]
    if _VARIANT.value is not None:
        print(json.dumps(measure(NETWORKS[chosen[0]], _VARIANT.value)))
        return
    print(common.describe_machine())
    for name in chosen:
        report(name)


if __name__ == "__main__":
    app.run(main)
