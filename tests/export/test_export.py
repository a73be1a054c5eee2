"""Exported files are read back, run in LiteRT and compared with Keras."""

import json
import logging
import os
import subprocess
import sys
import types
import warnings

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers

from pdp_keras.export import tflite
from pdp_keras.export.tflite import ExportError, export_tflite
from pdp_keras.models import inputs as tflite_inputs
from pdp_keras.tflite import conversion, difference
from pdp_keras.tflite import encoding as tflite_encoding
from pdp_keras.tflite import file as tflite_file

# A delegate hides the tensors that it takes.
NO_DELEGATES = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
KINDS = [None, "float16", "dynamic", "int8"]


def with_he_weights(model, sparsity=0.0, seed=0):
    """Kernels ~ N(0, 2 / (fan-in of the kept)), the first weights of each 0.

    Fresh weights shrink the signal until two inputs give one output, and then any
    file passes a comparison; so does a cut that is not made good.
    """
    random = np.random.default_rng(seed)
    for variable in model.weights:
        if len(variable.shape) >= 2:
            fan_in = np.prod(variable.shape[:-1]) * (1 - sparsity)
            values = random.standard_normal(variable.shape) * np.sqrt(2 / fan_in)
            order = random.permutation(values.size)
            values.ravel()[order[: round(sparsity * values.size)]] = 0
            variable.assign(values.astype("float32"))
    return model


def samples(shape, count=16, seed=1):
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype("f4")


def small_cnn(sparsity=0.9):
    """Convolution, depthwise, normalizations that fit the data, dense."""
    model = keras.Sequential(
        [
            layers.Input((12, 12, 3), name="image"),
            layers.Conv2D(16, 3, strides=2, use_bias=False),
            layers.BatchNormalization(momentum=0.0),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.0),
            layers.Conv2D(80, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(40, activation="relu"),
            layers.Dense(5, name="logits"),
        ],
        name="cnn",
    )
    with_he_weights(model, sparsity)
    model(samples((12, 12, 3), 64), training=True)
    return model


def run(path, **inputs):
    """A file's outputs, by an independent call of the runtime."""
    runner = Interpreter(model_path=str(path)).get_signature_runner()
    return runner(**inputs)


def keras_outputs(model, inputs):
    outputs = model(inputs, training=False)
    return keras.tree.map_structure(np.asarray, outputs)


def relative(got, expected):
    return np.max(np.abs(got - expected)) / np.max(np.abs(expected))


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize(
    ("quantize", "within"), [(None, 1e-5), ("float16", 5e-3), ("dynamic", 0.1)]
)
def test_file_computes_what_the_model_computes(tmp_path, quantize, within):
    model = small_cnn()
    report = export_tflite(model, tmp_path / "m.tflite", quantize=quantize)
    first, second = samples((1, 12, 12, 3), 2)
    expected = keras_outputs(model, first), keras_outputs(model, second)
    assert relative(expected[1], expected[0]) > 0.2  # else the next line says nothing
    for image, wanted in zip((first, second), expected, strict=True):
        got = run(tmp_path / "m.tflite", image=image)["output"]
        assert relative(got, wanted) < within
    assert report.size_bytes == (tmp_path / "m.tflite").stat().st_size
    assert report.gzip_bytes < report.size_bytes
    assert report.relative_difference < within
    assert report.verified_samples == 4


def test_int8_file_takes_and_gives_int8(tmp_path):
    model = small_cnn()
    data = samples((12, 12, 3), 32)
    report = export_tflite(
        model, tmp_path / "m.tflite", quantize="int8", representative_dataset=data
    )
    runner = Interpreter(model_path=str(tmp_path / "m.tflite")).get_signature_runner()
    taken, given = runner.get_input_details(), runner.get_output_details()
    assert taken["image"]["dtype"] == given["output"]["dtype"] == np.int8
    scale, zero = taken["image"]["quantization"]
    image = np.clip(np.round(data[:1] / scale) + zero, -128, 127).astype("int8")
    scale, zero = given["output"]["quantization"]
    got = (runner(image=image)["output"].astype("f4") - zero) * scale
    assert relative(got, keras_outputs(model, data[:1])) < 0.1
    assert report.verified_samples == 8
    assert report.difference.agreement > 0.8


