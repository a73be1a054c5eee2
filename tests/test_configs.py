"""Rules for arguments and keys, and how errors show what broke them."""

import dataclasses
import math
import re

import numpy as np
import pytest

from pdp_keras import configs

NAN = math.nan
# Of each rule: what it takes, and what it refuses.
RULES = {
    "FINITE": ((0, -1.5, np.float32(2)), (NAN, math.inf, 10**400, "0.5", None, True)),
    "POSITIVE": ((1, 1e-300), (0, -1, NAN, math.inf, "1", [1], False)),
    "NOT_NEGATIVE": ((0, 0.5), (-1e-9, NAN, None, True, {})),
    "FRACTION": ((0, 1, 0.5), (5, -0.1, NAN, "0.5", True)),
    "INTEGER": ((-1, 0, np.int32(3)), (0.0, "0", True, None, NAN)),
    "COUNT": ((0, 3, np.int64(3)), (-1, 1.0, "1", True, None)),
    "POSITIVE_INTEGER": ((1, 10**30), (0, 100.0, "100", True)),
    "FLAG": ((True, False), (0, 1, None, "true")),
    "TEXT": (("", "a"), (None, b"a", 1, ["a"])),
    "LIST": (([], ("a", 1)), ("a", {}, None, 1)),
    "TEXTS": (([], ("a",)), ("a", {"a": 1}, ["a", 1], None)),
}


@pytest.mark.parametrize("name", RULES)
def test_rules(name):
    rule = getattr(configs, name)
    taken, refused = RULES[name]
    assert [value for value in taken if not rule.holds(value)] == []
    assert [value for value in refused if rule.holds(value)] == []


def test_a_refusal_says_the_rule_and_the_value():
    message = re.escape("part must be a number in [0, 1]. Received: part=5") + "$"
    with pytest.raises(ValueError, match=message):
        configs.FRACTION.require("part", 5)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


SHOWN = {
    "short": ("abc", "'abc'"),
    "a list": (list(range(10**6)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...]"),
    "deep": (deep(10**5), "[[[[...]]]]"),
}


@pytest.mark.parametrize(("value", "text"), SHOWN.values(), ids=SHOWN)
def test_long_values_are_shortened(value, text):
    assert configs.shown(value) == text


def test_long_text_is_shortened():
    assert len(configs.shown("a" * 10**6)) == 200


@dataclasses.dataclass(frozen=True)
class Point:
    x: float = configs.argument(configs.FINITE)
    y: float = configs.argument(configs.FINITE, 0.0)

    def __post_init__(self):
        configs.require_rules(self)


POINTS = {"point": Point}


def test_an_object_from_its_config():
    assert configs.make(POINTS, "the point", {"name": "point", "x": 1}) == Point(1)


# The config, and the message.
REFUSED = {
    "no dict": ([1], "The config of the point must be a dict. Received: [1]"),
    "no name": ({"x": 1}, "name must be one of ['point']. Received: name=None"),
    "unknown": (
        {"name": "os.system", "x": 1},
        "name must be one of ['point']. Received: name='os.system'",
    ),
    "a list as name": (
        {"name": ["point"]},
        "name must be one of ['point']. Received: name=['point']",
    ),
    "missing": (
        {"name": "point", "y": 1},
        "The config of the point 'point' must have the keys ['x']. "
        "Received: none for ['x']",
    ),
    "extra": (
        {"name": "point", "x": 1, "z": 2, 3: 4},
        "The config of the point 'point' may have the keys ['x', 'y'] only. "
        "Received: ['z', 3]",
    ),
    "out of range": (
        {"name": "point", "x": "1"},
        "x must be a finite number. Received: x='1'",
    ),
}


@pytest.mark.parametrize(("config", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_configs(config, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        configs.make(POINTS, "the point", config)
