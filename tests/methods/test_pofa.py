"""POFA: gradual magnitude pruning whose mask is locked when the ramp has ended."""

import numpy as np
import pytest
import reference_methods
from wrapped import (
    assert_computes,
    at_epoch,
    at_step,
    computed,
    due_steps,
    every_cut,
    gradients,
    random_kernel,
    wrap,
)

from pdp_keras.methods import POFA


def test_due_until_the_ramp_has_ended():
    method = POFA(frequency=50)
    assert due_steps(method) == [0, 50, 100, 119]
    assert [e for e in range(20) if method.is_due(at_epoch(e))] == list(range(12))


@pytest.mark.parametrize(
    ("stride", "steps"), [(2, [0, 50, 100, 120]), (4, [0, 52, 100, 120])]
)
def test_the_end_is_noticed_where_its_step_is_skipped(stride, steps):
    method = POFA(frequency=50)
    calls = range(0, 200, stride)
    found = [step for step in calls if method.is_due(at_step(step, stride=stride))]
    assert found == steps


def test_fraction():
    table = {2: 0, 3: 0.271, 7: 0.875, 12: 1, 20: 1}
    found = {done: POFA().fraction(at_epoch(done - 1)) for done in table}
    assert found == pytest.approx(table)


@every_cut
def test_update(kernel, zeros, left):
    wrapper, weight = wrap(kernel, "pofa", zeros)
    np.testing.assert_array_equal(computed(wrapper, training=True), kernel)  # not yet
    weight.method.update([weight], at_step(50))
    assert_computes(wrapper, left)
    mask = weight.extras["mask"].numpy()
    assert np.sum(~mask) == zeros
    upstream = np.float32([[5, -6], [7, -8]])
    found = gradients(wrapper, upstream)["kernel"]
    np.testing.assert_array_equal(found, upstream * mask)


@pytest.mark.parametrize("zeros", [8, 15, 29])
def test_what_is_pruned_stays_pruned(zeros):
    """However large its hidden value is."""
    kernel = random_kernel(6, 5)
    mask = np.ones((6, 5), bool)
    mask[:2, :4] = False
    kernel[:2, :4] += 100
    _, weight = wrap(kernel, "pofa", zeros)
    weight.extras["mask"].assign(mask)
    weight.method.update([weight], at_step(100))
    expected = reference_methods.pruned_further(kernel, mask, zeros)
    np.testing.assert_array_equal(weight.extras["mask"], expected)


def test_a_kept_weight_of_0_does_not_make_way_for_a_pruned_one():
    wrapper, weight = wrap([[0, 7, 5, 3]], "pofa", 1)
    mask = np.array([[1, 0, 1, 1]], bool)
    weight.extras["mask"].assign(mask)
    weight.method.update([weight], at_step(100))
    np.testing.assert_array_equal(weight.extras["mask"], mask)
    np.testing.assert_array_equal(computed(wrapper, training=True), [[0, 0, 5, 3]])
