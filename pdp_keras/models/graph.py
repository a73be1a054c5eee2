"""Rebuilds a Sequential or Functional model with some of its layers replaced.

Nested ones too. The given model stays as it is, and the new one has its own variables.
A subclassed model has no graph: it is made anew from its config (`anew`), and layers
are exchanged where its attributes hold them (`places`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import tree

from pdp_keras.models.anew import remake, remake_subclassed
from pdp_keras.models.frozen import copy_trainable
from pdp_keras.models.kinds import is_graph
from pdp_keras.models.own_class import (
    NotOfClassError,
    are_alike,
    changed_arguments,
    exchange_inside,
    has_own_constructor,
    inner_first,
    layer_pairs,
    plain_class,
    remake_by_class,
    reseat,
    takes,
)
from pdp_keras.models.variables import saved_variables

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


def rebuild_graph(
    model: Any,
    replace: Replace,
    copy_state: CopyState,
    make: Make | None = None,
    *,
    by_class: bool = True,
    unwrap: Callable[[Any], Any] = lambda layer: layer,
    on_lost_class: Callable[[str], None] = lambda reason: None,
) -> Any:
    """A new Sequential or Functional model with layers replaced.

    Args:
        model: a built Sequential or Functional model; not changed.
        replace: gives the new layer for each layer that is not a graph itself.
        copy_state: copies the values of variables from the old to the new layer.
        make: makes the fresh copy of a layer, an input or an operation, in place of
            `make_anew`.
        by_class: whether a Functional model whose class has a constructor of its own
            is made by it, where that is possible, and not as a plain one. Its layers
            are then made by the constructor, too, and not by `make`. If not, its
            layers are made by `make`, and then the model by the constructor if it has
            arguments that make the like of them.
        unwrap: gives what takes the place of a layer in the config of such a model.
        on_lost_class: called with the reason if, not `by_class`, the model becomes a
            plain one.

    Raises:
        ValueError: if a layer cannot be made anew from its config, if two layers
            share a variable, or if the model's class cannot be made from a graph
            although it has a training loop of its own.
    """
    rebuilding = _Rebuilding(replace, make or make_anew, by_class, unwrap)
    new_model = rebuilding.rebuild(model)
    rebuilding.check_nothing_shared()
    for old, new in rebuilding.pairs:
        copy_state(old, new)
        copy_trainable(old, new)
    if id(model) in rebuilding.lost:
        on_lost_class(rebuilding.lost[id(model)])
    return new_model


def make_anew(
    operation: Any,
    change: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    unwrap: Callable[[Any], Any] = lambda layer: layer,
) -> Any:
    """An unbuilt copy of a layer or operation: `anew.remake`."""
    return remake(operation, copy_unbuilt, change, unwrap)


def make_subclassed_anew(
    model: Any,
    values: dict[int, Any] | None = None,
    unwrap: Callable[[Any], Any] = lambda layer: layer,
    cls: type | None = None,
    copy_graph: Callable[[Any], Any] | None = None,
) -> Any:
    """A built copy of a subclassed model: `anew.remake_subclassed`."""
    copies = copy_graph or copy_unbuilt
    return remake_subclassed(model, copies, values, unwrap, cls)


def copy_unbuilt(model: Any) -> Any:
    """A copy of a Sequential or Functional model, but for the values of variables."""
    return _Rebuilding(lambda old, new: new, make_anew).rebuild(model)


class _Rebuilding:
    """One pass over a graph; a layer used twice is made once."""

    def __init__(
        self,
        replace: Replace,
        make: Make,
        by_class: bool = True,
        unwrap: Callable[[Any], Any] = lambda layer: layer,
    ) -> None:
        self.replace = replace
        self.make = make
        self.by_class = by_class
        self.unwrap = unwrap
        self.pairs: list[tuple[Any, Any]] = []
        self._made: dict[int, Any] = {}
        # Why the model of an id is not of its class any more.
        self.lost: dict[int, str] = {}

    def rebuild(self, operation: Any) -> Any:
        if id(operation) not in self._made:
            self._made[id(operation)] = self._make(operation)
        return self._made[id(operation)]

    def check_nothing_shared(self) -> None:
        owners: dict[int, tuple[Any, Any]] = {}
        for old, new in self.pairs:
            pairs = zip(saved_variables(old), saved_variables(new), strict=False)
            for variable, copy in pairs:
                owner, first = owners.setdefault(id(variable), (old, copy))
                if first is not copy:  # a constructor may tie them again
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
        cls = type(model) if takes(type(model), "layers") else keras.Sequential
        new = cls(layers, name=model.name)
        return _finish(model, new)

    def _make_by_class(self, model: Any) -> Any:
        """None where the constructor does not make the like of the model."""
        new = remake_by_class(model, self.rebuild, self.unwrap)
        # A model inside that no config has would be saved without its wrappers.
        if new is None or any(
            is_graph(old) and old.weights and self._made.get(id(old)) is not fresh
            for old, fresh in layer_pairs(model, new)
        ):
            return None
        self._adopt(model, new)
        return new

    def _adopt(self, model: Any, new: Any) -> None:
        """Replaces layers of a model that a constructor has made."""
        exchanged: dict[int, Any] = {}
        for old, fresh in inner_first(layer_pairs(model, new)):
            if id(old) in self._made:  # in a model inside, too
                continue
            fresh.name = old.name  # Keras counts on in names that it makes up
            layer = fresh
            if not (is_graph(old) or isinstance(old, keras.layers.InputLayer)):
                exchange_inside(fresh, exchanged)
                copy_trainable(old, fresh)  # as a wrapper asks for it
                layer = self.replace(old, fresh)
                self.pairs.append((old, layer))
            self._made[id(old)] = layer
            if layer is not fresh:
                exchanged[id(fresh)] = layer
        if exchanged:
            reseat(new, exchanged)

    def _cast(self, model: Any) -> Any:
        """A model by its constructor in place of layers that are made already.

        Raises:
            NotOfClassError: if no arguments make the like of these layers.
        """
        for x in model._operations:
            made = self._made[id(x)]
            if not isinstance(made, keras.Operation):
                raise NotOfClassError(f"{x.name!r} is called with other arguments")
            if is_graph(x) and type(made) is not plain_class(x):
                raise NotOfClassError(self.lost.get(id(x), f"{x.name!r} is another"))
        arguments = changed_arguments(model, self._made)
        new = remake_by_class(model, self.rebuild, arguments=arguments)
        if new is None:
            raise NotOfClassError(f"its constructor does not take {arguments}")
        pairs = list(layer_pairs(model, new))
        for old, fresh in pairs:
            made = self.rebuild(old)
            if fresh is not made and (is_graph(old) or not are_alike(made, fresh)):
                raise NotOfClassError(
                    f"it has no argument that would make {old.name!r} as it is now; "
                    "without `filters`, such layers are left as they are"
                )
        for old, fresh in pairs:
            fresh.name = old.name
            self._made[id(old)] = fresh
        self.pairs = [(old, self._made[id(old)]) for old, _ in self.pairs]
        return new

    def _make_functional(self, model: Any) -> Any:
        if self.by_class and has_own_constructor(model):
            new = self._make_by_class(model)
            if new is not None:
                return _finish(model, new)
        inputs = tree.map_structure(
            lambda tensor: self.rebuild(tensor._keras_history.operation).output,
            model.input,
        )
        outputs = model._run_through_graph(inputs, operation_fn=self.rebuild)
        if not has_own_constructor(model):
            cls = plain_class(model)
            return _finish(model, cls(inputs, outputs, name=model.name))
        if not self.by_class:
            try:
                return _finish(model, self._cast(model))
            except NotOfClassError as error:
                self.lost[id(model)] = str(error)
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


def _overrides(model: Any, method: str) -> bool:
    return getattr(type(model), method) is not getattr(keras.Model, method)
