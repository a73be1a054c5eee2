"""Whether what a .tflite file says fits together.

The schema gives fields their types; that indices lead somewhere, that numbers are as
many as a shape wants, and that operators run in order, it leaves to who reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# The largest kernel that a sparse encoding may stand for, in bytes of the whole file.
_MOST_ZEROS = 4096
_DENSE, _CSR = 0, 1


def require_consistent(
    schema: Any, model: Any, size: int, dtypes: Mapping[int, str]
) -> None:
    """Checks a whole model.

    Args:
        schema: the module that TensorFlow's schema was compiled to.
        model: the `ModelT`.
        size: of the file, in bytes.
        dtypes: of the types whose numbers are read, by their codes.

    Raises:
        ValueError: for the first thing that does not fit.
    """
    _require(_count(model.subgraphs) > 0, "at least one subgraph", "none")
    kinds = _codes(schema.BuiltinOperator)
    for code in _listed(model.operatorCodes):
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        _require(kind in kinds, "operators that the schema knows", f"kind {kind}")
    types = _codes(schema.TensorType)
    room = _MOST_ZEROS * size
    for graph in model.subgraphs:
        for number, tensor in enumerate(_listed(graph.tensors)):
            where = f"tensor {number}"
            _require(
                tensor.type in types, "types of the schema", f"{where}, {tensor.type}"
            )
            room -= _check_tensor(model, tensor, where, dtypes.get(tensor.type), room)
        _check_operators(schema, model, graph)


def _require(is_so: Any, rule: str, received: str) -> None:
    if not is_so:
        raise ValueError(f"A .tflite file must have {rule}. Received: {received}")


def _check_tensor(
    model: Any, tensor: Any, where: str, dtype: str | None, room: int
) -> int:
    """Returns how many bytes its sparse encoding stands for."""
    shape = [int(n) for n in _listed(tensor.shape)]
    _require(min(shape, default=0) >= 0, "shapes of sizes >= 0", f"{where}, {shape}")
    _require(
        0 <= tensor.buffer < _count(model.buffers),
        "a buffer for each tensor",
        f"{where}, buffer {tensor.buffer} of {_count(model.buffers)}",
    )
    _require(_is_text(tensor.name), "names in UTF-8", f"{where}, {tensor.name!r}")
    _check_quantization(tensor.quantization, shape, where)
    stored = _count(model.buffers[tensor.buffer].data)
    if dtype is None or not (stored or tensor.sparsity):
        return 0
    each = np.dtype(dtype).itemsize
    wanted = each * math.prod(shape)
    if tensor.sparsity is None:
        _require(
            stored == wanted,
            "as many numbers as the shape of a tensor says",
            f"{where}, {stored} bytes for {shape} of {dtype}",
        )
        return 0
    _require(
        wanted <= room,
        f"at most {_MOST_ZEROS} times its size in zeros",
        f"{where}, shape {shape}",
    )
    nodes = _check_sparsity(tensor.sparsity, shape, where)
    _require(
        stored % each == 0 and nodes <= stored // each,
        "a number for each place of a sparse encoding",
        f"{where}, {stored} bytes for {nodes} places",
    )
    return wanted


def _check_quantization(quantization: Any, shape: list[int], where: str) -> None:
    points = _listed(None if quantization is None else quantization.zeroPoint)
    if len(points) <= 1:
        return
    axis = quantization.quantizedDimension
    _require(
        0 <= axis < len(shape) and len(points) == shape[axis],
        "a zero point for each channel",
        f"{where}, {len(points)} along axis {axis} of {shape}",
    )


def _check_sparsity(sparsity: Any, shape: list[int], where: str) -> int:
    """Goes through the levels as `densified` does; returns the places of the last."""
    order = [int(d) for d in _listed(sparsity.traversalOrder)]
    blocks = [int(d) for d in _listed(sparsity.blockMap)]
    levels = _listed(sparsity.dimMetadata)
    rank = len(shape)
    _require(
        sorted(order) == list(range(rank + len(blocks))) and len(levels) == len(order),
        "one level of a sparse encoding for each dimension",
        f"{where}, {len(levels)} levels, order {order[:8]}",
    )
    _require(
        all(0 <= d < rank for d in blocks) and len(set(blocks)) == len(blocks),
        "blocks along its own dimensions",
        f"{where}, {blocks[:8]}",
    )
    by_dimension = dict(zip(order, levels, strict=True))
    for number, dimension in enumerate(blocks):
        shape[dimension], left = divmod(
            shape[dimension], max(1, by_dimension[rank + number].denseSize)
        )
        _require(left == 0, "blocks that fill its dimensions", f"{where}, {blocks}")
        shape.append(by_dimension[rank + number].denseSize)
    nodes = 1
    for dimension, level in by_dimension.items():
        nodes = _check_level(level, shape[dimension], nodes, where)
    return nodes


def _check_level(level: Any, size: int, nodes: int, where: str) -> int:
    """Returns how many nodes there are behind it."""
    if level.format == _DENSE:
        _require(
            level.denseSize == size,
            "levels as long as their dimension",
            f"{where}, {level.denseSize} for {size}",
        )
        return nodes * size
    _require(level.format == _CSR, "dense or CSR levels", f"{where}, {level.format}")
    segments, indices = (
        np.asarray(_listed(getattr(vector, "values", None)), "int64")
        for vector in (level.arraySegments, level.arrayIndices)
    )
    _require(
        len(segments) == nodes + 1
        and segments[0] == 0
        and (np.diff(segments) >= 0).all()
        and segments[-1] == len(indices)
        and ((indices >= 0) & (indices < size)).all(),
        "CSR levels whose segments and indices lead somewhere",
        f"{where}, {len(segments)} segments of {len(indices)} indices",
    )
    return len(indices)


# Operators that are read or edited here: how many tensors of which rank they read at
# least, and their options.
_STEPS = {"strideH", "strideW", "dilationHFactor", "dilationWFactor"}
_READ: dict[str, tuple[tuple[int | None, ...], str | None]] = {
    "CONV_2D": ((4, 4), "Conv2DOptionsT"),
    "DEPTHWISE_CONV_2D": ((4, 4), "DepthwiseConv2DOptionsT"),
    "ADD": ((None, None), None),
    "SUB": ((None, None), None),
    "MUL": ((None, None), None),
    "RESHAPE": ((None,), None),
    "DENSIFY": ((None,), None),
    "DEQUANTIZE": ((None,), None),
}


def _check_operators(schema: Any, model: Any, graph: Any) -> None:
    tensors = _listed(graph.tensors)
    names = {code: name for name, code in _members(schema.BuiltinOperator)}
    _check_indices("inputs of a graph", graph.inputs, len(tensors))
    _check_indices("outputs of a graph", graph.outputs, len(tensors))
    known = {int(i) for i in _listed(graph.inputs)}
    known |= {
        i
        for i, tensor in enumerate(tensors)
        # An encoding of nothing but zeros stores no number.
        if tensor.isVariable
        or tensor.sparsity is not None
        or _count(model.buffers[tensor.buffer].data)
    }
    for number, operator in enumerate(_listed(graph.operators)):
        where = f"operator {number}"
        _require(
            0 <= operator.opcodeIndex < _count(model.operatorCodes),
            "a kind for each operator",
            f"{where}, {operator.opcodeIndex}",
        )
        code = model.operatorCodes[operator.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        _check_indices(f"inputs of {where}", operator.inputs, len(tensors), least=-1)
        _check_indices(f"outputs of {where}", operator.outputs, len(tensors))
        inputs = [int(i) for i in _listed(operator.inputs)]
        _require(
            known.issuperset(i for i in inputs if i >= 0),
            "operators in the order in which they run",
            f"{where}, {kind}, which reads what is not there yet",
        )
        _check_read(schema, operator, kind, [tensors[i] for i in inputs if i >= 0])
        made = {int(i) for i in _listed(operator.outputs)}
        known |= made


def _check_read(schema: Any, operator: Any, kind: str, inputs: list[Any]) -> None:
    if kind not in _READ:
        return
    ranks, options = _READ[kind]
    fits = len(inputs) >= len(ranks) and _count(operator.outputs) == 1
    fits = fits and all(
        rank is None or _count(tensor.shape) == rank
        for rank, tensor in zip(ranks, inputs, strict=False)
    )
    if options is not None:
        fits = fits and isinstance(operator.builtinOptions, getattr(schema, options))
    _require(fits, "operators with what they read and make", f"a {kind} without")
    given = vars(operator.builtinOptions) if operator.builtinOptions else {}
    steps = [value for name, value in given.items() if name in _STEPS]
    _require(min(steps, default=1) >= 1, "strides and dilations >= 1", f"{steps}")


def _check_indices(what: str, indices: Any, count: int, least: int = 0) -> None:
    found = [int(i) for i in _listed(indices)]
    _require(
        all(least <= i < count for i in found),
        f"{what} among its tensors",
        f"{found[:8]} of {count}",
    )


def _members(enumeration: Any) -> Iterable[tuple[str, int]]:
    return [(n, v) for n, v in vars(enumeration).items() if isinstance(v, int)]


def _codes(enumeration: Any) -> set[int]:
    return {code for _, code in _members(enumeration)}


def _is_text(name: Any) -> bool:
    try:
        return isinstance(name, bytes) and bool(name.decode() or True)
    except UnicodeDecodeError:
        return False


def _listed(values: Any) -> Any:
    return [] if values is None else values


def _count(values: Any) -> int:
    return len(_listed(values))
