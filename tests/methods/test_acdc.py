"""AC/DC: phases with a mask and phases without, in parts of the run."""

import keras
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
    wrap,
)

from pdp_keras.methods import ACDC


@pytest.mark.parametrize("epochs", [20, 100, 200])
def test_phases_by_epoch(epochs):
    moments = [at_epoch(epoch, epochs) for epoch in range(epochs)]
    found = {e for e, moment in enumerate(moments) if ACDC().fraction(moment)}
    assert found == reference_methods.compressed_epochs(epochs)
    assert {ACDC().fraction(moment, "cubic") for moment in moments} == {0, 1}


def test_phases_by_step():
    """Every step of an epoch is in the phase of the epoch."""
    compressed = {step for step in range(200) if ACDC().fraction(at_step(step))}
    epochs = reference_methods.compressed_epochs(20)
    assert compressed == {step for step in range(200) if step // 10 in epochs}


def test_masks_change_where_a_phase_begins():
    epochs = [0, *range(2, 16), 17]
    assert due_steps(ACDC()) == [10 * epoch for epoch in epochs]
    assert [e for e in range(20) if ACDC().is_due(at_epoch(e))] == epochs


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_no_phase_is_missed_where_a_step_is_skipped(stride):
    held = None
    for step in range(0, 200, stride):
        moment = at_step(step, stride=stride)
        if ACDC().is_due(moment):
            held = ACDC().fraction(moment)
        assert held == ACDC().fraction(moment), step


@every_cut
def test_compression(kernel, zeros, left):
    wrapper, weight = wrap(kernel, "acdc", zeros)
    weight.method.update([weight], at_epoch(10, 100))
    assert_computes(wrapper, left)
    np.testing.assert_array_equal(weight.variable, kernel)  # hidden, not lost
    mask = weight.extras["mask"].numpy()
    assert np.sum(~mask) == zeros
    upstream = np.float32([[5, -6], [7, -8]])
    np.testing.assert_array_equal(
        gradients(wrapper, upstream)["kernel"], upstream * mask
    )


def test_the_mask_is_fixed_within_a_phase():
    wrapper, weight = wrap([[1, -4], [3, -2]], "acdc", 2)
    weight.method.update([weight], at_epoch(10, 100))
    weight.variable.assign([[9, 1], [2, 8]])
    np.testing.assert_array_equal(computed(wrapper, training=True), [[0, 1], [2, 0]])


def test_decompression_brings_zeros_back_without_momentum():
    wrapper, weight = wrap([[1, -4], [3, -2]], "acdc", 2)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([weight.variable])
    weight.method.update([weight], at_epoch(10, 100), optimizer)
    weight.variable.assign([[9, -5], [6, 7]])  # momentum may move what is hidden
    (momentum,) = optimizer.momentums
    momentum.assign([[1, 2], [3, 4]])
    weight.zeros.assign(0)
    weight.method.update([weight], at_epoch(15, 100), optimizer)
    for training in (True, False):
        np.testing.assert_array_equal(computed(wrapper, training), [[0, -5], [6, 0]])
    np.testing.assert_array_equal(weight.variable, [[0, -5], [6, 0]])
    np.testing.assert_array_equal(momentum, [[0, 2], [3, 0]])
    np.testing.assert_array_equal(gradients(wrapper, np.ones((2, 2)))["kernel"], 1)


def test_a_dense_phase_changes_nothing_that_is_dense():
    wrapper, weight = wrap([[0, -4], [3, -2]], "acdc")
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([weight.variable])
    optimizer.momentums[0].assign([[1, 2], [3, 4]])
    weight.method.update([weight], at_epoch(0, 100), optimizer)
    np.testing.assert_array_equal(computed(wrapper, True), [[0, -4], [3, -2]])
    np.testing.assert_array_equal(optimizer.momentums[0], [[1, 2], [3, 4]])
