"""BatchNormalization becomes part of what stands before it, and nothing else does."""

import keras
import numpy as np
import pytest
from image_models import assert_same, mobile, randomized
from keras import layers

from pdp_keras.rewrites.normalization import fold_normalization


def normalized(model):
    return [x for x in model.layers if isinstance(x, layers.BatchNormalization)]


KINDS = {
    "dense": ((6,), lambda: layers.Dense(5)),
    "dense without bias": ((6,), lambda: layers.Dense(5, use_bias=False)),
    "conv1d": ((8, 3), lambda: layers.Conv1D(4, 3)),
    "conv2d": ((6, 6, 4), lambda: layers.Conv2D(6, 3, groups=2)),
    "conv3d": ((4, 4, 4, 2), lambda: layers.Conv3D(3, 2)),
    "depthwise": ((6, 6, 3), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "depthwise1d": ((6, 3), lambda: layers.DepthwiseConv1D(3, use_bias=False)),
    "separable": ((6, 6, 3), lambda: layers.SeparableConv2D(4, 3)),
    "transposed": ((4, 4, 3), lambda: layers.Conv2DTranspose(5, 3)),
    "transposed1d": ((4, 3), lambda: layers.Conv1DTranspose(5, 3, use_bias=False)),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("center", "scale"), [(True, True), (False, False)])
def test_every_kind_of_layer(name, center, scale):
    shape, make = KINDS[name]
    inputs = keras.Input(shape)
    x = make()(inputs)
    x = layers.BatchNormalization(center=center, scale=scale, epsilon=0.1)(x)
    model = randomized(keras.Model(inputs, layers.ReLU()(x)))
    folded = fold_normalization(model)
    assert not normalized(folded)
    assert_same(model, folded)


def test_zeros_stay_zeros_and_the_model_stays_as_it_was():
    model = randomized(mobile())
    kernel = model.get_layer("stem").kernel
    kernel.assign(np.where(np.arange(8) % 2, kernel.numpy(), 0))
    before = [v.numpy() for v in model.variables]
    folded = fold_normalization(model)
    assert not normalized(folded)
    assert_same(model, folded)
    np.testing.assert_array_equal(folded.get_layer("stem").kernel[..., ::2], 0)
    assert all(map(np.array_equal, before, [v.numpy() for v in model.variables]))


def chain(*rest, shape=(6, 6, 3)):
    inputs = x = keras.Input(shape)
    for layer in rest:
        x = layer(x)
    return keras.Model(inputs, x)


def read_twice():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 1)(inputs)
    return keras.Model(inputs, layers.Add()([layers.BatchNormalization()(x), x]))


def an_output_too():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 1)(inputs)
    return keras.Model(inputs, [layers.BatchNormalization()(x), x])


def shared_layer():
    inputs = keras.Input((6, 6, 3))
    convolution = layers.Conv2D(3, 1)
    x = layers.BatchNormalization()(convolution(convolution(inputs)))
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "build",
    [
        lambda: chain(
            layers.Conv2D(4, 1, activation="relu"), layers.BatchNormalization()
        ),
        lambda: chain(layers.Conv2D(6, 1), layers.BatchNormalization(axis=1)),
        lambda: chain(layers.ReLU(), layers.BatchNormalization()),
        read_twice,
        an_output_too,
        shared_layer,
    ],
)
def test_what_cannot_be_folded_stays(build):
    model = randomized(build())
    folded = fold_normalization(model)
    assert len(normalized(folded)) == 1
    assert_same(model, folded)


def test_nested_models_become_flat():
    inner = chain(layers.Conv2D(4, 3), layers.BatchNormalization(), shape=(8, 8, 3))
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.ReLU()(inner(inputs)))
    randomized(model)
    folded = fold_normalization(model)
    assert [type(x).__name__ for x in folded.layers] == ["InputLayer", "Conv2D", "ReLU"]
    assert_same(model, folded)


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"must be a built Sequential or Functional"):
        fold_normalization(Subclassed())
