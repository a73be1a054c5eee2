"""`find_channels`: which channels of a model live and die together.

Labels run through the graph once, call by call; see `labels`. What they were
joined to on the way are the units that can be removed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from pdp_keras.channels.labels import (
    FIXED,
    Atoms,
    LabelledTensor,
    Labels,
    Reason,
    fixed_tensor,
)
from pdp_keras.channels.own_layers import passes_channels_on
from pdp_keras.channels.rules.base import MAKES, AxisBook, LabelledAxis, computes_kernel
from pdp_keras.channels.rules.registry import ChannelCall, find_rule
from pdp_keras.models import child_layers, is_graph

_ONE_UNIT = Reason("structure", "they live and die together: they are one unit")


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelSlot:
    """One axis of a layer's weight, along which channels lie.

    Attributes:
        layer: the layer that owns the weight.
        path: names of the layers from the root down to it, `"block/conv"`.
        weight: attribute path of the weight, `"kernel"`; `""` for a layer without one.
        axis: counted from 0; -1 for a layer without a weight.
        role: what the axis is to them: `"makes"`, `"reads"`, `"follows"` or
            `"normalizes"`.
        group_of: for each place along the axis the index of its group in the plan,
            -1 where it cannot be removed.
        unit_of: likewise the index of its unit in this group.
    """

    layer: Any
    path: str
    weight: str
    axis: int
    role: str
    group_of: np.ndarray
    unit_of: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Units that are made by the same kernels and found in the same tensors.

    Attributes:
        name: the path of the first layer that makes them; `":2"` and so on behind it
            if that layer makes several groups.
        size: the number of units. A unit is one channel or several that live and die
            together.
        makers: the axes of the kernels that make them, in the order of the graph.
    """

    name: str
    size: int
    makers: tuple[ChannelSlot, ...]


@dataclasses.dataclass(frozen=True)
class FixedChannels:
    """Channels of a kernel that cannot be removed, and why.

    Attributes:
        path: the layer's path.
        weight: attribute path of the kernel.
        size: how many channels of the kernel.
        kind: `"output"` of the model, `"unknown"` layer or operation on their way, or
            `"structure"`: the graph mixes or combines them.
        reason: a sentence.
    """

    path: str
    weight: str
    size: int
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelPlan:
    """What of a model can be removed.

    Attributes:
        groups: the groups of channels.
        slots: all axes of weights along which channels lie, in graph order.
        fixed: the channels of kernels that cannot be removed.
        trace: the labels that the groups were read off.
    """

    groups: tuple[ChannelGroup, ...]
    slots: tuple[ChannelSlot, ...]
    fixed: tuple[FixedChannels, ...]
    trace: ChannelTrace = dataclasses.field(repr=False)


def find_channels(model: Any) -> ChannelPlan:
    """The groups of channels of a model that can be removed from it.

    Args:
        model: a built Sequential or Functional model of plain layers.

    Returns:
        A `ChannelPlan`. The same graph gives the same names, order and units.

    Raises:
        ValueError: if the model is neither Sequential nor Functional, or not built.

    Example:

    >>> plan = find_channels(keras.applications.MobileNetV2(weights=None))
    >>> [(group.name, group.size) for group in plan.groups][:2]
    [('Conv1', 32), ('expanded_conv_project', 16)]
    """
    trace = ChannelTrace(model)
    paths = dict(_paths(model, ""))
    units = trace.units()
    groups, where = _number_groups(trace, units)
    slots = tuple(_slot(axis, trace, paths, where) for axis in trace.book.values())
    makers: list[list[ChannelSlot]] = [[] for _ in groups]
    for slot in slots:
        if slot.role == MAKES:
            for group in np.unique(slot.group_of[slot.group_of >= 0]).tolist():
                makers[group].append(slot)
    names = _unique([slots_of[0].path for slots_of in makers])
    return ChannelPlan(
        tuple(
            ChannelGroup(name, len(units_of), tuple(slots_of))
            for name, units_of, slots_of in zip(names, groups, makers, strict=True)
        ),
        slots,
        tuple(_fixed_channels(trace, slots)),
        trace,
    )


