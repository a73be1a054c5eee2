"""Small models that several test files prune."""

import keras
import numpy as np
from keras import layers


def cnn():
    """Conv, BatchNormalization, a residual, a nested model and two Dense layers."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    branch = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    x = layers.Add(name="add")([x, branch])
    x = layers.Flatten(name="flatten")(x)
    nested = keras.Sequential(
        [keras.Input((512,)), layers.Dense(12, activation="relu", name="hidden")],
        name="nested",
    )
    return keras.Model(inputs, layers.Dense(10, name="logits")(nested(x)), name="cnn")


def mlp(inputs=6, hidden=20, outputs=3, **arguments):
    """Two Dense layers; the arguments go to the first one."""
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(hidden, activation="relu", name="first", **arguments),
            layers.Dense(outputs, name="last"),
        ],
        name="mlp",
    )


@keras.saving.register_keras_serializable("pdp_keras_tests")
class TransformerBlock(layers.Layer):
    """Attention and a feed-forward part in a list, without a `build` of its own."""

    def __init__(self, size=8, rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.rate = rate
        self.attention = layers.MultiHeadAttention(2, size // 2)
        self.feed_forward = [layers.Dense(16, activation="relu"), layers.Dense(size)]
        self.norm = layers.LayerNormalization()
        self.dropout = layers.Dropout(rate)

    def call(self, inputs, training=None):
        outputs = self.norm(inputs + self.attention(inputs, inputs))
        for layer in self.feed_forward:
            outputs = layer(outputs)
        return inputs + self.dropout(outputs, training=training)

    def get_config(self):
        return {**super().get_config(), "size": self.size, "rate": self.rate}


@keras.saving.register_keras_serializable("pdp_keras_tests")
class Encoder(keras.Model):
    """A subclassed model with layers in a list and a dict, and its own train_step.

    Its constructor takes nothing, as most people write it.
    """

    def __init__(self):
        super().__init__()
        self.blocks = [TransformerBlock(name="first"), TransformerBlock(name="second")]
        self.heads = {"main": layers.Dense(3, name="head")}
        self.stem = keras.Sequential([layers.Dense(8, name="project")], name="stem")
        self.steps = keras.metrics.Sum(name="own_steps")

    def call(self, inputs, training=None):
        x = self.stem(inputs)
        for block in self.blocks:
            x = block(x, training=training)
        return self.heads["main"](x)

    def train_step(self, *args, **kwargs):
        logs = super().train_step(*args, **kwargs)
        self.steps.update_state(1.0)
        return {**logs, "own_steps": self.steps.result()}


@keras.saving.register_keras_serializable("pdp_keras_tests")
class Autoencoder(keras.Model):
    """Calls its parts one by one in `train_step`, as generative models do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = keras.Sequential(
            [keras.Input((6,)), layers.Dense(4, name="code")], name="encoder"
        )
        self.decoder = layers.Dense(6, name="decode")

    def call(self, inputs):
        return self.decoder(self.encoder(inputs))

    def train_step(self, data):
        import tensorflow as tf

        inputs, _ = data
        with tf.GradientTape() as tape:
            outputs = self.decoder(self.encoder(inputs, training=True), training=True)
            loss = keras.ops.mean(keras.ops.square(outputs - inputs))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def random_inputs(model, batch=16, seed=0):
    """Standard normal values for every input of a graph model."""
    generator = np.random.default_rng(seed)
    arrays = [
        generator.normal(size=(batch, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]
    return arrays if len(arrays) > 1 else arrays[0]


def set_zeros(model, fraction=1.0):
    """Prunes every weight or channel group to this fraction of its target."""
    from pdp_keras.pruned import parts as state

    state.fix_targets(model)
    for part in state.pruned_parts(model):
        part.zeros.assign(round(fraction * int(part.target_zeros.numpy())))
    for wrapper in state.find_wrappers(model):
        wrapper.is_scheduled = True
