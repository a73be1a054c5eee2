"""Copies a Sequential or Functional model call by call, with some calls replaced.

The exact rewrites for devices are made of this: each walks the calls in order, gives
for each what stands in its place, and gets a new model with its own variables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from pdp_keras.models import is_graph, make_anew, renew_state

Config = dict[str, Any]
Arrays = list[np.ndarray]
Tensors = Mapping[int, Any]
# From the arrays of a layer's variables to those of its copy.
Convert = Callable[[Arrays], Arrays]


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation in a graph.

    Attributes:
        operation: the layer or operation.
        inputs: its symbolic inputs, in order; one used twice stands there twice.
        outputs: its symbolic outputs.
        arguments: its positional and its keyword arguments, symbolic.
    """

    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    arguments: tuple[Any, Any]

    def applied(self, operation: Any, tensors: Tensors) -> Any:
        """Calls an operation as this call does, on new tensors.

        Args:
            operation: to call in place of the original.
            tensors: the new tensors by the ids of the symbolic inputs.
        """

        def exchanged(x: Any) -> Any:
            return tensors[id(x)] if isinstance(x, keras.KerasTensor) else x

        args, kwargs = tree.map_structure(exchanged, self.arguments)
        return operation(*args, **kwargs)


# From a call and the new tensors by the ids of the old ones to its new outputs.
Emit = Callable[[Call, Tensors], Any]


class Graph:
    """The calls of a model, and who reads what.

    Args:
        model: a built Sequential or Functional model; not changed.

    Raises:
        ValueError: if it is neither, or not built.
    """

    def __init__(self, model: Any) -> None:
        if not is_graph(model) or not getattr(model, "inputs", None):
            raise ValueError(
                "The model must be a built Sequential or Functional model: there must "
                "be a graph to rewrite. Received: "
                f"{getattr(model, 'name', model)!r} of class {type(model).__name__}"
            )
        self.model = model
        self.calls = list(_calls(model))
        self._readers: dict[int, list[Call]] = {}
        self._producers: dict[int, Call] = {}
        for call in self.calls:
            for x in call.inputs:
                self._readers.setdefault(id(x), []).append(call)
            for x in call.outputs:
                self._producers[id(x)] = call
        self._outputs = {id(x) for x in model.outputs}
        counts: dict[int, int] = {}
        for call in self.calls:
            counts[id(call.operation)] = counts.get(id(call.operation), 0) + 1
        self._counts = counts

    def producer(self, tensor: Any) -> Call | None:
        """The call that makes a tensor; None for an input of the model."""
        return self._producers.get(id(tensor))

    def readers(self, tensor: Any) -> list[Call]:
        """The calls that read a tensor."""
        return self._readers.get(id(tensor), [])

    def only_reader(self, tensor: Any) -> Call | None:
        """The one call that reads a tensor, if nothing else sees it, not even a user.

        None as well if the reader or the producer is called more than once: what is
        changed in a shared layer would change elsewhere too.
        """
        readers, producer = self.readers(tensor), self.producer(tensor)
        if len(readers) != 1 or id(tensor) in self._outputs:
            return None
        calls = [readers[0], *([producer] if producer else [])]
        return readers[0] if all(map(self.is_called_once, calls)) else None

    def is_called_once(self, call: Call) -> bool:
        """Whether the graph has no other call of this layer or operation."""
        return self._counts[id(call.operation)] == 1

    def is_output(self, tensor: Any) -> bool:
        """Whether a tensor is an output of the model."""
        return id(tensor) in self._outputs


