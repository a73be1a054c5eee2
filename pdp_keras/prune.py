"""`prune_model`: a copy of a model whose chosen kernels are pruned in training."""

from __future__ import annotations

from typing import Any

import keras

from pdp_keras import allocation as allocations
from pdp_keras import modes, structure, subclassed, temperatures
from pdp_keras.kernels import compile_filters, find_kernels, require_matches
from pdp_keras.state import describe, find_wrappers
from pdp_keras.wrapper import PDPWrapper


def prune_model(
    model: Any,
    sparsity: float = 0.8,
    mode: str | modes.Mode = "unstructured",
    *,
    allocation: Any = "global",
    temperature: float | temperatures.Temperature | None = None,
    filters: Any = None,
    inplace: bool = False,
) -> Any:
    """A copy of a model that prunes itself while it trains.

    Every layer with a chosen kernel stands in a `PDPWrapper` of the same name. The
    copy has the weights of the given model and computes the same until
    `PDPScheduleCallback` raises its sparsity. It must be compiled anew.

    Args:
        model: a built Keras model, trained or not: Sequential, Functional (shared
            layers, nested models, several inputs and outputs) or subclassed. It is
            not changed.
        sparsity: target fraction of zeros over all chosen weights, in [0, 1).
        mode: what is pruned together; `"unstructured"`.
        allocation: how the sparsity is shared out among layers: `"global"` (one
            ranking by magnitude, at the end of warm-up), `"uniform"`, `"erk"`; a
            mapping from layer or weight names to sparsities; or a callable
            `(weights: list[WeightInfo], sparsity) -> list of sparsities`, called
            now.
        temperature: how soft the mask is: the paper's tau in units of w**2, a
            `RelativeTemperature` in units of t**2, or None for the default.
        filters: which layers to prune: names, regular expressions (both match the
            layer or one around it), or a callable from the layer to bool. None
            prunes every kernel in the table, the first and the last layer
            included.
        inplace: prune the given object itself instead of a copy. Only for a
            subclassed model that cannot be remade from its config.

    Returns:
        A Keras model of the same kind, not compiled.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: for a model that is not built or is pruned already, for a
            sparsity outside [0, 1), for filters that choose nothing, and for a
            model that cannot be copied.

    Example:

    >>> pruned = pdp_keras.prune_model(model, sparsity=0.9, filters="block.*")
    """
    _check_model(model, inplace)
    sparsity = allocations.check_sparsity(sparsity)
    allocations.get(allocation)
    plan = _Plan(model, sparsity, modes.get(mode), allocation, temperature, filters)
    if structure.is_graph(model):
        return structure.rebuild_graph(model, plan.wrap, structure.copy_variables)
    original = subclassed.describe_if_possible(model)
    new = model if inplace else structure.make_subclassed_anew(model)
    plan.transfer_to(new)
    exchanged = structure.exchange_layers(new, plan.exchange)
    plan.require_complete(new)
    return subclassed.mark_pruned(new, original, exchanged)


class _Plan:
    """Which kernels get which sparsity, by the variables of one model."""

    def __init__(
        self,
        model: Any,
        sparsity: float,
        mode: modes.Mode,
        allocation: Any,
        temperature: float | temperatures.Temperature | None,
        filters: Any,
    ) -> None:
        kernels, _ = find_kernels(model)
        if not kernels:
            raise ValueError(
                "The model must have at least one prunable layer (see "
                "pdp_keras.register_prunable_layer for custom ones). "
                f"Received: model={model.name!r} without any"
            )
        require_matches(filters, kernels)
        is_chosen = compile_filters(filters)
        self.chosen = [is_chosen(kernel) for kernel in kernels]
        self.sparsity = sparsity
        self.mode = mode
        self.temperature = temperatures.get(temperature)
        self.deferred = allocations.is_deferred(allocation)
        self.allocation = allocation if self.deferred else "uniform"
        chosen = [k for k, choose in zip(kernels, self.chosen, strict=True) if choose]
        each = [sparsity] * len(chosen)
        if not self.deferred and allocation != "uniform":
            zeros = allocations.get(allocation)([describe(k) for k in chosen], sparsity)
            each = [z / max(1, k.size) for z, k in zip(zeros, chosen, strict=True)]
        self.sparsities = {id(k.variable): s for k, s in zip(chosen, each, strict=True)}

    def transfer_to(self, new: Any) -> None:
        """Makes the plan speak of the variables of a copy of the model."""
        kernels, _ = find_kernels(new)
        sparsities = iter(self.sparsities.values())
        self.sparsities = {
            id(kernel.variable): next(sparsities)
            for kernel, choose in zip(kernels, self.chosen, strict=True)
            if choose
        }

    def wrap(self, old: Any, new: Any) -> Any:
        """The new layer, in a wrapper if the plan has a kernel of the old one."""
        kernels, _ = find_kernels(old)
        indices = [
            i for i, k in enumerate(kernels) if id(k.variable) in self.sparsities
        ]
        if not indices:
            return new
        each = [self.sparsities[id(kernels[i].variable)] for i in indices]
        return PDPWrapper(
            new,
            sparsity=each[0] if set(each) == {self.sparsity} else each,
            mode=self.mode,
            temperature=self.temperature,
            allocation=self.allocation,
            weights=None if len(indices) == len(kernels) else indices,
        )

    def exchange(self, layer: Any) -> Any:
        """What takes a layer's place in a subclassed model."""
        kernels, _ = find_kernels(layer)
        if not any(id(kernel.variable) in self.sparsities for kernel in kernels):
            return layer
        if structure.is_graph(layer):
            return structure.rebuild_graph(layer, self.wrap, structure.copy_variables)
        wrapper = self.wrap(layer, layer)
        wrapper.build()
        return wrapper

    def require_complete(self, model: Any) -> None:
        """Checks that every chosen kernel is pruned now."""
        pruned = sum(len(wrapper.pruned_weights) for wrapper in find_wrappers(model))
        if pruned != len(self.sparsities):
            raise ValueError(
                "Every chosen layer must be held by an attribute of the model (or a "
                "list, tuple or dict in one), where a wrapper can take its place. "
                f"Received: {len(self.sparsities)} chosen kernels, of which {pruned} "
                "could be reached"
            )


def _check_model(model: Any, inplace: bool) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            "model must be a keras.Model (a single layer goes into PDPWrapper). "
            f"Received: model={model!r}"
        )
    pruned = [x.name for x in model._flatten_layers() if isinstance(x, PDPWrapper)]
    if pruned:
        raise ValueError(
            "A model can be pruned only once; use `strip_pruning` first. "
            f"Received: model={model.name!r} with PDPWrapper layers {pruned[:5]}"
        )
    if not model.built:
        raise ValueError(
            "The model must be built, so that it has weights: call it on data, or "
            f"`model.build(input_shape)`. Received: unbuilt model={model.name!r}"
        )
    if inplace and structure.is_graph(model):
        raise ValueError(
            "inplace=True is only for subclassed models; this one can be copied. "
            f"Received: model={model.name!r} of class {type(model).__name__}"
        )
