"""Order statistics: exact for any float32, in every way that TensorFlow runs code."""

import functools

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from keras import ops

from pdp_keras.masks import compilation, thresholds

INF = np.float32(np.inf)
NAN = np.float32(np.nan)
LARGEST = np.finfo("float32").max
NORMAL = np.finfo("float32").tiny
# The three smallest numbers above 0.
DENORMAL, TWO_DENORMALS, THREE_DENORMALS = np.int32([1, 2, 3]).view("float32")

FUNCTIONS = {
    "order_statistics": thresholds.order_statistics,
    "midpoint_threshold": thresholds.midpoint_threshold,
    "smallest": thresholds.smallest,
}
SETTINGS = ("eager", "graph", "xla", "sort")


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: without layers there is no session to clear."""


@functools.cache
def compiled(name, jit_compile):
    return tf.function(FUNCTIONS[name], jit_compile=jit_compile)


def run(setting, name, magnitudes, rank):
    """The function in one of the settings; a float32 array and a scalar tensor."""
    magnitudes = tf.constant(magnitudes, tf.float32)
    rank = tf.constant(rank, tf.int32)
    if setting == "sort":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(thresholds, "_selection", lambda: thresholds._select_by_sort)
            result = FUNCTIONS[name](magnitudes, rank)
    elif setting == "eager":
        result = FUNCTIONS[name](magnitudes, rank)
    else:
        result = compiled(name, setting == "xla")(magnitudes, rank)
    return tf.nest.map_structure(lambda x: x.numpy(), result)


def cases(table, settings=SETTINGS):
    """Parameters from a table of cases in each setting.

    Not a NaN in the sort: the sorts of JAX and PyTorch put it last, that of
    TensorFlow, which only this test asks, puts it anywhere.
    """
    return [
        pytest.param(setting, *case, id=f"{name}-{setting}")
        for name, case in table.items()
        for setting in settings
        if not (setting == "sort" and np.isnan(np.float32(case[0])).any())
    ]


def assert_same_bits(found, expected):
    """Equal as bits: NumPy's == takes a NaN for unequal and hides nothing else."""
    found, expected = np.float32(found), np.float32(expected)
    np.testing.assert_array_equal(found.view("int32"), expected.view("int32"))


# id: magnitudes, rank, lower, upper
ORDER_CASES = {
    "distinct": ([3, 1, 2, 5], 2, 2, 3),
    "rank-0-gives-the-smallest-twice": ([3, 1, 2], 0, 1, 1),
    "rank-1": ([3, 1, 2], 1, 1, 2),
    "rank-n-gives-the-largest-twice": ([3, 1, 2], 3, 3, 3),
    "tie-across-the-rank": ([2, 1, 2, 3], 2, 2, 2),
    "tie-ends-at-the-rank": ([2, 1, 2, 3], 3, 2, 3),
    "constant": ([0.5] * 6, 3, 0.5, 0.5),
    "one-rank-0": ([7], 0, 7, 7),
    "one-rank-1": ([7], 1, 7, 7),
    "two-rank-0": ([9, 8], 0, 8, 8),
    "two-rank-1": ([9, 8], 1, 8, 9),
    "two-rank-2": ([9, 8], 2, 9, 9),
    "all-zeros": ([0, 0, 0], 2, 0, 0),
    "zeros-below": ([0, 4, 0, 3], 2, 0, 3),
    "neighbours-in-the-last-bit": (
        [np.nextafter(np.float32(1), INF), 1],
        1,
        1,
        np.nextafter(np.float32(1), INF),
    ),
    "same-upper-bits": ([1.0001, 1.0003, 1.0002], 2, 1.0002, 1.0003),
    "largest-and-smallest-normal": ([LARGEST, NORMAL], 1, NORMAL, LARGEST),
    "infinity-above": ([INF, 1, 2], 2, 2, INF),
    "infinities": ([INF, 1, INF], 2, INF, INF),
    "nan-ranks-above-infinity": ([NAN, 1, INF], 2, INF, NAN),
    "nan-is-not-reached": ([NAN, 1, 2, 3], 2, 2, 3),
    "all-nan": ([NAN, NAN], 1, NAN, NAN),
}


