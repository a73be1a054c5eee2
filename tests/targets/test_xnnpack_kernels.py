"""Which sparse kernel a 1x1 convolution gets: the runtime's rule, around its limit."""

import re
import warnings

import keras
import numpy as np
import pytest
from image_models import gated, mobile, randomized, zero_pointwise
from keras import layers

import pdp_keras
from pdp_keras.models import find_kernels
from pdp_keras.targets.xnnpack_kernels import PROCESSORS, sparse_kernel

ARM, WASM = PROCESSORS["arm64"], PROCESSORS["wasm"]


def rows(*outputs):
    return np.float32(outputs)[:, None, None, :]


def in_pairs(blocks, lost):
    """Two pairs that share no input, but for so many nonzeros of the second output."""
    kernel = np.zeros((4, blocks), "float32")
    kernel[:2, : blocks // 2] = 1
    kernel[2:, blocks // 2 :] = 1
    kernel[1, :lost] = 0
    return kernel[:, None, None]


def in_fours(blocks, lost):
    kernel = np.ones((4, blocks), "float32")
    kernel[0, :lost] = 0
    return kernel[:, None, None]


# id: kernel (outputs first), what arm64 takes, what a browser takes
KERNELS = {
    "pairs": (rows([1, 0, 2], [3, 0, 1], [0, 4, 0], [0, 5, 0]), 2, 2),
    "fours": (rows(*[[1, 0, 2]] * 4), 4, 4),
    # 10 blocks of 2: 18 nonzeros are 90 %.
    "pairs-at-the-limit": (in_pairs(10, 2), 2, 2),
    "pairs-below-it": (in_pairs(10, 3), 1, 1),
    # 10 blocks of 4: 36 nonzeros are 90 %.
    "fours-at-the-limit": (in_fours(10, 4), 4, 4),
    # 35 of 40; and of its pairs, too.
    "fours-below-it": (in_fours(10, 5), 1, 1),
    "scattered": (rows([1, 0], [0, 1], [1, 0], [0, 1]), 1, 1),
    "without-zeros": (np.ones((8, 1, 1, 3)), 4, 4),
    "without-nonzeros": (np.zeros((8, 1, 1, 3)), 4, 4),
    # What is left over is not looked at.
    "one-left-over": (rows(*[[1, 0]] * 2, *[[0, 1]] * 2, [1, 0]), 2, 2),
    "three-outputs": (rows([1, 0, 1], [1, 0, 1], [0, 1, 1]), 4, 4),
    "two-outputs-scattered": (rows([1, 0], [0, 1]), 4, 4),
    "one-output": (rows([1, 0]), 4, 4),
    # Outputs 2 and 3 share their zeros, not 1 and 2.
    "pairs-off-by-one": (rows([1, 0], [0, 1], [0, 1], [1, 0]), 1, 1),
}


@pytest.mark.parametrize(("kernel", "arm", "wasm"), KERNELS.values(), ids=KERNELS)
def test_the_kernel_that_is_taken(kernel, arm, wasm):
    taken = sparse_kernel(kernel)
    assert (taken.on(ARM), taken.on(WASM)) == (arm, wasm)
    assert not taken.is_slow_on(ARM)
    assert taken.is_slow_on(WASM) == (wasm > 1)
    # Half precision has one kernel only.
    assert taken.on(PROCESSORS["arm64-fp16"]) == 1


def test_the_counts_are_those_of_a_loop():
    """The runtime's own loops, written again."""
    random = np.random.default_rng(0)
    for outputs in range(1, 12):
        for density in (0.1, 0.5, 0.95):
            w = (random.random((outputs, 9)) < density).astype("float32")
            taken = sparse_kernel(w)
            for block, full in ((2, taken.pairs), (4, taken.fours)):
                nonzeros = blocks = 0
                for o in range(0, outputs - outputs % block, block):
                    for i in range(9):
                        n = sum(w[o + j, i] != 0 for j in range(block))
                        nonzeros, blocks = nonzeros + n, blocks + (n > 0)
                assert full == pytest.approx(
                    nonzeros / (block * blocks) if blocks else 1
                )
                is_full = 5 * nonzeros >= {2: 9, 4: 18}[block] * blocks
                assert (block in taken.fitting) == is_full


@pytest.mark.parametrize(
    ("mode", "kernel"),
    [(pdp_keras.Unstructured(), 1), (pdp_keras.Block(2), 2), (pdp_keras.Block(4), 4)],
    ids=str,
)
@pytest.mark.parametrize("outputs", (16, 17, 18, 19))
def test_each_mode_makes_its_kernel_and_leaves_over_what_the_runtime_does(
    mode, kernel, outputs
):
    axes = pdp_keras.KernelAxes((2,), (3,))
    weights = np.random.default_rng(0).normal(size=(1, 1, 32, outputs))
    shape = weights.shape
    zeros = mode.count_zeros(0.85, shape, axes)
    left = np.asarray(mode.hard_masked(weights.astype("float32"), zeros, axes))
    taken = sparse_kernel(np.moveaxis(left, -1, 0))
    assert taken.on(ARM) == kernel
    full = {1: 0, 2: taken.pairs, 4: taken.fours}[kernel]
    assert kernel == 1 or full == 1


def pruned(mode, sparsity=0.85):
    """Every 1x1 convolution of a small MobileNet, by a mode."""
    model = randomized(mobile())
    for kernel in find_kernels(model)[0]:
        if kernel.shape[:2] == (1, 1):
            zeros = mode.count_zeros(sparsity, kernel.shape, kernel.axes)
            left = mode.hard_masked(kernel.variable.value, zeros, kernel.axes)
            kernel.variable.assign(left)
    return model


SCATTERED, PAIRS, FOURS = (
    pdp_keras.Unstructured(),
    pdp_keras.Block(),
    pdp_keras.Block(4),
)


def kernels(check):
    found = {tuple(row.kernels.items()) for row in check.layers if row.runs == "sparse"}
    (only,) = found
    return dict(only)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        pytest.param(SCATTERED, "scattered", marks=pytest.mark.slow),
        (PAIRS, "pairs"),
        pytest.param(FOURS, "fours", marks=pytest.mark.slow),
    ],
)
def test_deploy_check_names_the_kernel_on_each_processor(mode, name):
    model = pruned(mode)
    check = pdp_keras.deploy_check(model, "xnnpack")
    assert kernels(check) == {"arm64": name, "wasm": name}
    sparse = tuple(row.layer for row in check.layers if row.runs == "sparse")
    assert check.slowed == (() if name == "scattered" else sparse)
    text = str(check)
    assert ("7 of these convolutions take pairs or fours" in text) == bool(check.slowed)
    assert check.to_dict()["layers"][1]["kernels"] == {"arm64": name, "wasm": name}
    arm = pdp_keras.deploy_check(model, "xnnpack-arm64")
    assert (arm.target, kernels(arm), arm.slowed) == (
        "xnnpack-arm64",
        {"arm64": name},
        (),
    )
    assert "scalar" not in str(arm)
    wasm = pdp_keras.deploy_check(model, "xnnpack-wasm")
    assert (kernels(wasm), wasm.slowed) == ({"wasm": name}, check.slowed)
    for row in wasm.layers:
        if row.layer in wasm.slowed:
            assert "a browser has only a scalar kernel" in row.reason
            assert 'mode="unstructured"' in row.remedy


