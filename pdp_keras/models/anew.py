"""Copies of layers and models, made anew from their configs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from pdp_keras.models.frozen import copy_trainable
from pdp_keras.models.live import LiveConfigs, has_config
from pdp_keras.models.traces import compiled_functions, untraced
from pdp_keras.models.variables import copy_variables

# Of the message of an error by Keras, which may end in a page of config.
_LONGEST_REASON = 300


def remake(
    operation: Any,
    copy_graph: Callable[[Any], Any],
    change: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    unwrap: Callable[[Any], Any] = lambda layer: layer,
) -> Any:
    """An unbuilt copy of a layer or operation, from its config.

    Functions and objects that no name leads to (lambdas, what is not registered) are
    those of the original. Arguments that its constructor does not take are left out, if
    the config of a copy made without them is the same. What its constructor adds to its
    name is not added again.

    Args:
        operation: the layer or operation.
        copy_graph: makes the copy of a Sequential or Functional model inside of it.
        change: gives the config to make it from, for that of `operation`.
        unwrap: gives what takes the place of a layer inside of it.

    Raises:
        ValueError: if its config does not suffice.
    """

    def config() -> tuple[dict[str, Any], LiveConfigs]:
        live = LiveConfigs(copy_graph, unwrap)
        own = live.config_of(operation)
        return (change(own) if change else own), live

    try:
        _check_attributes(operation, LiveConfigs(copy_graph, unwrap))
        new = _renamed(_from_config(operation, config), config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            "Every layer must be able to make a copy of itself from its config: "
            "implement `get_config` (and `from_config`). Received: "
            f"{operation.name!r} of class {type(operation).__name__} "
            f"({shortened(error)})"
        ) from error
    # Which no config holds: what is computed again in the backward pass.
    if getattr(operation, "_remat_mode", None) is not None:
        new._remat_mode = operation._remat_mode
    return new


def _check_attributes(operation: Any, live: LiveConfigs) -> None:
    """Tries whether the attributes of a layer without a config say what it is.

    A copy made from them must have all numbers and texts that the layer has.
    """
    if has_config(live.view(operation)):
        return
    config = live.config_of(operation)
    with live.scope():
        found = vars(type(operation).from_config(config))
    lost = [
        name
        for name, value in found.items()
        if not name.startswith("_")
        and name != "built"
        and isinstance(value, bool | int | float | str)
        and vars(operation).get(name) != value
    ]
    if lost:
        raise NotImplementedError(f"it has no config that says its {', '.join(lost)}")


def shortened(error: Exception) -> str:
    """The message of an error without the config that Keras prints after it."""
    text = str(error)
    if len(text) <= _LONGEST_REASON:
        return text
    # What went wrong in the end stands behind the config.
    return f"{text[:_LONGEST_REASON]} ... {text[-_LONGEST_REASON:]}"


_Config = Callable[[], tuple[dict[str, Any], LiveConfigs]]


def _from_config(operation: Any, config: _Config) -> Any:
    """A new object, though its config may have what its constructor refuses."""
    cls = type(operation)
    given, live = config()
    try:
        with live.scope():
            return cls.from_config(given)
    except (TypeError, ValueError):
        given, live = config()
        refused = given.keys() - _arguments(cls)
        own = live.config_of(operation)
        # Some layers tell what they work out. That a copy works out the same shows it.
        with live.scope():
            copy = _or_none(cls, _without(own, refused))
            if copy is None or not _are_equal(
                copy.get_config(), operation.get_config()
            ):
                raise
            return cls.from_config(_without(given, refused))


def _without(config: dict[str, Any], refused: set[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in refused}


def _renamed(new: Any, config: _Config) -> Any:
    """The object, made again by a shorter name if its constructor adds to the name.

    The layers inside may be named after it, and channel groups after them.
    """
    wanted, live = config()
    name = str(wanted.get("name"))
    added = new.name.removeprefix(name)
    if not added or added == new.name or not name.endswith(added):
        return new
    with live.scope():
        again = _or_none(type(new), {**wanted, "name": name.removesuffix(added)})
    if again is None or again.name != name:
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


def remake_subclassed(
    model: Any,
    copy_graph: Callable[[Any], Any],
    values: dict[int, Any] | None = None,
    unwrap: Callable[[Any], Any] = lambda layer: layer,
    cls: type | None = None,
) -> Any:
    """A built copy of a subclassed model, with the values of its variables.

    Args:
        model: the model; not changed.
        copy_graph: makes the copy of a Sequential or Functional model inside of it.
        values: as for `copy_variables`.
        unwrap: gives what takes the place of a layer inside of it.
        cls: the class of the copy; None for the model's own.

    Raises:
        ValueError: if the config does not suffice to make and build it.
    """
    live = LiveConfigs(copy_graph, unwrap)
    cls = cls or type(model)
    try:
        view = live.view(model)
        view.__class__ = cls
        config = keras.saving.serialize_keras_object(
            _accepted(cls, live.config_of(model))
        )
        # What its `call` is compiled to while it is built is about other layers.
        with live.scope(), untraced(bool(compiled_functions(model))):
            new = cls.from_config(config)  # type: ignore[attr-defined]
            build_config = model.get_build_config()
            if build_config and not new.built:
                new.build_from_config(build_config)
                new.built = True
        copy_variables(model, new, values)
        copy_trainable(model, new)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            "A subclassed model is copied by way of its config, which must suffice "
            "to make it (`get_config`, `from_config`) and to build it (`build`, or a "
            "`call` that Keras can trace). Mend that, or pass `inplace=True` to "
            f"prune this very object. Received: model={model.name!r} of class "
            f"{cls.__name__} ({shortened(error)})"
        ) from error
    return new


def describe_model(model: Any) -> dict[str, Any]:
    """The serialized model without the settings of `compile`."""
    description: dict[str, Any] = dict(keras.saving.serialize_keras_object(model))
    description.pop("compile_config", None)
    description["config"] = _accepted(type(model), description["config"])
    return description


def _accepted(cls: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The config without what the constructor of a model would refuse.

    Keras's default config has a name, a dtype and so on, which a constructor without
    arguments, the commonest of all, does not take.
    """
    accepted = inspect.signature(cls).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    if cls.get_config is not keras.Model.get_config or takes_all:
        return config
    return {key: value for key, value in config.items() if key in accepted}
