"""GMP: a hard mask whose gradient is the mask, on a cubic ramp."""

import numpy as np
import pytest
import reference_methods
from keras import layers
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

from pdp_keras import PDPWrapper
from pdp_keras.methods import GMP


@every_cut
def test_the_smallest_are_zero(kernel, zeros, left):
    wrapper, _ = wrap(kernel, "gmp", zeros)
    assert_computes(wrapper, left)


@pytest.mark.parametrize("zeros", [0, 1, 17, 29, 30])
def test_the_gradient_is_the_mask(zeros):
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    wrapper, _ = wrap(kernel, "gmp", zeros)
    left = reference_methods.cut(kernel, zeros)
    np.testing.assert_array_equal(computed(wrapper, training=True), left)
    found = gradients(wrapper, upstream)
    assert found.keys() == {"kernel"}
    np.testing.assert_array_equal(found["kernel"], upstream * (left != 0))


def test_n_of_m():
    kernel, upstream = random_kernel(8, 3), random_kernel(8, 3, seed=1)
    wrapper, weight = wrap(kernel, "gmp", mode="2:4")
    weight.zeros.assign(weight.target_zeros)
    left = reference_methods.cut_groups(kernel, 2, 4)
    np.testing.assert_array_equal(computed(wrapper, training=True), left)
    found = gradients(wrapper, upstream)["kernel"]
    np.testing.assert_array_equal(found, upstream * (left != 0))


def test_a_channel_is_off_with_its_bias_in_training_too():
    layer = layers.Dense(3, bias_initializer="ones")
    wrapper = PDPWrapper(layer, 0.3, "channel", method="gmp")
    wrapper.build((None, 2))
    wrapper.is_scheduled = True
    layer.kernel.assign([[3, 1, 3], [4, 1, 4]])
    wrapper.pruned_weights[0].zeros.assign(1)
    for training in (True, False):
        outputs = wrapper(np.eye(2, dtype="float32"), training=training)
        np.testing.assert_array_equal(outputs, [[4, 0, 4], [5, 0, 5]])


# Epochs done: fraction, for a ramp from 2 to 12.
CUBIC = {1: 0, 2: 0, 3: 0.271, 7: 0.875, 11: 0.999, 12: 1, 20: 1}
LINEAR = {1: 0, 2: 0, 3: 0.1, 7: 0.5, 11: 0.9, 12: 1, 20: 1}


@pytest.mark.parametrize(
    ("shape", "table"),
    [(None, CUBIC), ("cubic", CUBIC), ("linear", LINEAR)],
    ids=["own", "cubic", "linear"],
)
def test_fraction(shape, table):
    by_epoch = {done: GMP().fraction(at_epoch(done - 1), shape) for done in table}
    by_step = {d: GMP().fraction(at_step(10 * d - 1), shape) for d in table}
    assert by_epoch == pytest.approx(table)
    assert by_step == pytest.approx(table)
    assert by_epoch[12] == by_step[12] == 1  # not nearly: a weight would be missing


def test_what_is_pruned_comes_back_when_a_kept_weight_becomes_smaller():
    wrapper, weight = wrap([[1, 2, 3]], "gmp", 1)
    np.testing.assert_array_equal(computed(wrapper, training=True), [[0, 2, 3]])
    weight.variable.assign([[1, 2, 0.5]])
    np.testing.assert_array_equal(computed(wrapper, training=True), [[1, 2, 0]])
