"""`MaskSettings`: what is pruned together, by which method, and how softly."""

from __future__ import annotations

import dataclasses
from typing import Any

from pdp_keras import allocation as allocations
from pdp_keras import methods, modes
from pdp_keras.masks import temperatures
from pdp_keras.methods import Method
from pdp_keras.modes import Mode


@dataclasses.dataclass(frozen=True)
class MaskSettings:
    """What a wrapper and a group of channels are told alike, checked together.

    Attributes:
        mode: what is pruned together.
        method: how the weights are masked in training, and when that changes.
        temperature: its own temperature.
        deferred_allocation: the ranking over all layers that the callback makes at the
            end of warm-up; None: there is nothing to wait for.
    """

    mode: Mode
    method: Method
    temperature: temperatures.Temperature
    deferred_allocation: allocations.GlobalMagnitude | None

    @classmethod
    def resolve(
        cls, mode: Any, method: Any, temperature: Any, allocation: Any
    ) -> MaskSettings:
        """From what a user, or a saved config, gives.

        Raises:
            ValueError, TypeError: for what is unknown, or does not go together.
        """
        resolved_mode, resolved_method = modes.get(mode), methods.get(method)
        methods.require_mode(resolved_method, resolved_mode)
        deferred = allocations.get_deferred(allocation)
        if deferred is not None:
            resolved_mode.require_allocated(allocation)
        return cls(
            resolved_mode,
            resolved_method,
            methods.resolve_temperature(resolved_method, resolved_mode, temperature),
            deferred,
        )

    def get_config(self) -> dict[str, Any]:
        """A JSON-able dict of the arguments of `resolve`."""
        temperature = None
        if self.method.is_soft:
            temperature = temperatures.serialize(self.temperature)
        return {
            "mode": modes.serialize(self.mode),
            "method": methods.serialize(self.method),
            "temperature": temperature,
            "allocation": allocations.serialize_deferred(self.deferred_allocation),
        }


class WithSettings:
    """Reads its settings' parts as its own."""

    settings: MaskSettings

    @property
    def mode(self) -> Any:
        """What is pruned together; some modes can more than the base class says."""
        return self.settings.mode

    @property
    def method(self) -> Method:
        """How the weights are masked in training."""
        return self.settings.method

    @property
    def temperature(self) -> temperatures.Temperature:
        """Its own temperature, before it falls."""
        return self.settings.temperature

    @property
    def deferred_allocation(self) -> allocations.GlobalMagnitude | None:
        """The ranking over all layers that waits for the callback, if any."""
        return self.settings.deferred_allocation
