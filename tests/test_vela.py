"""Arm's compiler for the Ethos-U85 recognises N:M sparsity in the exported file."""

import csv

import keras
import numpy as np
import pytest
from keras import layers
from models import set_zeros

import pdp_keras
from pdp_keras import export

vela = pytest.importorskip("ethosu.vela.vela", reason="needs ethos-u-vela")


@pytest.fixture(autouse=True)
def plain_target(monkeypatch):
    """A target whose files hold their zeros densely, for Vela to compress."""
    plain = export.Target(quantizations=("int8",), sparse_encoding=False)
    monkeypatch.setitem(export.TARGETS, "plain", plain)


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
    images = np.random.default_rng(1).standard_normal((16, 32, 32, 16), "f4")
    report = pdp_keras.export_tflite(
        model, path, target="plain", quantize="int8", representative_dataset=images
    )
    assert all(weight.lost == 0 for weight in report.weights)
    arguments = ["--accelerator-config=ethos-u85-256", f"--output-dir={folder}"]
    assert vela.main([str(path), *arguments]) == 0
    (summary,) = folder.glob("model_summary_*.csv")
    (row,) = csv.DictReader(summary.read_text().splitlines())
    names = ("nn_macs", "cycles_total", "total_npu_encoded_weights")
    return tuple(float(row[name]) for name in names)


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
