"""Thresholds and masks of rows are those of each row by itself."""

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pdp_keras.masks import midpoint_threshold, row_thresholds, rows, smallest
from pdp_keras.masks import smallest_of_rows as smallest_of

NAN = float("nan")
CASES = [
    # rows, zeros of each, thresholds
    ([[3.0, 1.0, 2.0, 5.0]], [2], [2.5]),
    ([[3.0, 1.0, 2.0, 5.0]] * 3, [0, 1, 4], [0.0, 1.5, 5.0]),
    ([[-2.0, 2.0, 2.0], [0.0, 0.0, 4.0]], [1, 2], [2.0, 2.0]),
    ([[3e38, -2e38], [-1e-30, 3e-30]], [1, 1], [2.5e38, 2e-30]),
    ([[NAN, 1.0, 3.0], [NAN, NAN, 1.0]], [1, 1], [2.0, NAN]),
]
MARKS = [
    ([[2.0, 1.0, 2.0, 2.0]], [2], [[1, 1, 0, 0]]),
    ([[2.0, 1.0, 2.0, 2.0]] * 3, [0, 1, 4], [[0] * 4, [0, 1, 0, 0], [1] * 4]),
    ([[0.0, -0.0, 0.0], [5.0, 4.0, 5.0]], [2, 2], [[1, 1, 0], [1, 1, 0]]),
    ([[NAN, 1.0, NAN], [1.0, NAN, 1.0]], [2, 1], [[1, 1, 0], [1, 0, 0]]),
]
KINDS = ["eager", "graph", "xla"]


def run(function, kind, *tensors):
    if kind == "eager":
        return function(*tensors).numpy()
    return tf.function(function, jit_compile=kind == "xla")(*tensors).numpy()


def given(values, zeros):
    return tf.constant(values, "float32"), tf.constant(zeros, "int32")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("values", "zeros", "expected"), CASES)
def test_thresholds_of_rows(kind, values, zeros, expected):
    found = run(row_thresholds, kind, *given(values, zeros))
    np.testing.assert_array_equal(found, np.array(expected, "float32")[:, None])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("values", "zeros", "expected"), MARKS)
def test_smallest_of_rows(kind, values, zeros, expected):
    found = run(smallest_of, kind, *given(values, zeros))
    np.testing.assert_array_equal(found, np.array(expected, bool))


SHAPE = (3, 7)
FEW = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, 2.0, 3e38, -3e38])


@hypothesis.given(
    arrays.arrays("float32", SHAPE, elements=FEW | st.floats(width=32)),
    arrays.arrays("int32", SHAPE[:1], elements=st.integers(0, SHAPE[1])),
)
def test_counting_finds_what_a_sort_finds(values, zeros):
    bits = values.view("int32") & 0x7FFFFFFF
    lower = np.clip(zeros - 1, 0, None)[:, None]
    upper = np.clip(zeros, None, SHAPE[1] - 1)[:, None]
    found = rows._by_counting(*map(tf.constant, (bits, lower, upper)))
    ordered = np.sort(bits, axis=1)
    for rank, got in zip((lower, upper), found, strict=True):
        np.testing.assert_array_equal(got, np.take_along_axis(ordered, rank, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 5000), (40, 150), (1, 1)])
def test_rows_equal_each_by_itself(kind, shape):
    generator = np.random.default_rng(shape[1])
    # Rounded, so that there are ties.
    values = generator.normal(size=shape).round(2).astype("float32")
    zeros = generator.integers(0, shape[1] + 1, shape[0]).astype("int32")
    thresholds = run(row_thresholds, kind, *given(values, zeros))
    marks = run(smallest_of, kind, *given(values, zeros))
    assert marks.sum(axis=1).tolist() == zeros.tolist()
    for i, (row, count) in enumerate(zip(values, zeros, strict=True)):
        assert thresholds[i, 0] == ops.convert_to_numpy(midpoint_threshold(row, count))
        np.testing.assert_array_equal(marks[i], smallest(row, count))


def test_stacked_and_unstacked_are_inverse_and_differentiable():
    parts = [tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0])]
    with tf.GradientTape() as tape:
        tape.watch(parts)
        again = rows.unstacked(rows.stacked(parts) * [[10.0], [100.0]])
        # The second one alone is read.
        loss = tf.reduce_sum(again[1] * again[1])
    np.testing.assert_array_equal(again[0], [10.0, 20.0])
    gradients = tape.gradient(loss, parts)
    np.testing.assert_array_equal(gradients[0], [0.0, 0.0])
    np.testing.assert_array_equal(gradients[1], [6e4, 8e4])
