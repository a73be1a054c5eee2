"""STR: soft thresholding by a trained scalar."""

import numpy as np
import pytest
import reference_methods
from wrapped import assert_computes, computed, gradients, random_kernel, wrap

from pdp_keras.methods import STR


def wrap_at(kernel, p, decay=0.0, rate=1.0):
    return wrap(kernel, STR(initial=p, decay=decay, rate=rate))


# sigmoid(0) is 1/2 in any precision. id: kernel, what is left
HALF = {
    "nearer to 0": ([[1, -0.75], [2, -3]], [[0.5, -0.25], [1.5, -2.5]]),
    "below": ([[0.25, -0.25], [1, -0.125]], [[0, 0], [0.5, 0]]),
    "on the threshold": ([[0.5, -0.5], [1, 2]], [[0, 0], [0.5, 1.5]]),
    "all weights 0": ([[0, 0], [0, 0]], [[0, 0], [0, 0]]),
    "all but one": ([[0.5, 0.25], [-0.75, 0]], [[0, 0], [-0.25, 0]]),
}


@pytest.mark.parametrize(("kernel", "left"), HALF.values(), ids=HALF)
def test_the_threshold_of_one_half(kernel, left):
    wrapper, weight = wrap_at(kernel, 0.0)
    assert_computes(wrapper, left)
    upstream = np.float32([[5, -6], [7, -8]])
    found = gradients(wrapper, upstream)
    kept = np.not_equal(left, 0)
    np.testing.assert_array_equal(found["kernel"], upstream * kept)
    # The slope of the sigmoid is 1/4 there.
    expected = -0.25 * np.sum(upstream * np.sign(kernel) * kept)
    np.testing.assert_array_equal(found["threshold"], expected)
    weight.method.count([weight])
    assert int(weight.zeros.numpy()) == np.sum(np.equal(left, 0))


@pytest.mark.parametrize("p", [-6.0, -2.0, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("rate", [1.0, 100.0])
def test_random_weights_against_the_formula(p, decay, rate):
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    wrapper, _ = wrap_at(kernel, p, decay, rate)
    expected = reference_methods.soft_threshold(kernel, p)
    left = computed(wrapper, training=True)
    np.testing.assert_allclose(left, expected, rtol=1e-5, atol=1e-7)
    found = gradients(wrapper, upstream)
    of_weights, of_p = reference_methods.soft_threshold_gradients(
        kernel, p, upstream, decay
    )
    np.testing.assert_array_equal(found["kernel"], of_weights.astype("float32"))
    np.testing.assert_allclose(found["threshold"], rate * of_p, rtol=1e-4)


def test_the_gradient_of_the_threshold_is_that_of_the_formula():
    """Against a difference, which knows nothing of the closed form."""
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    p, step = -1.0, 1e-4
    above, below = (
        np.sum(upstream * reference_methods.soft_threshold(kernel, p + d))
        for d in (step, -step)
    )
    wrapper, _ = wrap_at(kernel, p)
    found = gradients(wrapper, upstream)["threshold"]
    np.testing.assert_allclose(found, (above - below) / (2 * step), rtol=1e-4)


def test_the_decay_alone_draws_the_threshold_up():
    wrapper, _ = wrap_at(random_kernel(3, 2), -6.0, decay=0.5)
    assert gradients(wrapper, np.zeros((3, 2)))["threshold"] == -3.0


def test_it_learns_its_sparsity():
    assert STR().learns_sparsity
    wrapper, weight = wrap(random_kernel(3, 2), "str")
    assert float(weight.extras["threshold"].numpy()) == -6.0
    names = {v.name for v in wrapper.trainable_variables}
    assert names == {"kernel", "kernel_threshold"}
