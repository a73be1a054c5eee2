"""Rebuilds a model with some of its layers replaced.

Sequential and Functional models are rebuilt from their graph, nested ones too. A
subclassed model has no graph: it is remade from its config, and layers are
exchanged where its attributes hold them. In both cases the given model stays as it
is, and the new one has its own variables.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops, tree

from pdp_keras.kernels import child_layers
from pdp_keras.masked_layer import MaskedLayer

# From a layer of the given model and its fresh, unbuilt copy to the layer that
# takes its place: the copy itself, or something around or inside it.
Replace = Callable[[Any, Any], Any]
# Called with the old and the new layer once both have their variables.
CopyState = Callable[[Any, Any], None]
# From a layer or operation of the given model to a fresh copy, unbuilt, or to
# something that calls one.
Make = Callable[[Any], Any]

_TRAINING_METHODS = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
)


# Attributes in which Keras, TensorFlow and PyTorch list what others hold.
_BOOKKEEPING = ("_layers", "_tracker", "_auto_config", "_self_", "_modules")


def is_graph(model: Any) -> bool:
    """Whether it is a Sequential or Functional model."""
    # Keras has no public name for the Functional class; its instances alone can
    # run through a graph.
    return isinstance(model, keras.Sequential) or (
        isinstance(model, keras.Model) and hasattr(model, "_run_through_graph")
    )


def rebuild_graph(
    model: Any, replace: Replace, copy_state: CopyState, make: Make | None = None
) -> Any:
    """A new Sequential or Functional model with layers replaced.

    Args:
        model: a built Sequential or Functional model; not changed.
        replace: gives the new layer for each layer that is not a graph itself.
        copy_state: copies the values of variables from the old to the new layer.
        make: makes the fresh copy of a layer, an input or an operation, in place of
            `make_anew`.

    Raises:
        ValueError: if a layer cannot be made anew from its config, if two layers
            share a variable, or if the model's class cannot be made from a graph
            although it has a training loop of its own.
    """
    rebuilding = _Rebuilding(replace, make or make_anew)
    new_model = rebuilding.rebuild(model)
    rebuilding.check_nothing_shared()
    for old, new in rebuilding.pairs:
        copy_state(old, new)
    return new_model


class _Rebuilding:
    """One pass over a graph; a layer used twice is made once."""

    def __init__(self, replace: Replace, make: Make) -> None:
        self.replace = replace
        self.make = make
        self.pairs: list[tuple[Any, Any]] = []
        self._made: dict[int, Any] = {}

    def rebuild(self, operation: Any) -> Any:
        if id(operation) not in self._made:
            self._made[id(operation)] = self._make(operation)
        return self._made[id(operation)]

    def check_nothing_shared(self) -> None:
        owners: dict[int, Any] = {}
        for old, _ in self.pairs:
            for variable in saved_variables(old):
                owner = owners.setdefault(id(variable), old)
                if owner is not old:
                    raise ValueError(
                        "A variable must belong to one layer of the graph: copies of "
                        "two layers could not go on sharing it. Received: "
                        f"{variable.path!r} in {owner.name!r} and in {old.name!r}"
                    )

    def _make(self, operation: Any) -> Any:
        if isinstance(operation, keras.Sequential):
            return self._make_sequential(operation)
        if is_graph(operation):
            return self._make_functional(operation)
        new = self.make(operation)
        if isinstance(operation, keras.layers.Layer) and not isinstance(
            operation, keras.layers.InputLayer
        ):
            new = self.replace(operation, new)
            self.pairs.append((operation, new))
        return new

    def _make_sequential(self, model: Any) -> Any:
        inputs = [tensor._keras_history.operation for tensor in model.inputs or ()]
        layers = [self.rebuild(layer) for layer in (*inputs, *model.layers)]
        cls = type(model) if _takes(type(model), "layers") else keras.Sequential
        new = cls(layers, name=model.name)
        return _finish(model, new)

    def _make_functional(self, model: Any) -> Any:
        inputs = tree.map_structure(
            lambda tensor: self.rebuild(tensor._keras_history.operation).output,
            model.input,
        )
        outputs = model._run_through_graph(inputs, operation_fn=self.rebuild)
        if _takes(type(model), "inputs", "outputs"):
            return _finish(model, type(model)(inputs, outputs, name=model.name))
        own = [name for name in _TRAINING_METHODS if _overrides(model, name)]
        if own:
            raise ValueError(
                "A Functional model with a constructor of its own can only be copied "
                "as a plain keras.Model, which would lose its training loop. Make "
                "`keras.Model(model.inputs, model.outputs)` first, or let its "
                "constructor take `inputs` and `outputs`. Received: "
                f"{type(model).__name__} with its own {', '.join(own)}"
            )
        return _finish(model, keras.Model(inputs, outputs, name=model.name))


def _finish(model: Any, new: Any) -> Any:
    if not model.trainable:
        new.trainable = False
    return new


def _takes(cls: type, *names: str) -> bool:
    """Whether a constructor starts with these arguments, or passes all of them on."""
    parameters = list(inspect.signature(cls).parameters.values())
    kinds = {p.kind for p in parameters}
    passes_on = {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    } <= kinds
    return passes_on or tuple(p.name for p in parameters[: len(names)]) == names


def _overrides(model: Any, method: str) -> bool:
    return getattr(type(model), method) is not getattr(keras.Model, method)


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


def saved_variables(layer: Any) -> list[Any]:
    """The variables of a layer in their order, without the state of wrappers."""
    added = {
        id(variable)
        for inner in layer._flatten_layers()
        if isinstance(inner, MaskedLayer)
        for variable in inner.state
    }
    return [v for v in layer.variables if id(v) not in added]


def copy_variables(old: Any, new: Any, values: dict[int, Any] | None = None) -> None:
    """Copies the values of all variables from one layer tree to its like.

    Args:
        old: source.
        new: destination, of the same structure but for wrappers.
        values: values that replace those of an old variable, by its id.

    Raises:
        ValueError: if the two do not have the same variables.
    """
    sources, targets = saved_variables(old), saved_variables(new)
    if [tuple(v.shape) for v in sources] != [tuple(v.shape) for v in targets]:
        raise ValueError(
            "A layer made anew must have the variables of the old one. Received: "
            f"layer={old.name!r} of class {type(old).__name__} with {len(sources)} "
            f"variables, its copy with {len(targets)}"
        )
    for source, target in zip(sources, targets, strict=True):
        # A copy: two variables that share an array fail on JAX, which donates it.
        target.assign(ops.copy((values or {}).get(id(source), source.value)))
    renew_state(old, new)


def renew_state(old: Any, new: Any) -> None:
    """Gives a layer that has another's variables the rest of its state.

    Vocabularies are kept in tables. `keras.layers.Normalization` computes with copies
    of its variables, and would go on with its first statistics.
    """
    sources, targets = (
        [inner for inner in layer._flatten_layers() if hasattr(inner, "save_assets")]
        for layer in (old, new)
    )
    for source, target in zip(sources, targets, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)
    for inner in new._flatten_layers():
        if isinstance(inner, keras.layers.Normalization) and inner.built:
            inner.finalize_state()


def exchange_layers(
    model: Any, exchange: Callable[[Any], Any], path: str = ""
) -> dict[str, Any]:
    """Exchanges layers where the attributes of a subclassed model hold them.

    Attributes, and lists, tuples and dicts in them, are searched. Subclassed models
    inside are entered; everything else is offered to `exchange`.

    Args:
        model: a subclassed model; changed in place.
        exchange: gives the new layer, or the same one to leave it.
        path: prefix for the returned paths.

    Returns:
        The new layers by path: `{"encoder.dense": ..., "blocks.0": ...}`.
    """
    exchanged: dict[str, Any] = {}
    done: dict[int, Any] = {}
    for where, layer in list(_held_layers(model)):
        full = f"{path}{where}"
        if isinstance(layer, keras.Model) and not is_graph(layer):
            exchanged |= exchange_layers(layer, exchange, f"{full}.")
            continue
        if id(layer) not in done:
            done[id(layer)] = exchange(layer)
        new = done[id(layer)]
        if new is not layer:
            put_layer(model, where, new)
            exchanged[full] = new
    return exchanged


def look_up_layer(model: Any, path: str) -> Any:
    """The layer at a path such as `"blocks.0"` in a model's attributes."""
    attribute, *keys = path.split(".")
    return _look_up(getattr(model, attribute), keys)


