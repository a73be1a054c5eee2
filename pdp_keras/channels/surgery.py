"""`remove_channels`: a smaller model, without the channels that are dead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from pdp_keras.channels.labels import LabelledTensor
from pdp_keras.channels.rules.registry import Kept, find_rule
from pdp_keras.channels.trace import ChannelPlan, find_channels
from pdp_keras.models import make_anew, rebuild_graph, renew_state


def remove_channels(
    model: Any,
    keep: Mapping[str, Any],
    on_lost_class: Callable[[str], None] = lambda reason: None,
) -> Any:
    """A model without some of its channels.

    It computes what the given model computes once the slices of its kernels that read
    these channels are zero. (A layer that normalizes across channels takes its
    statistics from those that are left.)

    Args:
        model: a built Sequential or Functional model of plain layers; not changed.
        keep: a boolean array for each group of `find_channels` to remove units of, by
            its name: which units to keep, at least one. Other groups stay whole.
        on_lost_class: called with the reason where the model becomes a plain one.

    Returns:
        A new model of the same kind with the same names, not compiled. One of a class
        with a constructor of its own becomes a plain Functional one if no arguments
        of it make such layers.

    Raises:
        ValueError: if the model is neither Sequential nor Functional, if `keep` names
            something else than its groups, or has anything but a boolean for each
            unit with one of them True; or if a layer cannot be made anew.

    Example:

    >>> group = find_channels(model).groups[0]
    >>> small = remove_channels(model, {group.name: np.arange(group.size) % 2 == 0})
    """
    plan = find_channels(model)
    cut = _Cut(plan, _checked(keep, plan))
    return rebuild_graph(
        model,
        lambda old, new: new,
        cut.copy_state,
        cut.make,
        by_class=False,
        on_lost_class=on_lost_class,
    )


def _checked(keep: Mapping[str, Any], plan: ChannelPlan) -> list[np.ndarray]:
    """The units to keep of each group of the plan."""
    sizes = {group.name: group.size for group in plan.groups}
    for name, mask in keep.items():
        if name not in sizes:
            raise ValueError(
                f"keep must name groups of the model; there are {list(sizes)}. "
                f"Received: keep[{name!r}]"
            )
        array = np.asarray(mask)
        if array.dtype != bool or array.shape != (sizes[name],) or not array.any():
            raise ValueError(
                "keep must have a boolean for each unit of a group, one of them True. "
                f"Received: keep[{name!r}]={mask!r}, for {sizes[name]} units"
            )
    return [
        np.asarray(keep.get(name, np.ones(size, bool))) for name, size in sizes.items()
    ]


class _Cut:
    """What is left of each layer, given the units that are left of each group."""

    def __init__(self, plan: ChannelPlan, kept_units: list[np.ndarray]) -> None:
        self.trace = plan.trace
        self.dead: set[int] = set()
        self.sizes: dict[tuple[int, str, int], int] = {}
        # Masks by the id of a variable, for each of its axes that is cut.
        self.masks: dict[int, dict[int, np.ndarray]] = {}
        for slot, axis in zip(plan.slots, plan.trace.book.values(), strict=True):
            alive = np.array(
                [
                    group < 0 or bool(kept_units[group][unit])
                    for group, unit in zip(slot.group_of, slot.unit_of, strict=True)
                ]
            )
            self.dead.update(self.trace.atoms.canonical(axis.labels)[~alive].tolist())
            key = id(slot.layer), slot.weight, slot.axis
            self.sizes[key] = int(alive.sum())
            if slot.weight and not alive.all():
                variable = _attribute(slot.layer, slot.weight)
                self.masks.setdefault(id(variable), {})[slot.axis] = alive

    def make(self, operation: Any) -> Any:
        """The smaller layer or operation, unbuilt."""
        calls = self.trace.calls.get(id(operation))
        if calls is None:
            return make_anew(operation)
        inputs, outputs = calls[0]
        kept = Kept(
            self.sizes,
            operation,
            [self._alive(x) for x in inputs],
            [self._alive(x) for x in outputs],
        )
        if not self._is_cut(operation, kept):
            return make_anew(operation)
        if isinstance(operation, keras.layers.InputLayer):
            return make_anew(operation, lambda config: _resize_input(config, kept))
        rule = find_rule(type(operation))
        if rule is None:
            return make_anew(operation)
        resize, rewrite = rule.resize, rule.rewrite
        new = make_anew(
            operation, resize and (lambda config: resize(operation, config, kept))
        )
        if rewrite is None:
            return new

        def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = rewrite(operation, args, kwargs, kept)
            return new(*args, **kwargs)

        return call

    def copy_state(self, old: Any, new: Any) -> None:
        """Copies what is left of a layer's variables."""
        for source, target in zip(old.variables, new.variables, strict=True):
            value = ops.convert_to_numpy(source)
            for axis, alive in self.masks.get(id(source), {}).items():
                value = np.compress(alive, value, axis)
            if value.shape != tuple(target.shape):
                raise ValueError(
                    "A smaller layer must have the variables that are left of the "
                    "old one: see `resize` of its channel rule. Received: "
                    f"{source.path!r}, of which {value.shape} is left, for a variable "
                    f"of shape {tuple(target.shape)}"
                )
            target.assign(value)
        renew_state(old, new)

    def _alive(self, x: LabelledTensor) -> list[np.ndarray | None]:
        x = self.trace.atoms.refresh(x)
        masks: list[np.ndarray | None] = [None] * x.rank
        for axis in x.varying:
            labels = x.labels.reshape(-1).tolist()
            alive = np.array([label not in self.dead for label in labels])
            if not alive.all():
                masks[axis] = alive
        return masks

    def _is_cut(self, operation: Any, kept: Kept) -> bool:
        tensors = [*kept.inputs, *kept.outputs]
        return any(mask is not None for masks in tensors for mask in masks) or any(
            id(variable) in self.masks
            for variable in getattr(operation, "variables", ())
        )


def _resize_input(config: dict[str, Any], kept: Kept) -> dict[str, Any]:
    shape = kept.resized(0, config["batch_shape"], 0)
    return {**config, "batch_shape": tuple(shape)}


def _attribute(layer: Any, weight: str) -> Any:
    for name in weight.split("."):
        layer = getattr(layer, name)
    return layer
