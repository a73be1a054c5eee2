"""How far a run has pruned, and how soft its mask is, at each epoch and step."""

import keras
import models
import numpy as np
import pytest
from keras import layers
from runs import STRAIGHT, compiled, fit, zeros

from pdp_keras import PDPScheduleCallback, PDPWrapper, prune_model
from pdp_keras.pruned import parts


@pytest.mark.parametrize(
    ("arguments", "epochs", "expected"),
    [
        # 180 weights, 90 of them to be pruned.
        ({"ramp_epochs": 1}, 2, [0.5, 0.5]),
        ({"warmup_epochs": 2, "ramp_epochs": 1}, 4, [0, 0, 0.5, 0.5]),
        # 1 - (2/3)**3 and 1 - (1/3)**3 of the target.
        (
            {"warmup_epochs": 1, "ramp_epochs": 3},
            5,
            [0, 19 / 54, 26 / 54, 0.5, 0.5],
        ),
        (
            {"warmup_epochs": 1, "ramp_epochs": 3, **STRAIGHT},
            5,
            [0, 1 / 6, 1 / 3, 0.5, 0.5],
        ),
        ({"warmup_epochs": 1, "epsilon": 0.5, **STRAIGHT}, 4, [0, 0.25, 0.5, 0.5]),
        # By step an epoch ends where it ends by epoch; 4 steps an epoch.
        (
            {"warmup_epochs": 1, "ramp_epochs": 2, "ramp": "linear", "update": "step"},
            4,
            [0, 0.25, 0.5],
        ),
        # The fraction (step + 1) / 10 at the last steps 3, 7, 11.
        ({"schedule": lambda step: min(1, (step + 1) / 10)}, 3, [0.2, 0.4, 0.5]),
        ({"schedule": lambda step: float(step >= 4)}, 3, [0, 0.5, 0.5]),
    ],
    ids=[
        "at once",
        "warm-up",
        "ramp",
        "straight ramp",
        "epsilon",
        "by step",
        "line",
        "jump",
    ],
)
def test_sparsity_of_each_epoch(arguments, epochs, expected):
    model = compiled(allocation="uniform")
    history = fit(model, epochs, PDPScheduleCallback(**arguments)).history
    np.testing.assert_allclose(
        history["sparsity"][: len(expected)], expected, atol=1.01 / 180
    )
    assert history["sparsity"][-1] == 0.5 and zeros(model) == [60, 30]


@pytest.mark.filterwarnings("ignore:The default ramp of a run of one epoch")
@pytest.mark.parametrize(
    ("given", "epochs", "meant"),
    [
        ({}, 10, {"warmup_epochs": 1, "ramp_epochs": 4}),
        ({"update": "epoch"}, 5, {"warmup_epochs": 0.5, "ramp_epochs": 2}),
        ({"warmup_epochs": 3}, 10, {"warmup_epochs": 3, "ramp_epochs": 4}),
        ({}, 1, {"warmup_epochs": 0.1, "ramp_epochs": 0.4}),
    ],
)
def test_phases_that_are_not_given_are_parts_of_the_run(given, epochs, meant):
    model, other = compiled(), compiled()
    fit(model, epochs, PDPScheduleCallback(**given))
    fit(other, epochs, PDPScheduleCallback(**(given | meant)))
    assert sum(zeros(model)) == 90
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_one_callback_serves_runs_of_other_lengths():
    schedule = PDPScheduleCallback(**STRAIGHT)
    for epochs, expected in ((10, [0.0, 0.125]), (20, [0.0, 0.0, 0.0625])):
        model = compiled(allocation="uniform")
        found = fit(model, epochs, schedule).history["sparsity"]
        np.testing.assert_allclose(found[: len(expected)], expected, atol=0.01)
        assert found[-1] == 0.5


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [
        # round(60 * k / 8), halves to even, for steps 1 to 8, then the target.
        ("linear", [8, 15, 22, 30, 38, 45, 52, 60]),
        # round(60 * (1 - (1 - k / 8)**3)).
        ("cubic", [20, 35, 45, 52, 57, 59, 60, 60]),
        (None, [20, 35, 45, 52, 57, 59, 60, 60]),
    ],
)
def test_steps_between(ramp, expected):
    model = compiled(allocation="uniform", filters="first")
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(zeros(model)[0])
    )
    schedule = PDPScheduleCallback(
        ramp_epochs=2, ramp=ramp, update=None if ramp is None else "step"
    )
    fit(model, 3, schedule, watch)
    assert seen == [*expected, 60, 60, 60, 60]


def test_steps_per_execution():
    model = prune_model(models.mlp(), 0.5, allocation="uniform", filters="first")
    model.compile("adam", "mse", steps_per_execution=2)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(zeros(model)[0])
    )
    schedule = PDPScheduleCallback(ramp_epochs=2, ramp="linear", update="step")
    fit(model, 3, schedule, watch)
    # The value of the first step of each execution.
    assert seen[:4] == [8, 22, 38, 52] and zeros(model) == [60]


