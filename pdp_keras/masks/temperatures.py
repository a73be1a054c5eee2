"""How wide the soft band around the threshold is.

A temperature gives the band's `width`, the square root of tau, in units of |w|.
The paper's tau is one number for all layers and is not scale-free: the gradient's
gain at the threshold is `1/2 + t**2 / (2 tau)`, so the same tau is a hard step in
a layer of large weights and no mask at all in a layer of small ones. A temperature
relative to t**2 has the same gain everywhere.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

from keras import ops

from pdp_keras.configs import FINITE, make, number, shown

Tensor = Any


_POSITIVE = number("a positive, finite number", lambda value: value > 0)


@dataclasses.dataclass(frozen=True)
class AbsoluteTemperature:
    """The paper's temperature: the same tau for every weight.

    Args:
        value: tau, in units of w**2, positive. The paper uses 1e-4 for ResNet18
            on ImageNet (arXiv:2305.11203, section 4).

    Example:

    >>> pdp_keras.prune_model(model, temperature=AbsoluteTemperature(1e-4))
    >>> pdp_keras.prune_model(model, temperature=1e-4)  # the same
    """

    value: float

    def __post_init__(self) -> None:
        _POSITIVE.require("temperature", self.value)

    def width(self, threshold: Tensor) -> Tensor:
        """sqrt(tau) as a tensor of the shape of `threshold`."""
        return ops.full_like(threshold, math.sqrt(self.value))


@dataclasses.dataclass(frozen=True)
class RelativeTemperature:
    """tau = factor * t**2: the same gain, `1/2 + 1/(2 factor)`, in every layer.

    Args:
        factor: tau in units of the squared threshold, positive.

    Example:

    >>> pdp_keras.prune_model(model, temperature=RelativeTemperature(0.5))
    """

    factor: float

    def __post_init__(self) -> None:
        _POSITIVE.require("factor", self.factor)

    def width(self, threshold: Tensor) -> Tensor:
        """sqrt(tau) as a tensor of the shape of `threshold`."""
        return threshold * math.sqrt(self.factor)


Temperature = AbsoluteTemperature | RelativeTemperature

DEFAULT = RelativeTemperature(1.0)

_KINDS: dict[str, type[Temperature]] = {
    "absolute": AbsoluteTemperature,
    "relative": RelativeTemperature,
}


def get(temperature: float | Temperature | dict[str, Any] | None) -> Temperature:
    """A temperature from what a user writes.

    Args:
        temperature: None for the default, a positive number for the paper's
            absolute tau, a temperature object, or the dict of `serialize`.

    Raises:
        ValueError: if a number is not positive and finite.
        TypeError: if it is none of these.
    """
    if temperature is None:
        return DEFAULT
    if isinstance(temperature, AbsoluteTemperature | RelativeTemperature):
        return temperature
    if isinstance(temperature, dict):
        return deserialize(temperature)
    if isinstance(temperature, bool) or not isinstance(temperature, numbers.Real):
        raise TypeError(
            "temperature must be a positive number, a RelativeTemperature or an "
            f"AbsoluteTemperature. Received: temperature={shown(temperature)}"
        )
    # An int may be larger than every float; that one is refused as it is.
    is_finite = FINITE.holds(temperature)
    return AbsoluteTemperature(float(temperature) if is_finite else temperature)


def serialize(temperature: Temperature) -> dict[str, Any]:
    """A JSON-able dict from which `deserialize` makes an equal temperature."""
    kind = next(k for k, cls in _KINDS.items() if type(temperature) is cls)
    return {"kind": kind, **dataclasses.asdict(temperature)}


def deserialize(config: dict[str, Any]) -> Temperature:
    """The inverse of `serialize`.

    Raises:
        ValueError: unless it is such a dict.
    """
    temperature: Temperature = make(_KINDS, "the temperature", config, "kind")
    return temperature
