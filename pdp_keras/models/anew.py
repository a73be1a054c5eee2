"""Copies of layers and models, made anew from their configs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from pdp_keras.models.variables import copy_variables


def make_anew(
    operation: Any, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> Any:
    """An unbuilt copy of a layer or operation, from its config.

    Arguments that its constructor does not take are left out, if the config of a copy
    made without them is the same. What its constructor adds to its name is not added
    again.

    Args:
        operation: the layer or operation.
        change: gives the config to make it from, for that of `operation`.

    Raises:
        ValueError: if its config does not suffice.
    """

    def config() -> dict[str, Any]:
        own: dict[str, Any] = operation.get_config()
        return change(own) if change else own

    try:
        return _renamed(_from_config(operation, config), config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            "Every layer must be able to make a copy of itself from its config: "
            "implement `get_config` (and `from_config`). Received: "
            f"{operation.name!r} of class {type(operation).__name__} ({error})"
        ) from error


def _from_config(operation: Any, config: Callable[[], dict[str, Any]]) -> Any:
    """A new object, though its config may have what its constructor refuses."""
    cls = type(operation)
    if isinstance(operation, keras.layers.Lambda):
        # Its Python code comes from this process and not from a file of unknown origin.
        return cls.from_config(config(), safe_mode=False)
    try:
        return cls.from_config(config())
    except (TypeError, ValueError):
        refused = config().keys() - _arguments(cls)
        # Some layers tell what they work out. That a copy works out the same shows it.
        copy = _or_none(cls, _without(operation.get_config(), refused))
        if copy is None or not _are_equal(copy.get_config(), operation.get_config()):
            raise
        return cls.from_config(_without(config(), refused))


def _without(config: dict[str, Any], refused: set[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in refused}


def _renamed(new: Any, config: Callable[[], dict[str, Any]]) -> Any:
    """The object, made again by a shorter name if its constructor adds to the name.

    The layers inside may be named after it, and channel groups after them.
    """
    wanted = config()
    name = str(wanted.get("name"))
    added = new.name.removeprefix(name)
    if not added or added == new.name or not name.endswith(added):
        return new
    again = _or_none(type(new), {**wanted, "name": name.removesuffix(added)})
    if again is None or not _are_equal(again.get_config(), config()):
        return new
    return again


def _or_none(cls: Any, config: dict[str, Any]) -> Any:
    try:
        return cls.from_config(config)
    except (TypeError, ValueError, NotImplementedError):
        return None


def _arguments(cls: type) -> set[str]:
    """The names that a constructor takes itself or passes on to its base classes."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= {p.name for p in parameters}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names


def _are_equal(first: Any, second: Any) -> bool:
    """Whether configs are equal; those with arrays in them, or the like, are not."""
    try:
        return bool(first == second)
    except (TypeError, ValueError):
        return False


def make_subclassed_anew(model: Any, values: dict[int, Any] | None = None) -> Any:
    """A built copy of a subclassed model, with the values of its variables.

    Args:
        model: the model; not changed.
        values: as for `copy_variables`.

    Raises:
        ValueError: if the config does not suffice to make and build it.
    """
    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    try:
        new = keras.saving.deserialize_keras_object(
            describe_model(model), custom_objects=classes
        )
        copy_variables(model, new, values)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            "A subclassed model is copied by way of its config, which must suffice "
            "to make it (`get_config`, `from_config`) and to build it (`build`, or a "
            "`call` that Keras can trace). Mend that, or pass `inplace=True` to "
            f"prune this very object. Received: model={model.name!r} of class "
            f"{type(model).__name__} ({error})"
        ) from error
    return new


def describe_model(model: Any) -> dict[str, Any]:
    """The serialized model without the settings of `compile`."""
    description: dict[str, Any] = dict(keras.saving.serialize_keras_object(model))
    description.pop("compile_config", None)
    accepted = inspect.signature(type(model)).parameters
    if type(model).get_config is keras.Model.get_config and not any(
        p.kind is p.VAR_KEYWORD for p in accepted.values()
    ):
        # Keras's default config has a name, a dtype and so on, which a constructor
        # without arguments, the commonest of all, would refuse.
        description["config"] = {
            key: value
            for key, value in description["config"].items()
            if key in accepted
        }
    return description
