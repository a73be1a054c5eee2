"""Blocks: neighbouring outputs share their zeros, as the runtime takes them."""

import functools
import json
import re

import keras
import models
import numpy as np
import pytest
import reference
import runs
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from keras import layers

from pdp_keras import (
    AbsoluteTemperature,
    Block,
    KernelAxes,
    PDPScheduleCallback,
    PDPWrapper,
    RelativeTemperature,
    export_tflite,
    prune_model,
    prune_once,
    sparsity_report,
    strip_pruning,
)

RNG = np.random.default_rng(0)
SLOW = pytest.mark.slow

MATRIX = KernelAxes((0,), (1,))
# id: shape, axes, mode, blocks
KERNELS = {
    "dense": ((5, 4), MATRIX, Block(2), 10),
    "one-left-over": ((5, 7), MATRIX, Block(2), 20),
    "three-left-over": ((2, 7), MATRIX, Block(4), 8),
    "fewer-than-a-block": ((3, 2), MATRIX, Block(4), 6),
    "square": ((4, 6), MATRIX, Block(2, inputs=2), 6),
    "left-over-both-ways": ((5, 5), MATRIX, Block(2, inputs=2), 9),
    "inputs-alone": ((5, 3), MATRIX, Block(1, inputs=4), 6),
    "convolution": ((2, 2, 3, 5), KernelAxes((2,), (3,)), Block(2), 36),
    "transposed": ((2, 5, 3), KernelAxes((2,), (1,)), Block(2), 18),
    "negative-axes": ((2, 6, 3), KernelAxes((-2,), (-1,)), Block(2), 24),
    "heads": ((4, 3, 3), KernelAxes((0,), (1, 2)), Block(2), 20),
    "attention-output": ((2, 3, 4), KernelAxes((0, 1), (2,)), Block(4), 6),
    "axes-apart": ((3, 2, 2), KernelAxes((1,), (0, 2)), Block(4), 6),
}
HOW = {"eager": None, "graph": False, "xla": True}
# Compiling is slow: what is left over and a transpose are enough of it.
COMPILED = ("left-over-both-ways", "axes-apart", "convolution")
CASES = [(name, "eager") for name in KERNELS] + [
    pytest.param(name, how, marks=[] if (name, how) == ("axes-apart", "xla") else SLOW)
    for name in COMPILED
    for how in ("graph", "xla")
]


@functools.cache
def compiled(function, jit_compile):
    return tf.function(function, jit_compile=jit_compile)


def run(function, how):
    return function if how == "eager" else compiled(function, HOW[how])


def blocks_of(shape, axes, mode):
    rank = len(shape)
    inputs, outputs = (
        [axis % rank for axis in part] for part in (axes.inputs, axes.outputs)
    )
    return reference.blocks(shape, inputs, outputs, mode.inputs, mode.outputs)


@pytest.mark.parametrize(
    ("shape", "axes", "mode", "count"), KERNELS.values(), ids=KERNELS
)
def test_units_are_blocks(shape, axes, mode, count):
    found = blocks_of(shape, axes, mode)
    assert sorted(i for block in found for i in block) == sorted(np.ndindex(*shape))
    assert mode.units(shape, axes) == len(found) == count
    assert mode.count_zeros(0.5, shape, axes) == round(0.5 * count)


