"""Channel: norms of output channels, how many are pruned, and one wrapper alone."""

import keras
import models
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import layers

from pdp_keras import (
    AbsoluteTemperature,
    Channel,
    KernelAxes,
    PDPScheduleCallback,
    PDPWrapper,
    RelativeTemperature,
    sparsity_report,
    strip_pruning,
)

RNG = np.random.default_rng(0)

MATRIX = KernelAxes((0,), (1,))
HEADS = KernelAxes((0,), (1, 2))
CONVOLUTION = KernelAxes((-2,), (-1,))
TRANSPOSED = KernelAxes((-1,), (-2,))


def norms(weights, outputs, norm):
    """One output channel after the other."""
    found = np.zeros([weights.shape[axis] for axis in outputs])
    for index in np.ndindex(found.shape):
        place = [slice(None)] * weights.ndim
        for axis, at in zip(outputs, index, strict=True):
            place[axis] = at
        values = np.abs(np.float64(weights[tuple(place)]))
        found[index] = values.sum() if norm == "l1" else np.sqrt((values**2).sum())
    return found


# id: shape, axes, output axes from 0, shape of the scores
SHAPES = {
    "dense": ((5, 4), MATRIX, (1,), (1, 4)),
    "convolution": ((3, 2, 5, 4), CONVOLUTION, (3,), (1, 1, 1, 4)),
    "transposed": ((3, 2, 4, 5), TRANSPOSED, (2,), (1, 1, 4, 1)),
    "heads": ((5, 2, 3), HEADS, (1, 2), (1, 2, 3)),
}


@pytest.mark.parametrize("norm", ("l1", "l2"))
@pytest.mark.parametrize(
    ("shape", "axes", "outputs", "of_scores"), SHAPES.values(), ids=SHAPES
)
def test_scores(shape, axes, outputs, of_scores, norm):
    if min(axes.outputs) < 0:
        axes = KernelAxes(axes.inputs, outputs)  # as `find_kernels` gives them
    weights = RNG.normal(size=shape).astype("float32")
    mode = Channel(norm)
    found = mode.scores(tf.constant(weights), axes)
    assert found.shape == of_scores
    expected = norms(weights, outputs, norm)
    np.testing.assert_allclose(np.ravel(found), np.ravel(expected), rtol=1e-6)
    ranked = mode.ranked(tf.constant(weights), axes)
    np.testing.assert_allclose(ranked, np.ravel(expected / expected.mean()), rtol=1e-6)
    assert mode.units(shape, axes) == expected.size


def test_ranks_of_a_dead_kernel_are_finite():
    np.testing.assert_array_equal(Channel().ranked(tf.zeros((3, 4)), MATRIX), [0] * 4)


# round_to, min_channels, each, units, zeros wanted, zeros
LIMITS = [
    (1, 1, 1, 10, 0, 0),
    (1, 1, 1, 10, 7, 7),
    (1, 1, 1, 10, 10, 9),
    (1, 4, 1, 10, 5, 5),
    (1, 4, 1, 10, 8, 6),
    (1, 12, 1, 10, 8, 0),
    # What is left, 32, 28, 27, ..., becomes the nearest multiple of 8, halves upwards.
    (8, 1, 1, 32, 0, 0),
    (8, 1, 1, 32, 4, 0),
    (8, 1, 1, 32, 5, 8),
    (8, 1, 1, 32, 12, 8),
    (8, 1, 1, 32, 13, 16),
    (8, 1, 1, 32, 31, 24),
    (8, 1, 1, 32, 32, 24),
    # Not to 0, and never more than there are.
    (8, 1, 1, 12, 8, 4),
    (8, 1, 1, 12, 3, 4),
    (8, 1, 1, 12, 0, 0),
    (8, 1, 1, 6, 5, 0),
    (8, 12, 1, 32, 30, 16),
    (8, 16, 1, 32, 30, 16),
    # Units of 4 channels: a multiple of 2 units; of 3 channels: of 8 units.
    (8, 1, 4, 6, 3, 2),
    (8, 1, 3, 32, 20, 16),
    (8, 1, 8, 6, 5, 5),
    (8, 10, 8, 6, 5, 4),
    (1, 10, 4, 6, 5, 3),
]


