"""Normalizations with a mask against the smaller layer on what is kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from pdp_keras.layers.normalization import can_normalize, masked_normalization

RNG = np.random.default_rng(0)
MASK = np.float32([1, 0, 1, 1, 0, 1])
KEPT = MASK > 0

HAS_RMS = hasattr(layers, "RMSNormalization")
needs_rms = pytest.mark.skipif(not HAS_RMS, reason="this Keras has no such layer")

# id: layer, arguments, shape of the inputs, axis of the channels
LAYERS = {
    "layer": ("LayerNormalization", {}, (3, 5, 6), 2),
    "first-axis": ("LayerNormalization", {"axis": 1}, (3, 6, 5), 1),
    "two-axes": ("LayerNormalization", {"axis": [1, 3]}, (2, 4, 5, 6), 3),
    "two-axes-the-first": ("LayerNormalization", {"axis": [1, 2]}, (2, 6, 4, 5), 1),
    "three-axes": ("LayerNormalization", {"axis": [1, 2, 3]}, (2, 4, 5, 6), 3),
    "negative-axes": ("LayerNormalization", {"axis": [-2, -1]}, (2, 4, 6), 2),
    "no-center": ("LayerNormalization", {"center": False}, (3, 6), 1),
    "no-scale": ("LayerNormalization", {"scale": False}, (3, 6), 1),
    "neither": ("LayerNormalization", {"center": False, "scale": False}, (3, 6), 1),
    "epsilon": ("LayerNormalization", {"epsilon": 0.5}, (3, 6), 1),
    "rms": ("RMSNormalization", {}, (3, 5, 6), 2),
    "unit-first-axis": ("UnitNormalization", {"axis": 1}, (3, 6, 5), 1),
    "unit": ("UnitNormalization", {}, (3, 5, 6), 2),
    "unit-two-axes": ("UnitNormalization", {"axis": [1, 2]}, (3, 5, 6), 2),
}


def make(name, arguments, inputs, **more):
    layer = getattr(layers, name)(**arguments, **more)
    layer.build(inputs.shape)
    for weight in layer.weights:
        weight.assign(RNG.normal(1.0, 0.3, weight.shape))
    return layer


def weight_axis(layer, axis, rank):
    """Which axis of gamma and beta the channels of the inputs' axis lie on."""
    given = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    return [a % rank for a in given].index(axis)


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "axis"), LAYERS.values(), ids=LAYERS
)
def test_kept_channels_are_those_of_the_smaller_layer(name, arguments, shape, axis):
    if name == "RMSNormalization" and not HAS_RMS:
        pytest.skip("this Keras has no such layer")
    inputs = RNG.normal(0.5, 2.0, shape).astype("float32")
    layer = make(name, arguments, inputs)
    assert can_normalize(layer)
    found = masked_normalization(layer, tf.constant(MASK), axis, tf.constant(inputs))
    assert found.shape == shape and found.dtype == "float32"

    few = np.compress(KEPT, inputs, axis)
    small = getattr(layers, name)(**arguments)
    small.build(few.shape)
    for weight, whole in zip(small.weights, layer.weights, strict=True):
        along = weight_axis(layer, axis, len(shape))
        weight.assign(np.compress(KEPT, whole.numpy(), along))
    np.testing.assert_allclose(
        np.compress(KEPT, found, axis), small(few), rtol=1e-4, atol=1e-5
    )
    # What is masked says nothing: other values there change nothing elsewhere.
    changed = np.where(
        KEPT.reshape([-1 if i == axis else 1 for i in range(len(shape))]),
        inputs,
        100.0,
    ).astype("float32")
    other = masked_normalization(layer, tf.constant(MASK), axis, tf.constant(changed))
    np.testing.assert_allclose(
        np.compress(KEPT, other, axis), small(few), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "axis"), LAYERS.values(), ids=LAYERS
)
def test_a_mask_of_ones_is_the_layer(name, arguments, shape, axis):
    if name == "RMSNormalization" and not HAS_RMS:
        pytest.skip("this Keras has no such layer")
    inputs = RNG.normal(0.5, 2.0, shape).astype("float32")
    layer = make(name, arguments, inputs)
    found = masked_normalization(layer, tf.ones(6), axis, tf.constant(inputs))
    np.testing.assert_allclose(found, layer(inputs), rtol=1e-4, atol=1e-5)


def test_a_soft_mask_weighs_the_statistics():
    """The formula of the module, written out in float64."""
    inputs = RNG.normal(0.5, 2.0, (3, 6)).astype("float32")
    layer = make("LayerNormalization", {"epsilon": 1e-3}, inputs)
    mask = RNG.uniform(0.1, 1, 6).astype("float32")
    found = masked_normalization(layer, tf.constant(mask), 1, tf.constant(inputs))
    x, m = np.float64(inputs), np.float64(mask)
    mean = (m * x).sum(1, keepdims=True) / m.sum()
    variance = (m * (x - mean) ** 2).sum(1, keepdims=True) / m.sum()
    expected = (x - mean) / np.sqrt(variance + 1e-3)
    expected = expected * layer.gamma.numpy() + layer.beta.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ("mixed_float16", "mixed_bfloat16", "float16"))
