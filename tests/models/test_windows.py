"""Windows along an axis: as TensorFlow lays them, turned, and with even padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp_keras.models.windows import Windows, make_windows


@pytest.mark.parametrize(
    ("arguments", "start", "count", "padding"),
    [
        # size, extent, stride, padding[, before, after]
        ((8, 3, 2, "same"), 0, 4, (0, 1)),
        ((7, 3, 2, "same"), -1, 4, (1, 1)),
        ((8, 5, 2, "same"), -1, 4, (1, 2)),
        ((7, 5, 2, "same"), -2, 4, (2, 2)),
        ((8, 3, 1, "same"), -1, 8, (1, 1)),
        ((8, 2, 1, "same"), 0, 8, (0, 1)),
        ((8, 1, 2, "same"), 0, 4, (0, -1)),
        ((8, 3, 2, "valid"), 0, 3, (0, -1)),
        ((8, 3, 2, "valid", 1, 1), -1, 4, (1, 0)),
        ((8, 3, 2, "valid", 0, 1), 0, 4, (0, 1)),
        ((3, 3, 1, "valid"), 0, 1, (0, 0)),
    ],
)
def test_windows_of_a_layer(arguments, start, count, padding):
    windows = make_windows(*arguments)
    assert (windows.start, windows.count) == (start, count)
    assert windows.padding == padding


@pytest.mark.parametrize(
    ("arguments", "symmetric", "turned"),
    [
        # Even sizes: (0, 1) becomes (1, 0) when turned, which (1, 1) gives as well.
        ((8, 3, 2, "same"), None, 1),
        ((8, 5, 2, "same"), None, 2),
        ((7, 3, 2, "same"), 1, 1),
        ((8, 3, 1, "same"), 1, 1),
        # PyTorch's way: (1, 1), of which the last is not read.
        ((8, 3, 2, "valid", 1, 1), 1, None),
        ((7, 3, 2, "valid"), None, None),
        ((8, 2, 2, "same"), None, None),
    ],
)
def test_symmetric_padding(arguments, symmetric, turned):
    windows = make_windows(*arguments)
    assert (windows.symmetric, windows.turned().symmetric) == (symmetric, turned)


WINDOWS = st.builds(
    make_windows,
    st.integers(6, 20),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(["same", "valid"]),
    st.integers(0, 2),
    st.integers(0, 2),
)


def read(windows, values):
    """What each window sees, zeros where it lies outside."""
    rows = []
    for i in range(windows.count):
        begin = windows.start + i * windows.stride
        places = range(begin, begin + windows.extent)
        rows.append([values[p] if 0 <= p < len(values) else 0 for p in places])
    return np.array(rows)


@given(WINDOWS)
def test_turned_windows_see_the_same_from_the_other_end(windows):
    values = np.arange(1, windows.size + 1)
    there = read(windows, values)
    turned = read(windows.turned(), values[::-1])
    np.testing.assert_array_equal(turned[::-1, ::-1], there)
    assert windows.turned().turned() == windows


@given(WINDOWS)
def test_symmetric_padding_shows_the_same(windows):
    half = windows.symmetric
    if half is None:
        return
    values = np.arange(1, windows.size + 1)
    padded = Windows(windows.size, windows.extent, windows.stride, -half, windows.count)
    assert (windows.size + 2 * half - windows.extent) // windows.stride + 1 == (
        windows.count
    )
    np.testing.assert_array_equal(read(padded, values), read(windows, values))


def test_padding_must_be_known():
    with pytest.raises(ValueError, match=r"Received: padding='causal'"):
        make_windows(8, 3, 1, "causal")
