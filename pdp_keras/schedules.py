"""How far a run has pruned: pure functions from its position to a fraction.

The fraction is of each weight's target sparsity: 0 during warm-up, 1 when the
ramp has ended. Nothing here knows a model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any


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

    warmup_epochs: float
    ramp_epochs: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.warmup_epochs) and self.warmup_epochs >= 0):
            raise ValueError(
                "warmup_epochs must be a finite number >= 0. "
                f"Received: warmup_epochs={self.warmup_epochs!r}"
            )
        if not (math.isfinite(self.ramp_epochs) and self.ramp_epochs > 0):
            raise ValueError(
                "ramp_epochs must be a finite number > 0. "
                f"Received: ramp_epochs={self.ramp_epochs!r}"
            )

    def __call__(self, epochs_done: float) -> float:
        """The fraction that holds at the end of this many epochs."""
        ramped = (epochs_done - self.warmup_epochs) / self.ramp_epochs
        # 67 steps of epsilon = 0.015 must end at 1, not at 1 - 1e-16.
        return 1.0 if ramped > 1 - 1e-9 else max(0.0, ramped)

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


def _to_float(value: Any) -> float:
    # Schedules of Keras and TFMOT return tensors of any backend, also on devices.
    return float(value.detach() if hasattr(value, "detach") else value)
