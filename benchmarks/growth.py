"""How the cost of masks grows with weights, layers and groups.

    python benchmarks/growth.py                    # half an hour, some GB at the end
    python benchmarks/growth.py --most=10000000
    python benchmarks/growth.py --only=deep        # a quarter of an hour

Times in TensorFlow graphs what a training step adds, forward and backward: threshold,
mask and their gradient, for one kernel of 10^4 to 10^8 weights; the same for 1 to 256
kernels of 10^5 weights each; and 2:4, for as many groups as a quarter of the weights.
Prints the slope of each line in a log-log plot from one size to the next, where 1 is
linear, and draws the plot. Then, for chains of 100 to 1600 Dense(16), what a user waits
for: `prune_model`, the first `fit` beside that of the dense network, `strip_pruning`.
"""

from __future__ import annotations

import gc
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import common
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import pdp_keras
from pdp_keras import modes
from pdp_keras.masks import thresholds
from pdp_keras.models.axes import KernelAxes

_MOST = flags.DEFINE_integer("most", 100_000_000, "Weights of the largest kernel.", 1)
_TURNS = flags.DEFINE_integer("turns", 9, "Times each size is run.", 1)
_ONLY = flags.DEFINE_enum("only", None, ["deep", "masks"], "Leaves the other part out.")
_DEEP_TURNS = flags.DEFINE_integer("deep_turns", 3, "Times each depth is run.", 1)
_OUTPUT = flags.DEFINE_string("output", "pdp_output/growth.jsonl", "Results file.")
_PLOT = flags.DEFINE_string("plot", "pdp_output/growth.png", "Picture.")

_SPARSITY = 0.85
_COLUMNS = 100
_LAYER = 100_000
_LAYERS = (1, 4, 16, 64, 256)
_DEPTHS = (100, 400, 1600)
_LABELS = {
    "weights": "one kernel, by its weights",
    "layers": f"kernels of {_LAYER:,} weights, by their number",
    "groups": "one kernel in 2:4, by its groups",
}
# A call handles at least so many weights, so that starting it does not count.
_WEIGHTS_A_CALL = 1_000_000


