"""Exported files on an emulated Arm processor: the NEON kernels of LiteRT."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from image_models import (
    inputs_of,
    mobile,
    mostly_pointwise,
    randomized,
    zero_pointwise,
)

import pdp_keras

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import arm_emulation

pytestmark = pytest.mark.skipif(
    bool(arm_emulation.missing()), reason=arm_emulation.missing()
)


@pytest.fixture(scope="module")
def network():
    """Most of its instructions are in its 1x1 convolutions."""
    keras.utils.set_random_seed(0)
    return zero_pointwise(randomized(mostly_pointwise(32, 2)), 0.9)


def exported(model, tmp_path, target):
    path = tmp_path / "model.tflite"
    pdp_keras.export_tflite(model, path, target=target)
    return path.read_bytes()


def inputs_at_two_scales(model):
    return inputs_of(model, 2) * np.array([0.3, 3.0], "f4").reshape(-1, 1, 1, 1)


def run(files, x):
    return arm_emulation.run_files(files, [{"image": x[i : i + 1]} for i in range(2)])


def assert_equal(found, expected):
    assert np.ptp(expected, axis=0).max() > 0.05 * np.abs(expected).max()
    outputs = [next(iter(o.values())) for o in found.outputs]
    apart = np.abs(np.concatenate(outputs).reshape(expected.shape) - expected).max()
    assert apart <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_the_rewritten_file_takes_fewer_instructions(network, tmp_path):
    files = [exported(network, tmp_path, target) for target in ("generic", "xnnpack")]
    x = inputs_at_two_scales(network)
    runs = run(files, x)
    for found in runs:
        assert_equal(found, np.asarray(network(x)))
    assert runs[1].instructions < 0.5 * runs[0].instructions


@pytest.mark.slow
def test_heads_that_the_runtime_would_refuse(tmp_path):
    """Unless they are rewritten, preparing them fails on Arm."""
    heads = ("convolutions", "unpooled")
    models = [zero_pointwise(randomized(mobile(head=h)), 0.85) for h in heads]
    x = inputs_at_two_scales(models[0])
    runs = run([exported(model, tmp_path, "xnnpack") for model in models], x)
    for model, found in zip(models, runs, strict=True):
        assert_equal(found, np.asarray(model(x)))


@pytest.mark.slow
def test_counts_repeat(network, tmp_path):
    files = [exported(network, tmp_path, "xnnpack")]
    x = inputs_of(network, 2)
    (first,), (second,) = run(files, x), run(files, x)
    assert abs(first.instructions - second.instructions) < 1000


def test_an_unknown_processor_is_an_error():
    with pytest.raises(ValueError, match="Received: processor='z80'"):
        arm_emulation.run_files([b""], [], processor="z80")


def test_a_file_that_does_not_load_is_an_error():
    with pytest.raises(arm_emulation.EmulationError, match="must run on cortex-a72"):
        arm_emulation.run_files([b"no model"], [{"image": np.zeros((1, 2, 2, 3))}])
