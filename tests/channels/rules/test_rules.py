"""Rules of single layers: who has one, who inherits it, and a custom one."""

import keras
import numpy as np
import pytest
from channel_models import check_rule, difference, randomize
from keras import layers

from pdp_keras.channels.rules import base
from pdp_keras.channels.rules.registry import (
    ChannelRule,
    find_rule,
    register_channel_rule,
)
from pdp_keras.channels.trace import find_channels


@pytest.fixture(autouse=True)
def unchanged_table():
    """Registrations of one test are none of another's business."""
    rows = dict(base.RULES)
    yield
    base.RULES.clear()
    base.RULES.update(rows)


class Renamed(layers.Dense):
    """It computes what a Dense computes."""


class Doubled(layers.Dense):
    """It does not."""

    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs)


def test_subclasses_inherit_unless_they_compute_something_else():
    assert find_rule(Renamed) is find_rule(layers.Dense)
    assert find_rule(Doubled) is None
    assert find_rule(keras.layers.Lambda) is None


class Scale(layers.Layer):
    """A layer with weights and a size in its config."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, shape):
        self.factor = self.add_weight(shape=(self.size,), name="factor")

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def trace_scale(call):
    line = call.line(call.first(), -1)
    call.follows("factor", 0, line)
    return call.along_axis(line, -1)


def resize_scale(layer, config, kept):
    return {**config, "size": kept.size("factor", 0)}


def scaled_model(scale=Scale):
    inputs = keras.Input((5, 3))
    x = layers.Dense(6, name="a")(inputs)
    x = scale(6, name="scale")(x)
    return randomize(keras.Model(inputs, layers.Dense(2, name="o")(x)))


def test_a_custom_layer_keeps_its_channels_until_it_has_a_rule():
    model = scaled_model()
    plan = find_channels(model)
    assert plan.groups == ()
    assert {f.path: f.kind for f in plan.fixed} == {"a": "unknown", "o": "output"}
    register_channel_rule(Scale, ChannelRule(trace_scale, resize_scale))
    plan = find_channels(model)
    assert [(g.name, g.size) for g in plan.groups] == [("a", 6)]
    worst, small = difference(model, {"a": np.arange(6) % 2 == 0})
    assert worst <= 1e-4
    assert small.get_layer("scale").size == 3


class ScaleByMean(Scale):
    """It computes on inputs of any width."""

    def call(self, x):
        return x * keras.ops.mean(self.factor)


def test_a_rule_without_resize_is_found_out():
    register_channel_rule(ScaleByMean, ChannelRule(trace_scale))
    with pytest.raises(ValueError, match="see `resize` of its channel rule"):
        difference(scaled_model(ScaleByMean), {"a": np.arange(6) < 2})


def test_labels_must_fit_the_weight():
    def trace(call):
        line = call.line(call.first(), -1)
        call.follows("factor", 0, line[:-1])
        return call.along_axis(line, -1)

    register_channel_rule(Scale, ChannelRule(trace))
    with pytest.raises(ValueError, match="5 labels for axis 0 of 'factor'"):
        find_channels(scaled_model())


@pytest.mark.parametrize("wrong", [int, Scale(3), keras.Model.fit])
def test_only_layer_classes_get_rules(wrong):
    with pytest.raises(TypeError, match="must be a subclass of"):
        register_channel_rule(wrong, ChannelRule(trace_scale))


def test_only_rules_are_registered():
    with pytest.raises(TypeError, match="must be a ChannelRule"):
        register_channel_rule(Scale, trace_scale)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: layers.Conv2D(4, 2, name="x"), {"before": 6, "x": 4}),
        (lambda: layers.Conv2D(6, 2, groups=3, name="x"), {"before": 2, "x": 2}),
        (lambda: layers.Conv2D(6, 2, groups=6, name="x"), {"before": 6}),
        (lambda: layers.Conv2D(12, 2, groups=6, name="x"), {"before": 6}),
        (lambda: layers.Conv2D(3, 2, groups=3, name="x"), {"before": 3}),
        (lambda: layers.Conv2DTranspose(4, 2, name="x"), {"before": 6, "x": 4}),
        (lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), {"before": 6}),
        (
            lambda: layers.SeparableConv2D(4, 2, depth_multiplier=2, name="x"),
            {"before": 6, "x": 4},
        ),
        (lambda: layers.BatchNormalization(), {"before": 6}),
        (lambda: layers.BatchNormalization(axis=1), {}),
        (lambda: layers.LayerNormalization(), {"before": 6}),
        (lambda: layers.LayerNormalization(axis=(1, 2)), {"before": 6}),
        # Keras shapes its weights by the order given and applies them in another.
        (lambda: layers.LayerNormalization(axis=(-1, 1)), {}),
        (lambda: layers.GroupNormalization(3), {"before": 3}),
        (lambda: layers.GroupNormalization(-1), {"before": 6}),
        (lambda: layers.GroupNormalization(1), {}),
        (lambda: layers.UnitNormalization(), {"before": 6}),
        (lambda: layers.PReLU(), {"before": 6}),
        (lambda: layers.PReLU(shared_axes=[1, 2, 3]), {"before": 6}),
        (lambda: layers.Softmax(), {}),
        (lambda: layers.Softmax(axis=1), {"before": 6}),
        (lambda: layers.Activation("gelu"), {"before": 6}),
        (lambda: layers.Activation("softmax"), {}),
        (lambda: layers.Rescaling(2.0, 1.0), {"before": 6}),
        (lambda: layers.UpSampling2D(interpolation="bilinear"), {"before": 6}),
        (lambda: layers.Cropping2D(1), {"before": 6}),
        (lambda: layers.Reshape((16, 6)), {"before": 6}),
        (lambda: layers.Reshape((2, 8, -1)), {"before": 6}),
        (lambda: layers.Reshape((6, 16)), {"before": 2}),
        (lambda: layers.Permute((3, 2, 1)), {"before": 6}),
        (
            lambda: layers.TimeDistributed(layers.Conv1D(4, 2, name="x"), name="t"),
            {"before": 6, "t/x": 4},
        ),
        (
            lambda: layers.TimeDistributed(layers.BatchNormalization()),
            {"before": 6},
        ),
    ],
)
def test_image_layers(build, expected):
    check_rule(build, expected)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: layers.Conv1D(4, 2, name="x"), {"before": 6, "x": 4}),
        (lambda: layers.DepthwiseConv1D(2, name="x"), {"before": 6}),
        (lambda: layers.SeparableConv1D(4, 2, name="x"), {"before": 6, "x": 4}),
        (lambda: layers.Conv1DTranspose(4, 2, name="x"), {"before": 6, "x": 4}),
        (lambda: layers.SimpleRNN(4, name="x"), {"before": 6, "x": 4}),
        (lambda: layers.GRU(4, name="x"), {"before": 6, "x": 4}),
        (lambda: layers.GRU(4, reset_after=False, name="x"), {"before": 6, "x": 4}),
        (lambda: layers.LSTM(4, use_bias=False, name="x"), {"before": 6, "x": 4}),
        (lambda: layers.LSTM(4, activation="softmax", name="x"), {"before": 6}),
        (
            lambda: layers.Bidirectional(layers.GRU(4, name="x"), "mul", name="b"),
            {"before": 6, "b/forward_x": 4},
        ),
        (
            lambda: layers.EinsumDense("abc,cd->abd", (6, 4), name="x"),
            {"before": 6, "x": 4},
        ),
        (
            lambda: layers.EinsumDense("abc,bd->adc", (4, 6), name="x"),
            {"before": 6},
        ),
        (
            lambda: layers.EinsumDense("abc,cd->abcd", (6, 6, 4), name="x"),
            {"x": 4},
        ),
        (lambda: layers.MaxPooling1D(2), {"before": 6}),
        (lambda: layers.ZeroPadding1D(2), {"before": 6}),
    ],
)
def test_sequence_layers(build, expected):
    check_rule(build, expected, (6, 3))