class Copies:
    """Fresh copies of a graph's layers and operations, each made once."""

    def __init__(self, graph: Graph) -> None:
        self._made: dict[tuple[int, str], Any] = {}
        self._pairs: list[tuple[Any, Any, Convert | None]] = []
        self._names = {call.operation.name for call in graph.calls}
        self._names |= {input_name(x) for x in graph.model.inputs}
        self._used: set[str] = set()

    def of(
        self,
        operation: Any,
        change: Callable[[Config], Config] | None = None,
        convert: Convert | None = None,
        *,
        cls: Any = None,
        variant: str = "",
    ) -> Any:
        """The copy of a layer or operation; made by the first call for a variant.

        Args:
            operation: the original.
            change: gives the copy's config for the original's.
            convert: gives the values of the copy's variables, in their order, for
                those of the original's.
            cls: another class to make it of, from the changed config.
            variant: of a layer that is called several times and is not always
                rewritten in the same way.
        """
        key = id(operation), variant
        if key not in self._made:
            config: Config = operation.get_config()
            if "name" in config and config["name"] in self._used:
                config["name"] = self.new_name(f"{config['name']}_{variant}")
            if "name" in config:
                self._used.add(config["name"])
            if change is not None:
                config = change(config)
            new = (
                make_anew(operation, lambda _: config)
                if cls is None
                else cls.from_config(config)
            )
            self._made[key] = new
            if isinstance(operation, keras.layers.Layer):
                self._pairs.append((operation, new, convert))
        return self._made[key]

    def new_name(self, name: str) -> str:
        """The name, or one like it that no layer of the copy has."""
        number = 1
        unique = name
        while unique in self._names:
            number += 1
            unique = f"{name}_{number}"
        self._names.add(unique)
        return unique

    def copy_values(self) -> None:
        """Gives every copy that was built the values of its original."""
        for old, new, convert in self._pairs:
            values = [ops.convert_to_numpy(v) for v in old.variables]
            if convert is not None:
                values = convert(values)
            shapes = [tuple(v.shape) for v in new.variables]
            if [v.shape for v in values] != shapes:
                raise ValueError(
                    "A layer made anew must have the variables of the old one. "
                    f"Received: layer={old.name!r} of class {type(old).__name__} with "
                    f"shapes {[v.shape for v in values]}, its copy with {shapes}"
                )
            for value, variable in zip(values, new.variables, strict=True):
                variable.assign(value)
            renew_state(old, new)


def rebuilt(
    graph: Graph,
    emit: Emit,
    copies: Copies,
    prepare: Callable[[Any, Any], Any] | None = None,
    finish: Callable[[Any, Any], Any] | None = None,
    shapes: Sequence[tuple[int | None, ...]] | None = None,
) -> Any:
    """A new model of the calls that `emit` makes.

    Args:
        graph: the old model's.
        emit: makes the new calls.
        copies: that `emit` uses; their values are copied at the end.
        prepare: gives what is read in place of an input for the old symbolic input
            and the new one.
        finish: gives the new output for the old symbolic output and what came of it.
        shapes: of the new inputs, batch axis first; by default the old ones.

    Returns:
        A Functional model with the same names of inputs, outputs in the same
        structure.
    """
    old = graph.model
    inputs = [
        keras.Input(batch_shape=shape, dtype=x.dtype, name=input_name(x))
        for x, shape in zip(
            old.inputs, shapes or [x.shape for x in old.inputs], strict=True
        )
    ]
    tensors = {
        id(x): prepare(x, new) if prepare else new
        for x, new in zip(old.inputs, inputs, strict=True)
    }
    for call in graph.calls:
        for x, new in zip(call.outputs, tree.flatten(emit(call, tensors)), strict=True):
            tensors[id(x)] = new
    outputs = [
        finish(x, tensors[id(x)]) if finish else tensors[id(x)] for x in old.outputs
    ]
    model = keras.Model(
        packed(old, "_inputs_struct", inputs),
        packed(old, "_outputs_struct", outputs),
        name=old.name,
    )
    copies.copy_values()
    return model


