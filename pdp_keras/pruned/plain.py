"""A plain model from a pruned one: the wrappers gone, the zeros in the weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from pdp_keras.channels import ChannelWrapper, remove_channels
from pdp_keras.layers import (
    MaskedLayer,
    PDPWrapper,
    hard_values,
    mask_each_batch,
)
from pdp_keras.models import (
    CopyState,
    child_layers,
    copy_variables,
    exchange_layers,
    is_graph,
    make_anew,
    make_subclassed_anew,
    rebuild_graph,
)
from pdp_keras.pruned.parts import channel_groups, find_wrappers
from pdp_keras.pruned.quantization import allow_quantization
from pdp_keras.pruned.subclassed import PrunedModel

_WRAPPER_NAMES = [
    keras.saving.get_registered_name(wrapper)
    for wrapper in (PDPWrapper, ChannelWrapper)
]


def plain_copy(model: Any) -> Any:
    """A model of the original classes that predicts what the pruned one does.

    Args:
        model: a model with wrappers; not changed, unless it was pruned in place.
    """
    values = {
        id(variable): value for variable, value in _final_values(find_wrappers(model))
    }

    def copy_state(old: Any, new: Any) -> None:
        copy_variables(old, new, values)

    if is_graph(model):
        kept = {g.label: g.kept() for g in channel_groups(model) if g.removable}
        plain = _rebuild_plain(model, copy_state)
        return remove_channels(plain, kept, _warn_of_class(plain)) if kept else plain
    if isinstance(model, PrunedModel):
        return _strip_subclassed(model, values)
    return _strip_around(model, values)


def _warn_of_class(model: Any) -> Callable[[str], None]:
    def warn(reason: str) -> None:
        warnings.warn(
            f"The stripped model is a plain keras.Model, without the methods of "
            f"{type(model).__name__}: {reason}.",
            stacklevel=6,
        )

    return warn


def _final_values(wrappers: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Every masked variable with what inference sees of it."""
    values = hard_values(wrappers)
    return [pair for wrapper in wrappers for pair in values[id(wrapper)]]


def make_stripped(layer: Any) -> Any:
    """An unbuilt copy of a layer without any `PDPWrapper` on it or inside it."""
    if not isinstance(layer, MaskedLayer):
        return make_anew(layer, _without_wrappers)

    def change(config: dict[str, Any]) -> Any:
        # The wrapper's, should loading have changed that of the layer: groups of
        # channels are known by it.
        name = {"name": layer.name} if "name" in config else {}
        return _without_wrappers({**config, **name})

    return make_anew(layer.layer, change)


def _rebuild_plain(model: Any, copy_state: CopyState) -> Any:
    def make(operation: Any) -> Any:
        is_layer = isinstance(operation, keras.layers.Layer)
        if is_layer and _has_wrapper(operation):
            return make_stripped(operation)
        return make_anew(operation)

    return rebuild_graph(
        model, lambda old, new: new, copy_state, make, unwrap=_unwrapped
    )


def _without_wrappers(config: Any) -> Any:
    if isinstance(config, dict):
        if config.get("registered_name") in _WRAPPER_NAMES:
            return _without_wrappers(config["config"]["layer"])
        return {key: _without_wrappers(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_without_wrappers(value) for value in config)
    return config


def _has_wrapper(layer: Any) -> bool:
    return any(isinstance(inner, MaskedLayer) for inner in layer._flatten_layers())


def _strip_subclassed(model: Any, values: dict[int, Any]) -> Any:
    pruning = model.pruning
    if pruning.inplace or pruning.original_config is None:
        return _strip_in_place(model, pruning.plain_class)
    return make_subclassed_anew(
        model, values, _unwrapped, pruning.plain_class, _copy_plain
    )


def _strip_around(model: Any, values: dict[int, Any]) -> Any:
    """A user's own subclass, with wrappers or pruned models in its attributes."""
    pruned = [
        x.name
        for x in child_layers(model)
        if isinstance(x, keras.Model) and find_wrappers(x)
    ]
    advice = (
        f"strip the pruned models in it instead, `strip_pruning(model.{pruned[0]})` or "
        f"whatever holds them. Received: model={model.name!r} of class "
        f"{type(model).__name__} with the pruned models {pruned}"
        if pruned
        else ""
    )
    if pruned and any(group.removable for group in channel_groups(model)):
        raise ValueError(
            "Channels can be removed from a Sequential or Functional model, not from "
            f"one within a subclassed model: {advice}"
        )
    try:
        new = make_subclassed_anew(model, values, _unwrapped, None, _copy_plain)
    except ValueError as error:
        if not pruned:
            raise
        raise ValueError(
            "A subclassed model must be able to make a copy of itself from its config "
            f"to be stripped: {advice}"
        ) from error
    return _strip_in_place(new, None)  # of what its constructor has wrapped


def _unwrapped(layer: Any) -> Any:
    return layer.layer if isinstance(layer, MaskedLayer) else layer


def _copy_plain(model: Any) -> Any:
    return _rebuild_plain(model, lambda old, new: None)


def _strip_in_place(model: Any, plain_class: type | None) -> Any:
    for variable, value in _final_values(find_wrappers(model)):
        variable.assign(value)

    def exchange(layer: Any) -> Any:
        if isinstance(layer, MaskedLayer):
            return layer.release()
        if is_graph(layer) and _has_wrapper(layer):
            return _rebuild_plain(layer, copy_variables)
        return layer

    exchange_layers(model, exchange)
    allow_quantization(model)
    mask_each_batch(model)
    if plain_class is not None:
        model.__class__ = plain_class
    return model
