"""Temperatures: the width they give, the gain it means, and their configs."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from pdp_keras.masks import functional, temperatures
from pdp_keras.masks.temperatures import AbsoluteTemperature, RelativeTemperature


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: without layers there is no session to clear."""


# id: temperature, threshold, width
WIDTHS = {
    "absolute": (AbsoluteTemperature(1e-4), 0.3, 0.01),
    "absolute-takes-the-shape": (AbsoluteTemperature(4.0), [[1, 2]], [[2, 2]]),
    "absolute-without-threshold": (AbsoluteTemperature(4.0), 0, 2),
    "relative": (RelativeTemperature(0.25), 0.3, 0.15),
    "relative-to-each": (RelativeTemperature(4.0), [1, 2], [2, 4]),
    "relative-without-threshold": (RelativeTemperature(0.5), 0, 0),
}


@pytest.mark.parametrize(
    ("temperature", "threshold", "expected"), WIDTHS.values(), ids=WIDTHS
)
def test_width(temperature, threshold, expected):
    width = temperature.width(tf.constant(threshold, tf.float32))
    assert width.dtype == tf.float32
    np.testing.assert_allclose(width, expected, rtol=1e-6)
    assert tuple(width.shape) == np.shape(threshold)


# id: temperature, threshold, gain. The absolute ones are those of design.md: the
# threshold of w ~ N(0, 0.05**2) at 80 % is 1.2816 * 0.05.
GAINS = {
    "paper-1e-4": (AbsoluteTemperature(1e-4), 0.06407758, 21.03),
    "paper-1e-5": (AbsoluteTemperature(1e-5), 0.06407758, 205.8),
    "paper-in-small-weights": (AbsoluteTemperature(1e-4), 1e-4, 0.50005),
    "relative": (RelativeTemperature(0.5), 0.06407758, 1.5),
    "relative-in-small-weights": (RelativeTemperature(0.5), 1e-6, 1.5),
    "relative-in-large-weights": (RelativeTemperature(0.5), 1e6, 1.5),
    "relative-0.1": (RelativeTemperature(0.1), 0.02, 5.5),
    "relative-2": (RelativeTemperature(2), 0.02, 0.75),
}


@pytest.mark.parametrize(
    ("temperature", "threshold", "gain"), GAINS.values(), ids=GAINS
)
def test_gain_at_the_threshold(temperature, threshold, gain):
    """1/2 + t**2 / (2 tau), and so 1/2 + 1 / (2 factor) for a relative one."""
    t = tf.constant(threshold, tf.float32)
    slope = functional.soft_masked_slope(t, t, temperature.width(t))
    np.testing.assert_allclose(slope, gain, rtol=3e-4)
    if isinstance(temperature, AbsoluteTemperature):
        formula = 0.5 + threshold**2 / (2 * temperature.value)
    else:
        formula = 0.5 + 1 / (2 * temperature.factor)
    np.testing.assert_allclose(slope, formula, rtol=1e-5)


# id: what a user writes, what it means
GETS = {
    "none-is-the-default": (None, temperatures.DEFAULT),
    "number-is-absolute": (1e-4, AbsoluteTemperature(1e-4)),
    "integer": (1, AbsoluteTemperature(1.0)),
    "numpy-float64": (np.float64(1e-3), AbsoluteTemperature(1e-3)),
    "absolute": (AbsoluteTemperature(0.1), AbsoluteTemperature(0.1)),
    "relative": (RelativeTemperature(0.1), RelativeTemperature(0.1)),
    "absolute-dict": ({"kind": "absolute", "value": 0.1}, AbsoluteTemperature(0.1)),
    "relative-dict": ({"kind": "relative", "factor": 0.1}, RelativeTemperature(0.1)),
}


@pytest.mark.parametrize(("written", "meant"), GETS.values(), ids=GETS)
def test_get(written, meant):
    found = temperatures.get(written)
    assert type(found) is type(meant) and found == meant


def test_the_default_is_scale_free():
    assert isinstance(temperatures.DEFAULT, RelativeTemperature)


@pytest.mark.parametrize(
    "temperature", (AbsoluteTemperature(1e-4), RelativeTemperature(0.3)), ids=repr
)
def test_serialize_is_undone_by_deserialize(temperature):
    config = temperatures.serialize(temperature)
    again = temperatures.deserialize(json.loads(json.dumps(config)))
    assert type(again) is type(temperature) and again == temperature
    before = dict(config)
    temperatures.deserialize(config)
    assert config == before, "deserialize must leave its argument alone"


# id: what to call, error, end of the message
ERRORS = {
    "zero": (lambda: temperatures.get(0), ValueError, "temperature=0.0"),
    "negative": (lambda: temperatures.get(-1e-4), ValueError, "temperature=-0.0001"),
    "nan": (lambda: temperatures.get(np.nan), ValueError, "temperature=nan"),
    "infinite": (lambda: temperatures.get(np.inf), ValueError, "temperature=inf"),
    "factor": (lambda: RelativeTemperature(0), ValueError, "factor=0"),
    "value": (lambda: AbsoluteTemperature(-1), ValueError, "temperature=-1"),
    "bool": (lambda: temperatures.get(True), TypeError, "temperature=True"),
    "string": (lambda: temperatures.get("1e-4"), TypeError, "temperature='1e-4'"),
    "list": (lambda: temperatures.get([1e-4]), TypeError, "temperature=[0.0001]"),
    "kind": (
        lambda: temperatures.deserialize({"kind": "hot", "value": 1}),
        ValueError,
        "kind='hot'",
    ),
    "no-kind": (lambda: temperatures.get({"value": 1}), ValueError, "kind=None"),
    "bad-number-in-a-config": (
        lambda: temperatures.get({"kind": "relative", "factor": -2}),
        ValueError,
        "factor=-2",
    ),
    "no-number": (
        lambda: temperatures.get({"kind": "relative", "factor": "1"}),
        ValueError,
        "factor='1'",
    ),
    "kind-is-a-list": (
        lambda: temperatures.get({"kind": ["relative"], "factor": 1}),
        ValueError,
        "kind=['relative']",
    ),
    "huge": (
        lambda: temperatures.get(10**309),
        ValueError,
        "temperature=100000000000000000...0000000000000000000",
    ),
}


@pytest.mark.parametrize(("call", "error", "received"), ERRORS.values(), ids=ERRORS)
def test_errors_state_the_rule_and_what_was_received(call, error, received):
    with pytest.raises(error, match=rf"must be .*Received: {re.escape(received)}$"):
        call()


@pytest.mark.parametrize(
    "temperature", (AbsoluteTemperature(1), RelativeTemperature(1))
)
def test_immutable_and_hashable(temperature):
    with pytest.raises(AttributeError):
        temperature.value = 2.0
    assert len({temperature, type(temperature)(1)}) == 1
