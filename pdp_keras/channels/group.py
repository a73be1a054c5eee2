"""`ChannelGroup`: channels that live and die together, with the state of their mask.

Several layers make and read the channels of a group. The group scores them all, from
the kernels that make them, and its mask is applied where they are read: what lies
between (bias, normalization, activation, padding) can leave nothing behind.
"""

from __future__ import annotations

import dataclasses
import json
import re
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from pdp_keras import allocation as allocations
from pdp_keras.configs import (
    COUNT,
    FLAG,
    POSITIVE_INTEGER,
    TEXT,
    TEXTS,
    integer,
    require_keys,
)
from pdp_keras.layers import (
    UNSET,
    Counted,
    MaskSettings,
    add_counter,
    add_extra,
    add_temperature_scale,
    held_value,
    outermost_call,
)
from pdp_keras.masks import read, read_integer, sum_by_unit
from pdp_keras.methods import Method
from pdp_keras.models import current_graph
from pdp_keras.modes import Channel, safe_sqrt

Tensor = Any

_TARGET = integer("an integer >= -1", lambda value: value >= -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Maker:
    """A kernel whose outputs, or some of them, are channels of a group.

    Attributes:
        path: path of the layer, and the kernel's name.
        variable: the kernel.
        axis: the axis that runs over channels.
        unit_of: for every place along it the unit of the group, -1 for none.
        order: the layer's place in the order of the graph.
    """

    path: str
    variable: Any
    axis: int
    unit_of: np.ndarray
    order: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Reader(Maker):
    """A kernel that sums over channels of a group.

    Attributes:
        makes: the groups whose channels it makes in turn, and where in it they lie.
    """

    makes: tuple[tuple[ChannelGroup, Maker], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Gate:
    """A BatchNormalization in front of a ReLU, which may shut channels of a group.

    Attributes:
        path: path of the layer, and the name of its shift.
        shift: the variable beta.
        scale: the variable gamma; None where it is 1.
        unit_of: for every channel the unit of the group, -1 for none.
    """

    path: str
    shift: Any
    scale: Any
    unit_of: np.ndarray


@keras.saving.register_keras_serializable(package="pdp_keras")
class ChannelGroup(Counted, keras.layers.Layer):
    """Units of channels that are pruned by one threshold.

    It is no layer of its own in a model: the `ChannelWrapper`s of the layers that
    make and read its channels share it.

    Args:
        label: how reports name it: the path of the first layer that makes it.
        units: how many things can be pruned; a unit is a channel, or several that
            must go together (an attention head).
        makers: how many kernels make its channels.
        channels_each: how many channels the first maker has for a unit.
        sparsity: the fraction of units that the user asked for, over all groups.
        target_zeros: how many units are pruned in the end; -1 where an allocation
            decides at the end of warm-up.
        mode: a `Channel`.
        method: how the mask is made in training.
        temperature: as for `PDPWrapper`, in units of the squared score.
        allocation: the deferred allocation, or `"uniform"`.
        layer_paths: paths of all layers that make or read the channels.
        removable: whether stripping removes them; otherwise they stay as zeros.
        gates: how many BatchNormalizations may shut its channels; 0 where the method
            does not ask.

    Raises:
        ValueError: for arguments of another type, or out of range.
    """

    # Walks that look for kernels and weights of the user's pass through it.
    name_is_of_layer = True
    kind = "channel groups"

    def __init__(
        self,
        label: str,
        units: int,
        makers: int,
        channels_each: int = 1,
        sparsity: float = 0.5,
        target_zeros: int = UNSET,
        mode: str | dict[str, Any] | Channel = "channel",
        method: str | dict[str, Any] | Method = "pdp",
        temperature: Any = None,
        allocation: Any = "uniform",
        layer_paths: list[str] | None = None,
        removable: bool = True,
        gates: int = 0,
        **kwargs: Any,
    ) -> None:
        layer_paths = [] if layer_paths is None else layer_paths
        for name, value, rule in (
            ("label", label, TEXT),
            ("units", units, POSITIVE_INTEGER),
            ("makers", makers, POSITIVE_INTEGER),
            ("channels_each", channels_each, POSITIVE_INTEGER),
            ("target_zeros", target_zeros, _TARGET),
            ("layer_paths", layer_paths, TEXTS),
            ("removable", removable, FLAG),
            ("gates", gates, COUNT),
        ):
            rule.require(name, value)
        if target_zeros > units:
            raise ValueError(
                "target_zeros must not be more than there are units. "
                f"Received: target_zeros={target_zeros}, units={units}"
            )
        settings = MaskSettings.resolve(mode, method, temperature, allocation)
        if not isinstance(settings.mode, Channel):
            raise ValueError(
                "The mode of a group must prune channels. "
                f"Received: mode={settings.mode}"
            )
        sparsity = settings.mode.resolve_sparsity(sparsity)
        # PyTorch names parameters after it, and keeps dots for itself.
        kwargs.setdefault("name", re.sub(r"[^\w-]", "-", label))
        super().__init__(**kwargs)
        self.settings = settings
        self.label = label
        self.units = units
        self.expected_makers = makers
        self.channels_each = channels_each
        self.sparsity = sparsity
        self.initial_target = target_zeros
        self.layer_paths = list(layer_paths)
        self.removable = removable
        self.expected_gates = gates
        self.is_scheduled = False
        self.extras: dict[str, Any] = {}
        self._makers: list[Maker] = []
        self._readers: list[Reader] = []
        self._gates: list[Gate] = []
        self._taken_by: set[str] = set()
        self._masks: Any = weakref.WeakKeyDictionary()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ChannelGroup:
        """The inverse of `get_config`.

        Raises:
            ValueError: if it is none of a group.
        """
        require_keys(f"a {cls.__name__}", config, ("label", "units", "makers"))
        return cls(**config)

    def build(self, input_shape: Any = None) -> None:
        """Creates the counters, and what the method keeps."""
        del input_shape
        self.zeros = add_counter(self, "zeros", 0)
        self.target_zeros = add_counter(self, "target_zeros", self.initial_target)
        self.temperature_scale = add_temperature_scale(self)
        self.extras = {
            name: add_extra(self, name, (self.units,), extra)
            for name, extra in self.method.extras().items()
        }
        self.seed_generator = (
            keras.random.SeedGenerator() if self.method.draws else None
        )
        self.built = True

    @classmethod
    def shared_copy(cls, config: dict[str, Any], path: str) -> ChannelGroup:
        """A group for the wrapper at a path of a model that is being copied.

        Keras makes the layers of a copy one by one (`clone_model`, `from_config`), and
        those that share a group must share it again. A layer that has taken its part of
        the last copy with this config begins the next one.

        Args:
            config: what `get_config` of the original returned.
            path: the wrapper's path in the model.
        """
        key = json.dumps(config, sort_keys=True, default=str)
        group = _copies.get(key)
        if group is None or path in group._taken_by:
            group = _copies[key] = cls.from_config(config)
        group._taken_by.add(path)
        return group

    def add_maker(self, maker: Maker) -> None:
        """Counts a kernel in; called by the wrapper of its layer."""
        self._makers = _with(self._makers, maker)

    def add_reader(self, reader: Reader) -> None:
        """Counts a kernel in that sums over the channels."""
        self._readers = _with(self._readers, reader)

    def add_gate(self, gate: Gate) -> None:
        """Counts a normalization in that may shut channels."""
        self._gates = _with(self._gates, gate)

    @property
    def makers(self) -> list[Maker]:
        """The kernels that make the channels.

        Raises:
            ValueError: if some are missing.
        """
        self._require_all(self._makers, self.expected_makers, "kernels")
        return self._makers

    @property
    def readers(self) -> list[Reader]:
        """The kernels that sum over the channels."""
        return self._readers

    @property
    def gates(self) -> list[Gate]:
        """The normalizations that may shut them.

        Raises:
            ValueError: if some are missing.
        """
        self._require_all(self._gates, self.expected_gates, "normalizations")
        return self._gates

    def limit_zeros(self, zeros: int) -> int:
        """The number of units to prune, rounded as the mode asks for."""
        return self.mode.limit_zeros(zeros, self.units, self.channels_each)

    def describe(self) -> allocations.WeightInfo:
        """What an allocation may know: the scores in place of weights."""
        values = read(self.norms())
        return allocations.WeightInfo(
            name=self.label, layer=self.label, values=values, fan_out=self.units
        )

    def values(self) -> list[tuple[str, np.ndarray]]:
        """The kernels that are scored, by name."""
        return [(m.path, read(m.variable).astype("float32")) for m in self.makers]

    def scores(self) -> Tensor:
        """What the method ranks the units by, `(units,)`, float32."""
        return self.method.channel_scores(self)

    def norms(self) -> Tensor:
        """The relative norm of each unit, `(units,)`, float32, about 1 on average.

        The norm of the unit's weights in each kernel, over its mean in the kernel;
        over several kernels their quadratic mean (the mean for l1).
        """
        parts = [self._relative_norm(maker) for maker in self.makers]
        mean = sum(parts[1:], parts[0]) / len(parts)
        return mean if self.mode.norm == "l1" else safe_sqrt(mean)

    def _relative_norm(self, maker: Maker) -> Tensor:
        weights = ops.cast(maker.variable.value, "float32")
        others = [axis for axis in range(len(weights.shape)) if axis != maker.axis]
        measure = ops.abs if self.mode.norm == "l1" else ops.square
        norms = ops.sum(measure(weights), axis=others)
        norms = sum_by_unit(norms, maker.unit_of, self.units)
        # The scale is a constant: only the differences between units count.
        scale = ops.stop_gradient(ops.mean(norms))
        return norms / ops.where(scale > 0, scale, ops.ones_like(scale))

    def mask(self, training: bool) -> Tensor:
        """The mask of the units, `(units,)`, float32; computed once in a call."""
        held = None if training else held_value(self)
        if held is not None:
            return held
        call, trace = outermost_call(), _current_trace()
        if call is None or trace is None:
            return self._compute_mask(training)
        # Many layers may read the channels: in a DenseNet half of all.
        masks = self._masks.setdefault(call, {})
        if (trace, training) not in masks:
            masks[trace, training] = self._compute_mask(training)
        return masks[trace, training]

    def _compute_mask(self, training: bool) -> Tensor:
        return self.method.channel_mask(self) if training else self.hard_mask()

    def soft_mask(self) -> Tensor:
        """The mask of PDP, `(units,)`."""
        return self.mode.soft_mask(self.scores(), self.zeros.value, self.width)

    def hard_mask(self) -> Tensor:
        """0 for the `zeros` units with the smallest scores, 1 for the others."""
        return self.mode.hard_mask(self.scores(), self.zeros.value)

    def kept(self) -> np.ndarray:
        """True for the units that inference computes with, bool `(units,)`."""
        return read(self.hard_mask()) > 0

    def load_own_variables(self, store: Any) -> None:
        """Loads the counters; a model saved while pruned needs no new schedule."""
        super().load_own_variables(store)
        self.is_scheduled |= read_integer(self.zeros) > 0

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            **super().get_config(),
            "label": self.label,
            "units": self.units,
            "makers": self.expected_makers,
            "channels_each": self.channels_each,
            "sparsity": self.sparsity,
            "target_zeros": self.initial_target,
            **self.settings.get_config(),
            "layer_paths": self.layer_paths,
            "removable": self.removable,
            "gates": self.expected_gates,
        }

    def _require_all(self, found: list[Any], expected: int, what: str) -> None:
        if len(found) != expected:
            raise ValueError(
                "All layers that make the channels of a group must be in one model. "
                f"Received: group {self.label!r} with {len(found)} of "
                f"{expected} {what}"
            )


# By config, the copy of a group that the layers of a model are taking now.
_copies: Any = weakref.WeakValueDictionary()


def _with(known: list[Any], new: Any) -> list[Any]:
    """The list with a kernel (or a gate) more, or in the place of an earlier one."""
    # In the order of names, so that sums come out the same after loading.
    others = [old for old in known if old.path != new.path]
    return sorted([*others, new], key=lambda part: part.path)


def _current_trace() -> Any:
    """What tensors of this moment belong to; None where they must not be kept."""
    backend = keras.backend.backend()
    if backend == "jax":
        return None
    graph = current_graph()
    return backend if graph is None else graph
