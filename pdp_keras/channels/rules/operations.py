"""Channel rules of the operations of `keras.ops` in a graph.

Their classes are not public: rows go by module and name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import tree

from pdp_keras.channels.labels import LabelledTensor, fixed_tensor
from pdp_keras.channels.rules.base import ChannelCall, ChannelRule, Config, Kept
from pdp_keras.channels.rules.shapes import (
    concatenate,
    elementwise,
    index,
    new_key,
    reduce,
    reshape,
)

_ELEMENTWISE = {
    "numpy": """
        Absolute Abs Add Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Ceil
        Clip Cos Cosh Divide DivideNoNan Equal Exp Exp2 Expm1 Floor FloorDivide
        Greater GreaterEqual Isfinite Isinf Isnan Less LessEqual Log Log10 Log1p Log2
        Logaddexp LogicalAnd LogicalNot LogicalOr LogicalXor Maximum Minimum Mod
        Multiply NanToNum Negative NotEqual OnesLike Power Reciprocal Round Sign Sin
        Sinh Sqrt Square Subtract Tan Tanh TrueDivide Trunc Where ZerosLike Copy
    """,
    "nn": """
        Celu Elu Gelu HardShrink HardSigmoid HardSilu HardTanh LeakyRelu LogSigmoid
        Relu Relu6 Selu Sigmoid Silu SoftShrink Softplus Softsign SparsePlus
        SparseSigmoid Squareplus TanhShrink Threshold
    """,
    "core": "Cast SaturateCast StopGradient ConvertToTensor",
    "math": "Erf Erfinv Rsqrt",
}
_REDUCTIONS = {
    "numpy": "All Any Amax Amin CountNonzero Max Mean Min Prod Std Sum Var",
    "math": "Logsumexp",
}


def is_elementwise(operation_class: type) -> bool:
    """Whether an operation acts on the values at each place alone."""
    module, _, family = operation_class.__module__.rpartition(".")
    names = _ELEMENTWISE.get(family, "").split()
    return module == "keras.src.ops" and operation_class.__name__ in names


def _elementwise(call: ChannelCall) -> Any:
    operands = []
    # What the operation was made with counts as well: limits to clip at, for one.
    for operand in (*call.args, *call.kwargs.values(), *vars(call.layer).values()):
        if isinstance(operand, LabelledTensor):
            operands.append(operand)
        elif any(isinstance(x, LabelledTensor) for x in tree.flatten(operand)):
            return call.unknown(f"operation {call.layer.name!r} is given a list")
        elif shape := _constant_shape(operand):
            operands.append(fixed_tensor(shape))
    return call.tensor(elementwise(call, operands))


def _constant_shape(value: Any) -> tuple[int, ...]:
    """The shape of an array or a list of numbers; `()` of anything else."""
    if isinstance(value, list | tuple):
        numbers = all(isinstance(x, int | float) for x in tree.flatten(value))
        return np.shape(value) if value and numbers else ()
    return tuple(getattr(value, "shape", None) or ())


def _reduction(call: ChannelCall) -> LabelledTensor:
    operation = call.layer
    x = call.first()
    return call.tensor(
        reduce(call, x, operation.axis, getattr(operation, "keepdims", False))
    )


def _softmax(call: ChannelCall) -> LabelledTensor:
    x = call.first()
    axis = call.layer.axis
    axes = range(x.rank) if axis is None else [axis] if isinstance(axis, int) else axis
    return call.tensor(call.constant_along(x, *axes).labels)


def _concatenate(call: ChannelCall) -> LabelledTensor:
    return call.tensor(concatenate(call, call.inputs, call.layer.axis))


def _stack(call: ChannelCall) -> LabelledTensor:
    axis = call.layer.axis % len(call.output_shapes[0])
    parts = [
        LabelledTensor(
            np.expand_dims(x.labels, axis), (*x.shape[:axis], 1, *x.shape[axis:])
        )
        for x in call.inputs
    ]
    return call.tensor(concatenate(call, parts, axis))


def _reshape(call: ChannelCall) -> Any:
    x = call.first()
    labels = reshape(call, x, call.output_shapes[0])
    if labels is None:
        call.fix(x, "{layer} mixes them with a dimension of unknown size")
        return call.fixed()
    return call.tensor(labels)


def _resize_reshape(layer: Any, config: Config, kept: Kept) -> Config:
    shape = config["newshape"]
    sizes = [shape] if isinstance(shape, int) else list(shape)
    return {**config, "newshape": tuple(kept.resized(0, sizes, 0))}


def _moved(move: Any) -> Any:
    """A rule for an operation that NumPy has for labels."""

    def trace(call: ChannelCall) -> LabelledTensor:
        x = call.first()
        return call.tensor(move(call.layer, x.labels))

    return ChannelRule(trace)


def _squeeze(call: ChannelCall) -> LabelledTensor:
    x = call.first()
    axis = call.layer.axis
    if axis is None:
        axis = [i for i, size in enumerate(x.shape) if size == 1]
    axes = tuple([axis] if isinstance(axis, int) else axis)
    return call.tensor(np.squeeze(x.labels, axes))


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kwargs["key"] if "key" in kwargs else args[1]


def _get_item(call: ChannelCall) -> Any:
    if len(call.inputs) > 1:
        return call.unknown(f"operation {call.layer.name!r} has a tensor for an index")
    labels = index(call, call.first(), _key(call.args, call.kwargs))
    if labels is None:
        return call.unknown(f"operation {call.layer.name!r} has an array for an index")
    return call.tensor(labels)


def _rewrite_key(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], kept: Kept
) -> Any:
    masks = kept.inputs[0]
    if all(mask is None for mask in masks):
        return args, kwargs
    tensor = args[0] if args else kwargs["x"]
    return (tensor, new_key(_key(args, kwargs), masks)), {}


def _split(call: ChannelCall) -> list[LabelledTensor]:
    x = call.first()
    axis = call.layer.axis % x.rank
    where = call.layer.indices_or_sections
    if axis not in x.varying:
        return [call.tensor(x.labels, i) for i in range(len(call.output_shapes))]
    parts = np.split(x.labels, where if isinstance(where, int) else list(where), axis)
    return [call.tensor(part, i) for i, part in enumerate(parts)]


def _resize_split(layer: Any, config: Config, kept: Kept) -> Config:
    mask = kept.inputs[0][layer.axis]
    if mask is None:
        return config
    where = layer.indices_or_sections
    parts = np.split(mask, where if isinstance(where, int) else list(where))
    ends = np.cumsum([part.sum() for part in parts])[:-1]
    return {**config, "indices_or_sections": [int(end) for end in ends]}


def _pad(call: ChannelCall) -> Any:
    operation = call.layer
    x = call.first()
    widths = [tuple(width) for width in operation.pad_width]
    if len(widths) == 1:
        widths *= x.rank
    padded = [axis for axis in x.varying if any(widths[axis])]
    if padded and operation.mode != "constant":
        x = call.constant_along(x, *padded)
        padded = []
    return call.tensor(
        np.pad(x.labels, [w if i in padded else (0, 0) for i, w in enumerate(widths)])
    )


def _matmul(call: ChannelCall) -> Any:
    if len(call.inputs) != 2 or min(x.rank for x in call.inputs) < 2:
        return call.unknown(f"operation {call.layer.name!r} multiplies by a constant")
    left = call.constant_along(call.inputs[0], -1)
    right = call.constant_along(call.inputs[1], -2)
    left = LabelledTensor(left.labels, (*left.shape[:-1], 1))
    right = LabelledTensor(right.labels, (*right.shape[:-2], 1, right.shape[-1]))
    return call.tensor(elementwise(call, [left, right]))


def _einsum(call: ChannelCall) -> Any:
    equation = call.layer.subscripts.replace(" ", "")
    parts, arrow, output = equation.partition("->")
    terms = parts.split(",")
    repeated = any(len(set(term)) < len(term) for term in (*terms, output))
    if not arrow or "." in equation or repeated or len(terms) != len(call.inputs):
        return call.unknown(f"operation {call.layer.name!r}: {equation!r}")
    operands = []
    for term, operand in zip(terms, call.inputs, strict=True):
        summed = [i for i, c in enumerate(term) if c not in output]
        x = call.constant_along(operand, *summed) if summed else operand
        order = [term.index(c) for c in output if c in term]
        labels = call.atoms.canonical(x.labels).transpose([*order, *summed])
        sizes = dict(zip(term, x.shape, strict=True))
        lengths = dict(zip(term, x.labels.shape, strict=True))
        operands.append(
            LabelledTensor(
                labels.reshape([lengths.get(c, 1) for c in output]),
                tuple(sizes.get(c, 1) for c in output),
            )
        )
    return call.tensor(elementwise(call, operands))


_RESHAPED = ChannelRule(_reshape, _resize_reshape, by_place=True)


def _flip(operation: Any, labels: Any) -> Any:
    return np.flip(labels, operation.axis)


_SINGLE: dict[str, ChannelRule] = {
    "numpy.Concatenate": ChannelRule(_concatenate),
    "numpy.Stack": ChannelRule(_stack),
    "numpy.Reshape": _RESHAPED,
    "numpy.GetItem": ChannelRule(_get_item, rewrite=_rewrite_key, by_place=True),
    "numpy.Split": ChannelRule(_split, _resize_split, by_place=True),
    "numpy.Pad": ChannelRule(_pad),
    "numpy.Matmul": ChannelRule(_matmul),
    "numpy.Einsum": ChannelRule(_einsum),
    "numpy.Squeeze": ChannelRule(_squeeze),
    "numpy.Transpose": _moved(lambda op, labels: np.transpose(labels, op.axes)),
    "numpy.ExpandDims": _moved(lambda op, labels: np.expand_dims(labels, op.axis)),
    "numpy.Swapaxes": _moved(
        lambda op, labels: np.swapaxes(labels, op.axis1, op.axis2)
    ),
    "numpy.Moveaxis": _moved(
        lambda op, labels: np.moveaxis(labels, op.source, op.destination)
    ),
    "numpy.Flip": _moved(_flip),
    "nn.Softmax": ChannelRule(_softmax),
    "nn.LogSoftmax": ChannelRule(_softmax),
}


def _rows() -> dict[type | str, ChannelRule]:
    rows = dict(_SINGLE)
    for families, rule in (
        (_ELEMENTWISE, ChannelRule(_elementwise)),
        (_REDUCTIONS, ChannelRule(_reduction)),
    ):
        for module, names in families.items():
            rows |= {f"{module}.{name}": rule for name in names.split()}
    return {f"keras.src.ops.{name}": rule for name, rule in rows.items()}


ROWS = _rows()
