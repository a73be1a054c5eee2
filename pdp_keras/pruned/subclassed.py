"""A pruned subclassed model: the user's own class, able to save its wrappers."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from pdp_keras.channels import ChannelWrapper
from pdp_keras.configs import TEXTS, look_up, require_keys, shown
from pdp_keras.layers import MaskedLayer, PDPWrapper
from pdp_keras.models import describe_model, forget_traces, look_up_layer, put_layer

_WRAPPERS: dict[str, Any] = {
    "PDPWrapper": PDPWrapper,
    "ChannelWrapper": ChannelWrapper,
}


@dataclasses.dataclass(frozen=True)
class Exchange:
    """What was exchanged in a subclassed model.

    An object and not a dict, because Keras saves what it finds in containers.

    Attributes:
        plain_class: the user's class.
        original_config: the serialized model before, None if that is impossible.
        exchanged: the layers that stand where others stood, by path.
        inplace: whether this very object is the user's, to be stripped itself.
    """

    plain_class: type
    original_config: dict[str, Any] | None
    exchanged: dict[str, Any]
    inplace: bool = False


class PrunedModel:
    """Mixed in before the user's class, so that the two act as one.

    The model keeps its methods (`call`, `train_step`, ...). Only its config
    differs: the original's, and the layers that stand where others stood.
    """

    pruning: Exchange

    def get_config(self) -> dict[str, Any]:
        """The original model and the exchanged layers."""
        if self.pruning.original_config is None:
            raise NotImplementedError(
                "A model pruned with `inplace=True` whose class has no usable "
                "`get_config` cannot be saved as a whole; use `save_weights`. "
                f"Received: model={self.name!r}"  # type: ignore[attr-defined]
            )
        return {
            "original": self.pruning.original_config,
            "exchanged": {
                path: serialize_exchanged(layer)
                for path, layer in self.pruning.exchanged.items()
            },
        }

    def __reduce__(self) -> Any:
        """How Python pickles it: by the file that Keras makes of it."""
        return reduce_by_file(self, super().__reduce__())

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Any:
        """The inverse of `get_config`; the user's class must be registered.

        Raises:
            ValueError: if it is none of a pruned model.
        """
        require_keys("a pruned model", config, ("original", "exchanged"), ())
        require_keys("the exchanged layers", config["exchanged"])
        _require_apart(list(config["exchanged"]))
        model = _plain_model(config["original"], custom_objects)
        # All paths are looked up, and all layers made, before the first is put.
        originals = {path: look_up_layer(model, path) for path in config["exchanged"]}
        exchanged = {
            path: deserialize_exchanged(layer, originals[path], custom_objects)
            for path, layer in config["exchanged"].items()
        }
        for path, layer in exchanged.items():
            put_layer(model, path, layer)
        return mark_pruned(model, config["original"], exchanged)


def reduce_by_file(model: Any, reduced: Any) -> Any:
    """What `__reduce__` of a Keras model gives, but for the class of this process.

    Pickle cannot find that one by a name; what Keras makes a model from, a file of
    its own, says it in other words.
    """
    make, *rest = reduced
    if getattr(make, "__self__", None) is type(model):
        make = getattr(keras.Model, make.__name__)
    return (make, *rest)


def _require_apart(paths: list[Any]) -> None:
    TEXTS.require("paths", paths)
    inside = [p for p in paths for other in paths if p.startswith(f"{other}.")]
    if inside:
        raise ValueError(
            "No exchanged layer may lie inside another. "
            f"Received: path={shown(inside[0])}"
        )


def deserialize_original(
    config: Any, pruned_name: str, custom_objects: dict[str, Any] | None
) -> Any:
    """The object that was pruned.

    Args:
        config: its serialized form.
        pruned_name: the registered name of pruned ones, which it must not have.
        custom_objects: as for Keras.

    Raises:
        ValueError: if it is none, or pruned itself.
    """
    require_keys("the original model", config)
    if config.get("registered_name") == pruned_name:
        raise ValueError(
            "The original of a pruned model must not be pruned itself. "
            f"Received: registered_name={pruned_name!r}"
        )
    return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)


def _plain_model(config: Any, custom_objects: dict[str, Any] | None) -> Any:
    model = deserialize_original(config, _REGISTERED, custom_objects)
    if not isinstance(model, keras.Model) or isinstance(model, PrunedModel):
        raise ValueError(
            "The original of a pruned model must be a plain keras.Model. "
            f"Received: {shown(model)}"
        )
    return model


def serialize_exchanged(layer: Any) -> dict[str, Any]:
    """The config of a layer that stands in place of another."""
    if not isinstance(layer, MaskedLayer):
        return {"model": keras.saving.serialize_keras_object(layer)}
    # The original model has the layer.
    return {"wrapper": layer.own_config(), "kind": type(layer).__name__}


def deserialize_exchanged(
    config: dict[str, Any], original: Any, custom_objects: dict[str, Any] | None
) -> Any:
    """The inverse of `serialize_exchanged`, around the layer that stood there.

    Raises:
        ValueError: if it is no such config.
    """
    require_keys("an exchanged layer", config)
    if "model" in config:
        require_keys("an exchanged layer", config, ("model",), ())
        layer = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                "An exchanged layer must be a keras.layers.Layer. "
                f"Received: model={shown(config['model'])}"
            )
        return layer
    require_keys("an exchanged layer", config, ("wrapper", "kind"), ())
    kind = look_up(_WRAPPERS, "kind", config["kind"])
    arguments = config["wrapper"]
    require_keys(f"a {kind.__name__}", arguments)
    if "layer" in arguments:
        raise ValueError(
            "The wrapper of an exchanged layer takes the layer of the original. "
            f"Received: layer={shown(arguments['layer'])}"
        )
    if kind is ChannelWrapper:
        arguments = ChannelWrapper.deserialize_groups(arguments, custom_objects)
    wrapper = kind(original, **arguments)
    wrapper.build()
    return wrapper


def mark_pruned(
    model: Any,
    original_config: dict[str, Any] | None,
    exchanged: dict[str, Any],
    inplace: bool = False,
) -> Any:
    """Gives a subclassed model the class that can save its exchanged layers."""
    cls = type(model)
    pruned = type(f"Pruned{cls.__name__}", (PrunedModel, cls), {})
    # All these classes load in the same way, so they share one registered name.
    keras.saving.register_keras_serializable("pdp_keras", "PrunedModel")(pruned)
    model.__class__ = pruned
    forget_traces(model)
    model.pruning = Exchange(cls, original_config, exchanged, inplace)
    return model


def describe_if_possible(model: Any) -> dict[str, Any] | None:
    """The serialized model, or None where its class cannot do that."""
    try:
        return describe_model(model)
    except (TypeError, ValueError, NotImplementedError):
        return None


keras.saving.register_keras_serializable("pdp_keras", "PrunedModel")(PrunedModel)
_REGISTERED = keras.saving.get_registered_name(PrunedModel)