@pytest.mark.parametrize(("name", "how"), CASES)
def test_the_smallest_blocks_go_and_of_equal_ones_the_first(name, how):
    shape, axes, mode, count = KERNELS[name]
    found = blocks_of(shape, axes, mode)
    # Whole numbers: their squares add up exactly, so that ties are ties.
    weights = RNG.integers(-3, 4, shape).astype("float32")
    weights += weights == 0  # what is pruned shows
    norms = np.float32(reference.block_norms(weights, found))
    hard = run(mode.hard_masked, how)
    for zeros in sorted({0, 1, count // 2, count - 1, count}):
        pruned = reference.smallest(norms, zeros)
        marks = reference.spread_over_blocks(pruned, found, shape)
        left = hard(tf.constant(weights), tf.constant(zeros), axes)
        np.testing.assert_array_equal(left, np.where(marks, 0, weights))
        for bracket in (np.zeros(3), [0.5, 1.5, 1.0], [9.0, 9.0, 9.0]):
            tracked, _ = mode.tracked_hard_masked(
                tf.constant(weights), zeros, axes, tf.constant(bracket, tf.float32)
            )
            np.testing.assert_array_equal(tracked, left)


# Rows are inputs. id: mode, weights, zeros, what is left
HARD = {
    "pairs": (Block(2), [[3, 4, 0, 1], [1, 1, 6, 0]], 2, [[3, 4, 0, 0], [0, 0, 6, 0]]),
    "fours": (Block(4), [[1, 1, 1, 1], [2, 0, 0, 0.1]], 1, [[0] * 4, [2, 0, 0, 0.1]]),
    "ties": (Block(2), [[1, 1, 1, -1, 1, 1]], 2, [[0, 0, 0, 0, 1, 1]]),
    # The root mean square of (3, 3) is 3, and so is that of (3) alone.
    "left-over-is-no-smaller": (Block(2), [[3, 3, 3]], 1, [[0, 0, 3]]),
    "left-over": (Block(2), [[3, 3, 2.9]], 1, [[3, 3, 0]]),
    "squares": (
        Block(2, inputs=2),
        [[1, 2, 9], [2, 1, 9], [5, 5, 0.1]],
        2,
        [[0, 0, 9], [0, 0, 9], [5, 5, 0]],
    ),
    "a-large-one-keeps-its-neighbour": (
        Block(2),
        [[9, 0.1, 2, 2]],
        1,
        [[9, 0.1, 0, 0]],
    ),
    "nan-is-kept": (Block(2), [[np.nan, 1, 2, 2]], 1, [[np.nan, 1, 0, 0]]),
}


@pytest.mark.parametrize(("mode", "weights", "zeros", "left"), HARD.values(), ids=HARD)
def test_hard_masked(mode, weights, zeros, left):
    found = mode.hard_masked(tf.constant(weights, tf.float32), zeros, MATRIX)
    np.testing.assert_array_equal(found, np.float32(left))


@given(st.data(), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=60)
def test_exact_counts_with_ties_and_left_overs(data, inputs, outputs):
    if inputs == outputs == 1:
        outputs = 2
    mode = Block(outputs, inputs)
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 9)))
    elements = st.sampled_from([1.0, -1.0, 2.0, 3.0, 0.5])
    weights = data.draw(numpy_st.arrays("float32", shape, elements=elements))
    units = mode.units(shape, MATRIX)
    zeros = data.draw(st.integers(0, units))
    left = np.asarray(mode.hard_masked(tf.constant(weights), zeros, MATRIX))
    found = blocks_of(shape, MATRIX, mode)
    dead = [all(left[i] == 0 for i in block) for block in found]
    assert sum(dead) == zeros
    for block, is_dead in zip(found, dead, strict=True):
        assert is_dead or all(left[i] == weights[i] for i in block)
    norms = reference.block_norms(weights, found)
    if 0 < zeros < units:
        kept = min(n for n, d in zip(norms, dead, strict=True) if not d)
        assert max(n for n, d in zip(norms, dead, strict=True) if d) <= kept + 1e-6


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_hard_masked_keeps_the_dtype_and_the_kept_values(dtype):
    weights = tf.cast(RNG.normal(size=(3, 5)), dtype)
    left = Block(2).hard_masked(weights, 4, MATRIX)
    assert left.dtype == dtype
    found = blocks_of((3, 5), MATRIX, Block(2))
    values = tf.cast(weights, tf.float32).numpy()
    pruned = reference.smallest(reference.block_norms(values, found), 4)
    marks = reference.spread_over_blocks(pruned, found, (3, 5))
    np.testing.assert_array_equal(tf.cast(left, tf.float32), np.where(marks, 0, values))


TEMPERATURES = {
    "absolute": AbsoluteTemperature(0.3),
    "relative": RelativeTemperature(0.5),
}


