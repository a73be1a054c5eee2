"""Keeps `Model.quantize` from a model that is being pruned, as a whole."""

from __future__ import annotations

from typing import Any


def refuse_quantization(model: Any) -> None:
    """Has `model.quantize` refuse before it has changed anything.

    A wrapped layer refuses by itself, but the layers in front of it would be quantized
    by then. With `filters` a user says which layers he means.

    Args:
        model: a pruned model.
    """

    def quantize(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("filters") is None:
            raise ValueError(
                "A model that is being pruned must not be quantized, which would drop "
                "its masks: prune, `pdp_keras.strip_pruning(model)`, then quantize. "
                f"Received: quantize of the pruned model {model.name!r}"
            )
        return type(model).quantize(model, *args, **kwargs)

    # Past Keras' own __setattr__, which tracks what is set.
    vars(model)["quantize"] = quantize


def allow_quantization(model: Any) -> None:
    """The inverse of `refuse_quantization`, where the model is no longer pruned."""
    vars(model).pop("quantize", None)
