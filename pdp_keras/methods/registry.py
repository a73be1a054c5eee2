"""The table of methods, by name, and their configs."""

from __future__ import annotations

import dataclasses
from typing import Any

from pdp_keras.configs import make, shown
from pdp_keras.masks import temperatures
from pdp_keras.methods.acdc import ACDC
from pdp_keras.methods.base import Method
from pdp_keras.methods.dcp import DCP
from pdp_keras.methods.dnw import DNW
from pdp_keras.methods.gmp import GMP
from pdp_keras.methods.granet import GraNet
from pdp_keras.methods.learned_threshold import STR
from pdp_keras.methods.movement import Movement, SoftMovement
from pdp_keras.methods.nisp import NISP
from pdp_keras.methods.optg import OptG
from pdp_keras.methods.pdp import PDP, PaperPDP
from pdp_keras.methods.pofa import POFA
from pdp_keras.methods.rigl import RigL
from pdp_keras.methods.scp import SCP
from pdp_keras.methods.sr_ste import SRSTE
from pdp_keras.modes import Mode

METHODS: dict[str, Any] = {
    method.name: method
    for method in (
        PDP,
        PaperPDP,
        GMP,
        DNW,
        STR,
        OptG,
        ACDC,
        GraNet,
        RigL,
        Movement,
        SoftMovement,
        POFA,
        SRSTE,
        NISP,
        DCP,
        SCP,
    )
}
# What the arguments that a method has got since would have been in older files.
_BEFORE: dict[str, dict[str, Any]] = {
    "optg": {"masks": 1},
    "soft_movement": {"rate": 1.0},
}
# Names under which the literature knows some of them, too.
_ALIASES = {"idp": "pdp", "magnitude": "gmp"}


def get(method: str | Method | dict[str, Any]) -> Method:
    """A method from its name, its object, or the dict of `serialize`.

    Args:
        method: a name such as `"pdp"`, `"gmp"` or `"rigl"`, a method object, or a dict.

    Raises:
        ValueError: if the name is unknown.
        TypeError: if it is none of these.

    Example:

    >>> pdp_keras.methods.get("rigl")
    RigL(exchanged=0.3, frequency=100, until=0.75, seed=0)
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, dict):
        return deserialize(method)
    if isinstance(method, str):
        name = _ALIASES.get(method, method)
        if name in METHODS:
            return METHODS[name]()
    error = ValueError if isinstance(method, str) else TypeError
    raise error(
        f"method must be one of {sorted(METHODS)} or a method object. "
        f"Received: method={shown(method)}"
    )


def require_mode(method: Method, mode: Mode) -> None:
    """Refuses a mode whose units the method cannot prune.

    Raises:
        ValueError: with the modes that it can.
    """
    if mode.name not in method.modes:
        raise ValueError(
            f"method={method.name!r} prunes the units of {list(method.modes)} only. "
            f"Received: mode={mode}"
        )


def resolve_temperature(
    method: Method, mode: Mode, temperature: Any
) -> temperatures.Temperature:
    """The temperature from what the user gave (None: nothing).

    Raises:
        ValueError: if there is one, and the method's mask is not soft.
    """
    if temperature is not None and not method.is_soft:
        raise ValueError(
            "Only a soft mask has a temperature; leave it out. "
            f"Received: temperature={shown(temperature)}, method={method.name!r}"
        )
    given = method.default_temperature if temperature is None else temperature
    return mode.resolve_temperature(given)


def serialize(method: Method) -> dict[str, Any]:
    """A JSON-able dict from which `deserialize` makes an equal method."""
    assert dataclasses.is_dataclass(method)
    return {"name": method.name, **dataclasses.asdict(method)}


def deserialize(config: dict[str, Any]) -> Method:
    """The inverse of `serialize`.

    Raises:
        ValueError: unless it is such a dict.
    """
    method: Method = make(METHODS, "the method", _completed(config))
    return method


def _completed(config: Any) -> Any:
    """The config, with what did not exist yet when it was saved.

    A file has all arguments that there were; a dict of a user, only some.
    """
    name = config.get("name") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in _BEFORE:
        return config
    arguments = {field.name for field in dataclasses.fields(METHODS[name])}
    is_older = arguments - set(config) == set(_BEFORE[name])
    return {**config, **_BEFORE[name]} if is_older else config
