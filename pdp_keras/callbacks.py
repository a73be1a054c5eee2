"""`PDPScheduleCallback`: warm-up, ramp and hold, in `fit` or in a loop of one's own."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from pdp_keras import allocation as allocations
from pdp_keras import state
from pdp_keras.method import Moment
from pdp_keras.schedule_run import ScheduleRun
from pdp_keras.schedules import (
    RAMP_PART,
    RAMPS,
    WARMUP_PART,
    LinearRamp,
    StepSchedule,
    TemperatureFall,
)


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
        allocation: Any = None,
    ) -> None:
        super().__init__()
        if update not in ("epoch", "step", None):
            raise ValueError(
                f"update must be 'epoch' or 'step'. Received: update={update!r}"
            )
        if ramp is not None and ramp not in RAMPS:
            raise ValueError(
                f"ramp must be one of {sorted(RAMPS)}. Received: ramp={ramp!r}"
            )
        if allocation is not None:
            allocations.get(allocation)
        self.ramp = ramp
        if ramp is not None and schedule is not None:
            raise ValueError(
                "ramp belongs to ramp_epochs or epsilon; a schedule has its own shape. "
                f"Received: ramp={ramp!r} and schedule={schedule!r}"
            )
        # Anew when a run says how many epochs it has.
        self._make_schedule = functools.partial(
            _make_schedule, warmup_epochs, ramp_epochs, epsilon, schedule
        )
        self.schedule = self._make_schedule(epochs=1)
        self.final_temperature = final_temperature
        self.fall = _check_fall(fall)
        if final_temperature is not None:
            TemperatureFall(0, 1, final_temperature)  # checks it before anything runs
        self.update = "step" if schedule is not None else update
        self._goes_by_step = self.update == "step"
        self.allocation = allocation
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
        parts = state.require_pruned(model)
        if self.allocation is not None:
            for part in parts:
                part.mode.require_allocated(self.allocation)
        self.schedule = self._make_schedule(epochs=epochs)
        method = state.common_method(parts)
        self._goes_by_step = (
            self.update == "step"
            if self.update is not None
            else method.goes_by_step and bool(steps_per_epoch)
        )
        self._check_steps(steps_per_epoch)
        self._check_target(model)
        self._check_end(epochs, steps_per_epoch)
        for wrapper in state.find_wrappers(model):
            wrapper.is_scheduled = True
        self._run = ScheduleRun(
            model,
            method,
            self.allocation,
            *self._phases(parts, epochs, steps_per_epoch or 0),
            epochs,
            steps_per_epoch or 0,
            isinstance(self.schedule, LinearRamp),
        )

    def start_epoch(self, epoch: int) -> None:
        """Sets the sparsity of an epoch, counted from 0."""
        run = self._started()
        run.epoch = epoch
        run.count_learned()
        if self._goes_by_step:
            self.start_step(0)
        else:
            moment = Moment(epoch + 1, run.ramp, run.epochs)
            run.move_to(epoch + 1, moment, run.method.fraction(moment, self.ramp))

    def start_step(self, step: int) -> None:
        """Sets the sparsity of a step, counted from 0 in its epoch."""
        run = self._started()
        if not self._goes_by_step:
            return
        done = run.epoch + (step + 1) / run.steps_per_epoch
        total = run.epoch * run.steps_per_epoch + step
        stride = run.stride_to(total)
        moment = Moment(done, run.ramp, run.epochs, total, run.steps_per_epoch, stride)
        if isinstance(self.schedule, LinearRamp):
            run.move_to(done, moment, run.method.fraction(moment, self.ramp))
        else:
            run.move_to(total, moment, self.schedule(total))

    @property
    def sparsity(self) -> float:
        """The fraction pruned now, of all weights (or channels) that can be."""
        run = self._started()
        run.count_learned()
        run.sync()
        return state.current_sparsity(run.parts)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
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

    def _phases(
        self, parts: Sequence[Any], epochs: int, steps: int
    ) -> tuple[LinearRamp, TemperatureFall]:
        """The ramp, which a schedule by step has too, and the fall of temperature."""
        ramp = self.schedule
        if isinstance(ramp, LinearRamp):
            begin, end = ramp.phases
        else:
            begin, end = ramp.find_phases(epochs * steps - 1)
            ramp = LinearRamp(begin / steps, max(1.0, end - begin) / steps)
        method = state.common_method(parts)
        final = self.final_temperature
        if final is None:
            final = method.final_temperature
        # Where modes are mixed, that of the one that is soft for longest.
        first, last = self.fall or max(method.default_fall(p.mode) for p in parts)
        length = end - begin
        fall = TemperatureFall(begin + first * length, (last - first) * length, final)
        return ramp, fall

    def _started(self) -> ScheduleRun:
        if self._run is None:
            raise ValueError(
                "PDPScheduleCallback.start(model, epochs=...) must be called before "
                "`start_epoch`, `start_step` and `sparsity`. Received: no start"
            )
        return self._run

    def _check_steps(self, steps_per_epoch: int | None) -> None:
        if self._goes_by_step and not steps_per_epoch:
            raise ValueError(
                "A schedule by step must know the number of steps in an epoch: pass "
                "`steps_per_epoch` to `fit`, or use update='epoch'. "
                f"Received: steps_per_epoch={steps_per_epoch}"
            )

    def _check_target(self, model: Any) -> None:
        final = getattr(self.schedule, "final_sparsity", None)
        requested = state.requested_sparsity(model)
        if final is not None and abs(final - requested) > 1e-6:
            raise ValueError(
                "A schedule of tensorflow-model-optimization must end at the sparsity "
                f"given to prune_model. Received: final sparsity {final} of the "
                f"schedule, sparsity={requested:g} of the model"
            )

    def _check_end(self, epochs: int, steps_per_epoch: int | None) -> None:
        if isinstance(self.schedule, LinearRamp):
            if self.schedule.epochs_needed > epochs:
                raise ValueError(
                    "The ramp must end within the run: warmup_epochs + ramp_epochs "
                    f"<= epochs. Received: {self.schedule.warmup_epochs:g} + "
                    f"{self.schedule.ramp_epochs:g} > epochs={epochs}"
                )
            return
        last = epochs * (steps_per_epoch or 0) - 1
        fraction = self.schedule(last)
        if fraction < 1:
            raise ValueError(
                "The schedule must reach the full target within the run. Received: a "
                f"fraction of {fraction:g} at the last step {last} (epochs={epochs}, "
                f"steps_per_epoch={steps_per_epoch})"
            )


def _check_fall(fall: Any) -> tuple[float, float] | None:
    if fall is None:
        return None
    if not (len(fall) == 2 and 0 <= fall[0] < fall[1] < math.inf):
        raise ValueError(
            "fall must be (begin, end) with 0 <= begin < end, in ramps. "
            f"Received: fall={fall!r}"
        )
    return float(fall[0]), float(fall[1])


def _make_schedule(
    warmup_epochs: float | None,
    ramp_epochs: float | None,
    epsilon: float | None,
    schedule: Callable[[int], Any] | None,
    epochs: int,
) -> LinearRamp | StepSchedule:
    """What the arguments of the callback mean in a run of so many epochs."""
    ways = {"ramp_epochs": ramp_epochs, "epsilon": epsilon, "schedule": schedule}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise ValueError(
            "Only one of ramp_epochs, epsilon and schedule can be given. "
            f"Received: {', '.join(given)}"
        )
    if schedule is not None:
        if warmup_epochs is not None:
            raise ValueError(
                "warmup_epochs belongs to ramp_epochs or epsilon; a schedule starts "
                "by itself. Received: "
                f"warmup_epochs={warmup_epochs} and schedule={schedule!r}"
            )
        return StepSchedule(schedule)
    if epsilon is not None:
        if not (math.isfinite(epsilon) and 0 < epsilon <= 1):
            raise ValueError(
                f"epsilon must be in (0, 1]. Received: epsilon={epsilon!r}"
            )
        ramp_epochs = 1 / epsilon
    if ramp_epochs is None:
        if warmup_epochs is None:
            warmup_epochs = WARMUP_PART * epochs
        ramp_epochs = RAMP_PART * epochs
    return LinearRamp(warmup_epochs or 0, ramp_epochs)
