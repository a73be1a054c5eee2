"""Axes say where channels lie, and are checked against the weights and the groups."""

import re

import pytest

from pdp_keras.channels.axes import Axis, read_axes

# An axis, the shape of its weight, and the units of each group.
FITTING = {
    "all": (Axis("kernel", 1, (0, 0, 0), (0, 1, 2)), (5, 3), [3]),
    "from-the-end": (Axis("kernel", -1, (0, 0, 0), (0, 1, 2)), (5, 3), [3]),
    "in-parts": (Axis("kernel", 0, (0, 1, -1, 0), (0, 0, -1, 1)), (4,), [2, 1]),
    "heads": (Axis("kernel", 0, (0, 0, 0, 0), (0, 0, 1, 1)), (4, 2), [2]),
    "none": (Axis("kernel", 0, (-1, -1), (-1, -1)), (2,), []),
}


@pytest.mark.parametrize(("axis", "shape", "sizes"), FITTING.values(), ids=FITTING)
def test_what_fits(axis, shape, sizes):
    axis.require_fit(shape, sizes)


# The same, and the message.
OTHERS = {
    "axis": (
        Axis("kernel", -3, (0,), (0,)),
        (5, 3),
        [1],
        "axis must be one of the 2 of the weight. Received: axis=-3 of 'kernel'",
    ),
    "scalar": (
        Axis("scale", 0, (), ()),
        (),
        [],
        "axis must be one of the 0 of the weight. Received: axis=0 of 'scale'",
    ),
    "length": (
        Axis("kernel", 0, (0, 0), (0,)),
        (2,),
        [1],
        "groups and units must say something of all 2 places along the axis. "
        "Received: 2 groups, 1 units for axis=0 of 'kernel'",
    ),
    "group": (
        Axis("kernel", 0, (1,), (0,)),
        (1,),
        [1],
        "Every place must have one of the 1 groups and one of its units, or -1 for "
        "both. Received: group 1, unit 0 in 'kernel'",
    ),
    "unit-without-group": (
        Axis("kernel", 0, (-1,), (0,)),
        (1,),
        [1],
        "Every place must have one of the 1 groups and one of its units, or -1 for "
        "both. Received: group -1, unit 0 in 'kernel'",
    ),
    "too-few-units": (
        Axis("kernel", 0, (0, 0), (0, 0)),
        (2,),
        [2],
        "All units of a group must lie along the axis. "
        "Received: 1 of 2 units in 'kernel'",
    ),
}


@pytest.mark.parametrize(
    ("axis", "shape", "sizes", "message"), OTHERS.values(), ids=OTHERS
)
def test_what_does_not_fit(axis, shape, sizes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        axis.require_fit(shape, sizes)


def test_axes_from_a_file():
    config = {"weight": "kernel", "axis": 1, "groups": [0], "units": [0]}
    axis = Axis("kernel", 1, (0,), (0,))
    assert read_axes("makes", [config, axis]) == (axis, axis)


TYPES = {
    "weight": (None, "weight must be text. Received: weight=None"),
    "axis": (True, "axis must be an integer. Received: axis=True"),
    "groups": ([-2], "groups must be a list of integers >= -1. Received: groups=(-2,)"),
    "units": ("0", "units must be a list of integers >= -1. Received: units='0'"),
}


@pytest.mark.parametrize("name", TYPES)
def test_types(name):
    value, message = TYPES[name]
    config = {"weight": "kernel", "axis": 1, "groups": [0], "units": [0], name: value}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_axes("makes", [config])
