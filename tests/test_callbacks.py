"""PDPScheduleCallback in fit and in a loop of one's own."""

import csv
import subprocess
import sys

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from runs import STRAIGHT, X, Y, compiled, fit, zeros

from pdp_keras import PDPScheduleCallback, methods, prune_model, sparsity_report
from pdp_keras.pruned import parts


def test_global_targets_come_from_the_weights_at_the_end_of_warm_up():
    model = compiled(0.5, allocation="global")
    kernels = {}

    def remember(epoch, logs):
        kernels[epoch] = [w.variable.numpy() for w in parts.pruned_weights(model)]

    watch = keras.callbacks.LambdaCallback(on_epoch_end=remember)
    fit(model, 5, PDPScheduleCallback(warmup_epochs=2, ramp_epochs=2), watch)
    magnitudes = [np.abs(np.ravel(kernel)) for kernel in kernels[1]]
    threshold = np.sort(np.concatenate(magnitudes))[90]
    assert zeros(model) == [int(np.sum(m < threshold)) for m in magnitudes]
    assert sum(zeros(model)) == 90
    later = [np.abs(np.ravel(kernel)) for kernel in kernels[4]]
    threshold = np.sort(np.concatenate(later))[90]
    assert zeros(model) != [int(np.sum(m < threshold)) for m in later]


@pytest.mark.parametrize(
    ("allocation", "expected"),
    [("uniform", [60, 30]), ({"first": 0.75, "last": 0.1}, [90, 6])],
)
def test_an_allocation_of_the_callback_replaces_the_models(allocation, expected):
    model = compiled(0.5)
    fit(model, 2, PDPScheduleCallback(ramp_epochs=1, allocation=allocation))
    assert zeros(model) == expected


def test_warm_up_is_training_as_without_pruning():
    pruned = compiled(0.9)
    keras.utils.set_random_seed(3)
    plain = models.mlp()
    plain.compile("adam", "mse")
    expected = fit(plain, 2).history["loss"]
    schedule = PDPScheduleCallback(warmup_epochs=2, ramp_epochs=1)
    assert fit(pruned, 3, schedule).history["loss"][:2] == expected


def test_logs_reach_history_progress_bar_csv_and_tensorboard(tmp_path, capsys):
    model = compiled(allocation="uniform")
    callbacks = [
        PDPScheduleCallback(ramp_epochs=2, **STRAIGHT),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        keras.callbacks.TensorBoard(str(tmp_path / "board")),
    ]
    history = fit(model, 3, *callbacks, verbose=2)
    assert history.history["sparsity"] == [0.25, 0.5, 0.5]
    with open(tmp_path / "log.csv", newline="") as file:
        assert [float(row["sparsity"]) for row in csv.DictReader(file)] == [
            0.25,
            0.5,
            0.5,
        ]
    assert "sparsity: 0.2500" in capsys.readouterr().out
    events = list((tmp_path / "board" / "train").glob("events*"))
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events[0]))
        for value in event.summary.value
    }
    assert "epoch_sparsity" in tags


def test_validation_sees_the_stripped_models_accuracy():
    from pdp_keras import strip_pruning

    model = compiled(0.8)
    history = fit(
        model, 3, PDPScheduleCallback(ramp_epochs=2), validation_data=(X, Y)
    ).history
    stripped = strip_pruning(model)
    stripped.compile(loss="mse")
    assert stripped.evaluate(X, Y, batch_size=8, verbose=0) == history["val_loss"][-1]


def test_forgetting_the_callback_warns():
    model = compiled()
    with pytest.warns(UserWarning, match=r"stays dense.*PDPScheduleCallback"):
        fit(model, 1)
    assert zeros(model) == [0, 0]


def test_fine_tuning_a_pruned_model_needs_no_callback():
    model = compiled()
    fit(model, 1, PDPScheduleCallback(ramp_epochs=1))
    fit(model, 1)
    assert sum(zeros(model)) == 90


@pytest.mark.parametrize("update", ["epoch", "step"])
def test_a_custom_loop_does_what_fit_does(update):
    arguments = {"warmup_epochs": 1, "ramp_epochs": 2, "update": update}
    fitted = compiled()
    fit(fitted, 4, PDPScheduleCallback(**arguments))

    model = compiled()
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 32, 8)]
    schedule = PDPScheduleCallback(**arguments)
    schedule.start(model, epochs=4, steps_per_epoch=len(batches))
    seen = []
    for epoch in range(4):
        schedule.start_epoch(epoch)
        for step, batch in enumerate(batches):
            schedule.start_step(step)
            model.train_on_batch(*batch)
        seen.append(schedule.sparsity)
    assert seen[0] == 0 and seen[-1] == 0.5
    for a, b in zip(fitted.variables, model.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_distribution_over_two_devices():
    script = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
import keras, numpy as np, pdp_keras
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    dense = [keras.layers.Dense(20), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *dense])
    pruned = pdp_keras.prune_model(model, 0.5, allocation='uniform')
    pruned.compile("adam", "mse")
