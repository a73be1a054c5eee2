"""Heads of 1x1 convolutions become Dense layers; gates stay what they are."""

import keras
import pytest
from image_models import assert_same, gated, mobile, randomized
from keras import Input, Model, layers

from pdp_keras.rewrites.head import pool_to_vectors


def kinds(model, *classes):
    return [x.name for x in model.layers if type(x) in classes]


@pytest.mark.parametrize(
    ("head", "dense"),
    [
        ("convolutions", ["hidden", "logits"]),
        ("reshaped", ["logits"]),
        ("unpooled", ["logits"]),
    ],
)
def test_heads_of_convolutions(head, dense):
    model = randomized(mobile(head=head))
    vectors = pool_to_vectors(model)
    assert kinds(vectors, layers.Dense) == dense
    assert vectors.output_shape == model.output_shape
    assert_same(model, vectors)


def test_a_dense_head_stays():
    model = randomized(mobile(head="dense"))
    vectors = pool_to_vectors(model)
    assert [type(x) for x in vectors.layers] == [type(x) for x in model.layers]
    assert_same(model, vectors, tolerance=0)


def pooled(*rest):
    inputs = Input((6, 6, 4))
    x = layers.GlobalAveragePooling2D(keepdims=True)(inputs)
    for layer in rest:
        x = layer(x)
    return Model(inputs, x)


@keras.saving.register_keras_serializable("pdp_keras_tests")
def add_sizes(x):
    """An activation of one's own that looks at the shape."""
    return x + float(len(x.shape))


@pytest.mark.parametrize(
    "build",
    [
        # Without a convolution there is nothing to gain.
        lambda: pooled(layers.ReLU(), layers.Flatten()),
        lambda: pooled(layers.Conv2D(4, 1, groups=2), layers.Flatten()),
        lambda: pooled(layers.Conv2D(4, 3, padding="same"), layers.Flatten()),
        lambda: pooled(layers.Conv2D(4, 1), layers.UpSampling2D(2)),
        lambda: pooled(layers.Conv2D(4, 1, activation=add_sizes), layers.Flatten()),
        lambda: pooled(layers.Conv2D(4, 1), layers.LayerNormalization(axis=[1, 2, 3])),
    ],
)
def test_other_heads_stay(build):
    model = randomized(build())
    vectors = pool_to_vectors(model)
    assert not kinds(vectors, layers.Dense)
    assert_same(model, vectors, tolerance=0)


@pytest.mark.parametrize("keepdims", [True, False])
def test_a_gate_stays(keepdims):
    inputs = Input((6, 6, 8))
    x = gated(layers.Conv2D(8, 1)(inputs), keepdims)
    model = randomized(Model(inputs, layers.GlobalAveragePooling2D()(x)))
    vectors = pool_to_vectors(model)
    assert not kinds(vectors, layers.Dense)
    assert_same(model, vectors, tolerance=0)


def test_a_convolution_that_is_called_elsewhere_stays():
    convolution = layers.Conv2D(4, 1, name="shared")
    inputs = Input((6, 6, 4))
    x = convolution(inputs)
    x = convolution(layers.GlobalAveragePooling2D(keepdims=True)(x))
    model = randomized(Model(inputs, layers.Flatten()(x)))
    vectors = pool_to_vectors(model)
    assert kinds(vectors, layers.Conv2D) == ["shared"]
    assert_same(model, vectors, tolerance=0)
