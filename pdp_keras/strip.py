"""`strip_pruning`: from a pruned model back to a plain Keras model."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from pdp_keras import state, structure, subclassed
from pdp_keras.pruned_weight import UNSET, PrunedWeight, read, read_integer
from pdp_keras.wrapper import PDPWrapper

_WRAPPER_NAME = keras.saving.get_registered_name(PDPWrapper)


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
    weights = state.require_pruned(model)
    _require_finite(weights)
    _warn_below_target(weights)
    values = {id(w.variable): w.hard_masked() for w in weights}

    def replace(old: Any, new: Any) -> Any:
        return make_stripped(old) if _has_wrapper(old) else new

    def copy_state(old: Any, new: Any) -> None:
        structure.copy_variables(old, new, values)

    if structure.is_graph(model):
        return structure.rebuild_graph(model, replace, copy_state)
    if isinstance(model, subclassed.PrunedModel):
        return _strip_subclassed(model, values)
    # A user's own subclass with wrappers in its attributes keeps its class.
    return _strip_in_place(structure.make_subclassed_anew(model, values), None)


def make_stripped(layer: Any) -> Any:
    """An unbuilt copy of a layer without any `PDPWrapper` on it or inside it."""
    if isinstance(layer, PDPWrapper):
        layer = layer.layer
    return type(layer).from_config(_without_wrappers(layer.get_config()))


def _without_wrappers(config: Any) -> Any:
    if isinstance(config, dict):
        if config.get("registered_name") == _WRAPPER_NAME:
            return _without_wrappers(config["config"]["layer"])
        return {key: _without_wrappers(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_without_wrappers(value) for value in config)
    return config


def _has_wrapper(layer: Any) -> bool:
    return any(isinstance(inner, PDPWrapper) for inner in layer._flatten_layers())


def _strip_subclassed(model: Any, values: dict[int, Any]) -> Any:
    pruning = model.pruning
    if pruning.original_config is None:
        return _strip_in_place(model, pruning.plain_class)
    classes = {type(x).__name__: type(x) for x in model._flatten_layers()}
    plain = keras.saving.deserialize_keras_object(
        pruning.original_config,
        custom_objects={**classes, pruning.plain_class.__name__: pruning.plain_class},
    )
    structure.copy_variables(model, plain, values)
    return plain


def _strip_in_place(model: Any, plain_class: type | None) -> Any:
    for weight in state.pruned_weights(model):
        weight.variable.assign(weight.hard_masked())

    def exchange(layer: Any) -> Any:
        if isinstance(layer, PDPWrapper):
            return layer.layer
        if structure.is_graph(layer) and _has_wrapper(layer):
            return structure.rebuild_graph(
                layer,
                lambda old, new: make_stripped(old) if _has_wrapper(old) else new,
                structure.copy_variables,
            )
        return layer

    structure.exchange_layers(model, exchange)
    if plain_class is not None:
        model.__class__ = plain_class
    return model


def _require_finite(weights: list[PrunedWeight]) -> None:
    for weight in weights:
        if not np.isfinite(read(weight.variable).astype("float32")).all():
            raise ValueError(
                "Weights must be finite to be pruned. Received: NaN or infinity in "
                f"{weight.kernel.full_name!r}"
            )


def _warn_below_target(weights: list[PrunedWeight]) -> None:
    below = [w for w in weights if _is_below_target(w)]
    if below:
        warnings.warn(
            f"{len(below)} of {len(weights)} weights are stripped before they have "
            "reached their target sparsity (sparsity of the pruned weights: "
            f"{state.current_sparsity(weights):.2%}): train with "
            "PDPScheduleCallback until its ramp has ended.",
            stacklevel=3,
        )


def _is_below_target(weight: PrunedWeight) -> bool:
    target = read_integer(weight.target_zeros)
    return target == UNSET or read_integer(weight.zeros) < target
