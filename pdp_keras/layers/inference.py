"""Masks that are made once for each `predict` and `evaluate`, not for each batch.

The weights of a model do not change while it predicts, so neither do its masks. They
are made before the first batch (a callback may exchange the weights before that, as
Keras' `SwapEMAWeights` does) and used until the last one. A `predict_step` or
`test_step` of a user's own may train, and a callback of his own may change weights
between batches: there each batch makes its masks, as every other call does.
"""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import functools
import inspect
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras

from pdp_keras.layers.held import Held, hard_values, holding
from pdp_keras.layers.stacks import outermost_call

Tensor = Any


@dataclasses.dataclass(frozen=True)
class _Way:
    """A way to run a model, and what Keras calls its parts."""

    method: str
    step: str
    function: str
    make: str
    # Of callbacks, between batches.
    hooks: tuple[str, ...]


_WAYS = (
    _Way(
        "predict",
        "predict_step",
        "predict_function",
        "make_predict_function",
        ("on_predict_batch_begin", "on_predict_batch_end"),
    ),
    _Way(
        "evaluate",
        "test_step",
        "test_function",
        "make_test_function",
        ("on_test_batch_begin", "on_test_batch_end"),
    ),
)


@dataclasses.dataclass
class _Run:
    """One `predict` or `evaluate`, in one thread."""

    model: Any
    way: _Way
    # What the backend keeps from batch to batch.
    kept: Any = None
    # Whether a step that is traced now belongs to the function with held values.
    holds: bool = False


_current: contextvars.ContextVar[_Run | None] = contextvars.ContextVar(
    "current", default=None
)


def mask_once(model: Any) -> None:
    """Has `model.predict` and `model.evaluate` make the masks once in each run.

    Args:
        model: a `keras.Model` with wrappers.
    """
    if keras.backend.backend() not in _BACKENDS:
        return
    masks = _BACKENDS[keras.backend.backend()](model)
    for way in _WAYS:
        is_known = way.method in vars(model)
        if not is_known and all(_is_of_keras(model, n) for n in (way.step, way.make)):
            # Past Keras' own __setattr__, which tracks what is set.
            vars(model)[way.method] = _method(model, way, masks)


def mask_each_batch(model: Any) -> None:
    """The inverse of `mask_once`, where the model is no longer pruned."""
    for way in _WAYS:
        vars(model).pop(way.method, None)
        vars(model).pop(way.step, None)


def mask_once_from_now_on() -> None:
    """Does `mask_once` for the model that is called, which may have been loaded."""
    call = outermost_call()
    model = None if call is None else call.entry_layer
    if isinstance(model, keras.Model) and _WAYS[0].method not in vars(model):
        mask_once(model)


def _is_of_keras(owner: Any, name: str) -> bool:
    module = getattr(getattr(owner, name, None), "__module__", None) or ""
    return module.split(".")[0] == "keras"


def _method(model: Any, way: _Way, masks: _Masks) -> Callable[..., Any]:
    run = getattr(type(model), way.method).__get__(model)

    @functools.wraps(run)
    def method(*args: Any, **kwargs: Any) -> Any:
        if not masks.fit(model) or not _is_quiet(way, run, args, kwargs):
            return run(*args, **kwargs)
        _install(model, way, masks)
        token = _current.set(_Run(model, way))
        try:
            return run(*args, **kwargs)
        finally:
            _current.reset(token)

    return method


def _step(model: Any, way: _Way, masks: _Masks) -> Callable[..., Any]:
    step = getattr(type(model), way.step).__get__(model)

    @functools.wraps(step)
    def with_held(*args: Any, **kwargs: Any) -> Any:
        run = _run_of(model, way)
        if run is None or not run.holds:
            return step(*args, **kwargs)
        return masks.run_step(step, run, *args)

    return with_held


def _run_of(model: Any, way: _Way) -> _Run | None:
    run = _current.get()
    is_it = run is not None and run.model is model and run.way is way
    return run if is_it else None


