"""Draws the README's picture from results that have been measured.

    python benchmarks/front_picture.py

Accuracy is that of `accuracy.py` (three seeds, Fashion-MNIST), times and sizes are
those of `browser_speed.py`: what the two have kept in `benchmarks/results`. Letters are
large, because the picture is looked at on phones, too, where it is as wide as a hand.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import accuracy
import common
import matplotlib
import numpy as np
from absl import app, flags
from accuracy_runs import Results

matplotlib.use("agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, MultipleLocator, PercentFormatter

_RESULTS = pathlib.Path(__file__).parent / "results"
_PATH = flags.DEFINE_string("path", "docs/pictures/front.png", "File to draw.")
_LEVELS = ["90", "95", "98", "99"]
_LEAST = 74.0
# method: its label and colour. TFMOT's pruning was run at two of the levels.
_METHODS = {
    "pdp": ("PDP", "#c0392b"),
    "gmp": ("GMP: magnitude, gradually", "#2980b9"),
    "dnw": ("DNW: straight-through", "#7f8c8d"),
    "tfmot": ("TFMOT: uniform over layers", "#d68910"),
}
_NETWORKS = {
    "MobileNet": "#c0392b",
    "MobileNetV2": "#2980b9",
    "EfficientNetB0": "#7f8c8d",
}


def main(argv: list[str]) -> None:
    """Draws and saves."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    plt.rcParams.update({"font.size": 12, "axes.titlesize": 12, "legend.fontsize": 11})
    figure, axes = plt.subplot_mosaic(
        [["accuracy", "accuracy"], ["speed", "size"]],
        figsize=(7, 6),
        layout="constrained",
    )
    draw_accuracy(axes["accuracy"], Results(_RESULTS / "accuracy.csv"))
    rows = [json.loads(s) for s in (_RESULTS / "browser_speed.jsonl").open()]
    for name, color in _NETWORKS.items():
        sweeps = [row for row in rows if row["name"] == name]
        draw_speed(axes["speed"], name, color, sweeps)
        draw_size(axes["size"], name, color, sweeps[0])
    for name in ("speed", "size"):
        axes[name].xaxis.set_major_formatter(PercentFormatter(1, 0, symbol=" %"))
        axes[name].xaxis.set_major_locator(MultipleLocator(0.1))
        axes[name].set_xlim(0.68, 0.97)
        axes[name].set_xlabel("zeros in 1×1 convolutions")
    axes["size"].legend(frameon=False, loc="lower left")
    axes["speed"].axhline(1, color="black", linewidth=1, linestyle=":")
    axes["speed"].annotate("dense", (0.96, 1.05), horizontalalignment="right")
    for one in axes.values():
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.3)
    # Opaque, so that it is read on a dark page, too.
    figure.savefig(_PATH.value, dpi=120, facecolor="white")
    print(_PATH.value)


def draw_accuracy(axes: Any, results: Results) -> None:
    """Test accuracy of the small residual network over its sparsity."""
    for method, (label, color) in _METHODS.items():
        cells = {s: accuracy.rows_of("resnet", s, method, results) for s in _LEVELS}
        tests = {s: [row["test"] for row in rows] for s, rows in cells.items() if rows}
        means = [np.mean(values) for values in tests.values()]
        places = [_LEVELS.index(level) for level in tests]
        axes.errorbar(
            places,
            means,
            [common.deviation(values) for values in tests.values()],
            label=label,
            color=color,
            linewidth=3 if method == "pdp" else 1.5,
            linestyle="-" if len(tests) == len(_LEVELS) else "--",
            capsize=3,
            marker="o",
            markersize=5,
            zorder=3 if method == "pdp" else 2,
        )
        for place, mean in zip(places, means, strict=True):
            if mean < _LEAST:  # leaves the picture: say where to
                axes.annotate(
                    f"{method.upper()}: {mean:.0f}\nat {_LEVELS[place]} %",
                    (place - 0.55, _LEAST),
                    (0, 6),
                    textcoords="offset points",
                    color=color,
                )
    rows = accuracy.rows_of("resnet", _LEVELS[0], "dense", results)
    dense = np.mean([row["test"] for row in rows])
    axes.axhline(dense, color="black", linewidth=1, linestyle=":", label="dense")
    axes.set_xticks(range(len(_LEVELS)), [f"{level} %" for level in _LEVELS])
    axes.set_ylim(_LEAST, 88.4)
    axes.set_title("Accuracy: residual network, Fashion-MNIST, three seeds")
    axes.set_xlabel("sparsity")
    axes.set_ylabel("test accuracy, %")
    axes.legend(frameon=False, loc="lower left")


def draw_speed(axes: Any, name: str, color: str, sweeps: list[dict[str, Any]]) -> None:
    """How many times as fast as the dense file the sparse one is, in a browser."""
    ratios = [row["dense_ms"] / np.array(row["rewritten_ms"]) for row in sweeps]
    axes.plot(
        sweeps[0]["sparsities"],
        np.median(ratios, axis=0),
        label=name,
        color=color,
        marker="o",
        markersize=5,
    )
    axes.set_title("Speed: browser, one thread, Zen 3")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.set_ylim(0, 4.5)
    axes.set_ylabel("times as fast as dense")


def draw_size(axes: Any, name: str, color: str, row: dict[str, Any]) -> None:
    """The size of the float32 file over that of the dense one."""
    dense, rewritten = row["bytes"][0], row["bytes"][2::2]
    axes.plot(
        row["sparsities"],
        [size / dense for size in rewritten],
        label=name,
        color=color,
        marker="o",
        markersize=5,
    )
    axes.set_title("Size: the file, float32")
    axes.set_ylabel("of the dense file")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0, symbol=" %"))
    axes.set_ylim(0, 0.7)


if __name__ == "__main__":
    app.run(main)