@pytest.mark.parametrize(
    "name",
    ("LayerNormalization", pytest.param("RMSNormalization", marks=needs_rms)),
)
def test_half_precision(name, policy):
    # The squares of these are beyond float16.
    inputs = (300 * RNG.normal(size=(4, 6))).astype("float32")
    layer = make(name, {}, inputs, dtype=policy)
    half = tf.cast(inputs, layer.compute_dtype)
    found = masked_normalization(layer, tf.constant(MASK), 1, half)
    assert found.dtype == layer.compute_dtype
    single = make(name, {}, inputs)
    single.set_weights([np.asarray(w, "float32") for w in layer.get_weights()])
    expected = masked_normalization(
        single, tf.constant(MASK), 1, tf.cast(half, "float32")
    )
    np.testing.assert_allclose(
        tf.cast(found, tf.float32), expected, rtol=1e-2, atol=1e-2
    )


# What a normalization may meet: nothing, constants, the very large and very small.
INPUTS = {
    "zeros": np.zeros((3, 6)),
    "constant": np.full((3, 6), 7.0),
    "large": 1e15 * RNG.normal(size=(3, 6)),
    "small": 1e-15 * RNG.normal(size=(3, 6)),
    "one": np.eye(6)[:3],
}


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize(
    "name",
    (
        "LayerNormalization",
        "UnitNormalization",
        pytest.param("RMSNormalization", marks=needs_rms),
    ),
)
def test_gradients_are_as_finite_as_the_layers_own(name, inputs):
    layer = make(name, {}, inputs)
    soft = tf.Variable(np.float32([1, 1e-12, 0, 0.5, 0, 1]))
    x = tf.Variable(inputs.astype("float32"))
    with tf.GradientTape(persistent=True) as tape:
        masked = masked_normalization(layer, soft, 1, x + 0.0)
        plain = layer(x + 0.0)
    assert np.isfinite(masked).all() or not np.isfinite(plain).all()
    if np.isfinite(tape.gradient(plain, x)).all():
        assert np.isfinite(tape.gradient(masked, x)).all()
        assert np.isfinite(tape.gradient(masked, soft)).all()


def test_the_gradient_of_the_mask_is_that_of_differences():
    inputs = RNG.normal(size=(3, 6)).astype("float32")
    layer = make("LayerNormalization", {}, inputs)
    mask = RNG.uniform(0.2, 1, 6)
    upstream = RNG.normal(size=(3, 6))

    def loss(mask):
        x = np.float64(inputs)
        mean = (mask * x).sum(1, keepdims=True) / mask.sum()
        variance = (mask * (x - mean) ** 2).sum(1, keepdims=True) / mask.sum()
        y = (x - mean) / np.sqrt(variance + layer.epsilon)
        return (upstream * (y * layer.gamma.numpy() + layer.beta.numpy())).sum()

    expected = [
        (loss(mask + step) - loss(mask - step)) / 2e-6 for step in 1e-6 * np.eye(6)
    ]
    variable = tf.Variable(np.float32(mask))
    with tf.GradientTape() as tape:
        outputs = masked_normalization(layer, variable, 1, tf.constant(inputs))
    found = tape.gradient(outputs, variable, tf.constant(upstream, "float32"))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_what_can_be_normalized():
    class Own(layers.LayerNormalization):
        def call(self, inputs):
            return super().call(inputs) * 2

    class Renamed(layers.LayerNormalization):
        pass

    assert can_normalize(layers.LayerNormalization())
    assert can_normalize(Renamed())
    assert not can_normalize(Own())
    assert not can_normalize(layers.BatchNormalization())
    assert not can_normalize(layers.GroupNormalization(2))


@pytest.mark.parametrize("jit_compile", (False, True), ids=("graph", "xla"))
def test_in_graphs_with_an_unknown_batch(jit_compile):
    inputs = RNG.normal(size=(3, 5, 6)).astype("float32")
    layer = make("LayerNormalization", {}, inputs)
    mask = tf.constant(MASK)
    in_graph = tf.function(
        lambda x: masked_normalization(layer, mask, -1, x),
        input_signature=[tf.TensorSpec((None, None, 6))],
        jit_compile=jit_compile,
    )
    expected = masked_normalization(layer, mask, 2, tf.constant(inputs))
    np.testing.assert_allclose(in_graph(inputs), expected, rtol=1e-5, atol=1e-6)
    assert keras.ops.shape(in_graph(inputs)) == (3, 5, 6)
