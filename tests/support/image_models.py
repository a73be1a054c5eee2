"""Small networks on images, for the rewrites and the targets; see `randomized`."""

import keras
import numpy as np
from keras import layers


def inverted(x, filters, strides=1, kernel=3, padding="same", activation="relu6"):
    """A MobileNetV2 block: expand, depthwise, project; a residual where it fits."""
    y = layers.Conv2D(2 * x.shape[-1], 1, use_bias=False)(x)
    y = layers.Activation(activation)(layers.BatchNormalization()(y))
    if padding == "keras":  # As keras.applications pads before a strided convolution.
        side = kernel // 2
        begin = side - 1 if x.shape[1] % 2 == 0 else side
        y = layers.ZeroPadding2D(((begin, side), (begin, side)))(y)
        padding = "valid"
    y = layers.DepthwiseConv2D(kernel, strides, padding, use_bias=False)(y)
    y = layers.Activation(activation)(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False)(y))
    return layers.Add()([x, y]) if x.shape == y.shape else y


def gated(x, keepdims=True):
    """Squeeze-and-excitation as in MobileNetV3, its gate a scaled ReLU6."""
    s = layers.GlobalAveragePooling2D(keepdims=keepdims)(x)
    if not keepdims:
        s = layers.Reshape((1, 1, x.shape[-1]))(s)
    s = layers.Conv2D(4, 1, activation="relu")(s)
    s = layers.Conv2D(x.shape[-1], 1)(s)
    s = layers.ReLU(6.0)(s + 3.0) * (1.0 / 6.0)
    return layers.Multiply()([x, s])


def mobile(size=32, kernel=3, padding="same", head="dense", **arguments):
    """A small MobileNet: stem, blocks with strides, pooled head."""
    inputs = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(
        inputs
    )
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = inverted(x, 8, **arguments)
    x = inverted(x, 16, strides=2, kernel=kernel, padding=padding, **arguments)
    x = inverted(x, 16, **arguments)
    x = layers.Conv2D(32, 1, activation="relu6", name="last")(x)
    return keras.Model(inputs, HEADS[head](x), name="mobile")


def mostly_pointwise(size, blocks):
    """A network whose 1x1 convolutions take most of its time and instructions."""
    inputs = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(32, 3, 2, padding="same", activation="relu")(inputs)
    for _ in range(blocks):
        x = layers.Conv2D(256, 1, activation="relu")(x)
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = layers.Conv2D(64, 1)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def dense_head(x):
    return layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x))


def convolution_head(x):
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(24, 1, activation="hard_swish", name="hidden")(x)
    x = layers.Conv2D(10, 1, name="logits")(layers.Dropout(0.2)(x))
    return layers.Flatten()(x)


def reshaped_head(x):
    x = layers.Reshape((1, 1, x.shape[-1]))(layers.GlobalAveragePooling2D()(x))
    return layers.Reshape((10,))(layers.Conv2D(10, 1, name="logits")(x))


def unpooled_head(x):
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Conv2D(10, 1, name="logits")(x)


def flat_head(x):
    return layers.Dense(10, name="logits")(layers.Flatten()(x))


HEADS = {
    "dense": dense_head,
    "convolutions": convolution_head,
    "reshaped": reshaped_head,
    "unpooled": unpooled_head,
    "flat": flat_head,
    "image": lambda x: layers.Conv2D(3, 1, name="classes")(x),
}


def randomized(model, seed=0):
    """The model with weights by which its output really depends on its input.

    As Keras initializes them, small networks put out nearly the same for every input,
    and any two models compare as equal.
    """
    random = np.random.default_rng(seed)
    for variable in model.variables:
        shape = tuple(variable.shape)
        if len(shape) >= 2:
            depthwise = len(shape) == 4 and shape[-1] == 1
            fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
            values = random.standard_normal(shape) * np.sqrt(2 / fan_in)
        elif "variance" in variable.path or "gamma" in variable.path:
            values = random.uniform(0.5, 1.5, shape)
        elif variable.path.endswith("seed_generator_state"):
            continue
        else:
            values = random.uniform(-0.3, 0.3, shape)
        if "float" in str(variable.dtype):
            variable.assign(values)
    return model


def inputs_of(model, count=3, seed=1):
    """Random inputs in the structure of the model's."""
    random = np.random.default_rng(seed)
    return keras.tree.map_structure(
        lambda x: random.standard_normal((count, *x.shape[1:]), "f4"), model.input
    )


def assert_same(model, other, inputs=None, tolerance=1e-5, other_inputs=None):
    """Two models put out the same, on inputs that really change the output."""
    inputs = inputs_of(model) if inputs is None else inputs
    expected = keras.tree.flatten(model(inputs, training=False))
    got = other(inputs if other_inputs is None else other_inputs, training=False)
    for a, b in zip(expected, keras.tree.flatten(got), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        scale = np.abs(a).max()
        assert np.ptp(a, axis=0).max() > 0.05 * scale, "the output hardly varies"
        assert np.abs(a - b).max() <= tolerance * scale


def zero_pointwise(model, sparsity=0.85):
    """Zeroes the smallest weights of every 1x1 convolution."""
    for layer in model._flatten_layers():
        if type(layer) is layers.Conv2D and layer.kernel_size == (1, 1):
            kernel = layer.kernel.value.numpy()
            order = np.abs(kernel).ravel().argsort()
            kernel.ravel()[order[: round(sparsity * kernel.size)]] = 0
            layer.kernel.assign(kernel)
    return model
