"""Draws the README's picture from results that have been measured.

    python benchmarks/front_picture.py

Accuracy is that of `accuracy.py` (three seeds, Fashion-MNIST), times and sizes are
those of `browser_speed.py`: what the two have kept in `benchmarks/results`.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import accuracy
import matplotlib
import numpy as np
from absl import app, flags
from accuracy_runs import Results

matplotlib.use("agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

_RESULTS = pathlib.Path(__file__).parent / "results"
_PATH = flags.DEFINE_string("path", "docs/pictures/front.png", "File to draw.")
_LEVELS = ["90", "95", "98", "99"]
# method: its label and colour. TFMOT's pruning was run at two of the levels.
_METHODS = {
    "pdp": ("PDP", "#c0392b"),
    "gmp": ("gradual magnitude (GMP)", "#2980b9"),
    "dnw": ("straight-through (DNW)", "#7f8c8d"),
    "tfmot": ("TFMOT (uniform)", "#f39c12"),
}
_NETWORKS = {"MobileNet": "#c0392b", "MobileNetV2": "#2980b9", "EfficientNetB0": "0.5"}


def main(argv: list[str]) -> None:
    """Draws and saves."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6))
    draw_accuracy(left, Results(_RESULTS / "accuracy.csv"))
    rows = [json.loads(s) for s in (_RESULTS / "browser_speed.jsonl").open()]
    for name, color in _NETWORKS.items():
        sweeps = [row for row in rows if row["name"] == name]
        draw_speed(middle, name, color, sweeps)
        draw_size(right, name, color, sweeps[0])
    for axes in (middle, right):
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.set_xlabel("zeros in the 1×1 convolutions")
        axes.legend(fontsize="small", frameon=False)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(_PATH.value, dpi=110, facecolor="white")
    print(_PATH.value)


def draw_accuracy(axes: Any, results: Results) -> None:
    """Test accuracy of the small residual network over its sparsity."""
    for method, (label, color) in _METHODS.items():
        cells = {s: accuracy.rows_of("resnet", s, method, results) for s in _LEVELS}
        tests = {s: [row["test"] for row in rows] for s, rows in cells.items() if rows}
        axes.errorbar(
            [_LEVELS.index(level) for level in tests],
            [np.mean(values) for values in tests.values()],
            [np.std(values) for values in tests.values()],
            label=label,
            color=color,
            linewidth=2.5 if method == "pdp" else 1.2,
            marker="o",
            markersize=4,
        )
    axes.set_xticks(range(len(_LEVELS)), [f"{level} %" for level in _LEVELS])
    axes.set_ylim(75, 88)
    axes.set_title("Accuracy: residual network, Fashion-MNIST", fontsize="medium")
    axes.set_xlabel("sparsity")
    axes.set_ylabel("test accuracy, percent")
    axes.legend(fontsize="small", frameon=False, loc="lower left")


def draw_speed(axes: Any, name: str, color: str, sweeps: list[dict[str, Any]]) -> None:
    """How many times as fast as the dense file the sparse one is, in a browser."""
    ratios = [row["dense_ms"] / np.array(row["rewritten_ms"]) for row in sweeps]
    axes.plot(
        [0.0, *sweeps[0]["sparsities"]],
        [1.0, *np.median(ratios, axis=0)],
        label=name,
        color=color,
        marker="o",
        markersize=4,
    )
    axes.set_title("Speed: browser, one thread, Zen 3", fontsize="medium")
    axes.set_ylabel("times as fast as dense")


def draw_size(axes: Any, name: str, color: str, row: dict[str, Any]) -> None:
    """The size of the float32 file over that of the dense one."""
    dense, rewritten = row["bytes"][0], row["bytes"][2::2]
    axes.plot(
        [0.0, *row["sparsities"]],
        [1.0, *(size / dense for size in rewritten)],
        label=name,
        color=color,
        marker="o",
        markersize=4,
    )
    axes.set_title("Size: the file, float32", fontsize="medium")
    axes.set_ylabel("of the dense file")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_ylim(0, 1.05)


if __name__ == "__main__":
    app.run(main)
