"""What a channel rule is, and what it is given: one call of a layer.

A rule says, for one call of a layer or operation, which labels its output carries and
along which axes of its weights which labels lie.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from pdp_keras.channels.labels import (
    Atoms,
    LabelledTensor,
    Labels,
    Shape,
    expand,
    fixed_tensor,
    squash,
)
from pdp_keras.models import find_with_call

MAKES, READS, FOLLOWS, NORMALIZES = ROLES = ("makes", "reads", "follows", "normalizes")

Config = dict[str, Any]


@dataclasses.dataclass(eq=False)
class LabelledAxis:
    """Labels along one axis of a layer's weight, and what the axis is to them.

    Attributes:
        layer: the layer that owns the weight.
        weight: attribute path of the weight, `"kernel"`; `""` without a weight.
        axis: counted from 0; -1 without a weight.
        role: one of `ROLES`.
        labels: one for every place along the axis.
    """

    layer: Any
    weight: str
    axis: int
    role: str
    labels: Labels


# Keeps the labels of a weight's axis over all calls of its layer.
AxisBook = dict[tuple[int, str, int, str], LabelledAxis]


class ChannelCall:
    """One call of a layer or operation, as its rule sees it.

    Attributes:
        layer: the layer or operation.
        args: positional arguments, with labelled tensors for tensors.
        kwargs: keyword arguments, likewise.
        inputs: all labelled tensors among them, in order.
        output_shapes: the shapes of the tensors that it returns, in order.
        atoms: joins and fixes labels.
    """

    def __init__(
        self,
        layer: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        output_shapes: Sequence[Shape],
        atoms: Atoms,
        book: AxisBook,
    ) -> None:
        self.layer = layer
        self.args = tuple(args)
        self.kwargs = dict(kwargs)
        self.output_shapes = [tuple(shape) for shape in output_shapes]
        self.atoms = atoms
        self.book = book
        leaves = tree.flatten((self.args, self.kwargs))
        self.inputs = [x for x in leaves if isinstance(x, LabelledTensor)]

    def inside(
        self, layer: Any, inputs: Sequence[LabelledTensor], shapes: Sequence[Shape]
    ) -> ChannelCall:
        """The call of a layer that this one calls on its inputs."""
        return ChannelCall(layer, inputs, {}, shapes, self.atoms, self.book)

    # What the output carries.

    def tensor(self, labels: Any, output: int = 0) -> LabelledTensor:
        """An output with these labels, one axis for each of its own."""
        return LabelledTensor(
            squash(np.asarray(labels, np.int64)), self.output_shapes[output]
        )

    def along_axis(self, labels: Labels, axis: int, output: int = 0) -> LabelledTensor:
        """An output along one axis of which the labels vary."""
        shape = [1] * len(self.output_shapes[output])
        shape[axis] = -1
        return self.tensor(labels.reshape(shape), output)

    def fixed(self) -> list[LabelledTensor]:
        """Outputs of which nothing can be removed."""
        return [fixed_tensor(shape) for shape in self.output_shapes]

    def unknown(self, reason: str = "") -> list[LabelledTensor]:
        """Fixes all inputs: the rule does not know what becomes of them."""
        text = reason or no_rule(self.layer)
        for x in self.inputs:
            self.atoms.fix(x.labels, "unknown", text)
        return self.fixed()

    # What the inputs must be.

    def first(self) -> LabelledTensor:
        """The first input; others, such as masks, keep their channels."""
        for other in self.inputs[1:]:
            self.fix(other, "{layer} needs them all")
        return self.atoms.refresh(self.inputs[0])

    def fix(self, x: LabelledTensor, reason: str) -> None:
        """Fixes all labels of a tensor. `{layer}` in the reason is filled in."""
        layer = f"{self.layer.name!r} ({type(self.layer).__name__})"
        self.atoms.fix(x.labels, "structure", reason.format(layer=layer))

    def constant_along(
        self,
        x: LabelledTensor,
        *axes: int,
        reason: str = "{layer} mixes them, and not by a kernel",
    ) -> LabelledTensor:
        """The tensor, its labels made not to vary along these axes.

        If they vary along others too, lines along these axes become one unit;
        otherwise they are fixed, for this reason.
        """
        x = self.atoms.refresh(x)
        wanted = {axis % x.rank for axis in axes}
        for axis in wanted.intersection(x.varying):
            if set(x.varying) <= wanted:
                self.fix(x, reason)
            else:
                self.atoms.join_along(x.labels, axis)
            x = self.atoms.refresh(x)
        return x

    def only_along(self, x: LabelledTensor, axis: int) -> LabelledTensor:
        """The tensor, its labels made to vary along this axis at most."""
        return self.constant_along(x, *(i for i in range(x.rank) if i != axis % x.rank))

    def line(self, x: LabelledTensor, axis: int) -> Labels:
        """The labels along an axis, one for each place, made to vary there only."""
        x = self.only_along(x, axis)
        return expand(x.labels, axis % x.rank, x.shape[axis]).reshape(-1)

    # What lies along the axes of weights.

    def makes(self, weight: str, axis: int, labels: Labels | None = None) -> Labels:
        """The output channels of a kernel; fresh ones, unless labels are given."""
        if labels is None:
            size = self.weight(weight).shape[axis]
            found = self._find(weight, axis, MAKES)
            labels = self.atoms.fresh(size) if found is None else found.labels
        return self._note(weight, axis, MAKES, labels)

    def reads(self, weight: str, axis: int, labels: Labels) -> None:
        """An axis that the layer sums over: dead channels there have no effect."""
        self._note(weight, axis, READS, labels)

    def follows(self, weight: str, axis: int, labels: Labels) -> None:
        """An axis that is only sliced. A weight that is None is passed over."""
        if self.weight(weight) is not None:
            self._note(weight, axis, FOLLOWS, labels)

    def normalizes(self, weights: Sequence[str], axis: int, labels: Labels) -> None:
        """Weights of a layer that computes statistics across these channels."""
        present = [name for name in weights if self.weight(name) is not None]
        for name in present:
            self._note(name, axis, NORMALIZES, labels)
        if not present:
            self._note("", -1, NORMALIZES, labels)

    def weight(self, name: str) -> Any:
        """The weight at an attribute path; None where the layer has none."""
        try:
            return operator.attrgetter(name)(self.layer)
        except AttributeError:
            return None

    def _key(self, weight: str, axis: int, role: str) -> tuple[int, str, int, str]:
        rank = len(self.weight(weight).shape) if weight else 0
        return id(self.layer), weight, axis % rank if weight else -1, role

    def _find(self, weight: str, axis: int, role: str) -> LabelledAxis | None:
        return self.book.get(self._key(weight, axis, role))

    def _note(self, weight: str, axis: int, role: str, labels: Labels) -> Labels:
        key = self._key(weight, axis, role)
        if weight and len(labels) != self.weight(weight).shape[axis]:
            raise ValueError(
                "A rule must give a label for each place along a weight's axis. "
                f"Received: {len(labels)} labels for axis {axis} of {weight!r} of "
                f"layer {self.layer.name!r}, of shape "
                f"{tuple(self.weight(weight).shape)}"
            )
        if key in self.book:
            self.atoms.join(self.book[key].labels, labels)
        else:
            self.book[key] = LabelledAxis(self.layer, weight, key[2], role, labels)
        return self.book[key].labels


@dataclasses.dataclass(frozen=True)
class Kept:
    """What is left of a layer, for the config of the smaller one.

    Attributes:
        sizes: places left along an axis of a weight, by layer, weight and axis.
        layer: the layer in question.
        inputs: for each input of its first call a mask along each axis: which
            places are left; None where all are.
        outputs: likewise for each output.
    """

    sizes: Mapping[tuple[int, str, int], int]
    layer: Any
    inputs: list[list[np.ndarray | None]]
    outputs: list[list[np.ndarray | None]]

    def size(self, weight: str, axis: int) -> int:
        """The number of places left along an axis of a weight."""
        rank = len(operator.attrgetter(weight)(self.layer).shape)
        return self.sizes[id(self.layer), weight, axis % rank]

    def inside(self, layer: Any) -> Kept:
        """The same for a layer inside this one."""
        return dataclasses.replace(self, layer=layer)

    def resized(self, output: int, shape: Sequence[Any], first_axis: int) -> list[Any]:
        """A shape, with the sizes left of an output, from this axis of it on."""
        masks = self.outputs[output][first_axis:]
        return [
            size if mask is None or size == -1 else int(mask.sum())
            for size, mask in zip(shape, masks, strict=True)
        ]


Trace = Callable[[ChannelCall], LabelledTensor | list[LabelledTensor]]
Resize = Callable[[Any, Config, Kept], Config]
Rewrite = Callable[
    [Any, tuple[Any, ...], dict[str, Any], Kept],
    tuple[tuple[Any, ...], dict[str, Any]],
]


@dataclasses.dataclass(frozen=True)
class ChannelRule:
    """How channels pass through a class of layers.

    Args:
        trace: gives the labelled outputs of one call, and says what lies along the
            axes of the weights by way of the call's methods `makes`, `reads`,
            `follows` and `normalizes`.
        resize: `resize(layer, config, kept)` gives the config of the smaller layer;
            None if the config has no size in it.
        rewrite: `rewrite(layer, args, kwargs, kept)` gives the arguments of its calls
            in the smaller graph; None if they stay.
        by_place: whether what `resize` and `rewrite` do depends on where the living
            channels lie in the input. Then all calls must agree on it.

    Example:

    Of a layer with a weight `scale`, one number for each channel:

    >>> def trace(call):
    ...     line = call.line(call.first(), -1)
    ...     call.follows("scale", 0, line)
    ...     return call.along_axis(line, -1)
    >>> rule = ChannelRule(trace)
    >>> pdp_keras.register_channel_rule(ScaleLayer, rule)
    """

    trace: Trace
    resize: Resize | None = None
    rewrite: Rewrite | None = None
    by_place: bool = False


def channel_axis(layer: Any, rank: int) -> int:
    """The channel axis of an image layer."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first else rank - 1


