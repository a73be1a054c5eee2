"""ChannelGroup: scores of units, their masks, and the gradient through a score."""

import json

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from reference import channel_scores

from pdp_keras import AbsoluteTemperature, Channel, GlobalMagnitude, RelativeTemperature
from pdp_keras.channels.group import ChannelGroup, Maker

RNG = np.random.default_rng(0)


def make_group(makers, units, zeros=0, **arguments):
    """A group of kernels given as (values, axis, unit of each place or None)."""
    group = ChannelGroup("block/conv", units, len(makers), **arguments)
    group.build()
    for number, (values, axis, unit_of) in enumerate(makers):
        unit_of = np.arange(units) if unit_of is None else np.array(unit_of)
        variable = keras.Variable(np.asarray(values, "float32"))
        group.add_maker(Maker(f"layer{number}/kernel", variable, axis, unit_of))
    group.zeros.assign(zeros)
    return group


# id: makers, units, norm, scores
SCORES = {
    # Squares of 25, 0 and 50 over their mean of 25.
    "l2": ([([[3, 0, 5], [4, 0, -5]], 1, None)], 3, "l2", [1, 0, 2**0.5]),
    "l1": ([([[3, 0, 5], [5, 0, -5]], 1, None)], 3, "l1", [8 / 6, 0, 10 / 6]),
    "axis": ([([[3, 4], [0, 0], [5, 5]], 0, None)], 3, "l2", [1, 0, 2**0.5]),
    # A kernel counts as much as another one, however large its weights are.
    "two-makers": (
        [([[1, 3]], 1, None), ([[3000, 1000]], 1, None)],
        2,
        "l1",
        [(0.5 + 1.5) / 2, (1.5 + 0.5) / 2],
    ),
    "quadratic-mean": (
        [([[1, 3]], 1, None), ([[0, 2]], 1, None)],
        2,
        "l2",
        [(0.2 / 2) ** 0.5, ((1.8 + 2) / 2) ** 0.5],
    ),
    # Two units of two places each, and a place of another group.
    "several-places": (
        [([[1, 9, 2, 3, 6]], 1, [0, -1, 1, 0, 1])],
        2,
        "l1",
        [4 / 6, 8 / 6],
    ),
    "other-order": ([([[1, 2, 3]], 1, [2, 0, 1])], 3, "l1", [1, 1.5, 0.5]),
    "all-zero": ([(np.zeros((2, 3)), 1, None)], 3, "l2", [0, 0, 0]),
    "one-is-zero": (
        [(np.zeros((2, 2)), 1, None), ([[1, 3]], 1, None)],
        2,
        "l1",
        [0.25, 0.75],
    ),
}


@pytest.mark.parametrize(
    ("makers", "units", "norm", "scores"), SCORES.values(), ids=SCORES
)
def test_scores(makers, units, norm, scores):
    group = make_group(makers, units, mode=Channel(norm))
    found = group.scores()
    assert found.dtype == "float32" and found.shape == (units,)
    np.testing.assert_allclose(found, scores, rtol=1e-6)
    np.testing.assert_allclose(channel_scores(makers, units, norm), scores)


MANY = (
    (RNG.normal(size=(3, 3, 4, 6)), 3, None),
    # Three places for each unit, as in a flattened picture; two are of others.
    (100 * RNG.normal(size=(20, 5)), 0, [*np.tile(np.arange(6), 3), -1, -1]),
    (RNG.normal(size=(4, 6, 2)), 1, [5, 4, 3, 2, 1, 0]),
)


@pytest.mark.parametrize("norm", ("l1", "l2"))
def test_scores_of_several_kernels(norm):
    group = make_group(MANY, 6, mode=Channel(norm))
    np.testing.assert_allclose(group.scores(), channel_scores(MANY, 6, norm), rtol=1e-5)
    np.testing.assert_array_equal(group.describe().values, group.scores())
    assert group.describe().name == group.describe().layer == "block/conv"


def test_the_order_in_which_kernels_are_added_does_not_matter():
    group = make_group(MANY, 6)
    other = ChannelGroup("block/conv", 6, 3)
    other.build()
    for maker in reversed(group.makers):
        other.add_maker(maker)
    np.testing.assert_array_equal(group.scores(), other.scores())
    other.add_maker(group.makers[0])  # a layer that is built again
    np.testing.assert_array_equal(group.scores(), other.scores())


