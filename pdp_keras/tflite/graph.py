"""The operators of a .tflite file, as a graph."""

from __future__ import annotations

import dataclasses
from typing import Any

from pdp_keras.tflite.file import (
    Array,
    listed,
    load_model,
    operator_kind,
    tensor_values,
)


@dataclasses.dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor of the file.

    Attributes:
        index: its number.
        shape: its shape; a scalar has `()`.
        is_float: whether its numbers are float32 or float16.
        values: of a constant, sparse encodings filled with zeros; else None.
    """

    index: int
    shape: tuple[int, ...]
    is_float: bool
    values: Array | None


@dataclasses.dataclass(frozen=True, eq=False)
class FileOperator:
    """An operator of the file.

    Attributes:
        kind: its name in the schema, `"CONV_2D"`.
        inputs: the tensors that it reads, weights included.
        outputs: the tensors that it makes.
        options: of the schema, such as `strideH`; empty if it has none.
    """

    kind: str
    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class FileGraph:
    """The first subgraph of a file; operators in the order in which they run."""

    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_graph(data: bytes) -> FileGraph:
    """Reads the operators of a .tflite file.

    Constants that are only unpacked before use (sparse encodings by DENSIFY, float16
    by DEQUANTIZE) count as constants of the operator that uses them.
    """
    schema, model = load_model(data)
    kinds = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if isinstance(code, int)
    }
    graph = model.subgraphs[0]
    floats = {schema.TensorType.FLOAT32, schema.TensorType.FLOAT16}
    tensors = [
        FileTensor(
            index,
            tuple(int(size) for size in listed(tensor.shape)),
            tensor.type in floats,
            tensor_values(tensor, model),
        )
        for index, tensor in enumerate(graph.tensors)
    ]
    operators = []
    for operator in graph.operators:
        kind = kinds[operator_kind(model, operator)]
        inputs = [tensors[i] for i in operator.inputs if i >= 0]
        outputs = [int(i) for i in operator.outputs]
        if kind in ("DENSIFY", "DEQUANTIZE") and inputs[0].values is not None:
            (i,) = outputs
            tensors[i] = dataclasses.replace(tensors[i], values=inputs[0].values)
            continue
        options = vars(operator.builtinOptions) if operator.builtinOptions else {}
        operators.append(
            FileOperator(
                kind, tuple(inputs), tuple(tensors[i] for i in outputs), options
            )
        )
    return FileGraph(
        tuple(operators),
        tuple(int(i) for i in graph.inputs),
        tuple(int(i) for i in graph.outputs),
    )
