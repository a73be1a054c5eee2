"""`sparsity_report`: what is pruned, how far, and what is not and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pdp_keras.channels import ChannelWrapper
from pdp_keras.layers import Counted, PrunedWeight
from pdp_keras.masks import read
from pdp_keras.models import Kernel, SkippedWeight, find_kernels
from pdp_keras.pruned import channel_groups, find_wrappers, pruned_weights

_NOT_CHOSEN = "not chosen by `filters`"
_NO_CHANNELS = "no channels that are pruned, or not chosen by `filters`"


@dataclasses.dataclass(frozen=True)
class ReportRow:
    """One pruned weight.

    Attributes:
        layer: path of the layer in the model.
        weight: name of the weight in the layer.
        shape: shape of the weight.
        size: number of weights.
        target: sparsity asked for, in [0, 1); None before a global allocation has
            decided, and in a model that is not being pruned.
        sparsity: fraction of zeros that inference computes with now.
        zeros: number of zeros.
        threshold: t, in units of |w|; None in a model that is not being pruned, and
            where the mode has several.
        channels: in channel mode, how many output channels of the weight are left,
            and of how many; None otherwise.
        group: in channel mode, the group of channels that it makes; kernels of one
            group are pruned together.
        kept_as_zeros: why dead channels are not removed when the model is stripped;
            empty where they are.
        frozen: whether the layer is not trainable. It is pruned like any other.
    """

    layer: str
    weight: str
    shape: tuple[int, ...]
    size: int
    target: float | None
    sparsity: float
    zeros: int
    threshold: float | None
    channels: tuple[int, int] | None = None
    group: str | None = None
    kept_as_zeros: str = ""
    frozen: bool = False


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """Every weight of a model, pruned or not.

    Attributes:
        name: name of the model.
        rows: the pruned weights (in a plain model: all that could be).
        skipped: the weights left alone, each with its reason.

    Example:

    >>> report = pdp_keras.sparsity_report(model)
    >>> f"{report.sparsity:.0%}"
    '50%'
    >>> report.rows[0].layer, report.rows[0].shape
    ('block1', (3, 3, 3, 8))
    """

    name: str
    rows: tuple[ReportRow, ...]
    skipped: tuple[SkippedWeight, ...]

    @property
    def size(self) -> int:
        """Number of weights in `rows`."""
        return sum(row.size for row in self.rows)

    @property
    def zeros(self) -> int:
        """Number of zeros in `rows`."""
        return sum(row.zeros for row in self.rows)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in `rows`."""
        return self.zeros / max(1, self.size)

    @property
    def model_sparsity(self) -> float:
        """Fraction of zeros in the whole model, skipped weights counted as dense."""
        everything = self.size + sum(weight.size for weight in self.skipped)
        return self.zeros / max(1, everything)

    def to_dict(self) -> dict[str, Any]:
        """A dict of plain Python values, ready for JSON."""
        return {
            "name": self.name,
            "size": self.size,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "model_sparsity": self.model_sparsity,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "skipped": [dataclasses.asdict(weight) for weight in self.skipped],
        }

    def __str__(self) -> str:
        """The report as a table for people."""
        pruned = [
            (
                f"{row.layer}/{row.weight}{' (frozen)' if row.frozen else ''}",
                _shape(row.shape),
                f"{row.size:,}",
                "-" if row.target is None else f"{row.target:.2%}",
                f"{row.sparsity:.2%}",
                f"{row.zeros:,}",
                _channels(row),
            )
            for row in self.rows
        ]
        total = ("all of these", "", f"{self.size:,}", "", f"{self.sparsity:.2%}")
        titles: tuple[str, ...] = (
            *("pruned weight", "shape", "size", "target", "sparsity", "zeros"),
            "channels left",
        )
        table: list[tuple[str, ...]] = [*pruned, (*total, f"{self.zeros:,}", "")]
        if not any(row.channels for row in self.rows):
            titles, table = titles[:-1], [row[:-1] for row in table]
        lines = [
            f"Sparsity of {self.name!r}: {self.sparsity:.2%} of the pruned weights, "
            f"{self.model_sparsity:.2%} of the model",
            "",
            *_table(titles, table, left=2),
        ]
        kept = [row for row in self.rows if row.kept_as_zeros]
        if kept:
            zeros = [(f"{r.layer}/{r.weight}", r.kept_as_zeros) for r in kept]
            lines += ["", *_table(("not removed", "reason"), zeros, left=2)]
        if self.skipped:
            dense = [
                (f"{w.layer}/{w.weight}", _shape(w.shape), f"{w.size:,}", w.reason)
                for w in self.skipped
            ]
            titles = ("weight left dense", "shape", "size", "reason")
            lines += ["", *_table(titles, dense, left=2, last_left=True)]
        return "\n".join(lines)


