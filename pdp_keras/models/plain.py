"""What may be shipped: a built Keras model that no wrapper prunes any more."""

from __future__ import annotations

from typing import Any

import keras

_WRAPPERS = ("PDPWrapper", "ChannelWrapper")


def require_tensorflow(what: str) -> None:
    """Checks that Keras runs on TensorFlow, which has the converter.

    Args:
        what: what needs it, for the message.

    Raises:
        ValueError: if it does not.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{what} needs Keras on the TensorFlow backend. Save the model with "
            "`model.save`, and load it in a process with KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()}"
        )


def require_built(model: Any) -> None:
    """Checks that a model that is to be pruned has weights.

    Raises:
        ValueError: if it is not built.
    """
    if not model.built:
        raise ValueError(
            "The model must be built, so that it has weights: call it on data, or "
            f"`model.build(input_shape)`. Received: unbuilt model={model.name!r}"
        )


def require_float(model: Any) -> None:
    """Checks that the weights are still what training made, and not integers.

    Raises:
        ValueError: if a layer is quantized.
    """
    quantized = [
        layer.name
        for layer in model._flatten_layers()
        if getattr(layer, "quantization_mode", None) is not None
    ]
    if quantized:
        raise ValueError(
            "A model must be pruned before it is quantized: prune, train, "
            "`strip_pruning`, then `quantize`. Received: "
            f"model={model.name!r} with quantized layers {quantized[:5]}"
        )


def require_plain(model: Any, verb: str) -> None:
    """Checks that a model is built and without pruning wrappers.

    Args:
        model: a Keras model.
        verb: what is to be done with it, for the message.

    Raises:
        ValueError: if it is not.
    """
    if not model.built:
        raise ValueError(
            "`model` must be built: give it an `Input`, or call it once. "
            f"Received: model={model.name!r}, not built"
        )
    # By name: the wrappers' modules are none of the deployment's business.
    wrapped = [
        layer.name
        for layer in model._flatten_layers()
        if any(kind.__name__ in _WRAPPERS for kind in type(layer).__mro__)
    ]
    if wrapped:
        raise ValueError(
            f"`model` must be free of pruning wrappers: {verb} "
            "`pdp_keras.strip_pruning(model)`. "
            f"Received: model={model.name!r} with pruned layers {wrapped}"
        )
