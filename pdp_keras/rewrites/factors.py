"""`fold_factors`: constant factors go into the kernels that read what they scale.

The gate of a squeeze-and-excitation block is often `hard_sigmoid(x) = relu6(x + 3)/6`.
Its multiplication by a scalar is nothing that XNNPACK's sparse path knows; the
convolution behind the gated image can have the factor in its kernel instead, and
`relu6(x + 3)` becomes part of the convolution in front.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import layers, ops

from pdp_keras.rewrites.graph_copy import (
    Arrays,
    Call,
    Copies,
    Graph,
    Tensors,
    flattened,
    rebuilt,
)

# Layers for which `f(c * x) = c * f(x)` with a positive c, and no kernel of theirs.
_HOMOGENEOUS = (
    layers.AveragePooling2D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.Identity,
    layers.MaxPooling2D,
    layers.Reshape,
    layers.ZeroPadding2D,
)
_WITH_KERNEL = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Dense,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
_MULTIPLY = "keras.src.ops.numpy.Multiply"


def fold_factors(model: Any) -> Any:
    """A model without multiplications by a positive number, as far as that goes.

    Such a factor, or that of a `hard_sigmoid` activation layer, is moved on through
    products with other tensors, poolings and the like, into the kernels of all
    convolutions and Dense layers that read the result. If anything else reads it, the
    factor stays.

    Args:
        model: a built Sequential or Functional model; not changed.

    Returns:
        A Functional model without nested ones that computes the same, but for
        rounding.

    Raises:
        ValueError: if the model has no graph.
    """
    graph = Graph(flattened(model))
    copies = Copies(graph)
    gone: dict[int, Callable[[Any], Any]] = {}
    factors: dict[int, float] = {}
    for call, factor, rest in _find_factors(graph):
        kernels = _absorbing(graph, call)
        if kernels is not None:
            gone[id(call)] = rest
            for kernel in kernels:
                factors[id(kernel)] = factors.get(id(kernel), 1.0) * factor

    def emit(call: Call, tensors: Tensors) -> Any:
        if id(call) in gone:
            return gone[id(call)](tensors[id(call.inputs[0])])
        factor = factors.get(id(call.operation))
        convert = None if factor is None else _scaling(factor)
        return call.applied(copies.of(call.operation, convert=convert), tensors)

    return rebuilt(graph, emit, copies)


def _scaling(factor: float) -> Callable[[Arrays], Arrays]:
    return lambda values: [values[0] * values[0].dtype.type(factor), *values[1:]]


def _find_factors(
    graph: Graph,
) -> Iterator[tuple[Call, float, Callable[[Any], Any]]]:
    """Calls with a positive factor, the factor, and what is left without it."""
    for call in graph.calls:
        operation = call.operation
        if _is_multiplication(operation) and len(call.inputs) == 1:
            args, kwargs = call.arguments
            constants = [
                x
                for x in (*args, *kwargs.values())
                if not isinstance(x, keras.KerasTensor)
            ]
            if len(constants) == 1 and _is_positive(constants[0]):
                yield call, float(constants[0]), lambda x: x
        elif (
            type(operation) is layers.Activation
            and operation.activation is keras.activations.hard_sigmoid
        ):
            yield call, 1 / 6, lambda x: ops.relu6(x + 3.0)


def _is_multiplication(operation: Any) -> bool:
    return f"{type(operation).__module__}.{type(operation).__name__}" == _MULTIPLY


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def _absorbing(graph: Graph, call: Call) -> list[Any] | None:
    """The layers whose kernels take up a factor of a call's output.

    None if something sees it that cannot.
    """
    found: dict[int, Any] = {}
    waiting = list(call.outputs)
    while waiting:
        x = waiting.pop()
        if graph.is_output(x):
            return None
        for reader in graph.readers(x):
            layer = reader.operation
            if type(layer) in _WITH_KERNEL:
                if not graph.is_called_once(reader) or id(layer) in found:
                    return None
                found[id(layer)] = layer
            elif type(layer) in _HOMOGENEOUS or (
                _is_product(layer) and sum(y is x for y in reader.inputs) == 1
            ):
                waiting += reader.outputs
            else:
                return None
    return list(found.values())


def _is_product(operation: Any) -> bool:
    return type(operation) is layers.Multiply or _is_multiplication(operation)
