"""N:M: in every group of M exactly N are left, wherever the input axes lie."""

import functools
import re

import keras
import models
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from keras import layers
from keras_layers import BUILD, CLASSES, IMAGE, KERNELS

from pdp_keras import (
    NM,
    AbsoluteTemperature,
    KernelAxes,
    PDPScheduleCallback,
    PDPWrapper,
    RelativeTemperature,
    plot,
    prune_model,
    sparsity_report,
    strip_pruning,
)
from pdp_keras.models.kernels import find_kernels
from pdp_keras.pruned import parts

RNG = np.random.default_rng(0)

MATRIX = KernelAxes((0,), (1,))
# id: shape, axes, n, m
KERNEL_SHAPES = {
    "dense": ((8, 3), MATRIX, 2, 4),
    "tail-of-one": ((9, 3), MATRIX, 2, 4),
    "tail-of-three": ((7, 3), MATRIX, 2, 4),
    "only-a-tail": ((3, 3), MATRIX, 2, 4),
    "1:4": ((8, 3), MATRIX, 1, 4),
    "3:4": ((11, 2), MATRIX, 3, 4),
    "1:2": ((5, 3), MATRIX, 1, 2),
    "13:16": ((31, 2), MATRIX, 13, 16),
    "sorted": ((35, 2), MATRIX, 3, 17),
    "shorter-than-m": ((7, 3), MATRIX, 3, 17),
    "m-of-a-billion": ((20, 2), MATRIX, 3, 10**9),
    "convolution": ((2, 2, 6, 3), KernelAxes((2,), (3,)), 2, 4),
    "transposed": ((2, 3, 6), KernelAxes((2,), (1,)), 2, 4),
    "attention-output": ((2, 3, 5), KernelAxes((0, 1), (2,)), 2, 4),
    "axes-apart": ((3, 4, 2), KernelAxes((0, 2), (1,)), 2, 4),
    "axes-apart-from-the-middle": ((2, 3, 2, 2), KernelAxes((1, 3), (0, 2)), 1, 4),
    "every-axis": ((2, 3), KernelAxes((0, 1), ()), 2, 4),
    "negative-axes": ((2, 6, 3), KernelAxes((-2,), (-1,)), 2, 4),
}


def positive(axes, shape):
    return tuple(axis % len(shape) for axis in axes.inputs)


@functools.cache
def compiled(mode, name, jit_compile):
    method = getattr(mode, name)
    return tf.function(method, jit_compile=jit_compile)


def masked(mode, weights, zeros, axes, how="eager"):
    weights, zeros = tf.constant(weights, tf.float32), tf.constant(zeros)
    if how == "eager":
        return mode.hard_masked(weights, zeros, axes).numpy()
    compute = compiled(mode, "hard_masked", how == "xla")
    return compute(weights, zeros, axes).numpy()


# id: shape, axes, mode, weights, most zeros
COUNTS = {
    "dense": ((8, 3), MATRIX, NM(2, 4), 12),
    "tail-of-two-loses-nothing": ((10, 3), MATRIX, NM(2, 4), 12),
    "tail-of-three-loses-one": ((11, 3), MATRIX, NM(2, 4), 15),
    "shorter-than-m": ((3, 5), MATRIX, NM(1, 4), 10),
    "convolution": ((3, 3, 16, 8), KernelAxes((2,), (3,)), NM(1, 4), 9 * 12 * 8),
    "attention-output": ((2, 3, 5), KernelAxes((0, 1), (2,)), NM(2, 4), 10),
    "7:8": ((64, 2), MATRIX, NM(7, 8), 16),
}


@pytest.mark.parametrize(("shape", "axes", "mode", "most"), COUNTS.values(), ids=COUNTS)
def test_units_and_zeros(shape, axes, mode, most):
    assert mode.units(shape, axes) == np.prod(shape)
    assert mode.count_zeros(mode.default_sparsity, shape, axes) == most


