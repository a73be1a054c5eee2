"""Plots of what pruning did: `pip install pdp-keras[plot]`.

Every function returns a `matplotlib.figure.Figure` and shows nothing: notebooks
display a returned figure once `matplotlib.pyplot` is imported, and
`figure.savefig("name.png")` needs no display. Without `ax` a figure of its own is
made, outside of pyplot, so that nothing must be closed afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from pdp_keras.layers import PrunedWeight
from pdp_keras.models import Kernel, find_kernels
from pdp_keras.pruned import pruned_weights
from pdp_keras.report import sparsity_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PRUNED = "#2563a8"
_TARGET = "#c2410c"
_SKIPPED = "#b9bec6"
_TRAIN = "#7c8591"
_VALIDATION = "#15803d"
_TEXT = "#374151"

_INCHES_PER_BAR = 0.26
_LARGEST_FONT = 9.0
_SMALLEST_FONT = 2.0


def plot_sparsity(report_or_model: Any, ax: Axes | None = None) -> Figure:
    """A horizontal bar for each weight: how sparse it is, and was meant to become.

    The marker is the target, the number behind the name the weight's size. Kernels
    that were skipped stand in grey with their reason; biases and the like are only
    counted.

    Args:
        report_or_model: what `sparsity_report` returns, or a model to report on.
        ax: axes to draw on. By default a new figure, tall enough for all names.

    Returns:
        The figure.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if there is no kernel to show.

    Example:

    >>> pdp_keras.plot.plot_sparsity(model).savefig("sparsity.png")
    """
    report = report_or_model
    if isinstance(report_or_model, keras.Model):
        report = sparsity_report(report_or_model)
    rows = list(report.rows)
    # Biases and the like are skipped in every model: as bars they would bury the rest.
    skipped = [entry for entry in report.skipped if len(entry.shape) >= 2]
    small = len(report.skipped) - len(skipped)
    count = len(rows) + len(skipped)
    if not count:
        raise ValueError(
            "The report must have at least one kernel. "
            f"Received: report_or_model={report_or_model!r}"
        )
    names = [_label(entry) for entry in rows + skipped]
    width = 6.0 + 0.07 * max(map(len, names))
    ax, figure = _axes(ax, width, 1.3 + _INCHES_PER_BAR * count)
    font = _font_for(ax, figure, count)

    # In a column of their own beside the axes the numbers can hide nothing.
    beside = {"transform": ax.get_yaxis_transform(), "fontsize": font, "va": "center"}
    for position, row in enumerate(rows):
        ax.barh(position, row.sparsity, height=0.66, color=_PRUNED)
        ax.text(1.075, position, f"{row.sparsity:.1%}", ha="right", **beside)
    handles = []
    targets = [(i, row.target) for i, row in enumerate(rows) if row.target is not None]
    if targets:
        positions, values = zip(*targets, strict=True)
        handles += ax.plot(
            values,
            positions,
            linestyle="none",
            marker="|",
            markersize=1.4 * font,
            markeredgewidth=2,
            color=_TARGET,
            clip_on=False,
            label="target",
        )
    for position, entry in enumerate(skipped, start=len(rows)):
        ax.barh(position, 1.0, height=0.66, color=_SKIPPED, alpha=0.35)
        ax.text(
            0.012,
            position,
            f"not pruned: {entry.reason}",
            fontsize=font,
            va="center",
            color=_TEXT,
            clip_on=True,
        )
    if rows:
        handles += ax.plot(
            [report.sparsity] * 2,
            [-0.5, len(rows) - 0.5],
            color=_TEXT,
            linewidth=1,
            linestyle=(0, (4, 3)),
            label=f"overall {report.sparsity:.1%}",
        )
    ax.set_yticks(range(count), names, fontsize=font)
    for tick in ax.get_yticklabels()[len(rows) :]:
        tick.set_color(_TRAIN)
    ax.set_ylim(count - 0.4, -0.6)  # The first layer on top.
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(_percent())
    left_out = f" ({small} biases and the like left out)" if small else ""
    ax.set_xlabel(f"sparsity{left_out}")
    ax.tick_params(axis="y", length=0)
    _tidy(ax)
    _legend_above(ax, handles)
    return figure


def plot_training(history_or_dict: Any, ax: Axes | None = None) -> Figure:
    """Accuracy (left axis) and sparsity (right axis) over the epochs.

    Args:
        history_or_dict: the `keras.callbacks.History` that `fit` returns, or its
            `history`: lists with one value an epoch. Drawn are "sparsity" and the
            metrics whose name ends in "accuracy" or "acc"; without any, the
            losses.
        ax: axes to draw on. By default a new figure.

    Returns:
        The figure.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if there is nothing to draw.

    Example:

    >>> history = model.fit(x, y, epochs=30, callbacks=[PDPScheduleCallback()])
    >>> pdp_keras.plot.plot_training(history).savefig("training.png")
    """
    logs: Mapping[str, Sequence[float]] = getattr(
        history_or_dict, "history", history_or_dict
    )
    names = [name for name in logs if name.endswith(("accuracy", "acc"))]
    quantity = "accuracy"
    if not names:
        names = [name for name in logs if name.endswith("loss")]
        quantity = "loss"
    sparsity = logs.get("sparsity")
    if not names and sparsity is None:
        raise ValueError(
            "The history must have 'sparsity', an accuracy or a loss. "
            f"Received: history with {sorted(logs)}"
        )
    ax, figure = _axes(ax, 7.0, 4.0)
    lines = []
    # Validation last, so that it lies on top.
    for name in sorted(names, key=lambda name: name.startswith("val_")):
        held_out = name.startswith("val_")
        values = logs[name]
        lines += ax.plot(
            _epochs(values),
            values,
            color=_VALIDATION if held_out else _TRAIN,
            linewidth=2.2 if held_out else 1.6,
            marker="o" if len(values) == 1 else None,
            label=name,
        )
    if names:
        ax.set_ylabel(quantity)
        if quantity == "accuracy":
            ax.yaxis.set_major_formatter(_percent(decimals=None))
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if ax.get_xlim()[1] - ax.get_xlim()[0] < 1:  # A single epoch.
        ax.set_xlim(0.5, 1.5)
    ax.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    ax.set_axisbelow(True)
    _tidy(ax)
    if sparsity is not None:
        right = ax.twinx() if names else ax
        lines += right.plot(
            _epochs(sparsity),
            sparsity,
            color=_PRUNED,
            linewidth=1.8,
            linestyle=(0, (5, 2)),
            marker="o" if len(sparsity) == 1 else None,
            label="sparsity",
        )
        right.set_ylim(0, 1)
        right.yaxis.set_major_formatter(_percent())
        right.set_ylabel("sparsity", color=_PRUNED)
        right.tick_params(axis="y", colors=_PRUNED)
        if names:
            right.spines[["top", "left", "bottom"]].set_visible(False)
            right.spines["right"].set_color(_PRUNED)
    _legend_above(ax, lines)
    return figure


def plot_weights(
    model: keras.Model,
    layer_name: str,
    weight: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The distribution of one weight, with the threshold and the soft mask.

    Args:
        model: a model from `prune_model`, or any other Keras model: then there is
            no threshold, and only the histogram is drawn.
        layer_name: name or path of a layer. The end of a path is enough where it
            is unique.
        weight: name of the kernel in the layer, like "kernel" or
            "recurrent_kernel". By default its only one, or its only pruned one.
        ax: axes to draw on. By default a new figure.

    Returns:
        The figure. Weights that are exactly 0 are counted in its title and left
        out of the bars, which they would dwarf.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if the model has no such kernel, or several.

    Example:

    >>> pdp_keras.plot.plot_weights(model, "block1").savefig("weights.png")
    """
    kernel, state = _find_kernel(model, layer_name, weight)
    values = keras.ops.convert_to_numpy(keras.ops.cast(kernel.variable, "float32"))
    values = values.ravel()
    nonzero = values[values != 0]
    ax, figure = _axes(ax, 7.0, 4.0)
    limit = float(np.abs(nonzero).max(initial=0.0)) or 1.0
    thresholds = np.ravel(state.numpy_threshold() if state is not None else 0.0)
    threshold = float(np.median(thresholds))
    # A long tail of few weights would leave the middle in one bar.
    if len(nonzero):
        common = float(np.quantile(np.abs(nonzero), 0.999))
        limit = min(limit, max(1.5 * common, 1.2 * threshold))
    _, _, bars = ax.hist(
        np.clip(nonzero, -limit, limit),
        bins=81,
        range=(-limit, limit),
        color=_PRUNED,
        alpha=0.75,
    )
    handles = [bars[0]]
    handles[0].set_label("weights")
    ax.set_xlim(-limit, limit)
    ax.set_xlabel("w")
    ax.set_ylabel("number of weights")
    _tidy(ax)
    if state is not None and threshold > 0:
        ax.axvspan(-threshold, threshold, color=_SKIPPED, alpha=0.25, linewidth=0)
        for sign in (-1, 1):
            line = ax.axvline(sign * threshold, color=_TARGET, linewidth=1.5)
        kind = "threshold" if len(thresholds) == 1 else "median threshold"
        line.set_label(f"{kind} ±{threshold:.3g}")
        handles.append(line)
        grid = np.linspace(-limit, limit, 801)
        right = ax.twinx()
        handles += right.plot(
            grid,
            state.soft_mask(grid.astype("float32"), threshold),
            color=_TEXT,
            linewidth=1.8,
            label="soft mask m(w)",
        )
        right.set_ylim(0, 1.04)
        right.set_ylabel("m(w)")
        right.spines[["top", "left", "bottom"]].set_visible(False)
    zeros = 1 - len(nonzero) / max(len(values), 1)
    ax.set_title(
        f"{kernel.full_name}\n{len(values):,} weights, {zeros:.1%} exactly zero",
        loc="left",
        fontsize=10,
        pad=24,
    )
    _legend_above(ax, handles)
    return figure