@pytest.mark.parametrize("quantize", KINDS)
def test_every_zero_stays_zero(tmp_path, quantize):
    model = small_cnn(sparsity=0.75)
    report = export_tflite(
        model,
        tmp_path / "m.tflite",
        quantize=quantize,
        representative_dataset=samples((12, 12, 3)),
    )
    assert [(w.name, w.shape, w.sparsity, w.lost) for w in report.weights] == [
        ("cnn/conv2d/kernel", (3, 3, 3, 16), 0.75, 0),
        ("cnn/depthwise_conv2d/kernel", (3, 3, 16, 1), 0.75, 0),
        ("cnn/conv2d_1/kernel", (1, 1, 16, 80), 0.75, 0),
        ("cnn/dense/kernel", (80, 40), 0.75, 0),
        ("cnn/logits/kernel", (40, 5), 0.75, 0),
    ]
    # Rounding to int8 makes some more zeros, never fewer.
    assert all(0.75 <= w.file_sparsity < 0.8 for w in report.weights)


@pytest.mark.parametrize(
    ("quantize", "dtype"),
    [(None, "float32"), ("float16", "float16"), ("dynamic", "int8"), ("int8", "int8")],
)
def test_zeros_as_the_runtime_reads_them(tmp_path, monkeypatch, quantize, dtype):
    dense = tflite.Target(quantizations=tuple(KINDS), sparse_encoding=False)
    monkeypatch.setitem(tflite.TARGETS, "dense", dense)
    model, path = small_cnn(sparsity=0.75), tmp_path / "m.tflite"
    data = samples((12, 12, 3))
    export_tflite(
        model, path, target="dense", quantize=quantize, representative_dataset=data
    )
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=NO_DELEGATES
    )
    interpreter.allocate_tensors()
    (detail,) = (
        detail
        for detail in interpreter.get_tensor_details()
        if detail["shape"].tolist() == [40, 80] and np.dtype(detail["dtype"]) == dtype
    )
    values = interpreter.get_tensor(detail["index"])
    zero_points = detail["quantization_parameters"]["zero_points"]
    zeros = values == (zero_points[:, None] if len(zero_points) else 0)
    kernel = model.layers[-2].kernel.value.numpy()
    assert np.sum(kernel == 0) == 2400
    assert zeros[kernel.T == 0].all()
    assert np.sum(zeros) < 2500


@pytest.mark.parametrize("quantize", KINDS)
def test_zeros_are_stored_sparse_only_where_that_works(tmp_path, quantize):
    report = export_tflite(
        small_cnn(),
        tmp_path / "m.tflite",
        quantize=quantize,
        representative_dataset=samples((12, 12, 3)),
    )
    if quantize in (None, "float16"):
        assert report.sparse_encoding
    # LiteRT 2.3.0 refuses int8 and sparse together; a later one may not.
    if report.sparse_encoding:
        assert report.dense_reason == ""
        assert report.size_bytes < 0.6 * report.dense_encoded_bytes
    else:
        assert report.dense_reason.startswith("the sparse-encoded file ")
        assert report.size_bytes == report.dense_encoded_bytes


def test_sparse_encoding_holds_the_same_weights(tmp_path):
    model = small_cnn()
    inputs = tflite_inputs.model_inputs(model)
    trace = conversion.traced(model, inputs, 1)
    row = conversion.QUANTIZATIONS[None]
    files = [
        conversion.tflite_bytes(trace, row, [], sparse=sparse)
        for sparse in (False, True)
    ]
    dense, sparse = (tflite_file.stored_tensors(data) for data in files)
    assert [t.sparse for t in dense] == [False] * 5
    assert sum(t.sparse for t in sparse) >= 4
    by_shape = {t.values.shape: t.values for t in dense}
    assert len(by_shape) == 5
    for tensor in sparse:
        np.testing.assert_array_equal(tensor.values, by_shape[tensor.values.shape])


@pytest.mark.parametrize("sparsity", [0.0, 0.1])
def test_dense_models_are_not_tried_sparse(tmp_path, monkeypatch, sparsity):
    monkeypatch.setattr(tflite, "better_encoding", None)  # calling it would fail
    report = export_tflite(small_cnn(sparsity), tmp_path / "m.tflite")
    assert report.dense_reason == "no weight has 20% zeros"