@pytest.mark.parametrize("temperature", TEMPERATURES.values(), ids=TEMPERATURES)
@pytest.mark.parametrize(("name", "how"), CASES)
def test_soft_masked_with_its_gradient(name, how, temperature):
    shape, axes, mode, count = KERNELS[name]
    found = blocks_of(shape, axes, mode)
    values = RNG.normal(size=shape).astype("float32")
    upstream = RNG.normal(size=shape).astype("float32")

    def compute(weights, zeros):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            soft = mode.soft_masked(weights, zeros, axes, temperature.width)
        return soft, tape.gradient(soft, weights, tf.constant(upstream))

    if how != "eager":
        compute = tf.function(compute, jit_compile=HOW[how])
    norms = reference.block_norms(values, found)
    for zeros in (0, max(1, count // 2), count):
        soft, gradient = compute(tf.constant(values), tf.constant(zeros))
        t = reference.threshold(norms, zeros)
        width = (
            0.3**0.5 if isinstance(temperature, AbsoluteTemperature) else t * 0.5**0.5
        )
        mask = reference.soft_mask(norms, t, width)
        mask = reference.spread_over_blocks(mask, found, shape)
        np.testing.assert_allclose(soft, values * mask, rtol=2e-5, atol=1e-7)
        expected = np.zeros(shape)
        for block in found:
            w, u = (np.array([x[i] for i in block]) for x in (values, upstream))
            for i, g in zip(
                block, u @ reference.block_jacobian(w, t, width), strict=True
            ):
                expected[i] = g
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
        if zeros:
            np.testing.assert_allclose(
                mode.threshold(tf.constant(values), zeros, axes), t, rtol=1e-6
            )


@pytest.mark.parametrize("max_gain", (0.3, 1.0, 4.0))
def test_the_gradient_is_bounded_along_the_block_and_across_it(max_gain):
    mode, width = Block(2), AbsoluteTemperature(0.01).width
    for values in RNG.normal(size=(6, 1, 4)).astype("float32"):
        rows = []
        for i in range(4):
            weights, upstream = (
                tf.constant(values),
                np.eye(4, dtype="float32")[i : i + 1],
            )
            with tf.GradientTape() as tape:
                tape.watch(weights)
                soft = mode.soft_masked(weights, 1, MATRIX, width, max_gain)
            rows.append(tape.gradient(soft, weights, tf.constant(upstream))[0])
        jacobian = np.stack(rows)
        np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-5)
        assert not jacobian[:2, 2:].any()  # blocks have nothing to do with each other
        slopes = np.linalg.eigvalsh(jacobian)
        assert slopes.min() >= -1e-5 and slopes.max() <= max_gain + 1e-5
        # Without the bound: the same directions, longer.
        norms = reference.block_norms(values, blocks_of((1, 4), MATRIX, mode))
        t = reference.threshold(norms, 1)
        free = [
            slope
            for s in norms
            for slope in (
                reference.soft_mask(s, t, 0.1),
                reference.soft_masked_slope(s, t, 0.1),
            )
        ]
        bounded = np.minimum(free, max_gain)
        np.testing.assert_allclose(slopes, np.sort(bounded), atol=1e-4)


def test_a_block_of_one_is_a_single_weight():
    """What is left over has the mask, the threshold and the gradient of |w|."""
    values = RNG.normal(size=(40, 1)).astype("float32")
    width = RelativeTemperature(0.5).width
    with tf.GradientTape() as tape:
        weights = tf.constant(values)
        tape.watch(weights)
        soft = Block(2).soft_masked(weights, 20, MATRIX, width, 1.5)
    t = reference.threshold(np.abs(values), 20)
    slope = reference.soft_masked_slope(values, t, t * 0.5**0.5)
    np.testing.assert_allclose(
        tape.gradient(soft, weights), np.minimum(slope, 1.5), rtol=1e-4
    )


@pytest.mark.parametrize("value", (0.0, 1e-30, 1e30, 3e38))
def test_no_weight_is_too_large_or_too_small_for_a_finite_gradient(value):
    weights = tf.constant([[value, -value, 1.0, 1.0, value]], tf.float32)
    for zeros in (0, 1, 3):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            width = RelativeTemperature(1.0).width
            soft = Block(2).soft_masked(weights, zeros, MATRIX, width, 1.0)
        assert np.isfinite(soft).all()
        assert np.isfinite(tape.gradient(soft, weights)).all()


# id: shape, axes, reason (None: can be pruned)
REASONS = {
    "dense": ((4, 3), MATRIX, None),
    "one-output": ((4, 1), MATRIX, None),
    "depthwise": ((3, 3, 8, 1), KernelAxes((), (2, 3)), "none of its outputs sums"),
    "embedding": ((50, 8), KernelAxes((), (1,)), "blocks share an input"),
    "no-outputs": ((2, 3), KernelAxes((0, 1), ()), "it has no output axis"),
}


@pytest.mark.parametrize(("shape", "axes", "reason"), REASONS.values(), ids=REASONS)
def test_reason_against(shape, axes, reason):
    found = Block().reason_against(shape, axes)
    assert found is None if reason is None else re.search(reason, found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": 0}, "outputs must be a positive integer. Received: outputs=0"),
        ({"outputs": True}, "Received: outputs=True"),
        ({"inputs": 2.0}, r"inputs must be a positive integer. Received: inputs=2.0"),
        ({"outputs": 1}, 'single ones are mode="unstructured"'),
    ],
)
def test_bad_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        Block(**arguments)


