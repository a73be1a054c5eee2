"""A network on turned images puts out the same: every layer, size and padding."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_models import assert_same, inputs_of, mobile, randomized
from keras import layers, ops

from pdp_keras.rewrites.turn import half_turn


def flips(model):
    """How often images are turned on the way."""
    return sum(type(x).__name__ == "Flip" for x in model.operations)


def on_image(*rest, shape=(9, 8, 3)):
    inputs = x = keras.Input(shape)
    for layer in rest:
        x = layer(x)
    return keras.Model(inputs, x)


@keras.saving.register_keras_serializable("pdp_keras_tests")
def sum_rows(x):
    return ops.cumsum(x, axis=1)


# Layers that can be computed on turned images: turned once and back once.
TURNED = {
    "valid": lambda: layers.Conv2D(4, 3),
    "same": lambda: layers.Conv2D(4, 3, padding="same"),
    "even window": lambda: layers.Conv2D(4, 2, padding="same"),
    "strided": lambda: layers.Conv2D(4, 3, strides=2, padding="same"),
    "strided valid": lambda: layers.Conv2D(4, 3, strides=2),
    "strided 1x1": lambda: layers.Conv2D(4, 1, strides=2),
    "stride 3": lambda: layers.Conv2D(4, 3, strides=3, padding="same"),
    "dilated": lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
    "grouped": lambda: layers.Conv2D(6, (3, 5), groups=3, padding="same"),
    "depthwise": lambda: layers.DepthwiseConv2D(5, 2, padding="same"),
    "multiplied": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "separable": lambda: layers.SeparableConv2D(4, 3, strides=2, padding="same"),
    "padding": lambda: layers.ZeroPadding2D(((0, 1), (2, 3))),
    "cropping": lambda: layers.Cropping2D(((0, 1), (2, 3))),
    "normalization": lambda: layers.BatchNormalization(),
    "layer normalization": lambda: layers.LayerNormalization(),
    "group normalization": lambda: layers.GroupNormalization(3),
    "activation": lambda: layers.Activation("hard_swish"),
    "prelu": lambda: layers.PReLU(),
    "shared prelu": lambda: layers.PReLU(shared_axes=[1, 2]),
    "dense": lambda: layers.Dense(4),
    "upsampling": lambda: layers.UpSampling2D(2),
    "bilinear": lambda: layers.UpSampling2D((2, 3), interpolation="bilinear"),
    "pooling": lambda: layers.MaxPooling2D((3, 2)),
    "same pooling": lambda: layers.AveragePooling2D(3, 1, padding="same"),
    "softmax": lambda: layers.Softmax(),
    "rescaling": lambda: layers.Rescaling([1.0, 2.0, 3.0], offset=0.5),
    "dropout": lambda: layers.SpatialDropout2D(0.5),
}
# Layers that are given the image as it was.
TURNED_BACK = {
    "transposed": lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
    "flatten": lambda: layers.Flatten(),
    "permute": lambda: layers.Permute((2, 1, 3)),
    "pooling with a rest": lambda: layers.MaxPooling2D(2),
    "same pooling": lambda: layers.MaxPooling2D(3, 2, padding="same"),
    "rows": lambda: layers.Softmax(axis=1),
    "row norm": lambda: layers.LayerNormalization(axis=[1, 3]),
    "lambda": lambda: layers.Lambda(sum_rows),
    "function": lambda: layers.Activation(sum_rows),
    "cubic": lambda: layers.UpSampling2D(2, interpolation="bicubic"),
}


@pytest.mark.parametrize("name", TURNED)
def test_layers_that_turn(name):
    model = randomized(on_image(TURNED[name]()))
    turned = half_turn(model)
    assert flips(turned) == 2
    assert_same(model, turned)
    # Without a flip the same layers would be wrong: these inputs can tell.
    x = inputs_of(model)
    bare = half_turn(model, turn_inputs=False)
    assert not np.allclose(bare(x), model(x), atol=0.05)


@pytest.mark.parametrize("name", TURNED_BACK)
def test_other_layers_get_the_image_turned_back(name):
    model = randomized(on_image(layers.Conv2D(3, 3, name="first"), TURNED_BACK[name]()))
    turned = half_turn(model)
    assert flips(turned) == 2
    assert_same(model, turned)


@pytest.mark.parametrize("head", ["dense", "convolutions", "flat", "image"])
@pytest.mark.parametrize("size", [32, 33])
def test_whole_networks(head, size):
    model = randomized(mobile(size=size, head=head))
    turned = half_turn(model)
    assert flips(turned) == (1 if head in ("dense", "convolutions") else 2)
    assert_same(model, turned)


BEHIND = {
    "same": lambda: [layers.Conv2D(4, 3, 2, padding="same")],
    "padded": lambda: [layers.ZeroPadding2D(((0, 1), (0, 1))), layers.Conv2D(4, 3, 2)],
    "depthwise": lambda: [layers.DepthwiseConv2D(5, 2, padding="same")],
}


@pytest.mark.parametrize("turn_inputs", [True, False])
@pytest.mark.parametrize("name", BEHIND)
def test_the_turn_begins_behind_a_layer_that_does_not_turn(name, turn_inputs):
    """As with a network behind a layer that resizes its images."""
    rest = [layers.Rescaling(2.0), *BEHIND[name](), layers.GlobalMaxPooling2D()]
    model = randomized(on_image(layers.Resizing(12, 16), *rest))
    turned = half_turn(model, turn_inputs=turn_inputs)
    # The caller's turning is undone first.
    assert flips(turned) == (1 if turn_inputs else 2)
    x = inputs_of(model)
    other = x if turn_inputs else x[:, ::-1, ::-1]
    assert_same(model, turned, x, other_inputs=other)


@pytest.mark.parametrize(
    "rest",
    [
        lambda: [layers.Conv2D(4, 3, padding="same")],
        lambda: [layers.Conv2D(4, 3, 2, padding="same")],  # of an odd size: symmetric
        lambda: [layers.ZeroPadding2D(1), layers.Conv2D(4, 3, 2)],
    ],
)
def test_no_turn_begins_without_need(rest):
    model = randomized(on_image(layers.Resizing(11, 13), *rest()))
    turned = half_turn(model)
    assert flips(turned) == 0
    assert_same(model, turned)


def test_the_caller_may_turn():
    model = randomized(mobile())
    turned = half_turn(model, turn_inputs=False)
    assert flips(turned) == 0
    x = inputs_of(model)
    assert_same(model, turned, x, other_inputs=x[:, ::-1, ::-1])


def merges():
    """Two images and a vector, sums, products and a concatenation of them."""
    first = keras.Input((8, 8, 3), name="first")
    second = keras.Input((8, 8, 3), name="second")
    vector = keras.Input((3,), name="vector")
    x = layers.Conv2D(3, 3, padding="same")(first)
    x = layers.Add()([x, second * 2.0])
    x = layers.Multiply()([x, layers.Reshape((1, 1, 3))(vector)])
    x = layers.Concatenate()([x, ops.relu(first) - second])
    x = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    return keras.Model([first, second, vector], layers.GlobalMaxPooling2D()(x))


def half_known():
    """A branch that must be turned back meets one that need not be."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    y = layers.Conv2DTranspose(4, 3, padding="same")(x)
    y = layers.Conv2D(4, 3, padding="same")(y)
    return keras.Model(inputs, layers.Add()([x, y]))