def test_target_can_forbid_sparse_encoding(tmp_path, monkeypatch):
    npu = tflite.Target(quantizations=(None,), sparse_encoding=False)
    monkeypatch.setitem(tflite.TARGETS, "npu", npu)
    report = export_tflite(small_cnn(), tmp_path / "m.tflite", target="npu")
    assert report.dense_reason == "the target takes no sparse encoding"
    with pytest.raises(
        ValueError, match=r"for target 'npu'\. Received: quantize='int8'"
    ):
        export_tflite(small_cnn(), tmp_path / "m.tflite", target="npu", quantize="int8")


# ------------------------------------------------------------------- kinds of model


def two_in_three_out():
    """Names in other than alphabetical order, equal shapes, to catch a mix-up."""
    zeta = keras.Input((6,), name="zeta")
    alpha = keras.Input((6,), name="alpha")
    both = layers.Concatenate()([layers.Dense(8)(zeta), layers.Dense(4)(alpha)])
    outputs = {
        "q": layers.Dense(3)(both),
        "b": layers.Dense(3)(layers.Dense(5, activation="relu")(both)),
        "p": layers.Dense(3, activation="softmax")(both),
    }
    return with_he_weights(keras.Model({"zeta": zeta, "alpha": alpha}, outputs), 0.5)


@pytest.mark.parametrize("quantize", [None, "dynamic"])
def test_inputs_and_outputs_keep_their_names(tmp_path, quantize):
    model = two_in_three_out()
    export_tflite(model, tmp_path / "m.tflite", quantize=quantize)
    inputs = {"zeta": samples((6,), 1, 2), "alpha": samples((6,), 1, 3)}
    got = run(tmp_path / "m.tflite", **inputs)
    expected = keras_outputs(model, inputs)
    assert sorted(got) == ["b", "p", "q"]
    for name, values in expected.items():
        assert relative(got[name], values) < 0.05
        others = [relative(got[name], v) for n, v in expected.items() if n != name]
        assert min(others) > 0.2  # so a swap would have been seen


def test_int8_with_several_inputs(tmp_path):
    data = {"alpha": samples((6,), 32, 2), "zeta": samples((6,), 32, 3)}
    report = export_tflite(
        two_in_three_out(),
        tmp_path / "m.tflite",
        quantize="int8",
        representative_dataset=data,
    )
    assert report.relative_difference < 0.1


def test_an_output_given_twice_and_an_input_passed_through(tmp_path):
    start = keras.Input((4,), name="in put:0")
    out = layers.Dense(2, name="out")(start)
    model = keras.Model(start, [out, out, start])
    export_tflite(model, tmp_path / "m.tflite")
    data = samples((4,), 1)
    got = run(tmp_path / "m.tflite", in_put_0=data)
    assert sorted(got) == ["in_put_0", "out", "out_1"]
    np.testing.assert_array_equal(got["in_put_0"], data)
    np.testing.assert_array_equal(got["out"], got["out_1"])


class TwoLayers(keras.Model):
    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(16, activation="relu")
        self.out = layers.Dense(units)

    def call(self, inputs):
        return {"y": self.out(self.hidden(inputs["a"] + inputs["b"]))}


def subclassed():
    model = TwoLayers()
    model({"a": np.zeros((2, 4), "f4"), "b": np.zeros((2, 4), "f4")})
    return model