def dead_blocks(kernel, outputs=2):
    """Of a matrix or a 1x1 convolution: blocks, those all 0, those only in part."""
    flat = np.asarray(kernel).reshape(-1, kernel.shape[-1]) == 0
    whole = flat.shape[1] // outputs * outputs
    zeros = flat[:, :whole].reshape(len(flat), -1, outputs).sum(2)
    return zeros.size, int((zeros == outputs).sum()), int((zeros % outputs > 0).sum())


ALLOCATIONS = {
    "lamp": (None, ()),
    "uniform": ("uniform", SLOW),
    "global": ("global", SLOW),
    "erk": ("erk", SLOW),
    "mapping": ({"first": 0.5, "second": 0.75}, ()),
    "callable": (lambda weights, sparsity: [sparsity] * len(weights), SLOW),
}


@pytest.mark.parametrize(
    "allocation",
    [pytest.param(value, id=i, marks=m) for i, (value, m) in ALLOCATIONS.items()],
)
def test_a_run_ends_at_the_target(allocation):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(20, activation="tanh", name="first"),
            layers.Dense(4, name="second"),
        ]
    )
    pruned = prune_model(model, 0.6, mode="block", allocation=allocation)
    pruned.compile("adam", "mse")
    y = np.tanh(runs.X[:, :4])
    schedule = PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2)
    history = pruned.fit(runs.X, y, epochs=4, verbose=0, callbacks=[schedule])
    small = strip_pruning(pruned)
    counts = [dead_blocks(layer.kernel) for layer in small.layers]
    assert all(partly == 0 for _, _, partly in counts)
    blocks = [count for count, _, _ in counts]
    wanted = round(0.6 * sum(blocks))
    if isinstance(allocation, dict):
        wanted = round(0.5 * blocks[0]) + round(0.75 * blocks[1])
    assert sum(dead for _, dead, _ in counts) == wanted
    assert history.history["sparsity"][-1] == pytest.approx(wanted / sum(blocks))
    x = runs.X
    np.testing.assert_array_equal(
        pruned.predict(x, verbose=0), small.predict(x, verbose=0)
    )
    report = sparsity_report(pruned)
    assert report.zeros == 2 * wanted
    assert all(row.threshold > 0 for row in report.rows)


