"""OptG: a supermask of scores that learn at a rate of their own."""

import numpy as np
import pytest
import reference
import reference_methods
from wrapped import (
    assert_computes,
    at_epoch,
    at_step,
    computed,
    due_steps,
    gradients,
    random_kernel,
    wrap,
)

from pdp_keras.methods import OptG

# Part of the run that is done: the sigmoid of 20 (p - 1/2), 1 in the last tenth.
FRACTIONS = {
    0.05: 1.2339457598623172e-4,
    0.25: 6.692850924284856e-3,
    0.5: 0.5,
    0.75: 0.9933071490757153,
    0.9: 0.9996646498695336,
    0.95: 1,
    1: 1,
}


def test_fraction():
    by_epoch = {p: OptG().fraction(at_epoch(20 * p - 1)) for p in FRACTIONS}
    by_step = {p: OptG().fraction(at_step(round(200 * p) - 1)) for p in FRACTIONS}
    assert by_epoch == pytest.approx(FRACTIONS)
    assert by_step == pytest.approx(FRACTIONS)
    assert OptG(steepness=0.0).fraction(at_epoch(3), "cubic") == 0.5
    assert OptG(steepness=1e300).fraction(at_epoch(3)) == 0


@pytest.mark.parametrize("epochs", [1, 2, 5, 9, 10, 11, 100])
def test_the_last_mask_has_the_whole_target(epochs):
    """Also where an epoch is longer than the last tenth."""
    method = OptG(masks=1)
    last = [at_step(10 * (epochs - 1), epochs=epochs), at_epoch(epochs - 1, epochs)]
    assert all(method.is_due(moment) for moment in last)
    assert [method.fraction(moment) for moment in last] == [1, 1]
    if epochs > 1:
        assert OptG().fraction(at_epoch(int(0.9 * epochs) - 1, epochs)) < 1


# masks of a run of 200 steps in 20 epochs: steps from one to the next
INTERVALS = {1: 10, 20: 10, 50: 4, 99: 2, 100: 2, 200: 1, 1000: 1}


@pytest.mark.parametrize(("masks", "steps"), INTERVALS.items())
def test_masks_are_made_so_often(masks, steps):
    method = OptG(masks=masks)
    assert due_steps(method) == list(range(0, 200, steps))
    assert all(method.is_due(at_epoch(epoch)) for epoch in range(20))


@pytest.mark.parametrize(("steps_per_epoch", "epochs"), [(250, 4), (7, 1), (3000, 2)])
def test_a_short_run_has_as_many_masks_as_a_long_one(steps_per_epoch, epochs):
    """With a mask an epoch a fine-tuning would go to its target in two or three."""
    steps = range(steps_per_epoch * epochs)
    moments = [at_step(step, steps_per_epoch, epochs) for step in steps]
    due = [moment for moment in moments if OptG().is_due(moment)]
    assert len(due) == min(100, len(moments))
    assert OptG().fraction(due[-1]) == 1


# id: scores, zeros, mask
MASKS = {
    "the lowest": ([[3, -1], [0, 2]], 2, [[1, 0], [0, 1]]),
    "ties by position": ([[0, 0], [0, 0]], 3, [[0, 0], [0, 1]]),
    "nothing": ([[3, -1], [0, 2]], 0, [[1, 1], [1, 1]]),
    "all but one": ([[3, -1], [0, 2]], 3, [[1, 0], [0, 0]]),
    "everything": ([[3, -1], [0, 2]], 4, [[0, 0], [0, 0]]),
}


@pytest.mark.parametrize(("scores", "zeros", "mask"), MASKS.values(), ids=MASKS)
def test_update(scores, zeros, mask):
    kernel = [[1, -4], [3, -2]]
    wrapper, weight = wrap(kernel, "optg", zeros)
    weight.extras["scores"].assign(scores)
    np.testing.assert_array_equal(computed(wrapper, training=True), kernel)  # not yet
    weight.method.update([weight], at_epoch(9))
    left = np.multiply(kernel, mask)
    assert_computes(wrapper, left)
    assert float(weight.extras["rate"].numpy()) == 0.5
    weight.extras["scores"].assign(np.negative(scores))
    np.testing.assert_array_equal(computed(wrapper, training=True), left)  # held


def test_scores_get_the_straight_gradient_times_the_rate():
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    scores = random_kernel(6, 5, seed=2)
    wrapper, weight = wrap(kernel, OptG(steepness=4.0), 12)
    weight.extras["scores"].assign(scores)
    weight.method.update([weight], at_step(49))
    pruned = scores <= np.sort(scores, axis=None)[11]
    found = gradients(wrapper, upstream)
    assert found.keys() == {"kernel", "scores"}
    np.testing.assert_array_equal(found["kernel"], upstream * ~pruned)
    rate = reference_methods.sigmoid_rate(5, 20, 4.0)
    np.testing.assert_allclose(found["scores"], rate * upstream * kernel, rtol=1e-5)


def test_a_ranking_of_scores_starts_at_0():
    """It ranks magnitudes, where -3 would be above 2."""
    (_, first), (_, second) = (wrap(np.ones((1, 2)), "optg") for _ in range(2))
    first.extras["scores"].assign([[2, -3]])
    second.extras["scores"].assign([[1, -1]])
    found = first.method.rankings([first, second])
    np.testing.assert_array_equal(found, [[[5, 0]], [[4, 2]]])
    together = np.concatenate([[2, -3], [1, -1]])
    order = np.argsort(together)
    np.testing.assert_array_equal(np.argsort(np.ravel(found)), order)
    assert reference.smallest(np.ravel(found), 2).tolist() == [False, True, False, True]
