"""Reads and sets the sparsity of a whole model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdp_keras import allocation as allocations
from pdp_keras.kernels import Kernel, find_kernels
from pdp_keras.pruned_weight import UNSET, PrunedWeight, read, read_integer
from pdp_keras.wrapper import PDPWrapper


def find_wrappers(model: Any) -> list[PDPWrapper]:
    """Every built `PDPWrapper` in a model or layer, each once."""
    layers = {id(layer): layer for layer in model._flatten_layers()}
    return [
        layer
        for layer in layers.values()
        if isinstance(layer, PDPWrapper) and layer.built
    ]


def pruned_weights(model: Any) -> list[PrunedWeight]:
    """Every weight that the model prunes, named by its path in the model.

    Returns:
        A list in the order of the model's layers; empty for a model that is not
        pruned.
    """
    kernels, _ = find_kernels(model)
    states = {
        id(weight.variable): weight
        for wrapper in find_wrappers(model)
        for weight in wrapper.pruned_weights
    }
    return [
        states[id(kernel.variable)].placed_at(kernel.path)
        for kernel in kernels
        if id(kernel.variable) in states
    ]


def require_pruned(model: Any) -> list[PrunedWeight]:
    """The weights that the model prunes.

    Raises:
        ValueError: if there are none.
    """
    weights = pruned_weights(model)
    if not weights:
        raise ValueError(
            "The model must contain PDPWrapper layers: make it with "
            "`pdp_keras.prune_model(model, ...)`. "
            f"Received: model={getattr(model, 'name', model)!r} without any"
        )
    return weights


def current_sparsity(weights: Sequence[PrunedWeight]) -> float:
    """The fraction of zeros now, over all pruned weights together."""
    zeros = sum(read_integer(weight.zeros) for weight in weights)
    return zeros / max(1, sum(weight.units for weight in weights))


def requested_sparsity(model: Any) -> float:
    """The sparsity that the model as a whole was asked for."""
    each = [
        (np.mean(wrapper.sparsity), sum(w.units for w in wrapper.pruned_weights))
        for wrapper in find_wrappers(model)
    ]
    if len({sparsity for sparsity, _ in each}) == 1:
        return float(each[0][0])
    weights = pruned_weights(model)
    targets = sum(read_integer(weight.target_zeros) for weight in weights)
    return targets / max(1, sum(weight.units for weight in weights))


def fix_targets(model: Any, allocation: Any = None) -> None:
    """Decides how many zeros each weight gets in the end.

    Args:
        model: a pruned model.
        allocation: None for the model's own, which ranks the weights of all layers
            that still have no target. Anything else that `prune_model` takes as
            `allocation` replaces the targets of all layers.

    Raises:
        ValueError: if a weight is not finite, or the allocation does not fit.
    """
    weights = pruned_weights(model)
    if allocation is None:
        weights = [w for w in weights if read_integer(w.target_zeros) == UNSET]
        if not weights:
            return
        allocation = _own_allocation(model)
    sparsity = requested_sparsity(model)
    infos = [describe(weight.kernel) for weight in weights]
    for info in infos:
        if not np.isfinite(info.values).all():
            raise ValueError(
                "Weights must be finite when their sparsity is allocated. "
                f"Received: NaN or infinity in {info.name!r}"
            )
    zeros = allocations.get(allocation)(infos, sparsity)
    for weight, count in zip(weights, zeros, strict=True):
        weight.target_zeros.assign(count)


def _own_allocation(model: Any) -> allocations.GlobalMagnitude:
    found = {wrapper.deferred_allocation for wrapper in find_wrappers(model)} - {None}
    if len(found) != 1:
        raise ValueError(
            "Wrappers that share one global ranking must have the same allocation. "
            f"Received: {sorted(map(repr, found))}"
        )
    return next(a for a in found if a is not None)


def describe(kernel: Kernel) -> allocations.WeightInfo:
    """What an allocation may know of a kernel."""
    shape, axes = kernel.shape, kernel.axes
    return allocations.WeightInfo(
        name=kernel.full_name,
        layer=kernel.path,
        values=read(kernel.variable).astype("float32"),
        fan_in=math.prod(shape[axis] for axis in axes.inputs),
        fan_out=math.prod(shape[axis] for axis in axes.outputs),
        spatial=tuple(
            size
            for axis, size in enumerate(shape)
            if axis not in (*axes.inputs, *axes.outputs)
        ),
    )
