"""The table of modes, by name, and their configs."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from pdp_keras.configs import make, shown
from pdp_keras.modes.base import Mode
from pdp_keras.modes.block import Block
from pdp_keras.modes.channel import Channel
from pdp_keras.modes.n_of_m import NM
from pdp_keras.modes.unstructured import Unstructured

_MODES: dict[str, Any] = {
    "unstructured": Unstructured,
    "nm": NM,
    "block": Block,
    "channel": Channel,
}
_NAMES = "'unstructured', 'channel', 'block', 'block:4', 'N:M' (such as '2:4')"


def get(mode: str | Mode | dict[str, Any]) -> Mode:
    """A mode from its name, its object, or the dict of `serialize`.

    Args:
        mode: `"unstructured"`, `"channel"`, `"2:4"` and the like, `"block"`,
            `"block:4"` and the like, a mode object, or a dict.

    Raises:
        ValueError: if the name is unknown, or N:M is not 1 <= N < M, or a block has
            less than two output channels.
        TypeError: if it is none of these.
    """
    if isinstance(mode, Mode):
        return mode
    if isinstance(mode, dict):
        return deserialize(mode)
    if isinstance(mode, str):
        counts = re.fullmatch(r"(\d{1,18}):(\d{1,18})", mode)
        if counts:
            return NM(*map(int, counts.groups()))
        outputs = re.fullmatch(r"block:(\d{1,18})", mode)
        if outputs:
            return Block(int(outputs[1]))
        if mode in _MODES and mode != NM.name:
            return _MODES[mode]()
    error = ValueError if isinstance(mode, str) else TypeError
    raise error(
        f"mode must be one of {_NAMES} or a mode object. Received: mode={shown(mode)}"
    )


def serialize(mode: Mode) -> dict[str, Any]:
    """A JSON-able dict from which `deserialize` makes an equal mode."""
    assert dataclasses.is_dataclass(mode)
    return {"name": mode.name, **dataclasses.asdict(mode)}


def deserialize(config: dict[str, Any]) -> Mode:
    """The inverse of `serialize`.

    Raises:
        ValueError: unless it is such a dict.
    """
    mode: Mode = make(_MODES, "the mode", config)
    return mode
