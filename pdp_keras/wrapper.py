"""`PDPWrapper`: a Keras layer that computes with the masked weights of another."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops, tree

from pdp_keras import allocation as allocations
from pdp_keras import modes, temperatures
from pdp_keras.kernels import Kernel, find_kernels
from pdp_keras.pruned_weight import UNSET, PrunedWeight, read_integer

Tensor = Any

_OF_CELLS = ("state_size", "output_size", "get_initial_state")


@keras.saving.register_keras_serializable(package="pdp_keras")
class PDPWrapper(keras.layers.Wrapper):
    """Prunes the kernels of a layer with PDP while it trains.

    In every call with `training=True` the wrapped layer computes with `m(w) * w`,
    where `m(w) = sigmoid((w**2 - t**2) / tau)` and t is the threshold at which the
    current number of weights falls below (Cho, Adya and Naik, NeurIPS 2023,
    arXiv:2305.11203). With `training=False` the mask is hard: exactly that number
    of weights is zero, so validation shows what `strip_pruning` will give.

    The wrapped layer itself is not changed: masked values take the place of its
    variables for the length of the call only. Any layer can be wrapped, also one
    with sublayers: a Transformer block, an RNN, a nested model.

    A new wrapper prunes nothing. `PDPScheduleCallback` raises the number of zeros
    to the target.

    Args:
        layer: the layer to wrap, built or not.
        sparsity: target fraction of zeros in [0, 1), for all kernels of the layer,
            or a sequence with one in [0, 1] for each pruned kernel.
        mode: what is pruned together: `"unstructured"` or a mode object.
        temperature: positive number, the paper's tau in units of w**2; or a
            `RelativeTemperature` (the default), in units of t**2.
        allocation: `"uniform"`: each kernel gets `sparsity`; `"global"` or a
            `GlobalMagnitude`: the callback decides at the end of warm-up, together
            with all other wrappers of the model.
        weights: which of the layer's kernels to prune, as indices into the order
            of `find_kernels`; None for all.
        **kwargs: of `keras.layers.Layer`. The name is by default the layer's own.

    Raises:
        ValueError: for a sparsity outside [0, 1), an unknown mode or allocation,
            and, when built, for a layer without prunable kernels.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((784,)),
    ...     pdp_keras.PDPWrapper(keras.layers.Dense(300), sparsity=0.9),
    ...     keras.layers.Dense(10),
    ... ])
    """

    # Paths show a wrapper and its layer, which have one name, as one.
    name_is_of_layer = True

    def __init__(
        self,
        layer: Any,
        sparsity: float | Sequence[float] = 0.8,
        mode: str | modes.Mode = "unstructured",
        temperature: float | temperatures.Temperature | None = None,
        *,
        allocation: str | dict[str, Any] | allocations.GlobalMagnitude = "uniform",
        weights: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        self._check(layer)
        checked: Any
        if isinstance(sparsity, list | tuple):
            # An allocation may well prune the whole of a tiny kernel.
            checked = [
                1.0 if value == 1 else allocations.check_sparsity(value)
                for value in sparsity
            ]
        else:
            checked = allocations.check_sparsity(sparsity)
        resolved_mode = modes.get(mode)
        resolved_temperature = temperatures.get(temperature)
        resolved_allocation = allocations.get_deferred(allocation)
        kwargs.setdefault("name", layer.name)
        kwargs.setdefault("dtype", layer.dtype_policy)
        # The inner layer casts its inputs itself, by its own policy.
        super().__init__(layer, autocast=False, **kwargs)
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self._call_signature = _signature_of_call(layer)
        self.supports_masking = layer.supports_masking
        self.supports_jit = layer.supports_jit
        self.sparsity = checked
        self.mode = resolved_mode
        self.temperature = resolved_temperature
        # A ranking over all layers waits for the callback; None: nothing to wait for.
        self.deferred_allocation = resolved_allocation
        self.weights_to_prune = None if weights is None else list(weights)
        self.pruned_weights: tuple[PrunedWeight, ...] = ()
        self.is_scheduled = False

    @staticmethod
    def _check(layer: Any) -> None:
        if isinstance(layer, PDPWrapper):
            raise ValueError(
                "A layer can be wrapped by PDPWrapper only once. "
                f"Received: layer={layer!r}"
            )
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                f"layer must be a keras.layers.Layer. Received: layer={layer!r}"
            )

    def __getattr__(self, name: str) -> Any:
        """Reads settings of the layer (`units`, `state_size`) through the wrapper.

        Weights are not read through: they are not what the layer computes with.
        """
        # PyTorch's modules find their own parts in this way.
        inherited = getattr(super(), "__getattr__", None)
        if name == "layer" or name.startswith("_"):
            if inherited is not None:
                return inherited(name)
            raise AttributeError(f"PDPWrapper has no attribute {name!r}")
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
        if not self.pruned_weights:
            if not all(layer.built for layer in self.layer._flatten_layers()):
                # Keras knows how to build any layer from a symbolic call.
                self.layer(*_symbolic(args), **_symbolic(kwargs))
            self.build()
        return super().__call__(*args, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer, if a shape is given, and creates the state."""
        if input_shape is not None:
            super().build(input_shape)
        if self.pruned_weights:
            return
        kernels = self._chosen_kernels()
        targets = self._target_zeros(kernels)
        scale = self.add_weight(
            shape=(),
            dtype="float32",
            initializer="ones",
            trainable=False,
            name="temperature_scale",
        )
        self.pruned_weights = tuple(
            PrunedWeight(
                kernel,
                self.mode,
                self.temperature,
                zeros=self._add_counter(f"{kernel.name}_zeros", 0),
                target_zeros=self._add_counter(f"{kernel.name}_target_zeros", target),
                temperature_scale=scale,
            )
            for kernel, target in zip(kernels, targets, strict=True)
        )
        self.built = True

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Rebuilds after loading: the layer from its own build config.

        A layer without a `build` of its own is built by its first call, and so is
        the wrapper then.
        """
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
        if training and not self.is_scheduled:
            self._warn_unscheduled()
        # Every variable is mapped, not only the masked ones: a nested scope hides
        # the values of an outer one, and JAX would lose gradients without a word.
        variables = self.layer.variables
        values = {id(v): v.value for v in variables}
        for weight in self.pruned_weights:
            values[id(weight.kernel.variable)] = (
                weight.soft_masked() if training else weight.hard_masked()
            )
        with keras.StatelessScope(
            state_mapping=[(v, values[id(v)]) for v in variables],
            collect_losses=True,
        ) as scope:
            before = {id(v): scope.get_current_value(v) for v in variables}
            outputs = self.layer(*args, **kwargs)
        # What the layer updated (statistics, seeds, recurrent states) is its own.
        for variable in variables:
            value = scope.get_current_value(variable)
            if value is not before[id(variable)]:
                variable.assign(value)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

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
    def state(self) -> list[Any]:
        """The variables that the wrapper adds to those of its layer."""
        return [*self._trainable_variables, *self._non_trainable_variables]

    def load_own_variables(self, store: Any) -> None:
        """Loads the state; a model saved while pruned needs no new schedule."""
        super().load_own_variables(store)
        self.is_scheduled = any(read_integer(w.zeros) for w in self.pruned_weights)

    def get_config(self) -> dict[str, Any]:
        """Everything but the state, and without the layer's build config.

        That one is in the wrapper's own, where it is used with more care.
        """
        config = super().get_config()
        config["layer"].pop("build_config", None)
        return {
            **config,
            "sparsity": self.sparsity,
            "mode": modes.serialize(self.mode),
            "temperature": temperatures.serialize(self.temperature),
            "allocation": allocations.serialize_deferred(self.deferred_allocation),
            "weights": self.weights_to_prune,
        }

    def _chosen_kernels(self) -> list[Kernel]:
        kernels, skipped = find_kernels(self.layer)
        if not kernels:
            reasons = sorted({s.reason for s in skipped}) or ["it has no weights"]
            raise ValueError(
                "PDPWrapper needs a layer with prunable kernels. Received: "
                f"layer={self.layer!r} ({'; '.join(reasons)})"
            )
        if self.weights_to_prune is None:
            return kernels
        beyond = [i for i in self.weights_to_prune if not 0 <= i < len(kernels)]
        if beyond:
            raise ValueError(
                f"weights must index the {len(kernels)} kernels of the layer. "
                f"Received: weights={self.weights_to_prune}"
            )
        return [kernels[i] for i in self.weights_to_prune]

    def _target_zeros(self, kernels: Sequence[Kernel]) -> list[int]:
        if self.deferred_allocation is not None:
            return [UNSET] * len(kernels)
        each = self.sparsity
        if not isinstance(each, list):
            each = [each] * len(kernels)
        if len(each) != len(kernels):
            raise ValueError(
                f"sparsity must be one number or one for each of the {len(kernels)} "
                f"pruned kernels. Received: sparsity={self.sparsity}"
            )
        return [
            allocations.count_zeros(sparsity, self.mode.units(kernel.shape))
            for sparsity, kernel in zip(each, kernels, strict=True)
        ]

    def _add_counter(self, name: str, value: int) -> Any:
        # A count, not a fraction: float32 cannot hold round(r * n) of a large layer.
        return self.add_weight(
            shape=(),
            dtype="int",
            initializer=keras.initializers.Constant(value),
            trainable=False,
            name=name.replace(".", "_"),
        )

    def _warn_unscheduled(self) -> None:
        self.is_scheduled = True  # once is enough
        warnings.warn(
            "A pruned model is being trained, but nothing raises its sparsity, so it "
            "stays dense. Pass `callbacks=[pdp_keras.PDPScheduleCallback(...)]` to "
            "`fit`, or drive the schedule in a custom loop with "
            "`PDPScheduleCallback.start`.",
            stacklevel=2,
        )


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
