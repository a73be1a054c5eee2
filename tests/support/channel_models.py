"""Models whose channels are coupled in every way, and a check of a removal."""

import operator

import keras
import numpy as np
from keras import layers, ops

from pdp_keras.channels.surgery import remove_channels
from pdp_keras.channels.trace import find_channels
from pdp_keras.models.graph import rebuild_graph
from pdp_keras.models.variables import copy_variables


def randomize(model, seed=0):
    """He-like random kernels; nonzero values for everything else."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" not in variable.dtype:
            continue
        shape = tuple(variable.shape)
        if "variance" in variable.path or variable.name == "moving_variance":
            value = generator.uniform(0.5, 1.5, shape)
        elif variable.name in ("gamma", "scale"):
            value = generator.uniform(0.7, 1.3, shape)
        elif len(shape) < 2 or variable.name == "bias":
            value = generator.normal(0.0, 0.3, shape)
        else:
            fan_in = max(1, int(np.prod(shape[:-1])))
            if "depthwise" in variable.name or "depthwise" in variable.path:
                fan_in = int(np.prod(shape[:-2]))
            value = generator.normal(0.0, np.sqrt(2.0 / fan_in), shape)
        variable.assign(value.astype(variable.dtype))
    return model


def random_keep(plan, seed=0, fraction=0.5):
    """For each group about this fraction of its units, one at least."""
    generator = np.random.default_rng(seed)
    keep = {}
    for group in plan.groups:
        mask = generator.uniform(size=group.size) < fraction
        mask[generator.integers(group.size)] = True
        keep[group.name] = mask
    return keep


def alive_along(slot, plan, keep):
    """Which places along a slot's axis are kept."""
    names = [group.name for group in plan.groups]
    return np.array(
        [
            group < 0 or names[group] not in keep or bool(keep[names[group]][unit])
            for group, unit in zip(slot.group_of, slot.unit_of, strict=True)
        ]
    )


class LivingStatistics(layers.Layer):
    """A NumPy normalization with statistics over the places in a mask only."""

    def __init__(self, normalization, alive, **kwargs):
        super().__init__(**kwargs)
        self.normalization = type(normalization).__name__
        self.axis = normalization.axis
        self.epsilon = getattr(normalization, "epsilon", 0.0)
        self.scale = read(getattr(normalization, "gamma", None), 1.0)
        self.scale = read(getattr(normalization, "scale", None), self.scale)
        self.shift = read(getattr(normalization, "beta", None), 0.0)
        self.alive = alive

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        x = keras.ops.convert_to_numpy(x).astype("float64")
        axis = tuple(self.axis) if isinstance(self.axis, list) else self.axis
        living = x[..., self.alive]
        if self.normalization == "LayerNormalization":
            mean = living.mean(axis, keepdims=True)
            variance = living.var(axis, keepdims=True)
            x = (x - mean) / np.sqrt(variance + self.epsilon)
        elif self.normalization == "RMSNormalization":
            x = x / np.sqrt((living**2).mean(axis, keepdims=True) + self.epsilon)
        else:
            x = x / np.sqrt((living**2).sum(axis, keepdims=True))
        return keras.ops.convert_to_tensor((x * self.scale + self.shift), "float32")


def read(variable, default):
    """A variable's values; the default for what is no variable."""
    if not isinstance(variable, keras.Variable):
        return default
    return keras.ops.convert_to_numpy(variable).astype("float64")


def with_dead_channels(model, plan, keep):
    """A copy in which nothing is read from the channels that are not kept.

    Layers that normalize across channels take statistics of those that are kept.
    """
    values, living = {}, {}
    for slot in plan.slots:
        alive = alive_along(slot, plan, keep)
        if slot.role == "normalizes" and not alive.all():
            living[id(slot.layer)] = alive
        if slot.role != "reads":
            continue
        variable = operator.attrgetter(slot.weight)(slot.layer)
        value = values.setdefault(
            id(variable), keras.ops.convert_to_numpy(variable).copy()
        )
        np.moveaxis(value, slot.axis, 0)[~alive] = 0.0

    def replace(old, new):
        if id(old) in living:
            return LivingStatistics(old, living[id(old)], name=old.name)
        return new

    def copy_state(old, new):
        if not isinstance(new, LivingStatistics):
            copy_variables(old, new, values)

    return rebuild_graph(model, replace, copy_state)


