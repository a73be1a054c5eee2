"""Movement and SoftMovement: scores that add up how weights move."""

import math

import numpy as np
import pytest
import reference
from wrapped import assert_computes, at_epoch, computed, gradients, random_kernel, wrap

from pdp_keras.methods import Movement, SoftMovement

KERNEL = [[1, -4], [3, -2]]

# id: scores, zeros, what is left of the kernel
LOWEST = {
    "the lowest": ([[3, -1], [0, 2]], 2, [[1, 0], [0, -2]]),
    "not the smallest": ([[-3, -1], [-2, -4]], 2, [[0, -4], [3, 0]]),
    "ties by position": ([[0, 0], [0, 0]], 3, [[0, 0], [0, -2]]),
    "nothing": ([[3, -1], [0, 2]], 0, KERNEL),
    "all but one": ([[3, -1], [0, 2]], 3, [[1, 0], [0, 0]]),
    "everything": ([[3, -1], [0, 2]], 4, [[0, 0], [0, 0]]),
}


@pytest.mark.parametrize(("scores", "zeros", "left"), LOWEST.values(), ids=LOWEST)
def test_the_lowest_scores_are_pruned_at_once(scores, zeros, left):
    wrapper, weight = wrap(KERNEL, "movement", zeros)
    weight.extras["scores"].assign(scores)
    assert_computes(wrapper, left)


@pytest.mark.parametrize("zeros", [0, 1, 17, 29, 30])
def test_gradients_of_movement(zeros):
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    scores = random_kernel(6, 5, seed=2)
    wrapper, weight = wrap(kernel, "movement", zeros)
    weight.extras["scores"].assign(scores)
    pruned = reference.smallest(scores - scores.min(), zeros)
    np.testing.assert_array_equal(computed(wrapper, training=True), kernel * ~pruned)
    found = gradients(wrapper, upstream)
    assert found.keys() == {"kernel", "scores"}
    np.testing.assert_array_equal(found["kernel"], upstream * ~pruned)
    np.testing.assert_array_equal(found["scores"], upstream * kernel)


def test_a_weight_that_grows_is_kept_and_one_that_shrinks_is_not():
    """A descent along the gradients: the scores fall where |w| falls."""
    wrapper, weight = wrap([[1, -1]], "movement", 1)
    found = gradients(wrapper, [[1, 1]])  # lowers both: 1 shrinks and -1 grows
    weight.extras["scores"].assign(-found["scores"])
    np.testing.assert_array_equal(computed(wrapper, training=True), [[0, -1]])


def test_fraction():
    table = {2: 0, 3: 0.271, 7: 0.875, 12: 1, 20: 1}
    for method in (Movement(), SoftMovement()):
        found = {done: method.fraction(at_epoch(done - 1)) for done in table}
        assert found == pytest.approx(table)


# id: position of the ramp, scores, what is left
LIMITS = {
    "before the ramp": (0.0, [[-300, -3], [0, 9]], KERNEL),
    "below the limit of 0.4": (1.0, [[-0.5, -0.3], [0, 9]], [[0, -4], [3, -2]]),
    "half way, a limit of 0.2": (0.5, [[-1.5, -1.3], [0, 9]], [[0, -4], [3, -2]]),
    "scores of 0 are kept": (1.0, [[0, 0], [0, 0]], KERNEL),
    "all but one": (1.0, [[-1, -2], [-3, 0]], [[0, 0], [0, -2]]),
    "everything": (1.0, [[-1, -2], [-3, -4]], [[0, 0], [0, 0]]),
}


@pytest.mark.parametrize(("position", "scores", "left"), LIMITS.values(), ids=LIMITS)
def test_scores_below_the_limit_are_pruned(position, scores, left):
    wrapper, weight = wrap(KERNEL, SoftMovement(threshold=0.4, rate=4.0))
    weight.extras["scores"].assign(np.divide(scores, 4))
    weight.extras["position"].assign(position)
    assert_computes(wrapper, left)


@pytest.mark.parametrize(("epoch", "position"), [(1, 0), (2, 0.271), (11, 1), (19, 1)])
def test_update_moves_the_limit_and_counts(epoch, position):
    wrapper, weight = wrap(KERNEL, SoftMovement(threshold=0.4, rate=2.0))
    weight.extras["scores"].assign([[-0.75, -1.5], [-4.5, 0]])
    weight.method.update([weight], at_epoch(epoch))
    weight.method.count([weight])
    found = float(weight.extras["position"].numpy())
    assert found == pytest.approx(position, abs=1e-6)
    zeros = np.sum(computed(wrapper, training=True) == 0)
    assert int(weight.zeros.numpy()) == zeros
    assert zeros == (0 if epoch == 1 else 2 if epoch == 2 else 3)


@pytest.mark.parametrize("rate", [1.0, 30.0])
@pytest.mark.parametrize(("epoch", "position"), [(1, 0.0), (2, 0.271), (11, 1.0)])
def test_gradients_of_soft_movement(epoch, position, rate):
    """d/dV of sum(upstream * mask * w) + force * f * mean(sigmoid(S)), S = rate V."""
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    scores = np.float64(random_kernel(6, 5, seed=2))
    wrapper, weight = wrap(kernel, SoftMovement(force=7.0, rate=rate))
    weight.extras["scores"].assign(scores / rate)
    weight.method.update([weight], at_epoch(epoch))
    kept = reference.sigmoid(scores) > 0.1 * position
    found = gradients(wrapper, upstream)
    np.testing.assert_array_equal(found["kernel"], upstream * kept)
    step = 1e-5
    slope = (reference.sigmoid(scores + step) - reference.sigmoid(scores - step)) / (
        2 * step
    )
    expected = np.float64(upstream) * kernel + 7.0 * position * slope / 30
    np.testing.assert_allclose(found["scores"] / rate, expected, rtol=1e-5, atol=1e-6)


def test_the_force_is_that_of_the_mean_over_all_layers():
    """A score of a small layer is not pushed harder than one of a large layer."""
    method = SoftMovement(force=7.0, rate=1.0)
    (small, few), (large, many) = (
        wrap(random_kernel(rows, 5), method) for rows in (2, 6)
    )
    method.update([few, many], at_epoch(11))
    for wrapper, kernel in ((small, few), (large, many)):
        found = gradients(wrapper, np.zeros(kernel.variable.shape, "float32"))
        # 10 and 30 scores of 0, where the sigmoid's slope is a quarter.
        np.testing.assert_allclose(found["scores"], 7.0 / 40 / 4, rtol=1e-6)


def test_the_defaults_are_the_papers():
    method = SoftMovement()
    assert (method.force, method.threshold) == (400, 0.1)
    # Scores at 1e-2, weights at 3e-5.
    assert method.rate == pytest.approx(1e-2 / 3e-5, rel=1e-2)
    assert SoftMovement().learns_sparsity and not Movement().learns_sparsity


@pytest.mark.parametrize("threshold", [0, 0.5, -0.1, 1.0, math.nan])
def test_errors(threshold):
    message = rf"in \(0, 0\.5\).*Received: threshold={threshold}"
    with pytest.raises(ValueError, match=message):
        SoftMovement(threshold=threshold)
