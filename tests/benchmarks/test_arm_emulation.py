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
from pdp_keras.models import find_kernels

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


def kernels_of(model):
    return [k for k in find_kernels(model)[0] if k.shape[:2] == (1, 1)]


def pruned_by(mode, sparsity=0.85):
    """The same network, its 1x1 convolutions pruned by a mode."""
    keras.utils.set_random_seed(0)
    model = randomized(mostly_pointwise(32, 2))
    for kernel in kernels_of(model):
        zeros = mode.count_zeros(sparsity, kernel.shape, kernel.axes)
        left = mode.hard_masked(kernel.variable.value, zeros, kernel.axes)
        kernel.variable.assign(left)
    return model


def spoil_pairs(model, beyond):
    """Zeroes the second output of so many pairs that just 90 % of them are full.

    Then `beyond` more of each convolution.
    """
    for kernel in kernels_of(model):
        values = kernel.variable.numpy()
        rows = values.reshape(-1, 2)
        (pairs,) = np.nonzero(rows.any(axis=1))
        rows[pairs[: len(pairs) // 5 + beyond], 1] = 0
        kernel.variable.assign(values)
    return model


def taken(model):
    """The kernel that is predicted for each 1x1 convolution."""
    check = pdp_keras.deploy_check(model, "xnnpack-arm64")
    return {row.kernels["arm64"] for row in check.layers if row.runs == "sparse"}


@pytest.mark.slow
@pytest.mark.parametrize("processor", ("cortex-a53", "cortex-a76"))
def test_blocks_take_the_kernels_that_deploy_check_names(processor, tmp_path):
    """Fewer instructions than scattered zeros; and at the limit of the rule a jump."""
    pairs = pdp_keras.Block(2)
    models = {
        "scattered": pruned_by(pdp_keras.Unstructured()),
        "pairs": pruned_by(pairs),
        "fours": pruned_by(pdp_keras.Block(4)),
        "pairs at the limit": spoil_pairs(pruned_by(pairs), 0),
        "scattered beyond it": spoil_pairs(pruned_by(pairs), 1),
    }
    for name, model in models.items():
        assert taken(model) == {name.split()[0]}
    x = inputs_of(models["pairs"], 1)
    files = [exported(model, tmp_path, "xnnpack-arm64") for model in models.values()]
    runs = arm_emulation.run_files(files, [{"image": x}], processor=processor)
    counts = dict(zip(models, (run.instructions for run in runs), strict=True))
    for model, found in zip(models.values(), runs, strict=True):
        expected = np.asarray(model(x))
        apart = np.abs(next(iter(found.outputs[0].values())) - expected).max()
        assert apart <= 1e-5 * np.abs(expected).max()
    assert counts["pairs"] < 0.85 * counts["scattered"]
    assert counts["pairs"] < counts["fours"] < counts["scattered"]
    # What is not full is multiplied all the same, so that the limit costs nothing more.
    assert counts["pairs at the limit"] == pytest.approx(counts["pairs"], rel=1e-3)
    # One nonzero less in each convolution, and many more instructions.
    assert counts["scattered beyond it"] > 1.1 * counts["pairs at the limit"]
    assert counts["scattered beyond it"] < counts["scattered"]


def test_an_unknown_processor_is_an_error():
    with pytest.raises(ValueError, match="Received: processor='z80'"):
        arm_emulation.run_files([b""], [], processor="z80")


def test_a_file_that_does_not_load_is_an_error():
    with pytest.raises(arm_emulation.EmulationError, match="must run on cortex-a72"):
        arm_emulation.run_files([b"no model"], [{"image": np.zeros((1, 2, 2, 3))}])
