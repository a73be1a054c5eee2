"""The search by counting: exact whatever the bracket, and fast where that is good."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from pdp_keras.masks import order_search

NAN, INF = np.float32([np.nan, np.inf])
LARGE = order_search.LARGE


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: without layers there is no session to clear."""


@functools.cache
def compiled():
    """As it runs in a model that XLA compiles, and as one program of a graph."""
    return tf.function(order_search.search, jit_compile=True, autograph=False)


@functools.cache
def following():
    return tf.function(order_search.next_bracket, jit_compile=True, autograph=False)


def search(values, rank, bracket=(0, 0, 0)):
    """Bits of the magnitudes of rank `rank - 1` and `rank`."""
    last = len(values) - 1
    ranks = tf.constant([np.clip(rank - 1, 0, last), np.clip(rank, 0, last)], tf.int32)
    found = compiled()(
        tf.constant(values, tf.float32),
        ranks[0],
        ranks[1],
        tf.constant(bracket, tf.float32),
    )
    return [int(x.numpy().view("int32")) for x in found]


def expected(values, rank):
    bits = np.sort(np.float32(values).view("int32") & (2**31 - 1))
    last = len(bits) - 1
    return [int(bits[min(max(rank - 1, 0), last)]), int(bits[min(rank, last)])]


def normal(n, seed=0):
    return np.random.default_rng(seed).normal(0, 0.05, n).astype("float32")


# id: the values; small ones are searched as they are, large ones in a part
VALUES = {
    "one": np.float32([-3]),
    "a-row": normal(128),
    "a-row-and-one": normal(129),
    "small": normal(5000),
    "just-small": normal(LARGE - 1),
    "just-large": normal(LARGE),
    "large": normal(300_001),
    "large-ties": np.round(normal(200_000), 3),
    "large-constant": np.full(100_000, -0.25, "float32"),
    "large-zeros": np.zeros(100_000, "float32"),
    "large-two-values": np.float32([1, -2] * 50_000),
    "large-denormal": np.arange(100_000, dtype="int32").view("float32"),
    "large-with-nan-and-infinity": np.where(
        np.arange(90_000) % 3 == 0, NAN, np.where(normal(90_000) > 0.1, INF, 0.5)
    ).astype("float32"),
}
# id: what is expected of the lower value, from it
BRACKETS = {
    "unknown": lambda x: (0, 0, 0),
    "right": lambda x: (x * 0.999, x * 1.001, x),
    "wide": lambda x: (x * 0.5, x * 2, x),
    "an-end": lambda x: (x, x * 1.01, x),
    "the-other-end": lambda x: (x * 0.99, x, x),
    "below": lambda x: (x * 0.3, x * 0.31, x),
    "above": lambda x: (x * 3, x * 3.1, x),
    "no-width": lambda x: (x, x, x),
    "reversed": lambda x: (x * 2, x * 0.5, x),
    "negative": lambda x: (-2 * x, -x, -x),
    "infinite": lambda x: (0, INF, INF),
    "nan": lambda x: (NAN, NAN, NAN),
}


@pytest.mark.parametrize("bracket", BRACKETS.values(), ids=BRACKETS)
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_exact_whatever_the_bracket(values, bracket):
    for fraction in (0.0, 0.5, 0.85, 1.0):
        rank = round(fraction * len(values))
        wanted = expected(values, rank)
        lower = np.int32(wanted[0]).view("float32")
        with np.errstate(over="ignore", invalid="ignore"):
            guess = np.float32(bracket(lower))
        assert search(values, rank, guess) == wanted, fraction


@settings(max_examples=40)
@given(
    bits=numpy_st.arrays("int32", 24, elements=st.integers(-(2**31), 2**31 - 1)),
    rank=st.integers(0, 24),
    bracket=numpy_st.arrays("int32", 3, elements=st.integers(-(2**31), 2**31 - 1)),
)
def test_any_bits_and_any_bracket(bits, rank, bracket):
    values = bits.view("float32")
    assert search(values, rank, bracket.view("float32")) == expected(values, rank)


@pytest.mark.parametrize("n", (1000, 200_000))
def test_brackets_follow_weights_that_move_and_jump(n):
    """A chain as in training: small steps, a jump of the weights, one of the rank."""
    weights, moves = normal(n), normal(n, seed=1) * 1e-3
    bracket = np.zeros(3, "float32")
    ranks = [round(0.5 * n)] * 6 + [round(0.9 * n)] * 6
    hits = []
    for step, rank in enumerate(ranks):
        weights = weights + moves
        if step == 3:
            weights = weights * 100
        wanted = expected(weights, rank)
        assert search(weights, rank, bracket) == wanted
        lower = np.int32(wanted[0]).view("float32")
        hits.append(bool(bracket[0] <= lower <= bracket[1]))
        bracket = following()(tf.constant(lower), tf.constant(bracket)).numpy()
        assert np.isfinite(bracket).all() and 0 < bracket[0] < bracket[1]
        assert bracket[2] == lower
    # Not before anything is known, nor after the jumps; soon after them.
    assert not any(hits[i] for i in (0, 3, 6))
    assert hits[5] and hits[-1]


@pytest.mark.parametrize(
    "found", (0.0, 1e-45, 1e-38, 0.1, 3e38, np.inf, np.nan), ids=str
)
@pytest.mark.parametrize("before", BRACKETS)
def test_the_next_bracket_is_always_one(found, before):
    with np.errstate(over="ignore", invalid="ignore"):
        bracket = np.float32(BRACKETS[before](np.float32(found)))
    following_ = following()(tf.constant(found, tf.float32), tf.constant(bracket))
    low, high, last = following_.numpy().view("int32")
    assert 0 <= low < high
    assert last == np.float32(found).view("int32")


@pytest.mark.parametrize(
    ("bracket", "small"),
    (((0.999, 1.001), True), ((0, 0), False), ((1.5, 1.6), False)),
    ids=("right", "unknown", "wrong"),
)
def test_one_pass_leaves_a_small_part_if_the_bracket_is_right(bracket, small):
    values = normal(200_000)
    rank = 170_000
    lower = np.sort(np.abs(values))[rank - 1]
    part = order_search.first_pass(
        tf.constant(values),
        tf.constant(rank - 1),
        tf.constant(rank),
        tf.constant(np.float32([*bracket, 1]) * lower),
    )
    assert bool(part.is_small) is small
    if small:
        found = order_search.search_part(part)
        assert [float(x) for x in found] == list(
            np.sort(np.abs(values))[rank - 1 : rank + 1]
        )
