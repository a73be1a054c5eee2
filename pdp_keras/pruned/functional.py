"""A pruned Functional model of a class with a constructor of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from pdp_keras.configs import look_up, require_keys, shown
from pdp_keras.layers import MaskedLayer
from pdp_keras.models import (
    child_layers,
    complete_config,
    exchange_inside,
    has_own_constructor,
    inner_first,
    is_graph,
    reseat,
)
from pdp_keras.pruned.subclassed import (
    deserialize_exchanged,
    deserialize_original,
    reduce_by_file,
    serialize_exchanged,
)


class PrunedGraph:
    """Mixed in before the user's class, whose constructor makes no wrappers.

    The model keeps its methods (`generate`, ...). Only its config differs: the
    original's, and the layers that stand where others stood, by their place.
    """

    plain_class: Any

    def get_config(self) -> dict[str, Any]:
        """The original model and the exchanged layers."""
        config = super().get_config()  # type: ignore[misc]
        cls = self.plain_class
        original = {
            "module": cls.__module__,
            "class_name": cls.__name__,
            "registered_name": keras.saving.get_registered_name(cls),
            "config": keras.saving.serialize_keras_object(
                complete_config(cls, self, config)
            ),
        }
        exchanged = {
            str(place): serialize_exchanged(layer) for place, layer in _own_masked(self)
        }
        return {"original": original, "exchanged": exchanged}

    def __reduce__(self) -> Any:
        """How Python pickles it: by the file that Keras makes of it."""
        return reduce_by_file(self, super().__reduce__())

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Any:
        """The inverse of `get_config`; the user's class must be registered.

        Raises:
            ValueError: if it is none of a pruned model.
        """
        require_keys("a pruned model", config, ("original", "exchanged"), ())
        require_keys("the exchanged layers", config["exchanged"])
        for layer in config["exchanged"].values():
            require_keys("an exchanged layer", layer, ("wrapper", "kind"), ())
        model = deserialize_original(config["original"], _REGISTERED, custom_objects)
        if not is_graph(model) or not has_own_constructor(model):
            raise ValueError(
                "The original of this pruned model must be a Functional one with a "
                f"constructor of its own. Received: {shown(model)}"
            )
        places = {str(i): layer for i, layer in enumerate(child_layers(model))}
        configs = config["exchanged"].items()
        wanted = [(look_up(places, "place", x), layer) for x, layer in configs]
        exchanged: dict[int, Any] = {}
        for old, layer in inner_first(wanted):
            if not isinstance(old, MaskedLayer):  # its config may have it
                exchange_inside(old, exchanged)
                new = deserialize_exchanged(layer, old, custom_objects)
                old.name = new.name  # Keras counts on in names that it makes up
                exchanged[id(old)] = new
        reseat(model, exchanged)
        return mark_graphs(model)


def mark_graphs(model: Any) -> Any:
    """Gives the Functional models in a pruned one the classes that can save them."""
    for graph in model._flatten_layers():
        is_own = is_graph(graph) and not isinstance(graph, PrunedGraph)
        if is_own and has_own_constructor(graph) and any(_own_masked(graph)):
            cls = type(graph)
            pruned = type(f"Pruned{cls.__name__}", (PrunedGraph, cls), {})
            # All these classes load in the same way, so they share one name.
            keras.saving.register_keras_serializable("pdp_keras", _NAME)(pruned)
            pruned.plain_class = cls  # type: ignore[attr-defined]
            graph.__class__ = pruned
    return model


def _own_masked(model: Any) -> Iterator[tuple[int, Any]]:
    """The wrappers directly in a model, and not in one inside it, with their places."""
    children = child_layers(model)
    inside = {
        id(layer)
        for child in children
        if is_graph(child)
        for layer in child._flatten_layers()
    }
    for place, layer in enumerate(children):
        if isinstance(layer, MaskedLayer) and id(layer) not in inside:
            yield place, layer


_NAME = "PrunedGraph"
keras.saving.register_keras_serializable("pdp_keras", _NAME)(PrunedGraph)
_REGISTERED = keras.saving.get_registered_name(PrunedGraph)
