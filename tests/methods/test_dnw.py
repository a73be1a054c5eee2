"""DNW: a hard mask through which the gradient passes as if there were none."""

import keras
import numpy as np
import pytest
import reference_methods
from wrapped import (
    assert_computes,
    at_epoch,
    at_step,
    computed,
    every_cut,
    gradients,
    random_kernel,
    wrap,
)

from pdp_keras.methods import DNW


@every_cut
def test_the_smallest_are_zero_and_all_get_a_gradient(kernel, zeros, left):
    wrapper, _ = wrap(kernel, "dnw", zeros)
    assert_computes(wrapper, left)
    upstream = [[5, -6], [7, -8]]
    np.testing.assert_array_equal(gradients(wrapper, upstream)["kernel"], upstream)


@pytest.mark.parametrize("zeros", [0, 1, 17, 29, 30])
def test_random_weights_to_the_last_bit(zeros):
    kernel = random_kernel(6, 5) * np.float32(1e-3)
    wrapper, _ = wrap(kernel, "dnw", zeros)
    expected = reference_methods.cut(kernel, zeros)
    np.testing.assert_array_equal(computed(wrapper, training=True), expected)


def test_n_of_m():
    kernel, upstream = random_kernel(8, 3), random_kernel(8, 3, seed=1)
    wrapper, weight = wrap(kernel, "dnw", mode="1:4")
    weight.zeros.assign(weight.target_zeros)
    left = reference_methods.cut_groups(kernel, 1, 4)
    np.testing.assert_array_equal(computed(wrapper, training=True), left)
    np.testing.assert_array_equal(gradients(wrapper, upstream)["kernel"], upstream)


def test_a_pruned_weight_learns_its_way_back():
    wrapper, weight = wrap([[1, 2]], "dnw", 1)
    optimizer = keras.optimizers.SGD(1.0)
    gradient = gradients(wrapper, [[-3, 0]])["kernel"]
    optimizer.apply([gradient], [weight.variable])
    np.testing.assert_array_equal(computed(wrapper, training=True), [[4, 0]])


def test_fraction():
    """The target from the end of warm-up on, unless a ramp is asked for."""
    table = {1: 0, 2: 0, 2.1: 1, 3: 1, 12: 1, 20: 1}
    assert {d: DNW().fraction(at_step(10 * d - 1)) for d in table} == table
    assert [DNW().fraction(at_epoch(epoch)) for epoch in range(4)] == [0, 0, 1, 1]
    linear = [DNW().fraction(at_epoch(epoch), "linear") for epoch in (1, 2, 6, 11)]
    assert linear == pytest.approx([0, 0.1, 0.5, 1])
