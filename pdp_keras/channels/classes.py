"""Models whose class has one argument for how wide several layers are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pdp_keras.channels.rules.registry import find_rule
from pdp_keras.models import (
    child_layers,
    has_own_constructor,
    is_graph,
    shared_arguments,
)


def needs_equal_widths(model: Any) -> bool:
    """Whether the layers of a model must remain equally wide to keep a class.

    As those of keras_hub's transformers: `intermediate_dim` is the width of all of
    their blocks.

    Args:
        model: any model; one without a graph never becomes smaller.
    """
    return any(
        count > 1 for graph in _own_classes(model) for count in _shared(graph).values()
    )


def _own_classes(model: Any) -> Iterator[Any]:
    """The Functional models in one, itself too, with a constructor of their own."""
    if is_graph(model):
        for graph in model._flatten_layers():
            if is_graph(graph) and has_own_constructor(graph):
                yield graph


def _shared(graph: Any) -> Counter[str]:
    """How many layers that can become smaller share each size with a model."""
    found: Counter[str] = Counter()
    for layer in child_layers(graph):
        rule = None if is_graph(layer) else find_rule(type(layer))
        if rule is not None and rule.resize is not None:
            arguments = shared_arguments(graph, layer)
            found.update(k for k, v in arguments.items() if type(v) is int and v > 1)
    return found
