"""Functions with a gradient of their own, run in every way that TensorFlow has."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from wrapped import random_kernel

from pdp_keras.masks.custom_gradient import straight_through, with_gradient

MODES = pytest.mark.parametrize("mode", ["eager", "graph", "xla"])


def run(function, mode, *inputs):
    """The output and the gradients of its sum times what grows by 1 a place."""

    def differentiate(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = function(*inputs)
            places = tf.range(tf.size(output), dtype="float32")
            loss = tf.reduce_sum(output * tf.reshape(places, output.shape))
        return output, tape.gradient(loss, inputs)

    if mode != "eager":
        differentiate = tf.function(differentiate, jit_compile=mode == "xla")
    output, gradients = differentiate(*map(tf.constant, inputs))
    return np.asarray(output), [np.asarray(gradient) for gradient in gradients]


@MODES
def test_the_gradient_is_the_given_one(mode):
    """Of one input: that of 7 x**3 where the function is x**2."""
    inputs = np.float32([[1, -2, 3]])
    output, (gradient,) = run(
        lambda x: with_gradient(
            ops.square, lambda upstream, x: (upstream * 21 * x * x,), x
        ),
        mode,
        inputs,
    )
    np.testing.assert_array_equal(output, [[1, 4, 9]])
    np.testing.assert_array_equal(gradient, [[0, 84, 2 * 189]])


@MODES
def test_each_input_gets_a_gradient_of_its_shape(mode):
    matrix, row, scalar = np.ones((2, 3), "f4"), np.float32([1, 2, 4]), np.float32(3)

    def gradient(upstream, matrix, row, scalar):
        assert matrix.shape == (2, 3) and row.shape == (3,) and scalar.shape == ()
        return upstream * row, ops.sum(upstream, axis=0), ops.sum(matrix) * scalar

    output, found = run(
        lambda *inputs: with_gradient(lambda m, r, s: m * r + s, gradient, *inputs),
        mode,
        matrix,
        row,
        scalar,
    )
    np.testing.assert_array_equal(output, [[4, 5, 7], [4, 5, 7]])
    np.testing.assert_array_equal(found[0], [[0, 2, 8], [3, 8, 20]])
    np.testing.assert_array_equal(found[1], [3, 5, 7])
    np.testing.assert_array_equal(found[2], 18)


@MODES
def test_it_is_differentiated_within_a_larger_function(mode):
    inputs = np.float32([1, -2, 3])
    _, (gradient,) = run(
        lambda x: 2 * with_gradient(ops.abs, lambda up, x: (10 * up,), 5 * x),
        mode,
        inputs,
    )
    np.testing.assert_array_equal(gradient, [0, 100, 200])


@MODES
def test_straight_through(mode):
    inputs, outputs = np.float32([1, -2, 3]), np.float32([7, 0, 3])
    found, (of_inputs, of_outputs) = run(
        lambda x, y: straight_through(x, y) + 0 * y, mode, inputs, outputs
    )
    np.testing.assert_array_equal(found, outputs)
    np.testing.assert_array_equal(of_inputs, [0, 1, 2])
    np.testing.assert_array_equal(of_outputs, [0, 0, 0])


@MODES
def test_straight_through_a_mask_is_exact(mode):
    """To the last bit, for weights of all magnitudes."""
    weights = random_kernel(1000) * 10 ** random_kernel(1000, seed=1)
    masked = np.where(random_kernel(1000, seed=2) > 0, weights, 0)
    found, _ = run(lambda x, y: straight_through(x, y) + 0 * y, mode, weights, masked)
    np.testing.assert_array_equal(found, masked)
