"""What a symbolic call tells of a layer of somebody's own, which has no rule.

A layer without weights whose `call` is made of operations on each value alone (an
activation, a scale) passes its channels on as they are. Nothing of it must be resized
when they become fewer, so that no rule is needed.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from pdp_keras.channels.rules.operations import is_elementwise


def passes_channels_on(layer: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether a layer does the same to every value of its one input.

    Args:
        layer: a layer without a rule.
        shape: of its input, with the batch axis.
    """
    if layer.weights or list(layer._flatten_layers(include_self=False)):
        return False
    given = keras.KerasTensor(shape, dtype=layer.compute_dtype)
    try:
        found = tree.flatten(layer.call(given))
    except Exception:  # whatever somebody's code raises for a symbolic tensor
        return False
    return len(found) == 1 and _is_made_alone(found[0], given)


def _is_made_alone(tensor: Any, given: Any) -> bool:
    if tensor is given:
        return True
    if not isinstance(tensor, keras.KerasTensor) or tensor.shape != given.shape:
        return False
    history = getattr(tensor, "_keras_history", None)
    if history is None:
        return False
    operation = history.operation
    node = operation._inbound_nodes[history.node_index]
    arguments = node.arguments
    values = (*arguments.args, *arguments.kwargs.values(), *vars(operation).values())
    return (
        is_elementwise(type(operation))
        and all(isinstance(x, keras.KerasTensor) or _is_number(x) for x in values)
        and all(_is_made_alone(x, given) for x in node.input_tensors)
    )


def _is_number(value: Any) -> bool:
    """No array and no list, which has a number for each channel."""
    is_list = isinstance(value, list | tuple) and any(
        isinstance(x, int | float) for x in tree.flatten(value)
    )
    return not is_list and not getattr(value, "shape", ())