def inputs_for(model, batch=2, seed=1):
    generator = np.random.default_rng(seed)
    values = []
    for x in model.inputs:
        shape = (batch, *(5 if size is None else size for size in x.shape[1:]))
        if "int" in x.dtype:
            values.append(generator.integers(0, 5, shape).astype(x.dtype))
        else:
            values.append(generator.normal(size=shape).astype(x.dtype))
    return values


def run(model, inputs):
    if len(inputs) > 1:
        packed = keras.tree.pack_sequence_as(model.input, inputs)
    else:
        (packed,) = inputs
    outputs = keras.tree.flatten(model(packed))
    return [np.asarray(keras.ops.convert_to_numpy(x), "float64") for x in outputs]


def difference(model, keep, seed=1):
    """The largest difference from the removal, relative to the outputs' scale."""
    small = remove_channels(model, keep)
    inputs = inputs_for(model, seed=seed)
    expected = run(with_dead_channels(model, find_channels(model), keep), inputs)
    actual = run(small, inputs)
    worst = 0.0
    for x, y in zip(expected, actual, strict=True):
        assert x.shape == y.shape
        assert np.isfinite(x).all()
        worst = max(worst, np.abs(x - y).max() / max(np.abs(x).max(), 1e-30))
    return worst, small


# Small models by name, each with the couplings that its name says.
ARCHITECTURES = {}


def architecture(build):
    ARCHITECTURES[build.__name__] = build
    return build


@architecture
def residual():
    x = i = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(x)
    for k in range(2):
        y = layers.Conv2D(5, 3, padding="same", name=f"in{k}")(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        x = layers.Add()([x, layers.Conv2D(6, 1, name=f"out{k}")(y)])
    return keras.Model(i, layers.Dense(3, name="o")(layers.Flatten()(x)))


@architecture
def dense_block():
    x = i = keras.Input((8, 8, 3))
    for k in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(4, 3, padding="same", name=f"c{k}")(y)
        x = layers.Concatenate()([x, y])
    x = layers.AveragePooling2D(2)(x)
    x = layers.Conv2D(6, 1, name="t")(x)
    return keras.Model(i, layers.Dense(3, name="o")(layers.GlobalAveragePooling2D()(x)))


@architecture
def inverted_residual():
    x = i = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="stem")(x)
    y = layers.Conv2D(8, 1, name="expand")(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.ZeroPadding2D()(y)
    y = layers.DepthwiseConv2D(3, name="depthwise")(y)
    s = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(y))
    s = layers.Conv2D(2, 1, activation="relu", name="squeeze")(s)
    s = layers.Conv2D(8, 1, activation="hard_sigmoid", name="excite")(s)
    y = layers.Multiply()([y, s])
    y = layers.Conv2D(4, 1, name="project")(y)
    x = layers.Add()([x, y])
    return keras.Model(i, layers.Dense(3, name="o")(layers.Flatten()(x)))


@architecture
def inception():
    i, j = keras.Input((8, 8, 3)), keras.Input((8, 8, 2))
    x = layers.Concatenate()([i, j])
    x = layers.Conv2D(6, 1, name="stem")(x)
    branches = [
        layers.Conv2D(4, 1, name="b0")(x),
        layers.Conv2D(3, 3, padding="same", name="b1")(
            layers.Conv2D(5, 1, name="b1_in")(x)
        ),
        layers.MaxPooling2D(3, 1, padding="same")(x),
    ]
    x = layers.UpSampling2D()(layers.Concatenate()(branches))
    y = layers.Cropping2D(2)(x)
    return keras.Model(
        [i, j],
        {
            "a": layers.Conv2D(2, 1, name="o")(y),
            "b": layers.Dense(3, name="p")(layers.GlobalMaxPooling2D()(x)),
        },
    )