@pytest.mark.parametrize("kind", ["ConstantSparsity", "PolynomialDecay"])
def test_schedules_of_tfmot(kind):
    import tensorflow_model_optimization as tfmot

    make = getattr(tfmot.sparsity.keras, kind)
    if kind == "ConstantSparsity":
        schedule = make(0.5, begin_step=4)
        expected = [0, 0.5, 0.5, 0.5]
    else:
        schedule = make(0.0, 0.5, begin_step=4, end_step=8, power=1, frequency=100)
        # At steps 3, 7, 11, 15: 3 / 4 of the ramp at step 7.
        expected = [0, 0.375, 0.5, 0.5]
    model = compiled(allocation="uniform")
    history = fit(model, 4, PDPScheduleCallback(schedule=schedule)).history
    np.testing.assert_allclose(history["sparsity"], expected, atol=1 / 180)


def test_schedules_of_keras():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, 8, end_learning_rate=1.0)
    model = compiled(allocation="uniform")
    history = fit(model, 3, PDPScheduleCallback(schedule=schedule)).history
    np.testing.assert_allclose(history["sparsity"], [0.1875, 0.4375, 0.5], atol=1 / 90)


def test_the_temperature_falls_in_the_second_half_of_the_ramp():
    model = compiled(allocation="uniform")
    scales = []

    def remember(epoch, logs):
        weights = parts.pruned_weights(model)
        scales.append(float(weights[0].temperature_scale.numpy()))

    watch = keras.callbacks.LambdaCallback(on_epoch_end=remember)
    schedule = PDPScheduleCallback(ramp_epochs=4, final_temperature=0.01)
    fit(model, 7, schedule, watch)
    np.testing.assert_allclose(scales, [1, 1, 0.1, 0.01, 0.01, 0.01, 0.01], rtol=1e-6)
    # So the mask is all but hard at the end.
    weight = parts.pruned_weights(model)[0]
    soft, hard = (np.asarray(weight.masked_values(t)[0][1]) for t in (True, False))
    assert np.mean(np.abs(soft - hard) > 0.01) < 0.05


def test_the_papers_constant_temperature_is_one_argument_away():
    model = prune_model(models.mlp(), 0.5, temperature=1e-3)
    model.compile("adam", "mse")
    fit(model, 4, PDPScheduleCallback(ramp_epochs=1, final_temperature=1))
    weight = parts.pruned_weights(model)[0]
    assert weight.temperature_scale.numpy() == 1
    np.testing.assert_allclose(weight.width(np.float32(0.1)), np.sqrt(1e-3), rtol=1e-6)


def zeros_of_each_call(model, epochs, steps=4, **arguments):
    """Of the first weight, in a loop that trains nothing."""
    schedule = PDPScheduleCallback(**arguments)
    schedule.start(model, epochs=epochs, steps_per_epoch=steps)
    seen = []
    for epoch in range(epochs):
        schedule.start_epoch(epoch)
        for step in range(steps or 1):
            schedule.start_step(step)
            seen.append(zeros(model)[0])
    return seen


# id: method, ramp, zeros of 60 after each of 4 epochs of the ramp
SHAPES = {
    "pdp": ("pdp", None, [35, 52, 59, 60]),
    "pdp, linear": ("pdp", "linear", [15, 30, 45, 60]),
    "pdp_paper": ("pdp_paper", None, [15, 30, 45, 60]),
    "pdp_paper, cubic": ("pdp_paper", "cubic", [35, 52, 59, 60]),
    "gmp": ("gmp", None, [35, 52, 59, 60]),
    "gmp, linear": ("gmp", "linear", [15, 30, 45, 60]),
    "dnw": ("dnw", None, [60, 60, 60, 60]),
    "dnw, linear": ("dnw", "linear", [15, 30, 45, 60]),
    "rigl, always all": ("rigl", "linear", [60, 60, 60, 60]),
}


