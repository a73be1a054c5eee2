"""Copies the values of a layer's variables to its like."""

from __future__ import annotations

import tempfile
from typing import Any

import keras
from keras import ops, tree


def saved_variables(layer: Any) -> list[Any]:
    """The variables of a layer in their order, without what wrappers add to them.

    A wrapper says which those are in its `added_variables`.
    """
    added = {
        id(variable)
        for inner in layer._flatten_layers()
        for variable in getattr(inner, "added_variables", ())
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
    _copy_recurrent_states(old, new)
    for inner in new._flatten_layers():
        if isinstance(inner, keras.layers.Normalization) and inner.built:
            inner.finalize_state()


def _copy_recurrent_states(old: Any, new: Any) -> None:
    """Keras has the states of a stateful RNN not among a layer's variables."""
    for source, target in zip(_recurrent(old), _recurrent(new), strict=True):
        if source.stateful and source.states is not None and target.states is not None:
            sources, targets = map(tree.flatten, (source.states, target.states))
            for state, copy in zip(sources, targets, strict=True):
                copy.assign(ops.copy(state.value))


def _recurrent(layer: Any) -> list[Any]:
    """The recurrent layers in a layer, in the order of their variables."""
    place = {id(variable): i for i, variable in enumerate(layer.variables)}
    found = [
        inner
        for inner in layer._flatten_layers()
        if isinstance(inner, keras.layers.RNN) and inner.variables
    ]
    return sorted(found, key=lambda inner: place[id(inner.variables[0])])
