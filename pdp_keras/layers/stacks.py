"""Masks of equal small kernels, made all at once in the first layer that needs one.

A network of many small layers would spend its time on starting the same few operations
for each of them, and before that on tracing and compiling them. Kernels of one shape
that are masked alike become the rows of one tensor instead.

That may be done only for layers that the call in progress runs for certain, and while
no weight can change: those in the graph of the functional or sequential model that was
called, for the length of this call. All others are masked one by one.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from keras import ops
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import get_stateless_scope

from pdp_keras.masks import MANY, stacked, unstacked
from pdp_keras.models import current_graph, is_graph

Tensor = Any
# From equal weights, their rows `(kernels, n)` in float32 and the number of zeros of
# each, `(kernels,)`, to the masked rows.
Masking = Callable[[Sequence[Any], Tensor, Tensor], Tensor]

_GRAPH_MODULES = ("keras.src.models.functional", "keras.src.models.sequential")

# For each call in progress: its groups, and the masked kernels that were made.
_calls: Any = weakref.WeakKeyDictionary()
# What is masked together outside of calls.
_given: contextvars.ContextVar[Any] = contextvars.ContextVar("given", default=None)
# The model that a pruned weight is trained in.
_homes: Any = weakref.WeakKeyDictionary()


def outermost_call() -> Any:
    """The call of a model or layer in which all others run now; None outside."""
    # Keras has no public name for it.
    return global_state.get_global_attribute("current_call_ctx")


def masked_with_others(weight: Any, kind: str, masking: Masking) -> Tensor | None:
    """What a kernel is computed with, made together with those of other layers.

    Args:
        weight: a `PrunedWeight`.
        kind: names what `masking` does.
        masking: how rows are masked; must differentiate.

    Returns:
        A float32 tensor of the kernel's shape; None if it must be masked by itself.
    """
    call = _call_with(weight)
    return None if call is None else call.masked(weight, kind, masking)


def is_masked_with_others(weight: Any) -> bool:
    """Whether `masked_with_others` makes something of it now."""
    return _call_with(weight) is not None


def set_home(weights: Iterable[Any], model: Any) -> None:
    """Notes in which model some weights are trained.

    Keras' JAX trainer runs the `call` of a model, which is no call that Keras knows of.
    """
    for weight in weights:
        _homes[weight] = weakref.ref(model)


@contextlib.contextmanager
def masked_at_once(weights: Iterable[Any]) -> Iterator[None]:
    """Within it these weights are masked together, in no call and not to be trained."""
    token = _given.set(_Call(weights))
    try:
        yield
    finally:
        _given.reset(token)


def _call_with(weight: Any) -> _Call | None:
    given = _given.get()
    if given is not None:
        return given if id(weight) in given.groups else None
    call = outermost_call()
    if call is None or not _is_for_stack(weight):
        return None
    entry, scope = call.entry_layer, get_stateless_scope()
    if scope is not None and not is_graph(entry) and weight in _homes:
        # All variables of the model have their values in the scope around its `call`.
        entry, call = _homes[weight](), scope
    if call not in _calls:
        _calls[call] = _Call(_certain_weights(entry))
    found: _Call = _calls[call]
    return found if id(weight) in found.groups else None


class _Call:
    """One call of a model: which kernels are masked together in it."""

    def __init__(self, weights: Iterable[Any]) -> None:
        groups: dict[Any, list[Any]] = {}
        # A layer may stand in several models of the graph.
        for weight in {id(w): w for w in weights}.values():
            if _is_for_stack(weight):
                groups.setdefault(_likeness(weight), []).append(weight)
        self.groups = {
            id(weight): group
            for group in groups.values()
            if len(group) > 1
            for weight in group
        }
        self.made: dict[Any, dict[int, Tensor]] = {}

    def masked(self, weight: Any, kind: str, masking: Masking) -> Tensor:
        group = self.groups[id(weight)]
        key = kind, id(group), _place()
        if key not in self.made:
            self.made[key] = self._make(group, masking)
        return self.made[key][id(weight)]

    def _make(self, group: list[Any], masking: Masking) -> dict[int, Tensor]:
        rows = masking(group, *_rows_and_zeros(group))
        rows = ops.reshape(rows, (len(group), *group[0].variable.shape))
        kernels = unstacked(rows)
        return {id(w): kernel for w, kernel in zip(group, kernels, strict=True)}


def _is_for_stack(weight: Any) -> bool:
    return bool(weight.mode.has_rows) and 0 < _size(weight) < MANY


def _size(weight: Any) -> int:
    return math.prod(weight.variable.shape)


def _likeness(weight: Any) -> Any:
    """The same for all that can be rows of one tensor."""
    variable = weight.variable
    return weight.settings, tuple(variable.shape), str(variable.dtype)


def _rows_and_zeros(group: list[Any]) -> tuple[Tensor, Tensor]:
    kernels = stacked([w.variable.value for w in group])
    rows = ops.reshape(ops.cast(kernels, "float32"), (len(group), -1))
    return rows, ops.cast(ops.stack([w.zeros.value for w in group]), "int32")


def _place() -> Any:
    """Where tensors can be used: a graph of TensorFlow, and a type to cast to."""
    scope = global_state.get_global_attribute("autocast_scope")
    dtype = None if scope is None else scope.dtype
    return dtype, current_graph()


def _certain_weights(layer: Any) -> Iterator[Any]:
    """The pruned kernels of all layers that a call of this one runs for certain."""
    # What is computed again in the backward pass is no part of this call alone.
    if getattr(layer, "_remat_mode", None) is not None:
        return
    pruned = getattr(layer, "pruned_weights", None)
    if pruned is not None:
        yield from pruned
    elif _runs_all_layers(layer):
        for inner in layer.layers:
            yield from _certain_weights(inner)


def _runs_all_layers(layer: Any) -> bool:
    # Keras' own `call` of a model that is a graph, and no subclass' that may do less.
    return is_graph(layer) and type(layer).call.__module__ in _GRAPH_MODULES