# id: shape, axes, mode, reason (None: can be pruned)
REASONS = {
    "dense": ((4, 3), MATRIX, NM(2, 4), None),
    "shorter-than-m": ((3, 3), MATRIX, NM(2, 4), None),
    "two-inputs": ((2, 3), MATRIX, NM(2, 4), "leaves 2 weights of each group.*only 2"),
    "none": ((0, 3), MATRIX, NM(1, 4), "input axis has only 0"),
    "two-axes": ((1, 3, 5), KernelAxes((0, 1), (2,)), NM(2, 4), None),
    "depthwise": ((3, 3, 8, 1), KernelAxes((), (2, 3)), NM(2, 4), "input axis.*none"),
    "embedding": ((50, 8), KernelAxes((), (1,)), NM(1, 2), "input axis.*none"),
}


@pytest.mark.parametrize(
    ("shape", "axes", "mode", "reason"), REASONS.values(), ids=REASONS
)
def test_reason_against(shape, axes, mode, reason):
    found = mode.reason_against(shape, axes)
    if reason is None:
        assert found is None
    else:
        assert re.search(reason, found) and f"{mode.n}:{mode.m}" in found


# Columns are outputs. id: mode, weights, zeros, what is left
HARD = {
    "largest-two": (NM(2, 4), [1, -4, 3, 2], 2, [0, -4, 3, 0]),
    "two-groups": (NM(1, 2), [1, 2, -9, 8], 2, [0, 2, -9, 0]),
    "ties-the-first-go": (NM(2, 4), [1, -1, 1, -1], 2, [0, 0, 1, -1]),
    "ties-in-part": (NM(2, 4), [5, 1, 1, 1], 2, [5, 0, 0, 1]),
    "tail": (NM(2, 4), [1, 2, 3, 4, 7, 5, 6], 3, [0, 0, 3, 4, 7, 0, 6]),
    "tail-is-kept": (NM(2, 4), [1, 2, 3, 4, 0.1, 0.2], 2, [0, 0, 3, 4, 0.1, 0.2]),
    "zeros-are-pruned": (NM(2, 4), [0.0, 1, -0.0, 2], 2, [0, 1, 0, 2]),
    "nothing": (NM(2, 4), [1, 2, 3, 4], 0, [1, 2, 3, 4]),
    # The ramp: of the losers 1, 2, 0.5, 0.6 the smallest first.
    "ramp-1": (NM(2, 4), [1, 2, 3, 4, 9, 8, 0.5, 0.6], 1, [1, 2, 3, 4, 9, 8, 0, 0.6]),
    "ramp-3": (NM(2, 4), [1, 2, 3, 4, 9, 8, 0.5, 0.6], 3, [0, 2, 3, 4, 9, 8, 0, 0]),
    # What its group keeps stays, however small it is.
    "ramp-keeps": (NM(1, 2), [0.1, 0.2, 5, 6], 1, [0, 0.2, 5, 6]),
    "ramp-ties": (NM(1, 2), [1, 1, 1, 1, 1, 1], 2, [0, 1, 0, 1, 1, 1]),
    "nan-is-kept": (NM(2, 4), [1, 2, 3, np.nan], 2, [0, 2, 3, np.nan]),
    "largest-float": (NM(1, 2), [3.4e38, 3.3e38, 1, 2], 1, [3.4e38, 3.3e38, 0, 2]),
}


@pytest.mark.parametrize(("mode", "weights", "zeros", "left"), HARD.values(), ids=HARD)
def test_hard_masked(mode, weights, zeros, left):
    column = np.float32(weights)[:, None]
    found = masked(mode, column, zeros, MATRIX)
    np.testing.assert_array_equal(found[:, 0], np.float32(left))


