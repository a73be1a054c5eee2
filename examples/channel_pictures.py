"""A picture for the guide to channels: how a residual network is cut.

It builds a small residual network, follows its channels as `prune_model` does, prunes
half of them on the digits, and draws what was found: the graph, in which a color is a
group of channels, and below each kernel what is cut out of it.

Usage, under a minute:

    python examples/channel_pictures.py
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

# TensorFlow reports its start-up on the console unless told not to beforehand.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import data
import keras
import matplotlib
import numpy as np
from absl import app, flags
from keras import layers

import pdp_keras
from pdp_keras.channels.trace import find_channels
from pdp_keras.pruned import channel_groups

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

_PATH = flags.DEFINE_string(
    "path", "docs/pictures/residual_channels.svg", "Where it goes: .svg or .png."
)
_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
_FIXED = "#777777"
_KEPT = "#444444"
_STRIP = 0.16  # the colored edges of a kernel's box


def residual_network(filters: int = 8, inside: int = 12) -> keras.Model:
    """Two residual blocks between a first convolution and a classifier."""
    inputs = keras.Input((8, 8, 1), name="image")

    def convolution(x: Any, width: int, name: str) -> Any:
        x = layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    x = convolution(inputs, filters, "stem")
    for name in "ab":
        y = convolution(x, inside, f"{name}_1")
        y = convolution(y, filters, f"{name}_2")
        x = layers.Add(name=f"{name}_sum")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x), name="residual")


@dataclasses.dataclass
class Cut:
    """What was found and what is cut.

    Attributes:
        groups: the names of the groups.
        roles: for the name of each layer the groups along its axes, by role.
        alive: for each axis of a kernel, by layer and axis, which places are left.
    """

    groups: list[str]
    roles: dict[str, dict[str, str]]
    alive: dict[tuple[str, int], np.ndarray]

    def color(self, group: str | None) -> str:
        """The color of a group; gray for channels that cannot be removed."""
        return _FIXED if group is None else _COLORS[self.groups.index(group)]


def find_cut(model: Any, pruned: Any) -> Cut:
    """Reads off what a model's channels are to its weights, and which are left."""
    plan = find_channels(model)
    kept = {group.label: group.kept() for group in channel_groups(pruned)}
    names = [group.name for group in plan.groups]
    roles: dict[str, dict[str, str]] = {}
    alive = {}
    for slot in plan.slots:
        groups = set(slot.group_of.tolist()) - {-1}
        if groups:
            roles.setdefault(slot.path, {})[slot.role] = names[groups.pop()]
        if slot.weight == "kernel":
            alive[slot.path, slot.axis] = np.array(
                [
                    group < 0 or bool(kept[names[group]][unit])
                    for group, unit in zip(slot.group_of, slot.unit_of, strict=True)
                ]
            )
    return Cut(names, roles, alive)


def pruned_on_digits(model: Any) -> Any:
    """The model with half of its channels pruned."""
    digits = data.load("digits", None)
    pruned = pdp_keras.prune_model(model, 0.5, mode="channel")
    pruned.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruned.fit(
        digits.x_train,
        digits.y_train,
        epochs=10,
        verbose=0,
        callbacks=[pdp_keras.PDPScheduleCallback()],
    )
    return pruned


# The graph.


def parents_of(model: Any) -> dict[str, list[str]]:
    """For the name of each layer those of the layers that make its inputs."""
    makers = {id(x.output): x.name for x in model.layers}
    return {
        layer.name: [makers[id(x)] for x in keras.tree.flatten(layer.input)]
        for layer in model.layers
        if not isinstance(layer, layers.InputLayer)
    }


def place(model: Any) -> dict[str, float]:
    """Where each layer stands from left to right; kernels get more room."""
    places, x = {}, 0.0
    for layer in model.layers:
        wide = hasattr(layer, "kernel")
        x += 1.0 if wide else 0.45
        places[layer.name] = x
        x += 1.0 if wide else 0.45
    return places


def draw_layer(axes: Axes, layer: Any, x: float, cut: Cut) -> float:
    """Draws a layer; returns half of its width."""
    roles = cut.roles.get(layer.name, {})
    if hasattr(layer, "kernel"):
        axes.add_patch(Rectangle((x - 0.8, -0.6), 1.6, 1.2, fc="white", ec="black"))
        for role, left in (("reads", x - 0.8), ("makes", x + 0.8 - _STRIP)):
            color = cut.color(roles.get(role))
            axes.add_patch(Rectangle((left, -0.6), _STRIP, 1.2, fc=color, ec="none"))
        kind = "Dense" if isinstance(layer, layers.Dense) else "3×3"
        axes.text(
            x, 0.17, layer.name, ha="center", va="center", weight="bold", fontsize=12
        )
        axes.text(x, -0.22, kind, ha="center", va="center", fontsize=10)
        return 0.8
    if isinstance(layer, layers.Add):
        axes.add_patch(Circle((x, 0), 0.32, fc="white", ec="black", zorder=3))
        axes.text(x, -0.01, "+", ha="center", va="center", fontsize=14, zorder=4)
        return 0.32
    names = {"BatchNormalization": "BN", "InputLayer": "image"}
    label = names.get(type(layer).__name__, "pool")
    axes.add_patch(Rectangle((x - 0.22, -0.6), 0.44, 1.2, fc="white", ec="#999999"))
    axes.text(x, 0, label, ha="center", va="center", fontsize=10, rotation=90)
    return 0.22