def attention():
    start = keras.Input((6, 16))
    x = layers.LayerNormalization()(
        start + layers.MultiHeadAttention(2, 8)(start, start)
    )
    return keras.Model(start, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


def sequential(*stack, dtype=None, shape):
    return keras.Sequential([layers.Input(shape, dtype=dtype), *stack])


MODELS = {
    "subclassed": subclassed,
    "attention": attention,
    "lstm": lambda: sequential(layers.LSTM(8), layers.Dense(3), shape=(5, 4)),
    "gru": lambda: sequential(
        layers.Bidirectional(layers.GRU(8)), layers.Dense(3), shape=(5, 4)
    ),
    "embedding": lambda: sequential(
        layers.Embedding(11, 8), layers.Flatten(), shape=(6,), dtype="int32"
    ),
    "uint8 image": lambda: sequential(
        layers.Rescaling(1 / 255),
        layers.SeparableConv2D(8, 3, depth_multiplier=2),
        layers.Flatten(),
        shape=(8, 8, 3),
        dtype="uint8",
    ),
    "inference-only layers": lambda: sequential(
        layers.RandomFlip(), layers.Dropout(0.5), layers.Conv2DTranspose(4, 3),
        shape=(6, 6, 2),
    ),
    "nested": lambda: sequential(
        keras.Sequential([layers.Conv1D(8, 3, activation="gelu"), layers.Flatten()]),
        layers.Dense(3),
        shape=(8, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models_of_many_kinds(tmp_path, name):
    report = export_tflite(with_he_weights(MODELS[name](), 0.5), tmp_path / "m.tflite")
    assert report.relative_difference < 1e-5
    assert report.difference.variation > 0.05


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "mixed_bfloat16"])
def test_half_precision_models_are_exported_in_float32(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = with_he_weights(
            sequential(layers.Dense(8), layers.Dense(3), shape=(4,))
        )
        export_tflite(model, tmp_path / "m.tflite")
        assert keras.config.dtype_policy().name == policy
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.dtype_policy.name for layer in model.layers} == {policy}
    data = samples((4,), 1).astype("float16").astype("f4")
    got = run(tmp_path / "m.tflite", input=data)["output"]
    expected = keras_outputs(model, data).astype("f4")
    assert relative(got, expected) < 0.05


def test_half_precision_model_that_cannot_be_rebuilt(tmp_path):
    class Closed(TwoLayers):
        def get_config(self):
            raise NotImplementedError

    model = Closed(dtype="mixed_float16")
    model({"a": np.zeros((2, 4), "f4"), "b": np.zeros((2, 4), "f4")})
    with pytest.raises(ExportError, match="cannot be rebuilt from its config"):
        export_tflite(model, tmp_path / "m.tflite")


def test_recurrent_int8_is_refused_before_it_can_crash(tmp_path):
    with pytest.raises(ExportError, match="unroll=True"):
        export_tflite(
            MODELS["lstm"](),
            tmp_path / "m.tflite",
            quantize="int8",
            representative_dataset=samples((5, 4)),
        )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("batch_size", "signature"), [(1, 1), (4, 4), (None, -1)])
def test_batch(tmp_path, batch_size, signature):
    model = with_he_weights(sequential(layers.Dense(8), layers.Dense(3), shape=(6,)))
    report = export_tflite(model, tmp_path / "m.tflite", batch_size=batch_size)
    assert report.batch_size == batch_size
    details = Interpreter(model_path=str(tmp_path / "m.tflite")).get_input_details()
    assert details[0]["shape_signature"].tolist() == [signature, 6]
    data = samples((6,), batch_size or 5)
    got = run(tmp_path / "m.tflite", input=data)["output"]
    assert relative(got, keras_outputs(model, data)) < 1e-5


def test_input_signature_fixes_open_sizes(tmp_path):
    model = sequential(
        layers.Conv2D(8, 3), layers.GlobalAveragePooling2D(), shape=(None, None, 3)
    )
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match=r"an `input_signature`.*with shape="):
        export_tflite(model, path)
    signature = keras.InputSpec(shape=(None, 9, 7, 3), dtype="float32")
    export_tflite(with_he_weights(model), path, input_signature=signature)
    details = Interpreter(model_path=str(path)).get_input_details()
    assert details[0]["shape"].tolist() == [1, 9, 7, 3]


@pytest.mark.parametrize("dtype", [None, "int32"])
def test_a_signature_without_a_dtype_has_the_model_s(tmp_path, dtype):
    words = keras.Input((None,), dtype="int32", name="words")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(7, 3)(words))
    model = keras.Model(words, layers.Dense(2)(x))
    path = tmp_path / "m.tflite"
    signature = keras.InputSpec(shape=(None, 5), dtype=dtype)
    export_tflite(with_he_weights(model), path, input_signature=signature)
    (entry,) = Interpreter(model_path=str(path)).get_input_details()
    assert (entry["dtype"], entry["shape"].tolist()) == (np.int32, [1, 5])