@pytest.mark.parametrize(
    ("setting", "magnitudes", "rank", "lower", "upper"), cases(ORDER_CASES)
)
def test_order_statistics(setting, magnitudes, rank, lower, upper):
    found = run(setting, "order_statistics", np.float32(magnitudes), rank)
    assert_same_bits(found[0], lower)
    assert_same_bits(found[1], upper)


# TensorFlow's sort takes denormal numbers for zeros, so the sort path is not here.
DENORMAL_CASES = {
    "below-a-normal": ([1, DENORMAL], 1, DENORMAL, 1),
    "above-zero": ([DENORMAL, 0], 1, 0, DENORMAL),
    "among-themselves": (
        [THREE_DENORMALS, DENORMAL, TWO_DENORMALS],
        2,
        TWO_DENORMALS,
        THREE_DENORMALS,
    ),
}


@pytest.mark.parametrize(
    ("setting", "magnitudes", "rank", "lower", "upper"),
    cases(DENORMAL_CASES, SETTINGS[:3]),
)
def test_order_statistics_of_denormals(setting, magnitudes, rank, lower, upper):
    found = run(setting, "order_statistics", np.float32(magnitudes), rank)
    assert_same_bits(found[0], lower)
    assert_same_bits(found[1], upper)


@pytest.mark.parametrize("setting", ("eager", "graph", "xla"))
def test_smallest_tells_denormals_from_zero(setting):
    magnitudes = np.float32([TWO_DENORMALS, 0, DENORMAL, 1])
    pruned = run(setting, "smallest", magnitudes, 2)
    np.testing.assert_array_equal(pruned, [False, True, True, False])


# id: magnitudes, zeros, threshold
MIDPOINT_CASES = {
    "halfway": ([3, 1, 2, 5], 2, 2.5),
    "nothing-to-prune": ([3, 1, 2], 0, 0),
    "everything-to-prune": ([3, 1, 2], 3, 3),
    "tie": ([2, 2, 2, 1], 2, 2),
    "constant": ([0.25] * 4, 1, 0.25),
    "one-kept": ([7], 0, 0),
    "one-pruned": ([7], 1, 7),
    "two": ([1, 2], 1, 1.5),
    "all-zeros": ([0, 0], 1, 0),
    "zeros-below": ([0, 0, 1], 2, 0.5),
    "the-sum-would-overflow": ([LARGEST, LARGEST, 1], 2, LARGEST),
    "far-apart": ([1e-30, 1e30], 1, 5e29),
    "infinity-kept": ([1, INF], 1, INF),
    "nan-not-reached": ([1, 2, NAN], 1, 1.5),
    "nan-kept": ([1, NAN], 1, NAN),
}


@pytest.mark.parametrize(
    ("setting", "magnitudes", "zeros", "expected"), cases(MIDPOINT_CASES)
)
def test_midpoint_threshold(setting, magnitudes, zeros, expected):
    found = run(setting, "midpoint_threshold", np.float32(magnitudes), zeros)
    assert found.shape == () and found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32(expected))


# id: magnitudes, zeros, 1 for pruned
SMALLEST_CASES = {
    "distinct": ([3, 1, 2, 5], 2, [0, 1, 1, 0]),
    "none": ([3, 1, 2], 0, [0, 0, 0]),
    "all": ([3, 1, 2], 3, [1, 1, 1]),
    "ties-by-position": ([2, 1, 2, 2], 2, [1, 1, 0, 0]),
    "ties-all-taken": ([2, 1, 2, 3], 3, [1, 1, 1, 0]),
    "constant": ([0.5] * 5, 3, [1, 1, 1, 0, 0]),
    "constant-zeros": ([0] * 4, 1, [1, 0, 0, 0]),
    "one-kept": ([7], 0, [0]),
    "one-pruned": ([7], 1, [1]),
    "two-equal": ([7, 7], 1, [1, 0]),
    "more-zeros-than-asked": ([0, 1, 0, 0], 2, [1, 0, 1, 0]),
    "fewer-zeros-than-asked": ([0, 2, 1], 2, [1, 0, 1]),
    "infinity-goes-last": ([INF, 1, 2], 2, [0, 1, 1]),
    "infinities-by-position": ([INF, 1, INF], 2, [1, 1, 0]),
    "nan-goes-last": ([NAN, INF, 1], 2, [0, 1, 1]),
    "matrix-row-by-row": ([[1, 1], [1, 1]], 3, [[1, 1], [1, 0]]),
    "four-axes": ([[[[1]], [[1]]]], 1, [[[[1]], [[0]]]]),
}