def draw_graph(axes: Axes, model: Any, cut: Cut) -> None:
    """The layers in a row, and what flows between them in the color of its group."""
    places, parents = place(model), parents_of(model)
    half: dict[str, float] = {}
    flowing: dict[str, str | None] = {}
    order = [layer.name for layer in model.layers]
    for layer in model.layers:
        roles = cut.roles.get(layer.name, {})
        above = [flowing[name] for name in parents.get(layer.name, [])]
        is_kernel = hasattr(layer, "kernel")
        flowing[layer.name] = roles.get("makes") if is_kernel else (above or [None])[0]
        half[layer.name] = draw_layer(axes, layer, places[layer.name], cut)
    for name, sources in parents.items():
        for source in sources:
            color = cut.color(flowing[source])
            if order.index(name) - order.index(source) == 1:
                points = [(places[source] + half[source], 0.0)]
                points.append((places[name] - half[name], 0.0))
            else:  # the shortcut
                begin, end = places[source] + 0.12, places[name] - 0.12
                low = 0.62 if half[source] < 0.3 else 0.31  # a box, or a sum
                points = [(begin, low), (begin, 1.05), (end, 1.05), (end, 0.31)]
            draw_arrow(axes, points, color)


def draw_arrow(axes: Axes, points: list[tuple[float, float]], color: str) -> None:
    """An arrow along a line with corners."""
    axes.plot(*zip(*points[:-1], strict=True), color=color, linewidth=2.4, zorder=1)
    axes.add_patch(
        FancyArrowPatch(
            *points[-2:],
            arrowstyle="-|>",
            mutation_scale=10,
            linewidth=2.4,
            shrinkA=0,
            shrinkB=0,
            color=color,
        )
    )


def draw_kernels(axes: Axes, model: Any, cut: Cut) -> None:
    """Below each kernel its inputs (down) times its outputs (across)."""
    places = place(model)
    side, top = 0.135, -0.95
    for layer in model.layers:
        if not hasattr(layer, "kernel"):
            continue
        rank = len(layer.kernel.shape)
        ins, outs = (cut.alive.get((layer.name, rank - k)) for k in (2, 1))
        ins = np.ones(layer.kernel.shape[-2], bool) if ins is None else ins
        outs = np.ones(layer.kernel.shape[-1], bool) if outs is None else outs
        roles = cut.roles.get(layer.name, {})
        left = places[layer.name] - len(outs) * side / 2
        for i, j in np.ndindex(len(ins), len(outs)):
            color, alpha = _KEPT, 1.0
            if not ins[i]:
                color, alpha = cut.color(roles.get("reads")), 0.45
            elif not outs[j]:
                color, alpha = cut.color(roles.get("makes")), 0.45
            corner = left + j * side, top - (i + 1) * side
            axes.add_patch(
                Rectangle(corner, side, side, fc=color, ec="white", lw=0.6, alpha=alpha)
            )
        axes.text(
            places[layer.name],
            top - 12 * side - 0.3,
            f"{len(ins)}×{len(outs)} → {ins.sum()}×{outs.sum()}",
            ha="center",
            va="center",
            fontsize=11,
        )


def draw_legend(axes: Axes, cut: Cut) -> None:
    """A line a group: which kernels make it, which read it."""
    lines = [(_KEPT, "weights that are left, inputs (down) × outputs (across)")]
    for group in cut.groups:
        made, read = (
            ", ".join(n for n, roles in cut.roles.items() if roles.get(role) == group)
            for role in ("makes", "reads")
        )
        text = f"group {group}: made by {made}; read by {read}"
        lines.append((cut.color(group), text))
    lines.append((_FIXED, "never removed: the channels of the image, the classes"))
    for i, (color, text) in enumerate(lines):
        bottom = -3.5 - 0.5 * i
        axes.add_patch(Rectangle((0.3, bottom - 0.15), 0.5, 0.3, fc=color, ec="none"))
        axes.text(1.05, bottom, text, va="center", fontsize=12)


def draw(path: pathlib.Path) -> None:
    """Prunes the network and draws how it was cut."""
    keras.utils.set_random_seed(0)
    model = residual_network()
    cut = find_cut(model, pruned_on_digits(model))
    right = max(place(model).values()) + 1
    figure, axes = plt.subplots(figsize=(12, 12 * 7.6 / (right + 0.3)))
    draw_graph(axes, model, cut)
    draw_kernels(axes, model, cut)
    draw_legend(axes, cut)
    axes.set(xlim=(-0.1, right + 0.2), ylim=(-5.9, 1.7), aspect="equal")
    axes.axis("off")
    figure.tight_layout(pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date and no random names: the same picture is the same file.
    matplotlib.rcParams["svg.hashsalt"] = "pdp_keras"
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, dpi=120, facecolor="white", metadata=metadata)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"Unknown arguments: {arguments[1:]}")
    draw(pathlib.Path(_PATH.value))
    print(_PATH.value)


if __name__ == "__main__":
    app.run(main)
