"""Which BatchNormalizations stand in front of a ReLU, which may shut their channels."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import keras

_ACTIVATIONS = (keras.activations.relu, keras.activations.relu6)


def is_batch_normalization(layer: Any) -> bool:
    """Whether a layer is Keras's own; a subclass may compute something else."""
    return type(layer) is keras.layers.BatchNormalization


def is_gate(layer: Any, visited: Container[int]) -> bool:
    """Whether a BatchNormalization with a shift is read by ReLUs and nothing else.

    Args:
        layer: a layer of a graph.
        visited: the ids of the graph's layers and operations; others may read the
            layer in another model.
    """
    if not is_batch_normalization(layer) or layer.beta is None:
        return False
    readers = [node.operation for node in layer._outbound_nodes]
    readers = [reader for reader in readers if id(reader) in visited]
    return bool(readers) and all(map(is_relu, readers))


def is_relu(operation: Any) -> bool:
    """Whether a layer or operation sets what is negative to 0; it may cut above."""
    if isinstance(operation, keras.layers.ReLU):
        return not operation.negative_slope and not operation.threshold
    if isinstance(operation, keras.layers.Activation):
        return operation.activation in _ACTIVATIONS
    # `keras.ops.relu(x)` in a graph.
    kind = type(operation)
    return kind.__module__.startswith("keras.") and kind.__name__ in ("Relu", "Relu6")