@pytest.mark.parametrize(
    ("setting", "magnitudes", "zeros", "expected"), cases(SMALLEST_CASES)
)
def test_smallest(setting, magnitudes, zeros, expected):
    found = run(setting, "smallest", np.float32(magnitudes), zeros)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, np.bool_(expected))


# Few distinct values, so that ties are the rule. Halves of them are normal numbers:
# TensorFlow, when it adds or sorts, takes smaller ones for zeros.
MAGNITUDES = numpy_st.arrays(
    "float32",
    st.sampled_from([(1,), (2,), (7,), (2, 3, 4)]),
    elements=st.one_of(
        st.sampled_from([0.0, 0.5, 1.0, 1e-30, 1e30, float(INF)]),
        st.floats(2.0**-125, float(LARGEST), width=32),
    ),
)


@st.composite
def magnitudes_and_rank(draw):
    magnitudes = draw(MAGNITUDES)
    return magnitudes, draw(st.integers(0, magnitudes.size))


@pytest.mark.parametrize("setting", SETTINGS)
@settings(max_examples=30)
@given(case=magnitudes_and_rank())
def test_agrees_with_sorting(setting, case):
    magnitudes, rank = case
    lower, upper = run(setting, "order_statistics", magnitudes, rank)
    expected = reference.order_statistics(magnitudes, rank)
    assert_same_bits(lower, expected[0])
    assert_same_bits(upper, expected[1])
    np.testing.assert_array_equal(
        run(setting, "midpoint_threshold", magnitudes, rank),
        np.float32(reference.threshold(magnitudes, rank)),
    )
    pruned = run(setting, "smallest", magnitudes, rank)
    assert pruned.sum() == rank
    np.testing.assert_array_equal(pruned, reference.smallest(magnitudes, rank))


@pytest.mark.parametrize("setting", ("eager", "graph", "xla"))
@settings(max_examples=30)
@given(
    bits=numpy_st.arrays("int32", 24, elements=st.integers(0, 2**31 - 1)),
    rank=st.integers(0, 24),
)
def test_any_bits_keep_their_order(setting, bits, rank):
    """Denormals, infinities and every NaN included: the bits are the order."""
    ordered = np.sort(bits)
    lower, upper = run(setting, "order_statistics", bits.view("float32"), rank)
    assert lower.view("int32") == ordered[max(rank - 1, 0)]
    assert upper.view("int32") == ordered[min(rank, 23)]
    pruned = run(setting, "smallest", bits.view("float32"), rank)
    np.testing.assert_array_equal(pruned, reference.smallest(bits, rank))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_large_kernel(setting):
    magnitudes = np.abs(np.random.default_rng(0).normal(size=(1000, 1000)))
    # A grid makes thousands of ties and leaves few distinct upper bits.
    magnitudes = np.float32(np.round(magnitudes * 0.05, 5))
    zeros = 850_001
    np.testing.assert_array_equal(
        run(setting, "midpoint_threshold", magnitudes, zeros),
        np.float32(reference.threshold(magnitudes, zeros)),
    )
    pruned = run(setting, "smallest", magnitudes, zeros)
    assert pruned.sum() == zeros
    np.testing.assert_array_equal(pruned, reference.smallest(magnitudes, zeros))


@pytest.mark.parametrize(
    "rank",
    (2, np.int64(2), tf.constant(2, tf.int32), tf.constant(2, tf.int64)),
    ids=("int", "numpy-int64", "int32", "int64"),
)
@pytest.mark.parametrize("jit_compile", (None, False, True), ids=SETTINGS[:3])
def test_any_kind_of_rank(rank, jit_compile):
    def compute(x, k):
        return thresholds.midpoint_threshold(x, k), thresholds.smallest(x, k)

    if jit_compile is not None:
        compute = tf.function(compute, jit_compile=jit_compile)
    threshold, pruned = compute(tf.constant([3.0, 1.0, 2.0, 5.0]), rank)
    assert float(threshold) == 2.5
    np.testing.assert_array_equal(pruned, [False, True, True, False])