def _is_quiet(way: _Way, run: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    """Whether nothing of a user's runs between batches."""
    try:
        given = inspect.signature(run).bind(*args, **kwargs).arguments
    except TypeError:  # Keras says what is wrong with them.
        return False
    callbacks = given.get("callbacks") or []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    elif not isinstance(callbacks, list | tuple):
        callbacks = [callbacks]
    return all(_is_of_keras(c, hook) for c in callbacks for hook in way.hooks)


class _Function:
    """Keras' function for a batch, in two versions: one computes with held values.

    That one runs in a `predict` or `evaluate` alone. The two are never exchanged, so
    that threads do not meet.
    """

    def __init__(self, model: Any, way: _Way, masks: _Masks) -> None:
        self.made_for = _made_for(model, masks)
        self.model = model
        self.way = way
        self.masks = masks
        self.plain = getattr(model, way.function) or self._make()
        self.held = self._make()

    def _make(self) -> Any:
        # Another one each time: JAX knows a trace by its function.
        vars(self.model)[self.way.step] = _step(self.model, self.way, self.masks)
        getattr(type(self.model), self.way.make)(self.model, force=True)
        return getattr(self.model, self.way.function)

    def __call__(self, *args: Any) -> Any:
        run = _run_of(self.model, self.way)
        if run is None:
            return self.plain(*args)
        run.holds = True
        try:
            return self.masks.run(self.held, run, *args)
        finally:
            run.holds = False


def _made_for(model: Any, masks: _Masks) -> tuple[Any, ...]:
    settings = ("run_eagerly", "jit_compile", "steps_per_execution")
    return masks.wrappers, *(getattr(model, name) for name in settings)


def _install(model: Any, way: _Way, masks: _Masks) -> None:
    known = getattr(model, way.function)
    if isinstance(known, _Function):
        if known.made_for == _made_for(model, masks):
            return
        setattr(model, way.function, None)
    setattr(model, way.function, _Function(model, way, masks))


class _Masks:
    """All that the wrappers of a model compute with at inference.

    A backend says how it makes them (`run`) and hands them to a step (`run_step`).
    """

    def __init__(self, model: Any) -> None:
        # The model holds this object.
        self.model = weakref.ref(model)
        self.wrappers: list[Any] = []
        # By owner the variables whose values are held; None of a mask. Once made.
        self.variables: dict[int, list[Any] | None] = {}

    def fit(self, model: Any) -> bool:
        """Whether they can be held for this model now; finds its wrappers."""
        if keras.distribution.distribution() is not None:
            return False
        layers = {id(layer): layer for layer in model._flatten_layers()}
        masked = [x for x in layers.values() if hasattr(type(x), "masked_values")]
        wrappers = [x for x in masked if x.has_state]
        if wrappers != self.wrappers:
            self.wrappers = wrappers
            self.forget()
        return bool(wrappers)

    def forget(self) -> None:
        """Drops what was made for other wrappers."""

    def run(self, function: Any, run: _Run, *args: Any) -> Any:
        """Runs Keras' function of the backend, with values that are made if need be."""
        raise NotImplementedError

    def run_step(self, step: Any, run: _Run, *args: Any) -> Any:
        """Runs Keras' step of the backend with the held values."""
        raise NotImplementedError

    def make(self) -> list[Tensor]:
        """All that is held, as tensors only."""
        self.variables, tensors = {}, []
        for key, value in hard_values(self.wrappers).items():
            is_mask = not isinstance(value, list)
            self.variables[key] = None if is_mask else [v for v, _ in value]
            tensors += [value] if is_mask else [x for _, x in value]
        return tensors

    def held(self, made: Sequence[Any]) -> Held:
        """What `make` has made, by its owners."""
        tensors = iter(made)
        return {
            key: next(tensors)
            if variables is None
            else [(variable, next(tensors)) for variable in variables]
            for key, variables in self.variables.items()
        }


class _TensorFlowMasks(_Masks):
    """Held in variables, which the graph of a step reads."""

    function: Any = None
    places: Any = None

    def fit(self, model: Any) -> bool:
        is_plain = not model.run_eagerly and model._distribute_strategy is None
        return is_plain and super().fit(model)

    def forget(self) -> None:
        self.function = self.places = None

    def run(self, function: Any, run: _Run, *args: Any) -> Any:
        if run.kept is None:
            self._refresh()
            run.kept = True
        return function(*args)

    def _refresh(self) -> None:
        import tensorflow as tf

        if self.function is None:
            self.function = tf.function(self.make, autograph=False)
        values = self.function()
        if self.places is None:
            self.places = [tf.Variable(value, trainable=False) for value in values]
        else:
            for place, value in zip(self.places, values, strict=True):
                place.assign(value)

    def run_step(self, step: Any, run: _Run, *args: Any) -> Any:
        values = [place.read_value() for place in self.places]
        with holding(self.held(values)):
            return step(*args)


class _TorchMasks(_Masks):
    """Held as tensors."""

    def fit(self, model: Any) -> bool:
        return not model.jit_compile and super().fit(model)

    def run(self, function: Any, run: _Run, *args: Any) -> Any:
        if run.kept is None:
            import torch

            with torch.no_grad():
                run.kept = hard_values(self.wrappers)
        with holding(run.kept):
            return function(*args)

    def run_step(self, step: Any, run: _Run, *args: Any) -> Any:
        return step(*args)


class _JaxMasks(_Masks):
    """Carried beside the trainable variables in the state that Keras passes on."""

    function: Any = None

    def fit(self, model: Any) -> bool:
        return not keras.config.is_nnx_enabled() and super().fit(model)

    def forget(self) -> None:
        self.function = None

    def run(self, function: Any, run: _Run, state: Any, iterator: Any) -> Any:
        trainable, *others = [_as_list(part) for part in state]
        # A callback may have had Keras read the variables anew.
        is_known = run.kept is not None and run.kept[0] is trainable
        values = run.kept[1] if is_known else self._make_from(trainable, others[0])
        outputs, state = function(((trainable, values), *others), iterator)
        (trainable, values), *others = state
        # Keras keeps the state as an attribute of the model: of lists it would track
        # every value in every batch.
        carried = [collections.UserList(part) for part in (trainable, *others)]
        run.kept = carried[0].data, values
        return outputs, tuple(carried)

    def _make_from(self, trainable: Any, others: Any) -> Any:
        import jax

        if self.function is None:
            self.function = jax.jit(self._make_stateless)
        return self.function(trainable, others)

    def _make_stateless(self, trainable: Any, others: Any) -> list[Tensor]:
        model: Any = self.model()
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        values = zip(variables, [*trainable, *others], strict=True)
        with keras.StatelessScope(state_mapping=list(values)):
            return self.make()

    def run_step(self, step: Any, run: _Run, state: Any, data: Any) -> Any:
        (trainable, values), *others = state
        with holding(self.held(values)):
            outputs, new = step((trainable, *others), data)
        if run.way.method == "predict":  # its variables alone
            return outputs, new
        return outputs, ((new[0], values), *new[1:])


def _as_list(values: Any) -> Any:
    return values.data if isinstance(values, collections.UserList) else values


_BACKENDS = {
    "tensorflow": _TensorFlowMasks,
    "torch": _TorchMasks,
    "jax": _JaxMasks,
}
