"""`PDPScheduleCallback`: warm-up, ramp and hold, in `fit` or in a loop of one's own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras

from pdp_keras import allocation as allocations
from pdp_keras import state
from pdp_keras.method import Method, Moment
from pdp_keras.pruned_weight import read_integer
from pdp_keras.schedules import RAMPS, LinearRamp, StepSchedule, TemperatureFall


class PDPScheduleCallback(keras.callbacks.Callback):
    """Raises the sparsity of a pruned model while it trains.

    Three phases: `warmup_epochs` epochs train unpruned; then the sparsity rises over
    `ramp_epochs` epochs; then it is held. Each weight's target is fixed when the ramp
    begins (for `allocation="global"` by one ranking of all weights), or follows the
    weights until it ends (`"lamp"`).

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
        warmup_epochs: epochs before anything is pruned, >= 0. Default 0.
        ramp_epochs: epochs until the full target. The last of them already trains
            at the full target, so a run needs `warmup_epochs + ramp_epochs` epochs.
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
            None leaves it to the method.
        allocation: None keeps the one given to `prune_model`. Anything that
            `prune_model` accepts replaces it, computed from the weights at the end
            of warm-up.

    Raises:
        ValueError: for arguments that exclude each other or are out of range; in
            `fit`, before the first step, for a model without `PDPWrapper`, for a
            ramp that cannot end within the run, and where steps are counted but
            their number in an epoch is unknown.

    Example:

    >>> schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=3, ramp_epochs=15)
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
        self.schedule = _make_schedule(warmup_epochs, ramp_epochs, epsilon, schedule)
        self.final_temperature = final_temperature
        self.fall = _check_fall(fall)
        if final_temperature is not None:
            TemperatureFall(0, 1, final_temperature)  # checks it before anything runs
        self.update = "step" if schedule is not None else update
        self._goes_by_step = self.update == "step"
        self.allocation = allocation
        self._run: _Run | None = None

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
        self._run = _Run(
            model,
            method,
            self.allocation,
            *self._phases(method, epochs, steps_per_epoch or 0),
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
        self, method: Method, epochs: int, steps: int
    ) -> tuple[LinearRamp, TemperatureFall]:
        """The ramp, which a schedule by step has too, and the fall of temperature."""
        ramp = self.schedule
        if isinstance(ramp, LinearRamp):
            begin, end = ramp.phases
        else:
            begin, end = ramp.find_phases(epochs * steps - 1)
            ramp = LinearRamp(begin / steps, max(1.0, end - begin) / steps)
        final = self.final_temperature
        if final is None:
            final = method.final_temperature
        first, last = self.fall or method.fall
        length = end - begin
        fall = TemperatureFall(begin + first * length, (last - first) * length, final)
        return ramp, fall

    def _started(self) -> _Run:
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


# A ranking of all weights costs more than a step. It is made at the first step of each
# epoch of the ramp, and in an epoch after so many steps and such a part of the ramp.
_STEPS_OF_A_RANKING = 100
_RANKINGS_OF_A_RAMP = 20
# A long ramp by step changes its counters so many times: to set them costs time. On JAX
# all variables are brought up to date for it, which takes as long as a small step.
_CHANGES_OF_A_RAMP = 100


