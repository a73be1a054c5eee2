"""Functional models of a class with a constructor of its own.

Such as the models of keras_hub: the constructor makes the layers from numbers, or takes
another model, and the class has methods that call these layers past the graph
(`generate`). A copy is made by the constructor too, so that it has these methods; what
is to stand in place of a layer is put into the graph and into the attributes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from pdp_keras.models.kernels import child_layers
from pdp_keras.models.kinds import is_graph
from pdp_keras.models.live import LiveConfigs
from pdp_keras.models.places import exchange_layers
from pdp_keras.models.variables import copy_variables, saved_variables

# What `keras.Function` keeps of its graph.
_GRAPH = (
    "_inputs_struct",
    "_outputs_struct",
    "_inputs",
    "_outputs",
    "_nodes",
    "_nodes_by_depth",
    "_operations",
    "_operations_by_depth",
)
_PLAIN = (bool, int, float, str)


def plain_class(model: Any) -> Any:
    """The user's class of a model; a pruned one says it in its `plain_class`."""
    return getattr(model, "plain_class", None) or type(model)


def has_own_constructor(model: Any) -> bool:
    """Whether a Functional model cannot be made from its inputs and outputs."""
    return not takes(plain_class(model), "inputs", "outputs")


def takes(cls: type, *names: str) -> bool:
    """Whether a constructor starts with these arguments, or passes all of them on."""
    parameters = list(inspect.signature(cls).parameters.values())
    kinds = {p.kind for p in parameters}
    passes_on = {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    } <= kinds
    return passes_on or tuple(p.name for p in parameters[: len(names)]) == names


def complete_config(cls: Any, model: Any, config: dict[str, Any]) -> dict[str, Any]:
    """A config with the arguments that it has forgotten, from attributes of their name.

    (`LlamaBackbone` of keras_hub does not tell whether its embeddings are tied.)
    """
    missing = {
        name: getattr(model, name, None)
        for name in inspect.signature(cls).parameters
        if name not in config
    }
    return config | {k: v for k, v in missing.items() if isinstance(v, _PLAIN)}


def remake_by_class(
    model: Any,
    copy_graph: Callable[[Any], Any],
    unwrap: Callable[[Any], Any] = lambda layer: layer,
    sizes: Mapping[str, int] | None = None,
) -> Any:
    """A copy of such a model by its constructor, but for the values of variables.

    Args:
        model: the model; not changed.
        copy_graph: makes the copy of a Sequential or Functional model inside of it.
        unwrap: gives what takes the place of a layer inside of it.
        sizes: other values for some arguments. The copy then has other shapes.

    Returns:
        The copy, not compiled by anybody but its constructor; None if no config makes
        one with the same layers (and, without `sizes`, variables).
    """
    cls = plain_class(model)
    for complete in (False, True):
        live = LiveConfigs(copy_graph, unwrap)
        try:
            view = live.view(model)
            view.__class__ = cls
            config = live.config_of(model)
            if complete:
                config = complete_config(cls, model, config)
            with live.scope():
                new = cls.from_config({**config, **(sizes or {})})
        except (TypeError, ValueError, NotImplementedError):
            continue
        if type(new) is cls and _is_like(new, model, sizes is not None):
            return new
    return None


def layer_pairs(old: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    """The layers directly in such a model, each with that of its copy."""
    return zip(child_layers(old), child_layers(new), strict=True)


def in_class_of(model: Any, small: Any) -> Any:
    """A smaller model in the class of the model that it was made from.

    Args:
        model: a Functional model of a class with a constructor of its own.
        small: a plain one with the same layers, some of them smaller.

    Returns:
        The smaller model by the constructor, with its values; None if no arguments
        make it: for one, where one of them is for layers that are unequally wide now.
    """
    parts = {layer.name: layer for layer in child_layers(small)}
    sizes = _sizes(model, parts)
    if sizes is None:
        return None

    def copy_graph(graph: Any) -> Any:
        part = parts[graph.name]
        new = in_class_of(graph, part) if has_own_constructor(graph) else part
        if new is None:
            raise ValueError(f"{graph.name!r} is not of its class")
        return new

    new = remake_by_class(model, copy_graph, sizes=sizes)
    if new is None:
        return None
    for old, fresh in layer_pairs(model, new):
        fresh.name = old.name
        if not is_graph(old):
            try:
                copy_variables(parts[old.name], fresh)
            except ValueError:
                return None
    return new


def needs_equal_widths(model: Any) -> bool:
    """Whether one argument of a model in this one is for several of its layers."""
    for graph in model._flatten_layers():
        if is_graph(graph) and has_own_constructor(graph):
            seen: set[str] = set()
            for layer in child_layers(graph):
                shared = _arguments_of(layer) & _arguments_of(graph)
                shared = {x for x in shared if _is_size(graph, layer, x)}
                if shared & seen:
                    return True
                seen |= shared
    return False


def _sizes(model: Any, parts: Mapping[str, Any]) -> dict[str, int] | None:
    """The arguments that make the parts; None if layers do not agree on one."""
    found: dict[str, set[int]] = {}
    for layer in child_layers(model):
        if layer.name not in parts or is_graph(layer):
            continue
        for name in _arguments_of(layer) & _arguments_of(model):
            if _is_size(model, layer, name):
                found.setdefault(name, set()).add(getattr(parts[layer.name], name))
    if any(len(sizes) > 1 for sizes in found.values()):
        return None
    return {name: size for name, (size,) in found.items()}


def _is_size(model: Any, layer: Any, name: str) -> bool:
    size = getattr(layer, name, None)
    return type(size) is int and size == getattr(model, name, None)


def _arguments_of(layer: Any) -> set[str]:
    return set(inspect.signature(plain_class(layer)).parameters)


def reseat(model: Any, exchanged: Mapping[int, Any]) -> None:
    """Puts layers in place of others: in the graph, and in the attributes.

    Args:
        model: a Functional model; changed in place.
        exchanged: by the id of a layer directly in it the one that takes its place.
    """

    def exchange(layer: Any) -> Any:
        return exchanged.get(id(layer), layer)

    old_layers = child_layers(model)
    exchange_layers(model, exchange)
    tracker = model._tracker
    for old in old_layers:  # those that no attribute holds
        if exchange(old) is not old and tracker.is_in_store("layers", old):
            tracker.replace_tracked_value("layers", old, exchange(old))
    _forget_nodes(model)
    outputs = model._run_through_graph(model._inputs_struct, operation_fn=exchange)
    graph = vars(keras.Function(model._inputs_struct, outputs, name=model.name))
    vars(model).update({name: graph[name] for name in _GRAPH})
    for layer in exchanged.values():
        if not layer.built:  # one that the graph does not call
            layer.build()


def _forget_nodes(model: Any) -> None:
    """Takes the graph of a model out of the books of its operations.

    Or else `layer.output` would go on being that of the graph before.
    """
    nodes_of = model._nodes_by_depth.values()
    own = {id(n) for nodes in nodes_of for n in nodes if not n.is_input}
    for operation in model._operations:
        for books in ("_inbound_nodes", "_outbound_nodes"):
            nodes = [n for n in getattr(operation, books) if id(n) not in own]
            setattr(operation, books, nodes)


def _is_like(new: Any, model: Any, is_smaller: bool) -> bool:
    found, wanted = _shapes(new), _shapes(model)
    same = len(found) == len(wanted) if is_smaller else found == wanted
    return same and len(child_layers(new)) == len(child_layers(model))


def _shapes(model: Any) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in saved_variables(model)]