@pytest.mark.parametrize(
    "method",
    ["gmp", *(pytest.param(m, marks=SLOW) for m in ("dnw", "sr_ste", "pdp_paper"))],
)
def test_other_methods(method):
    model = runs.compiled(0.5, mode="block:4", method=method, allocation="uniform")
    runs.fit(model, 4, PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2))
    for layer in strip_pruning(model).layers:
        count, dead, partly = dead_blocks(layer.kernel, 4)
        left = layer.kernel.shape[1] % 4 * layer.kernel.shape[0]
        single = (
            np.asarray(layer.kernel)[:, layer.kernel.shape[1] // 4 * 4 :] == 0
        ).sum()
        assert partly == 0 and dead + single == round(0.5 * (count + left))


@pytest.mark.parametrize("method", ("rigl", "str", "optg", "granet", "acdc", "dcp"))
def test_methods_that_rank_single_weights_or_channels_refuse(method):
    rule = rf"method='{method}' prunes the units of .* only.*mode=Block\(outputs=2"
    with pytest.raises(ValueError, match=rule):
        prune_model(models.mlp(), 0.5, mode="block", method=method)


def test_without_training_blocks_are_refused():
    with pytest.raises(ValueError, match=r"blocks are pruned in training.*'block'"):
        prune_once(models.mlp(), runs.X, mode="block")


def test_saved_and_loaded_in_the_middle_of_a_ramp(tmp_path):
    model = runs.compiled(0.5, mode=Block(4, inputs=2))
    schedule = PDPScheduleCallback(warmup_epochs=0, ramp_epochs=4)
    runs.fit(model, 4, schedule)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    wrapper = next(x for x in loaded.layers if isinstance(x, PDPWrapper))
    assert wrapper.mode == Block(4, inputs=2)
    config = json.loads(json.dumps(wrapper.get_config()))
    assert config["mode"] == {"name": "block", "outputs": 4, "inputs": 2}
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        model.predict(runs.X, verbose=0), loaded.predict(runs.X, verbose=0)
    )


def test_depthwise_kernels_are_left_with_the_reason():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(6, 1, name="pointwise"),
        ]
    )
    pruned = prune_model(model, 0.5, mode="block")
    (row,), (skipped, *_) = (lambda r: (r.rows, r.skipped))(sparsity_report(pruned))
    assert row.layer == "pointwise"
    assert skipped.layer == "depthwise" and "blocks share an input" in skipped.reason


def test_a_custom_loop():
    model = runs.compiled(0.5, mode="block")
    schedule = PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    optimizer = keras.optimizers.Adam()
    schedule.start(model, epochs=2, steps_per_epoch=4)
    for step in range(8):
        if step % 4 == 0:
            schedule.start_epoch(step // 4)
        schedule.start_step(step % 4)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(runs.X, training=True) - runs.Y))
        optimizer.apply(
            tape.gradient(loss, model.trainable_weights), model.trainable_weights
        )
    counts = [dead_blocks(layer.kernel) for layer in strip_pruning(model).layers]
    # 6 x 20, and 20 x 3 with one output left over.
    assert schedule.sparsity == 0.5 and runs.zeros(model) != [60, 30]
    assert sum(runs.zeros(model)) == round(0.5 * (60 + 40))
    assert all(partly == 0 for _, _, partly in counts)


@SLOW
def test_large_kernels_are_computed_again_in_the_backward_pass():
    """From 2**18 weights on the masked kernel is not kept: the same gradients."""
    keras.utils.set_random_seed(0)
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((512,)), layers.Dense(513, name="d")])
        pruned = prune_model(model, 0.6, mode="block", allocation="uniform")
        pruned.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
        x = np.random.default_rng(0).normal(size=(8, 512)).astype("float32")
        y = np.ones((8, 513), "float32")
        schedule = PDPScheduleCallback(warmup_epochs=0, ramp_epochs=2)
        history = pruned.fit(x, y, epochs=3, verbose=0, callbacks=[schedule])
        losses.append(history.history["loss"])
        count, _, partly = dead_blocks(strip_pruning(pruned).layers[0].kernel)
        assert partly == 0 and count == 512 * 256
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_export_stores_blocks_sparse(tmp_path):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64), layers.Dense(2)])
    kernel = model.layers[0].kernel
    kernel.assign(Block(2).hard_masked(kernel, round(0.9 * 64 * 32), MATRIX))
    report = export_tflite(model, tmp_path / "model.tflite")
    assert report.sparse_encoding and report.weights[0].lost == 0
