"""`pad_symmetrically`: the same zeros on every side of a strided convolution.

With a stride of 2 and an even size, padding 1 in front of a 3x3 window and 0 behind is
all that is read of padding 1 on every side. Devices' sparse kernels know the latter.
"""

from __future__ import annotations

from typing import Any

from pdp_keras.rewrites.graph_copy import (
    Call,
    Copies,
    Graph,
    Tensors,
    flattened,
    rebuilt,
)
from pdp_keras.rewrites.windowed_layers import (
    CONVOLUTIONS,
    emit_convolution,
    find_windows,
)


def pad_symmetrically(model: Any) -> Any:
    """A model whose strided convolutions have explicit, symmetric padding.

    Rewritten are Conv2D, DepthwiseConv2D and SeparableConv2D layers with a stride
    above 1, an odd window and a fixed size of their input, whatever pads them now:
    `padding="same"`, a ZeroPadding2D in front, or nothing. Where symmetric padding
    does not give the same windows (see `half_turn`) the layer stays as it is.

    Args:
        model: a built Sequential or Functional model; not changed.

    Returns:
        A Functional model without nested ones that computes the same, bit for bit.

    Raises:
        ValueError: if the model has no graph.
    """
    graph = Graph(flattened(model))
    copies = Copies(graph)
    found = {id(w.call): w for w in find_symmetric(graph)}
    absorbed = {id(w.padding_call) for w in found.values()}

    def emit(call: Call, tensors: Tensors) -> Any:
        if id(call) in absorbed:
            return tensors[id(call.inputs[0])]
        windowed = found.get(id(call))
        if windowed is None:
            return call.applied(copies.of(call.operation), tensors)
        x = tensors[id(windowed.source)]
        return emit_convolution(
            copies, call.operation, x, windowed.rows, windowed.columns
        )

    return rebuilt(graph, emit, copies)


def find_symmetric(graph: Graph) -> Any:
    """The strided convolutions of a graph that symmetric padding serves as well."""
    for call in graph.calls:
        if type(call.operation) in CONVOLUTIONS and max(call.operation.strides) > 1:
            windowed = find_windows(graph, call)
            if windowed is not None and None not in (
                windowed.rows.symmetric,
                windowed.columns.symmetric,
            ):
                yield windowed
