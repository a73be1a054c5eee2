"""Which channels of a model its class has arguments for.

The constructor of a class (those of keras_hub, say) makes the layers from numbers. A
smaller model can be of the class if it has other numbers only. One of them may be for
several layers: `intermediate_dim` is the width of all blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pdp_keras.channels.rules.registry import find_rule
from pdp_keras.models import (
    child_layers,
    has_own_constructor,
    is_graph,
    plain_class,
    saved_variables,
    shared_arguments,
)


def needs_equal_widths(model: Any) -> bool:
    """Whether the layers of a model must remain equally wide to keep its class."""
    return any(
        count > 1
        for graph in _own_classes(model)
        for count in Counter(
            name for layer in _sized_layers(graph) for name in _sizes(graph, layer)
        ).values()
    )


def without_argument(model: Any) -> dict[int, str]:
    """The layers that must stay as they are for a model to keep its class.

    Returns:
        By the id of a layer, or of one inside it, the reason. Empty for a model that
        has no arguments for the sizes of other layers either.
    """
    if not needs_equal_widths(model):
        return {}
    return {
        id(inner): f"no argument of {plain_class(graph).__name__} is their number, so "
        "that the smaller model would not be one"
        for graph in _own_classes(model)
        for layer in _sized_layers(graph)
        if not _sizes(graph, layer)
        for inner in layer._flatten_layers()
    }


def must_keep_class(model: Any) -> bool:
    """Whether layers share variables, which no model but one of the class could.

    (The head of keras_hub's `BertMaskedLM` has the embedding of its backbone.)
    """
    layers = {
        id(layer): layer
        for graph in _own_classes(model)
        for layer in child_layers(graph)
        if not is_graph(layer)
    }
    seen: set[int] = set()
    for layer in layers.values():
        own = {id(variable) for variable in saved_variables(layer)}
        if own & seen:
            return True
        seen |= own
    return False


def _own_classes(model: Any) -> Iterator[Any]:
    """The Functional models in one of such a class that have a constructor too."""
    if is_graph(model) and has_own_constructor(model):
        for graph in model._flatten_layers():
            if is_graph(graph) and has_own_constructor(graph):
                yield graph


def _sized_layers(graph: Any) -> Iterator[Any]:
    """The layers directly in a model that a channel rule can make smaller."""
    for layer in child_layers(graph):
        rule = None if is_graph(layer) else find_rule(type(layer))
        if rule is not None and rule.resize is not None:
            yield layer


def _sizes(graph: Any, layer: Any) -> list[str]:
    """The arguments of a model that may be sizes of a layer in it."""
    arguments = shared_arguments(graph, layer)
    return [name for name, x in arguments.items() if type(x) is int and x > 1]
