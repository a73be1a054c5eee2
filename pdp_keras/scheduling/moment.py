"""`Moment`: where a run of a schedule stands."""

from __future__ import annotations

import dataclasses

from pdp_keras.scheduling.schedules import LinearRamp


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where a run stands.

    Attributes:
        done: epochs that have been trained at the end of this step (or epoch, if the
            schedule goes by epoch); a fraction within an epoch.
        ramp: the ramp that the user asked for.
        epochs: how long the whole run is.
        step: steps before this one, in all epochs; -1 if the schedule goes by epoch.
        steps_per_epoch: 0 if the schedule goes by epoch.
        stride: steps since the moment before: several where several run in one
            execution, 0 where the same moment comes once more.
    """

    done: float
    ramp: LinearRamp
    epochs: int
    step: int = -1
    steps_per_epoch: int = 0
    stride: int = 1

    @property
    def before(self) -> float:
        """`done` of the moment before."""
        return self.done - self.stride / (self.steps_per_epoch or 1)

    def passes(self, frequency: int) -> bool:
        """Whether a multiple of so many steps has come since; by epoch always."""
        if self.step < 0:
            return True
        return self.step // frequency > (self.step - self.stride) // frequency

    def passes_in_epoch(self, frequency: int) -> bool:
        """The same, counted from the epoch's first step: where a resumed run begins."""
        if self.step < 0:
            return True
        now = self.step % self.steps_per_epoch
        return now // frequency > (now - self.stride) // frequency

    @property
    def progress(self) -> float:
        """The part of the run that is done, in [0, 1]."""
        return min(1.0, self.done / self.epochs)
