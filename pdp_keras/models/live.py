"""Configs that hold the objects of this process, where no name would lead to them.

A config names functions and classes, and only what is registered can be found by its
name: no lambda, no function of a script, no class of a user who does not save models.
To copy a layer within a process no name is needed. `LiveConfigs` asks a *view* of the
layer for its config: an object of its class with its attributes, in which every such
function or object is replaced by a stand-in. Keras serializes a stand-in like any other
object, and deserializes it into the very thing that it stands for. The layer itself is
not touched.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

_STAND_IN = "pdp_keras.live_object"
# Attributes in which Keras and TensorFlow keep books; no config reads them.
_BOOKKEEPING = ("_tracker", "_self_", "_obj_reference_counts", "_inbound", "_outbound")
_PLAIN = (str, bytes, int, float, bool, type(None), type, keras.Variable)


class LiveConfigs:
    """Configs of layers, and the scope in which they can be turned into layers.

    Args:
        copy_graph: makes the copy of a Sequential or Functional model inside a layer.
        unwrap: gives what takes the place of a layer inside a layer in its config.
    """

    def __init__(
        self,
        copy_graph: Callable[[Any], Any],
        unwrap: Callable[[Any], Any] = lambda layer: layer,
    ) -> None:
        self._copy_graph = copy_graph
        self._unwrap = unwrap
        self._objects: list[Callable[[], Any]] = []
        self._stand_ins: dict[int, _StandIn] = {}
        self._views: dict[int, Any] = {}
        self._originals: dict[int, Any] = {}
        self._named: dict[str, Any] = {}
        self._ambiguous: set[str] = set()
        # Keeps alive what is known by its id.
        self._held: list[Any] = []

    def config_of(self, operation: Any) -> dict[str, Any]:
        """What `get_config` gives, with stand-ins for what has no name."""
        return dict(self._plain(describe(self.view(operation))))

    def _plain(self, value: Any) -> Any:
        """What a `get_config` returned that does not serialize what it returns."""
        if isinstance(value, dict):
            return {key: self._plain(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._plain(item) for item in value)
        if isinstance(value, _StandIn):
            return self._objects[value._index]()
        return self._originals.get(id(value), value)

    def scope(self) -> Any:
        """The scope in which Keras finds the stand-ins, and classes by their names."""
        objects = self._objects

        class Found:
            """Finds the object of a stand-in."""

            @classmethod
            def from_config(cls, config: dict[str, Any]) -> Any:
                return objects[config["index"]]()

        named = {k: v for k, v in self._named.items() if k not in self._ambiguous}
        return keras.saving.custom_object_scope({**named, _STAND_IN: Found})

    def view(self, layer: Any) -> Any:
        """An object like the layer, to ask for its config."""
        if id(layer) not in self._views:
            view = object.__new__(type(layer))
            self._held.append(layer)
            self._views[id(layer)] = view
            self._originals[id(view)] = layer
            self._name(type(layer))
            # Not by `setattr`: Keras would take all for the view's own.
            vars(view).update(
                {
                    name: value
                    if name.startswith(_BOOKKEEPING)
                    else self._replaced(value)
                    for name, value in vars(layer).items()
                }
            )
        return self._views[id(layer)]

    def _replaced(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, keras.layers.Layer):
            value = self._unwrap(value)
            if hasattr(value, "_run_through_graph") or isinstance(
                value, keras.Sequential
            ):
                return self._stand_in(value, lambda: self._copy_graph(value))
            return self.view(value)
        if isinstance(value, list | tuple | dict):
            return self._replaced_in(value)
        if not _has_name(value) and (callable(value) or hasattr(value, "get_config")):
            self._name(value if hasattr(value, "__name__") else kind)
            return self._stand_in(value, lambda: value)
        return value

    def _replaced_in(self, value: Any) -> Any:
        if isinstance(value, dict):
            new_dict = {key: self._replaced(item) for key, item in value.items()}
            same = all(new_dict[key] is value[key] for key in new_dict)
            return value if same else new_dict
        items = [self._replaced(item) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        if hasattr(value, "_fields"):  # a named tuple
            return type(value)(*items)
        return tuple(items) if isinstance(value, tuple) else items

    def _stand_in(self, value: Any, make: Callable[[], Any]) -> _StandIn:
        if id(value) not in self._stand_ins:
            self._held.append(value)
            self._stand_ins[id(value)] = _StandIn(value, len(self._objects))
            self._objects.append(make)
        return self._stand_ins[id(value)]

    def _name(self, named: Any) -> None:
        """Notes a class or function for what goes by names nevertheless.

        `Bidirectional` makes a second layer from the config of its first.
        """
        name = keras.saving.get_registered_name(named)
        if self._named.setdefault(name, named) is not named:
            self._ambiguous.add(name)


def describe(layer: Any) -> dict[str, Any]:
    """The config of a layer; from its attributes where its `get_config` fails.

    (In keras_hub 0.32 `LlamaTransformerDecoder` reads an attribute that it does not
    have, and `RMSNormalization` has no `get_config`.)
    """
    try:
        return dict(layer.get_config())
    except (AttributeError, NotImplementedError):
        names = _parameters(layer)
        own = {name: vars(layer)[name] for name in names if name in vars(layer)}
        has_layers = any(isinstance(x, keras.layers.Layer) for x in own.values())
        if not names or len(own) < len(names) or has_layers:
            raise
        base = {"name": layer.name, "trainable": layer.trainable}
        return {**base, "dtype": layer.dtype_policy, **own}


def has_config(operation: Any) -> bool:
    """Whether the `get_config` of a layer or operation works."""
    try:
        operation.get_config()
    except (AttributeError, NotImplementedError):
        return False
    return True


def _parameters(layer: Any) -> list[str]:
    """The arguments of a layer's constructor; none of what is no mere layer."""
    is_layer = isinstance(layer, keras.layers.Layer)
    if not is_layer or isinstance(layer, keras.Model):
        return []
    parameters = inspect.signature(type(layer)).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


class _StandIn:
    """Stands for an object in a config; acts like it otherwise."""

    def __init__(self, value: Any, index: int) -> None:
        self._value = value
        self._index = index

    def get_config(self) -> dict[str, Any]:
        return {"index": self._index}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._value(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in ("get_build_config", "get_compile_config"):
            raise AttributeError(name)
        return getattr(self._value, name)


# Keras looks classes up by their `__name__` where none is registered.
_StandIn.__name__ = _STAND_IN


def _has_name(value: Any) -> bool:
    """Whether Keras finds an object by its name: its own functions and objects."""
    name = getattr(value, "__name__", None)
    if name is not None and getattr(keras.activations, name, None) is value:
        return True
    return type(value).__module__.partition(".")[0] == "keras"
