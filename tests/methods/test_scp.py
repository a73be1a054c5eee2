"""SCP: what shuts a channel, the mask that is drawn from it, and the loss."""

import dataclasses
import math

import channel_models
import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from channel_conformance import (
    network,
    pruned_network,
    require_conformance,
)
from keras import layers
from models import set_zeros

from pdp_keras import prune_model, strip_pruning
from pdp_keras.channels.group import ChannelGroup, Gate, Maker
from pdp_keras.methods.scp import SCP, off_probability
from pdp_keras.pruned import parts


def normal_distribution(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def made_group(gates, units, zeros=0, kernel=None):
    """A group with gates given as (beta, gamma or None, unit of each channel)."""
    group = ChannelGroup("g", units, 1, gates=len(gates), method="scp")
    group.build()
    kernel = keras.Variable(np.ones((2, units)) if kernel is None else kernel)
    group.add_maker(Maker("layer/kernel", kernel, 1, np.arange(units)))
    for number, (beta, gamma, unit_of) in enumerate(gates):
        unit_of = np.arange(units) if unit_of is None else np.array(unit_of)
        shift = keras.Variable(np.float32(beta))
        scale = None if gamma is None else keras.Variable(np.float32(gamma))
        group.add_gate(Gate(f"norm{number}/beta", shift, scale, unit_of))
    group.zeros.assign(zeros)
    return group


ONE, TWO = normal_distribution(-1), normal_distribution(-2)
# id: gates, units, probability of being off
PROBABILITIES = {
    "in the middle": ([([0.0, 0.0], [1.0, 5.0], None)], 2, [0.5, 0.5]),
    "sign of beta": ([([-1.0, 1.0], [1.0, 1.0], None)], 2, [1 - ONE, ONE]),
    "sign of gamma": ([([-1.0, 1.0], [-1.0, -1.0], None)], 2, [1 - ONE, ONE]),
    "in units of gamma": ([([4.0, 1.0], [2.0, 0.5], None)], 2, [TWO, TWO]),
    "no gamma": ([([1.0, 2.0], None, None)], 2, [ONE, TWO]),
    "no width": ([([-0.1, 0.1, 0.0], [0.0] * 3, None)], 3, [1, 0, 0.5]),
    "several gates": (
        [([1.0, 2.0], None, None), ([2.0, 0.0], None, None)],
        2,
        [ONE * TWO, TWO / 2],
    ),
    "several channels": (
        [([1.0, 2.0, 0.0, 7.0], None, [0, 1, 0, -1])],
        2,
        [ONE / 2, TWO],
    ),
}


@pytest.mark.parametrize(
    ("gates", "units", "expected"), PROBABILITIES.values(), ids=PROBABILITIES
)
def test_probabilities(gates, units, expected):
    group = made_group(gates, units)
    found = off_probability(group)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(group.scores(), 1 - np.array(expected), atol=2e-6)


BETA, GAMMA = [0.3, -0.8, 1.5, -0.1], [0.5, -1.2, 2.0, 0.7]


@pytest.mark.parametrize("zeros", (1, 2, 3))
def test_the_mask_in_training_and_its_gradient(zeros):
    group = made_group([(BETA, GAMMA, None)], 4, zeros)
    changed = SCP(softness=0.8, sharpness=1.5)
    group.settings = dataclasses.replace(group.settings, method=changed)
    group.temperature_scale.assign(0.5)
    noise = np.float32([0.4, -1.0, 2.0, 0.0])
    group.extras["noise"].assign(noise)
    (gate,) = group.gates
    variables = [gate.shift.value, gate.scale.value]
    upstream = np.float32([1, -2, 3, 0.5])
    with tf.GradientTape() as tape:
        mask = group.mask(training=True)
    found = tape.gradient(mask, variables, upstream)

    pairs = list(zip(BETA, GAMMA, strict=True))
    off = [normal_distribution(-b / abs(g)) for b, g in pairs]
    odds = [math.log((1 - p) / p) for p in off]
    limit = sum(sorted(odds)[zeros - 1 : zeros + 1]) / 2
    k = 1.5 / 0.5 / np.mean([abs(o - limit) for o in odds])
    for i, (b, g) in enumerate(pairs):
        m = float(reference.sigmoid((k * (odds[i] - limit) + noise[i]) / 0.8))
        density = math.exp(-((b / g) ** 2) / 2) / math.sqrt(2 * math.pi)
        of_odds = upstream[i] * m * (1 - m) * k / 0.8
        of_p = -of_odds / (off[i] * (1 - off[i]))
        of_beta, of_gamma = density * -1 / abs(g), density * b / g**2 * np.sign(g)
        np.testing.assert_allclose(mask[i], m, rtol=1e-3)
        np.testing.assert_allclose(found[0][i], of_p * of_beta, rtol=2e-3)
        np.testing.assert_allclose(found[1][i], of_p * of_gamma, rtol=2e-3)


def test_the_noise_decides_where_the_odds_do_not():
    """At softness 0 a channel is on with the probability sigmoid(k (o - t))."""
    beta = np.float32([-0.5, 0.0, 0.5, 1.0])
    group = made_group([(np.repeat(beta, 1000), None, None)], 4000, zeros=2000)
    method = SCP(softness=1e-3, sharpness=1.0)
    method.start_call(group)
    on = np.reshape(method.channel_mask(group), (4, 1000)) > 0.5
    off = np.array([normal_distribution(-b) for b in beta])
    odds = np.log((1 - off) / off)
    distance = odds - (odds[1] + odds[2]) / 2
    expected = reference.sigmoid(distance / np.abs(distance).mean())
    np.testing.assert_allclose(on.mean(1), expected, atol=0.06)


def test_untrained_normalizations_have_finite_gradients():
    group = made_group([([0.0] * 4, [1.0] * 4, None)], 4, zeros=2)
    (gate,) = group.gates
    with tf.GradientTape() as tape:
        mask = group.mask(training=True)
    np.testing.assert_allclose(mask, [0.5] * 4)
    # m (1 - m) / softness, over the width 0.1 / 10, times the slope of the odds.
    slope = 0.25 / 0.5 / 0.01 * 4 / math.sqrt(2 * math.pi)
    gradient = tape.gradient(mask, gate.shift.value)
    np.testing.assert_allclose(gradient, [slope] * 4, rtol=1e-4)


def test_nothing_is_masked_and_nothing_lost_before_pruning():
    group = made_group([(BETA, GAMMA, None)], 4)
    assert float(group.method.start_call(group)) == 0
    np.testing.assert_array_equal(group.mask(training=True), np.ones(4))


# zeros: the hard mask; the most probably off go first.
HARD = {1: [1, 0, 1, 1], 2: [1, 0, 1, 0], 3: [0, 0, 1, 0]}


@pytest.mark.parametrize(("zeros", "mask"), HARD.items())
def test_the_hard_mask_and_the_loss_that_draws_to_it(zeros, mask):
    group = made_group([(BETA, GAMMA, None)], 4, zeros)
    np.testing.assert_array_equal(group.mask(training=False), mask)
    np.testing.assert_array_equal(group.kept(), np.array(mask, bool))
    loss = 0.0
    for b, g, m in zip(BETA, GAMMA, mask, strict=True):
        p = normal_distribution(-b / abs(g))
        loss += p if m else 1 - p
    found = SCP(force=3.0).start_call(group)
    np.testing.assert_allclose(found, 3 * loss, rtol=1e-5)
    (gate,) = group.gates
    with tf.GradientTape() as tape:
        lost = group.method.start_call(group)
    slope = tape.gradient(lost, gate.shift.value)
    np.testing.assert_array_equal(np.sign(slope), 1 - 2 * np.array(mask))


def test_a_group_without_gates_is_pruned_by_its_norm():
    group = made_group([], 3, 1, kernel=np.float32([[2, 1, 3]] * 2))
    np.testing.assert_array_equal(group.scores(), group.norms())
    for training in (False, True):
        np.testing.assert_array_equal(group.mask(training), [1, 0, 1])


def test_rankings_of_both_kinds_are_about_1():
    gated = [
        made_group([([0.0, 1.0], None, None)], 2),
        made_group([([0.5], None, None)], 1),
    ]
    plain = made_group([], 3, 1, kernel=np.float32([[2, 1, 3]] * 2))
    found = SCP().rankings([gated[0], plain, gated[1]])
    on = np.array([0.5, 1 - ONE, normal_distribution(0.5)])
    np.testing.assert_allclose(found[0], on[:2] / on.mean(), rtol=1e-5)
    np.testing.assert_allclose(found[2], on[2:] / on.mean(), rtol=1e-5)
    np.testing.assert_array_equal(found[1], plain.norms())


def with_behind(behind, **arguments):
    """A network in which something follows a BatchNormalization."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="a")(inputs)
    x = behind(layers.BatchNormalization(**arguments)(x))
    return keras.Model(inputs, layers.Dense(3, name="o")(x))


def several_readers(x):
    return layers.Add()([layers.ReLU()(x), x])


# What follows; how many gates the channels have.
BEHIND = {
    "ReLU": (layers.ReLU(), 1),
    "ReLU6": (layers.ReLU(6.0), 1),
    "Activation": (layers.Activation("relu"), 1),
    "Activation relu6": (layers.Activation("relu6"), 1),
    "operation": (keras.ops.relu, 1),
    "two ReLUs": (lambda x: layers.ReLU()(x) + layers.ReLU(6.0)(x), 1),
    "leaky": (layers.ReLU(negative_slope=0.1), 0),
    "threshold": (layers.ReLU(threshold=1.0), 0),
    "another activation": (layers.Activation("silu"), 0),
    "nothing": (lambda x: x, 0),
    "not directly": (lambda x: layers.ReLU()(layers.Dropout(0.1)(x)), 0),
    "not only": (several_readers, 0),
}


@pytest.mark.parametrize(("behind", "gates"), BEHIND.values(), ids=BEHIND)
def test_what_is_a_gate(behind, gates):
    model = with_behind(behind)
    if not gates:
        with pytest.raises(ValueError, match=r"directly in front of a ReLU.*without"):
            prune_model(model, 0.5, "channel", method="scp")
        return
    pruned = prune_model(model, 0.5, "channel", method="scp")
    (group,) = parts.channel_groups(pruned)
    assert len(group.gates) == gates
    norm = next(x for x in pruned.layers if "batch" in x.name).layer
    assert group.gates[0].shift is norm.beta and group.gates[0].scale is norm.gamma


def test_a_normalization_needs_a_shift_and_no_scale():
    with pytest.raises(ValueError, match="directly in front of a ReLU"):
        model = with_behind(layers.ReLU(), center=False)
        prune_model(model, 0.5, "channel", method="scp")
    model = with_behind(layers.ReLU(), scale=False)
    pruned = prune_model(model, 0.5, "channel", method="scp")
    assert parts.channel_groups(pruned)[0].gates[0].scale is None


# Groups with their gates: what passes another normalization too has none.
GATES = {
    "residual": {"stem": 0, "in0": 1, "in1": 1},
    "dense_block": {"c0": 2, "c1": 1, "c2": 0, "t": 0},
    "inverted_residual": {"stem": 0, "expand": 1, "squeeze": 0},
    "nested_twice": {"a": 1},
}


@pytest.mark.parametrize(("name", "gates"), GATES.items())
def test_gates_of_architectures(name, gates):
    model = channel_models.randomize(channel_models.ARCHITECTURES[name]())
    pruned = prune_model(model, 0.5, "channel", method="scp")
    groups = parts.channel_groups(pruned)
    assert {group.label: len(group.gates) for group in groups} == gates


def test_a_normalization_of_several_groups_is_made_smaller():
    model = channel_models.randomize(channel_models.dense_block())
    pruned = prune_model(model, 0.5, "channel", method="scp")
    set_zeros(pruned)
    inputs = channel_models.inputs_for(model)
    small = strip_pruning(pruned)
    assert small.count_params() < model.count_params()
    expected = channel_models.run(pruned, inputs)
    for x, y in zip(channel_models.run(small, inputs), expected, strict=True):
        assert np.abs(x - y).max() <= 1e-4 * np.abs(y).max()


def test_a_group_with_an_open_branch_has_no_gates():
    """What is added before its ReLU is not shut by another branch's."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="a")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.BatchNormalization()(layers.Dense(8, name="b")(x))
    x = layers.ReLU()(layers.Add()([x, y]))
    z = layers.ReLU()(layers.BatchNormalization()(layers.Dense(5, name="c")(x)))
    model = keras.Model(inputs, layers.Dense(3)(z))
    pruned = prune_model(model, 0.5, "channel", method="scp")
    groups = parts.channel_groups(pruned)
    assert {group.label: len(group.gates) for group in groups} == {"a": 0, "c": 1}


@pytest.mark.parametrize("method", ["pdp", "gmp", "nisp", "dcp"])
def test_other_methods_leave_normalizations_alone(method):
    pruned = prune_model(network(), 0.5, "channel", method=method)
    assert isinstance(pruned.get_layer("na"), layers.BatchNormalization)


def test_the_loss_is_added_once_a_step():
    pruned = pruned_network("scp")
    for group in parts.channel_groups(pruned):
        group.zeros.assign(2)
        group.is_scheduled = True
    x = np.zeros((2, 6), "float32")
    pruned(x)
    assert not pruned.losses
    pruned(x, training=True)
    assert len(pruned.losses) == 2
    noise = [np.array(g.extras["noise"]) for g in parts.channel_groups(pruned)]
    pruned(x, training=True)
    for group, before in zip(parts.channel_groups(pruned), noise, strict=True):
        assert bool(np.any(group.extras["noise"] != before)) == bool(group.gates)


def test_the_loss_alone_separates_the_channels():
    group = made_group([(BETA, GAMMA, None)], 4, zeros=2)
    (gate,) = group.gates
    optimizer = keras.optimizers.SGD(3.0)
    for _ in range(15):
        with tf.GradientTape() as tape:
            loss = SCP(force=1.0).start_call(group)
        gradient = tape.gradient(loss, gate.shift.value)
        optimizer.apply([gradient], [gate.shift])
    np.testing.assert_allclose(off_probability(group), [0, 1, 0, 1], atol=0.02)


def test_conformance(tmp_path):
    require_conformance("scp", tmp_path)


def test_a_group_without_all_of_its_gates_is_an_error():
    group = ChannelGroup("stem", 4, 1, gates=2, method="scp")
    group.build()
    with pytest.raises(ValueError, match=r"'stem' with 0 of 2 normalizations"):
        group.scores()


@pytest.mark.parametrize("name", ["force", "softness", "sharpness"])
@pytest.mark.parametrize("value", [0, -1.0, math.inf])
def test_arguments(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive.*{name}={value}"):
        SCP(**{name: value})
