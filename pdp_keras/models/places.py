"""Where a subclassed model holds its layers: finds and exchanges them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

from pdp_keras.configs import shown
from pdp_keras.models.kernels import child_layers
from pdp_keras.models.kinds import is_graph

# Attributes in which Keras, TensorFlow and PyTorch list what others hold.
_BOOKKEEPING = ("_layers", "_tracker", "_auto_config", "_self_", "_modules")


def exchange_layers(
    model: Any, exchange: Callable[[Any], Any], path: str = ""
) -> dict[str, Any]:
    """Exchanges layers where the attributes of a subclassed model hold them.

    Attributes, and lists, tuples and dicts in them, are searched. Subclassed models
    inside are entered; everything else is offered to `exchange`.

    Args:
        model: a subclassed model; changed in place.
        exchange: gives the new layer, or the same one to leave it.
        path: prefix for the returned paths.

    Returns:
        The new layers by path: `{"encoder.dense": ..., "blocks.0": ...}`.
    """
    exchanged: dict[str, Any] = {}
    done: dict[int, Any] = {}
    for where, layer in list(_held_layers(model)):
        full = f"{path}{where}"
        if isinstance(layer, keras.Model) and not is_graph(layer):
            exchanged |= exchange_layers(layer, exchange, f"{full}.")
            continue
        if id(layer) not in done:
            done[id(layer)] = exchange(layer)
        new = done[id(layer)]
        if new is not layer:
            put_layer(model, where, new)
            exchanged[full] = new
    return exchanged


def look_up_layer(model: Any, path: str) -> Any:
    """The layer at a path such as `"towers.a.blocks.0"` in a model's attributes.

    Raises:
        ValueError: if none of the model's own layers is held there.
    """
    attribute, _, rest = path.partition(".")
    try:
        # Not `getattr`: a path from a file must not call properties.
        found = _look_up(_attributes(model)[attribute], rest)
    except (KeyError, IndexError, TypeError, ValueError):
        found = None
    children = {id(layer) for layer in model._flatten_layers(include_self=False)}
    if id(found) not in children or attribute.startswith(_BOOKKEEPING):
        raise ValueError(
            "A path must lead to a layer that the model holds. "
            f"Received: path={shown(path)}, model={model.name!r}"
        )
    return found


def put_layer(model: Any, path: str, new: Any) -> None:
    """Puts a layer at a path such as `"blocks.0"` in a model's attributes."""
    attribute, _, rest = path.partition(".")
    holder = getattr(model, attribute)
    inner, below = _inner_model(holder, rest)
    if inner is not None:
        put_layer(inner, below, new)
        return
    old = _look_up(holder, rest)
    tracker = model._tracker
    # The new layer takes the old one's place in the order of variables, on which
    # saving and copying rely; a built model would refuse to track it otherwise.
    if tracker.is_in_store("layers", old):
        tracker.replace_tracked_value("layers", old, new)
    tracker.unlock()
    try:
        setattr(model, attribute, _put(holder, rest, new))
    finally:
        tracker.lock()


def _held_layers(model: Any) -> Iterator[tuple[str, Any]]:
    children = {id(layer) for layer in child_layers(model)}
    for attribute, value in _attributes(model).items():
        if not attribute.startswith(_BOOKKEEPING):
            yield from _layers_in(value, attribute, children)


def _attributes(model: Any) -> dict[str, Any]:
    # PyTorch's modules keep the layers among their attributes in a dict of its own.
    return {**vars(model), **vars(model).get("_modules", {})}


def _layers_in(value: Any, path: str, children: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, keras.layers.Layer):
        if id(value) in children:
            yield path, value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _layers_in(item, f"{path}.{index}", children)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _layers_in(item, f"{path}.{key}", children)


def _look_up(holder: Any, path: str) -> Any:
    if not path:
        return holder
    if isinstance(holder, keras.Model):
        return look_up_layer(holder, path)
    key, rest = _split(holder, path)
    return _look_up(holder[key], rest)


def _inner_model(holder: Any, path: str) -> tuple[Any, str]:
    """The first model on a path, and the path from there; None without one."""
    while path:
        if isinstance(holder, keras.Model):
            return holder, path
        key, path = _split(holder, path)
        holder = holder[key]
    return None, ""


def _put(holder: Any, path: str, new: Any) -> Any:
    if not path:
        return new
    key, rest = _split(holder, path)
    value = _put(holder[key], rest, new)
    if isinstance(holder, dict):
        holder[key] = value
        return holder
    items = list(holder)
    items[key] = value
    return tuple(items) if isinstance(holder, tuple) else items


def _split(holder: Any, path: str) -> tuple[Any, str]:
    """The first key of a path into a list, tuple or dict, and the rest of the path.

    Keys of a dict may be numbers, or have dots in them.
    """
    if not isinstance(holder, dict):
        key, _, rest = path.partition(".")
        return int(key), rest
    found = [key for key in holder if f"{path}.".startswith(f"{key}.")]
    if not found:
        raise KeyError(path)
    key = max(found, key=lambda key: len(str(key)))
    return key, path[len(str(key)) + 1 :]