# ----------------------------------------------------------------------- the check


def other_weights(monkeypatch, change):
    """Makes the converter see a model with other weights than the user's."""
    right = conversion.float32_model

    def wrong(model, inputs):
        copy = keras.models.clone_model(right(model, inputs))
        copy.set_weights([change(w) for w in model.get_weights()])
        return copy

    monkeypatch.setattr(conversion, "float32_model", wrong)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("quantize", "change"),
    [
        (None, lambda w: w * 1.001),
        ("float16", lambda w: w * 1.1),
        ("dynamic", lambda w: -abs(w)),
        ("int8", lambda w: w[::-1]),
        (None, lambda w: w * np.nan),
        ("int8", lambda w: w * 0),
    ],
)
def test_wrong_file_is_caught_and_not_written(tmp_path, monkeypatch, quantize, change):
    model = with_he_weights(sequential(layers.Dense(40), layers.Dense(3), shape=(30,)))
    other_weights(monkeypatch, change)
    path = tmp_path / "m.tflite"
    path.write_bytes(b"older")
    options = {"quantize": quantize, "representative_dataset": samples((30,))}
    with pytest.raises(ExportError, match="must compute what the Keras model"):
        export_tflite(model, path, **options)
    assert path.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["m.tflite"]
    # It was the check that stopped it.
    report = export_tflite(model, path, **options, verify=False)
    assert report.difference is report.relative_difference is None
    assert report.verified_samples == 0
    assert path.stat().st_size == report.size_bytes


def test_sparse_file_that_computes_something_else_is_not_taken(tmp_path, monkeypatch):
    right = tflite_encoding.conversion.tflite_bytes
    wrong = conversion.traced(
        model := small_cnn(0.95), tflite_inputs.model_inputs(model), 1
    )

    def bytes_of(trace, *args, sparse):
        return right(wrong if sparse else trace, *args, sparse=sparse)

    monkeypatch.setattr(conversion, "tflite_bytes", bytes_of)
    report = export_tflite(small_cnn(0.9), tmp_path / "m.tflite")
    assert not report.sparse_encoding
    assert report.dense_reason.startswith(
        "the sparse-encoded file computes something else, off by "
    )
    assert report.relative_difference < 1e-5


def test_weak_check_is_reported(tmp_path):
    model = sequential(layers.Dense(3, kernel_initializer="zeros"), shape=(4,))
    model.layers[-1].bias.assign([1.0, 2.0, 3.0])
    report = export_tflite(model, tmp_path / "m.tflite")
    assert "a weak check" in str(report)


@pytest.mark.parametrize(
    ("expected", "got", "largest", "scale", "variation", "error", "agreement"),
    [
        ([[1, -2], [0, 2]], [[1, -2], [0, 2]], 0, 2, 2, 0, 1.0),
        ([[1, -2], [0, 2]], [[1, -2], [3, 2]], 3, 2, 2, 1, 0.5),
        ([[0, 0], [0, 0]], [[0, 1], [0, 0]], 1, 0, 0, 0.5, 0.5),
        ([[4], [4]], [[4], [2]], 2, 4, 0, np.sqrt(2) / 4, None),
    ],
)
def test_largest_difference(expected, got, largest, scale, variation, error, agreement):
    parts = [[{"y": np.array([row], "f4")} for row in rows] for rows in (expected, got)]
    assert difference.largest_difference(*parts) == difference.Difference(
        "y", largest, scale, variation, pytest.approx(error), agreement
    )


def test_worst_output_counts_even_if_nan():
    good, bad = np.ones((1, 2), "f4"), np.array([[1, np.nan]], "f4")
    found = difference.largest_difference(
        [{"a": good, "b": good}], [{"a": good * 9, "b": bad}]
    )
    assert found.output == "b"
    with pytest.raises(ValueError, match="output 'a' with shapes"):
        difference.largest_difference([{"a": good}], [{"a": good.T}])


# ------------------------------------------------------------------ nothing else