class Kernel:
    """A kernel `(n / 100, 100)` that moves, and its masked product."""

    def __init__(self, n: int, mode: str) -> None:
        self.n = n
        self.mode = modes.get(mode)
        shape = [n // _COLUMNS, _COLUMNS]
        self.weights = tf.Variable(tf.random.stateless_normal(shape, [0, n]) * 0.05)
        self.zeros = tf.Variable(round(_SPARSITY * n) if mode == "unstructured" else n)
        self.bracket = tf.Variable(tf.zeros(thresholds.BRACKET))

    def add_mask(self) -> Any:
        """One step: masks the weights, and changes them by the mask's gradient."""
        weights, zeros = self.weights.value(), self.zeros.value()
        axes = KernelAxes(inputs=(0,), outputs=(1,))
        with tf.GradientTape() as tape:
            tape.watch(weights)
            if self.mode.keeps_bracket:
                threshold, bracket = self.mode.tracked_threshold(
                    weights, zeros, axes, self.bracket.value()
                )
                self.bracket.assign(bracket)
                masked = self.mode.soft_masked_at(weights, threshold, axes, _width)
            else:
                masked = self.mode.soft_masked(weights, zeros, axes, _width)
        self.weights.assign_sub(1e-6 * tape.gradient(masked, weights, masked))

    def leave(self) -> Any:
        """What such a step costs without a mask."""
        weights = self.weights.value()
        self.weights.assign_sub(1e-6 * weights)


def _width(threshold: Any) -> Any:
    return threshold


def milliseconds(kernels: list[Kernel]) -> float:
    """Median time that masks add to one step of all the kernels."""
    repeats = max(1, _WEIGHTS_A_CALL // sum(kernel.n for kernel in kernels))

    def repeated(step: Callable[[Kernel], Any]) -> Callable[[], Any]:
        def once(i: Any) -> Any:
            for kernel in kernels:
                step(kernel)
            return i + 1

        def call() -> Any:
            start = [tf.constant(0)]
            return tf.while_loop(lambda i: i < repeats, once, start)

        return tf.function(call, autograph=False)

    steps = [repeated(Kernel.add_mask), repeated(Kernel.leave)]
    for _ in range(5):  # a bracket needs some steps to close in on the threshold
        for step in steps:
            step()
    times: list[list[float]] = [[], []]
    for _ in range(_TURNS.value):
        for step, found in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            found.append(1e3 * (time.perf_counter() - start) / repeats)
    masked, plain = map(statistics.median, times)
    return masked - plain


def sizes() -> list[int]:
    """Two for each power of ten."""
    exponents = range(4, 1 + int(math.log10(_MOST.value)))
    found = [factor * 10**exponent for exponent in exponents for factor in (1, 3)]
    return [n for n in found if n <= _MOST.value]


def slope(before: tuple[int, float], after: tuple[int, float]) -> float:
    """Of a line in a log-log plot: 1 is linear."""
    count, time_ = (math.log(b / a) for a, b in zip(before, after, strict=True))
    return time_ / count


def draw(measured: dict[str, list[tuple[int, float]]]) -> None:
    """The lines in one log-log plot, with a linear one to compare."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(7, 5))
    for name, points in measured.items():
        axes.loglog(*zip(*points, strict=True), "o-", label=_LABELS[name])
    first, last = measured["weights"][0], measured["weights"][-1]
    end = last[1] * first[0] / last[0]
    axes.loglog([first[0], last[0]], [end, last[1]], "k:", label="linear")
    axes.set_xlabel("weights, layers or groups")
    axes.set_ylabel("milliseconds that masks add to a step")
    axes.grid(alpha=0.3)
    axes.legend()
    path = pathlib.Path(_PLOT.value).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(path, dpi=100, bbox_inches="tight")
    print(f"wrote {path}")


def chain(depth: int) -> keras.Model:
    """So many small layers: starting them costs all, and their weights nothing."""
    hidden = [keras.layers.Dense(16, activation="relu") for _ in range(depth)]
    return keras.Sequential([keras.Input((16,)), *hidden, keras.layers.Dense(1)])


def waits(depth: int) -> dict[str, float]:
    """Seconds until a deep network is trained for the first time, dense and pruned."""
    x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    found = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        found[name] = time.perf_counter() - start
        return result

    def fit(model: keras.Model, *callbacks: Any) -> None:
        model.compile("sgd", "mse")
        model.fit(x, x[:, :1], epochs=3, verbose=0, callbacks=list(callbacks))

    keras.utils.clear_session()
    timed("dense fit", lambda: fit(chain(depth)))
    keras.utils.clear_session()
    gc.collect()  # the graphs of the dense one
    model = chain(depth)
    pruned = timed("prune", lambda: pdp_keras.prune_model(model, 0.8))
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=1)
    timed("pruned fit", lambda: fit(pruned, schedule))
    timed("strip", lambda: pdp_keras.strip_pruning(pruned))
    return found


def measure_depths(output: pathlib.Path) -> None:
    """Prints medians; a first small run is for what happens once in a process."""
    # Keras goes through a graph by a function that calls itself.
    sys.setrecursionlimit(100 * max(_DEPTHS))
    waits(10)
    for depth in _DEPTHS:
        turns = [waits(depth) for _ in range(_DEEP_TURNS.value)]
        row = {name: statistics.median(t[name] for t in turns) for name in turns[0]}
        ratio = statistics.median(t["pruned fit"] / t["dense fit"] for t in turns)
        common.append_row(output, {"line": "deep", "depth": depth, **row})
        seconds = ", ".join(f"{name} {value:.1f} s" for name, value in row.items())
        print(
            f"{depth:>5} layers: {seconds}; first fit {ratio:.2f} x dense", flush=True
        )


def measure_masks(output: pathlib.Path) -> None:
    """Measures, prints, keeps and draws what masks add to a step."""
    lines: dict[str, dict[int, list[tuple[int, str]]]] = {
        "weights": {n: [(n, "unstructured")] for n in sizes()},
        "layers": {n: [(_LAYER, "unstructured")] * n for n in _LAYERS},
        "groups": {n // 4: [(n, "2:4")] for n in sizes()},
    }
    measured: dict[str, list[tuple[int, float]]] = {name: [] for name in lines}
    for name, points in lines.items():
        for count, kernels in points.items():
            found = milliseconds([Kernel(n, mode) for n, mode in kernels])
            row = {"line": name, "count": count, "milliseconds": found}
            common.append_row(output, row)
            measured[name].append((count, found))
            text = f"{count:>11,} {name:8} {found:10.2f} ms"
            if len(measured[name]) > 1:
                text += f"   slope {slope(*measured[name][-2:]):.2f}"
            print(text, flush=True)
    draw(measured)


def main(_: list[str]) -> None:
    """Measures one part, or both."""
    print(common.describe_machine())
    output = pathlib.Path(_OUTPUT.value).expanduser()
    if _ONLY.value != "deep":
        measure_masks(output)
    if _ONLY.value != "masks":
        measure_depths(output)


if __name__ == "__main__":
    app.run(main)