def resized(model: Any, shapes: Sequence[tuple[int | None, ...]]) -> Any:
    """A copy for inputs of other sizes.

    Args:
        model: a built Sequential or Functional model; not changed.
        shapes: of its inputs, flat and in their order, batch axis first.

    Raises:
        ValueError: if the model has no graph, or its layers do not take these shapes.
    """
    graph = Graph(model)
    copies = Copies(graph)

    def emit(call: Call, tensors: Tensors) -> Any:
        return call.applied(copies.of(call.operation), tensors)

    return rebuilt(graph, emit, copies, shapes=shapes)


def flattened(model: Any) -> Any:
    """A copy without nested models: their layers stand in the graph itself.

    Layers keep their names where that leaves them unique; otherwise the name of the
    nested model comes before.
    """
    graph = Graph(model)
    copies = Copies(graph)
    taken = {call.operation.name for call in graph.calls}

    def emit(call: Call, tensors: Tensors) -> Any:
        inner, given = _nested(call, tensors)
        if inner is None:
            return call.applied(copies.of(call.operation), tensors)
        return _inlined(inner, given, call.operation.name)

    def _inlined(graph: Graph, given: Sequence[Any], prefix: str) -> Any:
        tensors = {id(x): new for x, new in zip(graph.model.inputs, given, strict=True)}
        for call in graph.calls:
            inner, own = _nested(call, tensors)
            if inner is None:
                renamed = _renaming(call.operation, prefix, taken)
                outputs = call.applied(copies.of(call.operation, renamed), tensors)
            else:
                outputs = _inlined(inner, own, f"{prefix}_{call.operation.name}")
            for x, new in zip(call.outputs, tree.flatten(outputs), strict=True):
                tensors[id(x)] = new
        return [tensors[id(x)] for x in graph.model.outputs]

    return rebuilt(graph, emit, copies)


def is_of_keras(activation: Any) -> bool:
    """Whether an activation is one of Keras's own.

    Those treat every position alike; any other function might look at where it is.
    """
    name = getattr(activation, "__name__", "")
    return getattr(keras.activations, name, None) is activation


def _renaming(
    operation: Any, prefix: str, taken: set[str]
) -> Callable[[Config], Config]:
    """Changes a config to a name that no layer of the flat model has yet."""

    def change(config: Config) -> Config:
        name = operation.name
        while name in taken:
            name = f"{prefix}_{name}"
        taken.add(name)
        return {**config, "name": name} if "name" in config else config

    return change


def _nested(call: Call, tensors: Tensors) -> tuple[Graph | None, list[Any]]:
    """The graph of a called model and its inputs in order; None if it is a layer."""
    model = call.operation
    if not is_graph(model):
        return None, []
    given = call.applied(lambda *args, **kwargs: args[0] if args else kwargs, tensors)
    symbolic = model.inputs
    by_name = isinstance(given, dict) and {x.name for x in symbolic} == set(given)
    flat = [given[x.name] for x in symbolic] if by_name else tree.flatten(given)
    fits = len(flat) == len(symbolic) and all(
        len(x.shape) == len(own.shape) for x, own in zip(flat, symbolic, strict=True)
    )
    return (Graph(model), flat) if fits else (None, [])


def _calls(model: Any) -> Iterator[Call]:
    function = model._functional if isinstance(model, keras.Sequential) else model
    known = {id(x) for x in function.inputs}
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if node.is_input or any(id(x) not in known for x in node.input_tensors):
                continue
            known.update(id(x) for x in node.outputs)
            yield Call(
                node.operation,
                tuple(node.input_tensors),
                tuple(node.outputs),
                (node.arguments.args, node.arguments.kwargs),
            )


def input_name(tensor: Any) -> str:
    """The name of a model's input."""
    return str(tensor._keras_history.operation.name)


def packed(model: Any, attribute: str, flat: list[Any]) -> Any:
    """Tensors in the structure of a model's inputs or outputs."""
    structure = getattr(model, attribute, None)
    if structure is None:  # Sequential
        return flat[0]
    return tree.pack_sequence_as(structure, flat)
