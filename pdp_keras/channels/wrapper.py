"""`ChannelWrapper`: a layer that makes, or reads masked, the channels of groups."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from pdp_keras.channels.axes import Axis, read_axes
from pdp_keras.channels.group import ChannelGroup, Gate, Maker, Reader
from pdp_keras.configs import (
    INTEGER,
    LIST,
    TEXT,
    TEXTS,
    Rule,
    require_keys,
    sequence_of,
    shown,
)
from pdp_keras.layers import MaskedLayer, can_normalize, masked_normalization
from pdp_keras.masks import masked_noting_norms, read, recomputed
from pdp_keras.models import find_kernels

Tensor = Any

_GROUPS = sequence_of(
    Rule("a ChannelGroup", lambda value: isinstance(value, ChannelGroup)),
    "a list of ChannelGroup",
)
_REASONS = Rule(
    "a dict of text",
    lambda value: isinstance(value, dict) and TEXTS.holds([*value, *value.values()]),
)
# What alone is made where a group stands.
_GROUP = {
    "class_name": ChannelGroup.__name__,
    "registered_name": keras.saving.get_registered_name(ChannelGroup),
}
# What Keras would build and compile a group by.
_OF_BUILT = ("build_config", "compile_config")


@keras.saving.register_keras_serializable(package="pdp_keras")
class ChannelWrapper(MaskedLayer):
    """Lets a layer take part in channel groups; `prune_model` makes it.

    The kernels in `makes` are what their groups score. Those in `reads` are
    multiplied by the masks of the channels that they sum over: soft in training,
    hard otherwise. A normalization in `normalizes` computes its statistics with the
    masks as weights. So the layer's outputs are those of the smaller layer, which
    `strip_pruning` puts in its place. Channels in `zeroes` cannot be removed; they
    are masked where they are made. A BatchNormalization with `gates` stands in front
    of a ReLU; the method of its groups looks at its shift.

    Args:
        layer: the layer, built or not.
        groups: the `ChannelGroup`s that it has to do with, shared with others.
        makes, reads, normalizes, zeroes, gates: `Axis` objects (or their dicts).
        reasons: why kernels of the layer have channels that are not removed.
        elsewhere: why those of layers without a wrapper have, by their full names; one
            wrapper of a model keeps it for all.
        path: the layer's path in the model.
        order: its place in the order of the graph.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: for arguments of another type, and, when built, for axes that do
            not fit the layer's weights and the groups.
    """

    def __init__(
        self,
        layer: Any,
        groups: Sequence[ChannelGroup],
        makes: Sequence[Any] = (),
        reads: Sequence[Any] = (),
        normalizes: Sequence[Any] = (),
        zeroes: Sequence[Any] = (),
        reasons: dict[str, str] | None = None,
        path: str | None = None,
        gates: Sequence[Any] = (),
        order: int = 0,
        elsewhere: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        _GROUPS.require("groups", groups)
        reasons = {} if reasons is None else reasons
        _REASONS.require("reasons", reasons)
        elsewhere = {} if elsewhere is None else elsewhere
        _REASONS.require("elsewhere", elsewhere)
        if path is not None:
            TEXT.require("path", path)
        INTEGER.require("order", order)
        super().__init__(layer, **kwargs)
        self.groups = list(groups)
        self.path_in_model = path or layer.name
        self.makes = read_axes("makes", makes)
        self.reads = read_axes("reads", reads)
        self.normalizes = read_axes("normalizes", normalizes)
        self.zeroes = read_axes("zeroes", zeroes)
        self.gates = read_axes("gates", gates)
        self.reasons = dict(reasons)
        self.elsewhere = dict(elsewhere)
        self.order = order

    @property
    def is_scheduled(self) -> bool:
        """Whether a callback drives one of the groups."""
        return any(group.is_scheduled for group in self.groups)

    @is_scheduled.setter
    def is_scheduled(self, value: bool) -> None:
        for group in self.groups:
            group.is_scheduled = value

    def build_state(self) -> None:
        """Builds the groups and takes part in them."""
        self._require_fit()
        for group in self.groups:
            if not group.built:
                group.build()
        for made in self.makes:
            for group, maker in self._parts(made):
                group.add_maker(maker)
        for read_axis in self.reads:
            makes = tuple(
                part
                for made in self.makes
                if made.weight == read_axis.weight
                for part in self._parts(made)
            )
            for group, part in self._parts(read_axis):
                group.add_reader(Reader(**vars(part), makes=makes))
        for gate in self.gates:
            for group, part in self._parts(gate):
                scale = self.layer.gamma
                group.add_gate(Gate(part.path, part.variable, scale, part.unit_of))

    def _require_fit(self) -> None:
        sizes = [group.units for group in self.groups]
        if self.normalizes and not can_normalize(self.layer):
            raise ValueError(
                "normalizes must be empty but for a normalization over channels. "
                f"Received: layer={self.layer!r}"
            )
        roles = (self.makes, self.reads, self.normalizes, self.zeroes, self.gates)
        for axis in itertools.chain(*roles):
            axis.require_fit(self._shape_along(axis), sizes)
        for weight in self.reasons:
            self._require_variable(weight)
        if self.gates and not hasattr(self.layer, "gamma"):
            raise ValueError(
                "gates must be empty but for a BatchNormalization. "
                f"Received: layer={self.layer!r}"
            )

    def _shape_along(self, axis: Axis) -> Sequence[int]:
        if axis.weight or axis not in self.normalizes:
            shape: Sequence[int] = self._require_variable(axis.weight).shape
            return shape
        # A UnitNormalization has no weights: its inputs have as many places.
        return [len(axis.groups)] * len(_normalized_axes(self.layer))

    def _require_variable(self, weight: str) -> Any:
        try:
            found = self._variable(weight)
        except (AttributeError, IndexError, ValueError):
            found = None
        if not isinstance(found, keras.Variable):
            raise ValueError(
                "An axis must name a weight of its layer. "
                f"Received: {shown(weight)}, layer={self.layer!r}"
            )
        return found

    def _parts(self, axis: Axis) -> Iterator[tuple[ChannelGroup, Maker]]:
        """The groups whose channels lie along an axis, and where."""
        path = f"{self.path_in_model}/{axis.weight}"
        variable = self._variable(axis.weight)
        rank = len(variable.shape)
        for index in sorted(set(axis.groups) - {-1}):
            units = np.where(np.array(axis.groups) == index, axis.units, -1)
            part = Maker(path, variable, axis.axis % rank, units, self.order)
            yield self.groups[index], part

    def call(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Runs the layer with masked weights: soft in training, hard otherwise."""
        if training:
            self._start_call()
        masked = [*self.reads, *self.zeroes]
        variables = {id(v): v for v in (self._variable(a.weight) for a in masked)}
        is_simple = len(variables) == 1 and not self._notes_gradients
        if training and self.is_scheduled and is_simple:
            (kernel,) = variables.values()
            known = self.layer, kernel, args, kwargs
            if not self.normalizes and recomputed.is_worth_it(*known):
                masks = [self._broadcast_mask(axis, kernel, True) for axis in masked]
                return recomputed.call(self.layer, args[0], kernel, _product, *masks)
        return super().call(*args, training=training, **kwargs)

    def _start_call(self) -> None:
        for gate in self.gates:
            for group, part in self._parts(gate):
                if group.gates[0].path == part.path:
                    loss = group.method.start_call(group)
                    if loss is not None:
                        self.add_loss(loss)

    def masked_values(self, training: bool) -> list[tuple[Any, Tensor]]:
        """The kernels that read channels, multiplied by their masks."""
        values: dict[int, tuple[Any, Tensor]] = {}
        for axis in (*self.reads, *self.zeroes):
            self._apply_mask(axis, training, values)
        return list(values.values())

    def living_weights(self) -> list[tuple[Any, Tensor]]:
        """Every kernel of a group with all that inference never uses set to 0."""
        values: dict[int, tuple[Any, Tensor]] = {}
        for axis in (*self.reads, *self.makes):
            self._apply_mask(axis, False, values)
        return list(values.values())

    def reasons_by_variable(self) -> list[tuple[Any, str]]:
        """Why channels that a kernel makes are not removed."""
        return [(self._variable(name), why) for name, why in self.reasons.items()]

    def kept_outputs(self, variable: Any) -> tuple[int, int] | None:
        """How many of the channels that a kernel makes are left, and of how many."""
        for axis in self.makes:
            if self._variable(axis.weight) is variable:
                mask = read(self._mask_along(axis, training=False))
                return int((mask > 0).sum()), len(mask)
        return None

    def group_of(self, variable: Any) -> ChannelGroup | None:
        """The first group whose channels a kernel makes."""
        for axis in self.makes:
            if self._variable(axis.weight) is variable:
                return self.groups[max(axis.groups)]
        return None

    def _apply_mask(
        self, axis: Axis, training: bool, values: dict[int, tuple[Any, Tensor]]
    ) -> None:
        variable = self._variable(axis.weight)
        _, value = values.get(id(variable), (None, variable.value))
        mask = self._broadcast_mask(axis, variable, training)
        mask = ops.cast(mask, value.dtype)
        # A bias is no kernel.
        if training and self._notes_gradients and len(mask.shape) > 1:
            place = axis.axis % len(mask.shape)
            parts = self._parts(axis)
            notes = [(group.extras["gradient"], part.unit_of) for group, part in parts]
            masked = masked_noting_norms(value, mask, place, notes)
        else:
            masked = value * mask
        values[id(variable)] = (variable, masked)

    @property
    def _notes_gradients(self) -> bool:
        return any(group.method.notes_gradients for group in self.groups)

    def _broadcast_mask(self, axis: Axis, variable: Any, training: bool) -> Tensor:
        shape = [1] * len(variable.shape)
        shape[axis.axis] = variable.shape[axis.axis]
        return ops.reshape(self._mask_along(axis, training), shape)

    def _variable(self, weight: str) -> Any:
        if not weight.startswith("#"):
            return operator.attrgetter(weight)(self.layer)
        number, _, bias = weight[1:].partition(".")
        kernel = find_kernels(self.layer)[0][int(number)]
        return kernel.owner.bias if bias else kernel.variable

    def runner(self, training: bool) -> Callable[..., Any]:
        """The layer, or its masked form if it normalizes over channels."""
        if not self.normalizes:
            return super().runner(training)
        # Its weights, gamma and beta, all have the same channels.
        normalized = self.normalizes[0]
        mask = self._mask_along(normalized, training)
        axis = _input_axis(self.layer, normalized)
        return functools.partial(masked_normalization, self.layer, mask, axis)

    @property
    def added_variables(self) -> list[Any]:
        """The counters of the groups."""
        return [variable for group in self.groups for variable in group.variables]

    def own_config(self) -> dict[str, Any]:
        """All but the layer; groups as objects, which Keras saves once and shares."""
        for group in self.groups:
            # Keras marks an object as shared when it meets it for the second time, and
            # mends the first config afterwards; but a nested model has copied that one
            # by then. So nothing that is kept may be the first.
            keras.saving.serialize_keras_object(group)
        return {
            **super().own_config(),
            "groups": self.groups,
            "path": self.path_in_model,
            "makes": [dataclasses.asdict(axis) for axis in self.makes],
            "reads": [dataclasses.asdict(axis) for axis in self.reads],
            "normalizes": [dataclasses.asdict(axis) for axis in self.normalizes],
            "zeroes": [dataclasses.asdict(axis) for axis in self.zeroes],
            "gates": [dataclasses.asdict(axis) for axis in self.gates],
            "reasons": self.reasons,
            **({"elsewhere": self.elsewhere} if self.elsewhere else {}),
            "order": self.order,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The inverse of `get_config`, after Keras has serialized it.

        Raises:
            ValueError: if it is none of this class.
        """
        return super().from_config(
            cls.deserialize_groups(config, custom_objects), custom_objects
        )

    @staticmethod
    def deserialize_groups(
        config: dict[str, Any], custom_objects: Any = None
    ) -> dict[str, Any]:
        """The config with group objects, each made once for all wrappers of a model.

        Raises:
            ValueError: if it is none of this class, or has anything else as a group.
        """
        require_keys(f"a {ChannelWrapper.__name__}", config, ("groups", "path"))
        path, groups = config["path"], config["groups"]
        TEXT.require("path", path)
        LIST.require("groups", groups)
        made = [_make_group(group, path, custom_objects) for group in groups]
        return {**config, "groups": made}

    def _mask_along(self, axis: Axis, training: bool) -> Tensor:
        """The mask of every place along an axis, float32; 1 where it has no group."""
        used = sorted(set(axis.groups) - {-1})
        groups = [self.groups[index] for index in used]
        masks = [group.mask(training) for group in groups]
        starts = np.cumsum([0, *(group.units for group in groups)])
        offset = dict(zip(used, starts[:-1].tolist(), strict=True))
        places = [
            int(starts[-1]) if group < 0 else offset[group] + unit
            for group, unit in zip(axis.groups, axis.units, strict=True)
        ]
        if places == list(range(int(starts[-1]))) and len(masks) == 1:
            return masks[0]
        together = ops.concatenate([*masks, ops.ones((1,), dtype="float32")])
        return ops.take(together, np.array(places, dtype="int32"))


def _make_group(group: Any, path: str, custom_objects: Any) -> Any:
    """A group: from another model's, or from what Keras has serialized."""
    if isinstance(group, ChannelGroup):
        return ChannelGroup.shared_copy(group.get_config(), path)
    require_keys("a group of channels", group, (*_GROUP, "config"))
    # Keras makes whatever else these say.
    for key, value in _GROUP.items():
        if group[key] != value:
            raise ValueError(
                f"{key} of a group of channels must be {value!r}. "
                f"Received: {key}={shown(group[key])}"
            )
    require_keys("a group of channels", group["config"])
    if "shared_object_id" not in group:
        return ChannelGroup.shared_copy(group["config"], path)
    INTEGER.require("shared_object_id", group["shared_object_id"])
    # The wrappers build it, once they know that it fits.
    made = {k: v for k, v in group.items() if k not in _OF_BUILT}
    return keras.saving.deserialize_keras_object(made, custom_objects)


def _product(*factors: Tensor) -> Tensor:
    return functools.reduce(operator.mul, factors)


def _input_axis(layer: Any, normalized: Axis) -> int:
    """The axis of the inputs that an axis of a normalization's weight belongs to."""
    return _normalized_axes(layer)[normalized.axis]


def _normalized_axes(layer: Any) -> list[int]:
    return list(layer.axis) if isinstance(layer.axis, list | tuple) else [layer.axis]
