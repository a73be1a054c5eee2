"""`Timetable`: when a run prunes how much, as its user says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pdp_keras.configs import FINITE, Rule, look_up, number, sequence_of, shown
from pdp_keras.scheduling.schedules import (
    RAMP_PART,
    RAMPS,
    WARMUP_PART,
    LinearRamp,
    StepSchedule,
    TemperatureFall,
)

_EPSILON = number("in (0, 1]", lambda value: 0 < value <= 1)
_PAIR = sequence_of(FINITE, "two numbers")
_FALL = Rule(
    "(begin, end) with 0 <= begin < end, in ramps",
    lambda value: _PAIR.holds(value) and len(value) == 2 and 0 <= value[0] < value[1],
)


@dataclasses.dataclass(frozen=True)
class Timetable:
    """The arguments of `PDPScheduleCallback` that are numbers and functions.

    They are checked at once, as far as they can be without a run.

    Raises:
        ValueError: for arguments that exclude each other or are out of range.
        TypeError: for a schedule that is not callable.
    """

    warmup_epochs: float | None = None
    ramp_epochs: float | None = None
    epsilon: float | None = None
    schedule: Callable[[int], Any] | None = None
    ramp: str | None = None
    update: str | None = None
    final_temperature: float | None = None
    fall: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.update not in ("epoch", "step", None):
            raise ValueError(
                "update must be 'epoch' or 'step'. "
                f"Received: update={shown(self.update)}"
            )
        if self.ramp is not None:
            look_up(RAMPS, "ramp", self.ramp)
        if self.ramp is not None and self.schedule is not None:
            raise ValueError(
                "ramp belongs to ramp_epochs or epsilon; a schedule has its own shape. "
                f"Received: ramp={self.ramp!r} and schedule={self.schedule!r}"
            )
        self._check_ways()
        self.schedule_for(epochs=1)
        if self.fall is not None:
            _FALL.require("fall", self.fall)
        if self.final_temperature is not None:
            TemperatureFall(0, 1, self.final_temperature)

    @property
    def follows_run(self) -> bool:
        """Whether the lengths of the phases are parts of the run."""
        given = (self.warmup_epochs, self.ramp_epochs, self.epsilon, self.schedule)
        return all(value is None for value in given)

    def schedule_for(self, epochs: int) -> LinearRamp | StepSchedule:
        """What the arguments mean in a run of so many epochs."""
        if self.schedule is not None:
            return StepSchedule(self.schedule)
        warmup_epochs, ramp_epochs = self.warmup_epochs, self.ramp_epochs
        if self.epsilon is not None:
            ramp_epochs = 1 / self.epsilon
        if ramp_epochs is None:
            if warmup_epochs is None:
                warmup_epochs = WARMUP_PART * epochs
            ramp_epochs = RAMP_PART * epochs
        return LinearRamp(0 if warmup_epochs is None else warmup_epochs, ramp_epochs)

    def goes_by_step(self, method_does: bool, steps_per_epoch: int | None) -> bool:
        """Whether something may change before every step, or every epoch only.

        Args:
            method_does: what the method does where the user leaves it open.
            steps_per_epoch: None where it is not known.

        Raises:
            ValueError: if it must be known.
        """
        if self.schedule is None and self.update is None:
            return method_does and bool(steps_per_epoch)
        by_step = self.schedule is not None or self.update == "step"
        if by_step and not steps_per_epoch:
            raise ValueError(
                "A schedule by step must know the number of steps in an epoch: pass "
                "`steps_per_epoch` to `fit`, or use update='epoch'. "
                f"Received: steps_per_epoch={steps_per_epoch}"
            )
        return by_step

    def _check_ways(self) -> None:
        ways = ("ramp_epochs", "epsilon", "schedule")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                "Only one of ramp_epochs, epsilon and schedule can be given. "
                f"Received: {', '.join(given)}"
            )
        if self.schedule is not None and self.warmup_epochs is not None:
            raise ValueError(
                "warmup_epochs belongs to ramp_epochs or epsilon; a schedule starts "
                "by itself. Received: "
                f"warmup_epochs={self.warmup_epochs} and schedule={self.schedule!r}"
            )
        if self.epsilon is not None:
            _EPSILON.require("epsilon", self.epsilon)


def check_end(
    schedule: LinearRamp | StepSchedule, epochs: int, steps_per_epoch: int | None
) -> None:
    """Refuses a run that would end before its ramp.

    Raises:
        ValueError: with both lengths.
    """
    if isinstance(schedule, LinearRamp):
        if schedule.epochs_needed > epochs:
            raise ValueError(
                "The ramp must end within the run: warmup_epochs + ramp_epochs "
                f"<= epochs. Received: {schedule.warmup_epochs:g} + "
                f"{schedule.ramp_epochs:g} > epochs={epochs}. (If this `fit` is a "
                "part of a longer run, pass the length of the whole as total_epochs.)"
            )
        return
    last = epochs * (steps_per_epoch or 0) - 1
    fraction = schedule(last)
    if fraction < 1:
        raise ValueError(
            "The schedule must reach the full target within the run. Received: a "
            f"fraction of {fraction:g} at the last step {last} (epochs={epochs}, "
            f"steps_per_epoch={steps_per_epoch})"
        )
