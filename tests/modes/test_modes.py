"""The table of modes: how they are named, and their configs."""

import json
import re

import pytest

from pdp_keras import NM, Block, Channel, Unstructured, modes


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: without layers there is no session to clear."""


# id: what a user writes, the mode, its config
MODES = {
    "unstructured": ("unstructured", Unstructured(), {"name": "unstructured"}),
    "2:4": ("2:4", NM(2, 4), {"name": "nm", "n": 2, "m": 4}),
    "12:16": ("12:16", NM(12, 16), {"name": "nm", "n": 12, "m": 16}),
    "block": ("block", Block(), {"name": "block", "outputs": 2, "inputs": 1}),
    "block:4": ("block:4", Block(4), {"name": "block", "outputs": 4, "inputs": 1}),
    "channel": (
        "channel",
        Channel(),
        {"name": "channel", "norm": "l2", "round_to": 1, "min_channels": 1},
    ),
    "channel-object": (
        Channel("l1", round_to=8, min_channels=4),
        Channel("l1", 8, 4),
        {"name": "channel", "norm": "l1", "round_to": 8, "min_channels": 4},
    ),
}


@pytest.mark.parametrize(("written", "mode", "config"), MODES.values(), ids=MODES)
def test_get_and_serialize(written, mode, config):
    assert modes.get(written) == mode
    assert type(modes.get(written)) is type(mode)
    assert modes.get(mode) is mode
    assert modes.serialize(mode) == config
    assert modes.get(config) == mode


@pytest.mark.parametrize(("_", "mode", "config"), MODES.values(), ids=MODES)
def test_serialize_is_undone_by_deserialize(_, mode, config):
    given = json.loads(json.dumps(modes.serialize(mode)))
    assert modes.deserialize(given) == mode
    assert given == config  # and left as it was


def test_missing_arguments_of_a_config_are_the_defaults():
    assert modes.deserialize({"name": "channel", "round_to": 4}) == Channel(round_to=4)


def test_modes_are_equal_and_hashable_by_their_arguments():
    assert NM(2, 4) == NM(2, 4) != NM(1, 4)
    assert len({NM(2, 4), NM(2, 4), NM(1, 4), Channel(), Channel("l1")}) == 4


DEFAULTS = {
    "unstructured": 0.8,
    "2:4": 0.5,
    "1:4": 0.75,
    "1:3": 2 / 3,
    "block": 0.8,
    "channel": 0.5,
}


@pytest.mark.parametrize(("mode", "sparsity"), DEFAULTS.items())
def test_default_sparsity(mode, sparsity):
    assert modes.get(mode).resolve_sparsity(None) == pytest.approx(sparsity)


# id: mode, error, end of the message
ERRORS = {
    "name": ("2:4:8", ValueError, "mode='2:4:8'"),
    "block": ("block:2:4", ValueError, "mode='block:2:4'"),
    "signs": ("-2:4", ValueError, "mode='-2:4'"),
    "blanks": ("2 : 4", ValueError, "mode='2 : 4'"),
    "nm": ("nm", ValueError, "mode='nm'"),
    "empty": ("", ValueError, "mode=''"),
    "none": (None, TypeError, "mode=None"),
    "number": (4, TypeError, "mode=4"),
    "class": (NM, TypeError, f"mode={NM!r}"),
    "dict": ({"name": "blocks"}, ValueError, "name='blocks'"),
    "empty-dict": ({}, ValueError, "name=None"),
    "name-is-a-list": ({"name": ["nm"]}, ValueError, "name=['nm']"),
    "dotted": ({"name": "os.system"}, ValueError, "name='os.system'"),
    "long": ("1:" + "9" * 10**4, ValueError, f"mode='1:{'9' * 95}...{'9' * 98}'"),
}


@pytest.mark.parametrize(("mode", "error", "received"), ERRORS.values(), ids=ERRORS)
def test_errors_state_the_rule_and_what_was_received(mode, error, received):
    rule = r"must be one of .*'unstructured'.*Received: "
    with pytest.raises(error, match=rf"{rule}{re.escape(received)}$"):
        modes.get(mode)


@pytest.mark.parametrize(
    ("mode", "received"), (("4:2", "n=4, m=2"), ("0:4", "n=0, m=4"), ("3:3", "n=3"))
)
def test_a_name_must_be_n_of_more_than_n(mode, received):
    with pytest.raises(ValueError, match=rf"1 <= n < m\. Received: {received}"):
        modes.get(mode)