@keras.saving.register_keras_serializable("pdp_keras_tests")
class Doubling(layers.Layer):
    def call(self, x):
        # Turned over and back: nobody can know that every channel stays in its place.
        return ops.flip(ops.flip(x * 2.0, -1), -1)


@architecture
def unknown_layer():
    x = i = keras.Input((8,))
    x = layers.Dense(6, name="a")(x)
    x = layers.Dense(5, name="b")(Doubling()(x))
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def shuffle():
    x = i = keras.Input((4, 4, 3))
    x = layers.Conv2D(12, 1, name="a")(x)
    x = layers.Reshape((4, 4, 3, 4))(x)
    x = layers.Permute((1, 2, 4, 3))(x)
    x = layers.Reshape((4, 4, 12))(x)
    x = layers.Conv2D(12, 3, groups=3, name="g")(x)
    x = layers.Flatten()(x)
    return keras.Model(i, layers.Dense(3, name="out")(x))


@architecture
def shuffle_depthwise():
    x = i = keras.Input((4, 4, 3))
    x = layers.Conv2D(12, 1, name="a")(x)
    x = layers.Reshape((4, 4, 3, 4))(x)
    x = layers.Permute((1, 2, 4, 3))(x)
    x = layers.Reshape((4, 4, 12))(x)
    x = layers.DepthwiseConv2D(3, name="g")(x)
    x = layers.Flatten()(x)
    return keras.Model(i, layers.Dense(3, name="out")(x))


@architecture
def grouped():
    x = i = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 1, name="a")(x)
    x = layers.Conv2D(4, 3, groups=4, name="g")(x)
    x = layers.Conv2D(8, 1, groups=2, name="h")(x)
    x = layers.Conv2D(8, 1, groups=8, name="k")(x)
    x = layers.Flatten()(x)
    return keras.Model(i, layers.Dense(3, name="out")(x))


@architecture
def splits_and_slices():
    x = i = keras.Input((8,))
    x = layers.Dense(12, name="a")(x)
    a, b = keras.ops.split(x, 2, axis=-1)
    c = x[:, ::2]
    d = x[:, 3:9]
    y = layers.Concatenate()([layers.Dense(4, name="d1")(a), keras.ops.relu(b)])
    z = layers.Dense(5, name="d2")(c) + layers.Dense(5, name="d3")(d)
    return keras.Model(i, [layers.Dense(3, name="o")(y), layers.Dense(2, name="p")(z)])


@architecture
def packed_heads():
    x = i = keras.Input((6, 8))
    q = layers.Dense(12, name="qkv")(x)
    q = keras.ops.reshape(q, (-1, 6, 3, 2, 2))
    q = keras.ops.transpose(q, (2, 0, 3, 1, 4))
    q, k, v = q[0], q[1], q[2]
    a = keras.ops.softmax(
        keras.ops.matmul(q, keras.ops.transpose(k, (0, 1, 3, 2))) * 0.5
    )
    y = keras.ops.matmul(a, v)
    y = keras.ops.reshape(keras.ops.transpose(y, (0, 2, 1, 3)), (-1, 6, 4))
    return keras.Model(i, layers.Dense(3, name="o")(y))


@architecture
def einsum_heads():
    x = i = keras.Input((6, 8))
    s = [keras.ops.reshape(layers.Dense(8, name=n)(x), (-1, 6, 4, 2)) for n in "qkv"]
    a = keras.ops.softmax(keras.ops.einsum("bthd,bshd->bhts", s[0], s[1]))
    y = keras.ops.einsum("bhts,bshd->bthd", a, s[2])
    return keras.Model(i, layers.Dense(3, name="o")(keras.ops.reshape(y, (-1, 6, 8))))


