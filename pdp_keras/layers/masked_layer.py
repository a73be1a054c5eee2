"""`MaskedLayer`: a Keras layer that computes with other values of its variables."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops, tree
from keras.src.backend.common.variables import AutocastScope

from pdp_keras.configs import require_keys, shown
from pdp_keras.layers.held import held_value
from pdp_keras.layers.inference import mask_once_from_now_on
from pdp_keras.layers.stacks import outermost_call
from pdp_keras.models import compiled_functions, untraced

Tensor = Any

# Methods of Keras layers that put another kernel in place of theirs.
_REPLACES_KERNEL = {
    "quantize": "prune, `pdp_keras.strip_pruning(model)`, then quantize",
    "enable_lora": "enable LoRA before pruning, or after `pdp_keras.strip_pruning`",
}
_OF_CELLS = ("state_size", "output_size", "get_initial_state")


class MaskedLayer(keras.layers.Wrapper):
    """Runs a layer with masked values in place of some of its variables.

    The wrapped layer itself is not changed: the masked values take the place of its
    variables for the length of a call only. Subclasses say what is masked
    (`masked_values`) and create their state (`build_state`). The wrapper has the
    name of its layer.

    Args:
        layer: the layer to wrap, built or not.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if it is no layer, or wrapped already.
    """

    # Paths show a wrapper and its layer, which have one name, as one.
    name_is_of_layer = True
    # Whether a callback drives the sparsity.
    is_scheduled = False
    # The run of the schedule that was started last.
    driver: Any = None
    # What it masks: kernels by themselves, and channels together with other layers.
    pruned_weights: Sequence[Any] = ()
    groups: Sequence[Any] = ()
    built: bool

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        kind = type(self).__name__
        if isinstance(layer, MaskedLayer):
            raise ValueError(
                f"A layer can be wrapped by {kind} only once. Received: layer={layer!r}"
            )
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                f"layer must be a keras.layers.Layer. Received: layer={shown(layer)}"
            )
        kwargs.setdefault("name", layer.name)
        kwargs.setdefault("dtype", layer.dtype_policy)
        kwargs.setdefault("trainable", layer.trainable)
        # The inner layer casts its inputs itself, by its own policy.
        super().__init__(layer, autocast=False, **kwargs)
        # Computed again in the backward pass is the wrapper, mask and all.
        self._remat_mode = _remat_mode(self) or _remat_mode(layer)
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self._call_signature = _signature_of_call(layer)
        self.supports_masking = layer.supports_masking
        self.supports_jit = layer.supports_jit
        self.has_state = False

    def build_state(self) -> None:
        """Creates the state of the masks; the layer is built."""
        raise NotImplementedError

    def masked_values(self, training: bool) -> list[tuple[Any, Tensor]]:
        """Variables of the layer with what it computes with in their place."""
        raise NotImplementedError

    def runner(self, training: bool) -> Callable[..., Any]:
        """What computes the outputs once the variables are exchanged."""
        del training
        return self.layer

    def __getattr__(self, name: str) -> Any:
        """Reads settings of the layer (`units`, `state_size`) through the wrapper.

        Weights are not read through: they are not what the layer computes with.
        """
        # PyTorch's modules find their own parts in this way.
        inherited = getattr(super(), "__getattr__", None)
        if name == "layer" or name.startswith("_"):
            if inherited is not None:
                return inherited(name)
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = getattr(self.layer, name)
        if isinstance(value, keras.Variable):
            raise AttributeError(
                f"The masked value of {name!r} exists in a call only; "
                f"`wrapper.layer.{name}` is the weight without its mask."
            )
        return value

    def __dir__(self) -> list[str]:
        """Names what `keras.layers.RNN` looks for in a cell, if the layer is one."""
        return [*super().__dir__(), *(n for n in _OF_CELLS if hasattr(self.layer, n))]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer; the first call builds it by its own rules."""
        _note_call(self)
        if not self.has_state:
            if not all(layer.built for layer in self.layer._flatten_layers()):
                # Keras knows how to build any layer from a symbolic call.
                self.layer(*_symbolic(args), **_symbolic(kwargs))
            self.build()
        held = held_value(self) if keras.backend.backend() == "torch" else None
        if held is None or _may_train(kwargs.get("training")):
            return super().__call__(*args, **kwargs)
        # PyTorch traces nothing: what Keras does around a call of the wrapper it does
        # once more for the layer, and small layers would take half as long again.
        kwargs.pop("training", None)
        self.require_kernels()
        return self._call_with(held, self.runner(training=False), args, kwargs)

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer, if a shape is given, and creates the state."""
        if input_shape is not None:
            super().build(input_shape)
        if not self.has_state:
            self.build_state()
            self._guard_kernels()
            self._has_compiled = bool(compiled_functions(self.layer))
            self._computed_again = [
                x for x in self.layer._flatten_layers() if _remat_mode(x) is not None
            ]
            # Not `built`, which Keras sets by itself when it loads a layer.
            self.has_state = True
        self.built = True

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The inverse of `get_config`, after Keras has serialized it.

        Raises:
            ValueError: if it is none of this class.
        """
        require_keys(f"a {cls.__name__}", config, ("layer",))
        _require_unwrapped(cls, config["layer"], custom_objects)
        # Keras takes the layer out of the dict.
        return super().from_config(dict(config), custom_objects)

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Rebuilds after loading: the layer from its own build config.

        A layer without a `build` of its own is built by its first call, and so is
        the wrapper then.

        Raises:
            ValueError: if it is no dict.
        """
        require_keys(f"the build of {self.name!r}", config)
        if config.get("layer"):
            require_keys(f"the build of {self.name!r}", config["layer"])
        builds_itself = not getattr(type(self.layer).build, "_is_default", False)
        if config.get("layer") and builds_itself and not self.layer.built:
            self.layer.build_from_config(config["layer"])
        if all(layer.built for layer in self.layer._flatten_layers()):
            self.build()

    def get_build_config(self) -> dict[str, Any]:
        """The inner layer's build config."""
        return {"layer": self.layer.get_build_config()}

    def call(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Runs the layer with masked weights: soft in training, hard otherwise."""
        training = bool(training)
        if training and not self.is_scheduled:
            self._warn_unscheduled()
        self.require_kernels()
        masked = None if training else held_value(self)
        # In half precision Keras would cast the weights before they are compared, and
        # many more would be equal than when the model is stripped.
        with AutocastScope(None):
            if masked is None:
                masked = self.masked_values(training)
                if not training:
                    mask_once_from_now_on()
            run = self.runner(training)
        return self._call_with(masked, run, args, kwargs)

    def _call_with(
        self,
        masked: list[tuple[Any, Tensor]],
        run: Callable[..., Any],
        args: Any,
        kwargs: dict[str, Any],
    ) -> Any:
        # A graph traced here would keep the masked values of this call.
        with (
            _MaskedScope(masked) as scope,
            untraced(self._has_compiled),
            _computed_once(self._computed_again),
        ):
            outputs = run(*args, **kwargs)
        # What the layer updated (statistics, seeds, recurrent states) is its own.
        for variable, value in scope.updates():
            variable.assign(value)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    def load_own_variables(self, store: Any) -> None:
        """Loads the state of the masks.

        Raises:
            ValueError: if it is not that of a wrapper.
        """
        # Its own alone: channel groups load themselves.
        expected = len([*self._trainable_variables, *self._non_trainable_variables])
        if len(store.keys()) != expected:
            raise ValueError(
                "The weights of a plain model must be loaded into the plain model: "
                "load, then prune. Received: "
                f"{len(store.keys())} variables for {self.name!r}, a pruned layer "
                f"with {expected} of its own"
            )
        super().load_own_variables(store)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own output spec: masks do not change shapes."""
        kwargs.pop("training", None)
        return _symbolic(self.layer(*_symbolic(args), **_symbolic(kwargs)))

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own output shape."""
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The layer's own output mask."""
        return self.layer.compute_mask(inputs, previous_mask)

    @property
    def added_variables(self) -> list[Any]:
        """The variables that the wrapper adds to those of its layer."""
        return [*self._trainable_variables, *self._non_trainable_variables]

    def get_config(self) -> dict[str, Any]:
        """The layer's config without its build config, and `own_config`.

        That one is in the wrapper's own, where it is used with more care.
        """
        layer = keras.saving.serialize_keras_object(self.layer)
        layer.pop("build_config", None)
        return {**self.own_config(), "layer": layer}

    def own_config(self) -> dict[str, Any]:
        """What `get_config` gives, but for the layer, which need not have one."""
        config: dict[str, Any] = super(keras.layers.Wrapper, self).get_config()
        return config

    def require_kernels(self) -> None:
        """Checks that the layer still computes with the variables that are masked.

        Raises:
            ValueError: if something has put another kernel in their place.
        """

    def release(self) -> Any:
        """The layer, which may be quantized and adapted again."""
        for inner in self.layer._flatten_layers():
            for name in _REPLACES_KERNEL:
                vars(inner).pop(name, None)
        return self.layer

    def _guard_kernels(self) -> None:
        # `Model.quantize` calls the innermost layers by themselves, so that nothing
        # but they can refuse before their weights are gone.
        for inner in self.layer._flatten_layers():
            for name, remedy in _REPLACES_KERNEL.items():
                if hasattr(type(inner), name):
                    vars(inner)[name] = _refusal(inner.name, name, remedy)

    def _warn_unscheduled(self) -> None:
        self.is_scheduled = True  # once is enough
        call = outermost_call()
        if call is not None:
            # One model has many wrappers, and one callback was forgotten.
            if call in _warned_in:
                return
            _warned_in.add(call)
        warnings.warn(
            "A pruned model is being trained, but nothing raises its sparsity, so it "
            "stays dense. Pass `callbacks=[pdp_keras.PDPScheduleCallback()]` to "
            "`fit`, or drive the schedule in a custom loop with "
            "`PDPScheduleCallback.start`.",
            stacklevel=2,
        )


def _may_train(training: Any) -> bool:
    call = outermost_call()
    return bool(training) or call is None or bool(getattr(call, "training", None))


def _require_unwrapped(cls: type, layer: Any, custom_objects: Any) -> None:
    # Before Keras makes it: wrappers in wrappers may be nested without an end.
    name = layer.get("registered_name") if isinstance(layer, dict) else None
    if not isinstance(name, str):
        return
    known = keras.saving.get_registered_object(name, custom_objects)
    if isinstance(known, type) and issubclass(known, MaskedLayer):
        raise ValueError(
            f"A layer can be wrapped by {cls.__name__} only once. "
            f"Received: a layer with registered_name={name!r}"
        )


# Calls of models in which it was said that nothing raises the sparsity.
_warned_in: Any = weakref.WeakSet()


_noted: contextvars.ContextVar[set[int] | None] = contextvars.ContextVar(
    "noted", default=None
)


@contextlib.contextmanager
def noted_calls() -> Iterator[set[int]]:
    """Gives a set to which each wrapper that is called within adds its id."""
    called: set[int] = set()
    token = _noted.set(called)
    try:
        yield called
    finally:
        _noted.reset(token)


def _note_call(wrapper: Any) -> None:
    called = _noted.get()
    if called is not None:
        called.add(id(wrapper))


class _MaskedScope(keras.StatelessScope):
    """Masked values for some variables; all others have those they had outside.

    A plain nested scope would hide the values of an outer one, and JAX would lose
    gradients without a word. Recurrent states are not even among `layer.variables`.
    """

    def __init__(self, masked: list[tuple[Any, Tensor]]) -> None:
        super().__init__(state_mapping=masked, collect_losses=True)
        self._updated: dict[int, Any] = {}

    def add_update(self, update: tuple[Any, Tensor]) -> None:
        """Notes which variable is updated; called by Keras."""
        self._updated[id(update[0])] = update[0]
        super().add_update(update)

    def get_current_value(self, variable: Any) -> Any:
        """The value inside, or else that of the scope around; None for neither."""
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value

    def updates(self) -> list[tuple[Any, Tensor]]:
        """The variables that were updated inside, with their new values."""
        return [(v, self.state_mapping[key]) for key, v in self._updated.items()]


def _remat_mode(layer: Any) -> Any:
    return getattr(layer, "_remat_mode", None)


@contextlib.contextmanager
def _computed_once(layers: list[Any]) -> Iterator[None]:
    """Has layers not be computed again, when the masked values are gone."""
    modes = [layer._remat_mode for layer in layers]
    for layer in layers:
        layer._remat_mode = None
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer._remat_mode = mode


def _refusal(layer: str, method: str, remedy: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ValueError(
            f"{method!r} would replace a kernel that is being pruned, and drop its "
            f"mask: {remedy}. Received: {method} of layer {layer!r} of a pruned model"
        )

    return refuse


def _signature_of_call(layer: Any) -> inspect.Signature:
    """The layer's call signature, so that Keras binds arguments as it would for it."""
    signature = inspect.signature(layer.call)
    if "training" in signature.parameters:
        return signature
    training = inspect.Parameter(
        "training", inspect.Parameter.KEYWORD_ONLY, default=None
    )
    parameters = list(signature.parameters.values())
    variadic = [p for p in parameters if p.kind is p.VAR_KEYWORD]
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    return signature.replace(parameters=[*named, training, *variadic])


def _symbolic(structure: Any) -> Any:
    """Tensors replaced by symbolic ones that belong to no graph."""

    def convert(x: Any) -> Any:
        if isinstance(x, keras.KerasTensor) or ops.is_tensor(x):
            dtype = keras.backend.standardize_dtype(x.dtype)
            return keras.KerasTensor(x.shape, dtype=dtype)
        return x

    return tree.map_structure(convert, structure)
