"""Damaged and hostile .tflite files are refused with the rule, and do no damage."""

import functools
import json
import pathlib
import subprocess
import sys

import flatbuffers
import hostile_files
import keras
import numpy as np
import pytest
from keras import layers
from tflite_files import converted

from pdp_keras.tflite.file import TFLiteRun, load_model, packed_model, stored_tensors


@functools.cache
def content(sparse):
    """Convolutions that are read and edited, most of their weights 0."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((9, 9, 4), name="image"),
            layers.Conv2D(8, 3, 2, padding="same"),
            layers.ReLU(),
            layers.Conv2D(16, 1),
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Conv2D(16, 1, activation="sigmoid"),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    for layer in model.layers:
        for weight in layer.trainable_weights:
            value = np.asarray(weight)
            weight.assign(np.where(np.abs(value) < 0.3, 0, value))
    return converted(model, sparse=sparse)


def first(model, kind):
    """The first operator of a kind, by its options."""
    return next(
        x
        for x in model.subgraphs[0].operators
        if kind in type(x.builtinOptions).__name__
    )


def kernel(model):
    sparse = [t for t in model.subgraphs[0].tensors if t.sparsity is not None]
    return max(sparse, key=lambda t: len(model.buffers[t.buffer].data))


def level(model, form):
    levels = kernel(model).sparsity.dimMetadata
    return next(x for x in levels if x.format == form)


def set_(path, value):
    """An edit: `path` leads from the model to an attribute, or an item of a list."""

    def edit(model):
        *way, last = path
        place = model
        for step in way:
            place = place[step] if isinstance(step, int) else getattr(place, step)
        if isinstance(last, int):
            place[last] = value
        else:
            setattr(place, last, value)

    return edit


def indices(*values):
    return np.array(values, "int32")


def edit_options(model):
    first(model, "Conv2DOptions").builtinOptions.strideH = 0


def edit_order(model):
    model.subgraphs[0].operators.reverse()


def edit_pixels(model):
    kernel(model).shape = indices(1, 1, 1 << 15, 1 << 15)


def edit_traversal(model):
    kernel(model).sparsity.traversalOrder = indices(0, 1, 2, 2)


def edit_level(model):
    level(model, 0).denseSize += 1


def edit_segments(model):
    segments = level(model, 1).arraySegments
    segments.values = np.flip(segments.values).copy()


def edit_found(model):
    found = level(model, 1).arrayIndices
    found.values = np.full_like(found.values, 255)


def edit_stored(model):
    stored = model.buffers[kernel(model).buffer]
    stored.data = stored.data[: len(stored.data) // 2]


def edit_quantization(model):
    quantization = kernel(model).quantization
    quantization.zeroPoint = np.array([1, 2, 3], "int64")


def edit_read(model):
    operator = first(model, "Conv2DOptions")
    operator.inputs = operator.inputs[:1]


GRAPH = ("subgraphs", 0)
TENSOR = (*GRAPH, "tensors", 1)
# name: how a sparse file is edited, what the message says
EDITS = {
    "no subgraph": (set_(("subgraphs",), []), "at least one subgraph"),
    "unknown kind": (
        set_(("operatorCodes", 0, "builtinCode"), 9999),
        "operators that the schema knows. Received: kind 9999",
    ),
    "unknown type": (set_((*TENSOR, "type"), 99), "types of the schema"),
    "no such buffer": (set_((*TENSOR, "buffer"), 999), "a buffer for each tensor"),
    "negative size": (set_((*TENSOR, "shape"), indices(-5, 2)), "shapes of sizes >= 0"),
    "name": (set_((*TENSOR, "name"), b"\xff\xfe"), "names in UTF-8"),
    "too few numbers": (
        lambda m: [
            setattr(m.buffers[t.buffer], "data", np.zeros(3, "uint8"))
            for t in m.subgraphs[0].tensors
            if t.sparsity is None and m.buffers[t.buffer].data is not None
        ],
        "as many numbers as the shape of a tensor says",
    ),
    "zero points": (edit_quantization, "a zero point for each channel"),
    "enormous zeros": (edit_pixels, "at most 4096 times its size in zeros"),
    "traversal order": (edit_traversal, "one level of a sparse encoding for each dim"),
    "level": (edit_level, "levels as long as their dimension"),
    "segments": (edit_segments, "CSR levels whose segments and indices lead somewhere"),
    "places": (edit_found, "CSR levels whose segments and indices lead somewhere"),
    "stored": (edit_stored, "a number for each place of a sparse encoding"),
    "operator code": (
        set_((*GRAPH, "operators", 0, "opcodeIndex"), 77),
        "a kind for each operator. Received: operator 0, 77",
    ),
    "reads nothing": (
        set_((*GRAPH, "operators", 1, "inputs"), indices(500)),
        "inputs of operator 1 among its tensors",
    ),
    "makes nothing": (
        set_((*GRAPH, "operators", 1, "outputs"), indices(-1)),
        "outputs of operator 1 among its tensors",
    ),
    "graph reads nothing": (
        set_((*GRAPH, "inputs"), indices(-3)),
        "inputs of a graph among its tensors",
    ),
    "graph makes nothing": (
        set_((*GRAPH, "outputs"), indices(500)),
        "outputs of a graph among its tensors",
    ),
    "order": (edit_order, "operators in the order in which they run"),
    "too few inputs": (edit_read, "operators with what they read and make"),
    "stride": (edit_options, "strides and dilations >= 1"),
}


@pytest.mark.parametrize(("edit", "rule"), EDITS.values(), ids=EDITS)
def test_what_does_not_fit_together_is_refused(edit, rule):
    _, model = load_model(content(sparse=True))
    edit(model)
    with pytest.raises(ValueError, match=r"A \.tflite file must have ") as error:
        stored_tensors(packed_model(model))
    assert rule in str(error.value)
    assert "Received: " in str(error.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"TFL3", b"not a model at all, but some text", bytes(1000), b"\xff" * 1000],
    ids=["empty", "short", "text", "zeros", "ones"],
)
def test_what_is_no_file_is_refused(data):
    with pytest.raises(ValueError, match=r"Received: "):
        stored_tensors(data)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_part_of_a_file_is_refused(part):
    data = content(sparse=False)
    with pytest.raises(
        ValueError, match=r"The content must be that of a whole \.tflite"
    ):
        stored_tensors(data[: int(part * len(data))])


def test_offsets_that_all_lead_to_one_place_are_refused():
    """A file of 120 kB with a gigabyte in names."""
    schema, _ = load_model(content(sparse=False))
    builder = flatbuffers.Builder()
    name = builder.CreateString("x" * 100_000)
    tensors = []
    for _ in range(10_000):
        schema.TensorStart(builder)
        schema.TensorAddName(builder, name)
        tensors.append(schema.TensorEnd(builder))
    schema.SubGraphStartTensorsVector(builder, len(tensors))
    for tensor in tensors:
        builder.PrependUOffsetTRelative(tensor)
    vector = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, vector)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(
        ValueError, match=r"must not be many times its size\. Received:"
    ):
        stored_tensors(bytes(builder.Output()))


def test_what_litert_refuses_is_said_so():
    _, model = load_model(content(sparse=False))
    model.signatureDefs = None
    with pytest.raises(ValueError, match=r"LiteRT must be able to load .* Received: "):
        TFLiteRun(packed_model(model))


def test_whole_files_are_read():
    for sparse in (False, True):
        hostile_files.read_all(content(sparse))


@pytest.mark.parametrize(
    "count", [200, pytest.param(10_000, marks=pytest.mark.slow)], ids=str
)
def test_mutations(count, tmp_path):
    for sparse in (False, True):
        (tmp_path / f"{sparse}.tflite").write_bytes(content(sparse))
    done = subprocess.run(
        [sys.executable, hostile_files.__file__, tmp_path, str(count), "0"],
        capture_output=True,
        text=True,
        timeout=60 + count / 20,
        env={"PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["faults"] == []
    found = result["found"]
    assert found["read"] + found["refused"] == count
    assert found["refused"] > count / 3
    assert found["bytes"] < 1 << 26