@pytest.mark.parametrize(
    ("round_to", "fewest", "each", "units", "wanted", "zeros"), LIMITS
)
def test_limit_zeros(round_to, fewest, each, units, wanted, zeros):
    mode = Channel(round_to=round_to, min_channels=fewest)
    assert mode.limit_zeros(wanted, units, each) == zeros
    left = units - zeros
    assert left >= 1
    if zeros:
        assert left * each % round_to == 0 and left * each >= fewest


def test_count_zeros_rounds_as_well():
    assert Channel(round_to=4).count_zeros(0.5, (7, 20), MATRIX) == 8
    assert Channel().count_zeros(0.5, (7, 20), MATRIX) == 10
    assert Channel().count_zeros(0.99, (7, 3), MATRIX) == 2


def test_reason_against():
    assert Channel().reason_against((5, 4), MATRIX) is None
    reason = Channel().reason_against((5, 1), MATRIX)
    assert reason == "it has 1 channels, of which 1 are left"
    assert Channel(min_channels=4).reason_against((5, 4), MATRIX)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l3"}, r"one of \['l1', 'l2'\]. Received: norm='l3'"),
        ({"round_to": 0}, "positive integer. Received: round_to=0"),
        ({"round_to": 8.0}, "Received: round_to=8.0"),
        ({"min_channels": True}, "Received: min_channels=True"),
        ({"min_channels": -1}, "Received: min_channels=-1"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Channel(**arguments)


KERNEL = np.float32([[1, -3, 2, 2, 0], [1, 3, 2, -2, 0], [1, 3, 2, 2, 0.1]])
# The bias must be dead too, or the channel would not be.
BIAS = np.float32([10, 20, 30, 40, 50])
HARD = {0: "11111", 1: "11110", 2: "01110", 3: "01010", 4: "01000"}


def wrapped(zeros, use_bias=True, mode="channel", **arguments):
    layer = layers.Dense(5, use_bias=use_bias)
    wrapper = PDPWrapper(layer, 0.5, mode, **arguments)
    wrapper(np.zeros((1, 3), "float32"))
    layer.kernel.assign(KERNEL)
    if use_bias:
        layer.bias.assign(BIAS)
    models.set_zeros(wrapper)
    wrapper.pruned_weights[0].zeros.assign(zeros)
    return wrapper


@pytest.mark.parametrize("use_bias", (True, False))
@pytest.mark.parametrize("zeros", HARD)
def test_hard_mask_of_one_wrapper(zeros, use_bias):
    mask = np.float32(list(HARD[zeros]))
    wrapper = wrapped(zeros, use_bias)
    inputs = RNG.normal(size=(2, 3)).astype("float32")
    expected = inputs @ (KERNEL * mask) + (BIAS * mask if use_bias else 0)
    np.testing.assert_allclose(wrapper(inputs), expected, rtol=1e-5, atol=1e-6)
    assert not np.any(np.asarray(wrapper(inputs))[:, mask == 0])


@pytest.mark.parametrize("temperature", (0.5, RelativeTemperature(0.3)), ids=str)
@pytest.mark.parametrize("norm", ("l1", "l2"))
def test_soft_mask_of_one_wrapper_and_its_gradient(norm, temperature):
    wrapper = wrapped(2, mode=Channel(norm), temperature=temperature)
    inputs = RNG.normal(size=(4, 3)).astype("float32")
    upstream = RNG.normal(size=(4, 5)).astype("float32")
    variables = [wrapper.layer.kernel.value, wrapper.layer.bias.value]
    with tf.GradientTape() as tape:
        outputs = wrapper(inputs, training=True)
    of_kernel, of_bias = tape.gradient(outputs, variables, upstream)

    kernel = np.float64(KERNEL)
    scores = norms(kernel, (1,), norm)
    threshold = reference.threshold(scores, 2)
    tau = 0.5
    if isinstance(temperature, RelativeTemperature):
        tau = 0.3 * np.abs(scores**2 - threshold**2).mean()
    mask = reference.soft_mask(scores, threshold, tau**0.5)
    np.testing.assert_allclose(
        outputs, inputs @ (kernel * mask) + BIAS * mask, rtol=1e-4, atol=1e-5
    )
    of_masked = inputs.T.astype("float64") @ upstream
    of_mask = (of_masked * kernel).sum(0) + upstream.sum(0) * BIAS
    of_scores = of_mask * mask * (1 - mask) * 2 * scores / tau
    slope = np.sign(kernel) if norm == "l1" else kernel / scores
    np.testing.assert_allclose(
        of_kernel, mask * of_masked + of_scores * slope, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(of_bias, mask * upstream.sum(0), rtol=1e-4, atol=1e-5)


def test_threshold_is_in_units_of_the_score():
    weights = tf.constant(KERNEL)
    scores = norms(KERNEL, (1,), "l2")
    for zeros in range(5):
        found = Channel().threshold(weights, zeros, MATRIX)
        assert found.shape == ()
        np.testing.assert_allclose(found, reference.threshold(scores, zeros), rtol=1e-6)


def test_hard_masked_keeps_the_dtype():
    weights = tf.cast(KERNEL, tf.bfloat16)
    found = Channel().hard_masked(weights, 2, MATRIX)
    assert found.dtype == tf.bfloat16
    mask = np.float32(list(HARD[2]))
    np.testing.assert_array_equal(tf.cast(found, tf.float32), weights * mask)


# name: layer, shape of its inputs, output axis of its outputs
LAYERS = {
    "conv": (lambda: layers.Conv2D(6, 3), (2, 5, 5, 3)),
    "transposed": (lambda: layers.Conv2DTranspose(6, 3), (2, 5, 5, 3)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (2, 5, 5, 3)),
    "einsum": (
        lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
        (2, 4, 5),
    ),
}


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
def test_outputs_of_dead_channels_are_zero(make, shape):
    layer = make()
    wrapper = PDPWrapper(layer, 0.5, mode="channel")
    inputs = RNG.normal(size=shape).astype("float32")
    wrapper(inputs)
    layer.bias.assign(RNG.normal(size=layer.bias.shape))
    dense = np.asarray(layer(inputs))
    models.set_zeros(wrapper)
    outputs = np.asarray(wrapper(inputs))
    count = int(np.prod(layer.bias.shape))
    outputs = outputs.reshape(-1, count)
    dead = ~outputs.any(axis=0)
    assert dead.sum() == 3 and count == 6
    kept = dense.reshape(-1, count)[:, ~dead]
    np.testing.assert_allclose(outputs[:, ~dead], kept, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["adam", pytest.param("jit", marks=pytest.mark.slow)])
def test_a_model_of_single_wrappers(kind, tmp_path):
    """A wrapper knows nothing of its neighbours: the shapes stay."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            PDPWrapper(layers.Dense(10), 0.4, Channel(), allocation="uniform"),
            layers.ReLU(),
            layers.Dense(2),
        ]
    )
    model.compile("adam", "mse", jit_compile=kind == "jit")
    x = RNG.normal(size=(16, 6)).astype("float32")
    history = model.fit(
        x,
        x[:, :2],
        epochs=3,
        verbose=0,
        callbacks=[PDPScheduleCallback(ramp_epochs=2, ramp="linear")],
    ).history
    assert history["sparsity"] == [0.2, 0.4, 0.4]
    (row, _) = sparsity_report(strip_pruning(model)).rows
    assert row.zeros == 24 and row.shape == (6, 10)
    if kind == "adam":
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded(x), model(x))


def test_temperatures():
    assert Channel.default_temperature != RelativeTemperature(1.0)
    wrapper = wrapped(2, temperature=0.5)
    assert wrapper.temperature == AbsoluteTemperature(0.5)
    assert wrapped(2).temperature == Channel.default_temperature
