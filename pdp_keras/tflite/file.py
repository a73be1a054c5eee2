"""Reading a .tflite file: the weights that it stores, and what it computes.

The file is a flatbuffer; its schema is TensorFlow's
`tensorflow/compiler/mlir/lite/schema/schema.fbs`. Nothing here needs Keras; the
runtime package `ai-edge-litert` is imported when first used.
"""

import dataclasses
import itertools
import operator
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pdp_keras.tflite.bounds import require_bounded
from pdp_keras.tflite.consistency import require_consistent

Array = npt.NDArray[Any]

# The schema's TensorType codes of the types that weights are stored in.
_DTYPES: dict[int, str] = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    7: "int16",
    9: "int8",
    10: "float64",
}
_SPARSE_CSR = 1


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One constant tensor of a .tflite file.

    Attributes:
        name: its name in the file (made by the converter).
        values: the stored numbers less their zero point, in the tensor's full
            shape, sparse encodings filled with zeros: a pruned weight is exactly
            0 here, quantized or not. Not multiplied by the quantization scale.
        sparse: whether the file stores it in the sparse encoding.
    """

    name: str
    values: Array
    sparse: bool


def stored_tensors(data: bytes) -> list[StoredTensor]:
    """Returns the constant tensors of rank 2 and more in a .tflite file.

    Args:
        data: the file's content.

    Returns:
        A list in the file's order, one `StoredTensor` for each tensor that has
        stored numbers. Biases and other vectors are left out.

    Example:

    >>> tensors = stored_tensors(pathlib.Path("model.tflite").read_bytes())
    >>> [(t.name, t.values.shape, float(np.mean(t.values == 0))) for t in tensors]
    """
    _, model = load_model(data)
    return [
        StoredTensor(tensor.name.decode(), values, tensor.sparsity is not None)
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.shape is not None
        and len(tensor.shape) >= 2
        and (values := tensor_values(tensor, model)) is not None
    ]


def load_model(data: bytes) -> tuple[Any, Any]:
    """The schema's module, and the file as its `ModelT`.

    Raises:
        ValueError: if the content is not that of a whole .tflite file, or does not fit
            together. Nothing larger than the file, or than the zeros that it stands
            for, has been made then.
    """
    # Older releases of the runtime come without the schema; TensorFlow has it.
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        from tensorflow.lite.python import schema_py_generated as schema
    try:
        require_bounded(schema, data)
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    # The errors of offsets that lead nowhere.
    except (struct.error, IndexError, TypeError, OverflowError) as error:
        raise _not_whole(data) from error
    except ValueError as error:
        raise (error if "Received" in str(error) else _not_whole(data)) from error
    _fill_in_lists(model)
    require_consistent(schema, model, len(data), _DTYPES)
    return schema, model


def _fill_in_lists(model: Any) -> None:
    """Puts empty lists where the schema leaves them out."""

    def fill(table: Any, *names: str) -> None:
        for name in names:
            setattr(table, name, listed(getattr(table, name)))

    fill(model, "subgraphs", "operatorCodes", "buffers")
    for graph in model.subgraphs:
        fill(graph, "tensors", "operators", "inputs", "outputs")
        for one in graph.operators:
            fill(one, "inputs", "outputs")


def _not_whole(data: bytes) -> ValueError:
    return ValueError(
        "The content must be that of a whole .tflite file, every offset inside of it. "
        f"Received: {len(data):,} bytes that begin with {data[:8]!r}"
    )


def operator_kind(model: Any, operator: Any) -> int:
    """The schema's `BuiltinOperator` of an `OperatorT`."""
    return code_kind(model.operatorCodes[operator.opcodeIndex])


