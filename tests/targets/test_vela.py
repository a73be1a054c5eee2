"""Arm's compiler for the Ethos-U85 recognises N:M sparsity in the exported file."""

import keras
import numpy as np
import pytest
from keras import layers
from models import set_zeros

import pdp_keras
from pdp_keras.targets import vela

pytest.importorskip("ethosu.vela.vela", reason="needs ethos-u-vela")


def small_cnn():
    """All but 1 % of its multiplications are in convolutions of 16 channels or more.

    With random kernels that keep the signal's scale, so that int8 has something to
    round.
    """
    model = keras.Sequential(
        [
            keras.Input((32, 32, 16)),
            layers.Conv2D(32, 1, activation="relu", name="pointwise"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="spatial"),
            layers.Conv2D(64, 1, activation="relu", name="wide"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="logits"),
        ],
        name="cnn",
    )
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            shape = layer.kernel.shape
            scale = np.sqrt(2 / np.prod(shape[:-1]))
            layer.kernel.assign(scale * random.standard_normal(shape))
    return model


def stripped(**arguments):
    model = pdp_keras.prune_model(small_cnn(), **arguments)
    set_zeros(model)
    return pdp_keras.strip_pruning(model)


def zero_two_of_four(model, axis):
    """Zeroes the two smallest of every four consecutive weights along an axis."""
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            kernel = np.moveaxis(layer.kernel.value.numpy(), axis, -1)
            groups = kernel.reshape(-1, 4)
            groups[np.arange(len(groups))[:, None], np.abs(groups).argsort()[:, :2]] = 0
            layer.kernel.assign(np.moveaxis(groups.reshape(kernel.shape), -1, axis))
    return model


def estimate(model, folder):
    """Vela's figures for an int8 file: multiplications, cycles and bytes of weights."""
    path = folder / "model.tflite"
    compiled = folder / "model_vela.tflite"
    images = np.random.default_rng(1).standard_normal((16, 32, 32, 16), "f4")
    report = pdp_keras.export_tflite(
        model,
        path,
        target="ethos-u",
        quantize="int8",
        representative_dataset=images,
        accelerator="ethos-u85-256",
    )
    assert all(weight.lost == 0 for weight in report.weights)
    assert not report.sparse_encoding
    assert report.compiled.path == str(compiled)
    assert compiled.stat().st_size > 0
    assert report.compiled.cpu_operators == 0
    assert "ethos-u85-256" in str(report)
    return report.compiled.macs, report.compiled.cycles, report.compiled.weights_bytes


def test_n_of_m_halves_the_multiplications_and_saves_cycles(tmp_path):
    dense = estimate(small_cnn(), tmp_path)
    half = estimate(stripped(mode="2:4"), tmp_path)
    quarter = estimate(stripped(mode="1:4"), tmp_path)
    # 16*32 + 9*32*32 + 32*64 at each of 32*32 positions, and a little for the head.
    assert dense[0] == pytest.approx(1024 * (512 + 9216 + 2048), rel=0.01)
    # The hardware knows 2:4 and takes 1:4 for it; only fewer weights are read.
    assert half[0] == quarter[0] == pytest.approx(dense[0] / 2, rel=0.01)
    assert quarter[1] <= half[1] < 0.85 * dense[1]
    assert quarter[2] < 0.85 * half[2]
    assert half[2] < 0.8 * dense[2]


@pytest.mark.parametrize(
    ("along", "recognised"), [("inputs", True), ("outputs", False)]
)
def test_only_groups_along_the_input_channels_count(tmp_path, along, recognised):
    dense, _, _ = estimate(small_cnn(), tmp_path)
    axis = {"inputs": -2, "outputs": -1}[along]
    macs, _, _ = estimate(zero_two_of_four(small_cnn(), axis), tmp_path)
    assert macs == pytest.approx(dense / 2 if recognised else dense, rel=0.01)


def test_as_many_zeros_anywhere_do_not_count(tmp_path):
    dense, _, _ = estimate(small_cnn(), tmp_path)
    macs, _, _ = estimate(stripped(sparsity=0.5, allocation="uniform"), tmp_path)
    assert macs == dense


@pytest.mark.parametrize(
    "accelerator", ["ethos-u55-128", "ethos-u65-256", "ethos-u85-512"]
)
def test_every_family(accelerator, tmp_path):
    path = tmp_path / "model.tflite"
    images = np.random.default_rng(1).standard_normal((16, 32, 32, 16), "f4")
    pdp_keras.export_tflite(
        stripped(mode="2:4"),
        path,
        target="ethos-u",
        quantize="int8",
        representative_dataset=images,
    )
    data, report = vela.compile_for_ethos_u(path.read_bytes(), accelerator)
    assert data[4:8] == b"TFL3"
    assert (report.accelerator, report.path) == (accelerator, "")
    assert min(report.milliseconds, report.cycles, report.macs) > 0
    assert report.sram_bytes > 0
    assert not list(tmp_path.glob("*_vela.tflite"))


def test_bad_files_and_names(tmp_path):
    with pytest.raises(vela.VelaError, match="must be able to compile"):
        vela.compile_for_ethos_u(b"no model", "ethos-u85-256")
    with pytest.raises(ValueError, match=r"Received: accelerator='ethos-u99'"):
        vela.compile_for_ethos_u(b"", "ethos-u99")
    with pytest.raises(ValueError, match=r"goes with target='ethos-u'"):
        pdp_keras.export_tflite(
            small_cnn(), tmp_path / "x.tflite", accelerator="ethos-u55-32"
        )


def test_vela_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(vela.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install ethos-u-vela"):
        pdp_keras.export_tflite(
            small_cnn(),
            tmp_path / "x.tflite",
            target="ethos-u",
            quantize="int8",
            representative_dataset=np.zeros((1, 32, 32, 16), "f4"),
            accelerator="ethos-u55-32",
        )
    assert not list(tmp_path.iterdir())
