"""`PDPScheduleCallback`: warm-up, ramp and hold, in `fit` or in a loop of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras

from pdp_keras import allocation as allocations
from pdp_keras.pruned import ScheduleRun
from pdp_keras.scheduling import Timetable


class PDPScheduleCallback(keras.callbacks.Callback):
    """Raises the sparsity of a pruned model while it trains.

    Three phases: `warmup_epochs` epochs train unpruned; then the sparsity rises over
    `ramp_epochs` epochs; then it is held. Without arguments these are a tenth, four
    tenths and a half of the `epochs` of `fit`. Each weight's target is fixed when the
    ramp begins (for `allocation="global"` by one ranking of all weights), or follows
    the weights until it ends (`"lamp"`).

    At the position p of the ramp, from 0 to 1, the sparsity is `1 - (1 - p)**3` of the
    target, a little more in every step: that of gradual magnitude pruning (Zhu and
    Gupta, arXiv:1710.01878). With `method="pdp_paper"`, or `ramp="linear"` and
    `update="epoch"`, it is that of PDP's paper, `min(1, epsilon * (e - s))` with epochs
    counted from 1 (Cho, Adya and Naik, NeurIPS 2023, arXiv:2305.11203).

    The current sparsity of the whole model appears as `sparsity` in the epoch logs:
    in the progress bar, in `History`, and in every callback that comes later in the
    list, such as `CSVLogger` and `TensorBoard`. So put this one first.

    The sparsity never falls: a second `fit`, or one that resumes a saved model with
    `initial_epoch`, goes on from what was reached, with the same targets.

    Args:
        warmup_epochs: epochs before anything is pruned, >= 0. None means 0, and a
            tenth of the run if nothing says how long the ramp is.
        ramp_epochs: epochs until the full target. The last of them already trains
            at the full target, so a run needs `warmup_epochs + ramp_epochs` epochs.
            None means four tenths of the run, unless `epsilon` or `schedule` is given.
        epsilon: the paper's handle in place of `ramp_epochs`: 1 / ramp_epochs.
        schedule: in place of the three above: a callable from the training step to
            the fraction of the target in [0, 1], such as a
            `keras.optimizers.schedules.LearningRateSchedule`, or a
            `PruningSchedule` of tensorflow-model-optimization, which must end at the
            model's own sparsity.
        ramp: the shape of the ramp, `"linear"` (as in the paper) or `"cubic"`: steep
            at first. None leaves it to the method.
        update: `"epoch"` (as in the paper) changes the sparsity at the start of an
            epoch, `"step"` before every step (with `steps_per_execution`, before
            every execution; in a ramp of more than 200 steps, about a hundred times).
            None leaves it to the method. A `schedule` always works by step.
        final_temperature: the temperature falls geometrically to this fraction of its
            own value, so that the mask is all but hard before it is rounded. 1 keeps
            the paper's constant temperature. None leaves it to the method.
        fall: when the temperature falls: begin and end, in ramps from the ramp's
            beginning. (0.5, 1) begins in the middle of the ramp and ends with it.
            None leaves it to the method, and that to the mode.
        total_epochs: the length of the whole run, where each `fit` is a part of it:
            `fit(initial_epoch=e, epochs=e + 1)` in a loop. None takes the `epochs` of
            `fit`.
        allocation: None keeps the one given to `prune_model`. Anything that
            `prune_model` accepts replaces it, computed from the weights at the end
            of warm-up.

    Raises:
        ValueError: for arguments that exclude each other or are out of range; in
            `fit`, before the first step, for a model without `PDPWrapper`, for a
            ramp that cannot end within the run, and where steps are counted but
            their number in an epoch is unknown.

    Example:

    >>> schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=3, ramp_epochs=12)
    >>> model.fit(x, y, epochs=30, callbacks=[schedule])

    In a custom training loop:

    >>> schedule.start(model, epochs=30, steps_per_epoch=len(batches))
    >>> for epoch in range(30):
    ...     schedule.start_epoch(epoch)
    ...     for step, batch in enumerate(batches):
    ...         schedule.start_step(step)
    ...         train_step(batch)
    """

    def __init__(
        self,
        *,
        warmup_epochs: float | None = None,
        ramp_epochs: float | None = None,
        epsilon: float | None = None,
        schedule: Callable[[int], Any] | None = None,
        ramp: str | None = None,
        update: str | None = None,
        final_temperature: float | None = None,
        fall: tuple[float, float] | None = None,
        total_epochs: int | None = None,
        allocation: Any = None,
    ) -> None:
        super().__init__()
        if total_epochs is not None and not total_epochs >= 1:
            raise ValueError(
                "total_epochs must be a number of epochs, at least 1. "
                f"Received: total_epochs={total_epochs!r}"
            )
        self.total_epochs = total_epochs
        if allocation is not None:
            allocations.get(allocation)
        self.allocation = allocation
        self.timetable = Timetable(
            warmup_epochs=warmup_epochs,
            ramp_epochs=ramp_epochs,
            epsilon=epsilon,
            schedule=schedule,
            ramp=ramp,
            update=update,
            final_temperature=final_temperature,
            fall=fall,
        )
        self._run: ScheduleRun | None = None

    def start(
        self, model: Any, *, epochs: int, steps_per_epoch: int | None = None
    ) -> None:
        """Checks a run before it begins; called by `fit`, or by a custom loop.

        Args:
            model: the pruned model.
            epochs: the epoch at which the run ends, counted from 0 of a first run,
                as in `fit`.
            steps_per_epoch: training steps in an epoch; needed with
                `update="step"` and with `schedule`.
        """
        if self.total_epochs is not None and epochs > self.total_epochs:
            raise ValueError(
                "total_epochs must be the last epoch of all parts of a run. Received: "
                f"total_epochs={self.total_epochs} and epochs={epochs}"
            )
        self._run = ScheduleRun(
            model,
            self.timetable,
            self.allocation,
            self.total_epochs or epochs,
            steps_per_epoch,
        )

    def start_epoch(self, epoch: int) -> None:
        """Sets the sparsity of an epoch, counted from 0."""
        self._started().start_epoch(epoch)

    def start_step(self, step: int) -> None:
        """Sets the sparsity of a step, counted from 0 in its epoch."""
        self._started().start_step(step)

    @property
    def sparsity(self) -> float:
        """The fraction pruned now, of all weights (or channels) that can be."""
        return self._started().sparsity()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        if self.params["epochs"] == 1 and self._is_left_to_run:
            warnings.warn(
                "The default ramp of a run of one epoch goes from dense to the full "
                "target within that epoch. If this `fit` is a part of a longer run, "
                "pass its length: PDPScheduleCallback(total_epochs=...), and "
                "`fit(initial_epoch=e, epochs=e + 1)`.",
                stacklevel=2,
            )
        self.start(
            self.model,
            epochs=self.params["epochs"],
            steps_per_epoch=self.params.get("steps"),
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self.start_epoch(epoch)

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Called by Keras."""
        self.start_step(batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        if logs is not None:
            logs["sparsity"] = self.sparsity

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._started().end()

    @property
    def _is_left_to_run(self) -> bool:
        """Whether nothing but the run's `epochs` says how long its phases are."""
        return self.total_epochs is None and self.timetable.follows_run

    def _started(self) -> ScheduleRun:
        if self._run is None:
            raise ValueError(
                "PDPScheduleCallback.start(model, epochs=...) must be called before "
                "`start_epoch`, `start_step` and `sparsity`. Received: no start"
            )
        return self._run
