"""`fold_normalization`: BatchNormalization becomes part of the layer before it.

At inference BatchNormalization is `gamma (x - mean) / sqrt(variance + epsilon) + beta`,
a factor and an offset for each channel. Behind a convolution or a Dense layer without
activation the factor goes into the kernel, whose zeros stay zeros, and the offset into
the bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers, ops

from pdp_keras.rewrites.graph_copy import (
    Arrays,
    Call,
    Config,
    Copies,
    Graph,
    Tensors,
    flattened,
    rebuilt,
)

# Where the output channels are along the kernel's axes: the shape in which a vector
# with one number for each of them multiplies the kernel.
_Spread = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


def _last(factor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return factor


def _last_two(factor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return factor.reshape(shape[-2:])


def _second_last(factor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return factor[:, None]


# The kernel that makes the outputs is the last one of a layer's variables.
_SPREADS: dict[type, _Spread] = {
    layers.Dense: _last,
    layers.Conv1D: _last,
    layers.Conv2D: _last,
    layers.Conv3D: _last,
    layers.DepthwiseConv1D: _last_two,
    layers.DepthwiseConv2D: _last_two,
    layers.SeparableConv1D: _last,
    layers.SeparableConv2D: _last,
    layers.Conv1DTranspose: _second_last,
    layers.Conv2DTranspose: _second_last,
    layers.Conv3DTranspose: _second_last,
}


def fold_normalization(model: Any) -> Any:
    """A model whose BatchNormalization layers are folded into the layers before them.

    Folded are those that alone read the output of a convolution or Dense layer
    without activation, both called once; others stay.

    Args:
        model: a built Sequential or Functional model; not changed.

    Returns:
        A Functional model without nested ones. In inference it computes the same, but
        for rounding; it is not meant to be trained.

    Raises:
        ValueError: if the model has no graph.

    Example:

    >>> model = keras.applications.MobileNetV2(weights=None)
    >>> len(model.layers), len(fold_normalization(model).layers)
    (156, 104)
    """
    graph = Graph(flattened(model))
    copies = Copies(graph)
    folded = dict(_find_pairs(graph))
    normalizations = {id(call.operation) for call in folded.values()}

    def emit(call: Call, tensors: Tensors) -> Any:
        layer = call.operation
        if id(layer) in normalizations:
            return tensors[id(call.inputs[0])]
        if id(layer) in folded:
            fold = _folding(layer, folded[id(layer)].operation)
            return call.applied(copies.of(layer, _with_bias, fold), tensors)
        return call.applied(copies.of(layer), tensors)

    return rebuilt(graph, emit, copies)


def _find_pairs(graph: Graph) -> Any:
    """The normalization that can be folded into a layer, by the layer's id."""
    for call in graph.calls:
        layer = call.operation
        if type(layer) not in _SPREADS or not _is_linear(layer):
            continue
        reader = graph.only_reader(call.outputs[0])
        if (
            reader is not None
            and type(reader.operation) is layers.BatchNormalization
            and reader.operation.axis in (-1, len(call.outputs[0].shape) - 1)
        ):
            yield id(layer), reader


def _is_linear(layer: Any) -> bool:
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return last and layer.activation.__name__ == "linear"


def _with_bias(config: Config) -> Config:
    return {**config, "use_bias": True}


def _folding(layer: Any, normalization: Any) -> Callable[[Arrays], Arrays]:
    factor, offset = factor_and_offset(normalization)
    spread = _SPREADS[type(layer)]

    def fold(values: Arrays) -> Arrays:
        kernels = values[:-1] if layer.use_bias else values
        bias = values[-1] if layer.use_bias else np.zeros_like(offset)
        kernel = kernels[-1] * spread(factor, kernels[-1].shape)
        arrays = [*kernels[:-1], kernel, bias * factor + offset]
        return [array.astype(values[0].dtype) for array in arrays]

    return fold


def factor_and_offset(normalization: Any) -> tuple[np.ndarray, np.ndarray]:
    """A BatchNormalization at inference is `factor * x + offset`; both in float64."""

    def value(name: str, default: float) -> Any:
        variable = getattr(normalization, name)
        if variable is None:
            return default
        return ops.convert_to_numpy(variable).astype("float64")

    variance = value("moving_variance", 1.0) + normalization.epsilon
    factor = value("gamma", 1.0) / np.sqrt(variance)
    return factor, value("beta", 0.0) - value("moving_mean", 0.0) * factor
