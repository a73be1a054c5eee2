"""Files for a device: rewritten, encoded as it wants, and equal to the Keras model."""

import warnings

import keras
import numpy as np
import pytest
from image_models import (
    gated,
    inputs_of,
    inverted,
    mobile,
    randomized,
    zero_pointwise,
)
from keras import layers

import pdp_keras
from pdp_keras.rewrites import factors
from pdp_keras.tflite.conversion import ExportError
from pdp_keras.tflite.file import TFLiteRun, stored_tensors


def sparse_mobile(sparsity=0.85, **arguments):
    return zero_pointwise(randomized(mobile(**arguments)), sparsity)


def run(path, x, name="image"):
    file = TFLiteRun(path.read_bytes())
    return np.concatenate([next(iter(file({name: r[None]}).values())) for r in x])


def assert_computes(model, path, x, tolerance=1e-5):
    expected = np.asarray(model(x, training=False))
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.05 * scale
    assert np.abs(run(path, x) - expected).max() <= tolerance * scale


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"size": 33}, marks=pytest.mark.slow),
        pytest.param({"kernel": 5, "head": "convolutions"}, marks=pytest.mark.slow),
        {"padding": "keras", "head": "reshaped"},
        {"head": "unpooled", "activation": "hard_swish"},
    ],
)
def test_xnnpack_takes_the_model_s_own_images(arguments, tmp_path):
    model = sparse_mobile(**arguments)
    path = tmp_path / "model.tflite"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="On xnnpack")
        report = pdp_keras.export_tflite(model, path, target="xnnpack")
    assert report.sparse_encoding
    assert report.check.runs_sparse
    assert report.turned == ("no" if arguments.get("size") == 33 else "in the file")
    assert report.relative_difference < 1e-5
    assert_computes(model, path, inputs_of(model))
    assert {t.sparse for t in stored_tensors(path.read_bytes())} == {True, False}
    assert "they run sparse" in str(report)
    assert report.to_dict()["check"]["target"] == "xnnpack"


def test_a_signature_fixes_the_sizes_that_a_model_leaves_open(tmp_path):
    """Padding, and with it the whole rewrite, depends on them."""
    model = sparse_mobile(size=None)
    signature = keras.InputSpec(shape=(None, 32, 32, 3))
    path = tmp_path / "model.tflite"
    arguments = {"target": "xnnpack", "input_signature": signature}
    report = pdp_keras.export_tflite(model, path, **arguments)
    assert report.check.runs_sparse and report.turned == "in the file"
    assert_computes(model, path, inputs_of(mobile()), 1e-5)
    check = pdp_keras.deploy_check(model, "xnnpack", input_signature=signature)
    assert check.runs_sparse
    with pytest.raises(ValueError, match=r"Every size but the batch must be fixed"):
        pdp_keras.deploy_check(model, "xnnpack")


@pytest.mark.slow
def test_behind_a_layer_that_resizes_its_images(tmp_path):
    inputs = keras.Input((20, 20, 1), name="image")
    x = layers.Resizing(32, 32)(inputs)
    x = layers.Rescaling(2.0, offset=-1.0)(layers.Concatenate()([x, x, x]))
    model = zero_pointwise(randomized(keras.Model(inputs, mobile()(x))), 0.85)
    path = tmp_path / "model.tflite"
    report = pdp_keras.export_tflite(model, path, target="xnnpack")
    assert report.check.runs_sparse and report.turned == "in the file"
    assert_computes(model, path, inputs_of(model))


@pytest.mark.slow
def test_the_caller_may_turn(tmp_path):
    model = sparse_mobile()
    path = tmp_path / "model.tflite"
    report = pdp_keras.export_tflite(model, path, target="xnnpack", turn_inputs=False)
    assert report.turned == "by the caller"
    assert "turned by 180 degrees by the caller" in str(report)
    x = inputs_of(model)
    expected = np.asarray(model(x))
    scale = np.abs(expected).max()
    assert np.abs(run(path, x[:, ::-1, ::-1]) - expected).max() < 1e-5 * scale
    assert np.abs(run(path, x) - expected).max() > 1e-2 * scale


@pytest.mark.slow
def test_float16(tmp_path):
    model = sparse_mobile()
    path = tmp_path / "model.tflite"
    sizes = []
    for quantize in (None, "float16"):
        report = pdp_keras.export_tflite(
            model, path, target="xnnpack", quantize=quantize
        )
        assert report.sparse_encoding
        sizes.append(report.size_bytes)
    assert sizes[1] < sizes[0]
    assert_computes(model, path, inputs_of(model), 1e-2)


