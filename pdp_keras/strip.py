"""`strip_pruning`: from a pruned model back to a plain Keras model."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from pdp_keras import state, structure, subclassed, surgery
from pdp_keras.channel_group import ChannelGroup
from pdp_keras.channel_wrapper import ChannelWrapper
from pdp_keras.masked_layer import MaskedLayer
from pdp_keras.pruned_weight import UNSET, read_integer
from pdp_keras.wrapper import PDPWrapper

_WRAPPER_NAMES = [
    keras.saving.get_registered_name(wrapper)
    for wrapper in (PDPWrapper, ChannelWrapper)
]


def strip_pruning(model: Any) -> Any:
    """A plain Keras model with exact zeros, of the original classes.

    It predicts what the pruned model predicts at inference, bit for bit, has no
    trace of this package, and loads where it is not installed.

    Args:
        model: a model with `PDPWrapper` layers. It is not changed (but for one
            pruned with `inplace=True`: that very object is stripped).

    Returns:
        A new model, not compiled.

    Raises:
        ValueError: if the model has no `PDPWrapper`, or its weights are not finite.

    Warns:
        UserWarning: if a weight has not reached its target sparsity, because the
            callback was forgotten or training stopped early.

    Example:

    >>> small = pdp_keras.strip_pruning(model)
    >>> small.save("small.keras")
    """
    parts = state.require_pruned(model)
    _require_finite(parts)
    _warn_below_target(parts)
    values = {
        id(variable): value
        for wrapper in state.find_wrappers(model)
        for variable, value in wrapper.masked_values(training=False)
    }

    def copy_state(old: Any, new: Any) -> None:
        structure.copy_variables(old, new, values)

    if structure.is_graph(model):
        kept = {g.label: g.kept() for g in state.channel_groups(model) if g.removable}
        plain = _rebuild_plain(model, copy_state)
        return surgery.remove_channels(plain, kept) if kept else plain
    if isinstance(model, subclassed.PrunedModel):
        return _strip_subclassed(model, values)
    # A user's own subclass with wrappers in its attributes keeps its class.
    return _strip_in_place(structure.make_subclassed_anew(model, values), None)


def make_stripped(layer: Any) -> Any:
    """An unbuilt copy of a layer without any `PDPWrapper` on it or inside it."""
    if not isinstance(layer, MaskedLayer):
        return structure.make_anew(layer, _without_wrappers)

    def change(config: dict[str, Any]) -> Any:
        # The wrapper's, should loading have changed that of the layer: groups of
        # channels are known by it.
        name = {"name": layer.name} if "name" in config else {}
        return _without_wrappers({**config, **name})

    return structure.make_anew(layer.layer, change)


def _rebuild_plain(model: Any, copy_state: structure.CopyState) -> Any:
    def make(operation: Any) -> Any:
        is_layer = isinstance(operation, keras.layers.Layer)
        if is_layer and _has_wrapper(operation):
            return make_stripped(operation)
        return structure.make_anew(operation)

    return structure.rebuild_graph(model, lambda old, new: new, copy_state, make)


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
    classes = {type(x).__name__: type(x) for x in model._flatten_layers()}
    plain = keras.saving.deserialize_keras_object(
        pruning.original_config,
        custom_objects={**classes, pruning.plain_class.__name__: pruning.plain_class},
    )
    structure.copy_variables(model, plain, values)
    return plain


def _strip_in_place(model: Any, plain_class: type | None) -> Any:
    for wrapper in state.find_wrappers(model):
        for variable, value in wrapper.masked_values(training=False):
            variable.assign(value)

    def exchange(layer: Any) -> Any:
        if isinstance(layer, MaskedLayer):
            return layer.layer
        if structure.is_graph(layer) and _has_wrapper(layer):
            return _rebuild_plain(layer, structure.copy_variables)
        return layer

    structure.exchange_layers(model, exchange)
    if plain_class is not None:
        model.__class__ = plain_class
    return model


def _require_finite(parts: list[state.Pruned]) -> None:
    for name, values in (pair for part in parts for pair in part.values()):
        if not np.isfinite(values).all():
            raise ValueError(
                "Weights must be finite to be pruned. Received: NaN or infinity in "
                f"{name!r}"
            )


def _warn_below_target(parts: list[state.Pruned]) -> None:
    below = [part for part in parts if _is_below_target(part)]
    if below:
        warnings.warn(
            f"{len(below)} of {len(parts)} {_kind(parts)} are stripped before they "
            "have reached their target sparsity (sparsity of the pruned "
            f"{_kind(parts)}: {state.current_sparsity(parts):.2%}): {_advice(parts)}.",
            stacklevel=3,
        )


def _advice(parts: list[state.Pruned]) -> str:
    method = parts[0].method
    if method.learns_sparsity:
        return (
            f"with method={method.name!r} it follows from {method!r}, not from a ramp"
        )
    return "train with PDPScheduleCallback until its ramp has ended"


def _kind(parts: list[state.Pruned]) -> str:
    return "channel groups" if isinstance(parts[0], ChannelGroup) else "weights"


def _is_below_target(part: state.Pruned) -> bool:
    target = read_integer(part.target_zeros)
    return target == UNSET or read_integer(part.zeros) < target