def columns():
    """A vector that Keras matches with the columns of an image."""
    inputs = keras.Input((4, 3, 3))
    vector = layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, inputs + vector[0])


def shared():
    """One layer for two sizes, once behind a layer that knows directions."""
    inputs = keras.Input((8, 8, 3))
    convolution = layers.Conv2D(3, 3, strides=2, padding="same")
    x = convolution(convolution(inputs))
    y = convolution(layers.Conv2DTranspose(3, 3, padding="same")(inputs))
    pool = layers.GlobalAveragePooling2D()
    return keras.Model(inputs, [pool(x), pool(y)])


def structured():
    inputs = {"a": keras.Input((6, 6, 2), name="a"), "b": keras.Input((5,), name="b")}
    x = layers.Conv2D(3, 3)(inputs["a"])
    outputs = {"image": x, "vector": layers.Dense(3)(inputs["b"])}
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("build", [merges, half_known, columns, shared, structured])
def test_graphs(build):
    model = randomized(build())
    turned = half_turn(model)
    assert_same(model, turned)
    assert turned.input_shape == model.input_shape


@settings(max_examples=12)
@given(st.data())
def test_any_chain_of_convolutions(data):
    keras.utils.clear_session()
    inputs = x = keras.Input((data.draw(st.integers(9, 14)), 12, 2))
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["conv", "depthwise", "pad", "shared", "add"]))
        size, stride = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
        padding = data.draw(st.sampled_from(["same", "valid"]))
        if min(x.shape[1:3]) < 4:
            break
        if kind == "conv":
            x = layers.Conv2D(2, size, strides=stride, padding=padding)(x)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(size, stride, padding)(x)
        elif kind == "pad":
            x = layers.ZeroPadding2D(((stride, 0), (0, size)))(x)
        elif kind == "shared":
            layer = layers.Conv2D(2, size, padding=padding)
            x = layer(layer(x))
        else:
            x = layers.Add()([x, layers.Conv2D(2, size, padding="same")(x)])
    model = randomized(keras.Model(inputs, x))
    expected, got = (np.asarray(m(inputs_of(model))) for m in (model, half_turn(model)))
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_a_wrong_turn_is_caught(monkeypatch):
    """The check would not pass a network whose kernels were not turned."""
    from pdp_keras.rewrites import turn

    def unturned(turning, call, tensors):
        return call.applied(turning.copies.of(call.operation), tensors)

    monkeypatch.setitem(turn._TURNS, layers.DepthwiseConv2D, unturned)
    model = randomized(mobile())
    with pytest.raises(AssertionError):
        assert_same(model, half_turn(model))


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"must be a built Sequential or Functional"):
        half_turn(Subclassed())