def test_model_is_left_as_it_was(tmp_path):
    model = sequential(
        layers.Conv2D(8, 3, activity_regularizer="l2"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(3),
        shape=(6, 6, 2),
    )
    model.compile("adam", "mse")
    data = samples((6, 6, 2))
    model.fit(data, np.zeros((16, 3)), verbose=0)
    before = [v.value.numpy() for v in model.variables]
    config = model.get_config()
    export_tflite(
        model, tmp_path / "m.tflite", quantize="int8", representative_dataset=data
    )
    assert model.get_config() == config
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.value.numpy())
    assert np.isfinite([float(loss) for loss in model.losses]).all()
    model.fit(data, np.zeros((16, 3)), verbose=0)


def test_nothing_is_printed_and_state_is_restored(tmp_path, capfd):
    filters, level = list(warnings.filters), logging.getLogger("absl").level
    export_tflite(sequential(layers.Dense(2), shape=(3,)), tmp_path / "m.tflite")
    assert warnings.filters == filters
    assert logging.getLogger("absl").level == level
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_converter_failure_leaves_the_older_file(tmp_path):
    model = sequential(layers.Lambda(lambda x: keras.ops.svd(x)[1]), shape=(3, 3))
    path = tmp_path / "m.tflite"
    path.write_bytes(b"older")
    with pytest.raises(ExportError, match="built-in operators"):
        export_tflite(model, path)
    assert path.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["m.tflite"]


def test_failed_write_leaves_no_half_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        export_tflite(sequential(layers.Dense(2), shape=(3,)), tmp_path / "m.tflite")
    assert os.listdir(tmp_path) == []


class PDPWrapper(layers.Wrapper):
    """Stands for the package's own, which export only knows by name."""

    def call(self, inputs):
        return self.layer(inputs)


def wrapped_inside():
    return sequential(
        keras.Sequential([PDPWrapper(layers.Dense(2), name="pruned")]), shape=(3,)
    )


def dense_model():
    return sequential(layers.Dense(2), shape=(3,))


BAD_ARGUMENTS = {
    "wrapper": (wrapped_inside, {}, ValueError, "strip_pruning.*['pruned']"),
    "no model": (lambda: "m", {}, TypeError, "Received: model='m'"),
    "not built": (
        lambda: keras.Sequential([layers.Dense(2)], name="raw"),
        {},
        ValueError,
        "Received: model='raw', not built",
    ),
    "text input": (
        lambda: sequential(
            layers.StringLookup(vocabulary=["a"]), shape=(1,), dtype="string"
        ),
        {},
        ValueError,
        "with dtype=string",
    ),
    "target": (dense_model, {"target": "tpu"}, ValueError, "Received: target='tpu'"),
    "quantize": (dense_model, {"quantize": "int4"}, ValueError, "quantize='int4'"),
    "no samples": (
        dense_model,
        {"quantize": "int8"},
        ValueError,
        "Received: representative_dataset=None",
    ),
    "batch 0": (dense_model, {"batch_size": 0}, ValueError, "Received: batch_size=0"),
    "batch True": (dense_model, {"batch_size": True}, ValueError, "batch_size=True"),
    "folder": (dense_model, {"path": "."}, IsADirectoryError, "Received: path="),
    "no folder": (dense_model, {"path": "no/m"}, FileNotFoundError, "must exist"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_fail_before_any_work(tmp_path, monkeypatch, case):
    make, options, error, message = BAD_ARGUMENTS[case]
    monkeypatch.setattr(conversion, "traced", None)  # calling it would fail
    options = dict(options)
    path = tmp_path / options.pop("path", "m.tflite")
    with pytest.raises(error, match=message):
        export_tflite(make(), path, **options)
    assert os.listdir(tmp_path) == []


def test_unwritable_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="must be writable"):
        export_tflite(dense_model(), tmp_path / "m.tflite")


@pytest.mark.parametrize("package", ["tensorflow", "ai_edge_litert"])
def test_missing_package(tmp_path, monkeypatch, package):
    find = tflite.importlib.util.find_spec
    monkeypatch.setattr(
        tflite.importlib.util, "find_spec", lambda n: None if n == package else find(n)
    )
    with pytest.raises(ImportError, match=package.replace("_", "-")):
        export_tflite(dense_model(), tmp_path / "m.tflite")


def test_other_backends_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"TensorFlow backend.*Received: backend=jax"):
        export_tflite(dense_model(), tmp_path / "m.tflite")


