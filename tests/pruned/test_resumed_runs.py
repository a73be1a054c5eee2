"""Runs that go on: a second fit, another process, after a power cut."""

import subprocess
import sys

import keras
import models
import numpy as np
import pytest
from runs import LAMP, STRAIGHT, compiled, fit, zeros

import pdp_keras
from pdp_keras import PDPScheduleCallback
from pdp_keras.pruned import parts


@pytest.mark.parametrize("own", ["global", "lamp"])
@pytest.mark.parametrize("given", ["uniform", None])
def test_the_sparsity_never_falls_in_a_second_fit(own, given):
    model = compiled(allocation=own)
    fit(model, 2, PDPScheduleCallback(ramp_epochs=1))
    targets = zeros(model)
    second = PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2, allocation=given)
    history = fit(model, 3, second).history
    assert history["sparsity"] == [0.5] * 3 and zeros(model) == targets


SCRIPT = """
import sys
import keras, numpy as np
sys.path.insert(0, {tests!r})
from runs import fit
import pdp_keras
from pdp_keras import PDPScheduleCallback
model = keras.models.load_model({path!r})
fit(model, 4, PDPScheduleCallback(**{arguments!r}), initial_epoch=2)
np.savez({out!r}, *[np.asarray(v) for v in model.variables])
"""


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"warmup_epochs": 1, "ramp_epochs": 1}, marks=pytest.mark.slow),
        pytest.param(
            {"warmup_epochs": 0, "ramp_epochs": 2, "update": "step"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"warmup_epochs": 0, "ramp_epochs": 1, "allocation": "uniform"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["epoch", "step", "allocation"],
)
def test_two_epochs_a_new_process_and_two_more_equal_four(arguments, tmp_path):
    straight = compiled(0.7)
    fit(straight, 4, PDPScheduleCallback(**arguments))
    interrupted = compiled(0.7)
    fit(interrupted, 2, PDPScheduleCallback(**arguments))
    interrupted.save(tmp_path / "half.keras")
    script = SCRIPT.format(
        tests=str(models.__file__).rpartition("/")[0],
        path=str(tmp_path / "half.keras"),
        out=str(tmp_path / "end.npz"),
        arguments=arguments,
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "end.npz") as resumed:
        for variable, name in zip(straight.variables, resumed.files, strict=True):
            np.testing.assert_array_equal(variable.numpy(), resumed[name], name)


# Targets fixed at the end of warm-up, and rankings that are made anew.
@pytest.mark.parametrize(
    ("allocation", "arguments"),
    [
        ("global", {}),
        pytest.param("global", STRAIGHT, marks=pytest.mark.slow),
        pytest.param("lamp", {}, marks=pytest.mark.slow),
        ("lamp", STRAIGHT),
    ],
    ids=["by step", "by epoch", "moving by step", "moving by epoch"],
)
def test_an_interrupted_ramp_resumes_where_it_was(allocation, arguments, tmp_path):
    schedule = {"warmup_epochs": 1, "ramp_epochs": 4, **arguments}

    class PowerCut(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.save(tmp_path / "checkpoint.keras")
            if epoch == 2:
                raise KeyboardInterrupt

    straight = compiled(allocation=allocation)
    fit(straight, 6, PDPScheduleCallback(**schedule))
    interrupted = compiled(allocation=allocation)
    with pytest.raises(KeyboardInterrupt):
        fit(interrupted, 6, PDPScheduleCallback(**schedule), PowerCut())
    resumed = keras.models.load_model(tmp_path / "checkpoint.keras")
    fit(resumed, 6, PDPScheduleCallback(**schedule), initial_epoch=3)
    for a, b in zip(straight.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.filterwarnings("ignore:Training was stopped before")
def test_an_interrupted_default_run_resumes_its_sparsity(tmp_path):
    interrupted = compiled()
    schedule = {"warmup_epochs": 1, "ramp_epochs": 4}
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(
            interrupted, "stop_training", epoch == 2
        )
    )
    first = fit(interrupted, 6, PDPScheduleCallback(**schedule), stop).history
    interrupted.save(tmp_path / "half.keras")
    resumed = keras.models.load_model(tmp_path / "half.keras")
    assert {w.deferred_allocation for w in parts.find_wrappers(resumed)} == {LAMP}
    last = fit(resumed, 6, PDPScheduleCallback(**schedule), initial_epoch=3).history
    # 90 * (1 - (1 - k / 4)**3) of 180 weights at the end of epoch k of the ramp.
    expected = [0, 37 / 128, 56 / 128, 63 / 128, 0.5, 0.5]
    found = first["sparsity"] + last["sparsity"]
    np.testing.assert_allclose(found, expected, atol=1.01 / 180)
    assert sum(zeros(resumed)) == 90


@pytest.mark.parametrize("first", ["schedule", "backup"])
def test_backup_and_restore(first, tmp_path):
    def callbacks(*more):
        schedule = PDPScheduleCallback(ramp_epochs=4, allocation="uniform")
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
        pair = [schedule, backup] if first == "schedule" else [backup, schedule]
        return [*pair, *more]

    class PowerCut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    straight, model = compiled(), compiled()
    fit(straight, 6, PDPScheduleCallback(ramp_epochs=4, allocation="uniform"))
    with pytest.raises(KeyboardInterrupt):
        fit(model, 6, *callbacks(PowerCut()))
    resumed = compiled()
    history = fit(resumed, 6, *callbacks())
    assert len(history.epoch) == 3
    for a, b in zip(straight.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.filterwarnings("ignore:Training was stopped before")
@pytest.mark.parametrize("allocation", ["global", "lamp"])
def test_a_ramp_that_begins_again_takes_nothing_back(allocation):
    model = compiled(0.5, allocation=allocation)
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1)
    )
    fit(model, 4, PDPScheduleCallback(ramp_epochs=4, ramp="linear"), stop)
    assert sum(zeros(model)) == pytest.approx(45, abs=1)
    model.stop_training = False
    again = PDPScheduleCallback(warmup_epochs=1, ramp_epochs=4, ramp="linear")
    found = fit(model, 5, again).history["sparsity"]
    assert found == pytest.approx([0.25, 0.25, 0.25, 0.375, 0.5], abs=2.01 / 180)
    assert sum(zeros(model)) == 90


def test_a_run_that_goes_on_with_another_ramp_says_so():
    """Left out, the ramp follows `epochs`: 10 and then 40 are two ramps."""
    model = compiled()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 2)
    )
    with pytest.warns(UserWarning, match="stopped before the model reached its target"):
        fit(model, 10, PDPScheduleCallback(), stop)
    with pytest.warns(UserWarning, match="A run that goes on must have the ramp"):
        fit(model, 40, PDPScheduleCallback(), initial_epoch=3)


@pytest.mark.slow
@pytest.mark.parametrize("update", ["epoch", "step"])
def test_a_run_that_goes_on_with_its_ramp_does_not(update):
    schedule = {"warmup_epochs": 1, "ramp_epochs": 6, "update": update}
    model = compiled()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 2)
    )
    with pytest.warns(UserWarning, match="stopped before the model reached its target"):
        fit(model, 10, PDPScheduleCallback(**schedule), stop)
    fit(model, 40, PDPScheduleCallback(**schedule), initial_epoch=3)


@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize(
    ("method", "extra"), [("movement", "kernel_scores"), ("str", "kernel_threshold")]
)
def test_weight_decay_spares_what_is_no_weight(method, extra, is_built):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8)])
    model = pdp_keras.prune_model(model, 0.5, method=method)
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    bias = model.layers[0].layer.bias
    optimizer.exclude_from_weight_decay(var_list=[bias])
    model.compile(optimizer, "mse")
    if is_built:
        optimizer.build(model.trainable_variables)
    schedule = PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    schedule.start(model, epochs=2, steps_per_epoch=1)
    decays = {v.name: optimizer._use_weight_decay(v) for v in model.trainable_variables}
    assert decays == {"kernel": True, "bias": False, extra: False}
