"""GraNet: gradual pruning, and an exchange after each cut."""

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

from pdp_keras import GlobalMagnitude
from pdp_keras.allocation.base import WeightInfo
from pdp_keras.methods import GraNet


def test_due_every_so_many_steps_and_at_the_end_of_the_ramp():
    method = GraNet(frequency=50)
    assert due_steps(method) == [0, 50, 100, 119, 150]
    assert all(method.is_due(at_epoch(epoch)) for epoch in range(20))


def test_nothing_is_missed_where_a_step_is_skipped():
    method = GraNet(frequency=50)
    calls = range(0, 200, 4)
    found = [step for step in calls if method.is_due(at_step(step, stride=4))]
    assert found == [0, 52, 100, 120, 152]


def test_fraction():
    table = {2: 0, 3: 0.271, 7: 0.875, 12: 1, 20: 1}
    found = {done: GraNet().fraction(at_epoch(done - 1)) for done in table}
    assert found == pytest.approx(table)


@every_cut
@pytest.mark.parametrize("step", [119, 150])
def test_from_the_end_of_the_ramp_on_nothing_is_exchanged(kernel, zeros, left, step):
    wrapper, weight = wrap(kernel, GraNet(exchanged=1.0), zeros)
    weight.extras["gradient"].assign([[1, 2], [3, 4]])
    weight.method.update([weight], at_step(step))
    assert_computes(wrapper, left)
    assert np.sum(~weight.extras["mask"].numpy()) == zeros


@pytest.mark.parametrize("zeros", [8, 15, 29])
@pytest.mark.parametrize("step", [20, 50, 110])
def test_on_the_ramp_the_smallest_go_and_others_come(step, zeros):
    kernel = random_kernel(6, 5)
    gradient = np.abs(random_kernel(6, 5, seed=1))
    mask = np.ones((6, 5), bool)
    mask[:2, :4] = False  # 8 are pruned before
    method = GraNet(exchanged=0.6, exchanged_last=0.1)
    wrapper, weight = wrap(kernel, method, zeros)
    weight.extras["mask"].assign(mask)
    weight.extras["gradient"].assign(gradient)
    method.update([weight], at_step(step))
    rate = reference_methods.cosine(0.6, 0.1, ((step + 1) / 10 - 2) / 10)
    cut = reference_methods.pruned_further(kernel, mask, zeros)
    expected = reference_methods.exchanged(kernel, cut, gradient, int(rate * cut.sum()))
    np.testing.assert_array_equal(weight.variable, expected[0])
    np.testing.assert_array_equal(weight.extras["mask"], expected[1])
    assert np.sum(~expected[1]) == zeros
    assert (int(rate * cut.sum()) > 0) == (zeros < 29)
    np.testing.assert_array_equal(computed(wrapper, True), np.prod(expected, axis=0))


def test_during_warm_up_nothing_goes():
    kernel = random_kernel(6, 5)
    wrapper, weight = wrap(kernel, GraNet(exchanged=1.0))
    weight.method.update([weight], at_step(0))
    np.testing.assert_array_equal(computed(wrapper, training=True), kernel)


def test_a_new_weight_that_is_still_0_does_not_make_way_for_a_pruned_one():
    """The pruned one would come back with the value that it once had."""
    wrapper, weight = wrap([[0, 7, 5, 3]], "granet", 1)
    mask = np.array([[1, 0, 1, 1]], bool)
    weight.extras["mask"].assign(mask)
    weight.method.update([weight], at_step(150))
    np.testing.assert_array_equal(weight.extras["mask"], mask)
    np.testing.assert_array_equal(computed(wrapper, training=True), [[0, 0, 5, 3]])


def test_what_is_pruned_ranks_below_all_that_is_kept():
    (_, first), (_, second) = (wrap(k, "granet") for k in ([[0, -5]], [[9, 4]]))
    second.extras["mask"].assign(np.array([[0, 1]], bool))
    rankings = first.method.rankings([first, second])
    infos = [WeightInfo("a", "a", r) for r in rankings]
    allocate = GlobalMagnitude(max_sparsity=1.0)
    assert [allocate(infos, s) for s in (0.25, 0.5, 0.75)] == [[0, 1], [1, 1], [1, 2]]


def test_the_gradient_is_the_mask_and_that_of_all_weights_is_noted():
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    mask = random_kernel(6, 5, seed=2) > 0
    wrapper, weight = wrap(kernel, "granet")
    weight.extras["mask"].assign(mask)
    found = gradients(wrapper, upstream)
    np.testing.assert_array_equal(found["kernel"], upstream * mask)
    np.testing.assert_array_equal(found["gradient"], np.abs(upstream))