# Activations that act on each value alone.
_ELEMENTWISE = frozenset(
    [
        "celu",
        "elu",
        "exponential",
        "gelu",
        "hard_shrink",
        "hard_sigmoid",
        "hard_silu",
        "hard_tanh",
        "leaky_relu",
        "linear",
        "log_sigmoid",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "soft_shrink",
        "softplus",
        "softsign",
        "sparse_plus",
        "sparse_sigmoid",
        "squareplus",
        "tanh",
        "tanh_shrink",
        "threshold",
    ]
)


def activate(call: ChannelCall, x: LabelledTensor, activation: Any) -> LabelledTensor:
    """The labels after an activation function; one that mixes channels fixes them."""
    name = getattr(activation, "__name__", None)
    known = name is not None and activation in (
        getattr(module, name, None) for module in (keras.activations, keras.ops)
    )
    if activation is None or (known and name in _ELEMENTWISE):
        return x
    if name == "gelu_approximate" and activation.__module__.startswith("keras_hub."):
        return x
    if isinstance(activation, keras.layers.Layer | keras.Operation):
        layer = type(activation).__name__
        if layer in ("ReLU", "LeakyReLU", "ELU"):
            return x
    if known and name in ("softmax", "log_softmax"):
        return call.constant_along(x, -1)
    call.atoms.fix(
        x.labels,
        "structure" if known else "unknown",
        f"activation {name or activation!r} of layer {call.layer.name!r} may mix them",
    )
    return fixed_tensor(x.shape)