@architecture
def mha():
    x = i = keras.Input((6, 8))
    x = layers.Dense(10, name="e")(x)
    y = layers.MultiHeadAttention(4, 3, name="mha")(x, x)
    x = layers.Add()([x, y])
    y = layers.Dense(16, activation="gelu", name="f1")(x)
    y = layers.Dense(10, name="f2")(y)
    x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def gqa():
    x = i = keras.Input((6, 8))
    x = layers.Dense(10, name="e")(x)
    y = layers.GroupQueryAttention(3, 4, 2, name="gqa")(x, x)
    x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def recurrent():
    x = i = keras.Input((6, 8))
    x = layers.LSTM(6, return_sequences=True, name="l")(x)
    x = layers.GRU(5, return_sequences=True, name="g")(x)
    x = layers.GRU(5, return_sequences=True, name="g2", reset_after=False)(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="b")(x)
    x = layers.TimeDistributed(layers.Dense(7), name="td")(x)
    x, h = layers.SimpleRNN(4, return_state=True, name="s")(x)
    return keras.Model(i, layers.Dense(3, name="o")(layers.Concatenate()([x, h])))


@architecture
def recurrent_states():
    x = i = keras.Input((6, 8))
    x, h, c = layers.LSTM(6, return_state=True, return_sequences=True, name="l")(x)
    x = layers.LSTM(6, name="m")(x, initial_state=[h, c])
    x = layers.Bidirectional(layers.GRU(4), merge_mode="sum", name="b")(
        layers.RepeatVector(4)(x)
    )
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def nested_twice():
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 6)),
            layers.Conv2D(6, 3, padding="same", name="c"),
            layers.BatchNormalization(name="n"),
            layers.ReLU(),
        ],
        name="inner",
    )
    x = i = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="a")(x)
    y = inner(x)
    z = inner(layers.Conv2D(6, 1, name="b")(y))
    x = layers.Add()([x, z])
    return keras.Model(i, layers.Dense(3, name="o")(layers.GlobalMaxPooling2D()(x)))


@architecture
def nested_outputs():
    j = keras.Input((4, 4, 6))
    y = layers.Conv2D(5, 3, padding="same", name="c")(j)
    inner = keras.Model(j, [y, layers.Conv2D(6, 1, name="d")(y)], name="inner")
    x = i = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="a")(x)
    y, z = inner(x)
    z = layers.Multiply()(
        [
            z,
            layers.Dense(6, activation="sigmoid", name="se2")(
                layers.Dense(3, name="se1")(
                    layers.GlobalAveragePooling2D(keepdims=True)(z)
                )
            ),
        ]
    )
    return keras.Model(
        i,
        [
            layers.Dense(3, name="o")(layers.Flatten()(z)),
            layers.Dense(3, name="o2")(layers.Flatten()(y)),
        ],
    )


