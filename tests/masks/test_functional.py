"""The soft mask, its closed-form gradient, and what the backward pass keeps."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from pdp_keras.masks import functional

INF = np.inf
LARGEST = float(np.finfo("float32").max)
SETTINGS = {"eager": None, "graph": False, "xla": True}


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: without layers there is no session to clear."""


def compiled(function, jit_compile):
    if jit_compile is None:
        return function
    return tf.function(function, jit_compile=jit_compile)


def tensors(*values):
    return [tf.constant(value, tf.float32) for value in values]


# id: scores, threshold, width, mask
MASKS = {
    "half-at-the-threshold": ([0.1], 0.1, 0.01, [0.5]),
    "hard-far-from-it": ([0, 1], 0.5, 0.01, [0, 1]),
    # sigmoid((1 - 4) / 3), sigmoid((9 - 4) / 3)
    "closed-form": ([1, 3], 2, 3**0.5, [0.2689414214, 0.8411308951]),
    "zero-weight": ([0], 1, 1, [0.2689414214]),
    "no-threshold-no-mask": ([0, 1e-30, 1], 0, 1e-3, [1, 1, 1]),
    "no-threshold-no-width": ([0, 1], 0, 0, [1, 1]),
    "one-threshold-a-column": ([[1, 1], [2, 2]], [[1, 2]], 1e-3, [[0.5, 0], [1, 0.5]]),
    "one-threshold-off": ([[1, 1]], [[0, 2]], [[0, 1e-3]], [[1, 0]]),
    "infinity-is-kept": ([INF], 1, 0.1, [1]),
    # Scaled by the width these two are above every bound; they are not equal.
    "both-far-above-the-width": ([0.5, 1, 2], 1, 1e-25, [0, 0.5, 1]),
    "width-below-normal-numbers": ([0, 1, 2], 1, 1e-40, [0, 0.5, 1]),
    "width-flushed-to-zero": ([0, 1, 2], 1, 0, [0, 0.5, 1]),
    # The width, a denormal, is taken for the smallest normal number.
    "tiny-threshold-and-width": ([1.3e-38, 1], 1.3e-38, 9e-39, [0.5, 1]),
    "huge-weights": ([1e30, LARGEST], 1e30, 1e29, [0.5, 1]),
}


