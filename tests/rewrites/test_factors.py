"""Constant factors go into kernels, if all that read the result can take them."""

import numpy as np
import pytest
from image_models import assert_same, gated, randomized
from keras import Input, Model, layers, ops

from pdp_keras.rewrites.factors import fold_factors


def products(model):
    """How often a tensor is multiplied by a number."""
    return sum(
        type(x).__name__ == "Multiply" and not isinstance(x, layers.Layer)
        for x in model.operations
    )


def through(*rest, factor=0.5, shape=(6, 6, 4)):
    """An image times a number, and layers behind."""
    inputs = Input(shape)
    x = layers.ReLU()(inputs) * factor
    for layer in rest:
        x = layer(x)
    return Model(inputs, x)


def gate():
    inputs = Input((6, 6, 8))
    x = gated(layers.Conv2D(8, 1, activation="relu")(inputs))
    return Model(inputs, layers.Conv2D(5, 1)(x))


def hard_sigmoid_gate():
    inputs = Input((6, 6, 8))
    s = layers.Dense(8)(layers.GlobalAveragePooling2D(keepdims=True)(inputs))
    x = layers.Multiply()([inputs, layers.Activation("hard_sigmoid")(s)])
    return Model(inputs, layers.Conv2D(5, 1)(x))


def two_readers():
    inputs = Input((6, 6, 4))
    x = 3.0 * layers.ReLU()(inputs)
    a = layers.Conv2D(4, 3)(x)
    b = layers.DepthwiseConv2D(3)(layers.Dropout(0.5)(x))
    return Model(inputs, layers.Add()([a, b]))


def two_factors():
    inputs = Input((6, 6, 4))
    x = layers.ReLU()(inputs) * 0.5
    return Model(inputs, layers.Conv2D(3, 1)(layers.MaxPooling2D()(x * 4.0)))


@pytest.mark.parametrize(
    "build",
    [
        gate,
        hard_sigmoid_gate,
        two_readers,
        two_factors,
        lambda: through(layers.Conv2D(3, 3)),
        lambda: through(layers.SeparableConv2D(3, 3)),
        lambda: through(layers.Flatten(), layers.Dense(3)),
        lambda: through(layers.GlobalAveragePooling2D(), layers.Dense(3)),
        lambda: through(layers.ZeroPadding2D(1), layers.Conv2D(3, 3), factor=2),
    ],
)
def test_factors_that_go(build):
    model = randomized(build())
    folded = fold_factors(model)
    assert products(folded) == 0
    assert not any(
        getattr(x, "activation", None) is not None
        and x.activation.__name__ == "hard_sigmoid"
        for x in folded.layers
    )
    assert_same(model, folded)


def to_both():
    inputs = Input((6, 6, 4))
    x = layers.ReLU()(inputs) * 0.5
    return Model(inputs, [layers.Conv2D(3, 1)(x), x])


def added():
    inputs = Input((6, 6, 4))
    x = layers.ReLU()(inputs) * 0.5
    return Model(inputs, layers.Conv2D(3, 1)(layers.Add()([x, inputs])))


def squared():
    inputs = Input((6, 6, 4))
    x = layers.ReLU()(inputs) * 0.5
    return Model(inputs, layers.Conv2D(3, 1)(layers.Multiply()([x, x])))


def shared():
    inputs = Input((6, 6, 4))
    convolution = layers.Conv2D(4, 1)
    return Model(inputs, convolution(convolution(layers.ReLU()(inputs) * 0.5)))


@pytest.mark.parametrize(
    "build",
    [
        to_both,
        added,
        squared,
        shared,
        lambda: through(layers.ReLU(6.0), layers.Conv2D(3, 1)),
        lambda: through(layers.Conv2D(3, 1), factor=-1.0),
        lambda: through(layers.Softmax()),
        lambda: through(layers.LayerNormalization(), layers.Conv2D(3, 1)),
    ],
)
def test_factors_that_stay(build):
    model = randomized(build())
    folded = fold_factors(model)
    assert products(folded) == 1
    assert_same(model, folded, tolerance=0)


def test_the_kernel_takes_the_factor_and_the_bias_does_not():
    model = randomized(through(layers.Conv2D(3, 1, name="last"), factor=0.25))
    old, new = (m.get_layer("last").get_weights() for m in (model, fold_factors(model)))
    np.testing.assert_array_equal(new[0], 0.25 * old[0])
    np.testing.assert_array_equal(new[1], old[1])


def test_a_tensor_is_no_factor():
    inputs = Input((6, 6, 4))
    x = ops.multiply(inputs, ops.sigmoid(inputs))
    model = randomized(Model(inputs, layers.Conv2D(3, 1)(x)))
    folded = fold_factors(model)
    assert products(folded) == 1
    assert_same(model, folded, tolerance=0)
