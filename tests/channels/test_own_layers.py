"""Weightless layers of somebody's own: those that act on each value need no rule."""

import channel_models
import keras
import numpy as np
import pytest
from keras import layers, ops

from pdp_keras import prune_model, sparsity_report, strip_pruning
from pdp_keras.channels.own_layers import passes_channels_on


class Own(layers.Layer):
    """Calls a function that stands in its class."""


def layer_that(function):
    kind = type("Own", (Own,), {"call": lambda self, x: function(x)})
    return kind()


PASSES = {
    "scale": lambda x: 2.0 * x + 1,
    "activation": lambda x: x * ops.relu6(x + 3.0) / 6.0,
    "clip": lambda x: ops.clip(x, -1.0, 1.0),
    "itself": lambda x: x,
    "softplus": lambda x: x * ops.tanh(ops.softplus(x)),
}
DOES_NOT = {
    "softmax": lambda x: ops.softmax(x),
    "mean": lambda x: x - ops.mean(x, -1, keepdims=True),
    "flip": lambda x: ops.flip(x, -1),
    "slice": lambda x: x[..., :4],
    "reshape": lambda x: ops.reshape(x, (-1, 8)),
    "array": lambda x: x * np.arange(8, dtype="float32"),
    "list": lambda x: ops.multiply(x, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
    "where": lambda x: ops.where([True] * 8, x, 0.0),
    "two outputs": lambda x: (x, x),
    "fails": lambda x: x.no_such_attribute,
    "no tensor": lambda x: 3,
}


@pytest.mark.parametrize("function", PASSES.values(), ids=PASSES)
def test_what_passes_channels_on(function):
    assert passes_channels_on(layer_that(function), (None, 8))


@pytest.mark.parametrize("function", DOES_NOT.values(), ids=DOES_NOT)
def test_what_does_not(function):
    assert not passes_channels_on(layer_that(function), (None, 8))


def test_a_layer_with_weights_or_layers_does_not():
    own = layer_that(lambda x: x)
    own.add_weight(shape=(), name="scale")
    assert not passes_channels_on(own, (None, 8))
    own = layer_that(lambda x: x)
    own.inner = layers.ReLU()
    assert not passes_channels_on(own, (None, 8))


@keras.saving.register_keras_serializable("pdp_keras_tests")
class Mish(layers.Layer):
    def call(self, x):
        return x * ops.tanh(ops.softplus(x))


def test_channels_behind_an_activation_of_ones_own_are_removed():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(8), Mish(), layers.Dense(3)]
    )
    channel_models.randomize(model)
    pruned = prune_model(model, 0.5, "channel", allocation="uniform")
    assert [row.kept_as_zeros for row in sparsity_report(pruned).rows] == ["", ""]
    for weight in pruned.layers[0].groups:
        weight.zeros.assign(4)
    small = strip_pruning(pruned)
    assert small.layers[0].units == 4
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    np.testing.assert_allclose(small(x), pruned(x), rtol=1e-5, atol=1e-6)
