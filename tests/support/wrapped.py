"""A wrapped Dense layer whose kernel, gradients and moments are given literally."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from pdp_keras import PDPWrapper
from pdp_keras.scheduling.moment import Moment
from pdp_keras.scheduling.schedules import LinearRamp

# id: kernel, zeros, what a cut by magnitude leaves
CUTS = {
    "the smallest": ([[1, -4], [3, -2]], 2, [[0, -4], [3, 0]]),
    "ties by position": ([[2, -2], [2, 2]], 2, [[0, 0], [2, 2]]),
    "tied with a larger one": ([[2, -2], [5, 2]], 2, [[0, 0], [5, 2]]),
    "all weights 0": ([[0, 0], [0, 0]], 3, [[0, 0], [0, 0]]),
    "nothing": ([[1, -4], [3, -2]], 0, [[1, -4], [3, -2]]),
    "all but one": ([[1, -4], [3, -2]], 3, [[0, -4], [0, 0]]),
    "everything": ([[1, -4], [3, -2]], 4, [[0, 0], [0, 0]]),
}

# Of a test of (kernel, zeros, left).
every_cut = pytest.mark.parametrize(
    ("kernel", "zeros", "left"), CUTS.values(), ids=CUTS
)


def random_kernel(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def wrap(kernel, method, zeros=0, sparsity=None, **arguments):
    """A wrapped Dense without a bias, with this kernel, and its one pruned weight."""
    kernel = np.asarray(kernel, "float32")
    layer = layers.Dense(kernel.shape[1], use_bias=False)
    wrapper = PDPWrapper(layer, sparsity, method=method, **arguments)
    wrapper.build((None, kernel.shape[0]))
    wrapper.is_scheduled = True
    layer.kernel.assign(kernel)
    (weight,) = wrapper.pruned_weights
    weight.zeros.assign(zeros)
    return wrapper, weight


def computed(wrapper, training):
    """The kernel that the layer computes with."""
    identity = np.eye(wrapper.layer.kernel.shape[0], dtype="float32")
    return np.asarray(wrapper(identity, training=training))


def assert_computes(wrapper, kernel):
    """In training and at inference."""
    np.testing.assert_array_equal(computed(wrapper, training=True), kernel)
    np.testing.assert_array_equal(computed(wrapper, training=False), kernel)


def gradients(wrapper, upstream):
    """The gradients of sum(upstream * kernel) by name, those of the extras too."""
    (weight,) = wrapper.pruned_weights
    variables = {"kernel": weight.variable}
    variables |= {k: v for k, v in weight.extras.items() if v.trainable}
    identity = np.eye(weight.variable.shape[0], dtype="float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapper(identity, training=True) * np.float32(upstream))
    found = tape.gradient(loss, {k: v.value for k, v in variables.items()})
    return {name: np.asarray(gradient) for name, gradient in found.items()}


def at_step(step, steps_per_epoch=10, epochs=20, warmup=2, ramp=10, **arguments):
    """The moment of a step of a run of 200, whose ramp goes from step 20 to 119."""
    done = (step + 1) / steps_per_epoch
    known = LinearRamp(warmup, ramp), epochs, step, steps_per_epoch
    return Moment(done, *known, **arguments)


def at_epoch(epoch, epochs=20, warmup=2, ramp=10):
    """The moment of an epoch, from 0, of a run that goes by epoch."""
    return Moment(epoch + 1, LinearRamp(warmup, ramp), epochs)


def due_steps(method, **arguments):
    """The steps of a run of 200 at which the mask may change."""
    return [step for step in range(200) if method.is_due(at_step(step, **arguments))]