# Keys are classes, or `module.Name` of classes that are not public or not imported.
# The registry fills it.
RULES: dict[type | str, ChannelRule] = {}


def find_rule(operation_class: Any) -> ChannelRule | None:
    """The rule of a class, or of a base class whose `call` it inherits."""
    rule: ChannelRule | None = find_with_call(RULES, operation_class)
    return rule


def has_no_rule(layer: Any) -> bool:
    """Whether it is a layer with weights of which no rule says what its `call` does."""
    return find_rule(type(layer)) is None and bool(layer.weights)


def no_rule(layer: Any) -> str:
    """That nothing says what the `call` of a layer does, and how to say it."""
    cls = type(layer).__name__
    text = (
        f"layer {layer.name!r} of class {cls} has no channel rule: see "
        "pdp_keras.register_channel_rule"
    )
    base = next((base for base in type(layer).__mro__ if base in RULES), None)
    if base is None:
        return text
    return (
        f"{text}, and if its own `call` does to channels what that of {base.__name__} "
        f"does, say pdp_keras.register_channel_rule({cls}, {base.__name__})"
    )


def computes_kernel(layer: Any) -> bool:
    """Whether a layer computes its kernel, as with LoRA or once it is quantized."""
    return bool(
        getattr(layer, "quantization_mode", None)
        or getattr(layer, "lora_enabled", False)
    )
