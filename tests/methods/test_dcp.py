"""DCP: the gradients that are noted, and the greedy choice by them."""

import channel_models
import keras
import numpy as np
import pytest
import tensorflow as tf
from channel_conformance import (
    X,
    require_conformance,
    require_resumable,
)
from keras import layers

from pdp_keras import prune_model
from pdp_keras.channels.group import ChannelGroup
from pdp_keras.masks.reading import read
from pdp_keras.masks.units import masked_noting_norms, sum_by_unit
from pdp_keras.methods.dcp import DCP, choose
from pdp_keras.pruned import parts
from pdp_keras.scheduling.moment import Moment
from pdp_keras.scheduling.schedules import LinearRamp


def squared_norms(gradient, axis, unit_of, units):
    """The sum of squares of the slices of each unit, one number after the other."""
    found = np.zeros(units)
    for index in np.ndindex(*gradient.shape):
        unit = unit_of[index[axis]]
        if unit >= 0:
            found[unit] += np.float64(gradient[index]) ** 2
    return found


@pytest.mark.parametrize(
    ("unit_of", "expected"),
    [([0, 1, 2], [1, 2, 4]), ([2, 0, 2], [2, 0, 5]), ([-1, 1, -1], [0, 2, 0])],
)
def test_sums_by_unit(unit_of, expected):
    values = np.float32([1, 2, 4])
    found = sum_by_unit(values, np.array(unit_of), 3)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axis", (0, 1, 2))