def sparsity_report(model: Any) -> SparsityReport:
    """Reports each weight's shape, target, reached sparsity and zeros.

    Args:
        model: a built Keras model, pruned or plain. In a plain model (also a
            stripped one) every prunable kernel is listed with the zeros it has.

    Returns:
        A `SparsityReport`: print it, or take `.rows`, `.skipped`, `.to_dict()`.

    Raises:
        ValueError: if the model is not built.

    Example:

    >>> print(pdp_keras.sparsity_report(model))
    """
    kernels, skipped = find_kernels(model)
    if channel_groups(model):
        return _channel_report(model, kernels, skipped)
    states = {id(weight.variable): weight for weight in pruned_weights(model)}
    rows, dense = [], []
    for kernel in kernels:
        state = states.get(id(kernel.variable))
        if states and state is None:
            dense.append(_skipped(kernel, _reason_against(kernel, states.values())))
            continue
        values = read(kernel.variable if state is None else state.hard_masked())
        threshold = None if state is None else _single_threshold(state)
        rows.append(_row(kernel, values, state, threshold=threshold))
    return SparsityReport(model.name, tuple(rows), (*dense, *skipped))


def _channel_report(
    model: Any, kernels: Sequence[Kernel], skipped: Sequence[SkippedWeight]
) -> SparsityReport:
    wrappers = [w for w in find_wrappers(model) if isinstance(w, ChannelWrapper)]
    living = {
        id(variable): (wrapper, read(value))
        for wrapper in wrappers
        for variable, value in wrapper.living_weights()
    }
    reasons = {id(v): why for w in wrappers for v, why in w.reasons_by_variable()}
    elsewhere = {name: why for w in wrappers for name, why in w.elsewhere.items()}
    rows, dense = [], []
    for kernel in kernels:
        key = id(kernel.variable)
        if key not in living:
            why = reasons.get(key) or _of_path(elsewhere, kernel.full_name)
            dense.append(_skipped(kernel, why or _NO_CHANNELS))
            continue
        wrapper, values = living[key]
        group = wrapper.group_of(kernel.variable)
        rows.append(
            _row(
                kernel,
                values,
                group,
                channels=wrapper.kept_outputs(kernel.variable),
                group=None if group is None else group.label,
                kept_as_zeros=""
                if group is None or group.removable
                else reasons.get(key, ""),
            )
        )
    return SparsityReport(model.name, tuple(rows), (*dense, *skipped))


def _of_path(reasons: Mapping[str, str], path: str) -> str | None:
    """The reason of a kernel, or else of a layer that it is in."""
    while path and path not in reasons:
        path = path.rpartition("/")[0]
    return reasons.get(path)


def _skipped(kernel: Kernel, reason: str) -> SkippedWeight:
    return SkippedWeight(kernel.path, kernel.name, kernel.shape, kernel.size, reason)


def _row(
    kernel: Kernel, values: np.ndarray, state: Counted | None, **others: Any
) -> ReportRow:
    """The row of a kernel whose values at inference are given."""
    zeros = int(np.count_nonzero(values == 0))
    return ReportRow(
        layer=kernel.path,
        weight=kernel.name,
        shape=kernel.shape,
        size=kernel.size,
        target=None if state is None else state.target_sparsity,
        sparsity=zeros / max(1, kernel.size),
        zeros=zeros,
        frozen=not kernel.variable.trainable,
        **{"threshold": None, **others},
    )


def _channels(row: ReportRow) -> str:
    return "" if row.channels is None else f"{row.channels[0]} of {row.channels[1]}"


def _single_threshold(state: PrunedWeight) -> float | None:
    threshold = state.numpy_threshold()
    return float(threshold) if threshold.ndim == 0 else None


def _reason_against(kernel: Kernel, states: Iterable[PrunedWeight]) -> str:
    reasons = (s.mode.reason_against(kernel.shape, kernel.axes) for s in states)
    return next((why for why in reasons if why is not None), _NOT_CHOSEN)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape) or "scalar"


def _table(
    header: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    *,
    left: int,
    last_left: bool = False,
) -> list[str]:
    """Aligned columns: the first `left` (and maybe the last) to the left."""
    columns = zip(header, *rows, strict=True)
    widths = [max(len(text) for text in column) for column in columns]
    flush_left = [
        i < left or (last_left and i == len(header) - 1) for i in range(len(header))
    ]

    def line(cells: tuple[str, ...]) -> str:
        padded = [
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(cells, widths, flush_left, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return [line(header), line(tuple("-" * w for w in widths)), *map(line, rows)]
