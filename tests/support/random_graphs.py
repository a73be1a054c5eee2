"""Random Functional models, for property tests: images of 4 x 4, any channels."""

import keras
from hypothesis import strategies as st
from keras import layers


def convolve(draw, x, width):
    return layers.Conv2D(width, 1, activation="relu")(x)


def depthwise(draw, x, width):
    multiplier = draw(st.integers(1, 2))
    return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(x)


def grouped(draw, x, width):
    channels = x.shape[-1]
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 4) if channels % g == 0]))
    return layers.Conv2D(groups * draw(st.integers(1, 2)), 1, groups=groups)(x)


def shuffle(draw, x, width):
    channels = x.shape[-1]
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    x = layers.Reshape((4, 4, groups, channels // groups))(x)
    return layers.Reshape((4, 4, channels))(layers.Permute((1, 2, 4, 3))(x))


def normalize(draw, x, width):
    return layers.BatchNormalization()(x)


def group_normalize(draw, x, width):
    channels = x.shape[-1]
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 4) if channels % g == 0]))
    return layers.GroupNormalization(groups)(x)


def layer_normalize(draw, x, width):
    return layers.LayerNormalization()(x)


def squeeze(draw, x, width):
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, layers.Dense(x.shape[-1], activation="tanh")(s)])


def cut(draw, x, width):
    start = draw(st.integers(0, x.shape[-1] - 1))
    step = draw(st.sampled_from([1, 1, 2, 3]))
    return x[..., start::step]


def halves(draw, x, width):
    if x.shape[-1] < 2:
        return x
    a, b = keras.ops.split(x, [draw(st.integers(1, x.shape[-1] - 1))], axis=-1)
    return layers.Concatenate()([b, keras.ops.sigmoid(a), a])


def mix_places(draw, x, width):
    x = layers.Permute((3, 1, 2))(x)
    x = layers.Dense(4)(x)
    return layers.Permute((2, 3, 1))(x)


def pad(draw, x, width):
    return keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 0]])


STEPS = [
    convolve,
    convolve,
    depthwise,
    grouped,
    shuffle,
    normalize,
    group_normalize,
    layer_normalize,
    squeeze,
    cut,
    halves,
    mix_places,
    pad,
]


def random_graph(draw):
    """A model of random steps and merges; every tensor is a 4 x 4 image."""
    inputs = keras.Input((4, 4, 3))
    tensors = [layers.Conv2D(draw(st.integers(2, 6)), 1)(inputs)]
    shared = layers.Conv2D(4, 1)
    for _ in range(draw(st.integers(2, 7))):
        x = draw(st.sampled_from(tensors))
        kind = draw(
            st.sampled_from(["step", "step", "step", "merge", "join", "shared"])
        )
        if kind == "step":
            x = draw(st.sampled_from(STEPS))(draw, x, draw(st.integers(1, 6)))
        elif kind == "shared":
            # One layer on several inputs, made equally wide.
            x = shared(layers.Conv2D(5, 1)(x))
        elif kind == "join":
            x = layers.Concatenate()([x, draw(st.sampled_from(tensors))])
        else:
            same = [y for y in tensors if y.shape == x.shape or y.shape[-1] == 1]
            merge = draw(st.sampled_from([layers.Add, layers.Multiply, layers.Maximum]))
            x = merge()([x, draw(st.sampled_from(same))]) if same else x
        tensors.append(x)
    x = tensors[-1]
    ends = draw(st.integers(0, 2))
    if ends == 0:
        x = layers.Flatten()(x)
    elif ends == 1:
        x = layers.GlobalMaxPooling2D()(x)
    outputs = [layers.Dense(3)(x)]
    if draw(st.booleans()):
        outputs.append(draw(st.sampled_from(tensors)))
    return keras.Model(inputs, outputs)
