"""Reads and sets the sparsity of a whole model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pdp_keras import allocation as allocations
from pdp_keras.channels import ChannelGroup, ChannelWrapper
from pdp_keras.layers import UNSET, MaskedLayer, PDPWrapper, PrunedWeight
from pdp_keras.masks import read_integer
from pdp_keras.methods import Method
from pdp_keras.models import find_kernels

# What has a number of zeros and a target for it.
Pruned = PrunedWeight | ChannelGroup


def find_wrappers(model: Any) -> list[MaskedLayer]:
    """Every built wrapper in a model or layer, each once."""
    layers = {id(layer): layer for layer in model._flatten_layers()}
    return [
        layer
        for layer in layers.values()
        if isinstance(layer, MaskedLayer) and layer.has_state
    ]


def channel_groups(model: Any) -> list[ChannelGroup]:
    """Every channel group of a model, each once, in the order of its layers."""
    groups = {
        id(group): group
        for wrapper in find_wrappers(model)
        if isinstance(wrapper, ChannelWrapper)
        for group in wrapper.groups
    }
    return list(groups.values())


def pruned_parts(model: Any) -> list[Pruned]:
    """Everything in a model that has a number of zeros and a target for it."""
    return [*pruned_weights(model), *channel_groups(model)]


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
        if isinstance(wrapper, PDPWrapper)
        for weight in wrapper.pruned_weights
    }
    return [
        states[id(kernel.variable)].placed_at(kernel.path)
        for kernel in kernels
        if id(kernel.variable) in states
    ]


def require_pruned(model: Any) -> list[Pruned]:
    """Everything that the model prunes.

    Raises:
        ValueError: if there is nothing.
    """
    parts = pruned_parts(model)
    if not parts:
        raise ValueError(
            "The model must contain PDPWrapper layers: make it with "
            "`pdp_keras.prune_model(model, ...)`. "
            f"Received: model={getattr(model, 'name', model)!r} without any"
        )
    return parts


def current_sparsity(parts: Sequence[Pruned]) -> float:
    """The fraction of units (weights or channels) that are pruned now."""
    zeros = sum(read_integer(part.zeros) for part in parts)
    return zeros / max(1, sum(part.units for part in parts))


def common_method(parts: Sequence[Pruned]) -> Method:
    """The method of all parts.

    Raises:
        ValueError: if there are several.
    """
    found = {part.method for part in parts}
    if len(found) != 1:
        raise ValueError(
            "All layers of a model must be pruned by one method. "
            f"Received: {sorted(map(repr, found))}"
        )
    return next(iter(found))


def moving_allocation(
    model: Any, method: Method, allocation: Any
) -> allocations.GlobalMagnitude | None:
    """The global ranking that is made anew while the mask changes; None for none.

    Args:
        model: a pruned model.
        method: its method, which decides where the ranking leaves it open.
        allocation: what replaces the model's own allocation, or None.
    """
    found: list[Any] = list(_deferred_allocations(model))
    if allocation is not None:
        found = [allocations.get(allocation)]
    if method.sets_zeros or len(found) != 1:
        return None
    (ranking,) = found
    if not isinstance(ranking, allocations.GlobalMagnitude):
        return None
    moves = method.reallocates if ranking.moving is None else ranking.moving
    return ranking if moves else None


def requested_sparsity(model: Any) -> float:
    """The sparsity that the model as a whole was asked for."""
    asked = [
        np.mean(wrapper.sparsity)
        for wrapper in find_wrappers(model)
        if isinstance(wrapper, PDPWrapper)
    ] + [group.sparsity for group in channel_groups(model)]
    if len(set(asked)) == 1:
        return float(asked[0])
    parts = pruned_parts(model)
    targets = sum(read_integer(part.target_zeros) for part in parts)
    return targets / max(1, sum(part.units for part in parts))


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
    parts = pruned_parts(model)
    if allocation is None:
        parts = [part for part in parts if read_integer(part.target_zeros) == UNSET]
        if not parts:
            return
        allocation = _own_allocation(model)
    sparsity = requested_sparsity(model)
    infos = [part.describe() for part in parts]
    require_finite(infos)
    zeros = allocations.get(allocation)(infos, sparsity)
    for part, count in zip(parts, zeros, strict=True):
        part.target_zeros.assign(part.limit_zeros(count))


def require_finite(infos: Iterable[allocations.WeightInfo]) -> None:
    """Checks what an allocation is to rank.

    Raises:
        ValueError: if a weight is not finite.
    """
    for info in infos:
        if not np.isfinite(info.values).all():
            raise ValueError(
                "Weights must be finite when their sparsity is allocated. "
                f"Received: NaN or infinity in {info.name!r}"
            )


def _own_allocation(model: Any) -> allocations.GlobalMagnitude:
    found = _deferred_allocations(model)
    if len(found) != 1:
        raise ValueError(
            "Wrappers that share one global ranking must have the same allocation. "
            f"Received: {sorted(map(repr, found))}"
        )
    return next(iter(found))


def _deferred_allocations(model: Any) -> set[allocations.GlobalMagnitude]:
    owners: list[Any] = [w for w in find_wrappers(model) if isinstance(w, PDPWrapper)]
    owners += channel_groups(model)
    found = {owner.deferred_allocation for owner in owners}
    return {allocation for allocation in found if allocation is not None}