class ChannelTrace:
    """The labels of all tensors and weights of a model.

    Attributes:
        atoms: the classes of labels.
        book: what lies along the axes of weights.
        calls: by the id of a layer or operation, inputs and outputs of each call.
    """

    def __init__(self, model: Any) -> None:
        if not is_graph(model) or not getattr(model, "inputs", None):
            raise ValueError(
                "The model must be a built Sequential or Functional model. Received: "
                f"{getattr(model, 'name', model)!r} of class {type(model).__name__}"
            )
        self.atoms = Atoms()
        self.book: AxisBook = {}
        self.calls: dict[
            int, list[tuple[list[LabelledTensor], list[LabelledTensor]]]
        ] = {}
        outputs = self._run(model, [fixed_tensor(x.shape) for x in model.inputs])
        for x in outputs:
            self.atoms.fix(x.labels, "output", "they are outputs of the model")
        self._make_rectangular()

    def units(self) -> list[Labels]:
        """For each tensor and weight axis the classes in it that can be removed."""
        found = {}
        for labels in self._all_labels():
            classes = np.unique(self.atoms.canonical(labels))
            classes = classes[classes != FIXED]
            found[classes.tobytes()] = classes
        return list(found.values())

    def _all_labels(self) -> Iterator[Labels]:
        for x in self._tensors():
            yield x.labels
        for axis in self.book.values():
            yield axis.labels

    def _tensors(self) -> Iterator[LabelledTensor]:
        for calls in self.calls.values():
            for inputs, outputs in calls:
                yield from inputs
                yield from outputs

    def _make_rectangular(self) -> None:
        """Lets labels vary along one axis of every tensor at most.

        Otherwise what is left of a tensor would be no array: of places in a grid,
        whole rows or whole columns can be removed.
        """
        grids = [x for x in self._tensors() if len(x.varying) > 1]
        while grids:
            grids = [x for x in map(self.atoms.refresh, grids) if len(x.varying) > 1]
            for x in map(self.atoms.refresh, grids):
                if len(x.varying) > 1:
                    keep = max(x.varying, key=lambda axis: x.labels.shape[axis])
                    for axis in x.varying:
                        if axis != keep:
                            self.atoms.join_along(x.labels, axis)

    def _run(self, model: Any, inputs: Sequence[LabelledTensor]) -> Any:
        function = model._functional if isinstance(model, keras.Sequential) else model
        tensors: dict[int, LabelledTensor] = {}
        for symbolic, labelled in zip(function.inputs, inputs, strict=True):
            tensors[id(symbolic)] = LabelledTensor(labelled.labels, symbolic.shape)
            operation = symbolic._keras_history.operation
            self.calls[id(operation)] = [([], [tensors[id(symbolic)]])]
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                if not node.is_input and all(
                    id(x) in tensors for x in node.input_tensors
                ):
                    outputs = self._visit(node, tensors)
                    tensors |= {
                        id(x): y for x, y in zip(node.outputs, outputs, strict=True)
                    }
        return [tensors[id(x)] for x in function.outputs]

    def _visit(
        self, node: Any, tensors: dict[int, LabelledTensor]
    ) -> list[LabelledTensor]:
        given = {id(x): self.atoms.refresh(tensors[id(x)]) for x in node.input_tensors}

        def labelled(x: Any) -> Any:
            return given[id(x)] if isinstance(x, keras.KerasTensor) else x

        call = ChannelCall(
            node.operation,
            tree.map_structure(labelled, node.arguments.args),
            tree.map_structure(labelled, node.arguments.kwargs),
            [x.shape for x in node.outputs],
            self.atoms,
            self.book,
        )
        outputs = (
            self._enter(call) if is_graph(node.operation) else self._follow_rule(call)
        )
        self.calls.setdefault(id(node.operation), []).append((call.inputs, outputs))
        return outputs

    def _follow_rule(self, call: ChannelCall) -> list[LabelledTensor]:
        rule = find_rule(type(call.layer))
        if rule is None:
            if len(call.inputs) == len(call.output_shapes) == 1 and passes_channels_on(
                call.layer, call.inputs[0].shape
            ):
                return [call.first()]
            return call.unknown()
        if computes_kernel(call.layer):
            return call.unknown(f"layer {call.layer.name!r} computes its kernel")
        if rule.by_place and not self._agree(call):
            return call.unknown(f"layer {call.layer.name!r} is called on other shapes")
        result = rule.trace(call)
        outputs = result if isinstance(result, list) else [result]
        return [self.atoms.refresh(x) for x in outputs]

    def _agree(self, call: ChannelCall) -> bool:
        """Joins the inputs of all calls, place by place; False if they differ."""
        for inputs, outputs in self.calls.get(id(call.layer), ()):
            same = [x.shape for x in inputs] == [x.shape for x in call.inputs]
            if not same:
                for x in (*inputs, *outputs):
                    self.atoms.fix(
                        x.labels,
                        "unknown",
                        f"layer {call.layer.name!r} is called on other shapes",
                    )
                return False
            for x, y in zip(inputs, call.inputs, strict=True):
                self.atoms.join(x.labels, y.labels)
        return True

    def _enter(self, call: ChannelCall) -> list[LabelledTensor]:
        """Runs through a nested model: once, whatever the number of its calls."""
        model = call.layer
        inputs = _ordered_inputs(call)
        earlier = self.calls.get(id(model), [])
        if inputs is None:
            for _, outputs in earlier:
                for x in outputs:
                    self.atoms.fix(x.labels, "unknown", f"model {model.name!r}")
            for symbolic in model.inputs or ():
                for _, outputs in self.calls.get(
                    id(symbolic._keras_history.operation), ()
                ):
                    for x in outputs:
                        self.atoms.fix(x.labels, "unknown", f"model {model.name!r}")
            return call.unknown(f"model {model.name!r} is given other inputs than its")
        call.inputs = inputs
        if earlier:
            for x, y in zip(earlier[0][0], inputs, strict=True):
                self.atoms.join(x.labels, y.labels)
            labels = [x.labels for x in earlier[0][1]]
        else:
            labels = [x.labels for x in self._run(model, inputs)]
        return [
            self.atoms.refresh(LabelledTensor(x, shape))
            for x, shape in zip(labels, call.output_shapes, strict=True)
        ]


