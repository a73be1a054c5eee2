"""Convolutions with the zero padding in front of them, as windows on their input."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import layers

from pdp_keras.models import Windows, make_windows
from pdp_keras.rewrites.graph_copy import Call, Config, Convert, Copies, Graph

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)


@dataclasses.dataclass(frozen=True, eq=False)
class WindowedCall:
    """A call of a 2-D convolution or pooling layer.

    Attributes:
        call: the call.
        source: the symbolic tensor whose positions the windows count: what the layer
            reads, or what the ZeroPadding2D in front of it reads.
        padding_call: that of the ZeroPadding2D; None without one.
        rows: windows along the height.
        columns: windows along the width.
    """

    call: Call
    source: Any
    padding_call: Call | None
    rows: Windows
    columns: Windows


def find_windows(
    graph: Graph, call: Call, *, with_padding: bool = True
) -> WindowedCall | None:
    """The windows of a call.

    Args:
        graph: that the call is in.
        call: of a layer with `strides` and a `kernel_size` or `pool_size`.
        with_padding: whether to count in a ZeroPadding2D in front.

    Returns:
        None if the channels do not come last or the image's size is not fixed.
    """
    layer = call.operation
    if layer.data_format != "channels_last":
        return None
    source = call.inputs[0]
    padding_call = _padding_before(graph, call) if with_padding else None
    pads = ((0, 0), (0, 0))
    if padding_call is not None:
        source = padding_call.inputs[0]
        pads = padding_call.operation.padding
    if None in source.shape[1:3]:
        return None
    extents = getattr(layer, "kernel_size", None) or layer.pool_size
    dilations = getattr(layer, "dilation_rate", (1, 1))
    rows, columns = (
        make_windows(
            source.shape[1 + i],
            (extents[i] - 1) * dilations[i] + 1,
            layer.strides[i],
            layer.padding,
            *pads[i],
        )
        for i in range(2)
    )
    return WindowedCall(call, source, padding_call, rows, columns)


def _padding_before(graph: Graph, call: Call) -> Call | None:
    """The call of a ZeroPadding2D that only this convolution reads."""
    before = graph.producer(call.inputs[0])
    found = (
        isinstance(call.operation, CONVOLUTIONS)
        and before is not None
        and type(before.operation) is layers.ZeroPadding2D
        and before.operation.data_format == "channels_last"
        and graph.only_reader(call.inputs[0]) is call
    )
    return before if found else None


def emit_convolution(
    copies: Copies,
    layer: Any,
    x: Any,
    rows: Windows,
    columns: Windows,
    convert: Convert | None = None,
    variant: str = "",
) -> Any:
    """Calls a copy of a convolution so that it has these windows.

    With a stride of 1 and windows that "same" padding gives, the layer pads itself;
    otherwise it is "valid", behind a ZeroPadding2D, and a Cropping2D where it does not
    read the first positions.

    Args:
        copies: of the graph.
        layer: the convolution to copy.
        x: its new input.
        rows: windows along the height of `x`.
        columns: windows along the width of `x`.
        convert: as in `Copies.of`.
        variant: as in `Copies.of`.
    """
    own_padding = rows.stride == columns.stride == 1 and None not in (
        rows.symmetric,
        columns.symmetric,
    )

    def change(config: Config) -> Config:
        return {**config, "padding": "same" if own_padding else "valid"}

    if not own_padding:
        pads = _margins(rows, rows.symmetric), _margins(columns, columns.symmetric)
        x = _fitted(copies, layer.name, x, pads)
        variant += " valid"
    return copies.of(layer, change, convert, variant=variant.strip())(x)


def _margins(windows: Windows, symmetric: int | None) -> tuple[int, int]:
    """Positions to add (or, negative, to cut) before and after."""
    if symmetric is not None:
        return symmetric, symmetric
    before, after = windows.padding
    read = windows.size + before - windows.extent
    # What lies behind the last window need not be cut off, if no other one fits in.
    return before, max(
        after, 0
    ) if read // windows.stride + 1 == windows.count else after


def _fitted(copies: Copies, name: str, x: Any, margins: Any) -> Any:
    added = tuple((max(a, 0), max(b, 0)) for a, b in margins)
    cut = tuple((max(-a, 0), max(-b, 0)) for a, b in margins)
    if any(map(any, cut)):
        x = layers.Cropping2D(cut, name=copies.new_name(f"{name}_crop"))(x)
    if any(map(any, added)):
        x = layers.ZeroPadding2D(added, name=copies.new_name(f"{name}_pad"))(x)
    return x