@architecture
def einsum_dense():
    x = i = keras.Input((6, 8))
    x = layers.Dense(10, name="e")(x)
    x = layers.EinsumDense(
        "abc,cde->abde", output_shape=(None, 4, 3), bias_axes="de", name="h"
    )(x)
    x = layers.EinsumDense(
        "abde,def->abf", output_shape=(None, 7), bias_axes="f", name="c"
    )(x)
    x = layers.EinsumDense("...x,xy->...y", output_shape=5, bias_axes="y", name="d")(x)
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def channel_layers():
    x = i = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 1, name="a")(x)
    x = layers.GroupNormalization(4, name="gn")(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.Conv2DTranspose(6, 2, name="t")(x)
    x = layers.PReLU()(x)
    x = layers.SeparableConv2D(7, 2, depth_multiplier=2, name="s")(x)
    x = layers.DepthwiseConv2D(2, depth_multiplier=3, name="dw")(x)
    x = layers.LayerNormalization(axis=[1, 2])(x)
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def mixer():
    x = i = keras.Input((6, 8))
    x = layers.Dense(10, name="e")(x)
    y = layers.Permute((2, 1))(x)
    y = layers.Dense(12, activation="gelu", name="t1")(y)
    y = layers.Dense(6, name="t2")(y)
    x = x + layers.Permute((2, 1))(y)
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def mixing_layers():
    x = i = keras.Input((8,))
    x = layers.Dense(10, name="e")(x)
    y = layers.Masking()(x)
    x = layers.Dense(4, activation="softmax", name="f")(y)
    x = layers.Dense(4, name="g", activation="softmax")(x)
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def gates_and_padding():
    x = i = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="a")(x)
    s = layers.Conv2D(1, 1, name="sp")(x)
    x = x * keras.ops.sigmoid(s)
    m = keras.ops.mean(x, axis=-1, keepdims=True)
    x = layers.Conv2D(6, 1, name="b")(x)
    x = x + m
    x = keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]])
    y = layers.Conv2D(9, 1, name="c")(layers.Conv2D(5, 1, name="d")(x))
    x = layers.Add()([x, y])
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def embedding():
    i = keras.Input((7,), dtype="int32")
    x = layers.Embedding(20, 8, name="emb", mask_zero=True)(i)
    x = layers.LSTM(5, name="l")(x)
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def sequential():
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Conv2D(6, 3, name="a"),
            layers.BatchNormalization(),
            layers.Conv2D(4, 1, name="b"),
            layers.Flatten(),
            layers.Dense(5, activation="relu", name="c"),
            layers.Dense(2, name="o"),
        ],
        name="seq",
    )


@architecture
def shared_dense():
    d = layers.Dense(6, name="shared")
    i = keras.Input((8,))
    a = layers.Dense(6, name="a")(i)
    b = d(a)
    c = d(b)
    return keras.Model(i, layers.Dense(3, name="o")(c))


@architecture
def layer_normalizations():
    x = i = keras.Input((6, 8))
    x = layers.Dense(10, name="e")(x)
    x = layers.LayerNormalization(name="ln")(x)
    y = layers.Dense(12, name="f")(x)
    y = layers.UnitNormalization()(y)
    y = layers.Dense(10, name="g")(y)
    x = layers.Add()([x, y])
    x = layers.RMSNormalization()(x)
    x = layers.LayerNormalization(scale=False, center=False)(x)
    x = layers.Flatten()(x)
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def channels_first_flatten():
    j = keras.Input((8, 4, 4))
    x = layers.Flatten(data_format="channels_first")(
        layers.Permute((3, 1, 2))(layers.Conv2D(4, 1, name="a")(j))
    )
    return keras.Model(j, layers.Dense(2, name="o")(x))


@architecture
def group_normalizations():
    x = i = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 1, name="a")(x)
    x = layers.GroupNormalization(8, name="gn")(x)
    x = layers.Conv2D(8, 1, name="b")(x)
    x = layers.GroupNormalization(-1)(x)
    x = layers.Conv2D(6, 1, name="c")(x)
    x = layers.GroupNormalization(1)(x)
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def slices():
    x = i = keras.Input((12,))
    x = layers.Dense(12, name="a")(x)
    x = layers.Dense(13, name="b", activation="relu")(x)
    y = x[:, 1::3]
    z = x[:, -5:]
    w = x[:, 3]
    v = x[..., None, 2:8]
    v = keras.ops.squeeze(v, 1)
    r = x[:, ::-1]
    return keras.Model(
        i,
        layers.Dense(3, name="o")(
            layers.Concatenate()([y, z, keras.ops.expand_dims(w, -1), v, r])
        ),
    )


@architecture
def class_token():
    x = i = keras.Input((6, 8))
    x = layers.Dense(10, name="e")(x)
    c = layers.Dense(10, name="cls")(x[:, :1])
    x = layers.Concatenate(axis=1)([c, x])
    x = x + np.ones((1, 7, 1), "float32")
    t = x[:, 0]
    return keras.Model(i, layers.Dense(3, name="o")(t))