def test_import_needs_neither_tensorflow_nor_the_runtime():
    code = """
import sys
import pdp_keras.export
print(sorted({"tensorflow", "ai_edge_litert", "ethosu"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        # Keras itself imports its backend.
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


# -------------------------------------------------------------------- samples

ONE = (tflite_inputs.ModelInput("x", (2,), "float32"),)
TWO = (
    tflite_inputs.ModelInput("b", (2,), "float32"),
    tflite_inputs.ModelInput("a", (), "int32"),
)
X = [[1.0, 2.0], [3.0, 4.0]]
A = [5, 6]


def tf_data(elements, batch=None):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(elements)
    return dataset.batch(batch) if batch else dataset


ONE_FORMS = {
    "array": lambda: np.array(X),
    "integers": lambda: np.array([[1, 2], [3, 4]], "uint8"),
    "dict of arrays": lambda: {"x": np.array(X)},
    "list of samples": lambda: [np.array(x) for x in X],
    "list of batches": lambda: [np.array(X[:1]), np.array(X[1:])],
    "generator function": lambda: lambda: (np.array([x]) for x in X),
    "TFLite's lists": lambda: lambda: ([np.array([x])] for x in X),
    "with labels": lambda: [(np.array(X), np.array([0, 1]))],
    "tf.data": lambda: tf_data(X),
    "tf.data, batched, with labels": lambda: tf_data((X, A), batch=2),
    "endless": lambda: lambda: (np.array(X) for _ in iter(int, 1)),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("form", ONE_FORMS)
def test_samples_of_one_input(form):
    rows = tflite_inputs.representative_rows(ONE_FORMS[form](), ONE, limit=2)
    assert [[a.tolist() for a in row] for row in rows] == [[[1, 2]], [[3, 4]]]
    assert rows[0][0].dtype == np.float32


TWO_FORMS = {
    "dict of arrays": lambda: {"a": np.array(A), "b": np.array(X)},
    "lists": lambda: [[np.array(x), np.array(a)] for x, a in zip(X, A, strict=True)],
    "tuples": lambda: [(np.array(X), np.array(A))],
    "dicts with labels": lambda: [({"a": np.array(A), "b": np.array(X)}, [0, 1])],
    "tf.data of dicts": lambda: tf_data({"a": A, "b": X}),
}


@pytest.mark.parametrize("form", TWO_FORMS)
def test_samples_of_two_inputs(form):
    rows = tflite_inputs.representative_rows(TWO_FORMS[form](), TWO, limit=9)
    got = [[a.tolist() for a in row] for row in rows]
    assert got == [[[1, 2], 5], [[3, 4], 6]]


@pytest.mark.parametrize(
    ("dataset", "inputs", "error", "message"),
    [
        (3, ONE, TypeError, "Received: representative_dataset=3"),
        ("data", ONE, TypeError, "Received: representative_dataset='data'"),
        ([], ONE, ValueError, "at least one sample"),
        (np.zeros((4, 3)), ONE, ValueError, r"\(2,\) for input 'x'.*shape=\(4, 3\)"),
        ({"y": np.zeros((4, 2))}, ONE, ValueError, r"\['x'\].*keys=\['y'\]"),
        (np.full((1, 2), np.nan), ONE, ValueError, "finite"),
        ([np.zeros(2)], TWO, ValueError, r"\['b', 'a'\]. Received: 1 arrays"),
        ([[np.zeros(2), np.zeros(1)]], TWO, ValueError, "int32 for input 'a'"),
        ([[np.zeros((2, 2)), np.zeros(1, int)]], TWO, ValueError, r"sizes=\[1, 2\]"),
    ],
)
def test_samples_that_do_not_fit(dataset, inputs, error, message):
    with pytest.raises(error, match=message):
        tflite_inputs.representative_rows(dataset, inputs, limit=9)


def test_batches_are_filled_from_the_first():
    rows = [[np.array(i)] for i in range(5)]
    made = tflite_inputs.batches(rows, ONE, 3)
    assert [b["x"].tolist() for b in made] == [[0, 1, 2], [3, 4, 0]]
    assert [b["x"].tolist() for b in tflite_inputs.batches(rows[:1], ONE, 3)] == [
        [0] * 3
    ]


def test_names_are_identifiers_and_distinct():
    names = tflite_inputs.unique_names(["a/b", "a:b", "a_b_1", "a b"])
    assert names == ["a_b", "a_b_1", "a_b_1_1", "a_b_2"]


# ----------------------------------------------------------- the sparse encoding


def level(*, size=0, segments=None, indices=None):
    vector = types.SimpleNamespace
    return types.SimpleNamespace(
        format=int(segments is not None),
        denseSize=size,
        arraySegments=vector(values=segments),
        arrayIndices=vector(values=indices),
    )


DENSIFIED = {
    "rows": (
        [5, 6, 7],
        (
            [0, 1],
            None,
            [level(size=3), level(segments=[0, 1, 1, 3], indices=[2, 0, 1])],
        ),
        [[0, 0, 5], [0, 0, 0], [6, 7, 0]],
    ),
    "columns first": (
        [5, 6],
        ([1, 0], [], [level(size=3), level(segments=[0, 1, 1, 2], indices=[1, 0])]),
        [[0, 0, 6], [5, 0, 0]],
    ),
    "blocks of 1x2": (
        [1, 2, 3, 4],
        (
            [0, 1, 2],
            [1],
            [level(size=2), level(segments=[0, 1, 2], indices=[1, 0]), level(size=2)],
        ),
        [[0, 0, 1, 2], [3, 4, 0, 0]],
    ),
    "both sparse": (
        [9],
        (
            [0, 1],
            None,
            [level(segments=[0, 1], indices=[1]), level(segments=[0, 1], indices=[2])],
        ),
        [[0, 0, 0], [0, 0, 9]],
    ),
}


@pytest.mark.parametrize("case", DENSIFIED)
def test_densified(case):
    stored, (order, blocks, levels), expected = DENSIFIED[case]
    sparsity = types.SimpleNamespace(
        traversalOrder=order, blockMap=blocks, dimMetadata=levels
    )
    got = tflite_file.densified(np.array(stored), np.shape(expected), sparsity)
    assert got.tolist() == expected


def test_stored_weights_are_found_turned_scaled_and_merged():
    a, b = np.array([[1.0, 0, -2], [0, 3, 0]]), np.array([[0.0, 1, 1], [1, 0, 0]])
    heads = np.arange(-11.0, 13).reshape(3, 2, 4)
    tensors = [
        tflite_file.StoredTensor("1", heads.transpose(1, 2, 0).reshape(8, 3), False),
        tflite_file.StoredTensor("2", b.T * [5, 7], False),
        tflite_file.StoredTensor("3", a.T * 2, True),
    ]
    weights = {"a": a, "b": b, "heads": heads, "absent": np.ones((5, 5))}
    found = tflite_file.stored_weights(weights, tensors)
    assert {k: v and v.name for k, v in found.items()} == {
        "a": "3",
        "b": "2",
        "heads": "1",
        "absent": None,
    }
    np.testing.assert_array_equal(found["a"].values, a * 2)
    np.testing.assert_array_equal(found["heads"].values, heads)


# ----------------------------------------------------------------------- the report


def test_report_prints_and_converts(tmp_path):
    path = tmp_path / "m.tflite"
    report = export_tflite(small_cnn(), path, quantize="float16")
    lines = str(report).splitlines()
    assert lines[0] == (
        f"{path}: {report.size_bytes:,} bytes, {report.gzip_bytes:,} gzipped"
    )
    assert lines[1] == "  target    generic, float16, batch 1"
    assert lines[2].startswith("  zeros     sparse (")
    assert lines[3].startswith("  verified  4 samples in ai-edge-litert ")
    assert lines[4].split() == ["weight", "zeros", "in", "file", "shape"]
    assert lines[5].split() == ["cnn/conv2d/kernel", "90.0%", "90.0%", "3x3x3x16"]
    content = json.loads(json.dumps(report.to_dict()))
    assert content["sparse_encoding"] is True
    assert content["quantize"] == "float16"
    assert content["relative_difference"] == report.max_difference / report.output_scale
    assert content["weights"][3]["shape"] == [80, 40]
    assert content["weights"][3]["lost"] == 0
