"""SR-STE: straight through, with a force that draws what is pruned to 0."""

import math

import numpy as np
import pytest
import reference_methods
from wrapped import (
    assert_computes,
    at_epoch,
    computed,
    every_cut,
    gradients,
    random_kernel,
    wrap,
)

from pdp_keras.methods import SRSTE


@every_cut
def test_pruned_weights_decay(kernel, zeros, left):
    wrapper, _ = wrap(kernel, SRSTE(decay=0.25), zeros)
    assert_computes(wrapper, left)
    upstream = np.float32([[5, -6], [7, -8]])
    pruned = np.subtract(kernel, left)  # quarters of small integers are exact
    expected = upstream + 0.25 * pruned
    np.testing.assert_array_equal(gradients(wrapper, upstream)["kernel"], expected)


@pytest.mark.parametrize("decay", [2e-4, 0.5])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 8)])
def test_n_of_m_against_the_equation(n, m, decay):
    kernel, upstream = random_kernel(10, 3), random_kernel(10, 3, seed=1)
    wrapper, weight = wrap(kernel, SRSTE(decay), mode=f"{n}:{m}")
    weight.zeros.assign(weight.target_zeros)
    left = reference_methods.cut_groups(kernel, n, m)
    np.testing.assert_array_equal(computed(wrapper, training=True), left)
    mask = left != 0
    expected = upstream + decay * (1 - mask) * np.float64(kernel)
    found = gradients(wrapper, upstream)["kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_decay_it_is_dnw():
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    wrapper, _ = wrap(kernel, SRSTE(decay=0.0), 17)
    np.testing.assert_array_equal(gradients(wrapper, upstream)["kernel"], upstream)


def test_the_default_is_the_papers():
    assert SRSTE().decay == 2e-4


def test_fraction():
    assert [SRSTE().fraction(at_epoch(epoch)) for epoch in range(4)] == [0, 0, 1, 1]


@pytest.mark.parametrize("decay", [-1e-4, math.nan])
def test_errors(decay):
    with pytest.raises(ValueError, match=f"decay must be .*Received: decay={decay}"):
        SRSTE(decay)