x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
history = pruned.fit(x, x[:, :3], epochs=3, verbose=0,
                     callbacks=[pdp_keras.PDPScheduleCallback(ramp_epochs=2)])
print(strategy.num_replicas_in_sync, history.history["sparsity"])
small = pdp_keras.strip_pruning(pruned)
same = np.allclose(
    small.predict(x, verbose=0), pruned.predict(x, verbose=0), rtol=1e-5, atol=1e-6
)
print(same)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    # 7/8 of 60 and of 30 weights: round(52.5), to the even one, and round(26.25).
    expected = [f"2 {[(52 + 26) / 180, 0.5, 0.5]}", "True"]
    assert done.stdout.splitlines()[-2:] == expected, done.stderr


def test_the_report_follows_the_run():
    model = compiled(0.5, allocation="uniform")
    fit(model, 1, PDPScheduleCallback(ramp_epochs=1))
    assert [row.zeros for row in sparsity_report(model).rows] == [60, 30]


@pytest.mark.slow
def test_a_run_that_ends_with_its_ramp_keeps_its_accuracy():
    """Rounding a mask that was still wide at the end once left 15 % of 99 %."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")

    def accuracy_on_validation(final_temperature):
        keras.utils.set_random_seed(0)
        model = prune_model(models.mlp(64, 64, 10), 0.9)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
        schedule = PDPScheduleCallback(
            warmup_epochs=3, ramp_epochs=9, final_temperature=final_temperature
        )
        history = model.fit(
            images[:1400],
            labels[:1400],
            epochs=12,
            validation_data=(images[1400:], labels[1400:]),
            callbacks=[schedule],
            verbose=0,
        ).history
        return history["val_accuracy"][-1]

    falling = accuracy_on_validation(0.01)
    assert falling > 0.85
    assert falling > accuracy_on_validation(1.0) + 0.05


@pytest.mark.parametrize(
    ("arguments", "epochs", "expected"),
    [
        # 20 channels, 10 of them to be pruned.
        ({"warmup_epochs": 1, "ramp_epochs": 2, **STRAIGHT}, 4, [0, 0.25, 0.5, 0.5]),
        # 2 of 8 steps are a fourth of the ramp: round(2.5) channels, to the even one.
        (
            {"ramp_epochs": 2, "ramp": "linear", "update": "step"},
            3,
            [0.25, 0.5, 0.5],
        ),
        # After half of the ramp 7/8 of 10 channels: round(8.75).
        ({"warmup_epochs": 1, "ramp_epochs": 2}, 4, [0, 0.45, 0.5, 0.5]),
    ],
    ids=["epoch", "step", "as it is"],
)
def test_channels_are_counted_in_the_logs(arguments, epochs, expected):
    model = compiled(0.5, mode="channel")
    group = parts.channel_groups(model)[0]
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(int(group.zeros.numpy()))
    )
    history = fit(model, epochs, PDPScheduleCallback(**arguments), watch).history
    np.testing.assert_allclose(history["sparsity"], expected)
    assert seen == sorted(seen) and seen[-1] == 10
    if arguments.get("update") == "step":
        assert seen[:8] == [1, 2, 4, 5, 6, 8, 9, 10]
    assert float(group.temperature_scale.numpy()) < 1


def test_training_channels_without_the_callback_warns_once():
    model = compiled(0.5, mode="channel")
    with pytest.warns(UserWarning, match=r"stays dense.*PDPScheduleCallback") as caught:
        fit(model, 1)
    assert len(caught) == 1


def test_an_allocation_of_the_callback_for_channels():
    keras.utils.set_random_seed(3)
    model = prune_model(models.cnn(), 0.5, "channel")
    schedule = PDPScheduleCallback(
        ramp_epochs=1, allocation={"stem": 0.25, "nested/hidden": 0.75}
    )
    schedule.start(model, epochs=2)
    schedule.start_epoch(0)
    counts = {g.label: int(g.zeros.numpy()) for g in parts.channel_groups(model)}
    assert counts == {"stem": 2, "nested/hidden": 9}
    assert schedule.sparsity == 11 / 20


def test_a_learned_sparsity_is_counted_when_it_is_asked_for():
    """Also what the last step has made of it."""
    model = compiled(method=methods.STR(initial=0.0))
    schedule = PDPScheduleCallback(ramp_epochs=1)
    schedule.start(model, epochs=2, steps_per_epoch=4)
    schedule.start_epoch(0)
    for weight in parts.pruned_weights(model):
        values = np.ones(weight.variable.shape)
        values[0] = 0.25
        weight.variable.assign(values)
    assert schedule.sparsity == (20 + 3) / 180