@architecture
def constants():
    x = i = keras.Input((8,))
    x = layers.Dense(10, name="e")(x)
    x = x * np.arange(10, dtype="float32")
    x = layers.Dense(6, name="g")(x)
    x = keras.ops.clip(x, -1, 1)
    x = keras.ops.maximum(x, keras.ops.mean(x, axis=0, keepdims=True))
    return keras.Model(i, layers.Dense(3, name="o")(x))


@architecture
def unknown_length():
    i = keras.Input((None, 8))
    x = layers.Dense(12, name="e")(i)
    y = layers.Reshape((-1, 3, 4))(x)
    y = layers.Permute((1, 3, 2))(y)
    y = layers.Reshape((-1, 12))(y)
    x = x + y
    y = layers.Conv1D(6, 3, padding="causal", name="c")(x)
    z = layers.Reshape((6, -1))(layers.Conv1D(6, 1, name="d")(x))
    z = layers.GlobalAveragePooling1D()(layers.Permute((2, 1))(z))
    return keras.Model(
        i, [layers.Dense(3, name="o")(layers.GlobalMaxPooling1D()(y)), z]
    )


@architecture
def outer_product():
    i = keras.Input((6, 8))
    x = layers.Dense(5, name="a")(i)
    y = layers.Dense(7, name="b")(i)
    z = keras.ops.expand_dims(x, -1) * keras.ops.expand_dims(y, -2)
    z = keras.ops.reshape(z, (-1, 6, 35))
    u = keras.ops.einsum("bti,btj->bij", x, y)
    return keras.Model(
        i,
        [layers.Dense(3, name="o")(z), layers.Dense(3, name="p")(layers.Flatten()(u))],
    )


@architecture
def vision_transformer():
    x = i = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 4, strides=4, name="patch")(x)
    x = layers.Reshape((4, 12))(x)
    y = layers.LayerNormalization()(x)
    y = layers.MultiHeadAttention(3, 4, name="mha", use_bias=False)(y, y)
    x = x + y
    y = layers.LayerNormalization()(x)
    y = layers.Dense(20, activation="gelu", name="f1")(y)
    x = x + layers.Dense(12, name="f2")(y)
    return keras.Model(
        i, layers.Dense(3, name="o")(layers.LayerNormalization()(x)[:, 0])
    )


@architecture
def cross_attention():
    i = keras.Input((6, 8))
    j = keras.Input((5, 7))
    q = layers.Dense(10, name="q")(i)
    k = layers.Dense(9, name="k")(j)
    v = layers.Dense(8, name="v")(j)
    y, s = layers.MultiHeadAttention(4, 3, value_dim=2, output_shape=5, name="mha")(
        q, v, k, return_attention_scores=True
    )
    return keras.Model(
        [i, j], [layers.Dense(3, name="o")(y), keras.ops.mean(s, axis=1)]
    )


@architecture
def shared_reshape():
    r = layers.Reshape((4, 3))
    i = keras.Input((8,))
    a = r(layers.Dense(12, name="a")(i))
    b = r(layers.Dense(12, name="b")(i))
    return keras.Model(
        i,
        [
            layers.Dense(3, name="o")(layers.Flatten()(a)),
            layers.Dense(3, name="p")(layers.GlobalMaxPooling1D()(b)),
        ],
    )


def check_rule(build, expected, shape=(4, 4, 3)):
    """Removes half of the channels before and after a layer."""
    inputs = keras.Input(shape)
    x = layers.Dense(6, name="before")(inputs)
    x = build()(x)
    x = layers.Dense(2, name="after")(layers.Flatten()(x))
    model = randomize(keras.Model(inputs, x))
    plan = find_channels(model)
    assert {g.name: g.size for g in plan.groups} == expected
    for seed in range(3):
        keep = {
            g.name: np.random.default_rng(seed).permutation(g.size) < (g.size + 1) // 2
            for g in plan.groups
        }
        assert difference(model, keep)[0] <= 1e-4
