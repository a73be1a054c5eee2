"""`ScheduleRun`: one run of a schedule over one model, moment by moment."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

from pdp_keras import allocation as allocations
from pdp_keras.layers import mask_once, set_home
from pdp_keras.masks import read_integer
from pdp_keras.methods import Method
from pdp_keras.pruned.decay import spare_from_decay
from pdp_keras.pruned.parts import (
    common_method,
    current_sparsity,
    find_wrappers,
    fix_targets,
    moving_allocation,
    requested_sparsity,
    require_finite,
    require_pruned,
)
from pdp_keras.pruned.quantization import refuse_quantization
from pdp_keras.scheduling import (
    LinearRamp,
    Moment,
    TemperatureFall,
    Timetable,
    check_end,
)

# A ranking of all weights costs more than a step. It is made at the first step of each
# epoch of the ramp, and in an epoch after so many steps and such a part of the ramp.
_STEPS_OF_A_RANKING = 100
_RANKINGS_OF_A_RAMP = 20
# A long ramp by step changes its counters so many times: to set them costs time. On JAX
# all variables are brought up to date for it, which takes as long as a small step.
_CHANGES_OF_A_RAMP = 100
# What counts and rankings may be off the fraction of a moment.
_ROUNDING = 0.03


class ScheduleRun:
    """One run over one model, with a copy of its counters on the host.

    Args:
        model: the pruned model.
        timetable: when how much is pruned.
        allocation: what replaces the model's own allocation, or None.
        epochs: the epoch at which the run ends.
        steps_per_epoch: training steps in an epoch; None where nobody knows.

    Raises:
        ValueError: before anything is changed, if the model is not pruned, or the
            timetable does not fit it, or cannot end within the run.
    """

    def __init__(
        self,
        model: Any,
        timetable: Timetable,
        allocation: Any,
        epochs: int,
        steps_per_epoch: int | None,
    ) -> None:
        self.parts = require_pruned(model)
        if allocation is not None:
            for part in self.parts:
                part.mode.require_allocated(allocation)
        self.method = common_method(self.parts)
        self.schedule = timetable.schedule_for(epochs)
        self.goes_by_step = timetable.goes_by_step(
            self.method.goes_by_step, steps_per_epoch
        )
        self._check_target(model)
        check_end(self.schedule, epochs, steps_per_epoch)
        self.wrappers = find_wrappers(model)
        for wrapper in self.wrappers:
            wrapper.is_scheduled = True
            wrapper.driver = self
            set_home(wrapper.pruned_weights, model)
        spare_from_decay(
            getattr(model, "optimizer", None),
            [
                variable
                for part in self.parts
                for variable in part.extras.values()
                if variable.trainable
            ],
        )
        refuse_quantization(model)
        mask_once(model)
        self.model = model
        self.allocation = allocation
        self.shape = timetable.ramp
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch or 0
        self.ramp, self.temperature = self._phases(timetable)
        self.epoch = 0
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
        self.moving = moving_allocation(model, self.method, allocation)
        # The fraction at which the last ranking was made, and what it gave to each.
        self.ranked: tuple[float, list[int]] = (0.0, [0] * len(self.parts))
        self.moment: Moment | None = None
        steps = self.ramp.ramp_epochs * self.steps_per_epoch
        self.steps_of_a_ranking = max(
            _STEPS_OF_A_RANKING, int(steps / _RANKINGS_OF_A_RAMP)
        )
        # Not rounded: what a user schedules step by step, and what is rare by itself.
        self.steps_of_a_change = 1
        if isinstance(self.schedule, LinearRamp) and not self._has_own("is_due"):
            self.steps_of_a_change = max(1, int(steps / _CHANGES_OF_A_RAMP))

    def start_epoch(self, epoch: int) -> None:
        """Sets the sparsity of an epoch, counted from 0."""
        self._require_alone()
        if self.moment is None:
            self._warn_of_another_ramp(epoch)
        self.epoch = epoch
        self._count_learned()
        if self.goes_by_step:
            self.start_step(0)
        else:
            moment = Moment(epoch + 1, self.ramp, self.epochs)
            self._move_to(epoch + 1, moment, self.method.fraction(moment, self.shape))

    def start_step(self, step: int) -> None:
        """Sets the sparsity of a step, counted from 0 in its epoch."""
        if not self.goes_by_step:
            return
        done = self.epoch + (step + 1) / self.steps_per_epoch
        total = self.epoch * self.steps_per_epoch + step
        stride = self._stride_to(total)
        moment = Moment(
            done, self.ramp, self.epochs, total, self.steps_per_epoch, stride
        )
        if isinstance(self.schedule, LinearRamp):
            self._move_to(done, moment, self.method.fraction(moment, self.shape))
        else:
            self._move_to(total, moment, self.schedule(total))

    def sparsity(self) -> float:
        """The fraction pruned now, of all weights (or channels) that can be."""
        self._count_learned()
        self._sync()
        return current_sparsity(self.parts)

    def end(self) -> None:
        """Warns if something has stopped the run before its target.

        Warns:
            UserWarning: with the sparsity that was reached.
        """
        stopped = getattr(self.model, "stop_training", False)
        if not stopped or self.method.learns_sparsity:
            return
        self._sync()
        if any(part.is_below_target for part in self.parts):
            warnings.warn(
                "Training was stopped before the model reached its target sparsity "
                f"(it is at {current_sparsity(self.parts):.2%}). A callback that "
                "looks for the best epoch finds it while little is pruned: wrap it, "
                "`pdp_keras.AtTarget(keras.callbacks.EarlyStopping(...))`.",
                stacklevel=2,
            )

    def _warn_of_another_ramp(self, epoch: int) -> None:
        """Warns if a run that goes on has another ramp than the one it began with."""
        method = self.method
        is_free = method.learns_sparsity or method.sets_zeros or method.may_fall
        # Where masks change now and then, the sparsity lags behind the ramp.
        is_free = is_free or self._has_own("is_due")
        if epoch == 0 or is_free or not isinstance(self.schedule, LinearRamp):
            return
        self._sync()
        zeros = sum(read_integer(part.zeros) for part in self.parts)
        targets = [read_integer(part.target_zeros) for part in self.parts]
        if zeros == 0 or not any(part.is_below_target for part in self.parts):
            return
        if min(targets) < 0:  # not decided
            return
        reached = zeros / max(1, sum(targets))
        # Where it was stopped within an epoch, it is somewhere between these two.
        least, most = (
            method.fraction(Moment(done, self.ramp, self.epochs), self.shape)
            for done in (epoch, epoch + 1)
        )
        if not least - _ROUNDING <= reached <= most + _ROUNDING:
            warnings.warn(
                "A run that goes on must have the ramp that it began with; left out, "
                "it follows the `epochs` of `fit`. Pass warmup_epochs and ramp_epochs, "
                f"or total_epochs. Received: a model at {reached:.2%} of its target, "
                f"where this run is at {least:.2%} at the beginning of epoch {epoch}",
                stacklevel=2,
            )

    def _require_alone(self) -> None:
        if any(wrapper.driver is not self for wrapper in self.wrappers):
            raise ValueError(
                "A model must be driven by one PDPScheduleCallback at a time. "
                f"Received: another one has been started on model={self.model.name!r}"
            )

    def _check_target(self, model: Any) -> None:
        final = getattr(self.schedule, "final_sparsity", None)
        requested = requested_sparsity(model)
        if final is not None and abs(final - requested) > 1e-6:
            raise ValueError(
                "A schedule of tensorflow-model-optimization must end at the sparsity "
                f"given to prune_model. Received: final sparsity {final} of the "
                f"schedule, sparsity={requested:g} of the model"
            )

    def _phases(self, timetable: Timetable) -> tuple[LinearRamp, TemperatureFall]:
        """The ramp, which a schedule by step has too, and the fall of temperature."""
        ramp = self.schedule
        if isinstance(ramp, LinearRamp):
            begin, end = ramp.phases
        else:
            steps = self.steps_per_epoch
            begin, end = ramp.find_phases(self.epochs * steps - 1)
            ramp = LinearRamp(begin / steps, max(1.0, end - begin) / steps)
        final = timetable.final_temperature
        if final is None:
            final = self.method.final_temperature
        # Where modes are mixed, that of the one that is soft for longest.
        falls = [self.method.default_fall(part.mode) for part in self.parts]
        first, last = timetable.fall or max(falls)
        length = end - begin
        fall = TemperatureFall(begin + first * length, (last - first) * length, final)
        return ramp, fall

    def _has_own(self, name: str) -> bool:
        """Whether the method has something else than the base class at a hook."""
        return getattr(type(self.method), name) is not getattr(Method, name)

    def _stride_to(self, step: int) -> int:
        """How many steps after the last moment this one is."""
        last = step - 1 if self.moment is None else self.moment.step
        return step - last if step >= last else 1

    def _count_learned(self) -> None:
        """Has a method that learns its sparsity count what the last step made of it."""
        if self._has_own("count") and self.moment is not None:
            self._sync()
            self.method.count(self.parts)

    def _move_to(self, position: float, moment: Moment, fraction: float) -> None:
        """Sets temperature, sparsity and masks for a position in the run."""
        self.moment = moment
        scale = self.temperature(position)
        if scale != self.scale and (
            scale == self.temperature.final or self._may_change(moment)
        ):
            self._sync()
            for variable in self.scales.values():
                variable.assign(scale)
            self.scale = scale
        if not self.method.is_due(moment):
            return
        if fraction > 0 or self.method.may_fall:
            self._set_fraction(fraction, moment)
        if self._has_own("update"):
            self._update(moment)

    def _update(self, moment: Moment) -> None:
        self._sync()
        optimizer = getattr(self.model, "optimizer", None)
        self.method.update(self.parts, moment, optimizer)

    def _set_fraction(self, fraction: float, moment: Moment) -> None:
        """Prunes this fraction of every target; never less than before."""
        if not self.zeros:
            self._sync()
            self.zeros = [read_integer(part.zeros) for part in self.parts]
        # Not before something is to go: a dense phase may still train the weights.
        if not self.targets and fraction > 0:
            self.targets = self._fix_targets()
            # A run before this one has ended the ramp: what it chose stands.
            if not self.method.reallocates and self.zeros == self.targets:
                self.moving = None
        if self.method.sets_zeros:
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
        self._sync()
        for part, now, count in zip(self.parts, self.zeros, counts, strict=True):
            if count != now:
                part.zeros.assign(count)
        self.zeros = counts

    def _may_change(self, moment: Moment) -> bool:
        """Whether counters are set at this moment, if it is not the end of the ramp."""
        return moment.passes_in_epoch(self.steps_of_a_change)

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
        return moment.passes_in_epoch(self.steps_of_a_ranking)

    def _rank(self, fraction: float) -> None:
        """Shares the sparsity of this fraction out by what the weights are now."""
        assert self.moving is not None
        self._sync()
        infos = [
            dataclasses.replace(part.describe(), values=values)
            for part, values in zip(
                self.parts, self.method.rankings(self.parts), strict=True
            )
        ]
        require_finite(infos)
        sparsity = requested_sparsity(self.model)
        self.targets = self._limited(self.moving(infos, sparsity))
        for part, zeros in zip(self.parts, self.targets, strict=True):
            part.target_zeros.assign(zeros)
        self.ranked = fraction, self._limited(self.moving(infos, fraction * sparsity))

    def _limited(self, counts: list[int]) -> list[int]:
        pairs = zip(self.parts, counts, strict=True)
        return [part.limit_zeros(zeros) for part, zeros in pairs]

    def _fix_targets(self) -> list[int]:
        self._sync()
        # Once something is pruned the targets stand, also in a resumed run.
        fix_targets(self.model, None if any(self.zeros) else self.allocation)
        targets = [read_integer(part.target_zeros) for part in self.parts]
        if self.moving is None and not any(self.zeros):
            self._warn_of_emptied(targets)
        return targets

    def _warn_of_emptied(self, targets: list[int]) -> None:
        """Warns if nothing will be left of a layer: the model cannot learn then."""
        pairs = zip(self.parts, targets, strict=True)
        emptied = [
            getattr(part, "label", None) or part.layer
            for part, zeros in pairs
            if zeros == part.units > 1
        ]
        if emptied:
            warnings.warn(
                f"The allocation leaves no weight at all in {len(emptied)} of "
                f"{len(self.parts)} {self.parts[0].kind}: {emptied[:5]}. Give each its "
                "share with allocation='lamp', 'erk' or 'uniform', or ask for less.",
                stacklevel=2,
            )

    def _sync(self) -> None:
        """Brings the variables up to date, before one is read or set."""
        # On JAX the trainer holds the newest values; variables lag within an epoch.
        sync = getattr(self.model, "jax_state_sync", None)
        if sync is not None:
            sync()