@pytest.mark.parametrize("norm", ("l1", "l2"))
def test_the_scale_of_a_kernel_does_not_matter(norm):
    values = RNG.normal(size=(4, 5))
    small = make_group([(values, 1, None)], 5, mode=Channel(norm))
    large = make_group([(1e4 * values, 1, None)], 5, mode=Channel(norm))
    np.testing.assert_allclose(small.scores(), large.scores(), rtol=1e-5)


# Scores of 1, 3, 2, 2 times something. id: zeros, mask
HARD = {0: [1, 1, 1, 1], 1: [0, 1, 1, 1], 2: [0, 1, 0, 1], 3: [0, 1, 0, 0]}


@pytest.mark.parametrize(("zeros", "mask"), HARD.items())
def test_hard_mask(zeros, mask):
    group = make_group([([[1, -3, 2, 2]], 1, None)], 4, zeros)
    np.testing.assert_array_equal(group.mask(training=False), mask)
    np.testing.assert_array_equal(group.kept(), np.array(mask, bool))


TEMPERATURES = {
    "absolute": AbsoluteTemperature(0.2),
    "relative": RelativeTemperature(0.7),
}


@pytest.mark.parametrize("temperature", TEMPERATURES.values(), ids=TEMPERATURES)
@pytest.mark.parametrize("norm", ("l1", "l2"))
@pytest.mark.parametrize("zeros", (1, 3, 6))
def test_soft_mask_and_its_gradient(norm, temperature, zeros):
    """dm/dw = m (1 - m) 2 s / tau ds/dw, for every kernel that makes the units."""
    group = make_group(MANY, 6, zeros, mode=Channel(norm), temperature=temperature)
    group.temperature_scale.assign(0.5)
    upstream = RNG.normal(size=6).astype("float32")
    variables = [maker.variable.value for maker in group.makers]
    with tf.GradientTape() as tape:
        mask = group.mask(training=True)
    gradients = tape.gradient(mask, variables, upstream)

    scores = channel_scores(MANY, 6, norm)
    threshold = reference.threshold(scores, zeros)
    tau = 0.2
    if temperature == TEMPERATURES["relative"]:
        tau = 0.7 * np.abs(scores**2 - threshold**2).mean()
    width = (0.5 * tau) ** 0.5
    expected = reference.soft_mask(scores, threshold, width)
    np.testing.assert_allclose(mask, expected, rtol=2e-4, atol=1e-7)

    by_score = upstream * expected * (1 - expected) * 2 * scores / width**2
    for (values, axis, unit_of), gradient in zip(MANY, gradients, strict=True):
        unit_of = np.arange(6) if unit_of is None else np.array(unit_of)
        moved = np.moveaxis(np.float64(np.float32(values)), axis, 0)
        norms = np.zeros(6)
        for place, unit in enumerate(unit_of):
            if unit >= 0:
                power = 2 if norm == "l2" else 1
                norms[unit] += (np.abs(moved[place]) ** power).sum()
        slope = np.zeros_like(moved)
        for place, unit in enumerate(unit_of):
            if unit >= 0:
                # of sqrt(sum of squares) and of sum of magnitudes
                by_weight = (
                    moved[place] / scores[unit]
                    if norm == "l2"
                    else np.sign(moved[place])
                )
                slope[place] = by_score[unit] * by_weight / norms.mean() / len(MANY)
        np.testing.assert_allclose(
            np.moveaxis(np.asarray(gradient), axis, 0),
            slope,
            rtol=1e-3,
            atol=1e-5 * np.abs(slope).max(),
        )


@pytest.mark.parametrize("norm", ("l1", "l2"))
def test_norms_that_are_all_the_same_leave_a_band(norm):
    """Orthogonal kernels, and all under a UnitNorm constraint, have no spread."""
    for kernel in (np.ones((4, 4)), np.diag([1, -1, 1, 1 + 1e-6])):
        group = make_group([(kernel, 1, None)], 4, 2, mode=Channel(norm))
        kernel = group.makers[0].variable.value
        with tf.GradientTape() as tape:
            mask = group.mask(training=True)
        np.testing.assert_allclose(mask, np.full(4, 0.5), atol=1e-2)
        gradient = tape.gradient(mask, kernel)
        # m (1 - m) 2 s / tau at the default of tau, 0.01 times a hundredth of t**2.
        slope = np.abs(gradient).max()
        assert 0 < slope <= 0.25 * 2 / 1e-4 * 1.01
        np.testing.assert_array_equal(group.mask(training=False), [0, 0, 1, 1])