class _Run:
    """One run over one model, with a copy of its counters on the host."""

    def __init__(
        self,
        model: Any,
        method: Method,
        allocation: Any,
        ramp: LinearRamp,
        temperature: TemperatureFall,
        epochs: int,
        steps_per_epoch: int,
        is_a_ramp: bool,
    ) -> None:
        self.model = model
        self.method = method
        self.allocation = allocation
        self.ramp = ramp
        self.temperature = temperature
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.epoch = 0
        self.parts = state.pruned_parts(model)
        # Read when they are first needed: `BackupAndRestore` may still restore them
        # when the run has already been started.
        self.zeros: list[int] = []
        self.targets: list[int] = []
        # One scale a wrapper or group, which its weights share.
        self.scales = {
            id(part.temperature_scale): part.temperature_scale for part in self.parts
        }
        self.scale = math.nan  # unlike any, so that the first one is set
        # What shares the sparsity out anew while the mask changes, if anything does.
        self.moving = state.moving_allocation(model, method, allocation)
        # The fraction at which the last ranking was made, and what it gave to each.
        self.ranked: tuple[float, list[int]] = (0.0, [0] * len(self.parts))
        self.moment: Moment | None = None
        # Not rounded: what a user schedules step by step, and what is rare by itself.
        self.steps_of_a_change = 1
        if is_a_ramp and type(method).is_due is Method.is_due:
            steps = ramp.ramp_epochs * steps_per_epoch
            self.steps_of_a_change = max(1, int(steps / _CHANGES_OF_A_RAMP))

    def stride_to(self, step: int) -> int:
        """How many steps after the last moment this one is."""
        last = step - 1 if self.moment is None else self.moment.step
        return step - last if step >= last else 1

    def count_learned(self) -> None:
        """Has a method that learns its sparsity count what the last step made of it."""
        if self.method.learns_sparsity and self.moment is not None:
            self.sync()
            self.method.count(self.parts)

    def move_to(self, position: float, moment: Moment, fraction: float) -> None:
        """Sets temperature, sparsity and masks for a position in the run."""
        self.moment = moment
        scale = self.temperature(position)
        if scale != self.scale and (
            scale == self.temperature.final or self._may_change(moment)
        ):
            self.sync()
            for variable in self.scales.values():
                variable.assign(scale)
            self.scale = scale
        if not self.method.is_due(moment):
            return
        if fraction > 0 or self.method.may_fall:
            self._set_fraction(fraction, moment)
        if type(self.method).update is not Method.update:
            self._update(moment)

    def _update(self, moment: Moment) -> None:
        self.sync()
        optimizer = getattr(self.model, "optimizer", None)
        self.method.update(self.parts, moment, optimizer)

    def _set_fraction(self, fraction: float, moment: Moment) -> None:
        """Prunes this fraction of every target; never less than before."""
        if not self.zeros:
            self.sync()
            self.zeros = [read_integer(part.zeros) for part in self.parts]
        # Not before something is to go: a dense phase may still train the weights.
        if not self.targets and fraction > 0:
            self.targets = self._fix_targets()
            # A run before this one has ended the ramp: what it chose stands.
            if not self.method.reallocates and self.zeros == self.targets:
                self.moving = None
        if self.method.learns_sparsity:
            return
        if self.moving is not None and self._is_behind(fraction):
            return
        if (
            self.moving is not None
            and fraction > 0
            and self._must_rank(moment, fraction)
        ):
            self._rank(fraction)
        elif 0 < fraction < 1 and not self._may_change(moment):
            return
        may_fall = self.method.may_fall or self.moving is not None
        counts = [
            max(0 if may_fall else now, count)
            for now, count in zip(self.zeros, self._counts(fraction), strict=True)
        ]
        if counts == self.zeros:
            return
        self.sync()
        for part, now, count in zip(self.parts, self.zeros, counts, strict=True):
            if count != now:
                part.zeros.assign(count)
        self.zeros = counts

    def _may_change(self, moment: Moment) -> bool:
        """Whether counters are set at this moment, if it is not the end of the ramp."""
        return self._comes_round(moment, self.steps_of_a_change)

    def _comes_round(self, moment: Moment, steps: int) -> bool:
        """Whether so many steps have gone by, counted from the epoch's first one.

        There a resumed run begins, too.
        """
        if moment.step < 0:  # by epoch
            return True
        now = moment.step % self.steps_per_epoch
        return now // steps > (now - moment.stride) // steps

    def _is_behind(self, fraction: float) -> bool:
        """Whether a run before this one has pruned more than this fraction."""
        if self.method.may_fall:
            return False
        reached, now = sum(self.zeros), fraction * sum(self.targets)
        return reached > now + len(self.parts)  # each of which was rounded

    def _counts(self, fraction: float) -> list[int]:
        """The zeros of each: from the last ranking in a straight line to the target."""
        if fraction == 0:
            return [0] * len(self.parts)
        begin, counts = self.ranked
        share = 1.0 if begin == 1 else (fraction - begin) / (1 - begin)
        return [
            allocations.count_zeros(1.0, count + share * (target - count))
            for count, target in zip(counts, self.targets, strict=True)
        ]

    def _must_rank(self, moment: Moment, fraction: float) -> bool:
        if self.method.reallocates:
            return True
        if self.ranked[0] == 0:  # not yet
            return True
        if fraction == 1:  # for the last time
            return self.ranked[0] < 1
        ramp_steps = moment.ramp.ramp_epochs * moment.steps_per_epoch
        steps = max(_STEPS_OF_A_RANKING, int(ramp_steps / _RANKINGS_OF_A_RAMP))
        return self._comes_round(moment, steps)

    def _rank(self, fraction: float) -> None:
        """Shares the sparsity of this fraction out by what the weights are now."""
        assert self.moving is not None
        self.sync()
        infos = [
            dataclasses.replace(part.describe(), values=values)
            for part, values in zip(
                self.parts, self.method.rankings(self.parts), strict=True
            )
        ]
        state.require_finite(infos)
        sparsity = state.requested_sparsity(self.model)
        self.targets = self._limited(self.moving(infos, sparsity))
        for part, zeros in zip(self.parts, self.targets, strict=True):
            part.target_zeros.assign(zeros)
        self.ranked = fraction, self._limited(self.moving(infos, fraction * sparsity))

    def _limited(self, counts: list[int]) -> list[int]:
        pairs = zip(self.parts, counts, strict=True)
        return [part.limit_zeros(zeros) for part, zeros in pairs]

    def _fix_targets(self) -> list[int]:
        self.sync()
        # Once something is pruned the targets stand, also in a resumed run.
        state.fix_targets(self.model, None if any(self.zeros) else self.allocation)
        return [read_integer(part.target_zeros) for part in self.parts]

    def sync(self) -> None:
        """Brings the variables up to date, before one is read or set."""
        # On JAX the trainer holds the newest values; variables lag within an epoch.
        sync = getattr(self.model, "jax_state_sync", None)
        if sync is not None:
            sync()


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
) -> LinearRamp | StepSchedule:
    ways = {"ramp_epochs": ramp_epochs, "epsilon": epsilon, "schedule": schedule}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            "Exactly one of ramp_epochs, epsilon and schedule must be given. "
            f"Received: {', '.join(given) or 'none of them'}"
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
    assert ramp_epochs is not None
    return LinearRamp(warmup_epochs or 0, ramp_epochs)
