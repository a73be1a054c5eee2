"""`prune_model`: a copy of a model whose chosen kernels are pruned in training."""

from __future__ import annotations

from typing import Any

import keras

from pdp_keras import allocation as allocations
from pdp_keras import methods, modes
from pdp_keras.channels import ChannelPlanner, must_keep_class, needs_equal_widths
from pdp_keras.layers import MaskedLayer, PDPWrapper, describe, mask_once
from pdp_keras.masks import temperatures
from pdp_keras.methods import Method
from pdp_keras.models import (
    child_layers,
    compile_filters,
    copy_variables,
    exchange_layers,
    find_kernels,
    is_graph,
    make_subclassed_anew,
    rebuild_graph,
    require_built,
    require_float,
    require_matches,
)
from pdp_keras.modes import Channel, Mode
from pdp_keras.pruned import (
    choose_for_target,
    describe_if_possible,
    find_wrappers,
    mark_graphs,
    mark_pruned,
    plain_copy,
    pruned_weights,
    refuse_quantization,
    require_reached,
)


def prune_model(
    model: Any,
    sparsity: float | None = None,
    mode: str | Mode = "unstructured",
    *,
    method: str | Method = "pdp",
    allocation: Any = None,
    temperature: float | temperatures.Temperature | None = None,
    filters: Any = None,
    target: str | None = None,
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
        sparsity: target fraction of zeros over all chosen weights, in [0, 1). By
            default 0.8; N:M has its own, 1 - N / M; of channels (default 0.5) it
            is the fraction of those that can be removed.
        mode: what is pruned together: `"unstructured"`; N:M such as `"2:4"` (at
            most 2 of every 4 weights along the input axis are left); `"block"` or
            `"block:4"` (pairs or fours of neighbouring output channels at one input,
            for 64-bit Arm); `"channel"` (whole output channels, which
            `strip_pruning` removes); or a mode object.
        method: how it is pruned: `"pdp"`, or what the papers compare it with:
            `"gmp"` (gradual magnitude), `"dnw"` (straight-through), `"str"` (learned
            thresholds), `"optg"` (learned scores), `"acdc"` (alternating phases),
            `"granet"` and `"rigl"` (prune and regrow), `"movement"` and
            `"soft_movement"`, `"pofa"` (prune, then lock), `"sr_ste"` (for N:M); for
            channels `"nisp"` (importance carried back), `"dcp"` (greedy by gradients)
            and `"scp"` (what BatchNormalization and ReLU shut); or a method object,
            `pdp_keras.methods.RigL(frequency=200)`.
        allocation: how the sparsity is shared out among layers: `"global"` (one
            ranking by magnitude, at the end of warm-up), `"lamp"` (one that each
            layer's scale has no part in, made anew while the mask changes),
            `"uniform"`, `"erk"`; a mapping from layer or weight names to sparsities;
            or a callable `(weights: list[WeightInfo], sparsity) -> list of
            sparsities`, called now. None leaves it to the method: for PDP `"lamp"`;
            for channels, with a `target`, and for all other methods `"global"`;
            `"uniform"` for channels of a model of a class (as those of keras_hub) that
            has one argument for how wide several layers are: unequally wide, it would
            be a plain `keras.Model` once it is stripped.
        temperature: how soft the mask is: the paper's tau in units of w**2, a
            `RelativeTemperature` in units of t**2 (for channels, of the spread of
            the squared scores), or None for the mode's default.
        filters: which layers to prune: names, regular expressions (both match the
            layer or one around it), or a callable from the layer to bool. None
            prunes every kernel in the table, the first and the last layer
            included.
        target: the device that the model is for, as in `export_tflite`: chooses, if
            `filters` does not, the layers whose zeros pay there, and refuses what
            would not be faster. "xnnpack" wants more than 2/3 of the weights of 1x1
            convolutions to be zero. Blocks are for "xnnpack-arm64" (64-bit phones);
            "xnnpack-wasm" (browsers) refuses them. (Fewer channels are faster on every
            target.)
        inplace: prune the given object itself instead of a copy. Only for a
            subclassed model that cannot be remade from its config.

    Returns:
        A Keras model of the same kind, not compiled.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: for a model that is not built or is pruned already, for a
            sparsity outside [0, 1), for filters that choose nothing, for a
            model that cannot be copied, without `filters` for a subclassed model
            with a frozen one in it (a teacher), and if nothing would be faster on
            `target`.

    Example:

    >>> pruned = pdp_keras.prune_model(model, sparsity=0.9, filters="block.*")
    >>> pruned = pdp_keras.prune_model(model, sparsity=0.85, target="xnnpack")
    """
    _check_model(model, inplace)
    if not is_graph(model):
        if filters is None:
            _require_no_teacher(model)
        _require_apart(model, filters)
    mode, method = modes.get(mode), methods.get(method)
    methods.require_mode(method, mode)
    methods.resolve_temperature(method, mode, temperature)
    sparsity = mode.resolve_sparsity(sparsity)
    if allocation is None:
        # On a device it counts how sparse each layer is; LAMP spares the small ones.
        allocation = "global" if target else method.default_allocation(mode)
        # So that strip_pruning can give a model of the same class.
        if isinstance(mode, Channel) and needs_equal_widths(model):
            allocation = "uniform"
    _check_allocation(allocation, mode)
    if target is not None:
        filters = choose_for_target(target, model, mode, sparsity, filters)
    prune: Any = _prune_channels if isinstance(mode, Channel) else _prune_weights
    pruned = prune(
        model, sparsity, mode, method, allocation, temperature, filters, inplace
    )
    refuse_quantization(pruned)
    mask_once(pruned)
    return pruned


def _prune_weights(
    model: Any,
    sparsity: float,
    mode: Mode,
    method: Method,
    allocation: Any,
    temperature: Any,
    filters: Any,
    inplace: bool,
) -> Any:
    plan = _Plan(model, sparsity, mode, method, allocation, temperature, filters)
    if is_graph(model):
        return mark_graphs(rebuild_graph(model, plan.wrap, copy_variables))
    original = describe_if_possible(model)
    new = model if inplace else make_subclassed_anew(model)
    plan.transfer_to(new)
    exchanged = exchange_layers(new, plan.exchange)
    plan.require_complete(new)
    return _reached(mark_pruned(new, original, exchanged, inplace), inplace)


def _reached(pruned: Any, inplace: bool) -> Any:
    try:
        require_reached(pruned, find_wrappers(pruned))
    except ValueError:
        if inplace:
            plain_copy(pruned)  # which is the object itself, as it was
        raise
    return pruned


def _prune_channels(
    model: Any,
    sparsity: float,
    mode: Channel,
    method: Method,
    allocation: Any,
    temperature: Any,
    filters: Any,
    inplace: bool,
) -> Any:
    kernels, _ = find_kernels(model)
    require_float(model)
    require_matches(filters, kernels)
    is_chosen = compile_filters(filters)
    has_filters = filters is not None
    settings = (
        mode,
        method,
        sparsity,
        allocation,
        temperature,
        is_chosen,
        has_filters,
    )
    if is_graph(model):
        if allocation != "uniform" and must_keep_class(model):
            raise ValueError(
                "The channels of a model whose layers share weights (as the head of a "
                "masked language model with its embedding) must be pruned with "
                "allocation='uniform', the default for it: only its class can make a "
                f"smaller one. Received: allocation={allocation!r}, "
                f"model={model.name!r} of class {type(model).__name__}"
            )
        planner = ChannelPlanner(model, True, *settings)
        return mark_graphs(rebuild_graph(model, planner.wrap, copy_variables))
    original = describe_if_possible(model)
    new = model if inplace else make_subclassed_anew(model)
    planner = ChannelPlanner(new, False, *settings)

    def exchange(layer: Any) -> Any:
        if is_graph(layer):
            has_work = any(planner.has_work(x) for x in layer._flatten_layers())
            if not has_work:
                return layer
            return mark_graphs(rebuild_graph(layer, planner.wrap, copy_variables))
        wrapper = planner.wrap(layer, layer)
        if wrapper is not layer:
            wrapper.build()
        return wrapper

    exchanged = exchange_layers(new, exchange)
    return _reached(mark_pruned(new, original, exchanged, inplace), inplace)


class _Plan:
    """Which kernels get which sparsity, by the variables of one model."""

    def __init__(
        self,
        model: Any,
        sparsity: float,
        mode: Mode,
        method: Method,
        allocation: Any,
        temperature: float | temperatures.Temperature | None,
        filters: Any,
    ) -> None:
        kernels, _ = find_kernels(model)
        require_float(model)
        if not kernels:
            raise ValueError(
                "The model must have at least one prunable layer (see "
                "pdp_keras.register_prunable_layer for custom ones). "
                f"Received: model={model.name!r} without any"
            )
        require_matches(filters, kernels)
        self.chosen = modes.choose_kernels(kernels, filters, mode)
        self.sparsity = sparsity
        self.mode = mode
        self.method = method
        self.temperature = methods.resolve_temperature(method, mode, temperature)
        self.deferred = mode.is_allocated and allocations.is_deferred(allocation)
        self.allocation = allocation if self.deferred else "uniform"
        chosen = [k for k, choose in zip(kernels, self.chosen, strict=True) if choose]
        each = [sparsity] * len(chosen)
        if mode.is_allocated and not self.deferred and allocation != "uniform":
            zeros = allocations.get(allocation)(
                [describe(k, mode) for k in chosen], sparsity
            )
            units = (mode.units(k.shape, k.axes) for k in chosen)
            each = [z / max(1, n) for z, n in zip(zeros, units, strict=True)]
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
        # Of a layer that it shares with others, and that is wrapped already.
        elsewhere = _wrapped_variables(new)
        copies = find_kernels(new)[0] if elsewhere else kernels
        indices = [
            i
            for i, (kernel, copy) in enumerate(zip(kernels, copies, strict=True))
            if id(kernel.variable) in self.sparsities
            and id(copy.variable) not in elsewhere
        ]
        if not indices:
            return new
        each = [self.sparsities[id(kernels[i].variable)] for i in indices]
        return PDPWrapper(
            new,
            sparsity=each[0] if set(each) == {self.sparsity} else each,
            mode=self.mode,
            method=self.method,
            temperature=self.temperature if self.method.is_soft else None,
            allocation=self.allocation,
            weights=None if len(indices) == len(kernels) else indices,
        )

    def exchange(self, layer: Any) -> Any:
        """What takes a layer's place in a subclassed model."""
        kernels, _ = find_kernels(layer)
        if not any(id(kernel.variable) in self.sparsities for kernel in kernels):
            return layer
        if is_graph(layer):
            return mark_graphs(rebuild_graph(layer, self.wrap, copy_variables))
        wrapper = self.wrap(layer, layer)
        wrapper.build()
        return wrapper

    def require_complete(self, model: Any) -> None:
        """Checks that every chosen kernel is pruned now."""
        pruned = len(pruned_weights(model))
        if pruned != len(self.sparsities):
            raise ValueError(
                "Every chosen layer must be held by an attribute of the model (or a "
                "list, tuple or dict in one), where a wrapper can take its place. "
                f"Received: {len(self.sparsities)} chosen kernels, of which {pruned} "
                "could be reached"
            )


def _wrapped_variables(layer: Any) -> set[int]:
    wrappers = (x for x in layer._flatten_layers() if isinstance(x, MaskedLayer))
    return {id(variable) for x in wrappers for variable in x.layer.variables}


def _require_no_teacher(model: Any) -> None:
    """Refuses to guess whether a frozen model in a subclassed one is to be pruned."""
    frozen = [
        child.name
        for child in child_layers(model)
        if isinstance(child, keras.Model)
        and not child.trainable_variables
        and find_kernels(child)[0]
    ]
    if frozen and model.trainable_variables:
        raise ValueError(
            "A frozen model in a subclassed one, such as the teacher of a "
            "distillation, must not be pruned by chance: it does not train, and so "
            "could not adapt. Prune the student before it is given to the model "
            "around it, or say by `filters` what is to be pruned. "
            f"Received: model={model.name!r} of class {type(model).__name__} with the "
            f"frozen models {frozen}, filters=None"
        )


def _require_apart(model: Any, filters: Any) -> None:
    """Refuses models in a subclassed one of which each would get layers of its own."""
    is_chosen = compile_filters(filters)
    chosen = {id(k.variable): k for k in find_kernels(model)[0] if is_chosen(k)}
    holders: dict[int, Any] = {}
    for child in child_layers(model):
        if not is_graph(child):
            continue
        for kernel in find_kernels(child)[0]:
            key = id(kernel.variable)
            if key in chosen and holders.setdefault(key, child) is not child:
                raise ValueError(
                    "Models in a subclassed one must not share layers that are to be "
                    "pruned (a feature extractor shares those of the student of a "
                    "distillation): prune the model before it is given to the one "
                    f"around it. Received: {holders[key].name!r} and {child.name!r} in "
                    f"model={model.name!r}, which share {chosen[key].full_name!r}"
                )


def _check_allocation(allocation: Any, mode: Mode) -> None:
    allocations.get(allocation)
    # Both are what somebody has who left it out.
    if not (isinstance(allocation, str) and allocation in ("global", "uniform")):
        mode.require_allocated(allocation)


def _check_model(model: Any, inplace: bool) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            "model must be a keras.Model (a single layer goes into PDPWrapper). "
            f"Received: model={model!r}"
        )
    pruned = [x.name for x in model._flatten_layers() if isinstance(x, MaskedLayer)]
    if pruned:
        raise ValueError(
            "A model can be pruned only once; use `strip_pruning` first. "
            f"Received: model={model.name!r} with PDPWrapper layers {pruned[:5]}"
        )
    require_built(model)
    if inplace and is_graph(model):
        raise ValueError(
            "inplace=True is only for subclassed models; this one can be copied. "
            f"Received: model={model.name!r} of class {type(model).__name__}"
        )