# Compiling is slow: a tail, a sort and a transpose are enough of it.
COMPILED = ("tail-of-one", "sorted", "axes-apart")


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "eager") for name in KERNEL_SHAPES]
    + [(name, how) for name in COMPILED for how in ("graph", "xla")],
)
def test_the_smallest_losers_go_first_until_n_of_m_are_left(name, how):
    shape, axes, n, m = KERNEL_SHAPES[name]
    mode, inputs = NM(n, m), positive(axes, shape)
    weights = np.round(RNG.normal(size=shape) * 4).astype("float32") / 4  # with ties
    magnitudes = np.abs(weights)
    most = mode.count_zeros(mode.default_sparsity, shape, axes)
    assert reference.group_losers(magnitudes, inputs, n, m).sum() == most
    for zeros in sorted({0, 1, most // 2, most - 1, most}):
        pruned = reference.pruned_losers(magnitudes, inputs, n, m, zeros)
        found = masked(mode, weights, zeros, axes, how)
        np.testing.assert_array_equal(found, np.where(pruned, 0, weights))
        assert pruned.sum() == zeros


DENORMAL = np.int32([1]).view("float32")[0]
VALUES = st.one_of(
    st.sampled_from(np.float32([0, -0.0, 1, -1, 0.5, 3.4e38]).tolist()),
    st.floats(-4, 4, width=32, allow_subnormal=False),
)


@given(
    st.data(),
    st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (5, 8), (4, 20)]),
    st.integers(1, 25),
)
@settings(max_examples=40)
def test_exactly_n_of_m_survive(data, counts, inputs):
    n, m = counts
    values = data.draw(numpy_st.arrays("float32", (inputs, 2), elements=VALUES))
    mode = NM(n, m)
    most = mode.count_zeros(mode.default_sparsity, values.shape, MATRIX)
    zeros = data.draw(st.integers(0, most))
    pruned = reference.pruned_losers(np.abs(values), (0,), n, m, zeros)
    found = masked(mode, values, zeros, MATRIX)
    np.testing.assert_array_equal(found, np.where(pruned, 0, values))
    # A mask that shows which zeros are pruned ones: the same places, all of them 1.
    ones = np.float32(~reference.group_losers(np.abs(values), (0,), n, m))
    for start in range(0, inputs, m):
        group = ones[start : start + m]
        np.testing.assert_array_equal(group.sum(0), min(n, len(group)))
    everything = masked(mode, values, most, MATRIX)
    for start in range(0, inputs, m):
        assert (np.count_nonzero(everything[start : start + m], 0) <= n).all()


@given(numpy_st.arrays("float32", (8, 3), elements=st.sampled_from([0, 1, 2, 5])))
@settings(max_examples=20)
def test_denormals_may_count_as_zeros_but_no_group_keeps_too_much(steps):
    values = np.int32(steps).view("float32")
    found = masked(NM(2, 4), values, 12, MATRIX)
    for group in (found[:4], found[4:]):
        assert (np.count_nonzero(group, axis=0) <= 2).all()
    is_kept = found.view("int32") != 0
    np.testing.assert_array_equal(found[is_kept], values[is_kept])