def put_layer(model: Any, path: str, new: Any) -> None:
    """Puts a layer at a path such as `"blocks.0"` in a model's attributes."""
    attribute, *keys = path.split(".")
    holder = getattr(model, attribute)
    if isinstance(holder, keras.Model) and keys:
        put_layer(holder, ".".join(keys), new)
        return
    old = _look_up(holder, keys)
    tracker = model._tracker
    # The new layer takes the old one's place in the order of variables, on which
    # saving and copying rely; a built model would refuse to track it otherwise.
    if tracker.is_in_store("layers", old):
        tracker.replace_tracked_value("layers", old, new)
    tracker.unlock()
    try:
        setattr(model, attribute, _put(holder, keys, new))
    finally:
        tracker.lock()


def _held_layers(model: Any) -> Iterator[tuple[str, Any]]:
    children = {id(layer) for layer in child_layers(model)}
    # PyTorch's modules keep the layers among their attributes in a dict of its own.
    attributes = {**vars(model), **vars(model).get("_modules", {})}
    for attribute, value in attributes.items():
        if not attribute.startswith(_BOOKKEEPING):
            yield from _layers_in(value, attribute, children)


def _layers_in(value: Any, path: str, children: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, keras.layers.Layer):
        if id(value) in children:
            yield path, value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _layers_in(item, f"{path}.{index}", children)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _layers_in(item, f"{path}.{key}", children)


def _look_up(holder: Any, keys: list[str]) -> Any:
    if not keys:
        return holder
    key, *rest = keys
    if isinstance(holder, keras.Model):
        return look_up_layer(holder, ".".join(keys))
    return _look_up(holder[key if isinstance(holder, dict) else int(key)], rest)


def _put(holder: Any, keys: list[str], new: Any) -> Any:
    if not keys:
        return new
    key, *rest = keys
    if isinstance(holder, dict):
        holder[key] = _put(holder[key], rest, new)
        return holder
    items = list(holder)
    items[int(key)] = _put(items[int(key)], rest, new)
    return tuple(items) if isinstance(holder, tuple) else items