def test_nothing_is_masked_and_no_gradient_flows_before_pruning():
    group = make_group(MANY, 6)
    with tf.GradientTape() as tape:
        mask = group.mask(training=True)
    np.testing.assert_array_equal(mask, np.ones(6))
    for gradient in tape.gradient(mask, [m.variable.value for m in group.makers]):
        assert not np.any(gradient)


@pytest.mark.parametrize("norm", ("l1", "l2"))
def test_dead_kernels_have_finite_gradients(norm):
    values = np.zeros((3, 4))
    values[:, 2] = 1
    for kernel in (values, np.zeros((3, 4))):
        group = make_group([(kernel, 1, None)], 4, 2, mode=Channel(norm))
        variable = group.makers[0].variable.value
        with tf.GradientTape() as tape:
            mask = group.mask(training=True)
        assert np.isfinite(mask).all()
        assert np.isfinite(tape.gradient(mask, variable)).all()


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_scores_are_float32(dtype):
    group = ChannelGroup("g", 2, 1)
    group.build()
    variable = keras.Variable(np.float32([[300, 400]] * 2), dtype=dtype)
    group.add_maker(Maker("k", variable, 1, np.arange(2)))
    scores = group.scores()  # the squares of 300 are beyond float16
    assert scores.dtype == "float32"
    np.testing.assert_allclose(scores, [0.72**0.5, 1.28**0.5], rtol=1e-2)


@pytest.mark.parametrize(
    "jit_compile",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=("graph", "xla"),
)
def test_masks_in_graphs(jit_compile):
    group = make_group(MANY, 6)

    def masks():
        with tf.GradientTape() as tape:
            soft = group.mask(training=True)
        kernel = group.makers[1].variable.value
        return soft, group.mask(training=False), tape.gradient(soft, kernel)

    in_graph = tf.function(masks, jit_compile=jit_compile)
    for zeros in (0, 2, 5):
        group.zeros.assign(zeros)
        for found, wanted in zip(in_graph(), masks(), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert in_graph.experimental_get_tracing_count() == 1


def test_limits_count_the_channels_of_a_unit():
    """Heads of 4 channels: a multiple of 8 channels is a multiple of 2 heads."""
    group = make_group(MANY[:1], 6, channels_each=4, mode=Channel(round_to=8))
    assert [group.limit_zeros(zeros) for zeros in range(7)] == [0, 0, 2, 2, 4, 4, 4]


def test_target_sparsity():
    group = make_group(MANY[:1], 6)
    assert group.target_sparsity is None
    group.target_zeros.assign(3)
    assert group.target_sparsity == 0.5


def test_config_round_trip():
    group = ChannelGroup(
        "block/conv:2",
        8,
        2,
        4,
        sparsity=0.25,
        target_zeros=3,
        mode=Channel("l1", 8, 2),
        temperature=RelativeTemperature(0.5),
        allocation=GlobalMagnitude(0.9),
        layer_paths=["a", "b"],
        removable=False,
    )
    assert group.name == "block-conv-2"
    config = group.get_config()
    again = ChannelGroup.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert again.mode == group.mode and again.temperature == group.temperature
    assert again.deferred_allocation == GlobalMagnitude(0.9)
    again.build()
    assert int(again.target_zeros.numpy()) == 3 and int(again.zeros.numpy()) == 0


def test_the_state_is_not_trained():
    group = make_group(MANY, 6)
    assert len(group.variables) == 3 and not group.trainable_variables


def test_a_group_without_all_of_its_kernels_is_an_error():
    group = ChannelGroup("stem", 4, 2)
    group.build()
    group.add_maker(Maker("a", keras.Variable(np.ones((2, 4))), 1, np.arange(4)))
    with pytest.raises(ValueError, match=r"in one model.*'stem' with 1 of 2 kernels"):
        group.scores()
