"""Unstructured: every weight for itself, as the wrapper calls it."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from pdp_keras.masks.temperatures import AbsoluteTemperature, RelativeTemperature
from pdp_keras.modes.unstructured import Unstructured

WEIGHTS = np.float32([[0.3, -0.1], [0.2, -0.5]])


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: without layers there is no session to clear."""


@pytest.mark.parametrize(
    ("shape", "units"),
    (((3, 4), 12), ((3, 3, 2, 5), 90), ((7,), 7), ((), 1), ((0, 3), 0)),
    ids=str,
)
def test_units_are_weights(shape, units):
    assert Unstructured().units(shape, None) == units


@pytest.mark.parametrize(
    ("zeros", "threshold"), ((0, 0), (1, 0.15), (2, 0.25), (3, 0.4), (4, 0.5)), ids=str
)
def test_threshold_ignores_signs(zeros, threshold):
    found = Unstructured().threshold(tf.constant(WEIGHTS), zeros, None)
    assert found.shape == ()
    np.testing.assert_allclose(found, threshold, rtol=1e-6)


# id: weights, zeros, what is left
HARD = {
    "nothing": (WEIGHTS, 0, WEIGHTS),
    "half": (WEIGHTS, 2, [[0.3, 0], [0, -0.5]]),
    "everything": (WEIGHTS, 4, [[0, 0], [0, 0]]),
    "ties-of-both-signs-by-position": ([-1, 1, -1, 1], 3, [0, 0, 0, 1]),
    "constant": ([0.5] * 4, 1, [0, 0.5, 0.5, 0.5]),
    "negative-zero-is-a-zero": ([-0.0, 0.0, 1], 1, [0, 0, 1]),
    # x86 makes negative NaNs; a NaN goes last, so that it is noticed.
    "nan-is-kept": ([-np.nan, 1, -2], 2, [np.nan, 0, 0]),
}


@pytest.mark.parametrize(
    "jit_compile", (None, False, True), ids=("eager", "graph", "xla")
)
@pytest.mark.parametrize(("weights", "zeros", "left"), HARD.values(), ids=HARD)
def test_hard_masked(weights, zeros, left, jit_compile):
    compute = Unstructured().hard_masked
    if jit_compile is not None:
        compute = tf.function(compute, jit_compile=jit_compile)
    found = compute(tf.constant(weights, tf.float32), tf.constant(zeros), None)
    np.testing.assert_array_equal(found, np.float32(left))


@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float32"))
def test_hard_masked_keeps_the_dtype_and_the_kept_values(dtype):
    weights = tf.cast(WEIGHTS, dtype)
    found = Unstructured().hard_masked(weights, 2, None)
    assert found.dtype == dtype
    kept = ~reference.smallest(np.abs(WEIGHTS), 2)
    np.testing.assert_array_equal(
        tf.cast(found, tf.float32), tf.cast(weights, tf.float32) * kept
    )


@pytest.mark.parametrize(
    "temperature",
    (AbsoluteTemperature(1e-2), RelativeTemperature(0.5)),
    ids=("absolute", "relative"),
)
@pytest.mark.parametrize("zeros", (1, 2, 3, 4))
def test_soft_masked_with_its_gradient(temperature, zeros):
    weights = tf.constant(WEIGHTS)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        masked = Unstructured().soft_masked(weights, zeros, None, temperature.width)
    threshold = reference.threshold(np.abs(WEIGHTS), zeros)
    if isinstance(temperature, AbsoluteTemperature):
        width = temperature.value**0.5
    else:
        width = threshold * temperature.factor**0.5
    np.testing.assert_allclose(
        masked, WEIGHTS * reference.soft_mask(WEIGHTS, threshold, width), rtol=1e-5
    )
    np.testing.assert_allclose(
        tape.gradient(masked, weights),
        reference.soft_masked_slope(WEIGHTS, threshold, width),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "temperature",
    (AbsoluteTemperature(1e-2), RelativeTemperature(0.5)),
    ids=("absolute", "relative"),
)
def test_with_no_zeros_the_weights_are_themselves(temperature):
    weights = tf.constant(WEIGHTS)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        masked = Unstructured().soft_masked(weights, 0, None, temperature.width)
    np.testing.assert_array_equal(masked, WEIGHTS)
    np.testing.assert_array_equal(tape.gradient(masked, weights), np.ones((2, 2)))


def test_all_weights_zero_stay_finite():
    """t is 0, and a temperature relative to it as well."""
    weights = tf.zeros((2, 2))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        width = RelativeTemperature(0.5).width
        masked = Unstructured().soft_masked(weights, 3, None, width)
    np.testing.assert_array_equal(masked, np.zeros((2, 2)))
    np.testing.assert_array_equal(tape.gradient(masked, weights), np.ones((2, 2)))