@pytest.mark.parametrize("m", (4, 16, 17, 32))
def test_comparisons_and_sorts_agree_on_constants(m):
    """Beyond 16 groups are sorted; ties must fall in the same way."""
    weights = np.ones((2 * m, 2), "float32")
    found = masked(NM(m // 2, m), weights, 2 * (2 * m - 2 * (m // 2)), MATRIX)
    expected = ([0] * (m - m // 2) + [1] * (m // 2)) * 2
    np.testing.assert_array_equal(found, np.repeat([expected], 2, 0).T)


@pytest.mark.parametrize("n", (1, 7, 8, 15))
def test_comparisons_and_sorts_agree(n, monkeypatch):
    weights = tf.constant(np.round(RNG.normal(size=(40, 5)), 1), tf.float32)
    mode = NM(n, 16)
    zeros = mode.count_zeros(0, (40, 5), MATRIX)
    answers = []
    for most_compared in (16, 0):
        monkeypatch.setattr("pdp_keras.modes.n_of_m._MOST_COMPARED", most_compared)
        answers.append(
            [
                compute(weights, count, MATRIX).numpy()
                for count in (zeros, zeros - 3)
                for compute in (mode.threshold, mode.hard_masked)
            ]
        )
    for compared, ordered in zip(*answers, strict=True):
        np.testing.assert_array_equal(compared, ordered)


@pytest.mark.parametrize("zeros", (0, 5))
def test_an_axis_of_no_more_than_n_loses_nothing(zeros):
    """Nor does a group of a billion take more memory than the axis."""
    mode = NM(10**9 - 1, 10**9)
    kernel = RNG.normal(size=(8, 3)).astype("float32")
    np.testing.assert_array_equal(masked(mode, kernel, zeros, MATRIX), kernel)
    assert mode.threshold(kernel, tf.constant(zeros), MATRIX).shape == (1, 1, 1, 3)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_hard_masked_keeps_the_dtype_and_the_kept_values(dtype):
    weights = tf.cast(RNG.normal(size=(8, 3)), dtype)
    found = NM(2, 4).hard_masked(weights, 12, MATRIX)
    assert found.dtype == dtype
    as_float = tf.cast(weights, tf.float32).numpy()
    lost = reference.group_losers(np.abs(as_float), (0,), 2, 4)
    np.testing.assert_array_equal(
        tf.cast(found, tf.float32), np.where(lost, 0, as_float)
    )


@pytest.mark.parametrize(
    ("shape", "axes", "n", "m"), KERNEL_SHAPES.values(), ids=KERNEL_SHAPES
)
def test_thresholds_of_groups(shape, axes, n, m):
    mode, inputs = NM(n, m), positive(axes, shape)
    weights = RNG.normal(size=shape).astype("float32")
    most = mode.count_zeros(mode.default_sparsity, shape, axes)
    groups = reference.input_groups(shape, inputs, m)
    for zeros in sorted({0, 1, most // 2, most}):
        found = mode.threshold(tf.constant(weights), zeros, axes).numpy()
        assert found.dtype == "float32" and found.shape[2] == 1
        assert found.size == len(groups)
        expected = reference.group_thresholds(np.abs(weights), inputs, n, m, zeros)
        each = sorted(expected[group[0]] for group in groups)
        np.testing.assert_allclose(sorted(found.ravel()), each, rtol=1e-6, atol=0)


TEMPERATURES = {
    "absolute": AbsoluteTemperature(0.3),
    "relative": RelativeTemperature(0.5),
}


@pytest.mark.parametrize("temperature", TEMPERATURES.values(), ids=TEMPERATURES)
@pytest.mark.parametrize(
    ("shape", "axes", "n", "m"), KERNEL_SHAPES.values(), ids=KERNEL_SHAPES
)
def test_soft_masked_with_its_gradient(shape, axes, n, m, temperature):
    mode, inputs = NM(n, m), positive(axes, shape)
    values = RNG.normal(size=shape).astype("float32")
    upstream = RNG.normal(size=shape).astype("float32")
    most = mode.count_zeros(mode.default_sparsity, shape, axes)
    for zeros in (0, max(1, most // 2), most):
        weights = tf.constant(values)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            soft = mode.soft_masked(weights, zeros, axes, temperature.width)
        thresholds = reference.group_thresholds(np.abs(values), inputs, n, m, zeros)
        if isinstance(temperature, AbsoluteTemperature):
            width = np.full(shape, temperature.value**0.5)
        else:
            width = thresholds * temperature.factor**0.5
        np.testing.assert_allclose(
            soft,
            values * reference.soft_mask(values, thresholds, width),
            rtol=2e-5,
            atol=1e-7,
        )
        np.testing.assert_allclose(
            tape.gradient(soft, weights, upstream),
            upstream * reference.soft_masked_slope(values, thresholds, width),
            rtol=5e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("how", ("graph", "xla"))
@pytest.mark.parametrize("counts", ((2, 4), (3, 17)), ids=("compared", "sorted"))
def test_soft_masked_in_graphs(counts, how):
    mode = NM(*counts)
    weights = tf.constant(RNG.normal(size=(23, 3)), tf.float32)
    width = RelativeTemperature(0.5).width

    def compute(weights, zeros):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            soft = mode.soft_masked(weights, zeros, MATRIX, width)
        return soft, tape.gradient(soft, weights)

    in_graph = tf.function(compute, jit_compile=how == "xla")
    most = mode.count_zeros(0, (23, 3), MATRIX)
    for zeros in (0, 5, most):
        eager = compute(weights, tf.constant(zeros))
        for found, expected in zip(
            in_graph(weights, tf.constant(zeros)), eager, strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7)
    assert in_graph.experimental_get_tracing_count() == 1


def test_all_weights_zero_stay_finite():
    weights = tf.zeros((8, 2))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        width = RelativeTemperature(0.5).width
        soft = NM(2, 4).soft_masked(weights, 8, MATRIX, width)
    np.testing.assert_array_equal(soft, np.zeros((8, 2)))
    np.testing.assert_array_equal(tape.gradient(soft, weights), np.ones((8, 2)))


def model_of(name):
    """A model of one layer of this class."""
    make, shape = BUILD.get(name, ((), IMAGE))
    layer = make() if callable(make) else CLASSES[name](*make)
    shapes = shape if isinstance(shape, list) else [shape]
    dtype = "int32" if "Embedding" in name else "float32"
    if name == "GroupedQueryAttention":  # as it builds, but not as it is called
        shapes = [shapes[0], shapes[0]]
    inputs = [keras.Input(batch_shape=one, dtype=dtype) for one in shapes]
    if name.endswith("Cell"):
        states = [keras.Input((size,)) for size in keras.tree.flatten(layer.state_size)]
        outputs = layer(inputs[0], states)
        inputs += states
    else:
        outputs = layer(*inputs)
    return keras.Model(inputs, outputs)


MANY = sorted(
    (set(KERNELS) | {"RNN", "Bidirectional", "TimeDistributed"})
    & set(CLASSES)
    - {"Embedding", "ReversibleEmbedding", "DepthwiseConv1D", "DepthwiseConv2D"}
)


@pytest.mark.parametrize("name", MANY)
def test_every_layer_has_at_most_two_of_four(name):
    model = model_of(name)
    assert all(k.shape for k in find_kernels(model)[0])
    pruned = prune_model(model, mode="2:4")
    models.set_zeros(pruned)
    inputs = [
        np.random.default_rng(0).normal(size=x.shape).astype("float32")
        if x.shape[0]
        else np.ones((2, *x.shape[1:]), "float32")
        for x in model.inputs
    ]
    stripped = strip_pruning(pruned)
    for actual, wanted in zip(
        keras.tree.flatten(stripped(inputs)),
        keras.tree.flatten(pruned(inputs)),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, wanted)
    seen = 0
    for old, new in zip(find_kernels(model)[0], find_kernels(stripped)[0], strict=True):
        before, after = old.variable.numpy(), new.variable.numpy()
        if NM(2, 4).reason_against(old.shape, old.axes):
            np.testing.assert_array_equal(before, after)
            continue
        seen += 1
        lost = reference.group_losers(np.abs(before), old.axes.inputs, 2, 4)
        np.testing.assert_array_equal(after, np.where(lost, 0, before))
        for group in reference.input_groups(old.shape, old.axes.inputs, 4):
            assert sum(after[index] != 0 for index in group) <= 2
    assert seen


@pytest.mark.parametrize("name", ("DepthwiseConv1D", "DepthwiseConv2D", "Embedding"))
def test_layers_without_an_input_axis_are_refused(name):
    message = (
        r"fit at least one.*Received: mode=NM\(n=2, m=4\).*input axis: it has none"
    )
    with pytest.raises(ValueError, match=message):
        prune_model(model_of(name), mode="2:4")


def test_the_report_says_why_a_kernel_is_left_alone():
    model = models.cnn()
    pruned = prune_model(model, mode="2:4")
    models.set_zeros(pruned)
    report = sparsity_report(pruned)
    reasons = {f"{w.layer}/{w.weight}": w.reason for w in report.skipped}
    depthwise = reasons["separable/depthwise_kernel"]
    assert depthwise == "2:4 groups weights along an input axis: it has none"
    rows = {row.layer: row for row in report.rows}
    # Three input channels: one of them goes, at every place of the window.
    assert rows["stem"].zeros == 9 * 8 and rows["stem"].target == 72 / (27 * 8)
    assert rows["nested/hidden"].sparsity == rows["logits"].sparsity == 0.5
    assert {row.threshold for row in report.rows} == {None}
    filtered = prune_model(model, mode="2:4", filters="logits")
    reasons = {w.layer: w.reason for w in sparsity_report(filtered).skipped}
    assert reasons["stem"] == "not a kernel"  # its bias, which comes last
    rows = sparsity_report(filtered).skipped
    assert {w.reason for w in rows if w.layer == "stem" and w.weight == "kernel"} == {
        "not chosen by `filters`"
    }


@pytest.mark.parametrize("update", ("graph", "xla"))
def test_training_reaches_exactly_two_of_four(update):
    pruned = prune_model(models.mlp(8, 20, 3), mode="2:4")
    pruned.compile("adam", "mse", jit_compile=update == "xla")
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    history = pruned.fit(
        x,
        np.tanh(x[:, :3]),
        batch_size=8,
        epochs=4,
        verbose=0,
        callbacks=[PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2)],
    ).history
    # After half of the ramp 7/8 of 80 and of 30 weights: 70 and round(26.25).
    np.testing.assert_allclose(history["sparsity"], [0, 96 / 220, 0.5, 0.5])
    assert history["loss"][-1] < history["loss"][0]
    for kernel in find_kernels(strip_pruning(pruned))[0]:
        nonzeros = np.count_nonzero(
            kernel.variable.numpy().reshape(-1, 4, kernel.shape[1]), axis=1
        )
        np.testing.assert_array_equal(nonzeros, 2)


def test_a_saved_model_resumes(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")

    def fit(model, epochs, first=0):
        model.fit(
            x,
            x[:, :3],
            batch_size=8,
            shuffle=False,
            verbose=0,
            initial_epoch=first,
            epochs=epochs,
            callbacks=[PDPScheduleCallback(ramp_epochs=2)],
        )
        return model

    def make():
        keras.utils.set_random_seed(1)
        model = prune_model(models.mlp(8, 20, 3), mode=NM(1, 4))
        model.compile("adam", "mse")
        return model

    straight = fit(make(), 4)
    fit(make(), 2).save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert [w.mode for w in parts.pruned_weights(loaded)] == [NM(1, 4)] * 2
    assert [int(w.zeros.numpy()) for w in parts.pruned_weights(loaded)] == [120, 45]
    resumed = fit(loaded, 4, 2)
    for a, b in zip(straight.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_one_wrapper_alone():
    wrapper = PDPWrapper(layers.Dense(3, use_bias=False), mode="2:4")
    wrapper(np.zeros((1, 4), "float32"))
    kernel = np.float32([[1, 5, 1], [2, 4, 1], [3, 3, 1], [4, 2, 1]])
    wrapper.layer.kernel.assign(kernel)
    models.set_zeros(wrapper)
    np.testing.assert_array_equal(
        wrapper(np.eye(4, dtype="float32")),
        [[0, 5, 0], [0, 4, 0], [3, 0, 1], [4, 0, 1]],
    )
    soft = wrapper(np.eye(4, dtype="float32"), training=True)
    thresholds = np.float32([2.5, 3.5, 1])
    expected = kernel * reference.soft_mask(kernel, thresholds, thresholds)
    np.testing.assert_allclose(soft, expected, rtol=1e-5)


@pytest.mark.parametrize("policy", ("mixed_float16", "mixed_bfloat16"))
def test_mixed_precision(policy):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, dtype=policy, activation="relu", name="first"),
            layers.Dense(3, dtype="float32", name="last"),
        ]
    )
    pruned = prune_model(model, mode="2:4")
    models.set_zeros(pruned)
    x = models.random_inputs(pruned)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(pruned(x, training=True) ** 2)
    variables = [v.value for v in pruned.trainable_variables]
    assert all(np.isfinite(g).all() for g in tape.gradient(loss, variables))
    stripped = strip_pruning(pruned)
    np.testing.assert_array_equal(stripped(x), pruned(x))
    # Compared in float32: float16 would hold some of the two as equal.
    kernel = model.get_layer("first").kernel.numpy()
    lost = reference.group_losers(np.abs(kernel), (0,), 2, 4)
    np.testing.assert_array_equal(
        stripped.get_layer("first").kernel, np.where(lost, 0, kernel)
    )


def test_weights_can_be_plotted():
    pytest.importorskip("matplotlib")
    pruned = prune_model(models.mlp(8, 20, 3), mode="2:4")
    assert plot.plot_weights(pruned, "first").axes
    models.set_zeros(pruned)
    figure = plot.plot_weights(pruned, "first")
    left = figure.axes[0]
    drawn = [abs(line.get_xdata()[0]) for line in left.lines]
    thresholds = parts.pruned_weights(pruned)[0].numpy_threshold()
    assert thresholds.size == 2 * 20
    assert all(thresholds.min() <= x <= thresholds.max() for x in drawn)


# id: call, error, message
ERRORS = {
    "n-zero": (lambda: NM(0, 4), "1 <= n < m. Received: n=0, m=4"),
    "n-is-m": (lambda: NM(4, 4), "Received: n=4, m=4"),
    "bool": (lambda: NM(True, 4), "Received: n=True, m=4"),
    "float": (lambda: NM(2.0, 4), "Received: n=2.0, m=4"),
    "reversed": (lambda: prune_model(models.mlp(), mode="4:2"), "Received: n=4, m=2"),
    "sparsity": (
        lambda: prune_model(models.mlp(), 0.75, "2:4"),
        "The sparsity of 2:4 follows from it: 0.5; leave it out. Received: "
        "sparsity=0.75",
    ),
    "no-sparsity": (
        lambda: prune_model(models.mlp(), "half", "2:4"),
        "in [0, 1): the fraction of zeros. Received: sparsity='half'",
    ),
    "lamp": (
        lambda: prune_model(models.mlp(), mode="2:4", allocation="lamp"),
        "leave `allocation` out. Received: allocation='lamp'",
    ),
    "allocation": (
        lambda: prune_model(models.mlp(), mode="2:4", allocation="erk"),
        "leave `allocation` out. Received: allocation='erk'",
    ),
    "mapping": (
        lambda: prune_model(models.mlp(), mode="2:4", allocation={"first": 0.5}),
        "NM(n=2, m=4) decides the sparsity of every kernel itself",
    ),
    "sparsity-of-a-wrapper": (
        lambda: PDPWrapper(layers.Dense(2), 0.9, "2:4"),
        "Received: sparsity=0.9",
    ),
    "depthwise-wrapper": (
        lambda: PDPWrapper(layers.DepthwiseConv2D(3), mode="2:4")(
            np.zeros((1, 8, 8, 4), "float32")
        ),
        "2:4 groups weights along an input axis: it has none",
    ),
    "too-few-inputs": (
        lambda: prune_model(models.mlp(2, 2, 2), mode="2:4"),
        "its input axis has only 2",
    ),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_the_sparsity_may_be_repeated():
    assert parts.requested_sparsity(prune_model(models.mlp(), 0.5, "2:4")) == 0.5
    third = prune_model(models.mlp(), 1 - 1 / 3, "1:3")
    assert parts.requested_sparsity(third) == pytest.approx(2 / 3)


def test_an_allocation_in_the_callback_is_an_error():
    pruned = prune_model(models.mlp(), mode="2:4")
    schedule = PDPScheduleCallback(ramp_epochs=1, allocation="global")
    with pytest.raises(ValueError, match="leave `allocation` out"):
        schedule.start(pruned, epochs=2)