def test_the_squared_gradient_of_every_unit_is_noted(axis):
    random = np.random.default_rng(axis)
    shape = (4, 3, 5)
    weights, upstream = random.normal(size=(2, *shape)).astype("float32")
    first = random.integers(-1, 2, shape[axis])
    second = np.where(first < 0, 0, -1)
    notes = [keras.Variable(np.zeros(2)), keras.Variable(np.zeros(1))]
    ones = [1] * 3
    ones[axis] = shape[axis]
    mask = random.integers(0, 2, ones).astype("float32")
    inputs = [tf.constant(weights), tf.constant(mask), *(v.value for v in notes)]
    with tf.GradientTape() as tape:
        tape.watch(inputs[:2])
        pairs = zip(notes, (first, second), strict=True)
        masked = masked_noting_norms(inputs[0], inputs[1], axis, list(pairs))
    np.testing.assert_array_equal(masked, weights * mask)
    of_weights, of_mask, *noted = tape.gradient(masked, inputs, upstream)
    np.testing.assert_array_equal(of_weights, upstream * mask)
    assert not np.any(of_mask)
    for found, unit_of, units in zip(noted, (first, second), (2, 1), strict=True):
        expected = squared_norms(upstream, axis, unit_of, units)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_gradients_of_a_residual_network():
    """Those of the kernels of a plain model whose masked slices are 0."""
    model = channel_models.randomize(channel_models.residual())
    pruned = prune_model(model, 0.5, "channel", method="dcp")
    x = channel_models.inputs_for(model, 4)[0]
    by_label = {group.label: group for group in parts.channel_groups(pruned)}
    by_label["stem"].extras["chosen"].assign([1, 0, 1, 1, 0, 1])
    by_label["stem"].zeros.assign(2)
    for wrapper in parts.find_wrappers(pruned):
        wrapper.is_scheduled = True
    noted = [group.extras["gradient"] for group in by_label.values()]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(pruned(x, training=True)))
    found = tape.gradient(loss, [variable.value for variable in noted])

    kernels = [model.get_layer(name).kernel for name in ("in0", "in1", "o")]
    for kernel in kernels:
        values = kernel.numpy()
        channel = -2 if values.ndim == 4 else 0
        moved = np.moveaxis(values, channel, 0)
        moved[[i for i in range(len(moved)) if i % 6 in (1, 4)]] = 0
        kernel.assign(values)
    kernels += [model.get_layer(name).kernel for name in ("out0", "out1")]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True)))
    gradients = tape.gradient(loss, [kernel.value for kernel in kernels])
    in0, in1, o, out0, out1 = (np.asarray(g) for g in gradients)
    places = np.tile(np.arange(6), o.shape[0] // 6)
    expected = {
        "stem": squared_norms(in0, 2, range(6), 6)
        + squared_norms(in1, 2, range(6), 6)
        + squared_norms(o, 0, places, 6),
        "in0": squared_norms(out0, 2, range(5), 5),
        "in1": squared_norms(out1, 2, range(5), 5),
    }
    for label, values in zip(by_label, found, strict=True):
        np.testing.assert_allclose(values, expected[label], rtol=1e-3, err_msg=label)


def made_group(units, target, gradient, chosen=None):
    group = ChannelGroup("g", units, 1, target_zeros=target, method="dcp")
    group.build()
    group.extras["gradient"].assign(np.float32(gradient))
    if chosen is not None:
        group.extras["chosen"].assign(np.float32(chosen))
        group.zeros.assign(units - sum(chosen))
    return group


G = [1, 5, 3, 5, 2]
# id: target, part of the turn, gradient, chosen before (None: all), chosen then
CHOICES = {
    "one first, of equal ones the first": (2, 0.01, G, None, [0, 1, 0, 0, 0]),
    "not before its time": (2, 0.6, G, [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]),
    "another one": (2, 0.7, G, [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]),
    "several at once": (2, 1.0, G, [0, 0, 0, 0, 1], [0, 1, 0, 1, 1]),
    "all at once": (2, 1.0, G, None, [0, 1, 1, 1, 0]),
    "the choice stands": (2, 1.0, G, [1, 0, 1, 0, 1], [1, 0, 1, 0, 1]),
    "never fewer": (2, 0.1, G, [1, 0, 1, 0, 1], [1, 0, 1, 0, 1]),
    "nothing to leave out": (0, 1.0, G, None, [1, 1, 1, 1, 1]),
    "nothing is known yet": (2, 0.5, [0] * 5, None, [1, 1, 1, 1, 1]),
    "nothing is ever known": (2, 1.0, [0] * 5, None, [1, 1, 1, 0, 0]),
}


@pytest.mark.parametrize(
    ("target", "part", "gradient", "before", "then"), CHOICES.values(), ids=CHOICES
)
def test_choices(target, part, gradient, before, then):
    group = made_group(5, target, gradient, before)
    choose(group, part)
    np.testing.assert_array_equal(group.extras["chosen"], then)
    assert int(group.zeros.numpy()) == 5 - sum(then)
    np.testing.assert_array_equal(group.hard_mask(), then)


def test_when_masks_may_change():
    method, ramp = DCP(), LinearRamp(2, 3)

    def is_due(done):
        return method.is_due(Moment(done, ramp, 10, round(done * 8) - 1, 8))

    assert [is_due(done) for done in (1, 2, 2.125, 4, 5, 5.875, 6, 8)] == [
        *(False, False, True, True, True, True, False, False)
    ]


class Choices(keras.callbacks.Callback):
    """Which channels each group has before and after a step's choice, and why."""

    def on_train_begin(self, logs=None):
        groups = parts.channel_groups(self.model)
        self.groups = {group.label: group for group in groups}
        self.before = self.read("chosen")
        self.taken = []

    def read(self, name):
        return {label: read(g.extras[name]) for label, g in self.groups.items()}

    def on_train_batch_begin(self, batch, logs=None):
        now, gradient = self.read("chosen"), self.read("gradient")
        for label in now:
            if not np.array_equal(now[label], self.before[label]):
                step = label, self.before[label], now[label], gradient[label]
                self.taken.append(step)
        self.before = now


@pytest.mark.slow
def test_groups_are_filled_one_after_the_other_by_their_largest_gradients(tmp_path):
    choices = Choices()
    pruned = require_conformance("dcp", tmp_path, choices)
    order = [label for label, *_ in choices.taken]
    assert order == sorted(order) and set(order) == {"a", "b", "c"}
    for label, before, now, gradient in choices.taken:
        assert gradient.any()
        if before.all():
            before = np.zeros_like(before)  # its turn has come
        assert (now >= before).all(), label
        new = now > before
        left_out = (now == 0) & (before == 0)
        assert gradient[new].min() >= gradient[left_out].max()
    # Four steps for each group: some take two at once.
    for label in "abc":
        sizes = [int(now.sum()) for name, _, now, _ in choices.taken if name == label]
        steps = np.diff([0, *sizes])
        assert len(sizes) > 1 and steps.min() >= 1 and steps.max() <= 2
    # What is noted is no weight of the optimizer, with a momentum.
    names = [variable.path for variable in pruned.optimizer.variables]
    assert names and not any("gradient" in name for name in names)


def test_without_a_graph_it_is_the_gradient_of_the_kernel_that_makes_the_channels():
    """A bias is none of its weights."""

    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(6, name="first")
            self.last = layers.Dense(3, name="last")

        def call(self, x, training=None):
            return self.last(self.first(x))

    model = Mine()
    model(X)
    pruned = prune_model(model, 0.5, "channel", method="dcp", filters="first")
    (group,) = parts.channel_groups(pruned)
    group.is_scheduled = True
    (maker,) = group.makers
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(pruned(X, training=True)))
    variables = [group.extras["gradient"].value, maker.variable.value]
    noted, of_kernel = tape.gradient(loss, variables)
    expected = squared_norms(of_kernel.numpy(), 1, range(6), 6)
    np.testing.assert_allclose(noted, expected, rtol=1e-5)


def test_two_runs_equal_one(tmp_path):
    require_resumable("dcp", tmp_path, epoch=1)  # in the midst of a group


def test_errors():
    with pytest.raises(ValueError, match=r"\['channel'\] only.*mode=NM"):
        prune_model(channel_models.residual(), mode="2:4", method="dcp")