@pytest.mark.parametrize("jit_compile", (None, False, True), ids=SETTINGS[:3])
def test_an_empty_kernel_has_no_threshold(jit_compile):
    def compute(x, k):
        return thresholds.midpoint_threshold(x, k), thresholds.smallest(x, k)

    if jit_compile is not None:
        compute = tf.function(compute, jit_compile=jit_compile)
    threshold, pruned = compute(tf.zeros((3, 0)), tf.constant(0))
    assert float(threshold) == 0
    assert pruned.shape == (3, 0)


def test_gives_tensors_of_the_kind_that_keras_gives():
    lower, upper = thresholds.order_statistics(ops.array([3.0, 1.0, 2.0]), 1)
    assert ops.is_tensor(lower) and ops.is_tensor(upper)
    assert (float(lower), float(upper)) == (1.0, 2.0)


@pytest.mark.parametrize("jit_compile", (False, True), ids=("graph", "xla"))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_rank_does_not_retrace(name, jit_compile):
    """The sparsity rises every epoch: a retrace would compile the step again."""
    traces = []

    @tf.function(jit_compile=jit_compile)
    def compute(x, k):
        traces.append(k)
        return FUNCTIONS[name](x, k)

    zeros = tf.Variable(0)
    for k in range(5):
        zeros.assign(k)
        compute(tf.constant([3.0, 1.0, 2.0, 5.0]), zeros)
    assert len(traces) == 1


def op_types(concrete):
    """The types of all ops in a graph and in the functions that it calls."""
    definition = concrete.graph.as_graph_def()
    nodes = [
        *definition.node,
        *(n for f in definition.library.function for n in f.node_def),
    ]
    return {node.op for node in nodes}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("jit_compile", "way"),
    ((None, "DenseBincount"), (False, "StatelessWhile"), (True, "StatelessWhile")),
    ids=("without-xla", "graph", "xla"),
)
def test_nothing_is_sorted(name, jit_compile, way, monkeypatch):
    """A sort costs more than the training step; see the module's docstring."""
    if jit_compile is None:
        monkeypatch.setattr(compilation, "has_xla", lambda: False)
    compute = tf.function(FUNCTIONS[name], jit_compile=jit_compile)
    types = op_types(
        compute.get_concrete_function(
            tf.TensorSpec((64, 3), tf.float32), tf.TensorSpec((), tf.int32)
        )
    )
    assert way in types
    sorting = {t for t in types if "Sort" in t or "TopK" in t or "Unique" in t}
    assert sorting == set()


def test_the_sort_is_seen_by_that_test(monkeypatch):
    monkeypatch.setattr(compilation, "has_xla", lambda: False)
    monkeypatch.setattr(
        thresholds, "_select_by_histogram", lambda x, *_: (ops.sort(x)[0],) * 2
    )
    compute = tf.function(thresholds.midpoint_threshold)
    types = op_types(
        compute.get_concrete_function(
            tf.TensorSpec((64,), tf.float32), tf.TensorSpec((), tf.int32)
        )
    )
    assert any("Sort" in t or "TopK" in t for t in types)


@pytest.mark.parametrize("name", ("midpoint_threshold", "smallest"))
def test_nothing_is_computed_while_nothing_is_pruned(name, monkeypatch):
    """Warm-up pays for a comparison: the rest waits in a branch not taken."""
    monkeypatch.setattr(compilation, "has_xla", lambda: False)
    compute = tf.function(FUNCTIONS[name])
    concrete = compute.get_concrete_function(
        tf.TensorSpec((64,), tf.float32), tf.TensorSpec((), tf.int32)
    )
    outside = {op.type for op in concrete.graph.get_operations()}
    assert "StatelessIf" in outside or "If" in outside
    assert not outside & {"DenseBincount", "Cumsum", "Bitcast", "Sum"}