@pytest.mark.slow
def test_gates_and_preprocessing_layers(tmp_path):
    """As in MobileNetV3: bytes are rescaled, gates are relu6(x + 3) / 6."""
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = layers.Conv2D(8, 3, 2, padding="same", activation="hard_swish")(x)
    x = gated(inverted(x, 16, strides=2, kernel=5, activation="hard_swish"))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 1)(x))
    model = keras.Model(inputs, layers.Dense(10)(x))
    zero_pointwise(randomized(model))
    path = tmp_path / "model.tflite"
    report = pdp_keras.export_tflite(model, path, target="xnnpack")
    assert report.check.runs_sparse
    x = 128 + 60 * inputs_of(model)
    assert_computes(model, path, x)


@pytest.mark.parametrize(
    ("sparsity", "reason"),
    [(0.0, "0.0% of the 2,176 weights"), (0.6, "60.0% of the 2,176 weights")],
)
def test_too_few_zeros_are_written_with_a_word(sparsity, reason, tmp_path):
    model = sparse_mobile(sparsity)
    path = tmp_path / "model.tflite"
    with pytest.warns(UserWarning, match=reason):
        report = pdp_keras.export_tflite(model, path, target="xnnpack")
    assert not report.check.runs_sparse
    assert_computes(model, path, inputs_of(model))


def test_a_network_that_cannot_run_sparse_is_written_with_the_rule(tmp_path):
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(8, 7, strides=2, padding="same", name="wide")(inputs)
    x = layers.Conv2D(16, 1)(layers.MaxPooling2D()(x))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    zero_pointwise(randomized(model))
    path = tmp_path / "model.tflite"
    with pytest.warns(UserWarning, match=r"no faster.*wide: it is a 7x7"):
        pdp_keras.export_tflite(model, path, target="xnnpack")
    assert_computes(model, path, inputs_of(model))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def built_subclassed():
    model = Subclassed()
    model(np.zeros((1, 4), "f4"))
    return model


@pytest.mark.parametrize(
    ("build", "arguments", "error", "message"),
    [
        (
            mobile,
            {"target": "xnnpack", "quantize": "int8"},
            ValueError,
            r"\[None, 'float16'\] for target 'xnnpack', as its sparse kernels compute "
            r"in floating point. Received: quantize='int8'",
        ),
        (
            mobile,
            {"target": "xnnpack", "quantize": "dynamic"},
            ValueError,
            r"Received: quantize='dynamic'",
        ),
        (
            mobile,
            {"target": "ethos-u"},
            ValueError,
            r"\['int8'\] for target 'ethos-u', as the NPU computes in int8",
        ),
        (
            mobile,
            {"target": "xnnpack", "batch_size": None},
            ValueError,
            r"must be fixed for target 'xnnpack'.*batch_size=None",
        ),
        (mobile, {"target": "tpu"}, ValueError, r"Received: target='tpu'"),
        (
            mobile,
            {"target": "xnnpack", "tolerance": 0},
            ValueError,
            r"Received: tolerance=0",
        ),
        (
            built_subclassed,
            {"target": "xnnpack"},
            ExportError,
            r"must have a graph.*Received: model='subclassed'",
        ),
        (
            lambda: mobile(size=None),
            {"target": "xnnpack"},
            ValueError,
            r"Every size but the batch must be fixed",
        ),
    ],
)
def test_bad_arguments(build, arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        pdp_keras.export_tflite(build(), tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_wrong_rewrite_is_refused(monkeypatch, tmp_path):
    """What is written was compared with the model as it was, not as rewritten."""

    monkeypatch.setattr(factors, "_HOMOGENEOUS", (layers.Softmax,))
    inputs = keras.Input((8, 8, 3))
    x = layers.Softmax()(4.0 * inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(x))
    model = randomized(keras.Model(inputs, x))
    path = tmp_path / "model.tflite"
    path.write_text("an older file")
    with pytest.raises(ExportError, match="must compute what the Keras model computes"):
        pdp_keras.export_tflite(model, path, target="xnnpack")
    assert path.read_text() == "an older file"


@pytest.mark.slow
def test_tolerance(tmp_path):
    model = sparse_mobile()
    path = tmp_path / "model.tflite"
    with pytest.raises(ExportError, match=r"at most 1e-12; if that is rounding"):
        pdp_keras.export_tflite(model, path, tolerance=1e-12)
    assert not path.exists()
    pdp_keras.export_tflite(model, path, tolerance=0.1)
