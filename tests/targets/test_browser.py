"""The exported files in a real browser: LiteRT.js in headless Chromium."""

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
from pdp_keras.models import find_kernels

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import litert_js

pytestmark = pytest.mark.skipif(bool(litert_js.missing()), reason=litert_js.missing())


def exported(model, path, **arguments):
    report = pdp_keras.export_tflite(model, path, **arguments)
    return report, path.read_bytes()


def outputs(run, shape):
    return np.stack([next(iter(o.values())).reshape(shape) for o in run.outputs])


@pytest.fixture(scope="module")
def network():
    """Large enough for its convolutions to take most of the time."""
    keras.utils.set_random_seed(0)
    return zero_pointwise(randomized(mostly_pointwise(64, 4)), 0.9)


@pytest.mark.slow
def test_sparse_kernels_run_and_compute_the_same(network, tmp_path):
    """Only the rewritten file is fast: by a factor that no noise explains."""
    converted = exported(network, tmp_path / "converted.tflite")
    rewritten = exported(network, tmp_path / "rewritten.tflite", target="xnnpack")
    assert rewritten[0].check.runs_sparse
    x = inputs_of(network, 2) * np.array([0.3, 3.0], "f4").reshape(-1, 1, 1, 1)
    runs = litert_js.run_files(
        [converted[1], rewritten[1]],
        [{"image": x[i : i + 1]} for i in range(2)],
        rounds=5,
        runs=3,
    )
    expected = np.asarray(network(x))
    assert np.ptp(expected, axis=0).max() > 0.05 * np.abs(expected).max()
    for run in runs:
        apart = np.abs(outputs(run, expected.shape[1:]) - expected).max()
        assert apart <= 1e-5 * np.abs(expected).max()
    # At 90 % the sparse kernels take a fifth of the time or less.
    assert runs[1].milliseconds < 0.6 * runs[0].milliseconds


@pytest.mark.slow
def test_blocks_are_slower_than_scattered_zeros_and_than_none(tmp_path):
    """Their kernels are scalar there; a kernel without zeros counts as full blocks."""
    files, expected = [], []
    x = np.zeros((1, 64, 64, 3), "f4")
    for mode in (pdp_keras.Unstructured(), pdp_keras.Block(2), pdp_keras.Block(4)):
        model = randomized(mostly_pointwise(64, 4))
        x = inputs_of(model, 1)
        if not files:
            files.append(exported(model, tmp_path / "dense.tflite")[1])
            expected.append(np.asarray(model(x)))
        for kernel in find_kernels(model)[0]:
            if kernel.shape[:2] == (1, 1):
                zeros = mode.count_zeros(0.85, kernel.shape, kernel.axes)
                left = mode.hard_masked(kernel.variable.value, zeros, kernel.axes)
                kernel.variable.assign(left)
        path = tmp_path / "blocks.tflite"
        files.append(exported(model, path, target="xnnpack-arm64")[1])
        expected.append(np.asarray(model(x)))
    runs = litert_js.run_files(files, [{"image": x}], rounds=7, runs=5)
    for run, wanted in zip(runs, expected, strict=True):
        apart = np.abs(outputs(run, wanted.shape[1:]) - wanted).max()
        assert apart <= 1e-5 * np.abs(wanted).max()
    dense, scattered, pairs, fours = (run.milliseconds for run in runs)
    assert scattered < 0.6 * dense
    assert min(pairs, fours) > max(0.8 * dense, 1.5 * scattered)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "tolerance"),
    [
        ({"head": "convolutions", "kernel": 5}, 1e-5),
        ({"head": "unpooled", "size": 33}, 1e-5),
        ({"head": "reshaped", "padding": "keras"}, 1e-5),
    ],
)
def test_every_head_and_size(arguments, tolerance, tmp_path):
    model = zero_pointwise(randomized(mobile(**arguments)), 0.85)
    report, data = exported(model, tmp_path / "model.tflite", target="xnnpack")
    assert report.check.runs_sparse
    x = inputs_of(model, 2)
    (run,) = litert_js.run_files([data], [{"image": x[i : i + 1]} for i in range(2)])
    expected = np.asarray(model(x))
    apart = np.abs(outputs(run, expected.shape[1:]) - expected).max()
    assert apart <= tolerance * np.abs(expected).max()


@pytest.mark.slow
def test_float16_and_turned_by_the_caller(tmp_path):
    model = zero_pointwise(randomized(mobile()), 0.85)
    report, data = exported(
        model,
        tmp_path / "model.tflite",
        target="xnnpack",
        quantize="float16",
        turn_inputs=False,
    )
    assert report.turned == "by the caller"
    x = inputs_of(model, 2)
    batches = [{"image": x[i : i + 1, ::-1, ::-1]} for i in range(2)]
    (run,) = litert_js.run_files([data], batches)
    expected = np.asarray(model(x))
    apart = np.abs(outputs(run, expected.shape[1:]) - expected).max()
    assert apart <= 1e-2 * np.abs(expected).max()


def test_a_file_that_does_not_load_is_an_error():
    with pytest.raises(litert_js.BrowserError, match="must run in the browser"):
        litert_js.run_files([b"no model"], [{"image": np.zeros((1, 2, 2, 3))}])
