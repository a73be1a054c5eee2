"""How far a run has pruned: pure functions from its position to a fraction.

The fraction is of each weight's target sparsity: 0 during warm-up, 1 when the
ramp has ended. Nothing here knows a model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from pdp_keras.configs import argument, number, require_rules

RAMPS: dict[str, Callable[[float], float]] = {
    "linear": lambda position: position,
    "cubic": lambda position: 1 - (1 - position) ** 3,
}
"""Shapes of a ramp: from its position in [0, 1] to the fraction of the target.

The cubic one is that of gradual magnitude pruning (Zhu and Gupta, arXiv:1710.01878).
"""

# Parts of a run of which nothing is said: `benchmarks/accuracy_ablation.py` compares
# them on three networks, at three sparsities and with two optimizers.
WARMUP_PART = 0.1
RAMP_PART = 0.4

_WARMUP = number("a finite number >= 0", lambda value: value >= 0)
_RAMP = number("a finite number > 0", lambda value: value > 0)
_FINAL = number("in (0, 1]", lambda value: 0 < value <= 1)


@dataclasses.dataclass(frozen=True)
class LinearRamp:
    """PDP's schedule, `min(1, epsilon * (e - s))` (arXiv:2305.11203, algorithm 1).

    Epochs are counted from 1, as in the paper: exactly `warmup_epochs` epochs
    train unpruned, the next one is the first of the ramp, and the last epoch of
    the ramp already trains at the full target.

    Args:
        warmup_epochs: s, epochs (not necessarily whole) without pruning, >= 0.
        ramp_epochs: 1 / epsilon, epochs from the first pruning to the full
            target, > 0.

    Example:

    >>> ramp = LinearRamp(warmup_epochs=2, ramp_epochs=4)
    >>> [ramp(epochs_done) for epochs_done in (1, 2, 3, 4, 5, 6, 7)]
    [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    warmup_epochs: float = argument(_WARMUP)
    ramp_epochs: float = argument(_RAMP)

    def __post_init__(self) -> None:
        require_rules(self)

    def __call__(self, epochs_done: float) -> float:
        """The fraction that holds at the end of this many epochs."""
        ramped = (epochs_done - self.warmup_epochs) / self.ramp_epochs
        # 67 steps of epsilon = 0.015 must end at 1, not at 1 - 1e-16.
        return 1.0 if ramped > 1 - 1e-9 else max(0.0, ramped)

    @property
    def phases(self) -> tuple[float, float]:
        """Where the ramp begins and ends, in epochs done."""
        return self.warmup_epochs, self.warmup_epochs + self.ramp_epochs

    @property
    def epochs_needed(self) -> int:
        """The shortest run that trains at least one epoch at the full target."""
        return math.ceil(self.warmup_epochs + self.ramp_epochs - 1e-9)


@dataclasses.dataclass(frozen=True)
class StepSchedule:
    """A user's schedule by training step, read as a fraction of the target.

    Args:
        schedule: one of

            - a callable from the step (int, from 0) to the fraction in [0, 1], such
              as a `keras.optimizers.schedules.LearningRateSchedule`;
            - a `PruningSchedule` of tensorflow-model-optimization, which returns
              `(should_prune, sparsity)`. Its sparsity is divided by its final
              sparsity, and nothing is pruned before its `begin_step`. Its
              `frequency` has no meaning here: PDP's mask follows the weights at
              every step.
    """

    schedule: Callable[[int], Any]

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise TypeError(
                "schedule must be callable with a step number. "
                f"Received: schedule={self.schedule!r}"
            )
        if self.final_sparsity == 0:
            raise ValueError(
                "A PruningSchedule must end at a sparsity above 0. "
                f"Received: schedule={self.schedule!r}"
            )

    @property
    def final_sparsity(self) -> float | None:
        """The sparsity that a TFMOT schedule itself ends at; None for others."""
        for name in ("final_sparsity", "target_sparsity"):
            if hasattr(self.schedule, name) and hasattr(self.schedule, "begin_step"):
                return float(getattr(self.schedule, name))
        return None

    def __call__(self, step: int) -> float:
        """The fraction that holds during this step.

        Raises:
            ValueError: if the schedule returns something outside [0, 1].
        """
        final = self.final_sparsity
        if final is None:
            fraction = _to_float(self.schedule(step))
        elif step < self.schedule.begin_step:  # type: ignore[attr-defined]
            fraction = 0.0
        else:
            _, sparsity = self.schedule(step)
            fraction = _to_float(sparsity) / final
        if not -1e-6 <= fraction <= 1 + 1e-6:
            raise ValueError(
                "A schedule must return a fraction of the target sparsity in "
                f"[0, 1]. Received: {fraction} at step={step}"
            )
        return 1.0 if fraction > 1 - 1e-6 else max(0.0, fraction)

    def find_phases(self, last: int) -> tuple[float, float]:
        """Where the ramp begins and ends, in steps up to `last`, by bisection.

        Right for a schedule that never falls.
        """
        return (
            float(_first(lambda step: self(step) > 0, last)),
            float(_first(lambda step: self(step) >= 1, last)),
        )


@dataclasses.dataclass(frozen=True)
class TemperatureFall:
    """The fall of the temperature towards a hard mask.

    A mask that is soft to the end loses accuracy when it is rounded at last. So
    the temperature falls geometrically to `final` times its own value, in `length`
    from `begin`, and then stays.

    Args:
        begin: where the fall begins, in epochs or steps.
        length: how long the fall takes, in the same unit.
        final: fraction of the temperature at the end, in (0, 1]; 1 is the paper's
            constant temperature.

    Example:

    >>> [TemperatureFall(begin=4, length=2, final=0.01)(e) for e in (3, 4, 5, 6, 7)]
    [1.0, 1.0, 0.1, 0.01, 0.01]
    """

    begin: float
    length: float
    final: float

    def __post_init__(self) -> None:
        _FINAL.require("final_temperature", self.final)

    def __call__(self, position: float) -> float:
        """The fraction of the temperature at a position."""
        if position <= self.begin:
            return 1.0
        if position >= self.begin + self.length:
            return self.final
        fallen: float = self.final ** ((position - self.begin) / self.length)
        return fallen


def _first(holds: Callable[[int], bool], last: int) -> int:
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _to_float(value: Any) -> float:
    # Schedules of Keras and TFMOT return tensors of any backend, also on devices.
    return float(value.detach() if hasattr(value, "detach") else value)
