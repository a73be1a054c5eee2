"""How long the exact threshold takes, beside the soft mask and what others use.

    python benchmarks/threshold_speed.py
    python benchmarks/threshold_speed.py --jit_compile --sizes=10000,2400000

Draws n weights, moves them a little before every call, as training does, and times in
TensorFlow graphs, turn by turn: the soft mask (times the weights), the threshold as the
wrapper finds it, the same when nothing is known of the last step, and `tf.math.top_k`
and `tf.sort`. What moving alone takes is subtracted. Prints milliseconds and ratios to
the mask, with the slope of time over n in a log-log plot.
"""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import tensorflow as tf
from absl import app, flags

from pdp_keras.masks import functional, thresholds

_SIZES = flags.DEFINE_list(
    "sizes",
    ["10000", "100000", "1000000", "2400000", "25000000"],
    "Numbers of weights.",
)
_JIT = flags.DEFINE_bool("jit_compile", False, "Whether XLA compiles each function.")
_TURNS = flags.DEFINE_integer("turns", 21, "Turns of each function.", 1)
_SORTS = flags.DEFINE_bool("sorts", True, "Whether to time top_k and sort.")
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/threshold_speed.jsonl", "Results file, added to."
)

_SPARSITY = 0.85
# A step moves the weights by this part of their spread.
_STEP = 1e-4
# The sorts of this many weights are timed in fewer turns, and of more not at all.
_SLOW, _TOO_SLOW = 1_000_000, 5_000_000
# A call of a graph handles this many weights, so that starting it does not count.
_WEIGHTS_A_CALL = 1_000_000


class Weights:
    """Variables of n weights that move as in training, and the functions to time."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.zeros = tf.Variable(round(_SPARSITY * n))
        self.weights = tf.Variable(tf.random.stateless_normal([n], [0, 0]) * 0.05)
        self.velocity = tf.random.stateless_normal([n], [0, 1]) * 0.05 * _STEP
        self.bracket = tf.Variable(tf.zeros(thresholds.BRACKET))
        self.found = tf.Variable(0.0)

    def move(self) -> None:
        """One step of training."""
        self.weights.assign_add(self.velocity)

    def nothing(self) -> Any:
        """What is subtracted."""
        return self.weights[:1]

    def mask(self) -> Any:
        """The soft mask times the weights."""
        masked = functional.soft_masked(self.weights.value(), self.found, self.found)
        # XLA computes no more than is asked for.
        return tf.reduce_max(masked) if _JIT.value else masked

    def threshold(self) -> Any:
        """The threshold, with the bracket of the last step."""
        found, bracket = thresholds.tracked_threshold(
            self.weights.value(), self.zeros, self.bracket
        )
        self.bracket.assign(bracket)
        self.found.assign(found)
        return found

    def threshold_anew(self) -> Any:
        """The threshold when nothing is known."""
        return thresholds.midpoint_threshold(self.weights.value(), self.zeros)

    def top_k(self) -> Any:
        """The kept weights in order, as the paper's code finds the threshold."""
        return tf.math.top_k(tf.abs(self.weights), self.n - self.zeros)[0][-1]

    def sort(self) -> Any:
        """All of them in order."""
        return tf.sort(tf.abs(self.weights))[self.zeros]


def measure(n: int) -> dict[str, float]:
    """Median milliseconds of each function, by name."""
    weights = Weights(n)
    names = ["nothing", "threshold", "mask", "threshold_anew"]
    if _SORTS.value and n < _TOO_SLOW and not _JIT.value:
        names += ["top_k", "sort"]
    repeats = max(1, _WEIGHTS_A_CALL // n)
    functions: dict[str, Callable[[], Any]] = {
        name: repeated(weights, name, repeats) for name in names
    }
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(_TURNS.value + 3):
        for name, function in functions.items():
            if n >= _SLOW and name in ("top_k", "sort") and turn % 7:
                continue
            start = time.perf_counter()
            float(function())
            if turn >= 3:
                times[name].append(1e3 * (time.perf_counter() - start) / repeats)
    weights.threshold()
    exact = np.sort(np.abs(weights.weights.numpy()))
    rank = int(weights.zeros)
    wanted = 0.5 * exact[rank - 1] + 0.5 * exact[rank]
    assert weights.found.numpy() == np.float32(wanted), "the threshold is not exact"
    medians = {name: statistics.median(values) for name, values in times.items()}
    nothing = medians.pop("nothing")
    return {name: value - nothing for name, value in medians.items()}


def repeated(weights: Weights, name: str, repeats: int) -> Callable[[], Any]:
    """A graph that moves the weights and calls a function, several times."""
    function = getattr(weights, name)

    def step(i: Any, total: Any) -> tuple[Any, Any]:
        weights.move()
        return i + 1, total + tf.reshape(function(), [-1])[0]

    def call() -> Any:
        start = (tf.constant(0), tf.constant(0.0))
        return tf.while_loop(
            lambda i, _: i < repeats, step, start, parallel_iterations=1
        )[1]

    return tf.function(call, jit_compile=_JIT.value, autograph=False)


def main(_: list[str]) -> None:
    """Prints the table and keeps its rows."""
    tf.get_logger().setLevel("ERROR")  # it takes many functions for one traced anew
    print(common.describe_machine())
    rows = []
    for n in map(int, _SIZES.value):
        row = {"n": n, "jit_compile": _JIT.value} | measure(n)
        common.append_row(pathlib.Path(_OUTPUT.value).expanduser(), row)
        rows.append(row)
        cells = [
            f"{name} {row[name]:.2f} ms ({row[name] / row['mask']:.2f})"
            for name in row
            if name not in ("n", "jit_compile")
        ]
        print(f"{n:>10}  {'  '.join(cells)}", flush=True)
    if len(rows) > 1:
        logs = np.log([[row["n"], row["threshold"]] for row in rows])
        print(f"slope of the threshold: {np.polyfit(logs[:, 0], logs[:, 1], 1)[0]:.2f}")


if __name__ == "__main__":
    app.run(main)