def code_kind(code: Any) -> int:
    """The same of an `OperatorCodeT`; old files have small kinds in another field."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def packed_model(model: Any) -> bytes:
    """The content of a file with this `ModelT`."""
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tensor_values(tensor: Any, model: Any) -> Array | None:
    """The numbers of a `TensorT` less their zero point; None if none are stored."""
    raw = model.buffers[tensor.buffer].data
    if raw is None or len(raw) == 0 or tensor.type not in _DTYPES:
        return None
    shape = tuple(int(size) for size in listed(tensor.shape))
    values = np.frombuffer(np.asarray(raw, "uint8").tobytes(), _DTYPES[tensor.type])
    if tensor.sparsity is not None:
        values = densified(values, shape, tensor.sparsity)
    values = values.reshape(shape)
    quantization = tensor.quantization
    if quantization is None or quantization.zeroPoint is None:
        return values
    points = np.asarray(quantization.zeroPoint)
    if points.size > 1:
        along = [1] * len(shape)
        along[quantization.quantizedDimension] = -1
        points = points.reshape(along)
    return values.astype("int64") - points if points.any() else values


def densified(stored: Array, shape: Sequence[int], sparsity: Any) -> Array:
    """Fills a sparse-encoded tensor with its zeros.

    The encoding walks the dimensions in `traversalOrder`, a tree with one level
    for each: a dense level has all its children, a CSR level lists them. Numbers
    past the rank are the dimensions inside a block, which `blockMap` assigns to
    the tensor's own dimensions. (The format of TACO, Kjolstad et al. 2017.)

    Args:
        stored: 1-D, the stored numbers, in the order of the tree's leaves.
        shape: the tensor's shape.
        sparsity: the schema's `SparsityParametersT`.

    Returns:
        An array of `shape` and of `stored`'s dtype.
    """
    rank = len(shape)
    order = [int(d) for d in sparsity.traversalOrder]
    blocks = [int(d) for d in listed(sparsity.blockMap)]
    coordinates: dict[int, Array] = {}
    nodes = 1
    for dimension, level in zip(order, sparsity.dimMetadata, strict=True):
        if level.format == _SPARSE_CSR:
            # Nodes of one level are numbered in order, so the segments' lengths
            # are the numbers of children.
            children = np.diff(np.asarray(level.arraySegments.values, "int64"))
            new = np.asarray(level.arrayIndices.values, "int64")
        else:
            children = np.full(nodes, level.denseSize)
            new = np.tile(np.arange(level.denseSize), nodes)
        coordinates = {d: np.repeat(c, children) for d, c in coordinates.items()}
        coordinates[dimension] = new
        nodes = len(new)
    sizes = {d: m.denseSize for d, m in zip(order, sparsity.dimMetadata, strict=True)}
    where = [coordinates[d] for d in range(rank)]
    for block, dimension in enumerate(blocks):
        where[dimension] = (
            where[dimension] * sizes[rank + block] + coordinates[rank + block]
        )
    full = np.zeros(tuple(shape), stored.dtype)
    full[tuple(where)] = stored[:nodes]
    return full


def listed(values: Any) -> Any:
    """What the schema leaves out where it is empty, as an empty list."""
    return [] if values is None else values


def stored_weights(
    weights: Mapping[str, Array], tensors: Sequence[StoredTensor]
) -> dict[str, StoredTensor | None]:
    """Finds the stored tensor of each weight.

    The converter renames, transposes and merges, and folds normalizations into
    the kernels, so a weight is recognised by the pattern of its zeros and signs:
    of all stored tensors with as many elements, and all orders of the weight's
    axes, the one that agrees in most places.

    Args:
        weights: name → values, each of rank 2 to 5.
        tensors: from `stored_tensors`.

    Returns:
        name → its tensor, with `values` in the *weight's* shape; None for a
        weight that the file holds in no such form (split, merged or folded).
    """
    scored = []
    for name, weight in weights.items():
        for index, tensor in enumerate(tensors):
            if tensor.values.size == weight.size:
                score, axes = _likeness(weight, tensor.values)
                scored.append((score, name, index, axes))
    found: dict[str, StoredTensor | None] = dict.fromkeys(weights)
    taken: set[int] = set()
    # Most alike first; the sort is stable, so equals keep the file's order.
    for _, name, index, axes in sorted(scored, key=lambda row: -row[0]):
        if found[name] is None and index not in taken:
            taken.add(index)
            values = _in_axes_of(weights[name], tensors[index].values, axes)
            found[name] = dataclasses.replace(tensors[index], values=values)
    return found


def _likeness(weight: Array, stored: Array) -> tuple[float, tuple[int, ...]]:
    """The best agreement, 0 to 2, and the order of the axes that reaches it."""
    signs, own = _signs(stored).ravel(), _signs(weight)
    best = (-1.0, tuple(range(weight.ndim)))
    for axes in itertools.permutations(range(weight.ndim)):
        turned = own.transpose(axes)
        # Only neighbouring axes can have been merged (into a matrix's rows, say).
        if not _partial_sizes(stored.shape) <= _partial_sizes(turned.shape):
            continue
        flat = turned.ravel()
        # A folded normalization may flip the signs of a channel, never its zeros.
        score = np.mean((flat == 0) == (signs == 0)) + np.mean(flat == signs)
        best = max(best, (float(score), axes), key=lambda pair: pair[0])
    return best


def _signs(values: Array) -> Array:
    return (values > 0).astype("int8") - (values < 0).astype("int8")


def _partial_sizes(shape: tuple[int, ...]) -> set[int]:
    return {1, *itertools.accumulate(shape, operator.mul)}


def _in_axes_of(weight: Array, stored: Array, axes: tuple[int, ...]) -> Array:
    turned = stored.reshape([weight.shape[axis] for axis in axes])
    return turned.transpose(np.argsort(axes))


class TFLiteRun:
    """A .tflite file loaded in LiteRT, ready to be called.

    Args:
        data: the file's content, with one signature.

    Raises:
        ValueError: if the content does not fit together, or LiteRT refuses it.
    """

    def __init__(self, data: bytes):
        from ai_edge_litert.interpreter import Interpreter

        # LiteRT trusts some of what it is given, to the end of the process.
        load_model(data)
        try:
            self._runner = Interpreter(model_content=data).get_signature_runner()
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                "LiteRT must be able to load the .tflite file. "
                f"Received: a file of which it says: {error}"
            ) from error
        self._inputs = self._runner.get_input_details()
        self._outputs = self._runner.get_output_details()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the file once.

        Args:
            inputs: input name → array with the batch axis, in the Keras model's
                dtype; quantized here where the file wants int8.

        Returns:
            output name → array; float32 where the file's output is quantized.
        """
        fed = {
            name: _quantized(values, self._inputs[name])
            for name, values in inputs.items()
        }
        return {
            name: _real(values, self._outputs[name])
            for name, values in self._runner(**fed).items()
        }


def _quantized(values: Array, detail: Mapping[str, Any]) -> Array:
    dtype = np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    if scale and values.dtype.kind == "f" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.round(values / scale) + zero_point
        values = np.clip(values, limits.min, limits.max)
    return values.astype(dtype)


def _real(values: Array, detail: Mapping[str, Any]) -> Array:
    scale, zero_point = detail["quantization"]
    if scale and values.dtype.kind in "iu":
        return ((values.astype("float64") - zero_point) * scale).astype("float32")
    return values
