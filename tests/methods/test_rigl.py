"""RigL: as many weights come as go, from the first step to the last."""

import keras
import numpy as np
import pytest
import reference_methods
import tensorflow as tf
from wrapped import (
    at_epoch,
    at_step,
    computed,
    due_steps,
    gradients,
    random_kernel,
    wrap,
)

from pdp_keras.methods import RigL
from pdp_keras.methods.rigl import exchange


def wrap_masked(kernel, mask, gradient, method="rigl"):
    wrapper, weight = wrap(kernel, method, int(np.sum(np.equal(mask, 0))))
    weight.extras["mask"].assign(np.array(mask, bool))
    weight.extras["gradient"].assign(gradient)
    return wrapper, weight


def test_fraction():
    moments = [at_epoch(0), at_epoch(19), at_step(0), at_step(199)]
    assert [RigL().fraction(moment) for moment in moments] == [1] * 4
    assert RigL().fraction(at_epoch(0), "cubic") == 1


def test_due_every_so_many_steps_until_a_part_of_the_run():
    method = RigL(frequency=20, until=0.5)
    assert due_steps(method) == [0, 20, 40, 60, 80]
    assert [e for e in range(20) if method.is_due(at_epoch(e))] == list(range(9))


def test_a_multiple_is_noticed_where_its_step_is_skipped():
    method = RigL(frequency=20, until=0.5)
    calls = range(0, 200, 3)
    found = [step for step in calls if method.is_due(at_step(step, stride=3))]
    assert found == [0, 21, 42, 60, 81]


@pytest.mark.parametrize("zeros", [0, 1, 20, 29, 30])
def test_the_first_mask_is_random_with_exactly_so_many_zeros(zeros):
    masks = []
    for seed in (0, 0, 1):
        wrapper, weight = wrap(np.ones((6, 5)), RigL(seed=seed), zeros)
        weight.method.update([weight], at_step(0))
        masks.append(weight.extras["mask"].numpy())
        np.testing.assert_array_equal(computed(wrapper, training=True), masks[-1])
        np.testing.assert_array_equal(computed(wrapper, training=False), masks[-1])
    assert [np.sum(~mask) for mask in masks] == [zeros] * 3
    np.testing.assert_array_equal(masks[0], masks[1])
    if zeros in (1, 20, 29):
        assert not np.array_equal(masks[0], masks[2])


def test_kernels_of_one_shape_get_different_masks():
    weights = [wrap(np.ones((6, 5)), "rigl", 15)[1] for _ in range(2)]
    weights[0].method.update(weights, at_step(0))
    first, second = (weight.extras["mask"].numpy() for weight in weights)
    assert not np.array_equal(first, second)


# id: weights, mask, gradients, how many, weights and mask afterwards
EXCHANGES = {
    "the smallest for the largest": (
        ([[1, -5, 3, 4, 9, 9, 9]], [[1, 1, 1, 1, 0, 0, 0]], [[0, 0, 0, 0, 2, 1, 3]]),
        2,
        ([[1, -5, 3, 4, 0, 9, 0]], [[0, 1, 0, 1, 1, 0, 1]]),
    ),
    "what went comes back as it was": (
        ([[1, -5, 3, 4, 9, 9, 9]], [[1, 1, 1, 1, 0, 0, 0]], [[4, 8, 0, 8, 2, 1, 3]]),
        2,
        ([[1, -5, 3, 4, 9, 9, 0]], [[1, 1, 0, 1, 0, 0, 1]]),
    ),
    "ties by position": (
        ([[2, -2, 2, 2, 9, 9, 9]], [[1, 1, 1, 1, 0, 0, 0]], [[0, 0, 0, 0, 1, 1, 1]]),
        2,
        ([[2, -2, 2, 2, 0, 0, 9]], [[0, 0, 1, 1, 1, 1, 0]]),
    ),
    "weights and gradients all 0": (
        ([[0, 0, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 0, 0]]),
        1,
        ([[0, 0, 0, 0]], [[1, 0, 1, 0]]),
    ),
    "a pruned 0 cannot go": (
        ([[0, 5, 3, 0]], [[0, 1, 1, 0]], [[0, 0, 0, 1]]),
        1,
        ([[0, 5, 3, 0]], [[0, 1, 0, 1]]),
    ),
    "none": (
        ([[1, 2, 3]], [[1, 1, 0]], [[0, 0, 9]]),
        0,
        ([[1, 2, 3]], [[1, 1, 0]]),
    ),
    "all but one pruned": (
        ([[1, 2, 3]], [[0, 1, 0]], [[1, 0, 9]]),
        1,
        ([[1, 2, 0]], [[0, 0, 1]]),
    ),
    "nothing pruned": (
        ([[1, 2, 3]], [[1, 1, 1]], [[9, 0, 0]]),
        2,
        ([[1, 2, 3]], [[1, 1, 1]]),
    ),
}


