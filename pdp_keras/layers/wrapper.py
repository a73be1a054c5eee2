"""`PDPWrapper`: a Keras layer that computes with the masked weights of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from pdp_keras import allocation as allocations
from pdp_keras.configs import INTEGER, Rule, sequence_of
from pdp_keras.layers.counters import add_counter, add_extra, add_temperature_scale
from pdp_keras.layers.masked_layer import MaskedLayer
from pdp_keras.layers.pruned_weight import UNSET, PrunedWeight
from pdp_keras.layers.settings import MaskSettings, WithSettings
from pdp_keras.masks import BRACKET, read_integer, recomputed, temperatures
from pdp_keras.methods import Method
from pdp_keras.models import Kernel, find_kernels
from pdp_keras.modes import Mode

Tensor = Any

_INTEGERS = sequence_of(INTEGER, "a list of integers")
_INDICES = Rule(
    "a list of integers, each once, or None",
    lambda value: _INTEGERS.holds(value) and len(set(value)) == len(value),
)


@keras.saving.register_keras_serializable(package="pdp_keras")
class PDPWrapper(WithSettings, MaskedLayer):
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
            or a sequence with one in [0, 1] for each pruned kernel. By default 0.8;
            N:M has its own.
        mode: what is pruned together: `"unstructured"`, N:M such as `"2:4"`,
            `"block"`, `"channel"`, or a mode object. A single wrapper knows nothing
            of the layers around its own: pruned channels stay in the layer as zeros.
        temperature: positive number, the paper's tau in units of w**2; or a
            `RelativeTemperature` (the default), in units of t**2.
        allocation: `"uniform"`: each kernel gets `sparsity`; `"global"`, `"lamp"` or a
            `GlobalMagnitude`: the callback decides at the end of warm-up, together
            with all other wrappers of the model.
        method: how the weights are masked in training: `"pdp"`, the name of another
            method (see `prune_model`), or a method object.
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

    def __init__(
        self,
        layer: Any,
        sparsity: float | Sequence[float] | None = None,
        mode: str | Mode = "unstructured",
        temperature: float | temperatures.Temperature | None = None,
        *,
        allocation: str | dict[str, Any] | allocations.GlobalMagnitude = "uniform",
        method: str | dict[str, Any] | Method = "pdp",
        weights: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        settings = MaskSettings.resolve(mode, method, temperature, allocation)
        checked: Any
        if isinstance(sparsity, list | tuple) and settings.mode.is_allocated:
            # An allocation may well prune the whole of a tiny kernel.
            checked = [
                1.0
                if value == 1 and not isinstance(value, bool)
                else allocations.check_sparsity(value)
                for value in sparsity
            ]
        else:
            checked = settings.mode.resolve_sparsity(sparsity)
        if weights is not None:
            _INDICES.require("weights", weights)
        super().__init__(layer, **kwargs)
        self.sparsity = checked
        self.settings = settings
        self.weights_to_prune = None if weights is None else list(weights)
        self.pruned_weights: tuple[PrunedWeight, ...] = ()

    def build_state(self) -> None:
        """Creates the counters of every pruned kernel."""
        kernels = self._chosen_kernels()
        targets = self._target_zeros(kernels)
        scale = add_temperature_scale(self)
        self.pruned_weights = tuple(
            PrunedWeight(
                kernel,
                self.settings,
                zeros=add_counter(self, f"{kernel.name}_zeros", 0),
                target_zeros=add_counter(self, f"{kernel.name}_target_zeros", target),
                temperature_scale=scale,
                bracket=self._add_bracket(kernel),
                extras={
                    name: add_extra(self, f"{kernel.name}_{name}", kernel.shape, extra)
                    for name, extra in self.method.extras().items()
                },
            )
            for kernel, target in zip(kernels, targets, strict=True)
        )

    def call(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Runs the layer with masked weights: soft in training, hard otherwise."""
        if training and self.is_scheduled and len(self.pruned_weights) == 1:
            (weight,) = self.pruned_weights
            known = self.layer, weight.variable, args, kwargs
            is_soft = self.method.is_soft and not weight.mode.prunes_outputs
            if is_soft and recomputed.is_worth_it(*known):
                masking = weight.soft_masking()
                return recomputed.call(self.layer, args[0], weight.variable, masking)
        return super().call(*args, training=training, **kwargs)

    def masked_values(self, training: bool) -> list[tuple[Any, Tensor]]:
        """Every pruned kernel with its mask, soft in training, hard otherwise."""
        return [
            pair
            for weight in self.pruned_weights
            for pair in weight.masked_values(training)
        ]

    def require_kernels(self) -> None:
        """Checks that the layer still computes with the variables that are masked.

        Raises:
            ValueError: if something has put another kernel in their place.
        """
        for weight in self.pruned_weights:
            weight.require_in_place()

    def load_own_variables(self, store: Any) -> None:
        """Loads the state; a model saved while pruned needs no new schedule."""
        super().load_own_variables(store)
        # Also before anything is pruned, if a backup is put back in a run.
        self.is_scheduled |= any(read_integer(w.zeros) for w in self.pruned_weights)

    def own_config(self) -> dict[str, Any]:
        """Everything but the layer and the state."""
        config = super().own_config()
        return {
            **config,
            "sparsity": self.sparsity,
            **self.settings.get_config(),
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
            return self._applicable(kernels)
        beyond = [i for i in self.weights_to_prune if not 0 <= i < len(kernels)]
        if beyond:
            raise ValueError(
                f"weights must index the {len(kernels)} kernels of the layer. "
                f"Received: weights={self.weights_to_prune}"
            )
        chosen = [kernels[i] for i in self.weights_to_prune]
        if len(self._applicable(chosen)) < len(chosen):
            raise ValueError(
                "The mode must fit every kernel that weights names. Received: "
                f"mode={self.mode}, weights={self.weights_to_prune}"
            )
        return chosen

    def _applicable(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        reasons = [self.mode.reason_against(k.shape, k.axes) for k in kernels]
        found = [k for k, why in zip(kernels, reasons, strict=True) if why is None]
        if not found:
            whys = "; ".join(sorted({why for why in reasons if why is not None}))
            raise ValueError(
                "The mode must fit at least one kernel of the layer. "
                f"Received: mode={self.mode}, layer={self.layer!r} ({whys})"
            )
        return found

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
            self.mode.count_zeros(sparsity, kernel.shape, kernel.axes)
            for sparsity, kernel in zip(each, kernels, strict=True)
        ]

    def _add_bracket(self, kernel: Kernel) -> Any:
        # A recurrent cell is called within a loop, which JAX lets update nothing.
        is_cell = hasattr(self.layer, "state_size") and not hasattr(self.layer, "cell")
        if not self.mode.keeps_bracket or is_cell:
            return None
        return self.add_weight(
            shape=(BRACKET,),
            dtype="float32",
            initializer="zeros",
            trainable=False,
            # Every replica finds the same.
            aggregation="only_first_replica",
            autocast=False,
            name=f"{kernel.name}_bracket".replace(".", "_"),
        )
