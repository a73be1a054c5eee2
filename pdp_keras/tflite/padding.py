"""Explicit zeros in front of strided convolutions in a .tflite file.

TensorFlow's converter turns a PAD and a "valid" convolution back into a "same" one
where the two agree, which they do at odd sizes. XNNPACK's sparse path wants the PAD.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pdp_keras.models import make_windows
from pdp_keras.tflite.file import code_kind, load_model, operator_kind, packed_model

_VALID = 1  # the schema's Padding code


def with_explicit_padding(data: bytes) -> bytes:
    """A file whose strided "same" convolutions have a PAD, where that is symmetric.

    Args:
        data: the content of a .tflite file.

    Returns:
        The content of a file that computes the same; `data` itself if it has no such
        convolution.
    """
    schema, model = load_model(data)
    kinds = schema.BuiltinOperator
    edited = False
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators:
            kind = operator_kind(model, operator)
            if kind in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D):
                half = _symmetric_padding(graph, operator)
                if half is not None:
                    operators.append(_add_pad(schema, model, graph, operator, half))
                    edited = True
            operators.append(operator)
        graph.operators = operators
    return packed_model(model) if edited else data


def _symmetric_padding(graph: Any, operator: Any) -> tuple[int, int] | None:
    """Padding (rows, columns) that a "same" convolution has on both sides."""
    options = operator.builtinOptions
    strides = options.strideH, options.strideW
    if options.padding == _VALID or max(strides) == 1:
        return None
    image, kernel = (graph.tensors[i].shape for i in operator.inputs[:2])
    dilations = options.dilationHFactor, options.dilationWFactor
    halves = [
        make_windows(
            int(image[1 + i]),
            (int(kernel[1 + i]) - 1) * dilations[i] + 1,
            strides[i],
            "same",
        ).symmetric
        for i in range(2)
    ]
    rows, columns = halves
    return None if rows is None or columns is None else (rows, columns)


def _add_pad(
    schema: Any, model: Any, graph: Any, convolution: Any, half: tuple[int, int]
) -> Any:
    """A PAD operator that the convolution now reads from, which becomes "valid"."""
    amounts = np.array([[0, 0], [half[0]] * 2, [half[1]] * 2, [0, 0]], "int32")
    widths = schema.BufferT()
    widths.data = np.frombuffer(amounts.tobytes(), "uint8")
    model.buffers.append(widths)

    source = graph.tensors[convolution.inputs[0]]
    count = len(graph.tensors)
    constant = schema.TensorT()
    constant.name = f"pad_widths_{count}".encode()
    constant.shape = np.array(amounts.shape, "int32")
    constant.type = schema.TensorType.INT32
    constant.buffer = len(model.buffers) - 1
    padded = schema.TensorT()
    padded.name = f"padded_{count}".encode()
    padded.shape = np.asarray(source.shape, "int32") + amounts.sum(1, dtype="int32")
    padded.type = source.type
    padded.buffer = 0  # by the schema's rule the empty one
    padded.quantization = source.quantization
    graph.tensors += [constant, padded]

    pad = schema.OperatorT()
    pad.opcodeIndex = _operator_code(schema, model, schema.BuiltinOperator.PAD)
    pad.inputs = np.array([convolution.inputs[0], count], "int32")
    pad.outputs = np.array([count + 1], "int32")
    pad.builtinOptionsType = schema.BuiltinOptions.PadOptions
    pad.builtinOptions = schema.PadOptionsT()
    inputs = np.array(convolution.inputs, "int32")
    inputs[0] = count + 1
    convolution.inputs = inputs
    convolution.builtinOptions.padding = _VALID
    return pad


def _operator_code(schema: Any, model: Any, kind: int) -> int:
    for index, code in enumerate(model.operatorCodes):
        if code_kind(code) == kind:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
