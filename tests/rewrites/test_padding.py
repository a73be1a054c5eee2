"""Strided convolutions get the same padding on every side where that is the same."""

import numpy as np
import pytest
from image_models import assert_same, mobile, randomized
from keras import Input, Model, layers

from pdp_keras.rewrites import half_turn, pad_symmetrically


def strided(size, layer, before=None):
    inputs = x = Input((size, size, 3))
    if before is not None:
        x = layers.ZeroPadding2D(before)(x)
    return randomized(Model(inputs, layers.GlobalMaxPooling2D()(layer(x))))


def paddings(model):
    """The margins of every ZeroPadding2D, and the padding of every convolution."""
    return [
        x.padding for x in model.layers if hasattr(x, "padding") and x.padding != "same"
    ]


ONE, TWO = ((1, 1), (1, 1)), ((2, 2), (2, 2))


@pytest.mark.parametrize(
    ("size", "layer", "before", "expected"),
    [
        (7, lambda: layers.Conv2D(4, 3, 2, "same"), None, [ONE, "valid"]),
        (7, lambda: layers.DepthwiseConv2D(5, 2, "same"), None, [TWO, "valid"]),
        (7, lambda: layers.SeparableConv2D(4, 3, 2, "same"), None, [ONE, "valid"]),
        # As PyTorch pads, on odd and even sizes.
        (8, lambda: layers.Conv2D(4, 3, 2), 1, [ONE, "valid"]),
        (7, lambda: layers.Conv2D(4, 3, 2), 1, [ONE, "valid"]),
        # The last zero is not read, and so it may be there.
        (8, lambda: layers.Conv2D(4, 3, 2), ((1, 0), (1, 0)), [ONE, "valid"]),
        (8, lambda: layers.Conv2D(4, 5, 2), ((2, 1), (2, 2)), [TWO, "valid"]),
        # Nothing in front: only the half turn helps.
        (8, lambda: layers.Conv2D(4, 3, 2, "same"), None, []),
        (8, lambda: layers.Conv2D(4, 3, 2), ((0, 1), (0, 1)), None),
        (8, lambda: layers.Conv2D(4, 3, 2), None, None),
        (8, lambda: layers.Conv2D(4, 2, 2, "same"), None, []),
        # No stride, nothing to do.
        (8, lambda: layers.Conv2D(4, 3, padding="same"), None, []),
    ],
)
def test_one_layer(size, layer, before, expected):
    model = strided(size, layer(), before)
    padded = pad_symmetrically(model)
    assert paddings(padded) == (paddings(model) if expected is None else expected)
    assert_same(model, padded, tolerance=0)


@pytest.mark.parametrize("padding", ["same", "keras"])
@pytest.mark.parametrize(("size", "kernel"), [(32, 3), (32, 5), (30, 3), (33, 5)])
def test_after_a_half_turn_every_stride_is_symmetric(padding, size, kernel):
    model = randomized(mobile(size=size, kernel=kernel, padding=padding))
    padded = pad_symmetrically(half_turn(model))
    assert_same(model, padded)
    strides = [x for x in padded.layers if max(getattr(x, "strides", (1,))) > 1]
    assert [x.padding for x in strides] == ["valid", "valid"]
    zeros = [x.padding for x in padded.layers if isinstance(x, layers.ZeroPadding2D)]
    assert zeros == [ONE, {3: ONE, 5: TWO}[kernel]]


def test_a_padding_that_others_read_stays():
    inputs = Input((8, 8, 3))
    x = layers.ZeroPadding2D(1)(inputs)
    y = layers.Conv2D(4, 3, 2)(x)
    model = randomized(
        Model(inputs, [layers.Flatten()(y), layers.GlobalMaxPooling2D()(x)])
    )
    padded = pad_symmetrically(model)
    assert paddings(padded) == [ONE, "valid"]
    assert_same(model, padded, tolerance=0)


def test_the_kernels_stay_as_they_are():
    model = randomized(mobile(size=31))
    padded = pad_symmetrically(model)
    for old, new in zip(model.weights, padded.weights, strict=True):
        np.testing.assert_array_equal(old, new)
