"""A model of every kind that can be pruned, with inputs for it."""

import keras
import models
import numpy as np
from keras import layers


def shared():
    """One Dense called on two inputs, and a nested model used twice."""
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    dense = layers.Dense(5, name="dense")
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(2, name="small")], name="inner"
    )
    outputs = {
        "difference": layers.Subtract()([dense(left), dense(right)]),
        "sum": inner(dense(left)) + inner(dense(right)) * 2.0,
    }
    return keras.Model({"left": left, "right": right}, outputs, name="shared")


def two_in_two_out():
    a, b = keras.Input((4,), name="a"), keras.Input((6,), name="b")
    x = layers.Concatenate()([layers.Dense(3)(a), layers.Dense(3)(b)])
    heads = [layers.Dense(2, name="first")(x), layers.Dense(1, name="second")(x)]
    return keras.Model([a, b], heads)


def recurrent():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(11, 6, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    x = layers.RNN([layers.GRUCell(4), layers.SimpleRNNCell(3)])(x)
    return keras.Model(inputs, layers.Dense(2)(x))


def attention():
    inputs = keras.Input((4, 8))
    x = models.TransformerBlock(name="block")(inputs)
    x = layers.GroupQueryAttention(4, 4, 2, name="grouped")(x, x)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))


class OwnStep(keras.Model):
    """The guide's way to a custom training step: a Functional constructor."""

    def train_step(self, *args, **kwargs):
        return {**super().train_step(*args, **kwargs), "own": 1.0}


def own_step():
    inputs = keras.Input((4,))
    return OwnStep(inputs, layers.Dense(2)(layers.Dense(8)(inputs)), name="own_step")


def encoder():
    model = models.Encoder()
    model(np.zeros((1, 4, 8), "float32"))
    return model


def autoencoder():
    model = models.Autoencoder()
    model(np.zeros((1, 6), "float32"))
    return model


def inputs_for(model):
    if isinstance(model, models.Encoder):
        return np.random.default_rng(1).normal(size=(8, 4, 8)).astype("float32")
    if isinstance(model, models.Autoencoder):
        return np.random.default_rng(1).normal(size=(8, 6)).astype("float32")
    if model.inputs[0].dtype == "int32":
        return np.random.default_rng(1).integers(0, 11, size=(8, 5))
    arrays = models.random_inputs(model, 8)
    if not isinstance(model, keras.Sequential) and isinstance(model.input, dict):
        return dict(zip(model.input, arrays, strict=True))
    return arrays


MODELS = {
    "sequential": models.mlp,
    "functional": models.cnn,
    "shared layers and nested models": shared,
    "several inputs and outputs": two_in_two_out,
    "recurrent layers": recurrent,
    "attention": attention,
    "custom train_step": own_step,
    "subclassed": encoder,
    "subclassed, called in parts": autoencoder,
}


def flat(outputs):
    return [np.asarray(x) for x in keras.tree.flatten(outputs)]


class Unconfigurable(keras.Model):
    """Its constructor needs a layer, and it does not say how to save it."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def call(self, inputs):
        return self.head(inputs)
