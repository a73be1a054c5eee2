"""The variables of a mask: counters, what the temperature has fallen to, and extras."""

from __future__ import annotations

from typing import Any

import keras

from pdp_keras.methods import Extra


def add_counter(layer: Any, name: str, value: int) -> Any:
    """An integer scalar of a layer, which a schedule sets.

    A count, not a fraction: float32 cannot hold round(r * n) of a large layer.

    Args:
        layer: the Keras layer that owns it.
        name: of the variable.
        value: what it begins with.
    """
    return layer.add_weight(
        shape=(),
        dtype="int",
        initializer=keras.initializers.Constant(value),
        trainable=False,
        name=_variable_name(name),
    )


def add_temperature_scale(layer: Any) -> Any:
    """A float32 scalar of a layer: the fraction that is left of its temperature."""
    return layer.add_weight(
        shape=(),
        dtype="float32",
        initializer="ones",
        trainable=False,
        name="temperature_scale",
    )


def add_extra(layer: Any, name: str, shape: tuple[int, ...], extra: Extra) -> Any:
    """What a method keeps beside a kernel or a group.

    Args:
        layer: the Keras layer that owns it.
        name: of the variable.
        shape: its shape where the extra has none of its own.
        extra: what the method says of it.
    """
    variable = layer.add_weight(
        shape=shape if extra.shape is None else extra.shape,
        dtype=extra.dtype,
        initializer=_filled_with(extra.initial),
        trainable=extra.trainable,
        # What is no gradient is one value for all replicas.
        aggregation="none" if extra.trainable else "only_first_replica",
        autocast=False,
        name=_variable_name(name),
    )
    variable.overwrite_with_gradient = extra.takes_gradient
    return variable


def _filled_with(value: float) -> Any:
    # Keras 3.9 cannot fill a bool with a constant, but knows these two.
    named = {0.0: "zeros", 1.0: "ones"}
    return named.get(value) or keras.initializers.Constant(value)


def _variable_name(name: str) -> str:
    # Keras keeps the dots of attribute paths for itself.
    return name.replace(".", "_")
