"""Functional models of a class with a constructor of its own.

Such as the models of keras_hub: the constructor makes the layers from numbers, or takes
another model, and the class has methods that call these layers past the graph
(`generate`). A copy is made by the constructor too, so that it has these methods; what
is to stand in place of a layer is put into the graph and into the attributes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras

from pdp_keras.models.kernels import child_layers
from pdp_keras.models.kinds import is_graph
from pdp_keras.models.live import LiveConfigs, describe
from pdp_keras.models.places import exchange_layers
from pdp_keras.models.variables import renew_state, saved_variables

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
    arguments: Mapping[str, Any] | None = None,
) -> Any:
    """A copy of such a model by its constructor, but for the values of variables.

    Args:
        model: the model; not changed.
        copy_graph: makes the copy of a Sequential or Functional model inside of it.
        unwrap: gives what takes the place of a layer inside of it.
        arguments: other values for some arguments. Shapes may then differ.

    Returns:
        The copy, not compiled by anybody but its constructor; None if no config makes
        one with the same layers (and, without `arguments`, shapes of variables).
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
                new = cls.from_config({**config, **(arguments or {})})
        except (TypeError, ValueError, NotImplementedError):
            continue
        found, wanted = _shapes(new), _shapes(model)
        same = found == wanted if arguments is None else len(found) == len(wanted)
        is_like = same and len(child_layers(new)) == len(child_layers(model))
        if type(new) is cls and is_like:
            _copy_untracked(model, new)
            return new
    return None


def _copy_untracked(model: Any, new: Any) -> None:
    """Gives layers that Keras does not track their vocabularies, which no config has.

    (On PyTorch, keras_hub hides the preprocessors of its tasks from Keras.)
    """
    tracked = {id(layer) for layer in child_layers(model)}
    for name, layer in vars(model).items():
        is_layer = isinstance(layer, keras.layers.Layer) and not is_graph(layer)
        copy = vars(new).get(name)
        if is_layer and id(layer) not in tracked and type(copy) is type(layer):
            renew_state(layer, copy)


def layer_pairs(old: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    """The layers directly in such a model, each with that of its copy."""
    return zip(child_layers(old), child_layers(new), strict=True)


def shared_arguments(model: Any, layer: Any) -> dict[str, Any]:
    """The arguments of a model that one of its layers has too, with the same value."""
    names = _parameters(layer) & _parameters(model) & vars(layer).keys()
    found = {name: vars(layer)[name] for name in names}
    return {
        name: value
        for name, value in found.items()
        if type(value) in (*_PLAIN, type(None))
        and type(vars(model).get(name, model)) is type(value)
        and vars(model)[name] == value
    }


class NotOfClassError(Exception):
    """Why no arguments of a class make a model of the layers that it shall have."""


def changed_arguments(model: Any, changed: Mapping[int, Any]) -> dict[str, Any]:
    """The arguments that a model of changed layers would have.

    Args:
        model: a Functional model of a class with a constructor of its own.
        changed: by the id of a layer of it the one that takes its place.

    Returns:
        Those with other values than the model's.

    Raises:
        NotOfClassError: if two of its layers that share an argument with it do not
            agree on one value.
    """
    found: dict[str, dict[Any, str]] = {}
    for layer in child_layers(model):
        new = changed.get(id(layer), layer)
        for name in shared_arguments(model, layer):
            found.setdefault(name, {}).setdefault(getattr(new, name), layer.name)
    for name, values in found.items():
        if len(values) > 1:
            each = " and ".join(f"{v} of {layer!r}" for v, layer in values.items())
            raise NotOfClassError(
                f"it has one argument {name!r} for {each}; allocation='uniform', the "
                "default for such models, keeps them equal"
            )
    only = {name: next(iter(values)) for name, values in found.items()}
    return {k: v for k, v in only.items() if v != getattr(model, k)}


def are_alike(layer: Any, other: Any) -> bool:
    """Whether layers compute the same with the same variables.

    As far as their shapes and the numbers and texts of their configs tell: how many
    groups a normalization has, say, which no shape shows.
    """
    if type(layer) is not type(other) or _shapes(layer) != _shapes(other):
        return False
    live = LiveConfigs(lambda graph: graph)
    first, second = (_plain_part(describe(live.view(x))) for x in (layer, other))
    return bool(first == second)


# What differs between layers that compute the same.
_NAMES = ("name", "trainable", "build_config", "shared_object_id")


def _plain_part(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain_part(v) for k, v in value.items() if k not in _NAMES}
    if isinstance(value, list | tuple):
        return [_plain_part(item) for item in value]
    return value if isinstance(value, _PLAIN) else None


def _parameters(layer: Any) -> set[str]:
    return set(inspect.signature(plain_class(layer)).parameters)


def inner_first(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Pairs of the layers of a model: first those that others of them have inside."""
    pairs = list(pairs)
    known = {
        id(inner)
        for layer, _ in pairs
        for inner in (layer._flatten_layers() if is_graph(layer) else [layer])
    }

    def depth(pair: tuple[Any, Any]) -> int:
        inner = pair[0]._flatten_layers(include_self=False)
        return 0 if is_graph(pair[0]) else sum(id(layer) in known for layer in inner)

    return sorted(pairs, key=depth)


def exchange_inside(layer: Any, exchanged: Mapping[int, Any]) -> None:
    """Puts layers of a model in place of others inside one of its layers, too.

    Args:
        layer: the layer; changed in place.
        exchanged: by the id of a layer of the model the one that takes its place.

    Raises:
        ValueError: if no attribute of the layer holds such a layer.
    """
    if not any(id(x) in exchanged for x in layer._flatten_layers(include_self=False)):
        return
    exchange_layers(layer, lambda inner: exchanged.get(id(inner), inner))
    left = [x for x in layer._flatten_layers() if id(x) in exchanged]
    kept = {id(x.layer) for x in exchanged.values() if hasattr(x, "layer")}
    left = [x for x in left if id(x) not in kept]
    if left:
        raise ValueError(
            "A layer of the model that another one has inside must be held by an "
            "attribute of that. "
            f"Received: {left[0].name!r} inside of {layer.name!r}"
        )


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


def _shapes(model: Any) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in saved_variables(model)]
