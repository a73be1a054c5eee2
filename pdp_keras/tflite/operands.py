"""Images as operands of sums and products in a .tflite file.

Where an image is a single pixel, TensorFlow's converter reshapes it to a vector before
it adds or multiplies it. XNNPACK's sparse path wants both operands to be images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pdp_keras.tflite.file import load_model, operator_kind, packed_model


def with_image_operands(data: bytes) -> bytes:
    """A file whose sums and products read images as such, not reshaped to vectors.

    Args:
        data: the content of a .tflite file.

    Returns:
        The content of a file that computes the same; `data` itself if there is nothing
        to do.
    """
    schema, model = load_model(data)
    kinds = schema.BuiltinOperator
    edited = False
    for graph in model.subgraphs:
        reshaped: dict[int, int] = {}  # vector → the image that it was
        for operator in graph.operators:
            kind = operator_kind(model, operator)
            inputs = [int(i) for i in operator.inputs]
            if kind == kinds.RESHAPE and _is_pixel(graph, inputs[0]):
                reshaped[int(operator.outputs[0])] = inputs[0]
            elif kind in (kinds.ADD, kinds.SUB, kinds.MUL):
                wanted = [_image_of(graph, i, reshaped) for i in inputs]
                if wanted != inputs and _are_images(graph, wanted):
                    operator.inputs = np.array(wanted, "int32")
                    edited = True
        if edited:
            graph.operators = _still_read(graph, set(reshaped))
    return packed_model(model) if edited else data


def _is_pixel(graph: Any, index: int) -> bool:
    shape = [int(size) for size in graph.tensors[index].shape]
    return len(shape) == 4 and shape[:3] == [1, 1, 1]


def _are_images(graph: Any, indices: list[int]) -> bool:
    return all(len(graph.tensors[i].shape) == 4 for i in indices)


def _image_of(graph: Any, index: int, reshaped: dict[int, int]) -> int:
    """The image behind a vector of its channels; the tensor itself if it is none."""
    return reshaped.get(index, index) if len(graph.tensors[index].shape) == 1 else index


def _still_read(graph: Any, candidates: set[int]) -> list[Any]:
    """The operators without those whose only output, a candidate, nobody reads."""
    read = {int(i) for operator in graph.operators for i in operator.inputs}
    read |= {int(i) for i in graph.outputs}
    return [
        operator
        for operator in graph.operators
        if (index := int(operator.outputs[0])) not in candidates or index in read
    ]
