"""Which channels of a model are pruned, and what each of its layers has to do.

The graph says which channels belong together (`trace`); what the user wants
(filters, sparsity, allocation) and what can be masked decides which of them become
`ChannelGroup`s. Channels that an unknown layer sees, and all of a subclassed model,
are groups of one kernel, kept as zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from pdp_keras import allocation as allocations
from pdp_keras import methods
from pdp_keras.channels.axes import Axis
from pdp_keras.channels.classes import must_keep_class, without_argument
from pdp_keras.channels.gates import is_batch_normalization, is_gate
from pdp_keras.channels.group import ChannelGroup, Maker
from pdp_keras.channels.rules.base import has_no_rule, no_rule
from pdp_keras.channels.trace import ChannelPlan, ChannelSlot, find_channels
from pdp_keras.channels.wrapper import ChannelWrapper
from pdp_keras.layers import UNSET, can_normalize
from pdp_keras.methods import Method
from pdp_keras.models import Kernel, find_kernels, is_graph
from pdp_keras.modes import Channel

_ROLES = ("makes", "reads", "normalizes", "gates")
_NO_GRAPH = "kept as zeros: a subclassed model has no graph to remove channels from"


@dataclasses.dataclass
class _Part:
    """A group to be: its kernels, and what an allocation gave it."""

    label: str
    units: int
    makers: list[Maker]
    removable: bool
    paths: list[str]
    gates: int = 0
    target_zeros: int = UNSET

    @property
    def channels_each(self) -> int:
        return max(1, int((self.makers[0].unit_of >= 0).sum()) // self.units)


@dataclasses.dataclass
class _Work:
    """What the wrapper of one layer has to do, by group label."""

    path: str
    axes: dict[str, list[tuple[str, int, list[str], Sequence[int]]]]
    reasons: dict[str, str]
    order: int = 0


class ChannelPlanner:
    """Decides on the groups of a model and wraps its layers.

    Args:
        model: the model, plain and built.
        has_graph: whether it is Sequential or Functional.
        mode: the mode.
        method: how the mask is made in training.
        sparsity: fraction of channels to prune.
        allocation: as for `prune_model`.
        temperature: as for `prune_model`.
        is_chosen: whether the user's filters choose a kernel.
        filters_given: whether there are any.

    Raises:
        ValueError: if there is nothing to prune, or the method or the allocation
            does not fit.
    """

    def __init__(
        self,
        model: Any,
        has_graph: bool,
        mode: Channel,
        method: Method,
        sparsity: float,
        allocation: Any,
        temperature: Any,
        is_chosen: Callable[[Kernel], bool],
        filters_given: bool,
    ) -> None:
        self.mode = mode
        self.method = method
        self.sparsity = sparsity
        self.temperature = methods.resolve_temperature(method, mode, temperature)
        self.deferred = allocations.is_deferred(allocation)
        self.allocation = allocation if self.deferred else "uniform"
        self._is_chosen = is_chosen
        # Layers that the class of the model fixes, unless the user chooses them.
        free = filters_given and not must_keep_class(model)
        self._of_class = {} if free else without_argument(model)
        self._parts: dict[str, _Part] = {}
        self._work: dict[int, _Work] = {}
        self._groups: dict[str, ChannelGroup] = {}
        # Where a layer is first met in the graph.
        self._order: dict[int, int] = {}
        self._in_graph: set[int] = set()
        # Why channels of kernels are not removed that no wrapper speaks of.
        self._elsewhere: dict[str, str] = {}
        kernels, _ = find_kernels(model)
        self._kernels = {kernel.full_name: kernel for kernel in kernels}
        if has_graph:
            self._plan_graph(model)
        else:
            outputs = set() if filters_given else _output_layers(model)
            for kernel in kernels:
                if id(kernel.owner) not in outputs:
                    self._plan_zeros(kernel, _NO_GRAPH)
        if not self._parts:
            raise ValueError(
                "The model must have channels that can be pruned: outputs of a layer "
                "that do not reach the model's outputs. "
                f"Received: model={model.name!r} without any that were chosen"
                f"{_shown(self._elsewhere, _graph_layers(model) if has_graph else ())}"
            )
        if method.needs_gates and not any(p.gates for p in self._parts.values()):
            raise ValueError(
                f"method={method.name!r} needs channels that pass a "
                "BatchNormalization directly in front of a ReLU. "
                f"Received: model={model.name!r} without any that were chosen"
            )
        if not self.deferred:
            self._allocate(allocation)

    def wrap(self, old: Any, new: Any) -> Any:
        """The new layer, in a wrapper if it has something to do."""
        work = self._work_of(old)
        if work is None:
            return new
        labels = sorted(
            {
                label
                for axes in work.axes.values()
                for _, _, owners, _ in axes
                for label in owners
                if label
            }
        )
        index = {label: i for i, label in enumerate(labels)} | {"": -1}
        arguments = {
            role: [
                Axis(
                    weight,
                    axis,
                    tuple(index[label] for label in owners),
                    tuple(int(unit) for unit in units),
                )
                for weight, axis, owners, units in axes
            ]
            for role, axes in work.axes.items()
        }
        elsewhere, self._elsewhere = self._elsewhere, {}
        return ChannelWrapper(
            new,
            [self._group(label) for label in labels],
            **arguments,
            reasons=work.reasons,
            path=work.path,
            order=work.order,
            elsewhere=elsewhere,
        )

    def has_work(self, layer: Any) -> bool:
        """Whether a layer of the model needs a wrapper."""
        return self._work_of(layer) is not None

    def _plan_graph(self, model: Any) -> None:
        plan = find_channels(model)
        self._in_graph = {id(layer) for layer in _graph_layers(model)}
        slots_of: list[list[ChannelSlot]] = [[] for _ in plan.groups]
        for slot in plan.slots:
            for index in set(slot.group_of.tolist()) - {-1}:
                slots_of[index].append(slot)
        against = [
            self._reason_against(group.size, slots)
            for group, slots in zip(plan.groups, slots_of, strict=True)
        ]
        labels = [
            "" if reason else group.name
            for group, reason in zip(plan.groups, against, strict=True)
        ]
        for index, (group, label) in enumerate(zip(plan.groups, labels, strict=True)):
            if label:
                makers = [self._maker(slot, index) for slot in group.makers]
                paths = sorted({slot.path for slot in slots_of[index]})
                self._parts[label] = _Part(label, group.size, makers, True, paths)
        for order, slot in enumerate(plan.slots):
            self._order.setdefault(id(slot.layer), order)
        gates = self._gates(plan) if self.method.needs_gates else {}
        for slot in plan.slots:
            owners = ["" if g < 0 else labels[g] for g in slot.group_of.tolist()]
            role = slot.role
            if id(slot) in gates:
                shut = gates[id(slot)]
                kept = [g in shut for g in slot.group_of.tolist()]
                owners = [x if k else "" for x, k in zip(owners, kept, strict=True)]
                role = "gates"
                for label in set(owners) - {""}:
                    self._parts[label].gates += 1
            if role in _ROLES and any(owners):
                units = np.where(np.array(owners) == "", -1, slot.unit_of)
                axis = (slot.weight, slot.axis, owners, units.tolist())
                work = self._work_at(slot.layer, slot.path)
                work.axes.setdefault(role, []).append(axis)
        # An unknown layer may well be an activation of the last kernel's outputs.
        last = {id(layer) for tensor in model.outputs for layer in _makers_of(tensor)}
        for fixed in plan.fixed:
            kernel = self._kernels.get(f"{fixed.path}/{fixed.weight}")
            if kernel is None:
                continue
            if fixed.kind == "unknown" and id(kernel.owner) not in last:
                self._plan_zeros(kernel, f"kept as zeros: {fixed.reason}")
            elif id(kernel.owner) in self._work:
                self._work[id(kernel.owner)].reasons[fixed.weight] = fixed.reason
            else:
                self._elsewhere[kernel.full_name] = fixed.reason
        for group, reason in zip(plan.groups, against, strict=True):
            for slot in group.makers if reason else ():
                self._elsewhere[f"{slot.path}/{slot.weight}"] = reason
        names = {id(k.variable): name for name, k in self._kernels.items()}
        for layer in filter(has_no_rule, _graph_layers(model)):
            for kernel in find_kernels(layer)[0]:
                # Up to the layer: those inside of a copy may have other names.
                above, _, _ = names[id(kernel.variable)].partition(f"{layer.name}/")
                self._elsewhere[f"{above}{layer.name}"] = no_rule(layer)

    def _gates(self, plan: ChannelPlan) -> dict[int, set[int]]:
        """By the id of its slot, the groups that each gate may shut.

        A channel is shut if nothing of it is left behind any normalization. So a group
        has gates if all normalizations that it passes are such.
        """
        slots = [
            slot
            for slot in plan.slots
            if slot.role == "follows" and is_batch_normalization(slot.layer)
        ]
        open_groups: set[int] = set()
        found: dict[int, set[int]] = {}
        for slot in slots:
            groups = set(slot.group_of.tolist()) - {-1}
            in_graph = id(slot.layer) in self._in_graph
            if not in_graph or not is_gate(slot.layer, plan.trace.calls):
                open_groups |= groups
            elif slot.weight == "beta":
                found[id(slot)] = groups
        return {key: groups - open_groups for key, groups in found.items()}

    def _reason_against(self, units: int, slots: Iterable[ChannelSlot]) -> str:
        """Why a group is not pruned, though its channels could be removed, or ""."""
        if units <= self.mode.min_channels:
            return f"its {units} channels are not more than min_channels"
        for slot in slots:
            if slot.role == "normalizes" and not self._can_normalize(slot.layer):
                return f"{slot.path!r} normalizes across them, within another layer"
            if slot.role == "makes" and id(slot.layer) in self._of_class:
                return self._of_class[id(slot.layer)]
            kernel = self._kernels.get(f"{slot.path}/{slot.weight}")
            # A depthwise kernel only follows what another one makes.
            if slot.role != "makes" or kernel is None or not kernel.axes.inputs:
                continue
            if not self._is_chosen(kernel):
                return f"{slot.path!r}, which makes them, is not chosen by `filters`"
        return ""

    def _can_normalize(self, layer: Any) -> bool:
        # A wrapper around a layer with sublayers computes with masked weights, but
        # cannot change how a sublayer normalizes.
        return id(layer) in self._in_graph and can_normalize(layer)

    def _maker(self, slot: ChannelSlot, index: int) -> Maker:
        kernel = self._kernels[f"{slot.path}/{slot.weight}"]
        units = np.where(slot.group_of == index, slot.unit_of, -1)
        return Maker(kernel.full_name, kernel.variable, slot.axis, units)

    def _plan_zeros(self, kernel: Kernel, reason: str) -> None:
        """A group of one kernel, whose dead channels stay as zeros."""
        if not _has_plain_outputs(kernel) or not self._is_chosen(kernel):
            return
        axis = kernel.axes.outputs[0]
        units = kernel.shape[axis]
        label = kernel.path
        # Some of a kernel's channels may be removable and others not.
        if units <= self.mode.min_channels or label in self._parts:
            return
        places = np.arange(units)
        maker = Maker(kernel.full_name, kernel.variable, axis, places)
        self._parts[label] = _Part(label, units, [maker], False, [kernel.path])
        work = self._work_at(kernel.owner, kernel.path)
        owners = [label] * units
        made = (kernel.name, axis, owners, places.tolist())
        work.axes.setdefault("makes", []).append(made)
        work.axes.setdefault("zeroes", []).append(made)
        if getattr(kernel.owner, "bias", None) is not None:
            bias = ("bias", 0, owners, places.tolist())
            work.axes["zeroes"].append(bias)
        work.reasons[kernel.name] = reason

    def _work_at(self, layer: Any, path: str) -> _Work:
        order = self._order.get(id(layer), len(self._work))
        return self._work.setdefault(id(layer), _Work(path, {}, {}, order))

    def _work_of(self, layer: Any) -> _Work | None:
        if id(layer) in self._work:
            return self._work[id(layer)]
        # A layer with sublayers: only zeros, which need no graph.
        together = _Work(layer.name, {}, {})
        for number, kernel in enumerate(find_kernels(layer)[0]):
            inner = self._work.get(id(kernel.owner))
            if inner is None:
                continue
            together.path, together.order = inner.path, inner.order
            for role, axes in inner.axes.items():
                found = together.axes.setdefault(role, [])
                for weight, axis, owners, units in axes:
                    if weight in ("bias", kernel.name):
                        suffix = ".bias" if weight == "bias" else ""
                        found.append((f"#{number}{suffix}", axis, owners, units))
            together.reasons |= {f"#{number}": r for r in inner.reasons.values()}
        return together if together.axes else None

    def _allocate(self, allocation: Any) -> None:
        parts = list(self._parts.values())
        infos = [self._describe(part) for part in parts]
        zeros = allocations.get(allocation)(infos, self.sparsity)
        for part, count in zip(parts, zeros, strict=True):
            part.target_zeros = self.mode.limit_zeros(
                count, part.units, part.channels_each
            )

    def _describe(self, part: _Part) -> allocations.WeightInfo:
        group = self._make_group(part)
        for maker in part.makers:
            group.add_maker(maker)
        return group.describe()

    def _group(self, label: str) -> ChannelGroup:
        if label not in self._groups:
            self._groups[label] = self._make_group(self._parts[label])
        return self._groups[label]

    def _make_group(self, part: _Part) -> ChannelGroup:
        return ChannelGroup(
            part.label,
            part.units,
            len(part.makers),
            part.channels_each,
            sparsity=self.sparsity,
            target_zeros=part.target_zeros,
            mode=self.mode,
            method=self.method,
            temperature=self.temperature if self.method.is_soft else None,
            allocation=self.allocation,
            layer_paths=part.paths,
            removable=part.removable,
            gates=part.gates,
        )


# So many reasons an error shows.
_SHOWN = 3


def _shown(reasons: dict[str, str], layers: Iterable[Any]) -> str:
    """The end of the error of a model without channels: what stopped them."""
    names = {reason: name for name, reason in reversed(reasons.items())}
    lines = [f"{name}: {reason}" for reason, name in reversed(names.items())][:_SHOWN]
    without = next(filter(has_no_rule, layers), None)
    if without is not None:
        lines.append(
            "where each channel passes by itself, two lines are a rule: "
            "`rule = pdp_keras.ChannelRule(lambda call: call.first())` and "
            f"`pdp_keras.register_channel_rule({type(without).__name__}, rule)`"
        )
    return "".join(f"; {line}" for line in lines)


def _graph_layers(model: Any) -> Iterator[Any]:
    """The layers of a graph and of the graphs nested in it, which are all wrapped."""
    for layer in model.layers:
        if is_graph(layer):
            yield from _graph_layers(layer)
        else:
            yield layer


def _output_layers(model: Any) -> set[int]:
    """Ids of the layers that make the outputs of a subclassed model.

    Raises:
        ValueError: if a symbolic call does not show them.
    """
    shapes = model.get_build_config() or {}
    try:
        if "shapes_dict" in shapes:
            arguments = {
                name.removesuffix("_shape"): _symbolic_input(shape)
                for name, shape in shapes["shapes_dict"].items()
            }
            outputs = model.call(**arguments)
        else:
            outputs = model.call(_symbolic_input(shapes["input_shape"]))
        found = {
            id(layer)
            for tensor in tree.flatten(outputs)
            for layer in _makers_of(tensor)
        }
    except Exception as error:
        raise ValueError(
            "It must be plain which layers make the model's outputs, whose channels "
            "cannot be pruned; a subclassed model has no graph that shows it. Say with "
            "`filters` which layers to prune. "
            f"Received: model={model.name!r} ({type(error).__name__}: {error})"
        ) from error
    return found


def _symbolic_input(shape: Any) -> Any:
    if isinstance(shape, dict):
        return {name: _symbolic_input(part) for name, part in shape.items()}
    if shape and isinstance(shape[0], list | tuple):
        return [_symbolic_input(part) for part in shape]
    return keras.Input(batch_shape=tuple(shape))


def _makers_of(tensor: Any) -> Iterator[Any]:
    """The layers with kernels from which a tensor comes without another between."""
    operation = tensor._keras_history.operation
    layers = (
        [x for x in operation._flatten_layers() if find_kernels(x)[0]]
        if isinstance(operation, keras.layers.Layer)
        else []
    )
    if layers:
        yield from layers
        return
    for node in operation._inbound_nodes:
        for parent in node.input_tensors:
            if parent._keras_history.operation is not operation:
                yield from _makers_of(parent)


def _has_plain_outputs(kernel: Kernel) -> bool:
    """Whether zeros in the kernel and the bias make an output of the layer zero."""
    is_cell = hasattr(kernel.owner, "recurrent_kernel")  # its outputs are gates
    named = kernel.name in ("kernel", "pointwise_kernel")
    return bool(kernel.axes.inputs) and named and not is_cell