def _find_kernel(
    model: keras.Model, layer_name: str, weight: str | None
) -> tuple[Kernel, PrunedWeight | None]:
    """The kernel of this name, and its pruning state if it has one."""
    kernels, _ = find_kernels(model)
    matches = [kernel for kernel in kernels if kernel.path == layer_name] or [
        kernel for kernel in kernels if kernel.path.endswith(f"/{layer_name}")
    ]
    matches = [kernel for kernel in matches if weight in (None, kernel.name)]
    states = {id(state.variable): state for state in pruned_weights(model)}
    if len(matches) > 1:
        pruned = [kernel for kernel in matches if id(kernel.variable) in states]
        matches = pruned if len(pruned) == 1 else matches
    if len(matches) != 1:
        rule = "only one kernel" if matches else "a kernel of the model"
        names = ", ".join(repr(kernel.full_name) for kernel in matches or kernels)
        raise ValueError(
            f"layer_name and weight must name {rule}. "
            f"Received: layer_name={layer_name!r}, weight={weight!r}. "
            f"There are: {names or 'none'}"
        )
    return matches[0], states.get(id(matches[0].variable))


def _axes(ax: Axes | None, width: float, height: float) -> tuple[Axes, Figure]:
    """The given axes and their figure, or new ones of this size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib: `pip install pdp-keras[plot]`."
        ) from error

    if ax is None:
        ax = Figure(figsize=(width, height), dpi=120, layout="constrained").subplots()
    return ax, ax.get_figure(root=True)


def _font_for(ax: Axes, figure: Figure, count: int) -> float:
    """A font size in points with which `count` lines do not overlap in these axes."""
    points = 72 * figure.get_figheight() * ax.get_position().height / count
    return float(np.clip(0.72 * points, _SMALLEST_FONT, _LARGEST_FONT))


def _label(entry: Any) -> str:
    return f"{_shortened(entry.layer, 56)}  {entry.weight}  ({_short(entry.size)})"


def _short(number: int) -> str:
    """At most four characters for a count: 640, 1.2k, 147k, 2.4M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.{number < 9.95 * unit:d}f}{name}"
    return str(number)


def _shortened(text: str, length: int) -> str:
    """The text, or its two ends: paths differ in both, seldom in the middle."""
    if len(text) <= length:
        return text
    head = (length - 1) // 3
    return f"{text[:head]}…{text[-(length - 1 - head) :]}"


def _epochs(values: Sequence[float]) -> range:
    return range(1, len(values) + 1)


def _legend_above(ax: Axes, handles: list[Any]) -> None:
    """A legend in one line above the axes, where it can hide nothing."""
    if handles:
        ax.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=len(handles),
            frameon=False,
            fontsize=_LARGEST_FONT,
            borderaxespad=0.2,
        )


def _percent(decimals: int | None = 0) -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1.0, decimals=decimals)


def _tidy(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