@pytest.mark.parametrize(("method", "ramp", "expected"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("update", ["epoch", "step"])
def test_the_shape_of_the_ramp(method, ramp, expected, update):
    model = compiled(allocation="uniform", method=method)
    seen = zeros_of_each_call(model, 4, ramp_epochs=4, ramp=ramp, update=update)
    assert seen[3::4] == expected


def test_update_is_left_to_the_method():
    changes = {}
    for name in ("pdp", "pdp_paper", "gmp"):
        model = compiled(method=name, allocation="uniform")
        seen = zeros_of_each_call(model, 4, ramp_epochs=4, ramp="linear")
        changes[name] = len(set(seen))
    # PDP's paper goes by epoch.
    assert changes == {"pdp": 16, "pdp_paper": 4, "gmp": 16}


@pytest.mark.parametrize("method", ["gmp", "granet", "pofa", "rigl", "acdc", "optg"])
def test_without_a_number_of_steps_it_goes_by_epoch(method):
    """As in a `fit` with a generator."""
    model = compiled(method=method)
    zeros_of_each_call(model, 4, None, ramp_epochs=2)
    assert sum(zeros(model)) == 90
    model = compiled(method=method)
    schedule = PDPScheduleCallback(ramp_epochs=2, update="step")
    with pytest.raises(ValueError, match="Received: steps_per_epoch=None"):
        schedule.start(model, epochs=4)


# id: method, arguments, what is left of the temperature in each of 6 epochs
FALLS = {
    "in the second half of the ramp": ("pdp", {}, [1, 1, 0.1, 0.01, 0.01, 0.01]),
    "about the end of the ramp": (
        "pdp",
        {"fall": (0.5, 1.5)},
        [1, 1, 0.1**0.5, 0.1, 0.1**1.5, 0.01],
    ),
    "within the ramp": (
        "pdp",
        {"fall": (0, 1)},
        [0.1**0.5, 0.1, 0.1**1.5, 0.01, 0.01, 0.01],
    ),
    "after the ramp": ("pdp", {"fall": (1, 1.5)}, [1, 1, 1, 1, 0.1, 0.01]),
    "not that far": (
        "pdp",
        {"fall": (1, 1.5), "final_temperature": 0.25},
        [1, 1, 1, 1, 0.5, 0.25],
    ),
    "the paper's stays": ("pdp_paper", {}, [1] * 6),
    "the paper's, falling": (
        "pdp_paper",
        {"final_temperature": 0.01},
        [1, 1, 0.1, 0.01, 0.01, 0.01],
    ),
}


def scales_of_each_epoch(model, **arguments):
    """What is left of the temperature, of the first weight and of the last one."""
    schedule = PDPScheduleCallback(ramp_epochs=4, **arguments)
    schedule.start(model, epochs=6)
    found = []
    for epoch in range(6):
        schedule.start_epoch(epoch)
        weights = parts.pruned_weights(model)
        found.append([float(weights[i].temperature_scale.numpy()) for i in (0, -1)])
    return np.transpose(found)


@pytest.mark.parametrize(("method", "arguments", "left"), FALLS.values(), ids=FALLS)
def test_when_the_temperature_falls(method, arguments, left):
    found = scales_of_each_epoch(compiled(method=method), **arguments)
    np.testing.assert_allclose(found, [left, left], rtol=1e-6)


@pytest.mark.parametrize(
    ("modes", "case"),
    [
        # The groups of N:M decide early, unless other weights are to stay soft.
        (("2:4", "2:4"), "within the ramp"),
        (("2:4", "unstructured"), "in the second half of the ramp"),
        (("unstructured", "2:4"), "in the second half of the ramp"),
    ],
)
def test_when_the_temperature_falls_in_each_mode(modes, case):
    wrapped = [PDPWrapper(layers.Dense(8), 0.5, mode=mode) for mode in modes]
    model = keras.Sequential([keras.Input((8,)), *wrapped])
    np.testing.assert_allclose(
        scales_of_each_epoch(model), [FALLS[case][2]] * 2, rtol=1e-6
    )


# Steps in an epoch, epochs of the ramp, what else; the steps at which counters change.
CHANGES = {
    "short": (30, 2, {}, list(range(60))),
    "long": (150, 2, {}, [*range(0, 300, 3), 299]),
    # Counted from the first step of an epoch, where a resumed run begins.
    "odd epochs": (
        100,
        3,
        {},
        [*range(0, 100, 3), *range(100, 200, 3), *range(200, 300, 3)],
    ),
    "a schedule": (
        150,
        None,
        {"schedule": lambda step: min(1, (step + 1) / 300)},
        list(range(300)),
    ),
}


@pytest.mark.parametrize(
    ("steps", "ramp", "arguments", "expected"), CHANGES.values(), ids=CHANGES
)
def test_a_long_ramp_changes_about_a_hundred_times(steps, ramp, arguments, expected):
    layer = PDPWrapper(keras.layers.Dense(100), sparsity=0.9)
    model = keras.Sequential([keras.Input((100,)), layer])
    if ramp is not None:
        arguments = {"ramp_epochs": ramp, "ramp": "linear", **arguments}
    schedule = PDPScheduleCallback(final_temperature=1, **arguments)
    schedule.start(model, epochs=3, steps_per_epoch=steps)
    found, now = [], 0
    for epoch in range(3):
        schedule.start_epoch(epoch)
        for step in range(steps):
            schedule.start_step(step)
            if zeros(model) != [now]:
                found.append(epoch * steps + step)
                (now,) = zeros(model)
    assert found == expected
    assert now == 9000