@pytest.mark.slow
def test_the_reason_has_the_share():
    row = next(
        row
        for row in pdp_keras.deploy_check(pruned(SCATTERED), "xnnpack").layers
        if row.layer == "last"
    )
    rule = r"scattered, as nonzeros fill 5\d% of their pairs of outputs, and 90% make"
    assert re.match(rule, row.reason)
    assert row.remedy == ""


def test_a_layer_without_zeros_beside_sparse_ones_is_slow_in_a_browser():
    model = zero_pointwise(randomized(mobile()), 0.9)
    last = model.get_layer("last").kernel
    last.assign(np.random.default_rng(0).normal(size=last.shape))
    check = pdp_keras.deploy_check(model, "xnnpack-wasm")
    (row,) = (row for row in check.layers if row.layer in check.slowed)
    assert (row.layer, row.kernels, row.remedy) == (
        "last",
        {"wasm": "fours"},
        "prune it",
    )


def test_a_gate_on_a_single_pixel_is_not_called_slow():
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(64, 1, name="pointwise")(gated(x))
    model = randomized(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    kernel = model.get_layer("pointwise").kernel
    kernel.assign(SCATTERED.hard_masked(kernel.value, 490, None))
    check = pdp_keras.deploy_check(model, "xnnpack-wasm")
    sparse = [row for row in check.layers if row.runs == "sparse"]
    # The two convolutions of the gate have no zeros.
    assert [row.kernels["wasm"] for row in sparse] == ["fours", "fours", "scattered"]
    assert check.slowed == () and not any(row.remedy for row in sparse)


@pytest.mark.parametrize(
    ("mode", "target", "warns"),
    [
        pytest.param(PAIRS, "xnnpack", True, marks=pytest.mark.slow),
        (PAIRS, "xnnpack-wasm", True),
        pytest.param(PAIRS, "xnnpack-arm64", False, marks=pytest.mark.slow),
        pytest.param(SCATTERED, "xnnpack-wasm", False, marks=pytest.mark.slow),
    ],
    ids=("pairs-both", "pairs-wasm", "pairs-arm64", "scattered-wasm"),
)
def test_an_export_that_its_zeros_slow_down_says_so(mode, target, warns, tmp_path):
    model = pruned(mode)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = pdp_keras.export_tflite(model, tmp_path / "m.tflite", target=target)
    found = [str(w.message) for w in caught if "slow kernels" in str(w.message)]
    assert len(found) == warns
    assert report.sparse_encoding and report.check.runs_sparse
    assert report.relative_difference < 1e-5
    if warns:
        assert found[0].startswith(f"On {target} the zeros of 7 layers are skipped by")
        assert "export for 'xnnpack-arm64'" in found[0]
        assert "only scalar kernels" in str(report)


def test_prune_for_arm_chooses_what_pays_and_takes_blocks():
    pruned_model = pdp_keras.prune_model(
        randomized(mobile()), 0.85, mode="block", target="xnnpack-arm64"
    )
    wrapped = [x for x in pruned_model.layers if isinstance(x, pdp_keras.PDPWrapper)]
    assert len(wrapped) == 7 and {x.mode for x in wrapped} == {PAIRS}


def test_prune_says_where_blocks_are_slow():
    model = randomized(mobile())
    for target in ("xnnpack", "xnnpack-wasm"):
        rule = rf"have fast kernels on all devices of target '{target}': there are none"
        with pytest.raises(ValueError, match=rule):
            pdp_keras.prune_model(model, 0.85, mode="block", target=target)
    with pytest.raises(ValueError, match=r"multiples of \[2, 4\] outputs.*outputs=3"):
        pdp_keras.prune_model(model, 0.85, mode="block:3", target="xnnpack-arm64")