def _ordered_inputs(call: ChannelCall) -> list[LabelledTensor] | None:
    """The inputs of a nested model in its own order; None if they do not fit it."""
    model = call.layer
    given = call.args[0] if len(call.args) == 1 else None
    symbolic = model.inputs
    if not symbolic or given is None or len(call.inputs) != len(symbolic):
        return None
    if isinstance(given, dict) and not isinstance(
        getattr(model, "_inputs_struct", None), dict
    ):
        if set(given) != {x.name for x in symbolic}:
            return None
        inputs = [given[x.name] for x in symbolic]
    else:
        inputs = tree.flatten(given)
    fits = all(
        isinstance(x, LabelledTensor)
        and len(x.shape) == len(own.shape)
        and all(
            a == b or None in (a, b) for a, b in zip(x.shape, own.shape, strict=True)
        )
        for x, own in zip(inputs, symbolic, strict=True)
    )
    return inputs if fits else None


def _paths(layer: Any, path: str) -> Iterator[tuple[int, str]]:
    """The path by which a layer is first found, by its id. The root has none."""
    seen: set[int] = set()

    def walk(layer: Any, path: str) -> Iterator[tuple[int, str]]:
        for child in child_layers(layer):
            below = f"{path}/{child.name}" if path else child.name
            if id(child) not in seen:
                seen.add(id(child))
                yield id(child), below
                yield from walk(child, below)

    yield from walk(layer, path)


def _number_groups(
    trace: ChannelTrace, units: list[Labels]
) -> tuple[list[list[int]], dict[int, tuple[int, int]]]:
    """Groups of classes, and the group and place in it of each class.

    A group's classes are found in the same tensors and weights. So if one class of
    each group is left, something is left of every tensor.
    """
    signatures: dict[int, list[int]] = {}
    for i, classes in enumerate(units):
        for label in classes.tolist():
            signatures.setdefault(label, []).append(i)
    by_signature: dict[tuple[int, ...], dict[int, None]] = {}
    for axis in trace.book.values():
        if axis.role == MAKES:
            for label in trace.atoms.canonical(axis.labels).tolist():
                if label != FIXED:
                    key = tuple(signatures[label])
                    by_signature.setdefault(key, {})[label] = None
    groups = [list(classes) for classes in by_signature.values() if len(classes) > 1]
    where = {
        label: (group, unit)
        for group, classes in enumerate(groups)
        for unit, label in enumerate(classes)
    }
    return groups, where


def _slot(
    axis: LabelledAxis,
    trace: ChannelTrace,
    paths: dict[int, str],
    where: dict[int, tuple[int, int]],
) -> ChannelSlot:
    places = [
        where.get(label, (-1, -1))
        for label in trace.atoms.canonical(axis.labels).tolist()
    ]
    group_of, unit_of = np.array(places).reshape(-1, 2).T
    path = paths.get(id(axis.layer), axis.layer.name)
    return ChannelSlot(
        axis.layer, path, axis.weight, axis.axis, axis.role, group_of, unit_of
    )


def _fixed_channels(
    trace: ChannelTrace, slots: Sequence[ChannelSlot]
) -> Iterator[FixedChannels]:
    for axis, slot in zip(trace.book.values(), slots, strict=True):
        if slot.role != MAKES:
            continue
        count: dict[Reason, int] = {}
        for label in axis.labels[slot.group_of < 0].tolist():
            reason = trace.atoms.reason(label) or _ONE_UNIT
            count[reason] = count.get(reason, 0) + 1
        for reason, size in count.items():
            yield FixedChannels(slot.path, slot.weight, size, reason.kind, reason.text)


def _unique(names: Sequence[str]) -> list[str]:
    """The names, `":2"` and so on behind those that came before."""
    count: dict[str, int] = {}
    result = []
    for name in names:
        count[name] = count.get(name, 0) + 1
        result.append(name if count[name] == 1 else f"{name}:{count[name]}")
    return result
