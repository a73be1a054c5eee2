"""Allocations: how many zeros each weight gets."""

import json
import math
import re

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from pdp_keras import allocation
from pdp_keras.allocation.base import WeightInfo
from pdp_keras.allocation.global_magnitude import GlobalMagnitude


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: without layers there is no session to clear."""


def weights(*tensors):
    """Weights a/kernel, b/kernel, ... of layers a, b, ..."""
    return [
        WeightInfo(f"{layer}/kernel", layer, np.asarray(values, "float32"))
        for layer, values in zip("abcdefgh", tensors, strict=False)
    ]


def shaped(*shapes):
    """Weights by (fan_in, fan_out, *spatial), with values that nobody looks at."""
    return [
        WeightInfo(
            f"{i}/kernel", str(i), np.ones(math.prod(shape)), *shape[:2], shape[2:]
        )
        for i, shape in enumerate(shapes)
    ]


# id: sparsity, size, zeros
COUNTS = {
    "exact": (0.5, 10, 5),
    "down": (0.52, 10, 5),
    "up": (0.58, 10, 6),
    "nothing": (0.0, 10, 0),
    "decimal-fraction": (0.29, 100, 29),
    "one-weight": (0.8, 1, 1),
    "no-weight": (0.8, 0, 0),
    "beyond-float32": (0.85, 2**25 + 1, 28521268),
}


@pytest.mark.parametrize(("sparsity", "size", "zeros"), COUNTS.values(), ids=COUNTS)
def test_count_zeros(sparsity, size, zeros):
    found = allocation.count_zeros(sparsity, size)
    assert type(found) is int and found == zeros


@pytest.mark.parametrize(
    ("sparsity", "value"),
    ((0, 0.0), (0.5, 0.5), (np.float32(0.5), 0.5), (np.array(0.25), 0.25)),
    ids=("zero", "float", "numpy-scalar", "numpy-array"),
)
def test_check_sparsity(sparsity, value):
    found = allocation.check_sparsity(sparsity)
    assert type(found) is float and found == value


@pytest.mark.parametrize(
    "sparsity",
    (1, 1.0, 85, -0.1, math.nan, math.inf, True, False, "0.5", "x", None, [0.5, 0.5]),
    ids=repr,
)
def test_check_sparsity_errors(sparsity):
    message = re.escape(f"[0, 1): the fraction of zeros. Received: r={sparsity!r}")
    with pytest.raises(ValueError, match=f"^r must be a number in {message}$"):
        allocation.check_sparsity(sparsity, "r")


# id: weights, overall sparsity, floor, zeros
GLOBAL = {
    "the-smallest-go": ([[1, 4], [2, 3]], 0.5, 1.0, [1, 1]),
    "signs-do-not-matter": ([[-1, 4], [-2, -3]], 0.5, 1.0, [1, 1]),
    "one-layer-takes-all": ([[1, 2], [3, 4]], 0.5, 1.0, [2, 0]),
    "nothing": ([[1, 2], [3, 4]], 0.0, 1.0, [0, 0]),
    "total-is-rounded-once": ([[1], [2], [3]], 0.5, 1.0, [1, 1, 0]),
    "ties-by-position": ([[1, 1], [1, 1]], 0.75, 1.0, [2, 1]),
    "ties-in-the-middle": ([[1, 2], [2, 0], [2, 2]], 0.5, 1.0, [2, 1, 0]),
    "zeros-count": ([[0, 0, 0], [1, 2, 3]], 1 / 3, 1.0, [2, 0]),
    "any-shape": ([[[1, 8], [2, 9]], [5, 6, 7, 8]], 0.5, 1.0, [2, 2]),
    "floor": ([[1, 2, 3, 4], [5, 6, 7, 8]], 0.5, 0.75, [3, 1]),
    "floor-in-two-layers": ([[1, 2], [3, 4], [5, 6]], 0.5, 0.5, [1, 1, 1]),
    "floor-keeps-the-largest": ([[4, 1, 3, 2], [9, 9, 9, 9]], 0.25, 0.5, [2, 0]),
    "floor-rounds-down": ([[1, 2, 3], [5, 6, 7]], 0.5, 0.7, [2, 1]),
    "floor-of-a-decimal-fraction": (
        [range(100), range(100, 200)],
        0.145,
        0.29,
        [29, 0],
    ),
    "default-floor-spares-small-layers": (
        [range(10), range(10, 100)],
        0.5,
        0.99,
        [9, 41],
    ),
    "default-floor-spares-a-single-weight": ([[1], range(2, 21)], 0.5, 0.99, [0, 10]),
    "default-floor-at-its-own-sparsity": (
        [range(1000), range(1000, 2000)],
        0.99,
        None,
        [995, 985],
    ),
    "no-layer-above-a-given-floor": (
        [range(1000), range(1000, 2000)],
        0.985,
        0.99,
        [990, 980],
    ),
    "default-floor-below-it": (
        [range(1000), range(1000, 2000)],
        0.98,
        None,
        [990, 970],
    ),
    "floor-below-the-sparsity": ([[1, 2, 3, 4], [5, 6, 7, 8]], 0.5, 0.1, [2, 2]),
    "floors-that-leave-too-little": ([[1], [2]], 0.5, 0.5, [1, 0]),
    "one-layer": ([[3, 1, 2, 4]], 0.5, 0.99, [2]),
}


@pytest.mark.parametrize(
    ("tensors", "sparsity", "floor", "zeros"), GLOBAL.values(), ids=GLOBAL
)
def test_global(tensors, sparsity, floor, zeros):
    found = GlobalMagnitude(max_sparsity=floor)(weights(*tensors), sparsity)
    assert found == zeros and all(type(count) is int for count in found)


TENSORS = st.lists(
    numpy_st.arrays(
        "float32",
        st.integers(1, 40),
        # Few values, so that ties are the rule.
        elements=st.sampled_from([-2, -1, -0.5, 0, 0.25, 0.5, 1, 3]),
    ),
    min_size=1,
    max_size=5,
)
SPARSITIES = st.floats(0, 0.99)


@given(tensors=TENSORS, sparsity=SPARSITIES, floor=st.floats(0, 1))
def test_global_counts_add_up(tensors, sparsity, floor):
    found = GlobalMagnitude(floor)(weights(*tensors), sparsity)
    assert sum(found) == round(sparsity * sum(t.size for t in tensors))
    limit = max(floor, sparsity)
    for count, tensor in zip(found, tensors, strict=True):
        assert 0 <= count <= math.ceil(limit * tensor.size)


@given(tensors=TENSORS, sparsity=SPARSITIES)
def test_global_without_a_floor_is_the_plain_ranking(tensors, sparsity):
    found = GlobalMagnitude(max_sparsity=1.0)(weights(*tensors), sparsity)
    everything = np.abs(np.concatenate(tensors))
    pruned = reference.smallest(everything, round(sparsity * everything.size))
    ends = np.cumsum([t.size for t in tensors])[:-1]
    assert found == [part.sum() for part in np.split(pruned, ends)]


@given(tensors=TENSORS, sparsity=st.floats(0, 0.6), floor=st.floats(0.6, 1))
def test_global_with_a_floor_passes_over_full_tensors(tensors, sparsity, floor):
    total = round(sparsity * sum(t.size for t in tensors))
    if sum(int(floor * t.size + 1e-9) for t in tensors) < total:
        return  # some tensor must go beyond its floor: the test above covers it
    found = GlobalMagnitude(floor)(weights(*tensors), sparsity)
    assert found == reference.global_counts(tensors, sparsity, floor)


def test_global_looks_at_the_weights_only():
    """It must not reorder or scale what the layers still train."""
    tensors = [np.float32([3, -1, 2]), np.float32([5, 4, -6])]
    copies = [t.copy() for t in tensors]
    GlobalMagnitude(0.5)(weights(*tensors), 0.4)
    for tensor, copy in zip(tensors, copies, strict=True):
        np.testing.assert_array_equal(tensor, copy)


def test_global_tells_float64_neighbours_of_float32_apart():
    near = np.nextafter(np.float32(1), np.float32(2))
    assert GlobalMagnitude(1.0)(weights([near], [1]), 0.5) == [0, 1]


def test_whether_a_ranking_moves_is_left_open_and_changes_no_single_one():
    assert GlobalMagnitude().moving is None
    kinds = [GlobalMagnitude(moving=moving) for moving in (None, True, False)]
    assert len(set(kinds)) == 3
    tensors = [[1, 4, 6], [2, 3, 5]]
    assert [kind(weights(*tensors), 0.5) for kind in kinds] == [[1, 2]] * 3


# id: weights, overall sparsity, zeros. A score is w**2 over the sum of the squares of
# the weights of its tensor that come not before it in rising order.
LAMP = {
    # 1/17 and 1; 4/13 and 1.
    "the-lowest-go": ([[1, 4], [2, 3]], 0.5, [1, 1]),
    "signs-do-not-matter": ([[-4, 1], [-2, -3]], 0.5, [1, 1]),
    # 1/5 and 1; 9/25 and 1: by magnitude it were [2, 0].
    "no-layer-takes-all": ([[1, 2], [3, 4]], 0.5, [1, 1]),
    # 1/14, 4/13 and 1 in both: in turns, the first before the second.
    "twins": ([[3, 1, 2], [1, 2, 3]], 0.5, [2, 1]),
    "twins-of-other-scales": ([[300, 100, 200], [1, 2, 3]], 0.5, [2, 1]),
    # 1/4, 1/3, 1/2 and 1; 1/111, 1/11 and 1 as of 1, 10 and 100: alike weights stay.
    "the-spread-counts": ([[1, 1, 1, 1], [1, 10**0.5, 10]], 3 / 7, [1, 2]),
    # 1/2 and 1; 9/25 and 1; 1/4, 1/3, 1/2 and 1.
    "equal-weights": ([[5, 5], [3, 4], [7, 7, 7, 7]], 0.25, [0, 0, 2]),
    # 0 for every zero, also for the last of a tensor that has nothing else.
    "zeros": ([[0, 0], [0, 1], [2, 0]], 0.5, [2, 1, 0]),
    "zeros-in-all-positions": ([[0, 3, 0, 3], [0, 3, 3, 0]], 0.5, [2, 2]),
    "nothing-but-zeros": ([[0, 0], [0, 0]], 0.75, [2, 1]),
    # Each single weight is its tensor's largest: 1. The 100 have 1/100, 1/99, ...
    "single-weights-stay": ([[1e-6], [1e6], np.ones(100)], 98 / 102, [0, 0, 98]),
    "only-single-weights": ([[1], [2], [3]], 0.67, [1, 1, 0]),
    "the-largest-go-by-position": ([[5], [1, 2], [9]], 0.75, [1, 2, 0]),
    "the-smallest-float": ([[1e-45, 1e-45], [1, 3]], 0.25, [0, 1]),
    "beyond-the-largest-square": ([[3e38, 3e38], [1, 3]], 0.25, [0, 1]),
    "beyond-the-smallest-square": ([[1e-38, 3e38], [1, 3]], 0.25, [1, 0]),
    # 1/37, 1/9, 1/2 and 1; 1/2 and 1.
    "any-shape": ([[[1, 4], [2, 4]], [[3], [3]]], 0.5, [3, 0]),
    "an-empty-tensor": ([[], [1, 2]], 0.5, [0, 1]),
    "nothing": ([[1, 2], [3, 4]], 0.0, [0, 0]),
    "one-layer": ([[3, 1, 2, 4]], 0.5, [2]),
}


@pytest.mark.parametrize(("tensors", "sparsity", "zeros"), LAMP.values(), ids=LAMP)
def test_lamp(tensors, sparsity, zeros):
    found = allocation.get("lamp")(weights(*tensors), sparsity)
    assert found == zeros and all(type(count) is int for count in found)


def test_lamp_takes_one_weight_after_the_other():
    # 1/30, 4/29, 9/25, 1 and 1/3, 1/2, 1 and 1/17, 1.
    tensors = weights([4, -1, 3, 2], [6, 6, -6], [2, 8])
    order = [0, 2, 0, 1, 0, 1, 0, 1, 2]  # the tensors in the order of their scores
    share = GlobalMagnitude(max_sparsity=1.0, score="lamp")
    for total in range(9):
        zeros = [order[:total].count(tensor) for tensor in range(3)]
        assert share(tensors, total / 9) == zeros


# id: weights, sparsity, floor, zeros of the ranking by LAMP
LAMP_FLOORS = {
    # Below 1/99, but for the 1 of the largest; 1/4, 1/3, 1/2 and 1.
    "none": ([[1, 10, 100, 1000], [1, 1, 1, 1]], 0.5, 1.0, [3, 1]),
    "two": ([[1, 10, 100, 1000], [1, 1, 1, 1]], 0.5, 0.5, [2, 2]),
    "one": ([[1000, 1, 100, 10], [1, 1, 1, 1]], 0.25, 0.25, [1, 1]),
    "floors-that-leave-too-little": ([[1, 2], [3]], 2 / 3, 0.5, [2, 0]),
}


@pytest.mark.parametrize(
    ("tensors", "sparsity", "floor", "zeros"), LAMP_FLOORS.values(), ids=LAMP_FLOORS
)
def test_lamp_with_a_floor(tensors, sparsity, floor, zeros):
    share = GlobalMagnitude(max_sparsity=floor, score="lamp")
    assert share(weights(*tensors), sparsity) == zeros


# Ties, zeros, single weights, and scales as far apart as float32 has them.
MANTISSAS = st.sampled_from([-3, -2, -1, -0.5, 0, 0.5, 1, 1.75])
LAMP_TENSORS = st.lists(
    st.tuples(
        numpy_st.arrays("float32", st.integers(1, 40), elements=MANTISSAS),
        st.integers(-140, 126),
    ).map(lambda pair: np.ldexp(*pair).astype("float32")),
    min_size=1,
    max_size=5,
)
EXTREMES = st.lists(
    numpy_st.arrays(
        "float32",
        st.integers(1, 12),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    min_size=1,
    max_size=5,
)


@given(tensors=LAMP_TENSORS | EXTREMES, sparsity=SPARSITIES)
def test_lamp_is_the_ranking_of_its_definition(tensors, sparsity):
    found = allocation.get("lamp")(weights(*tensors), sparsity)
    total = round(sparsity * sum(t.size for t in tensors))
    assert sum(found) == total
    # Its own sums are rounded: what it takes may tie, to a hair, with what it leaves.
    scores = [np.sort(reference.lamp_scores(t)) for t in tensors]
    taken = [s[:count] for s, count in zip(scores, found, strict=True)]
    left = [s[count:] for s, count in zip(scores, found, strict=True)]
    highest = max(np.concatenate(taken), default=0)
    assert highest <= min(np.concatenate(left), default=1) * (1 + 1e-12)


# What float64 squares, adds and divides by the largest of exactly: ties are ties.
POWERS_OF_TWO = st.lists(
    numpy_st.arrays(
        "float32",
        st.integers(1, 40),
        elements=st.sampled_from([-2, -1, -0.5, 0, 0.25, 0.5, 1, 4]),
    ),
    min_size=1,
    max_size=5,
)


@given(tensors=POWERS_OF_TWO, sparsity=SPARSITIES)
def test_lamp_breaks_ties_by_position(tensors, sparsity):
    found = allocation.get("lamp")(weights(*tensors), sparsity)
    scores = [reference.lamp_scores(t) for t in tensors]
    total = round(sparsity * sum(t.size for t in tensors))
    pruned = reference.smallest(np.concatenate(scores), total)
    ends = np.cumsum([t.size for t in tensors])[:-1]
    assert found == [part.sum() for part in np.split(pruned, ends)]


@given(
    tensors=TENSORS,
    sparsity=SPARSITIES,
    exponents=st.lists(st.integers(-120, 120), min_size=5, max_size=5),
)
def test_lamp_does_not_see_the_scale_of_a_tensor(tensors, sparsity, exponents):
    share = allocation.get("lamp")
    scaled = [
        np.ldexp(t, exponent) for t, exponent in zip(tensors, exponents, strict=False)
    ]
    assert share(weights(*scaled), sparsity) == share(weights(*tensors), sparsity)


@given(tensors=TENSORS, kept=st.integers(0, 10))
def test_lamp_leaves_every_tensor_a_weight_while_there_are_enough(tensors, kept):
    tensors = [np.where(t == 0, np.float32(0.125), t) for t in tensors]
    size = sum(t.size for t in tensors)
    kept = min(size, len(tensors) + kept)
    found = allocation.get("lamp")(weights(*tensors), 1 - kept / size)
    assert sum(found) == size - kept
    assert all(count < t.size for count, t in zip(found, tensors, strict=True))


def test_lamp_looks_at_the_weights_only():
    tensors = [np.float32([3, -1, 2]), np.float32([5, 4, -6])]
    copies = [t.copy() for t in tensors]
    allocation.get("lamp")(weights(*tensors), 0.4)
    for tensor, copy in zip(tensors, copies, strict=True):
        np.testing.assert_array_equal(tensor, copy)


@pytest.mark.parametrize("score", ["l2", "", "LAMP", None, 1], ids=repr)
def test_score_errors(score):
    received = re.escape(f"['lamp', 'magnitude']. Received: score={score!r}")
    with pytest.raises(ValueError, match=f"^score must be one of {received}$"):
        GlobalMagnitude(score=score)


@pytest.mark.parametrize(
    ("sizes", "sparsity", "zeros"),
    (
        ((10, 20), 0.5, [5, 10]),
        ((3, 3, 3), 0.5, [2, 2, 2]),
        ((1, 100), 0.29, [0, 29]),
        ((7,), 0.0, [0]),
        ((), 0.5, []),
    ),
    ids=str,
)
def test_uniform(sizes, sparsity, zeros):
    """Each by itself: the total may differ by the rounding of each."""
    found = allocation.get("uniform")(weights(*map(np.ones, sizes)), sparsity)
    assert found == zeros


# id: shapes as (fan_in, fan_out, *spatial), sparsity, zeros
ERK = {
    "one-layer-is-uniform": (((10, 10),), 0.75, [75]),
    "twins-are-uniform": (((10, 10), (10, 10)), 0.75, [75, 75]),
    # Densities 30/200 s and 15/50 s keep 45 s in all: s is 50/45.
    "small-layers-are-denser": (((20, 10), (10, 5)), 0.8, [167, 33]),
    # 4 of 4 and 40 of 400: the factor 202/44 would give the small one a density of
    # 4.59, so it stays dense and the other keeps 202 - 4.
    "saturates": (((2, 2), (20, 20)), 0.5, [0, 202]),
    # 2 s, 4 s and 20 s are kept, 11 in all: s is 11/26 and nothing saturates.
    "sparse-enough-for-all": (((1, 1), (2, 2), (10, 10)), 0.9, [0, 2, 92]),
    "two-saturate-one-after-the-other": (
        ((1, 1), (4, 4), (20, 20)),
        0.7,
        [0, 0, 292],
    ),
    "nothing-to-prune": (((2, 2), (20, 20)), 0.0, [0, 0]),
    # 22 s and 16 s of 576 and 64; s = 320/38 would keep more than all 64.
    "convolution": (((8, 8, 3, 3), (8, 8)), 0.5, [320, 0]),
    # 15 s and 16 s are kept, 68 in all.
    "depthwise": (((1, 8, 3, 3), (8, 8)), 0.5, [39, 29]),
    "no-weights": ((), 0.5, []),
}


@pytest.mark.parametrize(("shapes", "sparsity", "zeros"), ERK.values(), ids=ERK)
def test_erk(shapes, sparsity, zeros):
    assert allocation.get("erk")(shaped(*shapes), sparsity) == zeros


@given(
    shapes=st.lists(
        st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple),
        min_size=1,
        max_size=6,
    ),
    sparsity=SPARSITIES,
)
def test_erk_agrees_with_bisection(shapes, sparsity):
    found = allocation.get("erk")(shaped(*shapes), sparsity)
    densities = reference.erk_densities(shapes, sparsity)
    for zeros, shape, density in zip(found, shapes, densities, strict=True):
        size = math.prod(shape)
        assert 0 <= zeros <= size
        assert zeros == pytest.approx((1 - density) * size, abs=0.5001)


# id: mapping, zeros of a/kernel (10 weights) and b/kernel (20)
MAPPINGS = {
    "layers": ({"a": 0.5, "b": 0.25}, [5, 5]),
    "weights": ({"a/kernel": 0.5, "b/kernel": 0.25}, [5, 5]),
    "mixed": ({"a": 0.5, "b/kernel": 0}, [5, 0]),
    "the-weight-goes-before-its-layer": ({"a": 0.5, "a/kernel": 0.1, "b": 0}, [1, 0]),
}


@pytest.mark.parametrize(("mapping", "zeros"), MAPPINGS.values(), ids=MAPPINGS)
def test_mapping(mapping, zeros):
    share = allocation.get(mapping)
    assert share(weights(np.ones(10), np.ones(20)), 0.9) == zeros


def test_one_layer_with_two_weights():
    cell = [
        WeightInfo("lstm/cell.kernel", "lstm", np.ones(10)),
        WeightInfo("lstm/cell.recurrent_kernel", "lstm", np.ones(20)),
    ]
    assert allocation.get({"lstm": 0.5})(cell, 0.9) == [5, 10]
    share = allocation.get({"lstm": 0.5, "lstm/cell.recurrent_kernel": 0.1})
    assert share(cell, 0.9) == [5, 2]


# id: mapping, message
MAPPING_ERRORS = {
    "unknown": (
        {"a": 0.5, "b": 0.5, "c": 0.5},
        r"may only name pruned weights, of \['a', 'a/kernel', 'b', 'b/kernel'\]\. "
        r"Received: \['c'\]",
    ),
    "missing": (
        {"a": 0.5},
        r"must name every pruned weight .*Received: no sparsity for \['b/kernel'\]",
    ),
    "not-a-sparsity": (
        {"a": 1.5, "b": 0.5},
        r"allocation\['a/kernel'\] must be .*Received: allocation\['a/kernel'\]=1\.5",
    ),
    "empty": ({}, r"no sparsity for \['a/kernel', 'b/kernel'\]"),
}


@pytest.mark.parametrize(
    ("mapping", "message"), MAPPING_ERRORS.values(), ids=MAPPING_ERRORS
)
def test_mapping_errors(mapping, message):
    with pytest.raises(ValueError, match=f"{message}$"):
        allocation.get(mapping)(weights(np.ones(10), np.ones(20)), 0.5)


def test_a_later_change_of_the_mapping_changes_nothing():
    mapping = {"a": 0.5}
    share = allocation.get(mapping)
    mapping["a"] = 0.1
    assert share(weights(np.ones(10)), 0.9) == [5]


def test_callable_sees_the_weights_and_the_sparsity():
    seen = []

    def first_half(infos, sparsity):
        seen.append(([info.name for info in infos], sparsity))
        return (sparsity if info.layer == "a" else 0 for info in infos)

    share = allocation.get(first_half)
    assert share(weights(np.ones(10), np.ones(20)), 0.9) == [9, 0]
    assert seen == [(["a/kernel", "b/kernel"], 0.9)]


@pytest.mark.parametrize(
    ("returned", "message"),
    (
        ([0.5], r"one sparsity for each of the 2 weights\. Received: 1 values"),
        ([0.5, 1.0], r"^allocation of 'b/kernel' must .*'b/kernel'=1\.0"),
        ([0.5, None], r"allocation of 'b/kernel'=None"),
    ),
    ids=("too-few", "one", "none"),
)
def test_callable_errors(returned, message):
    share = allocation.get(lambda infos, sparsity: returned)
    with pytest.raises(ValueError, match=f"{message}$"):
        share(weights(np.ones(10), np.ones(20)), 0.5)


@pytest.mark.parametrize(
    ("written", "error"),
    (("lamb", ValueError), ("", ValueError), (None, TypeError), (0.5, TypeError)),
    ids=repr,
)
def test_get_errors(written, error):
    message = r"one of \['erk', 'global', 'lamp', 'uniform'\], a mapping or a callable"
    received = re.escape(f"Received: allocation={written!r}")
    with pytest.raises(error, match=rf"{message}\. {received}$"):
        allocation.get(written)


def test_get_gives_a_ranking_back():
    assert allocation.get(GlobalMagnitude(0.5)) == GlobalMagnitude(0.5)
    assert allocation.get("global") == GlobalMagnitude()
    assert allocation.get("lamp") == GlobalMagnitude(1.0, True, "lamp")
    assert GlobalMagnitude().score == "magnitude"


@pytest.mark.parametrize(
    ("written", "deferred"),
    (
        ("global", True),
        ("lamp", True),
        (GlobalMagnitude(0.9), True),
        ("uniform", False),
        ("erk", False),
        ({"a": 0.5}, False),
        (lambda infos, sparsity: [], False),
    ),
    ids=("global", "lamp", "object", "uniform", "erk", "mapping", "callable"),
)
def test_only_a_ranking_waits_for_trained_weights(written, deferred):
    assert allocation.is_deferred(written) is deferred


# id: what a wrapper is given, what it waits for
DEFERRED = {
    "uniform": ("uniform", None),
    "global": ("global", GlobalMagnitude()),
    "lamp": ("lamp", GlobalMagnitude(1.0, moving=True, score="lamp")),
    "object": (GlobalMagnitude(0.5), GlobalMagnitude(0.5)),
    "config": ({"max_sparsity": 0.5}, GlobalMagnitude(0.5)),
    "moving": (GlobalMagnitude(moving=True), GlobalMagnitude(None, True)),
    "moving config": (
        {"max_sparsity": 0.5, "moving": False},
        GlobalMagnitude(0.5, moving=False),
    ),
    "score": (GlobalMagnitude(score="lamp"), GlobalMagnitude(None, None, "lamp")),
    "score config": (
        {"max_sparsity": 0.5, "moving": None, "score": "lamp"},
        GlobalMagnitude(0.5, score="lamp"),
    ),
}


@pytest.mark.parametrize(("written", "meant"), DEFERRED.values(), ids=DEFERRED)
def test_get_deferred_and_its_config(written, meant):
    assert allocation.get_deferred(written) == meant
    config = json.loads(json.dumps(allocation.serialize_deferred(meant)))
    assert allocation.get_deferred(config) == meant


@pytest.mark.parametrize(
    "written", ("erk", "lamb", {"a": 0.5}, {}, None, len), ids=repr
)
def test_a_single_wrapper_cannot_share_with_others(written):
    rule = "must be 'uniform', 'global', 'lamp' or a GlobalMagnitude"
    message = re.escape(f"{rule}. Received: allocation={written!r}")
    with pytest.raises(ValueError, match=f"of a single wrapper {message}$"):
        allocation.get_deferred(written)