@pytest.mark.parametrize(
    ("before", "count", "after"), EXCHANGES.values(), ids=EXCHANGES
)
def test_exchange(before, count, after):
    _, weight = wrap_masked(*before)
    exchange(weight, count, None)
    np.testing.assert_array_equal(weight.variable, after[0])
    np.testing.assert_array_equal(weight.extras["mask"], np.array(after[1], bool))
    weights, mask, gradient = map(np.array, before)
    expected = reference_methods.exchanged(weights, mask, gradient, count)
    np.testing.assert_array_equal(expected, after)


@pytest.mark.parametrize("seed", range(5))
def test_exchange_of_random_weights(seed):
    kernel, gradient = random_kernel(6, 5, seed=seed), random_kernel(6, 5, seed=9)
    gradient = np.abs(np.round(gradient, 1))  # ties
    mask = random_kernel(6, 5, seed=seed + 20) > 0.3
    _, weight = wrap_masked(kernel, mask, gradient)
    exchange(weight, 4, None)
    weights, mask = reference_methods.exchanged(kernel, mask, gradient, 4)
    np.testing.assert_array_equal(weight.variable, weights)
    np.testing.assert_array_equal(weight.extras["mask"], mask)


@pytest.mark.parametrize(
    ("step", "count"),
    # Of 20 kept ones; half a cosine over 100 steps, from 0.6 * 20.
    [(0, 0), (20, 10), (40, 7), (60, 3), (80, 1), (98, 0)],
)
def test_the_exchanged_fraction_falls_along_a_cosine(step, count):
    kernel, gradient = random_kernel(6, 5), np.abs(random_kernel(6, 5, seed=1))
    mask = np.arange(30).reshape(6, 5) < 20
    method = RigL(exchanged=0.6, until=0.5)
    _, weight = wrap_masked(kernel, mask, gradient, method)
    method.update([weight], at_step(step))
    if step:
        rate = reference_methods.cosine(0.6, 0.0, (step + 1) / 100)
        assert int(20 * rate) == count
    weights, mask = reference_methods.exchanged(kernel, mask, gradient, count)
    np.testing.assert_array_equal(weight.variable, weights)
    np.testing.assert_array_equal(weight.extras["mask"], mask)


def test_by_epoch_weights_are_exchanged_too():
    before = [[1, -5, 3, 4, 9, 9, 9]], [[1, 1, 1, 1, 0, 0, 0]], [[0, 0, 0, 0, 2, 1, 3]]
    _, weight = wrap_masked(*before, RigL(exchanged=1.0))
    weight.method.update([weight], at_epoch(0))  # 1 / 2 (1 + cos(pi / 15)) of 4
    expected = reference_methods.exchanged(*map(np.array, before), 3)
    np.testing.assert_array_equal(weight.variable, expected[0])
    np.testing.assert_array_equal(weight.extras["mask"], expected[1])


def test_new_weights_have_no_momentum():
    _, weight = wrap_masked([[1, 5, 9, 9]], [[1, 1, 0, 0]], [[0, 0, 1, 2]])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([weight.variable, weight.extras["gradient"]])
    optimizer.momentums[0].assign([[1, 2, 3, 4]])
    exchange(weight, 1, optimizer)
    np.testing.assert_array_equal(optimizer.momentums[0], [[1, 2, 3, 0]])


def test_the_optimizer_notes_the_gradient_of_every_weight():
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    mask = random_kernel(6, 5, seed=2) > 0
    wrapper, weight = wrap_masked(kernel, mask, np.zeros((6, 5)))
    np.testing.assert_array_equal(computed(wrapper, training=True), kernel * mask)
    found = gradients(wrapper, upstream)
    np.testing.assert_array_equal(found["kernel"], upstream * mask)
    np.testing.assert_array_equal(found["gradient"], np.abs(upstream))
    noted = weight.extras["gradient"]
    optimizer = keras.optimizers.AdamW(0.1, global_clipnorm=1e-3)
    for _ in range(2):  # neither learned, nor clipped, nor decayed
        given = [tf.constant(gradient) for gradient in found.values()]
        optimizer.apply(given, [weight.variable, noted])
        np.testing.assert_array_equal(noted, np.abs(upstream))