@pytest.mark.parametrize("jit_compile", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(
    ("scores", "threshold", "width", "expected"), MASKS.values(), ids=MASKS
)
def test_soft_mask(scores, threshold, width, expected, jit_compile):
    mask = compiled(functional.soft_mask, jit_compile)(
        *tensors(scores, threshold, width)
    )
    assert mask.dtype == tf.float32
    np.testing.assert_allclose(mask, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("sign", (1, -1), ids=("positive", "negative"))
def test_soft_masked_is_the_mask_times_the_weights(sign):
    weights, threshold, width = tensors(np.float32([0, 1, 3]) * sign, 2, 3**0.5)
    np.testing.assert_allclose(
        functional.soft_masked(weights, threshold, width),
        np.array([0, 0.2689414214, 2.5233926853]) * sign,
        rtol=1e-6,
    )


def masked_and_gradient(jit_compile, weights, threshold, width, upstream):
    """m(w) w and the gradients of sum(upstream * m(w) w) in w, t and width."""

    def compute(w, t, s, u):
        with tf.GradientTape() as tape:
            tape.watch([w, t, s])
            masked = functional.soft_masked(w, t, s)
        return masked, tape.gradient(masked, [w, t, s], output_gradients=u)

    return compiled(compute, jit_compile)(*tensors(weights, threshold, width, upstream))


# From deep inside the mask to far outside of it, on both sides of the threshold.
WEIGHTS = np.float32(np.concatenate([np.linspace(-0.25, 0.25, 41), [0.1, -0.1, 1, -9]]))
BANDS = {
    "default-temperature": (0.1, 0.1 * 0.5**0.5),
    "paper-temperature": (0.1, 1e-2),
    "wide": (0.1, 1.0),
    "narrow": (0.1, 0.02),
}


@pytest.mark.parametrize("jit_compile", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("threshold", "width"), BANDS.values(), ids=BANDS)
def test_gradient_is_the_closed_form(threshold, width, jit_compile):
    upstream = np.float32(np.linspace(-2, 3, WEIGHTS.size))
    _, (gradient, _, _) = masked_and_gradient(
        jit_compile, WEIGHTS, threshold, width, upstream
    )
    slope = functional.soft_masked_slope(*tensors(WEIGHTS, threshold, width))
    # XLA may contract a product and a sum: a last bit, not another formula.
    np.testing.assert_allclose(gradient, slope * upstream, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("max_gain", (0.3, 1.0, 4.0, 1e9))
def test_gradient_is_bounded(max_gain, jit_compile):
    t, width = np.float32(0.1), np.float32(0.02)
    upstream = np.float32(np.linspace(-2, 3, WEIGHTS.size))

    def compute(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            masked = functional.soft_masked(w, t, width, max_gain)
        return masked, tape.gradient(masked, w, output_gradients=upstream)

    masked, gradient = compiled(compute, jit_compile)(tf.constant(WEIGHTS))
    slope = reference.soft_masked_slope(WEIGHTS, t, width)
    assert slope.max() > 13  # 1/2 + t**2 / (2 width**2) at the threshold
    expected = upstream * np.minimum(slope, max_gain)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    unbounded = functional.soft_masked(*tensors(WEIGHTS, t, width))
    np.testing.assert_allclose(masked, unbounded, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("threshold", "width"), BANDS.values(), ids=BANDS)
def test_slope_is_exact_to_float32(threshold, width, jit_compile):
    t, s = np.float32(threshold), np.float32(width)
    slope = compiled(functional.soft_masked_slope, jit_compile)(*tensors(WEIGHTS, t, s))
    expected = reference.soft_masked_slope(WEIGHTS, t, s)
    # A sigmoid of x is as exact as x, and x is rounded relative to itself: below
    # e**-10 digits are lost, but not where the slope matters.
    kept = reference.soft_mask(WEIGHTS, t, s) > 1e-4
    np.testing.assert_allclose(slope[kept], expected[kept], rtol=5e-6)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize(("threshold", "width"), BANDS.values(), ids=BANDS)
def test_reference_slope_is_the_derivative(threshold, width):
    weights = np.linspace(-0.25, 0.25, 101)
    h = 1e-6 * width

    def masked(w):
        return reference.soft_mask(w, threshold, width) * w

    differences = (masked(weights + h) - masked(weights - h)) / (2 * h)
    np.testing.assert_allclose(
        reference.soft_masked_slope(weights, threshold, width),
        differences,
        rtol=1e-7,
        atol=1e-8,
    )


@settings(max_examples=100)
@given(
    weights=numpy_st.arrays("float32", 16, elements=st.floats(-4, 4, width=32)),
    threshold=st.floats(2.0**-10, 2, width=32),
    factor=st.floats(0.02, 50),
)
def test_mask_and_slope_agree_with_float64(weights, threshold, factor):
    width = np.float32(threshold * factor**0.5)
    mask = functional.soft_mask(*tensors(np.abs(weights), threshold, width))
    slope = functional.soft_masked_slope(*tensors(weights, threshold, width))
    np.testing.assert_allclose(
        mask, reference.soft_mask(weights, threshold, width), rtol=2e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        slope,
        reference.soft_masked_slope(weights, threshold, width),
        rtol=2e-5,
        atol=1e-6,
    )
    assert np.all(slope > 0) or threshold < 1e-3 or np.any(mask == 0)


@pytest.mark.parametrize(
    ("threshold", "width"), ((0.1, 0.01), (0.05, 0.05)), ids=("21ish", "one")
)
def test_slope_at_the_threshold_is_the_known_gain(threshold, width):
    """1/2 + t**2 / (2 tau)."""
    slope = functional.soft_masked_slope(*tensors([threshold], threshold, width))
    gain = 0.5 + threshold**2 / (2 * width**2)
    np.testing.assert_allclose(slope, [gain], rtol=1e-6)


# id: weights, threshold, width, masked weights, slopes
EXTREMES = {
    "huge-weight": ([1e30, -1e30], 0.1, 0.1, [1e30, -1e30], [1, 1]),
    "largest-weight": ([LARGEST], 0.1, 1e-3, [LARGEST], [1]),
    "square-over-temperature-overflows": ([1e10], 1e-15, 1e-15, [1e10], [1]),
    "tiny-weight": ([1e-30], 0.1, 0.01, [0], [0]),
    "tiny-weight-in-a-wide-band": ([1e-30], 0.1, 1, [4.975e-31], [0.4975]),
    "tiny-threshold": ([0, 0.1], 1e-30, 1e-30, [0, 0.1], [0.2689, 1]),
    "tiny-temperature": ([0, 0.5, 2], 1, 1e-19, [0, 0, 2], [0, 0, 1]),
    "temperature-far-below-float32": ([0, 0.5, 2], 1, 1e-37, [0, 0, 2], [0, 0, 1]),
    "denormal-width": ([0, 0.5, 2], 1, 1e-40, [0, 0, 2], [0, 0, 1]),
    "huge-threshold": ([1, 1e38], 1e30, 1e29, [0, 1e38], [0, 1]),
    "infinite-weight": ([INF, -INF], 0.1, 0.1, [INF, -INF], [1, 1]),
    "nothing-pruned": ([0, 1e-30, -0.1, 1e30], 0, 0, [0, 1e-30, -0.1, 1e30], [1] * 4),
}


@pytest.mark.parametrize("jit_compile", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(
    ("weights", "threshold", "width", "masked", "slopes"),
    EXTREMES.values(),
    ids=EXTREMES,
)
def test_extreme_values(weights, threshold, width, masked, slopes, jit_compile):
    found, (gradient, _, _) = masked_and_gradient(
        jit_compile, weights, threshold, width, np.ones(len(weights))
    )
    np.testing.assert_allclose(found, masked, rtol=1e-3, atol=0)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-3, atol=0)


@pytest.mark.parametrize("jit_compile", SETTINGS.values(), ids=SETTINGS)
def test_at_the_threshold_a_tiny_width_stays_finite(jit_compile):
    """The true slope, 5e73, is no float32; it must not become a NaN."""
    masked, (gradient, _, _) = masked_and_gradient(jit_compile, [1], 1, 1e-37, [1])
    np.testing.assert_array_equal(masked, [0.5])
    assert np.all(np.isfinite(gradient)) and gradient[0] > 1e30


@pytest.mark.parametrize("jit_compile", SETTINGS.values(), ids=SETTINGS)
def test_without_a_threshold_the_weights_pass_unchanged(jit_compile):
    weights = np.float32(np.random.default_rng(0).normal(size=100))
    masked, (gradient, _, _) = masked_and_gradient(
        jit_compile, weights, 0, 0.01, weights
    )
    np.testing.assert_array_equal(masked, weights)
    np.testing.assert_array_equal(gradient, weights)


@pytest.mark.parametrize("jit_compile", SETTINGS.values(), ids=SETTINGS)
def test_threshold_and_width_are_constants(jit_compile):
    """A gradient through t would couple every weight to two others."""
    _, (_, *others) = masked_and_gradient(jit_compile, WEIGHTS, 0.1, 0.05, WEIGHTS)
    for gradient in others:
        assert gradient is None or float(tf.reduce_max(tf.abs(gradient))) == 0


@pytest.mark.parametrize("jit_compile", SETTINGS.values(), ids=SETTINGS)
def test_no_gradient_through_a_threshold_made_of_the_weights(jit_compile):
    def compute(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            t = tf.reduce_mean(tf.abs(w))
            masked = functional.soft_masked(w, t, 0.5 * t)
        return tape.gradient(masked, w), functional.soft_masked_slope(w, t, 0.5 * t)

    gradient, slope = compiled(compute, jit_compile)(tf.constant(WEIGHTS))
    np.testing.assert_allclose(gradient, slope, rtol=1e-6)


def test_each_threshold_of_a_broadcast_one():
    weights = np.float32([[1, 1], [2, 2]])
    thresholds = np.float32([[1, 2]])
    _, (gradient, _, _) = masked_and_gradient(
        None, weights, thresholds, 0.5 * thresholds, np.ones((2, 2))
    )
    expected = [
        [
            reference.soft_masked_slope(w, t, 0.5 * t)
            for w, t in zip(row, (1, 2), strict=True)
        ]
        for row in weights
    ]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def kept_for_backward(masked):
    """Which tensors of the size of the weights the forward pass hands to the backward.

    A `tf.function` under a tape becomes two: the first returns, after its result, all
    that the second needs. Each is followed back through the operations that only
    pass a tensor on.
    """
    n = 4321
    forward = tf.function(masked)

    @tf.function
    def step(w, t, s):
        with tf.GradientTape() as tape:
            tape.watch(w)
            result = forward(w, t, s)
        return tape.gradient(result, w, output_gradients=result)

    graph = step.get_concrete_function(
        tf.TensorSpec((n,)), tf.TensorSpec(()), tf.TensorSpec(())
    ).graph
    call = next(op for op in graph.get_operations() if "PartitionedCall" in op.type)
    name = call.get_attr("f").name
    function = next(
        f for f in graph.as_graph_def().library.function if f.signature.name == name
    )
    nodes = {node.name: node for node in function.node_def}

    arguments = [argument.name for argument in function.signature.input_arg]

    def origin(reference):
        source, _, rest = reference.partition(":")
        node = nodes.get(source)
        if node is None:
            return f"argument {arguments.index(source)}"
        index = int(rest.rpartition(":")[2])
        if node.op in {"Identity", "StopGradient"}:
            return origin(node.input[0])
        if node.op == "IdentityN":
            return origin(node.input[index])
        return f"{node.op} {source}"

    outputs = [
        origin(function.ret[argument.name])
        for argument in function.signature.output_arg
    ]
    sizes = [tensor.shape.num_elements() for tensor in call.outputs]
    result, *kept = [o for o, size in zip(outputs, sizes, strict=True) if size == n]
    return {o for o in kept if o != result}


def test_backward_keeps_nothing_but_the_weights():
    """Two passes over the weights' memory fewer, and a mask less in memory."""
    assert kept_for_backward(functional.soft_masked) == {"argument 0"}


def test_plain_differentiation_would_keep_masks():
    """The test above sees what is kept: here the formula is left to TensorFlow."""

    def masked(w, t, s):
        return w * functional.soft_mask(tf.abs(w), t, s)

    kept = kept_for_backward(masked)
    assert any(o.startswith("Sigmoid") or o.startswith("Select") for o in kept), kept
